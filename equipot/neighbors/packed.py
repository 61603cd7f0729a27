"""The slots that count, one behind the other: what depends on a slot alone is computed for these and for no others.

A list for dynamics has slots for atoms within its skin, a batch of molecules as many as the best-connected atom needs. Within
the cutoff are fewer. On a CPU they are packed to the front, so that the work is that of the pairs there are; an accelerator,
which gains nothing from less work that is unevenly shared, takes the slots as they stand.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph, add_rows, sum_rows


class Halves(NamedTuple):
    """One of the two directed pairs of two atoms, for what is the same of both."""

    one: Int[Array, " half"]
    """A pair for each row."""
    row: Int[Array, " pairs"]
    """The row of each pair."""
    both: Int[Array, "half 2"]
    """The two pairs of each row."""
    count: Int[Array, ""]
    """Rows up to the last one used."""

    def pick(self, x: Float[Array, "pairs ..."]) -> Float[Array, "half ..."]:
        """What belongs to the pair that stands for both."""
        chosen = jnp.where((self.row >= 0) & (self.one[self.row] == jnp.arange(len(self.row))), self.row, -1)
        return sum_rows(x, self.one[:, None], chosen[:, None])

    def spread(self, y: Float[Array, "half ..."]) -> Float[Array, "pairs ..."]:
        """The same for both."""
        return sum_rows(y, self.row[:, None], self.both)


class Pairs(NamedTuple):
    """Directed pairs within the cutoff, in the order of their slots; as many rows as a graph has room for, the last ones empty.

    -1 stands for nothing everywhere.
    """

    slots: Int[Array, " pairs"]
    """Flat slot (atom * slots + slot) of a pair."""
    centers: Int[Array, " pairs"]
    neighbors: Int[Array, " pairs"]
    place: Int[Array, "atoms slots"]
    """The pair in each slot."""
    back: Int[Array, "atoms slots"] | None
    """The pair in the reverse slot; None where the list is not symmetric."""
    first: Int[Array, " atoms+1"]
    """The first pair of each atom, and the number of rows."""
    count: Int[Array, ""]
    """Rows up to the last pair."""
    halves: Halves | None
    """None where the list is not symmetric, or not packed."""
    lost: Bool[Array, ""]
    """Whether there are more pairs than rows: nothing that follows from these is to be used."""
    packed: bool
    """Whether the pairs of an atom follow each other without a gap."""

    def pick(self, x: Float[Array, "atoms slots ..."]) -> Float[Array, "pairs ..."]:
        """What belongs to slots."""
        flat = x.reshape(-1, *x.shape[2:])
        return sum_rows(flat, self.slots[:, None], self.place.reshape(-1, 1)) if self.packed else flat

    def of_centers(self, x: Float[Array, "atoms ..."]) -> Float[Array, "pairs ..."]:
        """What belongs to the gathering atom of each pair."""
        return sum_rows(x, self.centers[:, None], self.place)

    def of_neighbors(self, x: Float[Array, "atoms ..."]) -> Float[Array, "pairs ..."]:
        """What belongs to its neighbour."""
        return sum_rows(x, self.neighbors[:, None], self.back)

    def sum(self, y: Float[Array, "pairs ..."]) -> Float[Array, "atoms ..."]:
        """Sum over the pairs of each atom."""
        return sum_rows(y, self.place, self.centers[:, None])


def scatter_pairs(
    y: Float[Array, "pairs ..."], neighbors: Int[Array, " pairs"], back: Int[Array, "atoms slots"] | None, atoms: int
) -> Float[Array, "atoms ..."]:
    """Sum over the pairs that point to each atom."""
    return add_rows(y, neighbors, atoms) if back is None else sum_rows(y, back, neighbors[:, None])


def find(graph: Graph, within: Bool[Array, "atoms slots"]) -> Pairs:
    """The used slots that are ``within`` the cutoff, seen from both sides where the list is symmetric."""
    active = jnp.asarray(graph.slot_mask & within)
    if graph.reverse is not None:
        # A distance may be rounded in two ways.
        active &= active.reshape(-1)[graph.reverse]
    atoms, width = active.shape
    room = atoms * width
    flat = jnp.arange(room, dtype=jnp.int32).reshape(active.shape)
    packed = jax.default_backend() == "cpu"
    rows, lost = room, jnp.asarray(False)
    if packed:
        rows = room if graph.pairs is None else min(room, graph.pairs)
        rank = jnp.cumsum(active, axis=1, dtype=jnp.int32)
        last = jnp.cumsum(rank[:, -1], dtype=jnp.int32)
        lost = last[-1] > rows
        start, count = jnp.minimum(last - rank[:, -1], rows), jnp.minimum(last[-1], rows)
        place = start[:, None] + rank - 1
        place = jnp.where(active & (place < rows), place, -1)
        to = jnp.where(place < 0, rows, place)
        slots = jnp.full(rows, -1, jnp.int32).at[to].set(flat, mode="drop", unique_indices=True)
    else:
        start, count = flat[:, 0], jnp.int32(room)
        place = jnp.where(active, flat, -1)
        slots = place.reshape(-1)
    neighbors = jnp.where(slots < 0, -1, jnp.asarray(graph.neighbors).reshape(-1)[slots]).astype(jnp.int32)
    centers = jnp.where(slots < 0, -1, slots // width)
    back = None if graph.reverse is None else jnp.where(place < 0, -1, place.reshape(-1)[graph.reverse])
    first = jnp.concatenate([start, jnp.full(1, rows, jnp.int32)])
    halves = _halves(slots, back, count) if packed and back is not None else None
    return Pairs(slots, centers, neighbors, place, back, first, count, halves, lost, packed)


def _halves(slots: Int[Array, " pairs"], back: Int[Array, "atoms slots"], count: Int[Array, ""]) -> Halves:
    rows = len(slots)
    own = jnp.arange(rows, dtype=jnp.int32)
    other = jnp.where(slots < 0, -1, back.reshape(-1)[slots])
    rank = jnp.cumsum(own < other, dtype=jnp.int32) - 1
    row = jnp.where(other < 0, -1, rank[jnp.minimum(own, other)])
    one = jnp.full(-(-rows // 2), -1, jnp.int32)
    one = one.at[jnp.where(own < other, rank, len(one))].set(own, mode="drop", unique_indices=True)
    return Halves(one, row, jnp.stack([one, jnp.where(one < 0, -1, other[one])], axis=1), count // 2)
