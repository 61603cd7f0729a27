"""A potential in the idiom of jax-md: ``neighbor_fn, energy_fn``, as its own energies with neighbour lists come.

>>> displacement, shift = space.periodic_general(box, fractional_coordinates=True)
>>> neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, numbers, box)
>>> neighbors = neighbor_fn.allocate(R, box=box)
>>> init_fn, apply_fn = simulate.nvt_nose_hoover(energy_fn, shift, dt, kT)
>>> state = init_fn(key, R, mass=mass, neighbor=neighbors)
>>> neighbors = neighbors.update(state.position)           # and look at neighbors.did_buffer_overflow after a while

Conventions are those of jax-md: lattice vectors are the columns of ``box`` (``box_of(cell)`` turns our rows into them; a scalar
or a vector stands for a cube or a cuboid), fractional coordinates are R_real = box R, and the gradient with respect to
fractional coordinates is that with respect to real ones, so that ``-grad(energy_fn)`` are forces in eV/Å in either case. Units
are eV, Å and amu; time then is in Å sqrt(amu/eV), of which 1 fs is ``equipot.units.fs``. Unlike jax-md's lists, this one knows
every periodic image, any cell, and a cell that changes.

``simulate.npt_nose_hoover`` wants real coordinates: ``fractional_coordinates=False`` and ``jaxmd.shift``. With fractional ones
it scales them together with the box, and so twice: its invariant drifts (jax-md 0.2.29).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equipot.neighbors import DeviceList, ListSpec, allocate, plan, to_graph, update
from equipot.potential import Geometry, Potential, atomic, geometry_of
from equipot.structure import Structure


@partial(jax.tree_util.register_dataclass, data_fields=["slots"], meta_fields=["spec", "coordinates"])
@dataclasses.dataclass(frozen=True)
class Neighbors:
    """A neighbour list that jax-md scripts can carry through ``jit``, ``scan`` and ``fori_loop``."""

    slots: DeviceList
    spec: ListSpec
    coordinates: Coordinates

    def update(self, position: Float[Array, "atoms 3"], box: Any = None, **ignored: Any) -> Neighbors:
        """The list for these positions: this one where it still holds every pair, else a new one of the same size."""
        real, cell = self.coordinates.real(position, box)
        return dataclasses.replace(self, slots=update(self.spec, self.slots, real, cell))

    @property
    def did_buffer_overflow(self) -> Bool[Array, ""]:
        """Whether the list was ever too small: go back to the last good state and ``allocate`` there."""
        return self.slots.overflow

    @property
    def idx(self) -> Int[Array, "atoms slots"]:
        """Neighbours in jax-md's dense format; unused places hold the number of atoms."""
        return jnp.where(self.slots.slot_mask, self.slots.neighbors, len(self.slots.neighbors))

    @property
    def reference_position(self) -> Float[Array, "atoms 3"]:
        """Real coordinates (Å) that the list was built at."""
        return self.slots.reference_positions


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """How positions and box are to be read. Hashable: part of the static side of a list."""

    box: tuple[tuple[float, ...], ...]
    """Lattice vectors as columns, where a call does not name a box, Å."""
    fractional: bool
    dtype: str

    def real(self, position: Array, box: Any) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
        """Real positions and the cell with lattice vectors as rows, Å."""
        from jax_md import space

        box = jnp.asarray(self.box, self.dtype) if box is None else square(box)
        position = jnp.asarray(position)
        if self.fractional:
            with jax.default_matmul_precision("highest"):
                # jax-md's own transform: its derivative stays in real space.
                position = space.transform(box.astype(position.dtype), position)
        return position.astype(self.dtype), box.T.astype(self.dtype)


