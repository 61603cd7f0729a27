"""Autocorrelation functions and power spectra of many signals, segment by segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.workflows.statistics.pool import Pool

PARZEN_WIDTH = 1.273
"""Full width at half maximum of the transform of Parzen's window of half-length T, times T: 4 / pi."""
AT_A_TIME = 2**22
"""Number of values that are transformed at once."""


class Correlations(NamedTuple):
    """Autocorrelation functions of groups of signals and their spectra. The unit u is that of the signals squared."""

    times_fs: Float[np.ndarray, " lags"]
    functions: Float[np.ndarray, "groups lags"]
    """C(t), sum over the signals of a group, u."""
    functions_error: Float[np.ndarray, "groups lags"]
    """Standard error from the scatter of the segments; NaN for a single one."""
    frequencies_THz: Float[np.ndarray, " lags"]
    spectra: Float[np.ndarray, "groups lags"]
    """S(f) = integral of w(t) C(t) exp(2 pi i f t) over t of either sign, u fs, with Parzen's window w."""
    spectra_error: Float[np.ndarray, "groups lags"]
    segments: int
    """Number of independent segments."""
    step_THz: float
    """Distance of the frequencies."""

    def integral(self, values: Float[np.ndarray, "*rows lags"]) -> Float[np.ndarray, "*rows"]:
        """Integrate values over the positive frequencies (THz) by the trapezoidal rule, which is exact here.

        Twice the integral of S over these is C(0), times 1e3 fs THz.
        """
        ends = (values[..., 0] + values[..., -1]) / 2
        return np.asarray((values.sum(axis=-1) - ends) * self.step_THz)


class Correlator:
    """Sums for autocorrelation functions of signals that come frame by frame.

    Frames are collected to segments. Each segment gives C(k) = mean over its L - k pairs of frames, summed over the signals of
    a group, by a fast Fourier transform of the segment with zeros appended; segments are averaged. Memory is that of a segment.

    Args:
        interval_fs: Time between frames, fs.
        resolution_THz: Full width at half maximum of the spectral window; the longest lag K follows, segments are 4 K long.
        groups: Indices of the signals of each group.

    Raises:
        ValueError: a resolution that the interval cannot give.
    """

    def __init__(self, interval_fs: float, resolution_THz: float, groups: Sequence[np.ndarray]) -> None:
        self.lags = round(PARZEN_WIDTH / (resolution_THz * interval_fs * 1e-3))
        if self.lags < 8:
            raise ValueError(
                f"resolution_THz {resolution_THz:g} is coarser than frames every {interval_fs:g} fs make sense of; choose "
                f"{PARZEN_WIDTH / (8e-3 * interval_fs):.3g} or less"
            )
        self.interval_fs, self.groups, self.length = interval_fs, list(groups), 4 * self.lags
        self.buffer: np.ndarray | None = None
        self.filled = 0
        self.pool = Pool((len(self.groups), self.lags + 1))

    def add(self, signals: Float[np.ndarray, " signals"]) -> None:
        """Add the signals of a frame."""
        if self.buffer is None:
            self.buffer = np.empty((self.length, len(signals)), np.float32 if signals.dtype == np.float32 else np.float64)
        self.buffer[self.filled] = signals
        self.filled += 1
        if self.filled == self.length:
            self.pool.add(self._correlated(self.buffer))
            self.filled = 0

    def _correlated(self, segment: Float[np.ndarray, "frames signals"]) -> Float[np.ndarray, "groups lags"]:
        found, width = np.zeros((len(self.groups), self.lags + 1)), max(1, AT_A_TIME // len(segment))
        # Zeros keep the ends apart up to the longest lag.
        size = len(segment) + self.lags + 1
        pairs = len(segment) - np.arange(self.lags + 1)
        for k, group in enumerate(self.groups):
            power = np.zeros(size // 2 + 1)
            for first in range(0, len(group), width):
                part = np.asarray(segment[:, group[first : first + width]], np.float64)
                power += (np.abs(np.fft.rfft(part, size, axis=0)) ** 2).sum(axis=1)
            found[k] = np.fft.irfft(power, size)[: self.lags + 1] / pairs
        return found

    def result(self) -> Correlations:
        """Compute correlation functions and spectra.

        Raises:
            ValueError: not even one segment is complete.
        """
        if not self.pool.blocks and not self.pool.inside:
            raise ValueError(
                f"the trajectory is too short: {self.filled} frames, {self.filled * self.interval_fs / 1e3:.3g} ps; "
                f"this resolution needs {self.length}, {self.length * self.interval_fs / 1e3:.3g} ps, at the least; run longer "
                "or choose a coarser resolution_THz"
            )
        mean, error, segments = self.pool.result()
        spread = np.stack([self._spectrum(block) for block in self.pool.values]) if segments else self._spectrum(mean)[None]
        of_spectra = spread.std(axis=0, ddof=1) / np.sqrt(segments) if segments > 1 else np.full(mean.shape, np.nan)
        step = 1e3 / (2 * self.lags * self.interval_fs)
        steps = np.arange(self.lags + 1)
        return Correlations(
            steps * self.interval_fs, mean, error, steps * step, self._spectrum(mean), of_spectra, segments, step
        )

    def _spectrum(self, function: Float[np.ndarray, "groups lags"]) -> Float[np.ndarray, "groups lags"]:
        windowed = function * parzen(self.lags)
        even = np.concatenate([windowed, windowed[:, -2:0:-1]], axis=1)
        return np.fft.rfft(even, axis=1).real * self.interval_fs


def parzen(lags: int) -> Float[np.ndarray, " lags"]:
    """Compute Parzen's window at lags 0 to ``lags``, from 1 to 0; its transform is nowhere negative (Technometrics 3, 167)."""
    x = np.arange(lags + 1) / lags
    return np.where(x < 0.5, 1 - 6 * x**2 * (1 - x), 2 * (1 - x) ** 3)
