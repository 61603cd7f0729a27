"""Names and units of the labels in files: those that a config gives, and common names to search for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from equipot import units as unit
from equipot.quantities import BY_NAME, HESSIAN, LABELLED, Quantity, further

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
"""Components of a symmetric tensor in Voigt's order."""


def setting(name: str) -> str:
    """Name a setting of a reader in a message: the argument, as in ``keys.energy``, and the key in the config of a training."""
    return f"{name} (data.{name} in training)"


@dataclass(frozen=True)
class Keys:
    """Names of labels in the files. Labels without a name are searched for under common names; ``none`` switches one off."""

    energy: str | None = None
    """Total energy of a frame."""
    forces: str | None = None
    """Forces on the atoms of a frame."""
    stress: str | None = None
    """Stress, positive under tension: 3x3, nine numbers, or six in the order of ``six``."""
    virial: str | None = None
    """Virial -dE/d(strain) of GAP, MACE, NEP and DeePMD; read as the stress -virial/volume."""
    weight: str | None = None
    """Weight of a frame in the loss."""
    energy_weight: str | None = None
    """Weight of the energy of a frame in the loss."""
    forces_weight: str | None = None
    """Weight of the forces of a frame in the loss."""
    stress_weight: str | None = None
    """Weight of the stress of a frame in the loss."""
    six: str = "xx yy zz yz xz xy"
    """Order of the components of a stress or virial of six numbers; VASP and GPUMD write xx yy zz xy yz zx."""

    others: dict[str, str] = field(default_factory=dict)
    """Names of further quantities, by quantity, and of their weights (dipole_weight): the Hessian, and others for a model that
    predicts them."""

    @property
    def rows(self) -> tuple[Quantity, ...]:
        """Quantities to search for besides energy, forces and stress, see ``also``. The names of parts of a Hessian follow from
        that of the Hessian, see ``hessian_labels``."""
        return (HESSIAN,)

    def __post_init__(self) -> None:
        if sorted(self.order()) != sorted(COMPONENTS):
            raise ValueError(f"six = {self.six!r} is not an order of six components, such as {' '.join(COMPONENTS)}")

    def order(self) -> list[str]:
        """Return the components of a stress of six numbers in the order of ``six``, letters of each sorted (zx becomes xz)."""
        return ["".join(sorted(part)) for part in self.six.lower().replace(",", " ").split()]

    def also(self, rows: Sequence[Quantity]) -> Keys:
        """Return keys that also search for the further quantities that a model predicts, which no config sets.

        Raises:
            ValueError: the config names a further quantity that is not among ``rows``, or one of them has a name that is taken.
        """
        found = replace(_KeysOfModel(**{f.name: getattr(self, f.name) for f in fields(Keys)}), rows=further((HESSIAN, *rows)))
        known = found.known().keys() - KNOWN.keys()
        for name in self.others:
            if name not in known:
                there = f"choose from {', '.join(sorted(known))}" if known else "leave it out"
                there = f"the model predicts no {name}: {there}, or take a model that does" if name in BY_NAME else there
                raise ValueError(f"{setting(f'keys.others.{name}')}: no such quantity is read; {there}")
        return found

    def named(self, label: str) -> str | None:
        """Return the name that the config gives to a label, or None."""
        return getattr(self, label) if label in KNOWN else self.others.get(label)

    def names(self) -> dict[str, str]:
        """Return the names that the config gives, by label."""
        return {label: name for label in (*KNOWN, *self.others) if (name := self.named(label)) is not None}

    def known(self) -> dict[str, tuple[str, ...]]:
        """Return the common names of each label to search for, labels of ``rows`` and their weights included."""
        weights = {label: (label, f"config_{label}") for label, row in self.weights().items() if row in self.rows}
        return KNOWN | {row.name: names_of(row) for row in self.rows} | weights

    def weights(self) -> dict[str, Quantity]:
        """Return the quantity of each label that is the weight of a quantity's label, such as energy_weight."""
        return {f"{row.name}_weight": row for row in (*LABELLED, *self.rows)}

    def per_atom(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one atom's value, for each label that has one value per atom."""
        return {row.name: row.shape for row in (*LABELLED, *self.rows) if row.per == "atom"}


@dataclass(frozen=True)
class _KeysOfModel(Keys):
    """Keys with the further quantities of a model as a field."""

    rows: tuple[Quantity, ...] = ()


@dataclass(frozen=True)
class Units:
    """Units of the files; a missing unit is the one that the file states, else eV or Å. ASE converts outputs itself."""

    energy: str | None = None
    """Unit of energies and virials: eV, meV, Hartree, Ry, kcal/mol or kJ/mol."""
    length: str | None = None
    """Unit of positions and cells: Å, bohr, nm or pm."""
    forces: str | None = None
    """Unit of forces, such as Hartree/bohr; energy/length of the units above if not given."""
    stress: str | None = None
    """Unit of the stress: GPa, MPa, Mbar, kbar, bar, Pa, atm or energy/length^3; energy/length^3 of the units above if not
    given."""
    others: dict[str, str] = field(default_factory=dict)
    """Units of further quantities by quantity, such as ``dipole: Debye``, e*bohr or kcal/mol/Å^2; products of the units of
    energy and length above and e if not given."""
    spin: Literal["unpaired", "multiplicity"] | None = None
    """Count in ``spin``: unpaired electrons, or the multiplicity, one more; found by the numbers of electrons if left out."""

    @property
    def spin_matters(self) -> bool:
        """Whether to refuse spins whose meaning is open, see ``of_model``."""
        return False

    def of_model(self, needs: Sequence[str]) -> Units:
        """Return units for the data of a model, where ``Term.needs`` says whether it sees the spin."""
        own = {f.name: getattr(self, f.name) for f in fields(Units)}
        return replace(_UnitsOfModel(**own), spin_matters=True) if "spin" in needs else self

    @property
    def are_given(self) -> bool:
        """Whether a unit other than eV and Å, or one of a further quantity, is given."""
        return self.factors() != Units().factors() or bool(self.others)

    def __post_init__(self) -> None:
        self.factors()

    def factors(self) -> dict[str, float]:
        """Return the factor that converts each quantity to eV and Å, by name."""
        energy, length = unit.energy(self.energy or "eV"), unit.length(self.length or "Å")
        forces = energy / length if self.forces is None else unit.force(self.forces)
        stress = energy / length**3 if self.stress is None else unit.stress(self.stress)
        return {"energy": energy, "length": length, "forces": forces, "stress": stress, "virial": energy}


@dataclass(frozen=True)
class _UnitsOfModel(Units):
    """Units for the data of a model, with what it sees as a field."""

    spin_matters: bool = False


def _spellings(*names: str) -> tuple[str, ...]:
    """List names with the common prefixes and suffixes, such as ref_energy and energy_dft."""
    prefixes, suffixes = ("", "ref_", "dft_", "qm_"), ("_dft", "_ref")
    return tuple(p + n for n in names for p in prefixes) + tuple(n + s for n in names for s in suffixes)


def names_of(quantity: Quantity) -> tuple[str, ...]:
    """List the common names of a quantity in files, in lower case except for names of one letter."""
    exact = (name if len(name) == 1 else name.lower() for name in quantity.exact_keys)
    return (*_spellings(*(name.lower() for name in (quantity.name, *quantity.keys))), *exact)


KNOWN: dict[str, tuple[str, ...]] = {
    **{row.name: names_of(row) for row in LABELLED},
    "virial": _spellings("virial", "virials"),
    "weight": ("config_weight",),
    "energy_weight": ("energy_weight", "config_energy_weight"),
    "forces_weight": ("forces_weight", "config_forces_weight", "force_weight"),
    "stress_weight": ("stress_weight", "config_stress_weight", "config_virials_weight", "virials_weight"),
}
"""Common names of each label, in lower case; names of more than one letter are matched in any case.

A bare ``weight`` is not included, because in many files ``weight`` is a molecular mass."""
AGREE = {row.name: row.agreement for row in LABELLED} | {"virial": 1e-6}
"""Largest difference between copies of one label under two names, in the label's unit; for further quantities see
``Quantity.agreement``."""
SWITCHED_OFF = "none"
