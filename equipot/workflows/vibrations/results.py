"""Results of vibrations as JSON."""

from __future__ import annotations

import json

from equipot.workflows.results import plain
from equipot.workflows.vibrations.calculation import Vibrations


def as_json(found: Vibrations, model: str) -> str:
    """Convert results to JSON; keys carry their units. ``model`` is the name of the potential."""
    modes, thermo = found.modes, found.thermochemistry
    record = {
        "model": model,
        "failures": list(found.failures),
        "notes": list(found.notes),
        "numbers": found.structure.numbers.tolist(),
        "positions_A": found.structure.positions.tolist(),
        "energy_eV": found.energy,
        "largest_force_eV_per_A": found.fmax,
        "modes": {
            "wavenumber_per_cm": modes.wavenumbers.tolist(),
            "frequency_THz": modes.frequencies.tolist(),
            "reduced_mass_amu": modes.reduced_masses.tolist(),
            "infrared_intensity_km_per_mol": None if found.infrared is None else found.infrared.tolist(),
            "displacements_per_root_amu": modes.displacements.tolist(),
            "projected_out": modes.removed,
            "projected_out_residual_THz": modes.residual,
        },
        "thermochemistry": {
            "temperature_K": thermo.temperature,
            "pressure_Pa": thermo.pressure,
            "symmetry_number": thermo.symmetry_number,
            "zero_point_energy_eV": thermo.zero_point_energy,
            "internal_energy_eV": thermo.internal_energy,
            "enthalpy_eV": thermo.enthalpy,
            "entropy_eV_per_K": thermo.entropy,
            "entropy_parts_eV_per_K": thermo.entropies,
            "gibbs_energy_eV" if thermo.pressure is not None else "helmholtz_energy_eV": thermo.gibbs_energy,
            "heat_capacity_eV_per_K": thermo.heat_capacity,
        },
    }
    return json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False)