def neighbor_list_energy(
    potential: Potential,
    numbers: Int[np.ndarray, " atoms"],
    box: Any = None,
    *,
    pbc: bool | tuple[bool, bool, bool] = True,
    fractional_coordinates: bool = True,
    dr_threshold: float = 0.5,
    capacity_multiplier: float = 1.25,
    charge: float = 0.0,
    spin: float = 0.0,
) -> tuple[Any, Callable[..., Float[Array, ""]]]:
    """``neighbor_fn`` and ``energy_fn`` of a potential for atoms of these atomic numbers.

    ``box`` is jax-md's (see the module), or None for an isolated system, whose coordinates are real. ``dr_threshold`` is the
    margin of the list (Å). ``energy_fn(R, neighbor=..., box=..., perturbation=...)`` is the interaction energy in eV, without
    E0 of the isolated atoms, which would cost digits in float32. It brings the list up to date by itself where atoms have moved
    too far since ``neighbors.update``. Where the list has overflowed it is NaN, and so are its derivatives by anything: never
    the energy of a list with missing pairs.

    Raises:
        ValueError: an unknown element; from ``allocate``, whatever ``neighbors.plan`` raises.
    """
    from jax_md import partition

    numbers = np.asarray(numbers, np.int32)
    potential.check([Structure(numbers, np.zeros((len(numbers), 3)), source="the jax-md system")])
    repeats = tuple(map(bool, np.broadcast_to(np.asarray(pbc, bool), (3,)))) if box is not None else (False,) * 3
    fixed = np.zeros((3, 3)) if box is None else np.asarray(square(box), np.float64)
    dtype = str(jnp.dtype(potential.dtype))
    coordinates = Coordinates(tuple(map(tuple, fixed.tolist())), fractional_coordinates and box is not None, dtype)

    def allocate_fn(position: Array, extra_capacity: int = 0, box: Any = None, **ignored: Any) -> Neighbors:
        if len(position) != len(numbers):
            raise ValueError(f"there are {len(position)} positions, but {len(numbers)} atomic numbers")
        real, cell = coordinates.real(position, box)
        spec = plan(np.asarray(real), np.asarray(cell), repeats, potential.cutoff, dr_threshold, capacity_multiplier)
        extra = len(numbers) * extra_capacity
        spec = dataclasses.replace(spec, slots=spec.slots + extra_capacity, pairs=spec.pairs + extra)
        return Neighbors(jax.jit(allocate, static_argnums=0)(spec, real, cell), spec, coordinates)

    def update_fn(position: Array, neighbors: Neighbors, **options: Any) -> Neighbors:
        return neighbors.update(position, **options)

    def energy_fn(
        position: Array, neighbor: Neighbors, box: Any = None, perturbation: Any = None, **ignored: Any
    ) -> Float[Array, ""]:
        # Integrators of jax-md hand on whatever they are given, kT for instance: hence `ignored`.
        real, cell = coordinates.real(position, box)
        slots = update(neighbor.spec, neighbor.slots, real, cell)
        graph = to_graph(slots, real, jnp.asarray(numbers), cell, charge, spin)
        with jax.default_matmul_precision("highest"):
            geometry = perturbed(geometry_of(potential.term, graph), perturbation)
            total = jnp.sum(atomic(potential, graph, geometry).energy)
        # Its derivatives are no numbers either: a chosen constant would have none, and atoms without forces look calm.
        everything = jnp.sum(real) + jnp.sum(geometry.vectors)
        return total + jnp.where(slots.overflow, jnp.nan, 0.0).astype(total.dtype) * everything

    return partition.NeighborListFns(allocate_fn, update_fn), energy_fn


def shift(position: Array, change: Array, **ignored: Any) -> Array:
    """jax-md's shift function for real coordinates that are not wrapped into the box."""
    return position + change


def perturbed(geometry: Geometry, perturbation: Any) -> Geometry:
    """The geometry under jax-md's ``perturbation``: a factor, or a matrix that multiplies each vector from the left."""
    if perturbation is None:
        return geometry
    matrix = jnp.asarray(perturbation, geometry.vectors.dtype)
    return jax.tree.map(lambda x: x * matrix if matrix.ndim == 0 else x @ matrix.T, geometry)


def square(box: Any) -> Float[Array, "3 3"]:
    """A box as a matrix: from a scalar, three lengths, or a matrix."""
    box = jnp.asarray(box)
    return box if box.ndim == 2 else box * jnp.eye(3, dtype=box.dtype)


def box_of(cell: Any) -> Float[Array, "3 3"]:
    """jax-md's box (columns) of a cell whose lattice vectors are rows, as ASE and equipot have it."""
    return jnp.asarray(cell).T


def fractional(positions: Any, cell: Any) -> Float[np.ndarray, "atoms 3"]:
    """Fractional coordinates of real positions (Å), for a cell whose lattice vectors are rows; not wrapped."""
    return np.linalg.solve(np.asarray(cell, np.float64).T, np.asarray(positions, np.float64).T).T
