"""Zero-frequency value of a power spectrum, and so the integral of a correlation function, with its error, by its cepstrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

POWER = 0.99
"""Share of the power of the flux below the cutoff frequency where that is left out."""
FEWEST = 32
"""Smallest number of frequencies that an analysis is made of."""
MORE = 2
"""Factor on the number of coefficients that the criterion of Akaike keeps. At zero frequency all that is cut off adds up: of
autoregressive series (``tests/workflows/transport``), one and two standard errors cover the truth in 36 to 64 % and 59 to 89 %
of the cases with the factor 1, in 64 to 71 % and 92 to 96 % with 2."""
LARGEST_ERROR = 0.5
"""Relative error from which a value says nothing."""


@dataclass(frozen=True)
class Cepstral:
    """Power spectrum at zero frequency, S(0) = integral of <J(0) J(t)> over all t of either sign, for one component."""

    value: float
    """Unit of the flux squared, times fs."""
    error: float
    """Standard error, same unit."""
    coefficients: int
    """Number of cepstral coefficients that were kept, P."""
    cutoff_THz: float
    """Frequency up to which the spectrum was used."""
    frequencies_THz: Float[np.ndarray, " points"]
    periodogram: Float[np.ndarray, " points"]
    """Power spectrum of the data, reduced by the other fluxes where there are any; unit of ``value``."""
    smooth: Float[np.ndarray, " points"]
    """Power spectrum from the coefficients that were kept."""
    reason: str = ""
    """Why the value is not to be relied on; empty if nothing speaks against it."""


def zero_frequency(
    flux: Float[np.ndarray, "samples components"],
    interval_fs: float,
    others: Sequence[Float[np.ndarray, "samples components"]] = (),
    cutoff_THz: float | None = None,
) -> Cepstral:
    """Estimate the power spectrum of a flux at zero frequency.

    The logarithm of the periodogram, averaged over l equivalent components, is the logarithm of the spectrum plus noise of
    known mean and variance, psi'(l). Its Fourier coefficients C_n are few; they are kept up to P, ``MORE`` times the P* that
    minimises N / psi'(l) sum_{n >= P*} C_n^2 + 2 P*, and S(0) = exp(C_0 + 2 sum_{n < P} C_n) with the relative error
    sqrt(psi'(l) (4 P - 2) / N), over N frequencies of either sign (Ercole, Marcolongo and Baroni, Sci. Rep. 7, 15835
    (2017), where P is P*).

    With M - 1 ``others``, such as the mass fluxes of a mixture, the spectrum is 1 / (S^-1)_11 of the matrix S of all cross
    spectra, what is left of the flux at fixed others, and l becomes l - M + 1 (Bertossa, Grasselli, Ercole and Baroni, Phys.
    Rev. Lett. 122, 255901 (2019)).

    Args:
        flux: Equivalent, independent components; their mean is zero by symmetry and is not subtracted.
        interval_fs: Time between samples, fs.
        others: Fluxes that are kept from mixing with ``flux``, with the same components.
        cutoff_THz: Frequency up to which the spectrum is used; that with ``POWER`` of the power below it where left out.

    Raises:
        ValueError: too few samples, a value that is not finite, or more other fluxes than components allow.
    """
    signals = np.stack([np.asarray(x, np.float64) for x in (flux, *others)])
    count, samples, components = signals.shape
    if not np.isfinite(signals).all():
        raise ValueError("a flux has values that are not finite; leave those frames out")
    if components < count:
        raise ValueError(f"{count - 1} other fluxes need at least {count} components, there are {components}; give fewer")
    if samples < 2 * FEWEST:
        raise ValueError(f"{samples} samples of a flux are too few for a spectrum; at least {2 * FEWEST} are needed")
    frequencies = np.fft.rfftfreq(samples, interval_fs) * 1e3
    power = _reduced(np.fft.rfft(signals, axis=1), interval_fs / samples)
    used = _points(power, frequencies, cutoff_THz)
    degrees = np.full(used, 2.0 * (components - count + 1))
    degrees[0] /= 2
    if used == len(frequencies) and samples % 2 == 0:
        degrees[-1] /= 2
    return _analysed(power[:used], frequencies[:used], degrees, components)


def _reduced(transforms: Complex[np.ndarray, "fluxes points components"], scale: float) -> Float[np.ndarray, " points"]:
    """Compute the spectrum of the first flux at fixed others: 1 / (S^-1)_11."""
    matrix = np.einsum("apc,bpc->pab", transforms, transforms.conj()) * (scale / transforms.shape[2])
    if matrix.shape[1] == 1:
        return matrix[:, 0, 0].real
    rest = np.linalg.pinv(matrix[:, 1:, 1:], rcond=1e-10, hermitian=True)
    seen = np.einsum("pa,pab,pb->p", matrix[:, 0, 1:], rest, matrix[:, 1:, 0])
    return matrix[:, 0, 0].real - seen.real


def _points(power: Float[np.ndarray, " points"], frequencies: Float[np.ndarray, " points"], cutoff: float | None) -> int:
    """Return the number of frequencies up to the cutoff.

    Raises:
        ValueError: too few.
    """
    if not power.max() > 0:
        raise ValueError("the flux is zero at all times: there is no spectrum to analyse")
    if cutoff is None:
        used = int(np.searchsorted(np.cumsum(power), POWER * power.sum())) + 1
        return min(max(used, FEWEST), len(power))
    used = int(np.searchsorted(frequencies, cutoff, side="right"))
    if used < FEWEST:
        longest = frequencies[FEWEST - 1]
        raise ValueError(f"cutoff_THz {cutoff:g} leaves {used} frequencies; choose {longest:.3g} or more, or run longer")
    return used


def _analysed(
    power: Float[np.ndarray, " points"],
    frequencies: Float[np.ndarray, " points"],
    degrees: Float[np.ndarray, " points"],
    components: int,
) -> Cepstral:
    """Compute the cepstrum of a spectrum of chi-squared variables with ``degrees`` of freedom, and the best truncation."""
    from scipy.special import digamma, polygamma

    # Means over l components: those of l - M + 1 variables of the exponential distribution, of real normal ones at the ends.
    log_power = np.log(np.maximum(power, power[power > 0].min())) - digamma(degrees / 2) + np.log(components)
    log_power -= np.where(degrees < degrees[1], np.log(2), 0)
    size = 2 * (len(power) - 1)
    cepstrum = np.fft.irfft(log_power, size)[: size // 2 + 1]
    variance = float(polygamma(1, degrees[1] / 2))
    tail = np.concatenate([np.cumsum(cepstrum[::-1] ** 2)[::-1], [0.0]])
    candidates = np.arange(1, size // 2)
    best = MORE * int(candidates[np.argmin(size / variance * tail[candidates] + 2 * candidates)])
    best = min(best, size // 2)
    kept = np.where(np.arange(size) < best, np.fft.irfft(log_power, size), 0)
    kept[size - best + 1 :] = cepstrum[1:best][::-1]
    smooth = np.exp(np.fft.rfft(kept).real)
    value = float(np.exp(cepstrum[0] + 2 * cepstrum[1:best].sum()))
    relative = float(np.sqrt(variance * (4 * best - 2) / size))
    reason = ""
    if relative > LARGEST_ERROR:
        reason = f"the relative error of {relative:.2f} says that the series of fluxes is too short; run longer"
    elif best >= size // 4:
        reason = f"{best} of {size // 2} coefficients are needed: the spectrum has no smooth limit at zero; run longer"
    return Cepstral(value, value * relative, best, float(frequencies[-1]), frequencies, power, smooth, reason)
