"""Ideal-gas thermochemistry of a molecule: rigid rotor and harmonic oscillators, with a choice for low frequencies.

Formulas as in McQuarrie, Statistical Mechanics, chapters 5, 6 and 8, and in ``ase.thermochemistry.IdealGasThermo``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equipot import units
from equipot.rigid_motions import masses_of, rotations
from equipot.structure import Structure

LARGE = 700.0
"""Energy of a mode over k T beyond which the mode is at rest in double precision."""


@dataclass(frozen=True)
class Harmonic:
    """Every mode is a harmonic oscillator."""

    def entropy(self, energies: Float[np.ndarray, " modes"], temperature: float, inertia: float) -> Float[np.ndarray, " modes"]:
        """Compute the entropy of each mode (eV/K) from its energy h nu (eV); ``inertia`` is not used."""
        return oscillator_entropy(energies, temperature)


@dataclass(frozen=True)
class QuasiRRHO:
    """Modes of low frequency are free rotors: Grimme, Chem. Eur. J. 18, 9955 (2012), eqs. 3 to 8.

    The entropy of a mode is w S_oscillator + (1 - w) S_rotor with w = 1 / (1 + (nu_0 / nu)^4); energies stay those of
    oscillators.
    """

    wavenumber: float = 100.0
    """nu_0 (1/cm), where oscillator and rotor have equal weights."""

    def __post_init__(self) -> None:
        if not 0 < self.wavenumber < math.inf:
            raise ValueError(f"wavenumber {self.wavenumber:g} of QuasiRRHO must be positive, 100 (1/cm) as in the paper")

    def entropy(self, energies: Float[np.ndarray, " modes"], temperature: float, inertia: float) -> Float[np.ndarray, " modes"]:
        """Compute the entropy of each mode (eV/K).

        Args:
            energies: h nu, eV.
            temperature: K.
            inertia: mean moment of inertia of the molecule (amu Å^2), which limits that of a rotor.
        """
        weight = 1 / (1 + (self.wavenumber * units.per_cm / energies) ** 4)
        return weight * oscillator_entropy(energies, temperature) + (1 - weight) * rotor_entropy(energies, temperature, inertia)


def oscillator_entropy(energies: Float[np.ndarray, " modes"], temperature: float) -> Float[np.ndarray, " modes"]:
    """Compute the entropy (eV/K) of harmonic oscillators of energies h nu (eV)."""
    x = energies / (units.kB * temperature)
    return units.kB * (x / np.expm1(np.minimum(x, LARGE)) - np.log(-np.expm1(-x)))


def rotor_entropy(energies: Float[np.ndarray, " modes"], temperature: float, inertia: float) -> Float[np.ndarray, " modes"]:
    """Compute the entropy (eV/K) of free rotors with the frequencies of modes, eqs. 4 to 6 of the paper.

    mu = h / (8 pi^2 nu), mu' = mu B / (mu + B), S = k (1/2 + ln sqrt(8 pi^3 mu' k T / h^2)).
    """
    mu = units.planck**2 / (8 * np.pi**2 * energies)
    limited = mu * inertia / (mu + inertia)
    return units.kB * (0.5 + 0.5 * np.log(8 * np.pi**3 * limited * units.kB * temperature / units.planck**2))


@dataclass(frozen=True)
class Thermochemistry:
    """Thermodynamic functions of an ideal gas of molecules, or of the modes alone of a structure that repeats, eV and K."""

    temperature: float
    """K."""
    pressure: float | None
    """Pa; None for a structure that repeats, which has no translations."""
    symmetry_number: int | None
    """Rotations that exchange equal atoms; None for a structure that repeats."""
    zero_point_energy: float
    """eV."""
    internal_energy: float
    """Potential energy, zero-point energy and thermal energy, eV."""
    enthalpy: float
    """Internal energy and k T of an ideal gas, eV."""
    entropies: dict[str, float]
    """Parts of the entropy, eV/K."""
    heat_capacity: float
    """At constant pressure, eV/K; of a structure that repeats at constant volume."""

    @property
    def entropy(self) -> float:
        """eV/K."""
        return sum(self.entropies.values())

    @property
    def gibbs_energy(self) -> float:
        """eV; of a structure that repeats the Helmholtz free energy."""
        return self.enthalpy - self.temperature * self.entropy


@dataclass(frozen=True)
class Conditions:
    """State of the gas."""

    temperature: float
    """K."""
    pressure: float
    """Pa."""
    symmetry_number: int
    """Rotations that exchange equal atoms."""
    low_frequency: Harmonic | QuasiRRHO
    """Entropy of the modes."""


def ideal_gas(
    energy: float, modes: Float[np.ndarray, " modes"], structure: Structure, conditions: Conditions
) -> Thermochemistry:
    """Compute thermodynamic functions of an ideal gas of rigid rotors.

    Args:
        energy: potential energy, eV.
        modes: energies h nu of the real modes, eV.
        structure: molecule; ``spin`` is the number of unpaired electrons.
        conditions: temperature, pressure, symmetry number and the treatment of low frequencies.
    """
    T, kT = conditions.temperature, units.kB * conditions.temperature
    moments = rotations(structure)[0] if len(structure) > 1 else np.zeros(0)
    mean = float(moments.sum()) / 3
    zero, thermal, heat = _of_modes(modes, T)
    entropies = {
        "translation": translation_entropy(float(masses_of(structure).sum()), T, conditions.pressure * units.pascal),
        "rotation": rotation_entropy(moments, T, conditions.symmetry_number),
        "vibration": float(conditions.low_frequency.entropy(modes, T, mean).sum()) if len(modes) else 0.0,
        "electrons": units.kB * math.log(structure.spin + 1),
    }
    classical = (3 + len(moments)) / 2
    internal = energy + zero + thermal + classical * kT
    return Thermochemistry(
        T, conditions.pressure, conditions.symmetry_number, zero, internal, internal + kT, entropies,
        heat + (classical + 1) * units.kB,
    )  # fmt: skip


def fixed_lattice(energy: float, modes: Float[np.ndarray, " modes"], temperature: float) -> Thermochemistry:
    """Compute thermodynamic functions of the modes alone, for a structure that repeats; its enthalpy is the internal energy."""
    zero, thermal, heat = _of_modes(modes, temperature)
    entropy = float(oscillator_entropy(modes, temperature).sum()) if len(modes) else 0.0
    internal = energy + zero + thermal
    return Thermochemistry(temperature, None, None, zero, internal, internal, {"vibration": entropy}, heat)


def _of_modes(modes: Float[np.ndarray, " modes"], temperature: float) -> tuple[float, float, float]:
    """Return zero-point energy, thermal energy (eV) and heat capacity (eV/K) of harmonic oscillators."""
    kT = units.kB * temperature
    x = modes / kT
    # x^2 e^x / (e^x - 1)^2, without overflow.
    heat = units.kB * np.sum((x / (2 * np.sinh(np.minimum(x, LARGE) / 2))) ** 2)
    return float(modes.sum() / 2), float(np.sum(modes / np.expm1(np.minimum(x, LARGE)))), float(heat)


def translation_entropy(mass: float, temperature: float, pressure: float) -> float:
    """Compute the Sackur-Tetrode entropy (eV/K) of a gas of molecules of a mass (amu) at a pressure (eV/Å^3)."""
    kT = units.kB * temperature
    states = (2 * math.pi * mass * kT / units.planck**2) ** 1.5 * kT / pressure
    return units.kB * (math.log(states) + 2.5)


def rotation_entropy(moments: Float[np.ndarray, " rotations"], temperature: float, symmetry: int) -> float:
    """Compute the classical entropy of rotation (eV/K) from moments of inertia (amu Å^2): three, two equal ones or none."""
    if not len(moments):
        return 0.0
    turns = 8 * math.pi**2 * units.kB * temperature / units.planck**2
    if len(moments) == 2:
        return units.kB * (math.log(turns * float(moments.mean()) / symmetry) + 1)
    return units.kB * (math.log(math.sqrt(math.pi * float(np.prod(moments * turns))) / symmetry) + 1.5)
