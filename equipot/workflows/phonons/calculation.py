"""Phonons of one crystal, from the structure to bands, densities of states and thermal properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from equipot import units
from equipot.console import Console
from equipot.evaluation import as_structures, evaluate
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.phonons.cell import Standard, standardised, supercell_matrix
from equipot.workflows.phonons.config import STRESS, PhononsConfig
from equipot.workflows.phonons.harmonic import HarmonicCrystal, harmonic
from equipot.workflows.phonons.imaginary import Followed, ImaginaryMode, follow, imaginary_modes, noise, period
from equipot.workflows.phonons.quasiharmonic import QuasiHarmonic, quasi_harmonic
from equipot.workflows.phonons.spectrum import (
    DensityOfStates,
    GammaModes,
    Segment,
    Thermal,
    bands_of,
    density_of_states,
    gamma_modes,
    marks_of,
    run_mesh,
    thermal_properties,
)

AT_REST = 1e-4
"""Force (eV/Å) beyond which a structure is not at a minimum, and its phonons are those of something else."""
SHOWN = 12
"""Modes at Gamma that the terminal shows; the results list all of them."""
NAMED = 3
"""Imaginary modes that a sentence names; the results list all of them."""


@dataclass(frozen=True)
class Phonons:
    """Phonons of a crystal."""

    standard: Standard
    """Primitive cell, space group and path."""
    crystal: HarmonicCrystal
    """Force constants, with ``phonopy.Phonopy`` as ``crystal.phonon``."""
    matrix: Int[np.ndarray, "3 3"]
    """Vectors of the supercell as counts of primitive vectors, in columns."""
    energy: float
    """Energy of the primitive cell, eV."""
    fmax: float
    """Largest force on an atom of the primitive cell, eV/Å."""
    pressure: float
    """Pressure of the primitive cell, GPa."""
    bands: tuple[Segment, ...]
    dos: DensityOfStates
    thermal: Thermal
    gamma: GammaModes
    imaginary: tuple[ImaginaryMode, ...]
    """Imaginary modes beyond the tolerance, the most unstable first."""
    followed: Followed | None
    """Where the most unstable mode leads to; None where nothing was followed."""
    qha: QuasiHarmonic | None
    """Properties at constant pressure; None where not asked for."""
    notes: tuple[str, ...]
    """What users should know, one sentence each."""
    failures: tuple[str, ...]
    """What did not come to its end or is not sound, one sentence each."""

    @property
    def atoms_of_supercell(self) -> int:
        """Number of atoms of the supercell."""
        return abs(round(np.linalg.det(self.matrix))) * len(self.standard.primitive)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Distance along the path of the bands (1/Å) and name of each special point."""
        return marks_of(self.bands)

    def summary(self) -> str:
        """Return lines for the terminal."""
        room = int(np.abs(self.thermal.temperature - 300).argmin())
        thermal, at = self.thermal, f"{self.thermal.temperature[room]:g} K"
        shown = ", ".join(f"{x:.3f}" for x in self.gamma.frequencies[:SHOWN])
        shown += ", ..." if len(self.gamma.frequencies) > SHOWN else ""
        lines = [
            f"{self.standard.space_group}, {len(self.standard.primitive)} atoms in the primitive cell, "
            f"{self.atoms_of_supercell} in the supercell",
            f"modes at Gamma   {shown} THz",
            f"highest          {max(segment.frequencies.max() for segment in self.bands):.3f} THz",
            f"zero point       {thermal.zero_point_energy:.4f} kJ/mol of primitive cells",
            f"at {at:<13} F {thermal.free_energy[room]:.4f} kJ/mol, S {thermal.entropy[room]:.3f} J/K/mol, "
            f"Cv {thermal.heat_capacity[room]:.3f} J/K/mol",
        ]
        if self.followed is not None:
            lines.append(
                f"followed         {self.followed.before} to {self.followed.after}, "
                f"{1e3 * self.followed.gain:.3f} meV/atom lower"
            )
        if self.qha is not None:
            k = int(np.abs(self.qha.temperature - 300).argmin())
            lines.append(
                f"at {self.qha.temperature[k]:<13g} expansion {1e6 * self.qha.thermal_expansion[k]:.2f} 1e-6/K, "
                f"bulk modulus {self.qha.bulk_modulus[k]:.2f} GPa"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def phonons(
    potential: Potential, structure: Any, settings: PhononsConfig | None = None, console: Console | None = None
) -> Phonons:
    """Compute the phonons of a crystal in double precision.

    The crystal is turned into its standard primitive cell, relaxed, and repeated to a supercell whose force constants are exact
    derivatives of the potential (or finite displacements). Frequencies are exact at wave vectors that the supercell holds, and
    interpolated between them.

    Args:
        potential: Potential.
        structure: ``ase.Atoms`` or ``Structure`` that repeats along three vectors.
        settings: Settings; None for the defaults.
        console: Progress; None for silence.

    Raises:
        ValueError: several structures, no crystal, an unknown element, or a supercell that cannot be chosen.
    """
    structures = as_structures(structure)
    if len(structures) != 1:
        raise ValueError(f"phonons are of one crystal; got {len(structures)} structures")
    with jax.enable_x64(True):
        return _phonons(potential.astype("float64"), structures[0], settings or PhononsConfig(), console or Console(None))


def _phonons(potential: Potential, given: Structure, settings: PhononsConfig, console: Console) -> Phonons:
    potential.check([given])
    standard, notes, failures = at_rest(potential, given, settings, console)
    primitive = standard.primitive
    out = evaluate(potential, [primitive], ("energy", "forces", "stress"))
    fmax = float(np.linalg.norm(np.asarray(out.forces), axis=1).max())
    pressure = -float(np.trace(np.asarray(out.stress)[0])) / 3 / units.GPa
    if fmax > AT_REST:
        failures.append(f"the largest force is {fmax:.2g} eV/Å, beyond {AT_REST:g}: the crystal is not at a minimum; relax it")
    matrix = np.diag(settings.supercell) if settings.supercell else supercell_matrix(standard, settings.supercell_length)
    count = abs(round(np.linalg.det(matrix))) * len(primitive)
    console.say(f"supercell of {count} atoms: {count // len(primitive)} primitive cells")
    crystal = harmonic(potential, primitive, matrix, settings)
    console.say(f"force constants: the acoustic sum rule was violated by {crystal.checks.sum_rule:.2g} eV/Å^2")
    bands = bands_of(crystal.phonon, standard, settings)
    run_mesh(crystal.phonon, settings)
    imaginary = imaginary_modes(crystal, standard, bands, settings)
    thermal = thermal_properties(crystal.phonon, settings)
    failures += _unstable(imaginary, thermal)
    notes += [*crystal.notes, *filter(None, [noise(crystal, settings)])]
    dos, gamma = density_of_states(crystal.phonon), gamma_modes(crystal.phonon)
    followed, told = _followed(potential, crystal, standard, imaginary, settings)
    qha = None
    if settings.qha is not None:
        try:
            qha = quasi_harmonic(potential, primitive, (matrix, standard.number), settings, console)
            failures += qha.failures
        except RuntimeError as error:
            # phonopy's fit does not say which volume it is; bands and densities are not lost with it.
            failures.append(f"quasi-harmonic approximation: {error}; choose other volumes, qha.smallest and qha.largest")
    return Phonons(
        standard, crystal, matrix, float(np.asarray(out.energy)[0]), fmax, pressure, bands, dos, thermal, gamma, imaginary,
        followed, qha, tuple(notes), (*failures, *told),
    )  # fmt: skip


def at_rest(
    potential: Potential, given: Structure, settings: PhononsConfig, console: Console
) -> tuple[Standard, list[str], list[str]]:
    """Find the standard primitive cell of a crystal and relax it.

    Returns:
        The relaxed cell, notes, and failures.
    """
    standard = standardised(given, settings.symprec)
    notes = [f"space group {standard.space_group}; everything is given for the standard primitive cell, which may be turned"]
    if given.constraints:
        notes.append(f"constraints ({', '.join(given.constraints)}) are not applied: they have no symmetry")
    if settings.relax == "none":
        return standard, notes, []
    from equipot.workflows.relax import RelaxConfig, relax

    how = RelaxConfig(
        cell=settings.relax,
        fmax=settings.fmax,
        smax_GPa=STRESS,
        pressure_GPa=settings.pressure_GPa if settings.relax != "fixed" else 0.0,
        symmetry=True,
        max_steps=settings.max_steps,
    )
    console.say(f"relaxing the primitive cell of {len(standard.primitive)} atoms")
    (found,) = relax(potential, [standard.primitive], how)
    failures = [] if found.converged else [f"the relaxation did not come to its end: {found.reason}"]
    relaxed = standardised(found.structure.replace(source=given.name), settings.symprec)
    if relaxed.number != standard.number:
        failures.append(f"the relaxation changed the space group from {standard.space_group} to {relaxed.space_group}")
    return relaxed, notes, failures


def _unstable(imaginary: tuple[ImaginaryMode, ...], thermal: Thermal) -> list[str]:
    """Say which modes are imaginary."""
    if not imaginary:
        return []
    more = f" and {len(imaginary) - NAMED} more" if len(imaginary) > NAMED else ""
    shown = "; ".join(map(str, imaginary[:NAMED]))
    left = f"; thermal properties leave out {thermal.imaginary_share:.1%} of all modes" if thermal.imaginary_share else ""
    return [f"imaginary modes, the crystal is not at a minimum: {shown}{more}{left}"]


def _followed(
    potential: Potential,
    crystal: HarmonicCrystal,
    standard: Standard,
    imaginary: tuple[ImaginaryMode, ...],
    settings: PhononsConfig,
) -> tuple[Followed | None, list[str]]:
    """Follow the most unstable mode that repeats soon enough, where that is asked for; and say what went wrong."""
    if not (settings.follow and imaginary):
        return None, []
    able = [mode for mode in imaginary if period(mode) is not None]
    if not able:
        return None, ["no imaginary mode repeats within few enough cells to be followed"]
    found = follow(potential, crystal, standard, able[0], settings)
    return found, [] if found.converged else [f"following {able[0]} did not come to its end: {found.reason}"]
