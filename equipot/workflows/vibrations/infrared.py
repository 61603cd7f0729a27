"""Infrared intensities of normal modes from derivatives of the dipole moment."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from equipot import units
from equipot.evaluation import evaluate
from equipot.potential import Potential
from equipot.quantities import BORN_CHARGES
from equipot.structure import Structure
from equipot.workflows.vibrations.modes import NormalModes


def intensities(
    potential: Potential, structure: Structure, modes: NormalModes
) -> tuple[Float[np.ndarray, " modes"] | None, str]:
    """Compute integrated infrared absorption coefficients (km/mol) where the potential has a dipole moment.

    A = N_A / (12 eps_0 c^2) |d mu / dQ|^2, with mu the dipole moment and Q the mass-weighted normal coordinate: the
    double-harmonic approximation.

    Returns:
        Intensities and an empty text, or None and why there are none.
    """
    if BORN_CHARGES not in potential.provides:
        return None, "no infrared intensities, as the potential has no dipole moment"
    try:
        out = evaluate(potential, [structure], (BORN_CHARGES.name,))
    except ValueError as error:
        # Charges that do not flow have no dipole moment in a system that repeats, and say so.
        return None, f"no infrared intensities: {error}"
    return from_dipole_derivatives(np.asarray(out[BORN_CHARGES]), modes), ""


def from_dipole_derivatives(charges: Float[np.ndarray, "atoms 3 3"], modes: NormalModes) -> Float[np.ndarray, " modes"]:
    """Compute intensities (km/mol) from Born effective charges Z[i, a, b] = d mu_a / d r_ib (e)."""
    by_mode = np.einsum("iab,kib->ka", charges, modes.displacements)
    return np.sum(by_mode**2, axis=1) / units.km_per_mol


def broadened(
    modes: NormalModes, strengths: Float[np.ndarray, " modes"], width: float
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Broaden real modes by Lorentzian lines.

    Args:
        modes: normal modes.
        strengths: area of each line, km/mol.
        width: full width at half maximum, 1/cm.

    Returns:
        Wavenumbers (1/cm) and absorption (km/mol per 1/cm).
    """
    real = modes.wavenumbers > 0
    at = modes.wavenumbers[real]
    points = np.linspace(0, 1.1 * at.max(initial=100.0) + 10 * width, 2000)
    half = width / 2
    lines = half / np.pi / ((points[:, None] - at[None]) ** 2 + half**2)
    return points, lines @ strengths[real]
