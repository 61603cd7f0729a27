"""Table of all quantities that can be predicted, labelled, trained on, stored and plotted.

A row holds everything that readers, checks, files, batches, losses, error tables and plots need to know about a quantity: code
there iterates over rows and names no quantity. A term that predicts a further quantity defines its row (``Term.provides``), and
no other code changes. Units inside the package are eV, Å and e.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from equipot import hessian_labels
from equipot.units import GPa

__all__ = [
    "ATOMIC_DIPOLES", "BORN_CHARGES", "CHARGES", "DIPOLE", "DISPERSION_ENERGY", "ELECTROSTATIC_ENERGY", "ENERGIES", "ENERGY",
    "ENERGY_STD", "ENSEMBLE", "FEATURES", "FEATURE_FORCES", "FEATURE_SLOPES", "FORCES", "FORCES_STD", "HESSIAN", "LABELLED",
    "LATENT", "NOVELTY", "POLARIZABILITY", "QUADRUPOLE", "STRESS", "STRESS_STD", "TABLE", "VIRIALS", "Quantity",
]  # fmt: skip


@dataclass(frozen=True, repr=False)
class Quantity:
    """A quantity of a system (one value for each graph), of its atoms (one for each atom) or of their pairs (one for each).

    Raises:
        ValueError: a name that cannot be a key, or a scale that is not positive.
    """

    name: str
    """Key in configs, files and results."""
    per: Literal["graph", "atom", "pair"]
    """What has a value of its own. A quantity of pairs is a Hessian, see ``hessian_labels``; training sees its products with
    directions, which have a vector for each atom."""
    shape: tuple[int, ...] = ()
    """Shape of one value: () for a scalar, (3,) for a vector, (3, 3) for a tensor."""
    unit: str = ""
    """Unit in eV, Å and e, as tables and plots write it."""
    dimension: tuple[int, int, int] = (0, 0, 0)
    """Powers of energy, length and charge in the unit, by which values of other units are converted."""
    keys: tuple[str, ...] = ()
    """Names in the files of other programs, in any of the usual spellings, besides the quantity's own."""
    exact_keys: tuple[str, ...] = ()
    """Further names in files, which are matched exactly, capitals included."""
    scale: float = 1.0
    """Default error that contributes 1 to the loss, in ``unit`` (per atom for an extensive quantity)."""
    agreement: float = 1e-6
    """Largest difference between copies of one label under two names, in ``unit``."""
    extensive: bool = False
    """Whether the value grows with the number of atoms; errors are then given per atom."""
    from_isolated_atoms: bool = False
    """Whether the value includes E0 of the isolated atoms, which the network does not predict."""
    needs_volume: bool = False
    """Whether the quantity is defined only for a system with a volume."""
    energy_derivative: bool = False
    """Whether the quantity is the energy or follows from its derivatives, so that every term provides it."""
    energy_part: bool = False
    """Whether the quantity is a part of the energy: parts from several terms are added up, and none is read as a label."""
    of_dipole: bool = False
    """Whether the quantity is a derivative of the dipole moment, which takes three more passes."""
    of_posterior: bool = False
    """Whether the quantity is an estimate of uncertainty, which a potential has from ``equipot.uncertainty``."""
    of_features: bool = False
    """Whether the quantity is a derivative of the features of the last layer."""
    deviation_of: str = ""
    """Name of the quantity whose standard deviation this is."""
    calibrated_by: str = ""
    """Name of the deviation by whose calibration the values are scaled."""
    traceless: bool = False
    """Whether only the traceless part of a tensor counts, so that labels lose their trace."""
    symbol: str = ""
    """Letter in one-line summaries."""
    display: tuple[str, float] = ("", 1.0)
    """Unit of displayed errors, and the factor from ``unit``."""
    axis: tuple[str, float] = ("", 1.0)
    """Unit of the axes of plots, and the factor from ``unit``."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a quantity cannot be called {self.name!r}: use letters, digits and _")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"{self.name}: scale {self.scale} must be positive: it is the error that counts as one")

    def __repr__(self) -> str:
        return f"Quantity({self.name})"

    @property
    def size(self) -> int:
        """Numbers in one value."""
        return math.prod(self.shape)

    @property
    def of_atoms(self) -> bool:
        """Whether the targets of a batch have a row for each atom: a value, or of a Hessian its product with a direction."""
        return self.per != "graph"

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of a row of the targets of a batch."""
        return self.shape[:1] if self.per == "pair" else self.shape

    @property
    def error_name(self) -> str:
        """Template of the error's name in training: ``energy_{}_per_atom``, ``forces_{}``, ``hessian_product_{}``."""
        if self.per == "pair":
            return f"{self.name}_product_{{}}"
        return f"{self.name}_{{}}_per_atom" if self.extensive else f"{self.name}_{{}}"

    @property
    def shown(self) -> tuple[str, float]:
        """Unit of displayed errors and the factor from ``unit``: ``display``, else ``unit`` itself."""
        return self.display if self.display[0] else (self.unit, 1.0)

    @property
    def drawn(self) -> tuple[str, float]:
        """Unit of plot axes and the factor from ``unit``: ``axis``, else ``unit`` itself."""
        return self.axis if self.axis[0] else (self.unit, 1.0)

    def shape_of(self, atoms: int) -> tuple[int, ...]:
        """Return the shape of a label of a structure with a number of atoms; a Hessian may have another, as products."""
        if self.per == "pair":
            return (atoms, self.shape[0], atoms, self.shape[1])
        return (atoms, *self.shape) if self.per == "atom" else self.shape

    def checked(self, value: Any, atoms: int, source: str) -> Any:
        """Convert a label to double precision: a float for a scalar per graph, else a new array.

        Raises:
            ValueError: a wrong shape; the message names the quantity and ``source``.
        """
        if self.per == "pair":
            return hessian_labels.checked(value, atoms, source)
        array = np.array(value, np.float64)
        wanted = self.shape_of(atoms)
        if array.shape != wanted:
            raise ValueError(f"{source}: {self.name} has shape {array.shape}, but {atoms} atoms need {wanted}")
        if self.traceless:
            array -= np.trace(array, axis1=-2, axis2=-1)[..., None, None] * np.eye(3) / 3
        return float(array) if wanted == () else array

    def scaled(self, value: Any, factor: float) -> Any:
        """Convert a label to another unit, of which the present unit is ``factor``."""
        return hessian_labels.scaled(value, factor) if self.per == "pair" else value * factor

    def compared(self, value: Any) -> np.ndarray:
        """Return the numbers of a label of which errors are taken, see ``hessian_labels.compared`` for a Hessian."""
        return hessian_labels.compared(value) if self.per == "pair" else np.asarray(value)


