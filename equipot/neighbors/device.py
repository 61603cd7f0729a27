"""A neighbour list in compiled functions: any cell and periodicity, a changing cell, fixed capacities with an overflow flag.

Atoms are wrapped into the cell and sorted into a grid of bins, ``spec.grid`` bins along each lattice vector. A pair closer than
the list radius R = cutoff + skin is at most ``spec.reach`` bins apart along each lattice vector. Bin indices continue through
the periodic images, so that a cutoff longer than the cell only means a longer reach: one algorithm finds all pairs of a small
cell and is the linked-cell method in a large cell. Time and memory grow linearly with the number of atoms.

The candidates of an atom that are closer than R are marked by bits, in one or a few words for each bin within reach. Slots are
numbered by counting bits, and the reverse of a pair is one bit of its neighbour's words: no search, no sort of pairs.

The list is a function of ``reference_positions`` and ``reference_cell`` alone, not of earlier lists.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from equipot.arrays import AnyArray
from equipot.extent import Extent, Waves, wave_lengths
from equipot.graph import Graph, Shell
from equipot.neighbors.cells import complete_cell, inverse, product
from equipot.neighbors.shells import order_on_device
from equipot.neighbors.spec import FULL, MARGIN, ListSpec
from equipot.neighbors.staleness import may_miss_pairs

CANDIDATES = 2**20
"""Number of candidate pairs that are tested at once: few enough for a CPU's cache, enough to fill a GPU."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "neighbors", "shifts", "reverse", "slot_mask", "reference_positions", "reference_cell", "overflow",
    ],
    meta_fields=["pbc", "shells", "pair_capacity", "waves"],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class DeviceList:
    """Neighbour slots of one system, with the conventions of ``graph.Graph``, and the geometry that the list was built for."""

    neighbors: Int[Array, "atoms slots"]
    shifts: Int[Array, "atoms slots 3"]
    reverse: Int[Array, "atoms slots"]
    slot_mask: Bool[Array, "atoms slots"]
    reference_positions: Float[Array, "atoms 3"]
    """Positions (Å) for which the list was built, not wrapped into the cell."""
    reference_cell: Float[Array, "3 3"]
    """Cell (Å) for which the list was built."""
    overflow: Bool[Array, ""]
    """Whether, at this build or an earlier one, a capacity was exceeded, the cell was too small for the planned reach, or a
    coordinate was not finite. The list must then not be used: call ``neighbors.grow`` and return to the last good state."""
    pbc: tuple[bool, bool, bool]
    shells: tuple[Shell, ...] = ()
    """Capacities for the neighbours within shorter cutoffs, which stand in the first slots, see ``ListSpec``."""
    pair_capacity: int | None = None
    """Capacity for directed pairs within the cutoff, see ``ListSpec``."""
    waves: Waves | None = None
    """Waves of the system for a term with space, see ``ListSpec``."""


