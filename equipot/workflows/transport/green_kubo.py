"""Transport coefficients from equilibrium fluctuations: integrals of correlation functions of fluxes, with errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equipot.units import W_per_mK, kB, mPa_s
from equipot.workflows.statistics.cepstrum import Cepstral, zero_frequency

BLOCKS = 20
"""Parts of the trajectory whose scatter gives the error of the direct integral."""
NOISE = 2.0
"""Standard errors below which the correlation function counts as having decayed."""
APART = 4.0
"""Standard errors by which direct integral and cepstral analysis may differ."""


@dataclass(frozen=True)
class GreenKubo:
    """A transport coefficient, estimated twice from the same fluxes."""

    value: float
    """By cepstral analysis, in ``unit``."""
    error: float
    """Standard error."""
    unit: str
    cepstral: Cepstral
    """Spectrum of the flux, in units of the flux."""
    times_fs: Float[np.ndarray, " lags"]
    correlation: Float[np.ndarray, " lags"]
    """Correlation function of the flux over its value at zero."""
    running: Float[np.ndarray, " lags"]
    """Coefficient by the integral of the correlation function up to each time, in ``unit``."""
    running_error: Float[np.ndarray, " lags"]
    direct: float
    """The running integral where the correlation function has first decayed into its noise, in ``unit``."""
    direct_error: float
    """Scatter of ``BLOCKS`` parts over its root; without what the integral lacks."""
    failures: tuple[str, ...]
    components: tuple[tuple[float, float], ...] = ()
    """Value and standard error by each component of the flux alone, in ``unit``. Of a single component nothing can be removed:
    where ``freed``, they are those of the flux with the other fluxes in it, and may be compared with each other only."""
    freed: bool = False
    """Whether other fluxes were removed."""


def conductivity(
    flux: Float[np.ndarray, "samples 3"],
    interval_fs: float,
    volume: float,
    temperature_K: float,
    others: Sequence[Float[np.ndarray, "samples 3"]] = (),
    cutoff_THz: float | None = None,
) -> GreenKubo:
    """Compute the thermal conductivity kappa = 1 / (3 V k T^2) integral of <J(0) . J(t)> over t > 0, W/(m K).

    Args:
        flux: Heat flux of the whole cell, J = d/dt sum_i r_i E_i, eV Å/fs, along axes that are equivalent.
        interval_fs: Time between samples, fs.
        volume: Å^3.
        temperature_K: K.
        others: Mass fluxes of a mixture, see ``zero_frequency``; the direct integral is without them.
        cutoff_THz: As of ``zero_frequency``.

    Raises:
        ValueError: too few samples, or values that are not finite.
    """
    scale = 1 / (W_per_mK * volume * kB * temperature_K**2)
    return green_kubo(flux, interval_fs, (scale, "W/(m K)", "thermal conductivity"), others, cutoff_THz)


def viscosity(
    pressure: Float[np.ndarray, "samples 3 3"],
    interval_fs: float,
    volume: float,
    temperature_K: float,
    cutoff_THz: float | None = None,
) -> GreenKubo:
    """Compute the shear viscosity of a liquid, eta = V / kT integral of <P_xy(0) P_xy(t)> over t > 0, mPa s.

    The five independent components of the traceless symmetric tensor, P_xy, P_yz, P_xz, (P_xx - P_yy) / 2 and
    (P_xx + P_yy - 2 P_zz) / 12^(1/2), have equal fluctuations in an isotropic system.

    Args:
        pressure: Pressure tensor with the kinetic part, eV/Å^3.
        interval_fs: Time between samples, fs.
        volume: Å^3.
        temperature_K: K.
        cutoff_THz: As of ``zero_frequency``.

    Raises:
        ValueError: too few samples, or values that are not finite.
    """
    p = np.asarray(pressure, np.float64)
    x, y, z = p[:, 0, 0], p[:, 1, 1], p[:, 2, 2]
    shear = np.stack([p[:, 0, 1], p[:, 1, 2], p[:, 0, 2], (x - y) / 2, (x + y - 2 * z) / np.sqrt(12)], axis=1)
    return green_kubo(shear, interval_fs, (volume / (mPa_s * kB * temperature_K), "mPa s", "viscosity"), (), cutoff_THz)


def green_kubo(
    flux: Float[np.ndarray, "samples components"],
    interval_fs: float,
    coefficient: tuple[float, str, str],
    others: Sequence[Float[np.ndarray, "samples components"]] = (),
    cutoff_THz: float | None = None,
) -> GreenKubo:
    """Compute scale x integral of <J(0) J(t)> over t > 0, the mean over equivalent components.

    Args:
        flux: Independent, equivalent components of a flux.
        interval_fs: Time between samples, fs.
        coefficient: Scale, the unit of the result and the name of the coefficient.
        others: As of ``zero_frequency``.
        cutoff_THz: As of ``zero_frequency``.

    Raises:
        ValueError: too few samples, or values that are not finite.
    """
    scale, unit, name = coefficient
    found = zero_frequency(flux, interval_fs, others, cutoff_THz)
    value, error = scale * found.value / 2, scale * found.error / 2
    alone = [zero_frequency(flux[:, k : k + 1], interval_fs, (), found.cutoff_THz) for k in range(flux.shape[1])]
    components = tuple((scale * x.value / 2, scale * x.error / 2) for x in alone)
    lags = len(flux) // (4 * BLOCKS)
    parts = np.stack([_correlation(part, lags) for part in np.array_split(flux, BLOCKS)])
    mean, spread = parts.mean(axis=0), parts.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
    integrals = scale * interval_fs * np.stack([_running(part) for part in parts])
    running, running_error = integrals.mean(axis=0), integrals.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
    decayed = np.flatnonzero(np.abs(mean) < NOISE * spread)
    failures = [f"{name}: {found.reason}"] if found.reason else []
    if _differ(components):
        shown = ", ".join(f"{a:.3g} +- {b:.2g}" for a, b in components)
        failures.append(
            f"{name}: its components differ, {shown} {unit}: the system is not isotropic, and the mean means little"
        )
    direct = direct_error = np.nan
    if len(decayed):
        direct, direct_error = float(running[decayed[0]]), float(running_error[decayed[0]])
        if not others and abs(direct - value) > APART * np.hypot(error, direct_error):
            failures.append(
                f"{name}: direct integral, {direct:.3g} +- {direct_error:.2g} {unit}, and cepstral analysis, {value:.3g} +- "
                f"{error:.2g}, differ; look at the running integral, and run longer"
            )
    else:
        longest = lags * interval_fs / 1e3
        failures.append(f"{name}: the flux is still correlated after {longest:.3g} ps, the longest time of a part; run longer")
    return GreenKubo(
        value, error, unit, found, np.arange(lags + 1) * interval_fs, mean / mean[0], running, running_error, direct,
        direct_error, tuple(failures), components, bool(others),
    )  # fmt: skip


def _differ(components: tuple[tuple[float, float], ...]) -> bool:
    """Whether values with errors differ beyond chance."""
    pairs = [(a, b) for k, a in enumerate(components) for b in components[:k]]
    return any(abs(a[0] - b[0]) > APART * np.hypot(a[1], b[1]) for a, b in pairs)


def _correlation(flux: Float[np.ndarray, "samples components"], lags: int) -> Float[np.ndarray, " lags"]:
    """Compute <J(0) J(t)> of lags 0 to ``lags``, the mean over components and all origins."""
    size = len(flux) + lags + 1
    power = (np.abs(np.fft.rfft(np.asarray(flux, np.float64), size, axis=0)) ** 2).mean(axis=1)
    return np.fft.irfft(power, size)[: lags + 1] / (len(flux) - np.arange(lags + 1))


def _running(values: Float[np.ndarray, " lags"]) -> Float[np.ndarray, " lags"]:
    """Integrate from zero by the trapezoidal rule, in units of the interval."""
    return np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2)])