ENERGY = Quantity(
    "energy", "graph", unit="eV", dimension=(1, 0, 0), keys=("free_energy",),
    exact_keys=("E", "total_energy", "potential_energy", "TotEnergy"), scale=0.03, extensive=True, from_isolated_atoms=True,
    energy_derivative=True, symbol="E", display=("meV", 1e3), axis=("eV", 1.0),
)  # fmt: skip
"""Total energy."""
FORCES = Quantity(
    "forces", "atom", (3,), unit="eV/Å", dimension=(1, -1, 0), keys=("force",), exact_keys=("F",), scale=0.1,
    energy_derivative=True, symbol="F", display=("meV/Å", 1e3), axis=("eV/Å", 1.0),
)  # fmt: skip
"""Forces, -dE/dr."""
STRESS = Quantity(
    "stress", "graph", (3, 3), unit="eV/Å^3", dimension=(1, -3, 0), scale=0.01, agreement=1e-8, needs_volume=True,
    energy_derivative=True, symbol="S", display=("GPa", 1 / GPa), axis=("GPa", 1 / GPa),
)  # fmt: skip
"""Stress, (1/V) dE/d(strain): symmetric, positive under tension."""
CHARGES = Quantity("charges", "atom", unit="e", dimension=(0, 0, 1), scale=0.1, symbol="q", display=("me", 1e3))
"""Partial charges."""
DIPOLE = Quantity(
    "dipole", "graph", (3,), unit="e Å", dimension=(0, 1, 1), keys=("dipole_moment",), scale=0.2, symbol="D",
    display=("me Å", 1e3),
)  # fmt: skip
"""Dipole moment of a system."""
QUADRUPOLE = Quantity(
    "quadrupole", "graph", (3, 3), unit="e Å^2", dimension=(0, 2, 1), keys=("quadrupole_moment",), scale=1.0, traceless=True,
    symbol="Q", display=("me Å^2", 1e3),
)  # fmt: skip
"""Traceless part of the second moment of charge, sum q (r r - r^2 / 3), about the mean position."""
ATOMIC_DIPOLES = Quantity(
    "atomic_dipoles", "atom", (3,), unit="e Å", dimension=(0, 1, 1), scale=0.1, symbol="d", display=("me Å", 1e3)
)
"""Dipole moments of the atoms beside those of their charges."""
BORN_CHARGES = Quantity(
    "born_effective_charges", "atom", (3, 3), unit="e", dimension=(0, 0, 1), keys=("bec", "becs", "born_charges"), scale=0.2,
    of_dipole=True, symbol="Z", display=("me", 1e3),
)  # fmt: skip
"""Born effective charges: Z_ab = d(dipole moment along a) / d(position along b), in a constant field."""
POLARIZABILITY = Quantity(
    "polarizability", "graph", (3, 3), unit="e^2 Å^2/eV", dimension=(-1, 2, 2), keys=("polarisability",), scale=0.1,
    of_dipole=True, symbol="A",
)  # fmt: skip
"""Polarizability of a system: alpha_ab = d(dipole moment along a) / d(electric field along b). 1 e^2 Å^2/eV is a polarizability
volume of 14.4 Å^3."""
HESSIAN = Quantity(
    "hessian", "pair", (3, 3), unit="eV/Å^2", dimension=(1, -2, 0), scale=2.0, agreement=1e-5, energy_derivative=True,
    symbol="H",
)  # fmt: skip
"""Hessian d^2E/dr dr: the whole matrix, or its products with directions, see ``hessian_labels``. In training its ``scale`` is
that of a product with a direction of the length sqrt(3 atoms): of the root mean square length of a row of the error."""
ELECTROSTATIC_ENERGY = Quantity(
    "electrostatic_energy", "graph", unit="eV", dimension=(1, 0, 0), extensive=True, energy_part=True, display=("meV", 1e3)
)
"""Energy of charges and dipoles: their own, in each other's field, and in an external one. Total energies include it."""
DISPERSION_ENERGY = Quantity(
    "dispersion_energy", "graph", unit="eV", dimension=(1, 0, 0), extensive=True, energy_part=True, display=("meV", 1e3)
)
"""Energy of corrections for dispersion. Total energies include it."""
ENERGIES = Quantity("energies", "atom", unit="eV", dimension=(1, 0, 0), energy_derivative=True, from_isolated_atoms=True)
"""Energy of each atom; the sum is the total energy."""
VIRIALS = Quantity("virials", "atom", (3, 3), unit="eV", dimension=(1, 0, 0), energy_derivative=True)
"""Virial of each atom; the sum is stress times volume."""
LATENT = Quantity("latent", "atom")
"""Invariant descriptor of each atom; the network sets its width."""
FEATURES = Quantity("features", "atom")
"""Numbers of each atom that the last linear layer acts on, see ``term.Atomic.features``; the network sets their width."""
FEATURE_SLOPES = Quantity("feature_slopes", "graph", of_features=True)
"""Derivatives of the sum of the features over the atoms of a system along random signs, see ``potential.feature_slopes``."""
FEATURE_FORCES = Quantity("feature_forces", "atom", of_features=True)
"""Forces of an energy that is one of the features, summed over the atoms, for each of them in turn: [3, features]."""
ENERGY_STD = Quantity(
    "energy_std", "graph", unit="eV", dimension=(1, 0, 0), of_posterior=True, deviation_of="energy", display=("meV", 1e3)
)
"""Standard deviation of the total energy."""
FORCES_STD = Quantity(
    "forces_std", "atom", unit="eV/Å", dimension=(1, -1, 0), of_posterior=True, deviation_of="forces", display=("meV/Å", 1e3)
)
"""Standard deviation of a Cartesian component of the force on each atom: the root of a third of the variance of the vector."""
STRESS_STD = Quantity(
    "stress_std", "graph", unit="eV/Å^3", dimension=(1, -3, 0), of_posterior=True, deviation_of="stress", needs_volume=True,
    display=("GPa", 1 / GPa),
)  # fmt: skip
"""Standard deviation of a component of the stress: the root of a ninth of the variance of the tensor."""
ENSEMBLE = Quantity(
    "ensemble", "graph", unit="eV", dimension=(1, 0, 0), of_posterior=True, calibrated_by="energy_std", display=("meV", 1e3)
)
"""Energies of the members of a committee, or of samples of the last layer, less the energy of the system: [members]. Their root
mean square is ``energy_std`` without its floor."""
NOVELTY = Quantity("novelty", "atom", of_posterior=True)
"""Distance of an atom's environment from those of the fitted structures: 1 is as far as the farthest per cent of these."""

