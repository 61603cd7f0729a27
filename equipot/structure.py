"""One atomic system on the host: numpy, no JAX, with optional reference labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from equipot import electric_field
from equipot.electrons import KEYS, charge_and_spin, impossible
from equipot.hessian_labels import parts
from equipot.quantities import ENERGY, FORCES, STRESS, TABLE, Labels, Quantity, among

__all__ = ["Structure"]


def kinds_of_constraints(atoms: Any) -> tuple[str, ...]:
    """Return the class names of the constraints of an ``ase.Atoms``, each once, in alphabetical order."""
    return tuple(sorted({type(constraint).__name__ for constraint in atoms.constraints}))


def symbols(numbers: Iterable[int]) -> str:
    """Join the chemical symbols of atomic numbers, for messages."""
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] if z < len(chemical_symbols) else f"Z={z}" for z in numbers)


def fixed_components(atoms: Any) -> np.ndarray | None:
    """Return which components of the positions FixAtoms and FixCartesian of an ``ase.Atoms`` fix, (n, 3); None for none."""
    fixed, known = np.zeros((len(atoms), 3), bool), False
    for constraint in atoms.constraints:
        if type(constraint).__name__ == "FixAtoms":
            fixed[constraint.index] = known = True
        elif type(constraint).__name__ == "FixCartesian":
            fixed[constraint.index] |= np.asarray(constraint.mask, bool)
            known = True
    return fixed if known else None


def constraints_of(fixed: np.ndarray) -> list[Any]:
    """Make the constraints of ASE that fix components of positions, (n, 3): FixAtoms, and FixCartesian where some are free."""
    from ase.constraints import FixAtoms, FixCartesian

    whole, some = fixed.all(axis=1), fixed.any(axis=1) & ~fixed.all(axis=1)
    found: list[Any] = [FixAtoms(np.flatnonzero(whole))] if whole.any() else []
    return [*found, *(FixCartesian([int(k)], mask=fixed[k].tolist()) for k in np.flatnonzero(some))]


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms and cell of one system, with optional reference labels.

    Units are eV, Å and e. Rows of ``cell`` are lattice vectors; the system does not repeat along a row whose ``pbc`` is False.

    Raises:
        ValueError: a field of the wrong shape.
    """

    numbers: np.ndarray
    """(n,) atomic numbers Z."""
    positions: np.ndarray
    """(n, 3) Å."""
    cell: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((3, 3)))
    """(3, 3) Å, rows are lattice vectors."""
    pbc: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3, bool))
    """(3,) whether each lattice vector repeats."""
    labels: Labels = dataclasses.field(default_factory=dict)
    """Reference values by quantity, or by the name of a quantity in ``quantities.TABLE``; values of None are dropped. Units and
    signs are those of the quantities: a stress is positive under tension, as in ASE."""
    charge: float = 0.0
    """Total charge, e."""
    spin: float = 0.0
    """Number of unpaired electrons."""
    field: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    """(3,) external homogeneous electric field, V/Å."""
    masses: np.ndarray | None = None
    """(n,) amu; None for the standard masses."""
    momenta: np.ndarray | None = None
    """(n, 3) sqrt(eV amu)."""
    constraints: tuple[str, ...] = ()
    """Class names of ASE's constraints on the atoms, such as FixAtoms. Only relaxations apply them, see ``fixed``."""
    fixed: np.ndarray | None = None
    """(n, 3) components of the positions that FixAtoms and FixCartesian fix; None for none."""
    weight: float = 1.0
    """Factor on all penalties of the training loss of this structure."""
    label_weights: Mapping[Quantity, float] = dataclasses.field(default_factory=dict)
    """Further factors on the penalties of single quantities in the loss; 1 for a quantity that is not listed."""
    head: int | None = None
    """Index of the head, the level of theory, that the labels belong to; None for a potential without heads."""
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further entries of the frame in its file."""
    source: str = ""
    """Origin of the structure for messages, such as ``train.xyz, frame 12``."""

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)
        # Copies: what the caller does to his arrays afterwards, as a simulation does, must not change this structure.
        put("numbers", np.array(self.numbers, np.int32).reshape(-1))
        put("positions", np.array(self.positions, np.float64))
        put("cell", np.array(self.cell, np.float64))
        put("pbc", np.broadcast_to(np.asarray(self.pbc, bool), (3,)).copy())
        n = len(self.numbers)
        put("field", np.array(self.field, np.float64))
        shapes = {"positions": (n, 3), "cell": (3, 3), "field": (3,), "masses": (n,), "momenta": (n, 3), "fixed": (n, 3)}
        if self.fixed is not None:
            put("fixed", np.array(self.fixed, bool))
        for name in ("masses", "momenta"):
            if getattr(self, name) is not None:
                put(name, np.array(getattr(self, name), np.float64))
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(f"{self.source or 'structure'}: {name} has shape {value.shape}, but {n} atoms need {shape}")
        given = {row if isinstance(row, Quantity) else among([row])[0]: value for row, value in self.labels.items()}
        checked = {row: row.checked(v, n, self.source or "structure") for row, v in given.items() if v is not None}
        put("labels", MappingProxyType(checked))
        put("label_weights", MappingProxyType(dict(self.label_weights)))

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """|det cell| (Å^3); zero if a lattice vector is missing."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def name(self) -> str:
        """Name of the structure in messages."""
        return self.source or f"a structure of {len(self)} atoms"

    @property
    def electrons(self) -> dict[str, float]:
        """Total charge (e) and spin by name, as files state them; empty for a neutral singlet.

        Both, since a spin alone does not tell a reader the number of electrons, nor so the meaning of the spin.
        """
        return {"charge": self.charge, "spin": self.spin} if self.charge or self.spin else {}

    @property
    def conditions(self) -> dict[str, Any]:
        """Total charge, spin and electric field by name, as files state them; empty for a neutral singlet without a field."""
        return self.electrons | ({electric_field.KEY: self.field} if self.field.any() else {})

    @property
    def impossible_electrons(self) -> str:
        """Why charge and spin contradict the number of electrons; empty where they do not, see ``electrons.impossible``."""
        return impossible(self.numbers, bool(self.pbc.any()), self.charge, self.spin)

    @property
    def energy(self) -> float | None:
        """Label of the total energy, eV."""
        return self.labels.get(ENERGY)

    @property
    def forces(self) -> np.ndarray | None:
        """(n, 3) label of the forces, eV/Å."""
        return self.labels.get(FORCES)

    @property
    def stress(self) -> np.ndarray | None:
        """(3, 3) label of the stress, eV/Å^3."""
        return self.labels.get(STRESS)

    def weight_of(self, quantity: Quantity) -> float:
        """Return the factor on the penalty of a quantity in the loss: frame weight times label weight, or 0 without a label."""
        return self.weight * self.label_weights.get(quantity, 1.0) if quantity in self.labels else 0.0

    @property
    def geometry_weight(self) -> float:
        """Weight of this structure in statistics of geometries: the frame weight, or 0 if all labels have weight zero."""
        return self.weight if not self.labels or any(map(self.weight_of, self.labels)) else 0.0

    def replace(self, **changes: Any) -> Structure:
        """Return a copy with other fields; the name of a quantity, such as ``energy``, sets its label, None removes a label."""
        named = {row.name: row for row in (*TABLE, *self.labels)}
        labels = {named[name]: changes.pop(name) for name in list(changes) if name in named}
        if labels:
            changes["labels"] = {**changes.get("labels", self.labels), **labels}
        return replace(self, **changes)

    def without_labels(self) -> Structure:
        """Return a copy without reference labels."""
        return replace(self, labels={})

    @classmethod
    def from_ase(cls, atoms: Any, source: str = "") -> Structure:
        """Convert an ``ase.Atoms``: geometry, masses, momenta, charge, spin, field and the kinds of constraints, but no labels.

        Total charge, spin and electric field are read from ``atoms.info`` (see ``electrons.charge_and_spin`` and
        ``electric_field``), where ``spin`` is the number of unpaired electrons. Labels are read by ``data.read``.

        Raises:
            ValueError: a charge or spin that is not one number, or a field that is not three.
        """
        name = source or atoms.get_chemical_formula()
        charge, spin = charge_and_spin(atoms.info, name)
        field = electric_field.stated(atoms.info, name)
        return cls(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=np.array(atoms.cell[:]),
            pbc=atoms.pbc,
            charge=charge,
            spin=spin,
            field=np.zeros(3) if field is None else field,
            masses=atoms.arrays.get("masses"),
            momenta=atoms.arrays.get("momenta"),
            constraints=kinds_of_constraints(atoms),
            fixed=fixed_components(atoms),
            info={key: value for key, value in atoms.info.items() if key.lower() not in (*KEYS, *electric_field.KEYS)},
            source=source,
        )

    def to_ase(self) -> Any:
        """Convert to an ``ase.Atoms`` with the labels in a ``SinglePointCalculator`` (stress in ASE's Voigt order).

        Labels without a name in ASE are stored in ``info`` or ``arrays``, under the names of their quantities, a Hessian as
        numbers in a row or as products (see ``hessian_labels``). Total charge,
        spin and electric field are stored in ``info``, where ``from_ase`` reads them, unless they are zero.
        """
        from ase import Atoms
        from ase.calculators.calculator import all_properties
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc, info=dict(self.info))
        atoms.info |= self.conditions
        for name in ("masses", "momenta"):
            if getattr(self, name) is not None:
                atoms.set_array(name, getattr(self, name))
        if self.fixed is not None and self.fixed.any():
            atoms.set_constraint(constraints_of(self.fixed))
        results = {}
        for row, value in self.labels.items():
            if row.name in all_properties:
                results[row.name] = full_3x3_to_voigt_6_stress(value) if row is STRESS else value
            elif row.per == "pair":
                entries, columns = parts(value, row.name)
                atoms.info |= entries
                for name, column in columns.items():
                    atoms.set_array(name, column)
            elif row.per == "atom":
                atoms.set_array(row.name, value)
            else:
                atoms.info[row.name] = value
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms
