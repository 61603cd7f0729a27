"""Directed pairs within the cutoff, packed contiguously, so that models compute nothing for slots without a pair.

A list for dynamics has slots for atoms within its skin, and a batch of molecules has as many slots as the atom with the most
neighbours needs. The fewer pairs within the cutoff are packed to the front of arrays with a fixed number of rows, in the order
of their slots; index arrays hold -1 behind the last pair.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph
from equipot.kernels.convolution import PairIndices
from equipot.kernels.rows import sum_rows


class UndirectedPairs(NamedTuple):
    """Undirected pairs, each of which is two directed pairs, for values that are equal in both directions."""

    representative: Int[Array, " undirected"]
    """Of the two directed pairs, the pair with the smaller index; -1 in empty rows."""
    undirected_of_pair: Int[Array, " pairs"]
    """Undirected pair of each directed pair; -1 in empty rows."""
    directed: Int[Array, "undirected 2"]
    """The two directed pairs of each undirected pair; -1 in empty rows."""
    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count
    """Number of undirected pairs."""

    def from_directed(self, x: Float[Array, "pairs ..."]) -> Float[Array, "undirected ..."]:
        """Select the values of the representative directed pairs; zero in empty rows."""
        own = jnp.arange(len(self.undirected_of_pair))
        stands = (self.undirected_of_pair >= 0) & (self.representative[self.undirected_of_pair] == own)
        chosen = jnp.where(stands, self.undirected_of_pair, -1)
        return sum_rows(x, self.representative[:, None], chosen[:, None])

    def to_directed(self, y: Float[Array, "undirected ..."]) -> Float[Array, "pairs ..."]:
        """Copy the values of undirected pairs to their two directed pairs; zero in empty rows."""
        return sum_rows(y, self.undirected_of_pair[:, None], self.directed)


class Pairs(NamedTuple):
    """Directed pairs within the cutoff, in the order of their slots; the number of rows is the capacity of the graph.

    The pairs of an atom follow each other without a gap; rows behind the last pair are empty. Index arrays hold -1 where there
    is no pair.
    """

    slots: Int[Array, " pairs"]
    """Flat slot (atom * slots + slot) of each pair."""
    centers: Int[Array, " pairs"]
    """Gathering atom of each pair."""
    neighbors: Int[Array, " pairs"]
    """Neighbour of each pair."""
    pair_of_slot: Int[Array, "atoms slots"]
    """Pair in each slot of an atom."""
    reverse_pair: Int[Array, "atoms slots"] | None
    """Reverse (from neighbour to atom) of the pair in each slot; None where the list is not symmetric."""
    row_starts: Int[Array, " atoms+1"]
    """First pair of each atom, and the number of rows."""
    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count
    """Number of pairs."""
    undirected: UndirectedPairs | None
    """Undirected pairs; None where the list is not symmetric."""
    overflow: Bool[Array, ""]
    """Whether there are more pairs than rows; results computed from these pairs must then not be used."""

    @property
    def indices(self) -> PairIndices:
        """Return the index arrays for the kernels."""
        return PairIndices(self.pair_of_slot, self.row_starts, self.neighbors, self.reverse_pair)

    def from_slots(self, x: Float[Array, "atoms slots ..."]) -> Float[Array, "pairs ..."]:
        """Select the values of the slots that hold a pair; zero in empty rows."""
        return sum_rows(x.reshape(-1, *x.shape[2:]), self.slots[:, None], self.pair_of_slot.reshape(-1, 1))

    def from_centers(self, x: Float[Array, "atoms ..."]) -> Float[Array, "pairs ..."]:
        """Copy the values of atoms to the pairs of which they are the gathering atom; zero in empty rows."""
        return sum_rows(x, self.centers[:, None], self.pair_of_slot)

    def from_neighbors(self, x: Float[Array, "atoms ..."]) -> Float[Array, "pairs ..."]:
        """Copy the values of atoms to the pairs of which they are the neighbour; zero in empty rows."""
        return sum_rows(x, self.neighbors[:, None], self.reverse_pair)

    def sum_to_centers(self, y: Float[Array, "pairs ..."]) -> Float[Array, "atoms ..."]:
        """Sum values of pairs over the pairs of each gathering atom."""
        return sum_rows(y, self.pair_of_slot, self.centers[:, None])


def find(graph: Graph, within: Bool[Array, "atoms slots"]) -> Pairs:
    """Pack the used slots that are ``within`` the cutoff.

    Where the list is symmetric, a pair is kept if ``within`` holds for both its slot and the slot of the reverse pair.
    """
    active = jnp.asarray(graph.slot_mask & within)
    if graph.reverse is not None:
        # The distance of one pair may be rounded in two ways.
        active &= active.reshape(-1)[graph.reverse]
    atoms, width = active.shape
    room = atoms * width
    rows = room if graph.pair_capacity is None else min(room, graph.pair_capacity)
    flat = jnp.arange(room, dtype=jnp.int32).reshape(active.shape)
    rank = jnp.cumsum(active, axis=1, dtype=jnp.int32)
    ends = jnp.cumsum(rank[:, -1], dtype=jnp.int32)
    start, count = jnp.minimum(ends - rank[:, -1], rows), jnp.minimum(ends[-1], rows)
    pair_of_slot = start[:, None] + rank - 1
    pair_of_slot = jnp.where(active & (pair_of_slot < rows), pair_of_slot, -1)
    to = jnp.where(pair_of_slot < 0, rows, pair_of_slot)
    slots = jnp.full(rows, -1, jnp.int32).at[to].set(flat, mode="drop", unique_indices=True)
    neighbors = jnp.where(slots < 0, -1, jnp.asarray(graph.neighbors).reshape(-1)[slots]).astype(jnp.int32)
    centers = jnp.where(slots < 0, -1, slots // width)
    reverse_pair = undirected = None
    if graph.reverse is not None:
        reverse_pair = jnp.where(pair_of_slot < 0, -1, pair_of_slot.reshape(-1)[graph.reverse])
        undirected = _undirected(slots, reverse_pair, count)
    row_starts = jnp.concatenate([start, jnp.full(1, rows, jnp.int32)])
    return Pairs(slots, centers, neighbors, pair_of_slot, reverse_pair, row_starts, count, undirected, ends[-1] > rows)


def _undirected(slots: Int[Array, " pairs"], reverse_pair: Int[Array, "atoms slots"], count: Int[Array, ""]) -> UndirectedPairs:
    """Join directed pairs to undirected pairs; ``count`` is the number of directed pairs."""
    rows = len(slots)
    own = jnp.arange(rows, dtype=jnp.int32)
    other = jnp.where(slots < 0, -1, reverse_pair.reshape(-1)[slots])
    rank = jnp.cumsum(own < other, dtype=jnp.int32) - 1
    undirected_of_pair = jnp.where(other < 0, -1, rank[jnp.minimum(own, other)])
    representative = jnp.full(-(-rows // 2), -1, jnp.int32)
    to = jnp.where(own < other, rank, len(representative))
    representative = representative.at[to].set(own, mode="drop", unique_indices=True)
    reverse = jnp.where(representative < 0, -1, other[representative])
    return UndirectedPairs(representative, undirected_of_pair, jnp.stack([representative, reverse], axis=1), count // 2)
