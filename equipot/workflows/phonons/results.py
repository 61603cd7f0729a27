"""Results of phonons as JSON, and as files that phonopy goes on from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from equipot.files import replacing, write_atomically
from equipot.structure import Structure
from equipot.workflows.phonons.calculation import Phonons
from equipot.workflows.phonons.imaginary import Followed, ImaginaryMode
from equipot.workflows.phonons.quasiharmonic import QuasiHarmonic
from equipot.workflows.results import plain


def as_json(found: Phonons, model: str) -> str:
    """Convert results to JSON; keys carry their units. ``model`` is the name of the potential."""
    return json.dumps(plain(_record(found, model)), indent=1, ensure_ascii=False, allow_nan=False)


def _record(found: Phonons, model: str) -> dict[str, Any]:
    checks, polar = found.crystal.checks, found.crystal.polar
    return {
        "model": model,
        "failures": list(found.failures),
        "notes": list(found.notes),
        "space_group": found.standard.space_group,
        "primitive_cell": _structure(found.standard.primitive),
        "supercell_matrix_columns": found.matrix.tolist(),
        "atoms_of_supercell": found.atoms_of_supercell,
        "energy_eV": found.energy,
        "largest_force_eV_per_A": found.fmax,
        "pressure_GPa": found.pressure,
        "force_constants": {
            "sum_rule_violation_eV_per_A2": checks.sum_rule,
            "largest_eV_per_A2": checks.largest,
            "share_at_boundary": checks.boundary,
            "boundary_distance_A": checks.boundary_distance,
        },
        "born_effective_charges_e": None if polar is None else polar.born.tolist(),
        "dielectric_tensor": None if polar is None else polar.dielectric.tolist(),
        "gamma": {
            "frequency_THz": found.gamma.frequencies.tolist(),
            "irreps": list(found.gamma.irreps),
            "displacements": found.gamma.displacements.tolist(),
        },
        "bands": [
            {
                "ends": list(segment.ends),
                "wave_vectors": segment.points.tolist(),
                "distance_per_A": segment.distance.tolist(),
                "frequency_THz": segment.frequencies.tolist(),
            }
            for segment in found.bands
        ],
        "density_of_states": {
            "frequency_THz": found.dos.frequency.tolist(),
            "total_per_THz": found.dos.total.tolist(),
            "by_element_per_THz": {name: part.tolist() for name, part in found.dos.by_element.items()},
        },
        "thermal": {
            "temperature_K": found.thermal.temperature.tolist(),
            "free_energy_kJ_per_mol": found.thermal.free_energy.tolist(),
            "entropy_J_per_K_per_mol": found.thermal.entropy.tolist(),
            "heat_capacity_J_per_K_per_mol": found.thermal.heat_capacity.tolist(),
            "zero_point_energy_kJ_per_mol": found.thermal.zero_point_energy,
            "share_of_imaginary_modes": found.thermal.imaginary_share,
        },
        "imaginary_modes": [_mode(mode) for mode in found.imaginary],
        "followed": None if found.followed is None else _followed(found.followed),
        "quasi_harmonic": None if found.qha is None else _qha(found.qha),
    }


def _structure(structure: Structure) -> dict[str, Any]:
    return {
        "numbers": structure.numbers.tolist(),
        "cell_A": structure.cell.tolist(),
        "positions_A": structure.positions.tolist(),
        "volume_A3": structure.volume,
    }


def _mode(mode: ImaginaryMode) -> dict[str, Any]:
    record = asdict(mode)
    return {"frequency_THz": record.pop("frequency"), **record}


def _followed(followed: Followed) -> dict[str, Any]:
    return {
        "mode": _mode(followed.mode),
        "structure": _structure(followed.structure),
        "space_group_before": followed.before,
        "space_group_after": followed.after,
        "energy_gain_eV_per_atom": followed.gain,
        "converged": followed.converged,
        "reason": followed.reason,
    }


def _qha(qha: QuasiHarmonic) -> dict[str, Any]:
    return {
        "volumes_A3": qha.volume_grid.tolist(),
        "energies_eV": qha.energy.tolist(),
        "lowest_frequencies_THz": qha.lowest_frequency.tolist(),
        "temperature_K": qha.temperature.tolist(),
        "volume_A3": qha.volume.tolist(),
        "thermal_expansion_per_K": qha.thermal_expansion.tolist(),
        "bulk_modulus_GPa": qha.bulk_modulus.tolist(),
        "gibbs_energy_eV": qha.gibbs_energy.tolist(),
        "entropy_J_per_K_per_mol": qha.entropy.tolist(),
        "heat_capacity_J_per_K_per_mol": qha.heat_capacity.tolist(),
        "gruneisen": qha.gruneisen.tolist(),
    }


def write_for_phonopy(found: Phonons, out: Path) -> None:
    """Write ``phonopy.yaml``, ``FORCE_CONSTANTS`` and, where there are charges, ``BORN``, as ``phonopy.load`` reads them.

    Raises:
        OSError: a file cannot be written.
    """
    from phonopy.file_IO import get_BORN_lines, get_FORCE_CONSTANTS_lines

    phonon, polar = found.crystal.phonon, found.crystal.polar
    with replacing(out / "phonopy.yaml") as temporary:
        # phonopy opens the file by its name, whatever that is.
        phonon.save(temporary, settings={"force_constants": False})
    lines = get_FORCE_CONSTANTS_lines(phonon.force_constants, p2s_map=phonon.primitive.p2s_map)
    write_atomically(out / "FORCE_CONSTANTS", "\n".join([*lines, ""]).encode())
    if polar is not None:
        born = get_BORN_lines(phonon.primitive, np.array(polar.born), np.array(polar.dielectric))
        write_atomically(out / "BORN", "\n".join([*born, ""]).encode())