def allocate(spec: ListSpec, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> DeviceList:
    """Build the list of all pairs closer than cutoff + skin; works under ``jit`` and ``vmap``.

    Unused slots point to their own atom, are masked, and are their own reverse. A capacity that is too small, or a coordinate
    that is not finite, sets ``overflow``.

    Args:
        spec: Radius and capacities.
        positions: Positions (Å), inside or outside of the cell.
        cell: Lattice vectors (Å); rows that are not periodic are ignored.
    """
    # A list has no derivative, also where it is updated inside a function that is differentiated.
    positions, cell = jax.lax.stop_gradient((jnp.asarray(positions), jnp.asarray(cell, positions.dtype)))
    binned = _sort_into_bins(spec, positions, cell)
    words = _hits(spec, binned)
    counts = jax.lax.population_count(words).astype(jnp.int32)
    last = jnp.cumsum(counts, axis=1, dtype=jnp.int32)
    neighbors, shifts, reverse, mask = _fill_slots(spec, binned, words, last - counts, last)
    overflow = binned.overflow | (jnp.max(last[:, -1]) > spec.slots)
    planned = spec.pbc, spec.shells, spec.pair_capacity, spec.waves
    made = DeviceList(neighbors, shifts, reverse, mask, positions, cell, overflow, *planned)
    made = _nearest_first(spec, made) if spec.shells else made
    return dataclasses.replace(made, overflow=made.overflow | _outgrown(spec, made, positions, cell))


def _outgrown(spec: ListSpec, dlist: DeviceList, positions: Array, cell: Array) -> Bool[Array, ""]:
    """Return whether there are too many pairs within the cutoff, see ``_crowded``, or too few waves for the cell."""
    crowded = _crowded(spec, dlist, positions, cell)
    if spec.waves is None or spec.longest_wave is None:
        return crowded
    needed = spec.longest_wave * wave_lengths(positions, cell, spec.pbc, jnp) / (2 * math.pi)
    return crowded | jnp.any(jnp.floor(needed) > jnp.asarray(spec.waves))


def _nearest_first(spec: ListSpec, dlist: DeviceList) -> DeviceList:
    """Move the neighbours within each shell, and the skin around it, to the first slots."""
    squares = _squares(dlist, dlist.reference_positions, dlist.reference_cell, spec.slots)
    order, place, overflow = order_on_device(squares, dlist.slot_mask, spec.shells, spec.skin)
    row, slot = jnp.divmod(dlist.reverse, spec.slots)
    take = lambda x: jnp.take_along_axis(x, order, axis=1)
    return dataclasses.replace(
        dlist,
        neighbors=take(dlist.neighbors),
        shifts=jnp.take_along_axis(dlist.shifts, order[..., None], axis=1),
        reverse=take(row * spec.slots + place[row, slot]),
        slot_mask=take(dlist.slot_mask),
        overflow=dlist.overflow | overflow,
    )


def _squares(dlist: DeviceList, positions: Array, cell: Array, slots: int) -> Float[Array, "atoms slots"]:
    """Compute the squared distances (Å^2) of the first slots of each atom, axis by axis."""
    cell = complete_cell(cell, dlist.pbc)
    square = jnp.zeros((), positions.dtype)
    for k in range(3):
        image = sum(dlist.shifts[:, :slots, a].astype(positions.dtype) * cell[a, k] for a in range(3))
        square += (positions[dlist.neighbors[:, :slots], k] + image - positions[:, None, k]) ** 2
    return square


def _crowded(spec: ListSpec, dlist: DeviceList, positions: Array, cell: Array) -> Bool[Array, ""]:
    """Return whether the pairs within the cutoff, or that of a shell, exceed the share ``FULL`` of their capacity.

    The share is below one since an integrator may evaluate positions between those checked here. If the capacity is as large
    as the number of slots, the result is False.
    """
    crowded = jnp.asarray(False)
    for cutoff, slots, pairs in (*spec.shells, (spec.cutoff, spec.slots, spec.pair_capacity)):
        if pairs is not None and pairs < len(positions) * slots:
            square = _squares(dlist, positions, cell, slots)
            within = dlist.slot_mask[:, :slots] & (square < (cutoff * (1 + MARGIN)) ** 2)
            crowded |= jnp.sum(within, dtype=jnp.int32) > pairs * FULL
    return crowded


def update(spec: ListSpec, dlist: DeviceList, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]) -> DeviceList:
    """Return the list if it still holds every pair within the cutoff, else build a new list. ``overflow`` stays set.

    Args:
        spec: Radius and capacities that the list was built with.
        dlist: Present list.
        positions: Present positions (Å).
        cell: Present lattice vectors (Å).
    """

    def rebuilt() -> DeviceList:
        new = allocate(spec, positions, cell)
        return dataclasses.replace(new, overflow=new.overflow | dlist.overflow)

    positions, cell = jax.lax.stop_gradient((jnp.asarray(positions), jnp.asarray(cell, positions.dtype)))

    def kept() -> DeviceList:
        return dataclasses.replace(dlist, overflow=dlist.overflow | _outgrown(spec, dlist, positions, cell))

    return jax.lax.cond(is_stale(spec, dlist, positions, cell), rebuilt, kept)


