"""Check of the opcodes of a pickle, before anything is built, for excessive use of memory or time by its reader."""

from __future__ import annotations

import pickle
import pickletools
from typing import Any

LARGEST_VALUE = 10_000
"""Largest number of parts of one value, parts of parts included; checkpoints of the known programs have some dozens."""
CHANGES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Opcodes that change the deepest of their operands on the stack and leave this operand there."""
MARK = 0
"""Number of parts of a mark on the stack; all other values have at least one part."""


def check(text: bytes) -> None:
    """Check the size of all values and memo indices in a pickle by a walk over its opcodes.

    Shared parts of a value count each time: hashing forty nested tuples, each of which holds the tuple before twice, takes 2^40
    steps. Storing at an index of the memo takes memory in proportion to the index. A string that claims to be longer than the
    pickle makes the walk raise.

    Raises:
        UnpicklingError: a memo index exceeds the length of the pickle, or a value has more than ``LARGEST_VALUE`` parts.
        ValueError: the text is not a pickle, or is cut short.
        LookupError: an opcode has too few operands on the stack.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    for opcode, arg, _ in pickletools.genops(text):
        name = opcode.name
        if name == "MEMOIZE" or name.endswith("PUT"):
            place = len(memo) if arg is None else arg
            if place > len(text):
                raise pickle.UnpicklingError(f"place {place} of a memo in {len(text)} bytes")
            memo[place] = stack[-1]
        elif name.endswith("GET"):
            assert arg is not None, name
            stack.append(memo[arg])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            stack.pop()
        else:
            operands = _operands(stack, opcode.stack_before)
            parts = operands[-1] if name in CHANGES else 1 + sum(operands)
            if parts > LARGEST_VALUE:
                raise pickle.UnpicklingError(f"a value of more than {LARGEST_VALUE} parts, because it shares them")
            stack += [MARK if kind is pickletools.markobject else parts for kind in opcode.stack_after]


def _operands(stack: list[int], kinds: list[Any]) -> list[int]:
    """Pop the operands of an opcode from the stack, the top first."""
    operands: list[int] = []
    if pickletools.markobject in kinds:
        while part := stack.pop():
            operands.append(part)
        kinds = kinds[: kinds.index(pickletools.markobject)]
    return operands + [stack.pop() for _ in kinds]
