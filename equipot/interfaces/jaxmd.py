"""Use a potential in jax-md: ``neighbor_fn, energy_fn``, as jax-md's own energies with neighbour lists.

>>> displacement, shift = space.periodic_general(box, fractional_coordinates=True)
>>> neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, numbers, box)
>>> neighbors = neighbor_fn.allocate(R, box=box)
>>> init_fn, apply_fn = simulate.nvt_nose_hoover(energy_fn, shift, dt, kT)
>>> state = init_fn(key, R, mass=mass, neighbor=neighbors)
>>> neighbors = neighbors.update(state.position)           # check neighbors.did_buffer_overflow now and then

``neighbor_list_deviations`` makes a function of the deviations of a potential that has an estimate of its uncertainty.

Conventions are those of jax-md: lattice vectors are the columns of ``box`` (``box_of(cell)`` converts rows to columns; a scalar
or a vector stands for a cube or a cuboid), fractional coordinates are R_real = box R, and the gradient with respect to
fractional coordinates is taken in real space, so that ``-grad(energy_fn)`` are forces in eV/Å in either case. Units are eV, Å
and amu; the unit of time is Å sqrt(amu/eV), and 1 fs is ``equipot.units.fs``. Unlike jax-md's lists, these neighbour lists hold
every periodic image, in cells of any shape, which may change.

``simulate.npt_nose_hoover`` needs real coordinates: ``fractional_coordinates=False`` and ``jaxmd.shift``. jax-md 0.2.29 scales
fractional coordinates together with the box, and so twice, and the invariant drifts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equipot.arrays import AnyArray
from equipot.geometry import Geometry, geometry_of
from equipot.neighbors import DeviceList, ListSpec, allocate, plan, to_graph, update
from equipot.posterior import check_estimates
from equipot.potential import Potential, atomic, evaluate
from equipot.quantities import RESULTS, among
from equipot.structure import Structure

__all__ = ["Coordinates", "Neighbors", "box_of", "neighbor_list_deviations", "neighbor_list_energy", "shift"]


@partial(jax.tree_util.register_dataclass, data_fields=["slots"], meta_fields=["spec", "coordinates"])
@dataclasses.dataclass(frozen=True)
class Neighbors:
    """Neighbour list for jax-md scripts, a pytree for ``jit``, ``scan`` and ``fori_loop``."""

    slots: DeviceList
    spec: ListSpec
    coordinates: Coordinates

    def update(self, position: Float[AnyArray, "atoms 3"], box: Any = None, **ignored: Any) -> Neighbors:
        """Return a list that is complete for the positions: self if no pair can be missing, else a new one of equal size."""
        real, cell = self.coordinates.real(position, box)
        return dataclasses.replace(self, slots=update(self.spec, self.slots, real, cell))

    @property
    def did_buffer_overflow(self) -> Bool[Array, ""]:
        """Whether the list was ever too small; if so, call ``allocate`` at the last good state."""
        return self.slots.overflow

    @property
    def idx(self) -> Int[Array, "atoms slots"]:
        """Neighbours in jax-md's dense format; empty slots hold the number of atoms."""
        return jnp.where(self.slots.slot_mask, self.slots.neighbors, len(self.slots.neighbors))

    @property
    def reference_position(self) -> Float[Array, "atoms 3"]:
        """Real coordinates (Å) at which the list was built."""
        return self.slots.reference_positions


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Convention of positions and box; hashable, a static part of ``Neighbors``."""

    box: tuple[tuple[float, ...], ...]
    """Lattice vectors in columns (Å), for calls without a box."""
    fractional: bool
    """Whether positions are fractional coordinates."""
    dtype: str

    @classmethod
    def of(cls, box: Any, fractional: bool, dtype: str) -> Coordinates:
        """Make the convention for a box in any form that jax-md takes; coordinates without a box are real."""
        fixed = np.zeros((3, 3)) if box is None else np.asarray(square(box), np.float64)
        return cls(tuple(map(tuple, fixed.tolist())), fractional and box is not None, dtype)

    def real(self, position: Float[AnyArray, "atoms 3"], box: Any) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
        """Convert to real positions and a cell with lattice vectors in rows, Å."""
        from jax_md import space

        box = jnp.asarray(self.box, self.dtype) if box is None else square(box)
        r = jnp.asarray(position)
        if self.fractional:
            with jax.default_matmul_precision("highest"):
                # jax-md's own transform: its derivative stays in real space.
                r = space.transform(box.astype(r.dtype), r)
        return r.astype(self.dtype), box.T.astype(self.dtype)


def neighbor_list_energy(
    potential: Potential,
    numbers: Sequence[int] | Int[np.ndarray, " atoms"],
    box: Any = None,
    *,
    pbc: bool | tuple[bool, bool, bool] = True,
    fractional_coordinates: bool = True,
    dr_threshold: float = 0.5,
    capacity_multiplier: float = 1.25,
    charge: float = 0.0,
    spin: float = 0.0,
    field: Sequence[float] = (0.0, 0.0, 0.0),
) -> tuple[Any, Callable[..., Float[Array, ""]]]:
    """Make ``neighbor_fn`` and ``energy_fn`` of a potential.

    ``energy_fn(R, neighbor=..., box=..., perturbation=...)`` returns the interaction energy (eV), without E0, which would cost
    digits in float32. If atoms have moved too far since ``neighbors.update``, ``energy_fn`` rebuilds the list. If the list has
    overflowed, the energy and all derivatives are NaN: a list with missing pairs never gives an energy.

    Args:
        numbers: atomic numbers.
        box: lattice vectors in columns (Å), three lengths or one; None for an isolated system, whose coordinates are real.
        pbc: whether the system repeats along each lattice vector.
        fractional_coordinates: whether positions are fractional.
        dr_threshold: reach of the list beyond the cutoff, Å.
        capacity_multiplier: factor on the capacity of the list.
        charge: total charge, e.
        spin: number of unpaired electrons.
        field: external electric field, V/Å.

    Raises:
        ValueError: an unknown element, or a charge, spin or field that the potential refuses; ``neighbor_fn.allocate`` raises
            as ``neighbors.plan``.
    """
    from jax_md import partition

    repeats = tuple(map(bool, np.broadcast_to(np.asarray(pbc, bool), (3,)))) if box is not None else (False,) * 3
    system = system_of(numbers, repeats, charge, spin, field)
    numbers = system.numbers
    potential.check([system])
    coordinates = Coordinates.of(box, fractional_coordinates, str(jnp.dtype(potential.dtype)))

    def allocate_fn(position: AnyArray, extra_capacity: int = 0, box: Any = None, **ignored: Any) -> Neighbors:
        if len(position) != len(numbers):
            raise ValueError(f"there are {len(position)} positions, but {len(numbers)} atomic numbers")
        real, cell = coordinates.real(position, box)
        radii = potential.cutoff, dr_threshold, capacity_multiplier
        term = potential.term
        spec = plan(np.asarray(real), np.asarray(cell), repeats, *radii, term.longest_wave, term.inner_cutoffs)
        spec = _with_room(spec, len(numbers), extra_capacity)
        return Neighbors(jax.jit(allocate, static_argnums=0)(spec, real, cell), spec, coordinates)

    def update_fn(position: AnyArray, neighbors: Neighbors, **options: Any) -> Neighbors:
        return neighbors.update(position, **options)

    def energy_fn(
        position: AnyArray, neighbor: Neighbors, box: Any = None, perturbation: Any = None, **ignored: Any
    ) -> Float[Array, ""]:
        # Integrators of jax-md hand on whatever they are given, kT for instance: hence `ignored`.
        real, cell = coordinates.real(position, box)
        slots = update(neighbor.spec, neighbor.slots, real, cell)
        graph = to_graph(slots, real, jnp.asarray(numbers), cell, charge, spin, field)
        with jax.default_matmul_precision("highest"):
            geometry = perturbed(geometry_of(potential.term, graph), perturbation)
            total = jnp.sum(atomic(potential, graph, geometry).energy)
        # Its derivatives are no numbers either: a chosen constant would have none, and atoms without forces look calm.
        everything = jnp.sum(real) + jnp.sum(geometry.vectors)
        return total + jnp.where(slots.overflow, jnp.nan, 0.0).astype(total.dtype) * everything

    return partition.NeighborListFns(allocate_fn, update_fn), energy_fn


def system_of(numbers: Any, repeats: tuple[bool, ...], charge: float, spin: float, field: Sequence[float]) -> Structure:
    """Make a structure of atoms at the origin, to be checked."""
    return Structure(
        np.asarray(numbers, np.int32),
        np.zeros((len(numbers), 3)),
        pbc=np.array(repeats),
        charge=charge,
        spin=spin,
        field=np.array(field),
        source="the jax-md system",
    )


def neighbor_list_deviations(
    potential: Potential,
    numbers: Sequence[int] | Int[np.ndarray, " atoms"],
    want: Sequence[str] = ("energy_std", "forces_std", "novelty"),
    *,
    charge: float = 0.0,
    spin: float = 0.0,
    field: Sequence[float] = (0.0, 0.0, 0.0),
) -> Callable[..., dict[str, Float[Array, "..."]]]:
    """Make a function of deviations and novelty, beside ``energy_fn`` of ``neighbor_list_energy`` for the same potential.

    ``deviations_fn(R, neighbor=..., box=...)`` returns the estimates that ``want`` names: energy_std (eV), forces_std [atoms]
    (eV/Å), stress_std (eV/Å^3, NaN without a box) and novelty [atoms]. Arguments are those of ``energy_fn``, lists those of
    ``neighbor_fn``; where a list has overflowed, all values are NaN. forces_std takes a backward pass for each sample of the
    posterior, so that a loop asks for it now and then:

    >>> neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, numbers, box)
    >>> deviations_fn = jaxmd.neighbor_list_deviations(potential, numbers, want=("forces_std",))
    >>> def step(k, carry):
    ...     state, neighbors, worst = carry
    ...     neighbors = neighbors.update(state.position)
    ...     state = apply_fn(state, neighbor=neighbors)
    ...     seen = lambda: deviations_fn(state.position, neighbor=neighbors)["forces_std"].max()
    ...     return state, neighbors, jnp.maximum(worst, jax.lax.cond(k % 20 == 0, seen, lambda: jnp.zeros_like(worst)))

    Args:
        numbers: atomic numbers.
        want: names of the estimates.
        charge: total charge, e.
        spin: number of unpaired electrons.
        field: external electric field, V/Å.

    Raises:
        ValueError: the potential has no such estimate, one is not calibrated for an element, or as ``neighbor_list_energy``.
    """
    want = (want,) if isinstance(want, str) else tuple(want)
    rows = among(want, [row for row in RESULTS if row.of_posterior])
    check_estimates(potential.posterior, rows, [system_of(numbers, (False,) * 3, charge, spin, field)])

    def deviations_fn(
        position: AnyArray, neighbor: Neighbors, box: Any = None, **ignored: Any
    ) -> dict[str, Float[Array, "..."]]:
        # Whether the system repeats is known from here on, and what charges and spins it can have.
        system = system_of(numbers, neighbor.spec.pbc, charge, spin, field)
        potential.correction.check([system])
        real, cell = neighbor.coordinates.real(position, box)
        slots = update(neighbor.spec, neighbor.slots, real, cell)
        graph = to_graph(slots, real, jnp.asarray(system.numbers), cell, charge, spin, field)
        found = evaluate(potential, graph, want).others
        known = lambda row: jnp.where(slots.overflow, jnp.nan, jnp.asarray(found[row.name])).astype(real.dtype)
        return {row.name: known(row)[0] if row.per == "graph" else known(row) for row in rows}

    return deviations_fn


def _with_room(spec: ListSpec, atoms: int, slots: int) -> ListSpec:
    """Add slots to each atom of a neighbour list, and as many pairs."""
    pairs = None if spec.pair_capacity is None else spec.pair_capacity + atoms * slots
    return dataclasses.replace(spec, slots=spec.slots + slots, pair_capacity=pairs)


def shift(position: Array, change: Array, **ignored: Any) -> Array:
    """Move real coordinates without wrapping them into the box, as a shift function of jax-md."""
    return position + change


def perturbed(geometry: Geometry, perturbation: Any) -> Geometry:
    """Apply jax-md's ``perturbation`` to a geometry: a factor, or a matrix (3, 3) that multiplies each vector from the left."""
    if perturbation is None:
        return geometry
    matrix = jnp.asarray(perturbation, geometry.vectors.dtype)
    return jax.tree.map(lambda x: x * matrix if matrix.ndim == 0 else x @ matrix.T, geometry)


def square(box: Any) -> Float[Array, "3 3"]:
    """Convert a box to a matrix (3, 3), from a scalar, three lengths or a matrix."""
    box = jnp.asarray(box)
    return box if box.ndim == 2 else jnp.diag(jnp.broadcast_to(box, (3,)))


def box_of(cell: Any) -> Float[Array, "3 3"]:
    """Convert a cell with lattice vectors in rows (ASE, equipot) to jax-md's box with lattice vectors in columns."""
    return jnp.asarray(cell).T


def fractional(positions: Any, cell: Any) -> Float[np.ndarray, "atoms 3"]:
    """Convert real positions (Å) to fractional ones, not wrapped, for a cell with lattice vectors in rows (Å)."""
    return np.linalg.solve(np.asarray(cell, np.float64).T, np.asarray(positions, np.float64).T).T
