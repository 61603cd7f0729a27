"""ASE calculator of a potential."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from equipot import electric_field
from equipot.data.batch import Shape, find_slots, geometry, pad
from equipot.data.method import Runner, runner_of
from equipot.electrons import charge_and_spin, stated
from equipot.evaluation import not_finite
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.extent import still_holds
from equipot.graph import Graph
from equipot.isolated_atoms import isolated_atom_energy
from equipot.metadata import Metadata
from equipot.neighbors import Slots, still_complete
from equipot.neighbors.shells import crowding, room, roomy_shells
from equipot.observables import Observables
from equipot.potential import Potential, evaluate
from equipot.quantities import ENERGY, FORCES, STRESS, Quantity
from equipot.structure import Structure

__all__ = ["EquipotCalculator", "calculate_together"]

WANT = ("energies", "forces", "virials")
"""Observables from which all properties of ASE are computed."""


class EquipotCalculator(Calculator):
    """ASE calculator of energy, forces and stress, of energies and stresses per atom, and of what the potential provides.

    Each calculation computes all properties in one pass; deviations, and derivatives of the dipole moment such as Born
    effective charges, are computed where they are asked for (``calculator.get_property("polarizability", atoms)``). The
    neighbour list reaches ``skin`` beyond the cutoff and is rebuilt only when a pair outside the list may have come within the
    cutoff. The list has spare slots, so that the model is compiled once for each number of atoms, and again only if a denser
    structure needs more.

    Energies include E0 of the isolated atoms and are summed in double precision. ``stresses`` are virials per atom over the
    volume of the cell; their sum is ``stress``.

    Raises:
        ValueError: on calculation, an element that the potential does not know, or a result that is not finite.
        PropertyNotImplementedError: the stress of a system without a periodic cell of nonzero volume.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress", "energies", "stresses"]

    default_parameters = {"charge": None, "spin": None, "field": None}
    discard_results_on_any_change = True

    def __init__(
        self,
        potential: Potential,
        *,
        charge: float | None = None,
        spin: float | None = None,
        field: Sequence[float] | None = None,
        skin: float = 0.5,
        slack: float = 1.2,
        dtype: str | None = None,
        method: Any = None,
    ) -> None:
        """Make a calculator.

        Args:
            charge: total charge of the atoms, e; None for the one in ``atoms.info``, zero where that states none. The two must
                not differ. As ASE's parameters, charge and spin can be changed by ``set``.
            spin: number of unpaired electrons, the multiplicity less one; None for the one in ``atoms.info`` as well.
            field: external electric field, three numbers in V/Å; None for ``electric_field`` in ``atoms.info``, none without.
            skin: reach of the neighbour list beyond the cutoff, Å.
            slack: factor on the number of neighbour slots, at least 1.
            dtype: float32 or float64; None for the precision of the potential.
            method: ASE calculator of the method that the potential is a correction to, or its ``package.module:Class``; None
                for one that ``data.subtract`` knows by name, or for a potential that is no correction.

        Raises:
            ValueError: a skin or slack out of range, or a method that is missing or another one.
        """
        if skin < 0 or slack < 1:
            raise ValueError(f"skin {skin} Å must be at least 0 and slack {slack} at least 1")
        super().__init__(charge=charge, spin=spin, field=field)
        self.potential = potential if dtype is None else potential.astype(dtype)
        self.runner = runner_of(potential.metadata.subtracted, method)
        own = [name for name in type(self).implemented_properties if self.runner is None or name in self._of_method]
        self.implemented_properties = [*own, *(row.name for row in self._further)]
        self.skin = skin
        self.slack = slack
        self.builds = 0
        """Number of times that the neighbour list was built."""
        self._interaction = self.potential.replace(metadata=Metadata())
        self._reference: Structure | None = None
        self._graph: Graph | None = None
        self._shifts = np.zeros((0, 3), np.int32)

    @property
    def _further(self) -> tuple[Quantity, ...]:
        """Properties beside those of every potential: its own, deviations, and how the energies of members differ."""
        posterior = self.potential.posterior
        members = [row for row in posterior.method.provides if posterior.has_spread(row)] if posterior else []
        return (*self.potential.provides, *self.potential.deviations, *members)

    @property
    def _of_method(self) -> tuple[str, ...]:
        """Properties of the method that the potential is a correction to, so far as they are those of whole systems."""
        assert self.runner is not None, "only a correction has a method"
        return ("energy", "free_energy", *(name for name in ("forces", "stress") if name in self.runner.properties))

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """List changes since the last calculation, ``info`` if charge, spin or field there changed, which ASE ignores."""
        changes = super().check_state(atoms, tol)
        field = lambda atoms: None if (found := electric_field.stated(atoms.info, "atoms")) is None else found.tobytes()
        held = lambda atoms: (charge_and_spin(atoms.info, "atoms"), field(atoms))
        same = self.atoms is None or held(atoms) == held(self.atoms)
        return changes if same else [*changes, "info"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties of the atoms, see ``ase.calculators.calculator.Calculator.calculate``."""
        super().calculate(atoms, list(properties), list(system_changes))
        own: Any = self.atoms
        structure = self.structure_of(own)
        self.potential.correction.check([structure])
        periodic = bool(structure.pbc.any()) and structure.volume > 0
        if not periodic and {"stress", "stresses"} & set(properties):
            raise PropertyNotImplementedError(f"{structure.name} has no periodic cell with a volume, and so no stress")
        slow = tuple(row.name for row in self._further if (row.of_dipole or row.of_posterior) and row.name in properties)
        self.results = self._results(structure, _observe(self._interaction, self._neighbors(structure), slow))

    def structure_of(self, atoms: Atoms) -> Structure:
        """Convert atoms, with charge, spin and field of the calculator where it was given any.

        Raises:
            ValueError: a charge, spin or field that differs from the one in ``atoms.info``.
        """
        structure = Structure.from_ase(atoms, source=atoms.get_chemical_formula())
        said = stated(atoms.info, structure.name)
        silent = {"charge": said.charge is None, "spin": said.spin is None and said.multiplicity is None}
        given = {name: float(self.parameters[name]) for name in silent if self.parameters[name] is not None}
        for name, value in given.items():
            if not silent[name] and value != getattr(structure, name):
                raise ValueError(
                    f"{structure.name}: the calculator has {name} {value:g}, but atoms.info says {getattr(structure, name):g}"
                    f"{' unpaired electrons' * (name == 'spin')}; leave one of them out"
                )
        if self.parameters["field"] is not None:
            field = electric_field.checked(self.parameters["field"], "the field of the calculator")
            if electric_field.stated(atoms.info, structure.name) is not None and not np.array_equal(field, structure.field):
                raise ValueError(f"{structure.name}: calculator and atoms.info have different electric fields; leave one out")
            structure = structure.replace(field=field)
        return structure.replace(**given)

    def _results(self, structure: Structure, out: Observables) -> dict[str, Any]:
        """Convert interaction energies, forces and virials to ASE's properties, with E0 added.

        Raises:
            ValueError: a result that is not finite.
        """
        out = jax.tree.map(lambda x: np.asarray(x, np.float64), out)
        assert out.interactions is not None and out.forces is not None
        energies = out.interactions + isolated_atom_energy(structure.numbers, dict(self.potential.metadata.atomic_energies))
        energy = float(energies.sum())
        if not (np.isfinite(energy) and np.isfinite(out.forces).all()):
            raise ValueError(not_finite(structure))
        results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": out.forces}
        if structure.pbc.any() and structure.volume > 0:
            stresses = full_3x3_to_voigt_6_stress(out.virials) / structure.volume
            results |= {"stress": stresses.sum(axis=0), "stresses": stresses}
        for row in (row for row in self._further if out[row] is not None):
            value = np.asarray(out[row])
            # A crystal of charges has no dipole moment, unless the term knows how they came to be.
            if np.isfinite(value).all():
                results[row.name] = value[0] if row.per == "graph" else value
        return results if self.runner is None else self._with_method(structure, results, self.runner)

    def _with_method(self, structure: Structure, results: dict[str, Any], runner: Runner) -> dict[str, Any]:
        """Add the method that the potential is a correction to; properties of which the method has none are left out."""
        own = runner.run(structure)
        added = {"energy": own[ENERGY], "free_energy": own[ENERGY]}
        if FORCES in own:
            added["forces"] = own[FORCES]
        if STRESS in own:
            added["stress"] = full_3x3_to_voigt_6_stress(own[STRESS])
        others = {row.name: results[row.name] for row in self._further if row.name in results}
        return {**others, **{name: results[name] + value for name, value in added.items()}}

    def _neighbors(self, structure: Structure) -> Graph:
        """Return the graph of a structure, with the neighbour list of the last one if that is still complete."""
        complete = still_complete(self._reference, structure, self.potential.cutoff, self.skin)
        if self._graph is None or not (
            complete and still_holds(self._graph.extent, structure, self.potential.term.longest_wave)
        ):
            nearest = bool(self.potential.term.inner_cutoffs)
            found = find_slots(structure, self.potential.cutoff + self.skin, nearest)
            self._graph, self._shifts = jax.device_put(self._padded(structure, found)), found.shifts
            self._reference = structure
            self.builds += 1
        dtype = self.potential.dtype
        placed = geometry(structure, self._shifts, dtype)
        real = lambda x: jnp.asarray(x, dtype)
        one = lambda x: None if x is None else jnp.asarray(x)[None]
        return self._graph.replace(
            positions=jnp.asarray(placed["positions"]),
            positions_residual=placed["positions_residual"],
            cell=one(placed["cell"]),
            cell_residual=one(placed["cell_residual"]),
            charge=real([structure.charge]),
            spin=real([structure.spin]),
            field=real(structure.field[None]),
        )

    def _padded(self, structure: Structure, found: Slots) -> Graph:
        old = self._graph if self._graph is not None and self._graph.num_atoms == len(structure) else None
        cutoffs = self.potential.term.inner_cutoffs
        counts = crowding(found, structure.positions, structure.cell, [c + self.skin for c in cutoffs])
        shape = Shape(len(structure), room(found.mask.shape[1], old.num_slots if old is not None else 0, self.slack), 1)
        shells = roomy_shells(counts, cutoffs, old.shells if old is not None else (), self.slack)
        extent = self.potential.extent([structure])
        return pad([structure], self.potential.cutoff, shape, self.potential.dtype, [found], extent=extent, shells=shells)


def calculate_together(images: Sequence[Atoms]) -> None:
    """Calculate many ``Atoms`` in batches and store the results in their calculators.

    >>> for atoms in candidates:
    ...     atoms.calc = potential.calculator()  # cheap: calculators share compiled functions
    >>> calculate_together(candidates)
    >>> candidates[0].get_forces()  # calculates nothing

    Atoms whose results are up to date, or whose calculator is of another class, are skipped.

    Raises:
        ValueError: images share a calculator, which can hold the results of one image only; or as ``EquipotCalculator``.
    """
    stale = [
        atoms for atoms in images
        if isinstance(atoms.calc, EquipotCalculator) and atoms.calc.calculation_required(atoms, ["energy", "forces"])
    ]  # fmt: skip
    if len({id(atoms.calc) for atoms in stale}) < len(stale):
        raise ValueError("images share a calculator; give each its own: atoms.calc = potential.calculator()")
    groups: dict[int, list[Atoms]] = {}
    for atoms in stale:
        groups.setdefault(id(atoms.calc.potential), []).append(atoms)
    for group in groups.values():
        calculators = [atoms.calc for atoms in group]
        structures = [atoms.calc.structure_of(atoms) for atoms in group]
        calculators[0].potential.correction.check(structures)
        for k, out in evaluate_in_batches(Job(calculators[0].potential, WANT), structures):
            results = calculators[k]._results(structures[k], out)
            calculators[k].atoms, calculators[k].results = group[k].copy(), results


@partial(jax.jit, static_argnames="slow")
def _observe(potential: Potential, graph: Graph, slow: tuple[str, ...] = ()) -> Observables:
    quick = (row.name for row in potential.provides if not row.of_dipole)
    return evaluate(potential, graph, (*WANT, *quick, *slow))
