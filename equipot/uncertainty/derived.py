"""Uncertainty of results that are computed with a potential: relaxed volumes, barriers, phonons, averages of dynamics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from equipot.evaluation import as_structures
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.potential import Potential
from equipot.quantities import FEATURES
from equipot.structure import Structure
from equipot.uncertainty.members import changes_of_weights, members
from equipot.units import kB


class Propagated(NamedTuple):
    """A result with its uncertainty."""

    value: Float[np.ndarray, "..."]
    """Result of the potential itself."""
    members: Float[np.ndarray, "members ..."]
    """Results of the members."""
    std: Float[np.ndarray, "..."]
    """Standard deviation, in the unit of the result."""


def propagate(potential: Potential, compute: Callable[[Potential], Any], by: str = "forces_std") -> Propagated:
    """Compute a result with a potential and with every sample of its posterior, and from these its standard deviation.

    >>> def lattice_constant(potential):
    ...     atoms = bulk("Si")
    ...     atoms.calc = potential.calculator()
    ...     BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3)
    ...     return 2**0.5 * atoms.cell.lengths()[0]  # Å
    >>> equipot.uncertainty.propagate(potential, lattice_constant).std

    The standard deviation is the root mean square over the members of their results less that of the potential itself. It is
    not the deviation about the mean of the members: what was calibrated, by the deviation that ``by`` names, are their changes
    of energies or forces from those of the potential. It is known to about 1 / sqrt(2 members) of itself (members are the
    ``samples`` of ``LastLayer``), and is as good as the calibration is for the structures that the result goes through.

    Args:
        potential: Potential with an estimate of its uncertainty.
        compute: Function of a potential that returns a number or an array, always of one shape; called once for the potential
            and once for each member, in turn.
        by: Deviation whose calibration scales the samples, see ``members``.

    Raises:
        ValueError: as ``members``; or the result of the potential or of a member, which is named, is not finite, is of another
            shape, or cannot be computed.
    """
    drawn = members(potential, by)
    value = _finite(compute(potential), "the potential itself")
    found = []
    for k, member in enumerate(drawn):
        name = f"member {k} of {len(drawn)}"
        try:
            result = compute(member)
        except Exception as error:
            raise ValueError(
                f"{name}: {type(error).__name__}: {error}; the result has to be defined for every sample of the posterior as "
                "it is for the potential: start nearer to it, or leave out what does not converge"
            ) from error
        found.append(_finite(result, name))
        if found[-1].shape != value.shape:
            raise ValueError(f"{name}: the result has shape {found[-1].shape}, and that of the potential {value.shape}")
    each = np.stack(found)
    return Propagated(value, each, spread(each, value))


def spread(each: Float[np.ndarray, "members ..."], value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Compute the root mean square over members of their results less that of the potential itself."""
    return np.asarray(np.sqrt(np.mean((each - value[None]) ** 2, axis=0)))


def _finite(result: Any, name: str) -> Float[np.ndarray, "..."]:
    value = np.asarray(result, np.float64)
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: the result is not finite: {value}")
    return value


class Reweighting(ABC):
    """Base of the ways to average over the ensemble of a member by frames of the ensemble of the potential."""

    @abstractmethod
    def means(
        self, change: Float[np.ndarray, "members frames"], observable: Float[np.ndarray, "frames ..."]
    ) -> Float[np.ndarray, "members ..."]:
        """Compute the average of an observable for each member.

        Args:
            change: (E_k - E) / kT, energies of the members less those of the potential.
            observable: Value of the observable in each frame.

        Raises:
            ValueError: the frames do not tell the averages.
        """