def is_stale(
    spec: ListSpec, dlist: DeviceList, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"]
) -> Bool[Array, ""]:
    """Return whether the list may lack a pair within the cutoff, see ``staleness.may_miss_pairs``."""
    before = dlist.reference_positions, dlist.reference_cell
    return jnp.asarray(may_miss_pairs(before, (positions, cell), spec.pbc, spec.radius, spec.cutoff))


def to_graph(
    dlist: DeviceList,
    positions: Float[AnyArray, "atoms 3"],
    numbers: Int[AnyArray, " atoms"],
    cell: Float[AnyArray, "3 3"],
    charge: float = 0.0,
    spin: float = 0.0,
    field: Sequence[float] | Float[Array, " 3"] = (0.0, 0.0, 0.0),
) -> Graph:
    """Make the graph of one system from its list, differentiable with respect to positions and cell.

    Args:
        dlist: List that holds every pair within the cutoff.
        positions: Positions (Å).
        numbers: Atomic numbers.
        cell: Lattice vectors (Å); the graph gets zeros if the system is open in all directions.
        charge: Total charge (e).
        spin: Number of unpaired electrons.
        field: External electric field (V/Å).
    """
    n = len(positions)
    dtype = positions.dtype
    cell = jnp.asarray(cell, dtype) if any(dlist.pbc) else jnp.zeros((3, 3), dtype)
    return Graph(
        positions, jnp.asarray(numbers, jnp.int32), cell[None],
        dlist.neighbors, dlist.shifts, dlist.reverse, dlist.slot_mask,
        node_mask=jnp.ones(n, bool), node_graph=jnp.zeros(n, jnp.int32), graph_mask=jnp.ones(1, bool),
        charge=jnp.asarray(charge, dtype).reshape(1), spin=jnp.asarray(spin, dtype).reshape(1),
        field=jnp.asarray(field, dtype).reshape(1, 3),
        shells=dlist.shells, pair_capacity=dlist.pair_capacity, pbc=jnp.asarray(dlist.pbc)[None],
        extent=None if dlist.waves is None else Extent(n, dlist.waves),
    )  # fmt: skip


class _Binned(NamedTuple):
    """Atoms sorted into bins."""

    cell: Float[Array, "3 3"]
    """Completed cell (Å)."""
    wrapped: Float[Array, "atoms 3"]
    """Positions wrapped into the cell (Å)."""
    offset: Int[Array, "atoms 3"]
    """Number of lattice vectors that wrapping subtracted from each position."""
    bin: Int[Array, "atoms 3"]
    """Index of each atom's bin along each lattice vector."""
    place: Int[Array, " atoms"]
    """Index of each atom among the atoms of its bin."""
    grid: Int[Array, " 3"]
    """Number of bins in use along each lattice vector: as planned, or fewer if the cell has shrunk."""
    members: Int[Array, "bins occupancy"]
    """Atoms of each bin; the number of atoms in empty places."""
    overflow: Bool[Array, ""]
    """Whether a capacity is exceeded, the cell is too small, or a coordinate is not finite."""


