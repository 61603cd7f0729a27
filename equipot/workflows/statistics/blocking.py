"""Mean of a correlated series with its standard error, by blocking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FEWEST_BLOCKS = 16
"""Smallest number of blocks from which an error is computed; that of 16 blocks is itself uncertain by 18 %."""
CONFIDENCE = 0.99
"""Level of the test by which blocks count as uncorrelated, as in the paper."""
DRIFT = 5.0
"""Difference of the means of the two halves, in its standard errors, from which a series counts as drifting."""


@dataclass(frozen=True)
class Average:
    """Mean of a series, in the unit of the series."""

    mean: float
    error: float
    """Standard error of the mean; NaN where the series is too short for one."""
    samples: int
    """Length of the series."""
    independent: float
    """Number of independent values that would have the same error; NaN without an error."""
    reason: str = ""
    """Why the mean or the error is not to be relied on; empty if nothing speaks against them."""


def average(series: Float[np.ndarray, " samples"]) -> Average:
    """Compute the mean of a stationary series and its standard error.

    Neighbours are averaged in pairs again and again (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989)) until no
    correlation of successive blocks is left: until the sum over this and all longer block lengths of n (rho + (n - 1) / n^2)^2,
    with n blocks and rho the correlation of neighbours, is below a quantile of its chi-squared distribution (Jonsson, Phys.
    Rev. E 98, 043304 (2018)).

    Raises:
        ValueError: an empty series, or a value that is not finite.
    """
    x = np.asarray(series, np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"a series of {len(x)} values, {np.sum(~np.isfinite(x))} of them not finite, has no average")
    mean, n = float(x.mean()), len(x)
    if np.ptp(x) <= 1e-14 * abs(mean):
        return Average(mean, 0.0, n, float(n))
    variance = float(x.var())
    level = _first_uncorrelated(x)
    if level is None:
        need = f"{n} samples are too few or too correlated for {FEWEST_BLOCKS} independent blocks; run longer"
        return Average(mean, np.nan, n, np.nan, need)
    error = float(np.sqrt(level.var() / (len(level) - 1)))
    halves = level[: len(level) // 2], level[-(len(level) // 2) :]
    apart = abs(halves[0].mean() - halves[1].mean())
    reason = ""
    if apart > DRIFT * 2 * error:
        reason = f"the series drifts: the means of its halves differ by {apart / (2 * error):.0f} standard errors; skip more"
    return Average(mean, error, n, variance / error**2, reason)


def _first_uncorrelated(x: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " blocks"] | None:
    """Return the shortest blocks that are uncorrelated; None if there are too few of them."""
    from scipy.stats import chi2

    mean, levels, terms = x.mean(), [], []
    while len(x) >= FEWEST_BLOCKS:
        n, d = len(x), x - mean
        rho = np.mean(d * d) and float(np.sum(d[1:] * d[:-1]) / np.sum(d * d))
        levels.append(x)
        terms.append(n * (rho + (n - 1) / n**2) ** 2)
        x = 0.5 * (x[0 : n - 1 : 2] + x[1:n:2])
    for k, blocks in enumerate(levels):
        if sum(terms[k:]) < chi2.ppf(CONFIDENCE, len(levels) - k):
            return blocks
    return None
