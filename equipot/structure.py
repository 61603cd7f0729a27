"""One atomic system on the host: numpy, no JAX, with optional reference labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

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

    Units are eV, Å and e. ``cell`` has lattice vectors as rows; a row whose ``pbc`` is False does not repeat. ``stress`` is
    (1/V) dE/d(strain) in eV/Å^3: positive under tension, as in ASE. Labels that are not known are None. The weights multiply
    this structure's terms of the training loss.

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
    energy: float | None = None
    """Total energy, eV."""
    forces: np.ndarray | None = None
    """(n, 3) eV/Å."""
    stress: np.ndarray | None = None
    """(3, 3) eV/Å^3."""
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
    energy_weight: float = 1.0
    forces_weight: float = 1.0
    stress_weight: float = 1.0
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
        shapes = {"positions": (n, 3), "cell": (3, 3), "forces": (n, 3), "stress": (3, 3), "masses": (n,), "momenta": (n, 3)}
        for name in ("forces", "stress", "masses", "momenta"):
            if getattr(self, name) is not None:
                put(name, np.array(getattr(self, name), np.float64))
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(f"{self.source or 'structure'}: {name} has shape {value.shape}, but {n} atoms need {shape}")

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

    def weight_of(self, label: str) -> float:
        """Weight of the energy, forces or stress of this structure: that of the frame times that of the label; 0 without it."""
        return 0.0 if getattr(self, label) is None else self.weight * getattr(self, f"{label}_weight")

    @property
    def geometry_weight(self) -> float:
        """Weight of this structure where its geometry counts: that of the frame, 0 where all of its labels have none."""
        labels = [label for label in ("energy", "forces", "stress") if getattr(self, label) is not None]
        return self.weight if not labels or any(map(self.weight_of, labels)) else 0.0

    def replace(self, **changes: Any) -> Structure:
        return replace(self, **changes)

    def without_labels(self) -> Structure:
        return replace(self, energy=None, forces=None, stress=None)

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

        A charge and a spin that are not zero stand in its ``info``, where ``from_ase`` looks for them.
        """
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc, info=dict(self.info))
        atoms.info |= self.electrons
        for name in ("masses", "momenta"):
            if getattr(self, name) is not None:
                atoms.set_array(name, getattr(self, name))
        labels = {"energy": self.energy, "forces": self.forces}
        if self.stress is not None:
            labels["stress"] = full_3x3_to_voigt_6_stress(self.stress)
        labels = {key: value for key, value in labels.items() if value is not None}
        if labels:
            atoms.calc = SinglePointCalculator(atoms, **labels)
        return atoms
