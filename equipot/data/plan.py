"""The padded shapes of batches, planned before anything is compiled.

JAX compiles once for each shape. A shape is worth it where the padding that it saves is more work than its compilation costs;
work is counted by ``cost``. What is planned differs by what is free:

- ``plan_ladder``: the batches are given, as in training, where the seed has drawn them. A short ladder of shapes is chosen.
- ``plan_batches``: the batches are free too, as in evaluation: molecules beside a great cell, in few shapes. Sizes are rounded
  up to rungs that are a quarter of an octave apart, so that lists that differ a little share what is compiled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from equipot.data.batch import Shape

NODE_COST = 8
"""What an atom costs besides its slots, in slots: the work of a batch is taken as atoms x (slots + NODE_COST)."""
WORTH = 0.05
"""Share of the work that a further rung of a ladder must save; a long run compiles it once."""
SHAPE_COST = 2**18
"""Work that one more shape must save, in slots as ``cost`` counts them: two cores evaluate about so many with a small MACE
while XLA compiles it once."""
SAMPLE = 1000
"""Structures looked at when borders between widths are chosen."""
MOST_BORDERS = 4


def cost(atoms: Any, slots: Any) -> Any:
    """Work of a shape, in slots."""
    return atoms * (slots + NODE_COST)


def plan_ladder(needs: np.ndarray, cover: tuple[int, int], limit: int) -> list[tuple[int, int]]:
    """Choose at most ``limit`` rungs (atoms, slots), cheapest first, that hold batches with little padding.

    Greedy: beginning with ``cover``, the rung that saves most is added while it saves a share of ``WORTH``.

    Args:
        needs: (batches, 2) atoms and slots of each batch.
        cover: atoms and slots that hold any batch.
    """
    chosen = [cover]
    worst = lambda pair: np.where((needs <= np.array(pair)).all(1), cost(*pair), np.inf)
    best = worst(cover)
    ranks = np.linspace(0, 1, 17)[1:]
    candidates = {
        (int(np.quantile(needs[:, 0], a, method="higher")), int(np.quantile(needs[:, 1], s, method="higher")))
        for a in ranks
        for s in ranks
    }
    while len(chosen) < limit:
        totals = {pair: np.minimum(best, worst(pair)).sum() for pair in sorted(candidates)}
        pair = min(totals, key=totals.__getitem__)
        if totals[pair] > (1 - WORTH) * best.sum():
            break
        chosen.append(pair)
        best = np.minimum(best, worst(pair))
    return sorted(chosen, key=lambda pair: cost(*pair))


class Limit(NamedTuple):
    """How much goes into one batch; a structure that is larger than that is a batch of its own. None is no limit."""

    slots: int | None = None
    """Rows of atoms times slots of each, padding included."""
    frames: int | None = None


class Planned(NamedTuple):
    """Some structures and the shape that holds them."""

    frames: tuple[int, ...]
    shape: Shape


def rung(size: int) -> int:
    """The smallest of 1, 2, ... 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ... that is no smaller."""
    step = 1 << max(0, (size - 1).bit_length() - 3)
    return -(-size // step) * step


def rung_below(size: int) -> int:
    """The largest of them that is no larger, at least 1."""
    step = 1 << max(0, size.bit_length() - 3)
    return max(1, size // step * step)


def plan_batches(sizes: np.ndarray, limit: Limit) -> list[Planned]:
    """Batches of every structure once, the costliest first; ``sizes`` are (structures, 2) atoms and slots.

    Beginning with one width for all, the border between widths is added that saves most, as long as one saves anything (as far
    as a sample shows).
    """
    if not len(sizes):
        return []
    sizes = np.maximum(sizes, 1)
    order = np.lexsort((sizes[:, 0], sizes[:, 1]))
    few = sizes[order[np.linspace(0, len(order) - 1, min(SAMPLE, len(order))).round().astype(int)]]
    batches = _arrange(sizes, _borders(few, limit, SHAPE_COST * len(few) / len(sizes)), limit, SHAPE_COST)
    return sorted(batches, key=lambda b: (-cost(b.shape.atoms, b.shape.slots), -sizes[b.frames[-1], 0], b.frames))


def _borders(sizes: np.ndarray, limit: Limit, price: float) -> list[int]:
    """Widths that keep structures apart, ascending, where a further shape costs ``price``."""
    widths = sorted({rung(int(width)) for width in np.unique(sizes[:, 1])})

    def total(borders: set[int]) -> float:
        batches = _arrange(sizes, sorted(borders), limit, price)
        return sum(cost(b.shape.atoms, b.shape.slots) for b in batches) + price * len({b.shape for b in batches})

    borders = {widths[-1]}
    least = total(borders)
    while len(borders) < min(len(widths), 1 + MOST_BORDERS):
        tried = {w: total(borders | {w}) for w in widths if w not in borders}
        width = min(tried, key=tried.__getitem__)
        if tried[width] >= least:
            break
        borders, least = borders | {width}, tried[width]
    return sorted(borders)


def _arrange(sizes: np.ndarray, borders: Sequence[int], limit: Limit, price: float) -> list[Planned]:
    """Batches of structures between the same borders of width, in shapes of which the cheap ones to do without are gone."""
    filled: list[tuple[np.ndarray, tuple[int, int]]] = []
    last = 0
    for width in borders:
        (group,) = np.nonzero((sizes[:, 1] > last) & (sizes[:, 1] <= width))
        last = width
        group = group[np.argsort(sizes[group, 0], kind="stable")]
        capacity = int(sizes[:, 0].sum()) if limit.slots is None else rung_below(limit.slots // width)
        parts = _fill(sizes[group, 0], capacity, limit.frames or len(sizes))
        atoms = [int(sizes[group[part], 0].sum()) for part in parts]
        common = rung(max((n for n in atoms if n <= capacity), default=1))
        shapes = [(common if n <= capacity else rung(n), width) for n in atoms]
        filled += [(group[part], shape) for part, shape in zip(parts, shapes, strict=True)]
    merged = _merge(Counter(shape for _, shape in filled), price)
    # There are no more graphs than atoms; a number of their own would only make more shapes.
    return [
        Planned(tuple(frames.tolist()), Shape(*merged[shape], graphs=max(merged[shape][0], len(frames))))
        for frames, shape in filled
    ]


def _fill(atoms: np.ndarray, capacity: int, most: int) -> list[slice]:
    """Consecutive structures (``atoms`` ascending) in batches of about the same size, no larger than they may be."""
    ends = np.cumsum(atoms)
    parts = _cut(ends, capacity, most)
    small = int((atoms <= capacity).sum())
    count = sum(part.start < small for part in parts)
    if count < 2:
        return parts
    mean = -(-int(ends[small - 1]) // count)
    even = _cut(ends, min(capacity, mean + int(atoms[small - 1])), most if most >= small else -(-small // count))
    return even if len(even) <= len(parts) else parts


def _cut(ends: np.ndarray, capacity: int, most: int) -> list[slice]:
    """As many as fit into each, and at least one; ``ends`` are cumulative numbers of atoms."""
    parts, first = [], 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + capacity, side="right"))
        last = min(max(last, first + 1), first + most, len(ends))
        parts.append(slice(first, last))
        first = last
    return parts


def _merge(shapes: Counter[tuple[int, int]], price: float) -> dict[tuple[int, int], tuple[int, int]]:
    """What takes the place of each shape, once all are gone whose batches a larger one holds for less than ``price``."""
    names = sorted(shapes)
    table = np.array(names)
    number, into = np.array([shapes[name] for name in names]), np.arange(len(names))
    work = cost(table[:, 0], table[:, 1])
    fits = (table[:, None] <= table[None]).all(-1) & ~np.eye(len(names), dtype=bool)
    while True:
        there = number > 0
        more = np.where(fits & there[:, None] & there[None], number[:, None] * (work[None] - work[:, None]), np.inf)
        old, new = np.unravel_index(np.argmin(more), more.shape)
        if more[old, new] >= price:
            return {name: names[k] for name, k in zip(names, into, strict=True)}
        number[new] += number[old]
        number[old] = 0
        into[into == old] = new
