"""Calibration of deviations on labelled frames: a factor, by maximum likelihood, and intervals of known coverage."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equipot.data.loader import sha256_of
from equipot.data.method import Runner
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.evaluation.method import with_method
from equipot.isolated_atoms import isolated_atom_energy
from equipot.posterior import LEVELS, Calibration, check_estimates
from equipot.potential import Potential
from equipot.quantities import BY_NAME, Quantity
from equipot.structure import Structure
from equipot.uncertainty.labelled import frames_of

__all__ = ["Calibrator", "Linear", "Power", "Proportional", "calibrated", "compare", "half_width"]

FEWEST = 5
"""Number of labelled frames below which a deviation is not calibrated."""
LEAST = 1e-12
"""Deviations and errors are taken to be at least this, in eV and Å: a logarithm of zero is nothing to fit to."""


@dataclass(frozen=True)
class Calibrator(ABC):
    """Base of the relations between deviations s before and sigma after calibration: sigma^2 = (scale s^power)^2 + floor^2, for
    an extensive quantity with a floor per atom."""

    builtin_kinds: ClassVar[dict[str, str]] = {
        "Linear": "equipot.uncertainty.calibration:Linear",
        "Power": "equipot.uncertainty.calibration:Power",
        "Proportional": "equipot.uncertainty.calibration:Proportional",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""

    def power(self, raw: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> float:
        """Return the power for which errors of mean zero and deviation sigma are likeliest."""
        return 1.0

    @abstractmethod
    def fit(self, raised: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> tuple[float, float]:
        """Return the likeliest scale and floor, for deviations to the power."""


@dataclass(frozen=True)
class Proportional(Calibrator):
    """sigma = scale s: scale^2 is the mean of error^2 / s^2."""

    def fit(self, raised: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> tuple[float, float]:
        return likeliest_scale(raised, error), 0.0


@dataclass(frozen=True)
class Linear(Calibrator):
    """sigma^2 = (scale s)^2 + floor^2. The floor, in the unit of the quantity, is the error that is left where the weights are
    certain, as of atoms whose forces are small by symmetry: noise of the labels, and what no weights describe."""

    def fit(self, raised: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> tuple[float, float]:
        from scipy.optimize import minimize_scalar

        mean = max(float(np.mean(raised**2)), LEAST**2)

        def width(share: float) -> tuple[float, float]:
            """Return the likeliest variance, with a share of the floor, and half of the mean logarithm of the variances."""
            shape = np.maximum((1 - share) * raised**2 / mean + share, LEAST)
            variance = float(np.mean(error**2 / shape))
            return variance, 0.5 * (math.log(max(variance, LEAST**2)) + float(np.mean(np.log(shape))))

        loss = lambda x: width(1 / (1 + math.exp(-x)))[1]
        grid = np.linspace(-16, 12, 29)
        best = grid[int(np.argmin([loss(x) for x in grid]))]
        share = 1 / (1 + math.exp(-float(minimize_scalar(loss, bounds=(best - 1, best + 1), method="bounded").x)))
        # The deviations say nothing of the errors.
        share = 1.0 if width(1.0)[1] <= width(share)[1] else share
        variance = width(share)[0]
        return math.sqrt(variance * (1 - share) / mean), math.sqrt(variance * share)


@dataclass(frozen=True)
class Power(Proportional):
    """sigma = scale s^power, for deviations that grow too fast or too slowly."""

    def power(self, raw: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> float:
        from scipy.optimize import minimize_scalar

        logs = np.log(np.maximum(raw, LEAST))
        raised = lambda power: np.exp(power * logs)
        loss = lambda power: math.log(max(likeliest_scale(raised(power), error), LEAST)) + power * logs.mean()
        return float(minimize_scalar(loss, bounds=(0.0, 3.0), method="bounded").x)


def likeliest_scale(raised: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> float:
    """Return the factor on deviations for which errors are likeliest."""
    return float(np.sqrt(np.mean(np.square(error / np.maximum(raised, LEAST)))))


class Sample(NamedTuple):
    """Errors and deviations of one quantity over labelled frames, one row for each component."""

    error: Float[np.ndarray, " n"]
    """Prediction less label."""
    raw: Float[np.ndarray, " n"]
    """Deviation."""
    frame: Int[np.ndarray, " n"]
    """Index of the frame."""
    number: Int[np.ndarray, " n"]
    """Atomic number; zero for a quantity of systems."""
    atoms: Float[np.ndarray, " n"]
    """Number of atoms that an extensive quantity grows with; 1 for any other."""
    components: int
    """Number of successive rows that are components of one vector or tensor, and share one deviation."""

    def of(self, chosen: np.ndarray) -> Sample:
        """Select rows, all components of a vector or none."""
        error, raw, frame, number, atoms = (x[chosen] for x in self[:-1])
        return Sample(error, raw, frame, number, atoms, self.components)

    @property
    def whole(self) -> Sample:
        """Root mean square errors over the components of each vector or tensor, instead of errors."""
        n = self.components
        size = np.sqrt(np.mean(self.error.reshape(-1, n) ** 2, axis=1))
        return Sample(size, self.raw[::n], self.frame[::n], self.number[::n], self.atoms[::n], 1)


def compare(
    potential: Potential,
    frames: Sequence[Structure],
    rows: Sequence[Quantity],
    batch_size: int | None = None,
    runner: Runner | None = None,
) -> dict[str, Sample]:
    """Compare errors and deviations of a potential on labelled frames, by the names of deviations; without labels, none.

    Raises:
        ValueError: the potential does not apply to a frame, or has no such deviation.
    """
    potential.correction.check(frames)
    check_estimates(potential.posterior, rows, frames)
    energies = dict(potential.metadata.atomic_energies)
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {row.name: [] for row in rows}
    wanted = tuple(name for row in rows for name in (row.name, row.deviation_of))
    found = dict(evaluate_in_batches(Job(potential, wanted), frames, batch_size))
    for k, frame in enumerate(frames):
        out = found[k]
        free = isolated_atom_energy(frame.numbers, energies).sum()
        out = with_method(out.replace(energy=np.float64(np.asarray(out.interaction)) + free), frame, runner)
        for row in rows:
            of = BY_NAME[row.deviation_of]
            if of not in frame.labels or (of.needs_volume and not frame.pbc.any()):
                continue
            error = np.asarray(out[of], np.float64) - frame.labels[of]
            require_finite(error, frame, of)
            # A deviation of an atom, or of a system, is that of each of its components.
            values = np.atleast_1d(np.asarray(out[row], np.float64))
            numbers = frame.numbers if of.per == "atom" else np.zeros(1, int)
            atoms = np.full(len(values), float(len(frame)) if of.extensive else 1.0)
            repeated = (np.repeat(x, of.size) for x in (values, np.full(len(values), k), numbers, atoms))
            parts[row.name].append((np.ravel(error), *repeated))
    made = {}
    for row in rows:
        if part := parts[row.name]:
            error, raw, frame_of, number, count = (np.concatenate(x) for x in zip(*part, strict=True))
            made[row.name] = Sample(error, raw, frame_of, number, count, BY_NAME[row.deviation_of].size)
    return made


def require_finite(error: Any, frame: Structure, row: Quantity) -> None:
    """Check that an error is a number.

    Raises:
        ValueError: it is not; the message names the frame.
    """
    if not np.isfinite(error).all():
        raise ValueError(f"{frame.name}: label or prediction of {row.name} is not a number; correct the frame, or leave it out")


def calibrated(
    potential: Potential,
    frames: Any,
    calibrator: Calibrator | None = None,
    batch_size: int | None = None,
    runner: Runner | None = None,
) -> Potential:
    """Calibrate the deviations of a potential on labelled frames, which neither training nor statistics should have seen.

    A deviation stays without calibration where fewer frames than ``FEWEST`` have labels. Isolated atoms, and frames that are
    there more than once, do not count again. The calibrator is ``Linear()`` where left out.

    Raises:
        ValueError: there is nothing to calibrate, or there are too few labels for any deviation.
    """
    posterior, frames, calibrator = potential.posterior, frames_of(frames), calibrator or Linear()
    if posterior is None:
        raise ValueError("the potential has no estimate of its uncertainty to calibrate; make one by equipot.uncertainty.fit")
    rows = [row for row in posterior.method.provides if row.deviation_of]
    unit = Calibration(np.ones(()), np.ones(()), np.zeros(()), np.full(len(LEVELS), np.nan), (0,), "")
    bare = potential.replace(posterior=posterior.replace(calibrations={row.name: unit for row in rows}))
    samples = compare(bare, frames, rows, batch_size, runner)
    if not samples:
        raise ValueError(
            "calibration: the frames have no labels of energy, forces or stress (of ase.Atoms, the results of a "
            "SinglePointCalculator, as ase.io.read attaches it; equipot.data.read.read knows other names and units)"
        )
    data = sha256_of(frames)
    enough = {name for name, sample in samples.items() if len(np.unique(sample.frame)) >= FEWEST}
    calibrations = {
        row.name: calibration(samples[row.name], BY_NAME[row.deviation_of].per == "atom", calibrator, data, row.name)
        for row in rows
        # Without enough for any, the first says so.
        if row.name in (enough or samples)
    }
    made = posterior.replace(calibrations=calibrations)
    return potential.replace(posterior=made.astype(potential.dtype))


def calibration(sample: Sample, by_element: bool, calibrator: Calibrator, data: str, name: str) -> Calibration:
    """Calibrate one deviation, for each element by itself where it is one of atoms.

    Raises:
        ValueError: too few frames.
    """
    count = len(np.unique(sample.frame))
    if count < FEWEST:
        raise ValueError(
            f"calibration of {name}: {count} labelled frames are too few; give at least {FEWEST}, 100 for intervals of 90% "
            "that hold to 3 points"
        )
    power = calibrator.power(sample.raw, sample.error)

    def fitted(part: Sample, frames: int) -> tuple[float, float, np.ndarray]:
        """Return scale, floor, and the quantiles of errors in units of calibrated deviations."""
        raised = np.maximum(part.raw, LEAST) ** power
        scale, floor = calibrator.fit(raised / part.atoms, part.error / part.atoms)
        sigma = np.maximum(np.hypot(scale * raised, floor * part.atoms), LEAST)
        return scale, floor, quantiles(np.abs(part.error) / sigma, frames)

    if not by_element:
        scale, floor, factor = fitted(sample, count)
        return Calibration(np.asarray(scale), np.asarray(power), np.asarray(floor), factor, (count,), data)
    scales, floors, frames = np.full(119, np.nan), np.full(119, np.nan), [0] * 119
    factors = np.full((119, len(LEVELS)), np.nan)
    for z in np.unique(sample.number).tolist():
        mine = sample.of(sample.number == z)
        frames[z] = len(np.unique(mine.frame))
        if frames[z] >= FEWEST:
            scales[z], floors[z], factors[z] = fitted(mine, frames[z])
    # No atom, for padding.
    scales[0] = floors[0] = 0.0
    return Calibration(scales, np.asarray(power), floors, factors, tuple(frames), data)


def quantiles(scores: Float[np.ndarray, " n"], frames: int) -> Float[np.ndarray, " levels"]:
    """Compute the quantiles of scores that make intervals by split conformal prediction (V. Vovk, A. Gammerman and G. Shafer,
    Algorithmic Learning in a Random World, 2005): at ceil((n + 1) level) / n, n the number of frames, since the atoms of a
    frame are not independent; NaN where that is above one.
    """
    share = [math.ceil((frames + 1) * level) / frames for level in LEVELS]
    return np.array([np.quantile(scores, q, method="higher") if q <= 1 else np.nan for q in share])


def half_width(potential: Potential, name: str, level: float, numbers: Int[np.ndarray, " atoms"] | None = None) -> Any:
    """Return the factor on a deviation that makes the half-width of an interval: prediction ± factor x deviation holds the
    truth with probability ``level``, for frames of the kind of those that calibrated the deviation, and for no others.

    Args:
        name: a deviation, such as ``forces_std``.
        level: one of ``LEVELS``.
        numbers: atomic numbers, for a deviation of atoms.

    Returns:
        a number, or one for each atom.

    Raises:
        ValueError: a level that is not kept, a deviation that was not calibrated, too few frames for the level, or no atomic
            numbers for a deviation of atoms.
    """
    known: Mapping[str, Calibration] = {} if potential.posterior is None else potential.posterior.calibrations
    if name not in known:
        raise ValueError(f"{name} is not calibrated; calibrated are {', '.join(known) or 'none'}")
    if level not in LEVELS:
        raise ValueError(f"level {level} is not among those that are kept: {', '.join(map(str, LEVELS))}")
    factors = np.asarray(known[name].quantiles)[..., LEVELS.index(level)]
    if factors.ndim and numbers is None:
        raise ValueError(f"{name} is one of atoms, each element by itself: give their atomic numbers, numbers=atoms.numbers")
    factor = factors if factors.ndim == 0 else factors[np.asarray(numbers)]
    if np.isnan(factor).any():
        frames = known[name].frames
        fewest = frames[0] if factors.ndim == 0 else min(frames[z] for z in np.unique(np.asarray(numbers)).tolist())
        if fewest < FEWEST:
            raise ValueError(
                f"{name}: an element is not calibrated, of which there were {fewest} labelled frames; give at least {FEWEST} "
                "frames that have it to calibrate"
            )
        need = next(n for n in range(1, 10**6) if math.ceil((n + 1) * level) <= n)
        raise ValueError(
            f"{name}: {fewest} labelled frames are too few for an interval of {level:.0%}, which takes {need}; give more "
            "frames to calibrate, or ask for a lower level"
        )
    return factor
