"""Plan the padded shapes of batches before compilation.

JAX compiles once for each shape. A further shape pays if it saves more work on padding than its compilation costs; ``cost``
counts work.

- ``plan_ladder`` chooses a short ladder of shapes for given batches, such as those drawn at random in training.
- ``plan_batches`` chooses both batches and shapes, for evaluation of systems of any size. Sizes are rounded up to rungs a
  quarter of an octave apart, so that lists of slightly different systems share compiled programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from equipot.data.batch import Shape

NODE_COST = 8
"""Work of an atom beside its slots, in slots: the work of a batch is atoms x (slots + NODE_COST)."""
WORTH = 0.05
"""Share of the work that a further rung of a ladder must save; a long run compiles each rung once."""
SHAPE_COST = 2**18
"""Work (in slots, see ``cost``) that a further shape must save: about what two cores evaluate with a small MACE while XLA
compiles once."""
SAMPLE = 1000
"""Number of structures from which borders between widths are chosen."""
MOST_BORDERS = 4


def cost(atoms: Any, slots: Any) -> Any:
    """Compute the work of a shape, in slots."""
    return atoms * (slots + NODE_COST)


def packed_cost(atoms: Any, pairs: Any) -> Any:
    """Compute the work of a shape with a capacity for pairs, in slots."""
    return pairs + NODE_COST * atoms


def plan_ladder(
    needs: np.ndarray, cover: tuple[int, int], limit: int, cost: Callable[[Any, Any], Any] = cost
) -> list[tuple[int, int]]:
    """Choose at most ``limit`` rungs (atoms, slots), cheapest first, that hold batches with little padding.

    Greedy: starts with ``cover`` and adds the rung that saves most work, while the saving exceeds the share ``WORTH``.

    Args:
        needs: (batches, 2) atoms and slots of each batch, or atoms and pairs.
        cover: atoms and slots that hold any batch, or atoms and pairs.
        limit: Largest number of rungs.
        cost: Function of atoms and slots, or of atoms and pairs: the work of a batch.
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
    """Largest size of a batch, None for no limit; a larger structure becomes a batch of its own."""

    slots: int | None = None
    """Atoms times slots per atom, padding included."""
    frames: int | None = None
    """Number of structures."""


class Planned(NamedTuple):
    """Indices of the structures of one batch, and the batch's shape."""

    frames: tuple[int, ...]
    shape: Shape


def rung(size: int) -> int:
    """Round a size up to a rung: 1, 2, ... 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ..."""
    step = 1 << max(0, (size - 1).bit_length() - 3)
    return -(-size // step) * step


def rung_below(size: int) -> int:
    """Round a size down to a rung, at least 1."""
    step = 1 << max(0, size.bit_length() - 3)
    return max(1, size // step * step)


def plan_batches(sizes: np.ndarray, limit: Limit) -> list[Planned]:
    """Distribute structures over batches, each structure once; the costliest batch comes first.

    Starts with one width (slots per atom) for all and adds the border between widths that saves most, while one saves work in a
    sample of the structures.

    Args:
        sizes: (structures, 2) atoms and slots.
    """
    if not len(sizes):
        return []
    sizes = np.maximum(sizes, 1)
    order = np.lexsort((sizes[:, 0], sizes[:, 1]))
    few = sizes[order[np.linspace(0, len(order) - 1, min(SAMPLE, len(order))).round().astype(int)]]
    batches = _arrange(sizes, _borders(few, limit, SHAPE_COST * len(few) / len(sizes)), limit, SHAPE_COST)
    return sorted(batches, key=lambda b: (-cost(b.shape.atoms, b.shape.slots), -sizes[b.frames[-1], 0], b.frames))


def _borders(sizes: np.ndarray, limit: Limit, price: float) -> list[int]:
    """Choose the widths (slots per atom) of batches, ascending; a further shape costs ``price``."""
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
    """Distribute structures over batches by the widths ``borders``, and merge shapes that save less than ``price``."""
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
    """Split structures (``atoms`` ascending) into batches of about equal size, up to ``capacity`` atoms and ``most`` frames."""
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
    """Split structures into the fullest possible batches of at least one; ``ends`` are cumulative numbers of atoms."""
    parts, first = [], 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + capacity, side="right"))
        last = min(max(last, first + 1), first + most, len(ends))
        parts.append(slice(first, last))
        first = last
    return parts


def _merge(shapes: Counter[tuple[int, int]], price: float) -> dict[tuple[int, int], tuple[int, int]]:
    """Replace shapes by larger ones where the added padding costs less than ``price``; return the new shape of each shape."""
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
