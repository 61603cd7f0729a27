"""The training loss: a weighted sum of penalties, one for each quantity that is labelled and predicted, over a batch of frames.

    L = sum_k w_k(t) <omega rho_k(x_k^2)>_k,    k = energy, forces, stress and any other quantity

x is the error in units of the penalty's ``scale`` s, divided by the number N of atoms where the quantity is extensive, and the
root mean square over the components of a vector or a tensor:

    energy    x^2 = ((E - E_ref) / (N s))^2                         for each frame, s in eV per atom
    forces    x^2 = (1/3) sum_a ((F_a - F_ref,a) / s)^2             for each atom, s in eV/Å
    stress    x^2 = (1/9) sum_ab ((sigma_ab - sigma_ref,ab) / s)^2  for each frame, s in eV/Å^3
    hessian   x^2 = (1/3) sum_a (((H - H_ref) v)_a / s)^2           for each atom, s in eV/Å^2

v is a random direction of the length sqrt(3 N), drawn anew for each frame in each epoch from those that the label covers
(``hessian_labels.drawn``): no matrix is made, and the expected mean of x^2 s^2 over the atoms of a frame is
|H - H_ref|_F^2 / 3N, the mean square length of a row of the error, which does not depend on the size of a frame.

Without a scale (None), s is the ``scale`` of the quantity's row in ``equipot.quantities``. rho acts on norms of vectors and
tensors, so that the loss does not change when a frame is rotated. w_k is the weight of the penalty at the share t of the run,
and omega the weight of the frame. < >_k is the mean over the frames (for a quantity of atoms, over the atoms) of the whole
batch that have the label; the mean does not depend on how a batch is spread over devices.

A quantity that has labels and that a config does not name has the penalty ``Huber()``, the energy ``Huber(schedule=Switch())``
(in fine-tuning with a tenth of the weight, see ``training.choices``), the Hessian ``Huber(weight=30)``, whether every model
predicts the quantity (energy, forces, stress, hessian) or the model provides it (``Term.provides``), such as a dipole moment.
Set its weight to 0 to leave it out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.arrays import AnyArray
from equipot.data.batch import Batch
from equipot.evaluation.hessians import evaluate_along
from equipot.observables import Observables
from equipot.potential import Potential, evaluate
from equipot.quantities import ENERGY, HESSIAN, LABELLED, TRAINED, Quantity


def check_factor(name: str, factor: float) -> None:
    """Check a factor of a weight.

    Raises:
        ValueError: the factor is negative or not finite.
    """
    if not 0 <= factor < float("inf"):
        raise ValueError(f"{name} {factor} must be 0 or a positive number: it multiplies the weight")


@dataclass(frozen=True)
class Constant:
    """A constant weight."""

    def __call__(self, fraction: Any) -> Any:
        """Return the factor of the weight at a share ``fraction`` of the run's steps."""
        return jnp.ones_like(fraction)


@dataclass(frozen=True)
class Switch:
    """A weight that is multiplied by ``factor`` after a share of the run, as in stage two of MACE's recipe."""

    at: float = 0.75
    """Share of the run's steps after which the weight is multiplied."""
    factor: float = 10.0
    """Factor of the weight from then on."""

    def __post_init__(self) -> None:
        if not 0 <= self.at <= 1:
            raise ValueError(f"at {self.at} must lie between 0 and 1: it is a share of the run")
        check_factor("factor", self.factor)

    def __call__(self, fraction: Any) -> Any:
        """Return the factor of the weight at a share ``fraction`` of the run's steps."""
        return jnp.where(fraction >= self.at, self.factor, 1.0)


@dataclass(frozen=True)
class Ramp:
    """A weight whose factor changes linearly from ``first`` to ``last``."""

    start: float = 0.0
    """Share of the run's steps where the change begins."""
    stop: float = 1.0
    """Share of the run's steps where the change ends."""
    first: float = 0.0
    """Factor before ``start``."""
    last: float = 1.0
    """Factor after ``stop``."""

    def __post_init__(self) -> None:
        if not self.stop > self.start:
            raise ValueError(f"stop {self.stop} must be greater than start {self.start}: both are shares of the run")
        if self.start < 0 or self.stop > 1:
            raise ValueError(f"start {self.start} and stop {self.stop} must lie between 0 and 1: they are shares of the run")
        check_factor("first", self.first)
        check_factor("last", self.last)

    def __call__(self, fraction: Any) -> Any:
        """Return the factor of the weight at a share ``fraction`` of the run's steps."""
        passed = jnp.clip((fraction - self.start) / (self.stop - self.start), 0.0, 1.0)
        return self.first + (self.last - self.first) * passed


