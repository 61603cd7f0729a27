"""The training loss: a weighted sum of dimensionless energy, force and stress terms over the frames of a batch.

    L = sum_k w_k(t) <omega rho(x_k^2)>_k,    k = energy, forces, stress and whatever else is labelled and predicted

x is an error in units of the term's ``scale``, per atom where the quantity is extensive, and the root mean square over the
components of a vector (the force on an atom) or a tensor (a stress). rho thus acts on norms of vectors and tensors, and the
loss does not change when a frame is rotated. omega is the weight of the frame. < >_k is the mean over the frames (for a
quantity of atoms, over the atoms) of the whole batch that have the label; the mean does not depend on how a batch is spread
over devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equipot.arrays import AnyArray
from equipot.data.batch import Batch
from equipot.observables import Observables
from equipot.quantities import ENERGY, LABELLED, Quantity


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
class MSE:
    """Squared error, rho(x^2) = x^2."""

    weight: float = 1.0
    scale: float | None = None
    """Error with x = 1, in the quantity's unit (eV per atom, eV/Å, eV/Å^3); None for the scale in ``equipot.quantities``."""
    schedule: Constant | Switch | Ramp = Constant()
    """Factor of the weight in the course of the run."""

    def __post_init__(self) -> None:
        check_term(self)

    def rho(self, square: Array) -> Array:
        """Compute rho from x^2."""
        return square


@dataclass(frozen=True)
class Huber:
    """Huber loss, rho(x^2) = x^2 for x up to ``delta``, else 2 delta x - delta^2, whose slope does not grow with the error."""

    weight: float = 1.0
    scale: float | None = None
    """Error with x = 1, in the quantity's unit (eV per atom, eV/Å, eV/Å^3); None for the scale in ``equipot.quantities``."""
    delta: float = 1.0
    """Error x, in units of the scale, beyond which rho is linear."""
    schedule: Constant | Switch | Ramp = Constant()
    """Factor of the weight in the course of the run."""

    def __post_init__(self) -> None:
        check_term(self)
        if not self.delta > 0:
            raise ValueError(f"delta {self.delta} must be positive")

    def rho(self, square: Array) -> Array:
        """Compute rho from x^2."""
        # The square root gets arguments of at least delta^2, since its slope at zero is infinite.
        far = square > self.delta**2
        length = jnp.sqrt(jnp.where(far, square, self.delta**2))
        return jnp.where(far, 2 * self.delta * length - self.delta**2, square)


def check_term(term: MSE | Huber) -> None:
    """Check weight and scale of a term.

    Raises:
        ValueError: the weight is negative or not finite, or the scale is not positive and finite.
    """
    if not 0 <= term.weight < float("inf"):
        raise ValueError(f"weight {term.weight} must be 0 or a positive number; 0 leaves the term out")
    if term.scale is not None and not 0 < term.scale < float("inf"):
        raise ValueError(f"scale {term.scale} must be positive and finite: it is the error that counts as one")


class Loss(Mapping[str, MSE | Huber]):
    """Terms of the loss by the name of their quantity.

    A quantity that is not named has the term ``Huber()``. A term with weight 0, or without labels in the data, is left out.

    Raises:
        ValueError: every weight is 0.
    """

    def __init__(self, terms: Mapping[str, MSE | Huber] | None = None) -> None:
        self._terms: dict[str, MSE | Huber] = {row.name: Huber() for row in LABELLED}
        self._terms |= terms or {}
        if not any(term.weight for term in self._terms.values()):
            raise ValueError("every weight of the loss is 0: nothing would be trained")

    def __getitem__(self, name: str) -> MSE | Huber:
        return self._terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def term(self, quantity: Quantity) -> MSE | Huber:
        """Return the term of a quantity."""
        return self._terms.get(quantity.name, Huber())

    def wants(self, labelled: Sequence[Quantity], predicted: Sequence[Quantity]) -> tuple[Quantity, ...]:
        """Select the quantities that are labelled in the data, predicted by the model, and have a weight other than 0.

        Raises:
            ValueError: there is none, or a term is of a quantity that the model does not predict.
        """
        names = [row.name for row in (*LABELLED, *predicted)]
        strange = [name for name in self if name not in names]
        if strange:
            raise ValueError(f"loss.{strange[0]}: the model predicts no such quantity; choose from {', '.join(names)}")
        found = tuple(row for row in labelled if row in (*LABELLED, *predicted) and self.term(row).weight)
        if not found:
            there = [row.name for row in labelled]
            raise ValueError(f"the data have {there or 'no labels'}, but the loss weighs only what they lack")
        return found

    def weights(self, wants: Sequence[Quantity], fraction: Any) -> dict[str, Any]:
        """Compute the weights w_k at a share ``fraction`` of the run's steps, by the name of the quantity."""
        return {row.name: self.term(row).weight * self.term(row).schedule(fraction) for row in wants}


def has_label(quantity: Quantity, batch: Batch) -> Bool[AnyArray, " rows"]:
    """Return which graphs, or for a quantity of atoms which atoms, have a label of the quantity."""
    present = batch.targets.present[quantity.name]
    return present[batch.graph.node_graph] & batch.graph.node_mask if quantity.per == "atom" else present


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


def term_sums(loss: Loss, wants: Sequence[Quantity], errors: Mapping[str, Array], batch: Batch) -> dict[str, Float[Array, ""]]:
    """Sum omega rho(x^2) over frames or atoms, for each term."""
    out = {}
    for row in wants:
        term, error, omega = loss.term(row), errors[row.name], batch.targets.weights[row.name]
        omega = omega[batch.graph.node_graph] if row.per == "atom" else omega
        square = (error / (term.scale or row.scale)) ** 2
        out[row.name] = jnp.sum(omega * term.rho(jnp.mean(square, axis=tuple(range(1, square.ndim)))))
    return out


def total(weights: Mapping[str, Any], sums: Mapping[str, Any], numbers: Mapping[str, Any]) -> Any:
    """Compute the loss L from weights, sums of terms and numbers of labels, each by the name of the quantity."""
    return sum(weights[name] * sums[name] / jnp.maximum(numbers[name], 1) for name in sums)
