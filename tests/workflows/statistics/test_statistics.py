"""Averages, spectra at zero frequency and correlation functions of series that are known in closed form."""

import numpy as np
import pytest
from autoregressive import autoregressive

from equipot.workflows.statistics import Correlator, Pool, average, zero_frequency


def share_within(deviations, sigmas):
    return np.mean(np.abs(deviations) < sigmas)


def test_errors_of_averages_cover_the_mean_of_an_autoregressive_series():
    rng, found = np.random.default_rng(0), []
    for _ in range(150):
        found.append(average(autoregressive(rng, [0.9], 8000)[:, 0]))
    assert not any(x.reason for x in found)
    z = np.array([x.mean / x.error for x in found])
    assert 0.58 < share_within(z, 1) < 0.8 and 0.89 < share_within(z, 2) <= 1
    # Var(mean) = sigma^2 (1 + phi) / (1 - phi) / n.
    assert np.mean([x.independent for x in found]) == pytest.approx(8000 * 0.1 / 1.9, rel=0.3)
    # What is not correlated has the error that everybody knows.
    x = rng.normal(size=4096)
    assert average(x).error == pytest.approx(x.std() / np.sqrt(4096), rel=0.02)


def test_a_series_that_is_too_short_or_drifts_is_told():
    rng = np.random.default_rng(1)
    short = average(autoregressive(rng, [0.99], 300)[:, 0])
    assert "too few" in short.reason and np.isnan(short.error)
    # With a slow drift the blocks stay correlated, or their halves differ.
    drifting = average(np.linspace(0, 3, 4000) + rng.normal(size=4000))
    assert drifting.reason
    assert average(np.full(10, 2.5)).error == 0
    with pytest.raises(ValueError, match="1 of them not finite"):
        average(np.array([1.0, np.nan]))


@pytest.mark.parametrize(
    "coefficients, samples", [([0.9], 4000), ([1.6, -0.8], 8000), ([0.5], 3000)], ids=["slow", "peak", "fast"]
)
def test_cepstral_errors_cover_the_spectrum_at_zero_frequency(coefficients, samples):
    rng, truth, found = np.random.default_rng(2), 2.0 / (1 - sum(coefficients)) ** 2, []
    for _ in range(150):
        found.append(zero_frequency(autoregressive(rng, coefficients, samples, 3), 2.0))
    z = np.array([(x.value - truth) / x.error for x in found])
    assert 0.55 < share_within(z, 1) < 0.8 and 0.87 < share_within(z, 2) <= 1, (share_within(z, 1), share_within(z, 2))
    assert abs(z.mean()) < 0.5 and not any(x.reason for x in found)


def test_a_second_flux_is_removed_from_the_spectrum_of_the_first():
    rng, z = np.random.default_rng(3), []
    for _ in range(100):
        heat, mass = autoregressive(rng, [0.7], 4000, 3), autoregressive(rng, [0.5], 4000, 3)
        found = zero_frequency(heat + 3 * mass, 1.0, [mass])
        z.append((found.value - 1 / 0.3**2) / found.error)
        assert zero_frequency(heat + 3 * mass, 1.0).value > 2 * found.value
    assert 0.55 < share_within(z, 1) < 0.82 and 0.87 < share_within(z, 2) <= 1
    with pytest.raises(ValueError, match="at least 4 components"):
        zero_frequency(heat, 1.0, [mass] * 3)


def test_a_series_of_fluxes_that_is_too_short_is_told():
    rng = np.random.default_rng(4)
    assert "too short" in zero_frequency(autoregressive(rng, [0.9], 70, 1), 1.0).reason
    with pytest.raises(ValueError, match="too few for a spectrum"):
        zero_frequency(np.ones((10, 3)), 1.0)
    with pytest.raises(ValueError, match="choose 3.1 or more"):
        zero_frequency(autoregressive(rng, [0.5], 10_000, 3), 1.0, cutoff_THz=1e-3)


def test_a_pool_has_the_mean_of_all_and_the_scatter_of_its_blocks():
    x = np.random.default_rng(5).normal(size=(1003, 2))
    pool = Pool((2,), most=64)
    for row in x:
        pool.add(row)
    found = pool.result()
    np.testing.assert_allclose(found.mean, x.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(pool.values, x[: found.blocks * pool.per_block].reshape(found.blocks, -1, 2).mean(axis=1))
    assert 32 <= found.blocks <= 64
    np.testing.assert_allclose(found.error, 1 / np.sqrt(1003), rtol=0.35)


def test_correlation_functions_are_those_of_the_definition():
    x = np.random.default_rng(6).normal(size=(400, 5))
    correlator = Correlator(2.0, 1e3 / (2.0 * 25) * 1.273 / 4 * 4, [np.array([0, 3]), np.array([1])])
    for row in x:
        correlator.add(row)
    found, n, k = correlator.result(), correlator.length, correlator.lags
    assert n == 4 * k and found.segments == 400 // n
    segments = x[: found.segments * n].reshape(found.segments, n, 5)
    for lag in (0, 1, k):
        products = (segments[:, : n - lag] * segments[:, lag:]).mean(axis=1).mean(axis=0)
        np.testing.assert_allclose(found.functions[:, lag], [products[0] + products[3], products[1]], atol=1e-12)
    # The integral over both signs of the frequency is C(0).
    np.testing.assert_allclose(2 * found.integral(found.spectra) * 1e-3, found.functions[:, 0], rtol=1e-12)