@dataclass(frozen=True)
class Direct(Reweighting):
    """Averages with the weights exp(-(E_k - E) / kT) of the frames: exact for many frames that the ensembles have in common.

    Changes of the energy grow with the number of atoms, and the number of frames that count falls exponentially: large systems
    need ``Cumulant``.
    """

    share: float = 0.1
    """Effective number of frames over the number of frames, below which averages are refused."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share} must be above 0 and at most 1")

    def means(
        self, change: Float[np.ndarray, "members frames"], observable: Float[np.ndarray, "frames ..."]
    ) -> Float[np.ndarray, "members ..."]:
        effective, frames = effective_frames(change), change.shape[1]
        worst = int(np.argmin(effective))
        if effective[worst] < self.share * frames:
            raise ValueError(
                f"member {worst} of {len(effective)}: of {frames} frames only {effective[worst]:.3g} count, less than a share "
                f"of {self.share:g}, and their average would be noise; take method=Cumulant(), which is right to first order, "
                "a smaller system, or a potential that is surer of its energies"
            )
        return np.tensordot(weights(change), observable, axes=1)


@dataclass(frozen=True)
class Cumulant(Reweighting):
    """Averages by the cumulant expansion <a>_k = <a> - cov(a, E_k - E) / kT: right to first order in the change of the energy.

    Its statistical error does not grow with the number of atoms but as that of a covariance, where that of ``Direct`` grows
    exponentially; what it lacks is of second order, however large the change is. See G. Imbalzano, Y. Zhuang,
    V. Kapil, K. Rossi, E. A. Engel, F. Grasselli and M. Ceriotti, J. Chem. Phys. 154, 074102 (2021), arXiv:2011.08828.
    """

    def means(
        self, change: Float[np.ndarray, "members frames"], observable: Float[np.ndarray, "frames ..."]
    ) -> Float[np.ndarray, "members ..."]:
        mean = observable.mean(axis=0)
        about = change - change.mean(axis=1, keepdims=True)
        return mean[None] - np.tensordot(about, observable - mean[None], axes=1) / change.shape[1]


def weights(change: Float[np.ndarray, "members frames"]) -> Float[np.ndarray, "members frames"]:
    """Compute the normalised weights exp(-change) of the frames for each member, change = (E_k - E) / kT."""
    powers = np.exp(change.min(axis=1, keepdims=True) - change)
    return powers / powers.sum(axis=1, keepdims=True)


def effective_frames(change: Float[np.ndarray, "members frames"]) -> Float[np.ndarray, " members"]:
    """Compute the effective number of frames for each member, 1 / sum w^2 of its normalised weights w (L. Kish, Survey
    Sampling, 1965): all of them for equal weights, 1 where a single frame counts.

    Frames of a trajectory that are correlated count for less than that; it is no number of independent frames.
    """
    return 1 / np.sum(weights(change) ** 2, axis=1)


class Reweighted(NamedTuple):
    """An average over an ensemble with its uncertainty."""

    mean: Float[np.ndarray, "..."]
    """Average over the frames, in the ensemble of the potential itself."""
    std: Float[np.ndarray, "..."]
    """Standard deviation of the average: root mean square over members of their averages less ``mean``."""
    members: Float[np.ndarray, "members ..."]
    """Averages in the ensembles of the members."""
    effective: Float[np.ndarray, " members"]
    """Effective number of frames for each member, see ``effective_frames``."""


def reweighted(
    potential: Potential,
    frames: Any,
    observable: Any,
    temperature: float,
    by: str = "energy_std",
    method: Reweighting = Direct(),
    batch_size: int | None = None,
) -> Reweighted:
    """Compute the average of an observable over dynamics, and its standard deviation: how far it would be another with each
    sample of the posterior, by the frames of one trajectory.

    >>> frames = ase.io.read("runs/md/trajectory.xyz", ":")
    >>> angles = [atoms.get_angle(1, 0, 2) for atoms in frames]
    >>> out = equipot.uncertainty.reweighted(potential, frames, angles, temperature=300.0)
    >>> out.mean, out.std, out.effective / len(frames)

    The deviation is that due to the potential alone: beside it stands the statistical error of the trajectory, and that of what
    the observable itself depends on.

    Args:
        potential: Potential with an estimate of its uncertainty, whose dynamics at ``temperature`` made the frames.
        frames: Frames of the ensemble: structures or ``ase.Atoms``.
        observable: Value of the observable in each frame [frames, ...].
        temperature: K.
        by: Deviation whose calibration scales the samples, see ``members``.
        method: ``Direct()``, or ``Cumulant()`` for large systems.
        batch_size: Frames per batch; None to choose by memory and speed.

    Raises:
        ValueError: as ``members``; a temperature that is not positive, values that are not one for each frame or not finite,
            or too few frames that count, as ``Direct``.
    """
    structures, values = as_structures(frames), np.asarray(observable, np.float64)
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} K must be positive")
    if values.ndim < 1 or len(values) != len(structures) or not np.isfinite(values).all():
        raise ValueError(f"an observable has a finite value for each of {len(structures)} frames; got shape {values.shape}")
    change = energy_changes(potential, structures, by, batch_size) / (kB * temperature)
    mean, each = np.asarray(values.mean(axis=0)), method.means(change, values)
    return Reweighted(mean, spread(each, mean), each, effective_frames(change))


def energy_changes(
    potential: Potential, structures: Sequence[Structure], by: str = "energy_std", batch_size: int | None = None
) -> Float[np.ndarray, "members structures"]:
    """Compute the energies of the members less those of the potential (eV).

    They are products of the features and the changes of the weights, so that large energies do not cancel in single precision,
    and structures are evaluated once for all members.

    Raises:
        ValueError: no structures, or as ``members`` and ``Potential.check``.
    """
    if not len(structures):
        raise ValueError("there are no structures to evaluate")
    potential.correction.check(structures)
    changes = changes_of_weights(potential, by)
    out = np.full((len(changes), len(structures)), np.nan)
    bare = potential.correction.replace(posterior=None)
    for k, found in evaluate_in_batches(Job(bare, (FEATURES.name,)), structures, batch_size):
        out[:, k] = changes @ np.asarray(found[FEATURES], np.float64).sum(axis=0)
    return out
