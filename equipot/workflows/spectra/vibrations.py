"""Velocity autocorrelation function and vibrational density of states, by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equipot.units import fs, kB
from equipot.workflows.statistics.correlation import Correlations, Correlator
from equipot.workflows.statistics.degrees_of_freedom import HeldMotions
from equipot.workflows.statistics.trajectory import Trajectory

AT_THE_END = 0.01
"""Share of the largest density of states that may be left at the highest frequency."""
FEWEST_SEGMENTS = 4
"""Number of segments below which an error is not to be relied on."""
MOST_SIGMAS = 5.0
"""Standard errors by which the share of an element in the kinetic energy may be off."""


@dataclass(frozen=True)
class VibrationalDOS:
    """Density of states g(f) of each element, from mass-weighted velocities."""

    correlations: Correlations
    """Of the sums of m v(0) v(t) over each element, eV."""
    elements: tuple[str, ...]
    frequencies_THz: Float[np.ndarray, " points"]
    density: Float[np.ndarray, "elements points"]
    """Degrees of freedom per THz; the integral over all elements is their number."""
    error: Float[np.ndarray, "elements points"]
    """Standard error; NaN for a single segment."""
    temperature_K: float
    degrees_of_freedom: Mapping[str, float]
    """Integral of the density of each element."""
    expected: Mapping[str, float]
    """The same integral under equipartition, 3 N_e less the share in motions that are held, see ``HeldMotions``."""
    failures: tuple[str, ...]


def density_of_states(trajectory: Trajectory, resolution_THz: float) -> VibrationalDOS:
    """Compute the density of states g(f) = (2 / kT) integral of w(t) sum_i m_i <v_i(0) v_i(t)> exp(2 pi i f t) over t.

    The window w is Parzen's, whose transform is ``resolution_THz`` wide at half maximum. The temperature is that of the kinetic
    energy over 3 N degrees of freedom, less those of atoms that are held, less 3 if the centre of mass is at rest, and less
    those of rotation if an isolated system does not turn, so that g integrates to this number; an element whose own integral
    differs from its share is not in equilibrium with the others, which is told.

    Raises:
        ValueError: frames without velocities, or too few frames for the resolution.
    """
    masses, elements = trajectory.masses, trajectory.elements
    groups = [(3 * index[:, None] + np.arange(3)).reshape(-1) for index in elements.values()]
    correlator, held = Correlator(trajectory.interval_fs, resolution_THz, groups), HeldMotions(trajectory)
    root = np.sqrt(masses)[:, None] / fs
    for frame in trajectory.checked():
        if frame.velocities is None:
            raise ValueError(
                f"{trajectory.name} has no velocities; write momenta to the trajectory (in extended XYZ, as `equipot md` does)"
            )
        held.add(frame)
        correlator.add((root.astype(frame.velocities.dtype) * frame.velocities).reshape(-1))
    found = correlator.result()
    lacking = held.lacking(list(elements.values()))
    share = {s: 3.0 * len(elements[s]) - less for s, less in zip(elements, lacking, strict=True)}
    # Of the frames in complete segments, of which the functions are.
    kT = float(found.functions[:, 0].sum()) / sum(share.values())
    if not kT > 0:
        raise ValueError(f"{trajectory.name}: all velocities are zero")
    per = 2e-3 / kT
    density, error = per * found.spectra, per * found.spectra_error
    integrals = found.integral(density)
    own = dict(zip(elements, map(float, integrals), strict=True))
    failures = _failures(found, density, own, share, kT, trajectory)
    return VibrationalDOS(
        found, tuple(elements), found.frequencies_THz, density, error, kT / kB, own, share,
        failures,
    )  # fmt: skip


def _failures(
    found: Correlations,
    density: Float[np.ndarray, "elements points"],
    own: Mapping[str, float],
    share: Mapping[str, float],
    kT: float,
    trajectory: Trajectory,
) -> tuple[str, ...]:
    """Name what makes a density of states unsound."""
    failures = []
    if found.segments < FEWEST_SEGMENTS:
        failures.append(
            f"density of states: {found.segments} independent segments are too few for errors; run longer, or choose a coarser "
            "resolution_THz"
        )
    total = density.sum(axis=0)
    if total[-1] > AT_THE_END * total.max():
        failures.append(
            f"density of states: {100 * total[-1] / total.max():.0f} % of its maximum is left at the highest frequency, "
            f"{found.frequencies_THz[-1]:.3g} THz: frames every {trajectory.interval_fs:g} fs are too far apart, and faster "
            "vibrations appear at wrong frequencies"
        )
    for k, symbol in enumerate(own):
        sigma = found.functions_error[k, 0] / kT
        if len(own) > 1 and found.segments >= FEWEST_SEGMENTS and abs(own[symbol] - share[symbol]) > MOST_SIGMAS * sigma:
            failures.append(
                f"density of states: {symbol} has {own[symbol]:.1f} degrees of freedom instead of {share[symbol]:.1f} +- "
                f"{sigma:.1f}: the elements are not at one temperature"
            )
    return tuple(failures)