LABELLED = (ENERGY, FORCES, STRESS)
"""Quantities that are read from files, checked and trained on for every term."""
TRAINED = (*LABELLED, HESSIAN)
"""Quantities that every term can be trained on: ``LABELLED``, and the Hessian where there are labels of it."""
TABLE = (
    *LABELLED, ENERGIES, VIRIALS, CHARGES, DIPOLE, QUADRUPOLE, ATOMIC_DIPOLES, BORN_CHARGES, POLARIZABILITY,
    ELECTROSTATIC_ENERGY, DISPERSION_ENERGY, LATENT, HESSIAN,
)  # fmt: skip
"""All rows of the package."""
BY_NAME: Mapping[str, Quantity] = {quantity.name: quantity for quantity in TABLE}
RESULTS = (
    *(row for row in TABLE if row is not HESSIAN), FEATURES, FEATURE_SLOPES, FEATURE_FORCES, ENERGY_STD, FORCES_STD, STRESS_STD,
    ENSEMBLE, NOVELTY,
)  # fmt: skip
"""All rows that ``evaluate`` can be asked for, besides those of the potential's own term; for the Hessian see
``evaluation.hessian_of`` and ``evaluation.products``."""
RESERVED = (
    "virial", "weight", "field", "charge", "total_charge", "spin", "multiplicity", "spin_multiplicity", "mult", "length",
    "masses", "momenta", "interaction", "interactions", "features", "feature_slopes", "feature_forces", "energy_std",
    "forces_std", "stress_std", "ensemble", "novelty", "hessian_products", "hessian_directions", "hessian_columns",
)  # fmt: skip
"""Names beside those of ``TABLE`` that files, configs or results use for something else."""

