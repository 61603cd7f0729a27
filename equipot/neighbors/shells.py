"""Neighbours within cutoffs shorter than that of a list, for the terms of a sum that see less far than others.

Where a graph has ``shells``, the nearest neighbours of each atom stand in the first slots, so that a term with a shorter cutoff
is called with these slots alone. A neighbour that stands elsewhere makes the term's energies NaN: none is left out silently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import PADDING_VECTOR, Graph, Shell
from equipot.neighbors.host import Slots

MARGIN = 1.0e-4
"""Relative excess of a cutoff, within which neighbours are counted, over what a term sees: for rounding."""


def narrowed(
    graph: Graph, vectors: Float[Array, "atoms slots 3"], cutoff: float
) -> tuple[Graph, Float[Array, "atoms near 3"], Bool[Array, ""]]:
    """Keep the slots that the graph's shells plan for a cutoff (Å), all slots where no shell is that large.

    Returns:
        The graph, its vectors (Å), and whether a neighbour within the cutoff is lost; results must then not be used.
    """
    fitting = [shell for shell in graph.shells if shell.cutoff >= cutoff and shell.slots < graph.num_slots]
    if not fitting:
        return graph, vectors, jnp.asarray(False)
    shell = min(fitting, key=lambda shell: shell.slots)
    near, width = shell.slots, graph.num_slots
    beyond = jnp.sum(vectors[:, near:] ** 2, axis=-1) < cutoff**2
    lost = jnp.any(graph.slot_mask[:, near:] & beyond)
    mask, reverse = jnp.asarray(graph.slot_mask)[:, :near], None
    own = jnp.arange(graph.num_atoms * near, dtype=jnp.int32).reshape(-1, near)
    if graph.reverse is not None:
        row, slot = jnp.divmod(jnp.asarray(graph.reverse)[:, :near], width)
        # A pair that only one of its atoms has near is farther than the cutoff, or lost.
        mask = mask & (slot < near)
        reverse = jnp.where(mask, row * near + slot, own)
    atom = jnp.arange(graph.num_atoms, dtype=jnp.int32)[:, None]
    kept = graph.replace(
        neighbors=jnp.where(mask, graph.neighbors[:, :near], atom),
        shifts=jnp.where(mask[..., None], graph.shifts[:, :near], 0),
        reverse=reverse,
        slot_mask=mask,
        shells=tuple(other for other in graph.shells if other.slots < near),
        pair_capacity=shell.pairs,
    )
    return kept, jnp.where(mask[..., None], vectors[:, :near], jnp.asarray(PADDING_VECTOR, vectors.dtype)), lost


def nearest_first(found: Slots, positions: Float[np.ndarray, "atoms 3"], cell: Float[np.ndarray, "3 3"]) -> Slots:
    """Sort the slots of each atom by distance; positions and cell in Å."""
    width = found.mask.shape[1]
    order = np.argsort(_squares(found, positions, cell), axis=1, kind="stable")
    place = np.argsort(order, axis=1)
    row, slot = np.divmod(found.reverse, width)
    reverse = (row * width + place[row, slot]).astype(np.int32)
    take = lambda x: np.take_along_axis(x, order, axis=1)
    shifts = np.take_along_axis(found.shifts, order[..., None], axis=1)
    return Slots(take(found.neighbors), shifts, take(reverse), take(found.mask))


def crowding(
    found: Slots, positions: Float[np.ndarray, "atoms 3"], cell: Float[np.ndarray, "3 3"], cutoffs: Sequence[float]
) -> tuple[int, ...]:
    """Count the neighbours within each cutoff (Å) of the atom that has most, at least one; positions and cell in Å."""
    squares = _squares(found, positions, cell) if cutoffs else np.zeros((0, 0))
    counts = (np.sum(squares < (cutoff * (1 + MARGIN)) ** 2, axis=1) for cutoff in cutoffs)
    return tuple(max(1, int(count.max(initial=0))) for count in counts)


SPARE = 1.2
"""Room in a list that is kept while atoms move, over what was counted when it was built."""


def room(count: int, old: int = 0, spare: float = SPARE) -> int:
    """Plan slots for a count of neighbours with spare ones, a multiple of four; as many as before where these are enough."""
    return old if count <= old else 4 * math.ceil(spare * count / 4)


def roomy_shells(
    counts: Sequence[int], cutoffs: Sequence[float], old: Sequence[Shell] = (), spare: float = SPARE
) -> tuple[Shell, ...]:
    """Plan shells with spare slots.

    Args:
        counts: Neighbours within each cutoff of the atom that has most, see ``crowding``.
        cutoffs: Å.
        old: Shells of the list before, which are kept where they are enough.
        spare: Factor on the counts.
    """
    before = {shell.cutoff: shell.slots for shell in old}
    return tuple(
        Shell(cutoff, room(int(count), before.get(cutoff, 0), spare)) for cutoff, count in zip(cutoffs, counts, strict=True)
    )


def _squares(found: Slots, positions: np.ndarray, cell: np.ndarray) -> Float[np.ndarray, "atoms slots"]:
    """Compute the squared distance of each slot (Å^2); infinity in unused slots."""
    vectors = positions[found.neighbors] + found.shifts @ cell - positions[:, None]
    return np.where(found.mask, np.sum(vectors**2, axis=-1), np.inf)


def order_on_device(
    squares: Float[Array, "atoms slots"], mask: Bool[Array, "atoms slots"], shells: Sequence[Shell], skin: float
) -> tuple[Int[Array, "atoms slots"], Int[Array, "atoms slots"], Bool[Array, ""]]:
    """Order the slots of a list for dynamics by the smallest shell that reaches them; unused slots come last.

    Args:
        squares: Squared distances, Å^2.
        mask: Whether a slot holds a neighbour.
        shells: Shells of the list.
        skin: Excess of the list radius over each cutoff, Å.

    Returns:
        Present slot of each new slot, new slot of each present slot, and whether a shell has too few slots.
    """
    atoms, width = mask.shape
    place, filled = jnp.zeros(mask.shape, jnp.int32), jnp.zeros((atoms, 1), jnp.int32)
    left, overflow = jnp.ones(mask.shape, bool), jnp.asarray(False)
    limits = [(jnp.asarray(mask & (squares < (s.cutoff + skin) ** 2)), s.slots) for s in sorted(shells)]
    for inside, slots in [*limits, (mask, width), (jnp.ones(mask.shape, bool), width)]:
        now = left & inside
        rank = jnp.cumsum(now, axis=1, dtype=jnp.int32)
        place = jnp.where(now, filled + rank - 1, place)
        filled, left = filled + rank[:, -1:], left & ~inside
        overflow |= jnp.any(filled > slots)
    row = jnp.arange(atoms, dtype=jnp.int32)[:, None]
    own = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), mask.shape)
    return jnp.zeros(mask.shape, jnp.int32).at[row, place].set(own, unique_indices=True), place, overflow
