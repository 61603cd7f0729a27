"""What a pickle must not do to the memory or the time of its reader, seen from its opcodes before anything is built."""

from __future__ import annotations

import pickle
import pickletools
from typing import Any

LARGEST_VALUE = 10_000
"""Parts of one tuple, those of its parts included. In checkpoints of the known programs it has some dozens."""
CHANGES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Opcodes that change what lies deepest among their operands and leave it there."""
MARK = 0
"""Stands for a mark on the stack, where everything else is at least one part."""


def check(text: bytes) -> None:
    """Follows how many parts each value on the stack has when shared ones count each time.

    A place of the memo costs memory up to its number, and tuples are hashed part by part: forty, each of which holds the one
    before twice, take 2^40 steps. That a string is longer than the pickle is found by the walk itself.

    Raises:
        UnpicklingError: a place of the memo beyond the length of the pickle, or a value of more than ``LARGEST_VALUE`` parts.
        ValueError: not a pickle, or cut short.
        LookupError: operands that are not there.
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
    """Takes from the stack what an opcode does, the top first."""
    operands: list[int] = []
    if pickletools.markobject in kinds:
        while part := stack.pop():
            operands.append(part)
        kinds = kinds[: kinds.index(pickletools.markobject)]
    return operands + [stack.pop() for _ in kinds]
