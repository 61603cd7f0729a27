"""Normal modes of one structure, from relaxation to thermochemistry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from equipot.console import Console
from equipot.evaluation import as_structures, evaluate
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.vibrations.config import VibrationsConfig
from equipot.workflows.vibrations.infrared import intensities
from equipot.workflows.vibrations.modes import NormalModes, normal_modes, turns_freely
from equipot.workflows.vibrations.symmetry import symmetry_number
from equipot.workflows.vibrations.thermochemistry import (
    Conditions,
    Harmonic,
    Thermochemistry,
    fixed_lattice,
    ideal_gas,
)

AT_REST = 1e-3
"""Force (eV/Å) beyond which a structure is not at a minimum, and its modes mix with rotations."""

APPLIED = ("FixAtoms", "FixCartesian")
"""Constraints of ASE that are applied: what they fix does not vibrate."""


@dataclass(frozen=True)
class Vibrations:
    """Vibrations of a structure."""

    structure: Structure
    """Relaxed structure."""
    energy: float
    """Potential energy, eV."""
    fmax: float
    """Largest force on an atom, eV/Å."""
    modes: NormalModes
    infrared: Float[np.ndarray, " modes"] | None
    """Integrated absorption coefficients, km/mol; None where the potential has no dipole moment."""
    thermochemistry: Thermochemistry
    """Thermodynamic functions of the real modes: imaginary ones are left out."""
    notes: tuple[str, ...]
    """What users should know, one sentence each."""
    failures: tuple[str, ...]
    """What did not come to its end or is not sound, one sentence each."""

    def summary(self) -> str:
        """Return lines for the terminal."""
        thermo = self.thermochemistry
        heads = ["mode", "1/cm", "THz", "reduced mass (amu)", *(["IR (km/mol)"] if self.infrared is not None else [])]
        lines = ["  ".join(f"{head:>18}" for head in heads)]
        for k, wavenumber in enumerate(self.modes.wavenumbers):
            shown = f"{abs(wavenumber):.2f}{'i' if wavenumber < 0 else ''}"
            row = [str(k + 1), shown, f"{self.modes.frequencies[k]:.4f}", f"{self.modes.reduced_masses[k]:.4f}"]
            row += [f"{self.infrared[k]:.3f}"] if self.infrared is not None else []
            lines.append("  ".join(f"{text:>18}" for text in row))
        kind = "Gibbs energy" if thermo.pressure is not None else "Helmholtz energy"
        where = f"{thermo.temperature:g} K" + (f", {thermo.pressure:g} Pa" if thermo.pressure is not None else "")
        lines += [
            f"zero-point energy {thermo.zero_point_energy:.6f} eV",
            f"at {where}: enthalpy {thermo.enthalpy:.6f} eV, entropy {1e3 * thermo.entropy:.6f} meV/K, "
            f"{kind} {thermo.gibbs_energy:.6f} eV",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def vibrations(
    potential: Potential, structure: Any, settings: VibrationsConfig | None = None, console: Console | None = None
) -> Vibrations:
    """Compute the normal modes of a structure in double precision, and what follows from them.

    Of a molecule, translations and rotations are projected out, and thermochemistry is that of an ideal gas. Of a structure
    that repeats, modes are those without a phase between cells, translations are projected out, and thermochemistry is that of
    these modes alone; so are those of a structure with fixed atoms, which do not vibrate.

    Args:
        potential: Potential.
        structure: ``ase.Atoms`` or ``Structure``; its spin is the number of unpaired electrons.
        settings: Settings; None for the defaults.
        console: Progress; None for silence.

    Raises:
        ValueError: several structures, an unknown element, or a result that is not finite.
    """
    structures = as_structures(structure)
    if len(structures) != 1:
        raise ValueError(f"vibrations are of one structure; got {len(structures)}")
    with jax.enable_x64(True):
        return _vibrations(potential.astype("float64"), structures[0], settings or VibrationsConfig(), console or Console(None))


def _vibrations(potential: Potential, given: Structure, settings: VibrationsConfig, console: Console) -> Vibrations:
    potential.check([given])
    structure, failures = _at_rest(potential, given, settings, console)
    out = evaluate(potential, [structure], ("energy", "forces"))
    forces = np.asarray(out.forces)
    forces = forces if structure.fixed is None else np.where(structure.fixed, 0, forces)
    fmax = float(np.linalg.norm(forces, axis=1).max())
    if fmax > AT_REST:
        failures.append(
            f"the largest force is {fmax:.2g} eV/Å, beyond {AT_REST:g}: the structure is not at a minimum; relax it"
        )
    modes = normal_modes(settings.hessian.hessian(potential, structure), structure)
    infrared, why = intensities(potential, structure, modes)
    tolerance = settings.imaginary_tolerance_per_cm
    below, near = modes.wavenumbers < -tolerance, np.abs(modes.wavenumbers) <= tolerance
    if below.any():
        shown = ", ".join(f"{abs(x):.1f}i" for x in modes.wavenumbers[below])
        failures.append(f"imaginary modes, the structure is not at a minimum: {shown} 1/cm; thermochemistry leaves them out")
    notes = [why] if why else []
    if near.any():
        notes.append(f"{near.sum()} modes within {tolerance:g} 1/cm of zero count as no vibration")
    if other := [name for name in given.constraints if name not in APPLIED]:
        notes.append(f"constraints ({', '.join(other)}) are not applied: {' and '.join(APPLIED)} are")
    energy = float(np.asarray(out.energy)[0])
    thermo = _thermochemistry(energy, modes.energies[~(below | near)], structure, settings)
    return Vibrations(structure, energy, fmax, modes, infrared, thermo, tuple(notes), tuple(failures))


def _at_rest(
    potential: Potential, given: Structure, settings: VibrationsConfig, console: Console
) -> tuple[Structure, list[str]]:
    """Relax the positions of a structure where that is asked for; returns the structure, and what went wrong."""
    if not settings.relax or len(given) == 1:
        return given, []
    from equipot.workflows.relax import RelaxConfig, relax

    console.say(f"relaxing {len(given)} atoms")
    how = RelaxConfig(cell="fixed", fmax=settings.fmax, symmetry=False, max_steps=settings.max_steps)
    (found,) = relax(potential, [given], how)
    return found.structure, [] if found.converged else [f"the relaxation did not come to its end: {found.reason}"]


def _thermochemistry(
    energy: float, modes: Float[np.ndarray, " modes"], structure: Structure, settings: VibrationsConfig
) -> Thermochemistry:
    """Compute thermochemistry of the real modes, given as energies h nu (eV)."""
    if not turns_freely(structure):
        if not isinstance(settings.low_frequency, Harmonic):
            raise ValueError(
                f"low_frequency: {type(settings.low_frequency).__name__} is for molecules that turn freely, and "
                f"{structure.name} does not; leave it out"
            )
        return fixed_lattice(energy, modes, settings.temperature_K)
    number = settings.symmetry_number or symmetry_number(structure, settings.symmetry_tolerance)
    state = Conditions(settings.temperature_K, settings.pressure_Pa, number, settings.low_frequency)
    return ideal_gas(energy, modes, structure, state)