def _sort_into_bins(spec: ListSpec, positions: Array, cell: Array) -> _Binned:
    """Wrap atoms into the cell and sort them into bins."""
    n = len(positions)
    pbc = jnp.asarray(spec.pbc)
    most = jnp.asarray(spec.grid, jnp.int32)
    cell = complete_cell(cell, spec.pbc)
    inverted = inverse(cell)
    fraction = product(positions, inverted)
    offset = jnp.where(pbc[None], jnp.floor(fraction), 0)
    lowest = jnp.where(pbc, 0, jnp.min(fraction, axis=0))
    extent = jnp.max(fraction, axis=0) - lowest
    radius = spec.radius * (1 + MARGIN)
    # The bins may hold no more than `reach` to a radius: along an open direction they are widened, else their number is cut.
    height = 1 / jnp.sqrt(jnp.sum(inverted**2, axis=0))
    fit = jnp.floor(jnp.minimum(height / radius, n + 1.0) * jnp.asarray(spec.reach)).astype(jnp.int32)
    grid = jnp.where(pbc, jnp.clip(fit, 1, most), most)
    width = jnp.where(pbc, 1 / grid, jnp.maximum(extent / grid, radius))
    bins = jnp.clip(jnp.floor((fraction - offset - lowest[None]) / width[None]).astype(jnp.int32), 0, grid[None] - 1)
    sane = jnp.all(jnp.abs(fraction) < 2.0**30) & jnp.all(jnp.isfinite(height))
    too_small = jnp.any(pbc & (fit < 1))

    total = math.prod(spec.grid)
    flat = (bins[:, 0] * spec.grid[1] + bins[:, 1]) * spec.grid[2] + bins[:, 2]
    order = jnp.argsort(flat, stable=True).astype(jnp.int32)
    ordered = flat[order]
    place = jnp.arange(n, dtype=jnp.int32) - jnp.searchsorted(ordered, ordered, side="left").astype(jnp.int32)
    # One more bin, always empty, stands for all bins outside of the grid; the index n stands for an empty place.
    members = jnp.full((total + 1, spec.words * _bits(spec)), n, jnp.int32).at[ordered, place].set(order, mode="drop")
    overflow = ~sane | too_small | (jnp.max(place) >= members.shape[1])
    wrapped = positions - product(offset, cell)
    place = jnp.zeros(n, jnp.int32).at[order].set(place)
    return _Binned(cell, wrapped, offset.astype(jnp.int32), bins, place, grid, members, overflow)