Labels = Mapping[Quantity, Any]
"""Values of a structure by quantity: a float for a scalar per graph, else an array [*shape] or [atoms, *shape]; of a Hessian
[atoms, 3, atoms, 3] or, as products, [K, 2, atoms, 3]."""


def among(names: Iterable[str], rows: Sequence[Quantity] = TABLE) -> tuple[Quantity, ...]:
    """Return the rows with the given names, in the order of the names.

    Raises:
        ValueError: an unknown name.
    """
    known = {row.name: row for row in rows}
    names = tuple(names)
    for name in names:
        if name not in known:
            raise ValueError(f"no such quantity {name!r}; choose from {', '.join(known)}")
    return tuple(known[name] for name in names)


def further(rows: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """Return the rows that a term provides if each has a name of its own; rows of ``TABLE`` may be among them.

    Raises:
        ValueError: the name of a row of ``TABLE``, of another entry of a frame, of the weight of a label, or of two rows.
    """
    rows = tuple(rows)
    for k, row in enumerate(rows):
        name = row.name.lower()
        taken = name in (*BY_NAME, *RESERVED) or name.endswith("_weight")
        if (taken and row not in TABLE) or row.name in (other.name for other in rows[:k]):
            raise ValueError(f"a further quantity cannot be called {row.name!r}: the name is taken; choose another")
    return rows


def ordered(rows: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """Sort rows, each once: rows of ``TABLE`` in table order, then the others by name."""
    rows = set(rows)
    return (*(row for row in TABLE if row in rows), *sorted(rows - set(TABLE), key=lambda row: row.name))
