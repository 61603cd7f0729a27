"""Uncertainty of potentials: what they know about energies, forces and stresses, and how far environments are from known ones.

>>> potential = equipot.uncertainty.fit(potential, training_frames, calibrate=validation_frames)
>>> out = equipot.evaluate(potential, atoms, want=("energy", "forces", "energy_std", "forces_std", "novelty"))
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from equipot.data.method import runner_of
from equipot.evaluation import as_structures
from equipot.physics.committee import committee
from equipot.posterior import Posterior, Statistics, UncertaintyMethod, variables_digest
from equipot.potential import Potential
from equipot.uncertainty.calibration import Calibrator, Linear, Power, Proportional, calibrated, compare, half_width
from equipot.uncertainty.derived import Cumulant, Direct, propagate, reweighted
from equipot.uncertainty.diagnostics import assess
from equipot.uncertainty.labelled import frames_of, said_of_overlap
from equipot.uncertainty.last_layer import FeatureNorm, LastLayer
from equipot.uncertainty.learning import lesson
from equipot.uncertainty.mean_variance import MeanVariance
from equipot.uncertainty.members import members
from equipot.uncertainty.mixture import Mixture
from equipot.uncertainty.novelty import Euclidean, Mahalanobis, Nearest
from equipot.uncertainty.pictures import draw_deviations
from equipot.uncertainty.pops import POPS
from equipot.uncertainty.shallow import ShallowEnsemble
from equipot.uncertainty.spread import Spread
from equipot.uncertainty.statistics import gather, joined

__all__ = [
    "POPS", "Cumulant", "Direct", "Euclidean", "FeatureNorm", "LastLayer", "Linear", "Mahalanobis", "MeanVariance", "Mixture",
    "Nearest", "Power", "Proportional", "ShallowEnsemble", "Spread", "absorb", "calibrated", "committee", "default_method",
    "diagnose", "draw_deviations", "fit", "half_width", "members", "propagate", "reweighted", "with_statistics",
]  # fmt: skip


def fit(
    potential: Potential,
    structures: Any,
    calibrate: Any = None,
    method: UncertaintyMethod | None = None,
    calibrator: Calibrator | None = None,
    batch_size: int | None = None,
    runner: Any = None,
    rests_on: str = "",
) -> Potential:
    """Give a potential an estimate of its uncertainty.

    Args:
        structures: those that the potential was trained on, or others that it should know; their labels are used by methods
            that learn from errors, ``POPS``, ``ShallowEnsemble`` and ``MeanVariance``. Labels of ``ase.Atoms`` are the results
            that ``ase.io.read`` attaches.
        calibrate: labelled frames that were not trained on, by which deviations become those of actual errors; None to have
            novelty alone.
        method: method and its settings; ``LastLayer()`` where left out, ``Spread()`` for a committee.
        calibrator: ``Linear()`` or ``Power()``.
        batch_size: structures per batch; None to choose by memory and speed.
        runner: ASE calculator of the method that the potential is a correction to, as ``equipot.evaluate`` takes it.
        rests_on: description of the structures, for messages.

    Returns:
        The potential with a posterior, which ``equipot.save`` stores with it.

    Raises:
        ValueError: no structures, a model without features, several heads, or too few labelled frames.
    """
    found = frames_of(structures)
    method = method or default_method(potential)
    method.check(potential.term)
    needed = runner_of(potential.metadata.subtracted, runner)
    statistics = gather(potential, found, batch_size)
    if method.learned_array:
        statistics = method.learned(statistics, lesson(potential, found, batch_size, needed))
    potential = with_statistics(potential, statistics, method, rests_on or f"{len(found)} structures")
    if calibrate is None:
        return potential
    labelled = frames_of(calibrate)
    if said := said_of_overlap("calibrate", labelled, found, "the estimate rests on"):
        warnings.warn(said, stacklevel=2)
    return calibrated(potential, labelled, calibrator, batch_size, needed)


def diagnose(
    potential: Potential, frames: Any, batch_size: int | None = None, runner: Any = None
) -> dict[str, dict[str, float]]:
    """Tell how good the deviations of a potential are on labelled frames, which neither training nor calibration has seen.

    Arguments are those of ``fit``.

    Returns:
        For each deviation with labels, by its name, the numbers that ``equipot.uncertainty.diagnostics.assess`` describes:
        rank correlation with the errors, coverage of intervals of 90%, likelihood, ...

    Raises:
        ValueError: the potential has no deviations that are calibrated, or does not apply to a frame.
    """
    rows = [row for row in potential.deviations if row.deviation_of]
    if potential.posterior is None or not rows:
        raise ValueError(
            "the potential has no calibrated deviations; make some by equipot.uncertainty.fit(..., calibrate=FRAMES)"
        )
    known = potential.posterior.calibrations
    needed = runner_of(potential.metadata.subtracted, runner)
    samples = compare(potential, frames_of(frames), rows, batch_size, needed)
    return {name: assess(sample, known[name]) for name, sample in samples.items()}


def default_method(potential: Potential) -> UncertaintyMethod:
    """Return the method for a potential for which none is chosen."""
    return Spread() if potential.term.copies else LastLayer()


def with_statistics(potential: Potential, statistics: Statistics, method: UncertaintyMethod, rests_on: str) -> Potential:
    """Give a potential a posterior, not calibrated yet, from sums over structures.

    Raises:
        ValueError: the method does not apply to the potential, or learns from labels and has not.
    """
    method.check(potential.term)
    if method.learned_array and method.learned_array not in statistics.arrays:
        raise ValueError(f"{type(method).__name__} learns from labelled structures; give some (`--data FILE`)")
    arrays = method.arrays(statistics)
    posterior = Posterior(method, statistics, arrays, {}, variables_digest(potential.variables), rests_on)
    return potential.replace(posterior=posterior.astype(potential.dtype))


def absorb(potential: Potential, structures: Sequence[Any], batch_size: int | None = None) -> Potential:
    """Add structures to those that the uncertainty of a potential rests on; calibrate it anew afterwards.

    Raises:
        ValueError: the potential has no posterior, or as ``fit``.
    """
    if potential.posterior is None:
        raise ValueError("the potential has no estimate of its uncertainty yet; make one by equipot.uncertainty.fit")
    if potential.posterior.method.learned_array:
        raise ValueError(
            f"{type(potential.posterior.method).__name__} learns from the errors on all structures at once and cannot add some "
            "to them; fit it to all of them anew"
        )
    old, found = potential.posterior, as_structures(structures)
    new = joined(old.statistics, gather(potential, found, batch_size))
    return with_statistics(potential, new, old.method, f"{old.rests_on} and {len(found)} more")