def _bits(spec: ListSpec) -> int:
    """Return the number of bits that are used in each word."""
    return -(-spec.occupancy // spec.words)


def _stencil(spec: ListSpec) -> np.ndarray:
    """Return the steps to all bins within reach, [steps, 3]; step k and step -1 - k are opposite."""
    return np.array(list(itertools.product(*(range(-m, m + 1) for m in spec.reach))), np.int32)


def _bins_at(spec: ListSpec, binned: _Binned, target: Int[Array, "*rest 3"]) -> tuple[Array, Array]:
    """Return flat index and periodic image of bins whose indices continue through the periodic images."""
    pbc, grid = (jnp.broadcast_to(x, target.shape) for x in (jnp.asarray(spec.pbc), binned.grid))
    image = jnp.where(pbc, jnp.floor_divide(target, grid), 0)
    inside = target - image * grid
    flat = (inside[..., 0] * spec.grid[1] + inside[..., 1]) * spec.grid[2] + inside[..., 2]
    exists = jnp.all((inside >= 0) & (inside < grid), axis=-1)
    return jnp.where(exists, flat, math.prod(spec.grid)), image


def _hits(spec: ListSpec, binned: _Binned) -> UInt32[Array, "atoms groups"]:
    """Mark by bits, for each step of the stencil, the places of that bin that hold an atom within the list radius."""
    n, bits = len(binned.wrapped), _bits(spec)
    stencil = _stencil(spec)
    centre = len(stencil) // 2
    far = jnp.concatenate([binned.wrapped, jnp.full((1, 3), jnp.inf, binned.wrapped.dtype)])
    candidates = [far[:, k][binned.members] for k in range(3)]
    places = jnp.arange(spec.words * bits, dtype=jnp.int32)

    def block(atoms: Int[Array, " block"]) -> UInt32[Array, "block groups"]:
        bins, image = _bins_at(spec, binned, binned.bin[atoms][:, None] + stencil[None])
        square = jnp.zeros((), far.dtype)
        for k in range(3):
            image_vector = functools.reduce(jnp.add, [image[..., a].astype(far.dtype) * binned.cell[a, k] for a in range(3)])
            # In this order of operations the vector seen from the other side is the negative of this one to the last bit.
            square += ((candidates[k][bins] - binned.wrapped[atoms, k, None, None]) + image_vector[..., None]) ** 2
        itself = (np.arange(len(stencil)) == centre)[None, :, None] & (places[None, None] == binned.place[atoms][:, None, None])
        hit = (square < spec.radius**2) & ~itself
        hit = hit.reshape(len(atoms), -1, bits).astype(jnp.uint32)
        return jnp.sum(hit << jnp.arange(bits, dtype=jnp.uint32)[None, None], axis=-1, dtype=jnp.uint32)

    size = max(1, CANDIDATES // (len(stencil) * len(places)))
    if n <= size:
        return block(jnp.arange(n, dtype=jnp.int32))
    atoms = jnp.minimum(jnp.arange(-(-n // size) * size, dtype=jnp.int32), n - 1).reshape(-1, size)
    return jax.lax.map(block, atoms).reshape(atoms.size, -1)[:n]


def _fill_slots(spec: ListSpec, binned: _Binned, words: Array, first: Array, last: Array) -> tuple[Array, Array, Array, Array]:
    """Fill slots in the order of the bits.

    Args:
        spec: Radius and capacities.
        binned: Atoms sorted into bins.
        words: Bits of the pairs, [atoms, groups].
        first: Number of pairs of an atom before each word, [atoms, groups].
        last: Number of pairs of an atom up to and including each word, [atoms, groups].

    Returns:
        Neighbours [atoms, slots], shifts [atoms, slots, 3], reverse [atoms, slots] and slot mask [atoms, slots].
    """
    n, groups = words.shape
    bits, steps = _bits(spec), len(_stencil(spec))
    atom = jnp.arange(n, dtype=jnp.int32)[:, None]
    slot = jnp.arange(spec.slots, dtype=jnp.int32)[None]
    used = slot < last[:, -1:]
    group = jnp.minimum(_count_at_most(last, slot), groups - 1)
    bit = _nth_bit(words[atom, group], slot - first[atom, group])
    step, place = group // spec.words, (group % spec.words) * bits + bit
    bins, image = _bins_at(spec, binned, binned.bin[:, None] + jnp.asarray(_stencil(spec))[step])
    neighbor = jnp.where(used, binned.members[bins, place], atom)
    shifts = image - binned.offset[neighbor] + binned.offset[:, None]

    other = (steps - 1 - step) * spec.words + (binned.place // bits)[:, None]
    bit = (binned.place % bits).astype(jnp.uint32)[:, None]
    word = words[neighbor, other]
    before = jax.lax.population_count(word & ((jnp.uint32(1) << bit) - 1)).astype(jnp.int32)
    rank = first[neighbor, other] + before
    # A pair may lack its reverse only if its distance equals the list radius to the last bit and was rounded in two ways, or if
    # the neighbour's row has overflown, which is flagged.
    used &= ((word >> bit) & 1).astype(bool) & (rank < spec.slots)
    own = atom * spec.slots + slot
    neighbor = jnp.where(used, neighbor, atom).astype(jnp.int32)
    reverse = jnp.where(used, neighbor * spec.slots + rank, own).astype(jnp.int32)
    return neighbor, jnp.where(used[..., None], shifts, 0).astype(jnp.int32), reverse, used


def _count_at_most(last: Int[Array, "atoms groups"], slot: Int[Array, "1 slots"]) -> Int[Array, "atoms slots"]:
    """Count the entries of each ascending row that are at most ``slot``, by bisection."""
    n, groups = last.shape
    atom = jnp.arange(n, dtype=jnp.int32)[:, None]
    found = jnp.zeros((n, slot.shape[1]), jnp.int32)
    for power in reversed(range(groups.bit_length())):
        ahead = found + 2**power
        there = last[atom, jnp.minimum(ahead, groups) - 1]
        found = jnp.where((ahead <= groups) & (there <= slot), ahead, found)
    return found


def _nth_bit(word: UInt32[Array, "atoms slots"], n: Int[Array, "atoms slots"]) -> Int[Array, "atoms slots"]:
    """Find the position of the n-th set bit (from 0, lowest first), by bisection; arbitrary if there are fewer."""
    position = jnp.zeros(word.shape, jnp.int32)
    for half in (16, 8, 4, 2, 1):
        below = jax.lax.population_count(word & jnp.uint32(2**half - 1)).astype(jnp.int32)
        above = n >= below
        n = jnp.where(above, n - below, n)
        word = jnp.where(above, word >> half, word)
        position += jnp.where(above, half, 0)
    return position