@dataclass(frozen=True)
class Penalty(ABC):
    """Base of the penalties. A subclass in any package can be used in a config as ``kind: package.module:Class``.

    Raises:
        ValueError: the weight is negative or not finite, or the scale is not positive and finite.
    """

    builtin_kinds: ClassVar[dict[str, str]] = {
        "Huber": "equipot.training.loss:Huber",
        "MSE": "equipot.training.loss:MSE",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""
    weight: float = 1.0
    """Factor on the mean of the penalty; 0 leaves the quantity out of the loss."""
    scale: float | None = None
    """Error with x = 1, in the unit of the quantity (eV per atom, eV/Å, eV/Å^3, of a Hessian eV/Å^2); None for
    the scale in ``equipot.quantities``."""
    schedule: Constant | Switch | Ramp = Constant()
    """Factor of the weight in the course of the run."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight {self.weight} must be 0 or a positive number; 0 leaves the quantity out")
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise ValueError(f"scale {self.scale} must be positive and finite: it is the error that counts as one")

    @abstractmethod
    def rho(self, square: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
        """Compute the penalty rho from x^2 (dimensionless) of each frame or atom.

        Its derivative by x^2 must be finite everywhere, at 0 too: rows without a label have x^2 = 0.
        """


@dataclass(frozen=True)
class MSE(Penalty):
    """Squared error, rho(x^2) = x^2."""

    def rho(self, square: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
        return square


@dataclass(frozen=True)
class Huber(Penalty):
    """Huber loss, rho(x^2) = x^2 for x up to ``delta``, else 2 delta x - delta^2, whose slope does not grow with the error."""

    delta: float = 1.0
    """Error x, in units of the scale, beyond which rho is linear."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.delta > 0:
            raise ValueError(f"delta {self.delta} must be positive")

    def rho(self, square: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
        # The square root gets arguments of at least delta^2, since its slope at zero is infinite.
        far = square > self.delta**2
        length = jnp.sqrt(jnp.where(far, square, self.delta**2))
        return jnp.where(far, 2 * self.delta * length - self.delta**2, square)


HESSIAN_WEIGHT = 30.0
"""Weight of Hessians where a config names no penalty for them; one that it names has the weight 1 unless it gives another. Of
0, 0.1, 1, 10, 30 and 100 it gave the lowest errors of energies and forces of displaced molecules that a network knew, and
nearly the lowest of energies, forces and frequencies of molecules that it did not (14 and 6 molecules with Hessians by
GFN2-xTB, all of them training data of ``python -m benchmarks hessians``)."""


class Loss(Mapping[str, Penalty]):
    """Penalties by the name of their quantity.

    A quantity that is not named has the penalty ``Huber()``, the Hessian one with the weight ``HESSIAN_WEIGHT``, and the energy
    ``Huber(schedule=Switch())``: the forces teach the shape, and once the steps are small, the energies are brought to the
    accuracy that they allow. A penalty with weight 0, or without labels in the data, is left out.

    Raises:
        ValueError: every weight is 0.
    """

    def __init__(self, penalties: Mapping[str, Penalty] | None = None) -> None:
        self.named: frozenset[str] = penalties.named if isinstance(penalties, Loss) else frozenset(penalties or ())
        """Names of the quantities whose penalties were given."""
        # What a config leaves out for other quantities is taken from the first, which must not be the energy.
        self._penalties: dict[str, Penalty] = {row.name: Huber() for row in LABELLED if row is not ENERGY}
        self._penalties[ENERGY.name] = Huber(schedule=Switch())
        self._penalties |= penalties or {}
        if not any(penalty.weight for penalty in self._penalties.values()):
            raise ValueError("every weight of the loss is 0: nothing would be trained")

    def __getitem__(self, name: str) -> Penalty:
        return self._penalties[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._penalties)

    def __len__(self) -> int:
        return len(self._penalties)

    def penalty(self, quantity: Quantity) -> Penalty:
        """Return the penalty on the errors of a quantity."""
        return self._penalties.get(quantity.name, Huber(weight=HESSIAN_WEIGHT) if quantity is HESSIAN else Huber())

    def wants(self, labelled: Sequence[Quantity], predicted: Sequence[Quantity]) -> tuple[Quantity, ...]:
        """Select the quantities that are labelled in the data, predicted by the model, and have a weight other than 0.

        Raises:
            ValueError: there is none, or the loss names a quantity that the model does not predict.
        """
        names = [row.name for row in (*TRAINED, *predicted)]
        strange = [name for name in self if name not in names]
        if strange:
            raise ValueError(f"loss.{strange[0]}: the model predicts no such quantity; choose from {', '.join(names)}")
        found = tuple(row for row in labelled if row in (*TRAINED, *predicted) and self.penalty(row).weight)
        if not found:
            there = [row.name for row in labelled]
            raise ValueError(f"the data have {there or 'no labels'}, but the loss weighs only what they lack")
        return found

    def weights(self, wants: Sequence[Quantity], fraction: Any) -> dict[str, Any]:
        """Compute the weights w_k at a share ``fraction`` of the run's steps, by the name of the quantity."""
        return {row.name: self.penalty(row).weight * self.penalty(row).schedule(fraction) for row in wants}


def has_label(quantity: Quantity, batch: Batch) -> Bool[AnyArray, " rows"]:
    """Return which graphs, or for a quantity of atoms (or a Hessian) which atoms, have a label of the quantity."""
    present = batch.targets.present[quantity.name]
    return present[batch.graph.node_graph] & batch.graph.node_mask if quantity.of_atoms else present


def evaluate_batch(model: Potential, batch: Batch, wants: Sequence[Quantity]) -> Observables:
    """Evaluate a potential for the quantities of a loss; of a Hessian its products with the directions of the batch.

    Every quantity that a training learns from is computed here.
    """
    names = tuple(row.name for row in wants if row is not HESSIAN)
    if HESSIAN not in wants:
        return evaluate(model, batch.graph, names)
    assert batch.targets.directions is not None, "there are labels of it"
    return evaluate_along(model, batch.graph, names, jnp.asarray(batch.targets.directions))


def residuals(predicted: Observables, batch: Batch, wants: Sequence[Quantity]) -> dict[str, Float[Array, "rows ..."]]:
    """Compute prediction less reference by the name of the quantity; zero where there is no label.

    Arrays have a row for each graph or for each atom, in the unit of the quantity, per atom where the quantity is extensive.
    """
    targets = batch.targets
    out = {}
    for row in wants:
        # In single precision the energy relative to isolated atoms keeps digits that the total energy would lose.
        value = predicted.interaction if row is ENERGY else predicted[row]
        assert value is not None, row
        error = value - targets.labels[row.name]
        if row.extensive:
            error = error / targets.atoms.reshape(-1, *[1] * (error.ndim - 1))
        has = has_label(row, batch)
        out[row.name] = jnp.where(has.reshape(-1, *[1] * (error.ndim - 1)), error, 0)
    return out


def counts(batch: Batch, wants: Sequence[Quantity]) -> dict[str, Float[Array, ""]]:
    """Count the frames, or atoms, that have each label."""
    return {row.name: jnp.sum(has_label(row, batch)).astype(batch.graph.dtype) for row in wants}


def penalty_sums(
    loss: Loss, wants: Sequence[Quantity], errors: Mapping[str, Array], batch: Batch
) -> dict[str, Float[Array, ""]]:
    """Sum omega rho(x^2) over frames or atoms, by the name of the quantity; ``errors`` are those of ``residuals``."""
    out = {}
    for row in wants:
        penalty, error, omega = loss.penalty(row), errors[row.name], batch.targets.weights[row.name]
        omega = omega[batch.graph.node_graph] if row.of_atoms else omega
        square = (error / (penalty.scale or row.scale)) ** 2
        out[row.name] = jnp.sum(omega * penalty.rho(jnp.mean(square, axis=tuple(range(1, square.ndim)))))
    return out


def total(weights: Mapping[str, Any], sums: Mapping[str, Any], numbers: Mapping[str, Any]) -> Any:
    """Compute the loss L from weights, sums of penalties and numbers of labels, each by the name of the quantity."""
    return sum(weights[name] * sums[name] / jnp.maximum(numbers[name], 1) for name in sums)
