"""One atomic system on the host: numpy, no JAX, with optional reference labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from equipot.quantities import ENERGY, FORCES, STRESS, TABLE, Labels, Quantity, among

ELECTRONS = ("charge", "total_charge", "spin")
"""Entries that say how many electrons a system has and how many are unpaired, in lower case; they may be written in any."""


def charge_and_spin(entries: Mapping[str, Any], source: str) -> tuple[float, float]:
    """Total charge (e) and number of unpaired electrons from a frame's entries; zero where there is none, or None.

    Raises:
        ValueError: a charge or spin that is not one finite number, as True is not, or two that differ.
    """
    found: dict[str, tuple[float, str]] = {}
    for key, value in entries.items():
        if key.lower() not in ELECTRONS or value is None:
            continue
        name = "spin" if key.lower() == "spin" else "charge"
        number = _one_number(value)
        if number is None:
            shown = str(value)[:40]
            raise ValueError(f"{source}: info[{key!r}] is {shown!r}, not one number; correct it or leave it out")
        if name in found and found[name][0] != number:
            raise ValueError(
                f"{source}: {found[name][1]!r} is {found[name][0]:g}, but {key!r} {number:g}; leave one of them out"
            )
        found[name] = number, key
    return tuple(found.get(name, (0.0, ""))[0] for name in ("charge", "spin"))


def _one_number(value: Any) -> float | None:
    """A finite number; None for anything else. True is no 1: ASE makes it of a word in a comment."""
    held = np.asarray(value)
    if held.dtype.kind == "b" or held.size != 1:
        return None
    try:
        number = float(held.reshape(()))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def kinds_of_constraints(atoms: Any) -> tuple[str, ...]:
    """Names of the classes of the constraints of an ``ase.Atoms``, in alphabetical order."""
    return tuple(sorted({type(constraint).__name__ for constraint in atoms.constraints}))


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms, cell and, where known, what quantum mechanics says about them.

    Units are eV, Å and e. ``cell`` has lattice vectors as rows; a row whose ``pbc`` is False does not repeat. The weights
    multiply this structure's terms of the training loss.

    Raises:
        ValueError: a wrong shape, with the name of the field and of the source.
    """

    numbers: np.ndarray
    """(n,) atomic numbers Z."""
    positions: np.ndarray
    """(n, 3) Å."""
    cell: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    """(3, 3) Å, rows are lattice vectors."""
    pbc: np.ndarray = field(default_factory=lambda: np.zeros(3, bool))
    """(3,) whether each lattice vector repeats."""
    labels: Labels = field(default_factory=dict)
    """Reference values by quantity, or by the name of one in ``quantities.TABLE``; what is None is left out. Units and signs
    are those of the rows: a stress is positive under tension, as in ASE."""
    charge: float = 0.0
    """Total charge, e."""
    spin: float = 0.0
    """Number of unpaired electrons."""
    masses: np.ndarray | None = None
    """(n,) amu; None for the standard ones."""
    momenta: np.ndarray | None = None
    """(n, 3) sqrt(eV amu)."""
    constraints: tuple[str, ...] = ()
    """Kinds of ASE's constraints on the atoms, such as FixAtoms. Nothing in this package obeys them."""
    weight: float = 1.0
    """Factor on all terms of the loss."""
    label_weights: Mapping[Quantity, float] = field(default_factory=dict)
    """Further factors on the terms of single quantities; 1 for those that are not there."""
    head: int | None = None
    """Which level of theory the labels are of, by its place among those of a potential with several; None for any other."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the file said about this frame."""
    source: str = ""
    """Where it came from, such as ``train.xyz, frame 12``; used in messages."""

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)
        # Copies: what the caller does to his arrays afterwards, as a simulation does, must not change this structure.
        put("numbers", np.array(self.numbers, np.int32).reshape(-1))
        put("positions", np.array(self.positions, np.float64))
        put("cell", np.array(self.cell, np.float64))
        put("pbc", np.broadcast_to(np.asarray(self.pbc, bool), (3,)).copy())
        n = len(self.numbers)
        shapes = {"positions": (n, 3), "cell": (3, 3), "masses": (n,), "momenta": (n, 3)}
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
        """|det cell| in Å^3; zero for a system that is open along a missing lattice vector."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def name(self) -> str:
        """How messages call this structure."""
        return self.source or f"a structure of {len(self)} atoms"

    @property
    def electrons(self) -> dict[str, float]:
        """Charge (e) and spin by name, where they are not zero."""
        return {name: value for name, value in (("charge", self.charge), ("spin", self.spin)) if value}

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
        """Factor on the term of the loss for a quantity: that of the frame times that of the label; 0 without a label."""
        return self.weight * self.label_weights.get(quantity, 1.0) if quantity in self.labels else 0.0

    @property
    def geometry_weight(self) -> float:
        """Weight of this structure where its geometry counts: that of the frame, 0 where all of its labels have none."""
        return self.weight if not self.labels or any(map(self.weight_of, self.labels)) else 0.0

    def replace(self, **changes: Any) -> Structure:
        """The structure with other fields; the name of a quantity, such as ``energy``, changes its label, None removes it."""
        named = {row.name: row for row in (*TABLE, *self.labels)}
        labels = {named[name]: changes.pop(name) for name in list(changes) if name in named}
        if labels:
            changes["labels"] = {**changes.get("labels", self.labels), **labels}
        return replace(self, **changes)

    def without_labels(self) -> Structure:
        return replace(self, labels={})

    @classmethod
    def from_ase(cls, atoms: Any, source: str = "") -> Structure:
        """Geometry, masses, momenta, ``info['charge']`` and ``info['spin']`` of an ``ase.Atoms``, and kinds of its constraints.

        Labels are read by ``data.read``, charge and spin by ``charge_and_spin``.

        Raises:
            ValueError: a charge or spin that is not one number.
        """
        charge, spin = charge_and_spin(atoms.info, source or atoms.get_chemical_formula())
        return cls(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=np.array(atoms.cell[:]),
            pbc=atoms.pbc,
            charge=charge,
            spin=spin,
            masses=atoms.arrays.get("masses"),
            momenta=atoms.arrays.get("momenta"),
            constraints=kinds_of_constraints(atoms),
            info={key: value for key, value in atoms.info.items() if key.lower() not in ELECTRONS},
            source=source,
        )

    def to_ase(self) -> Any:
        """An ``ase.Atoms`` with the labels in a ``SinglePointCalculator`` (stress in ASE's Voigt order).

        Labels that ASE has no name for stand in its ``info`` or ``arrays``, under the names of their quantities.
        A charge and a spin that are not zero stand in its ``info``, where ``from_ase`` looks for them.
        """
        from ase import Atoms
        from ase.calculators.calculator import all_properties
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc, info=dict(self.info))
        atoms.info |= self.electrons
        for name in ("masses", "momenta"):
            if getattr(self, name) is not None:
                atoms.set_array(name, getattr(self, name))
        results = {}
        for row, value in self.labels.items():
            if row.name in all_properties:
                results[row.name] = full_3x3_to_voigt_6_stress(value) if row is STRESS else value
            elif row.per == "atom":
                atoms.set_array(row.name, value)
            else:
                atoms.info[row.name] = value
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms
