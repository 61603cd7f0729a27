"""The training loss: a weighted sum of dimensionless energy, force and stress terms over the frames of a batch.

    L = sum_k w_k(t) <omega rho(x_k^2)>_k,    k = energy, forces, stress

x is an error in units of the term's ``scale``: the energy error per atom; the force error of an atom as a root mean square
over its three components; the stress error as one over its nine. So rho sees lengths of vectors and tensors, and the loss does
not change when a frame is rotated. omega is the weight of the frame; < >_k is the mean over the frames (atoms, for forces) of
the whole batch that have the label: it does not depend on how a batch is spread over devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.data.batch import Batch
from equipot.potential import Observables

TERMS = ("energy", "forces", "stress")
SCALES = {"energy": 0.03, "forces": 0.1, "stress": 0.01}
"""Errors that count as one where a term sets no scale: eV per atom, eV/Å, eV/Å^3."""


def check_factor(name: str, factor: float) -> None:
    """ValueError for a factor of a weight that makes no sense."""
    if not 0 <= factor < float("inf"):
        raise ValueError(f"{name} {factor} must be 0 or a positive number: it multiplies the weight")


@dataclass(frozen=True)
class Constant:
    """A weight that stays."""

    def __call__(self, fraction: Any) -> Any:
        return jnp.ones_like(fraction)


@dataclass(frozen=True)
class Switch:
    """A weight multiplied by ``factor`` from a point of the run on, such as stage two of MACE's recipe."""

    at: float = 0.75
    """Share of the run's steps after which it acts."""
    factor: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.at <= 1:
            raise ValueError(f"at {self.at} must lie between 0 and 1: it is a share of the run")
        check_factor("factor", self.factor)

    def __call__(self, fraction: Any) -> Any:
        return jnp.where(fraction >= self.at, self.factor, 1.0)


@dataclass(frozen=True)
class Ramp:
    """A weight that grows (or falls) linearly from one multiple of itself to another."""

    start: float = 0.0
    """Share of the run's steps where it begins."""
    stop: float = 1.0
    """Share of the run's steps where it ends."""
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
        passed = jnp.clip((fraction - self.start) / (self.stop - self.start), 0.0, 1.0)
        return self.first + (self.last - self.first) * passed


@dataclass(frozen=True)
class MSE:
    """rho(x^2) = x^2."""

    weight: float = 1.0
    scale: float | None = None
    """Error that counts as one: eV per atom, eV/Å or eV/Å^3; nothing means 0.03, 0.1 and 0.01."""
    schedule: Constant | Switch | Ramp = Constant()
    """Factor of the weight in the course of the run."""

    def __post_init__(self) -> None:
        check(self)

    def rho(self, square: Array) -> Array:
        return square


@dataclass(frozen=True)
class Huber:
    """rho(x^2) = x^2 up to ``delta``, then 2 delta x - delta^2: an outlier pulls no harder than an error of delta."""

    weight: float = 1.0
    scale: float | None = None
    """Error that counts as one: eV per atom, eV/Å or eV/Å^3; nothing means 0.03, 0.1 and 0.01."""
    delta: float = 1.0
    """In units of the scale."""
    schedule: Constant | Switch | Ramp = Constant()
    """Factor of the weight in the course of the run."""

    def __post_init__(self) -> None:
        check(self)
        if not self.delta > 0:
            raise ValueError(f"delta {self.delta} must be positive")

    def rho(self, square: Array) -> Array:
        # The square root only sees arguments beyond delta^2: its slope at zero is infinite.
        far = square > self.delta**2
        length = jnp.sqrt(jnp.where(far, square, self.delta**2))
        return jnp.where(far, 2 * self.delta * length - self.delta**2, square)


def check(term: Any) -> None:
    """ValueError for a weight or a scale that makes no sense."""
    if not 0 <= term.weight < float("inf"):
        raise ValueError(f"weight {term.weight} must be 0 or a positive number; 0 leaves the term out")
    if term.scale is not None and not 0 < term.scale < float("inf"):
        raise ValueError(f"scale {term.scale} must be positive and finite: it is the error that counts as one")


@dataclass(frozen=True)
class Loss:
    """Terms of the loss; a weight of 0 leaves one out, and so do data without the label."""

    energy: MSE | Huber = field(default_factory=Huber)
    forces: MSE | Huber = field(default_factory=Huber)
    stress: MSE | Huber = field(default_factory=Huber)

    def __post_init__(self) -> None:
        if not any(getattr(self, name).weight for name in TERMS):
            raise ValueError("every weight of the loss is 0: nothing would be trained")

    def wants(self, labels: frozenset[str]) -> tuple[str, ...]:
        """The terms that count, given the labels that the data have.

        Raises:
            ValueError: none does.
        """
        found = tuple(name for name in TERMS if getattr(self, name).weight and name in labels)
        if not found:
            raise ValueError(f"the data have {sorted(labels) or 'no labels'}, but the loss weighs only what they lack")
        return found

    def weights(self, fraction: Any) -> dict[str, Any]:
        """w_k at a share ``fraction`` of the run."""
        return {name: getattr(self, name).weight * getattr(self, name).schedule(fraction) for name in TERMS}


def residuals(predicted: Observables, batch: Batch, wants: tuple[str, ...]) -> dict[str, Array]:
    """Prediction less reference; zero where there is no label.

    ``energy`` (graphs,) in eV per atom, ``forces`` (atoms, 3) in eV/Å, ``stress`` (graphs, 3, 3) in eV/Å^3.
    """
    graph, targets = batch.graph, batch.targets
    out = {}
    if "energy" in wants:
        out["energy"] = jnp.where(targets.has_energy, (predicted.interaction - targets.interaction) / targets.atoms, 0)
    if "forces" in wants:
        has = targets.has_forces[graph.node_graph] & graph.node_mask
        out["forces"] = jnp.where(has[:, None], predicted.forces - targets.forces, 0)
    if "stress" in wants:
        out["stress"] = jnp.where(targets.has_stress[:, None, None], predicted.stress - targets.stress, 0)
    return out


def counts(batch: Batch, wants: tuple[str, ...]) -> dict[str, Float[Array, ""]]:
    """How many frames (atoms, for forces) carry each label."""
    graph, targets = batch.graph, batch.targets
    has = {
        "energy": targets.has_energy,
        "forces": targets.has_forces[graph.node_graph] & graph.node_mask,
        "stress": targets.has_stress,
    }
    return {name: jnp.sum(has[name]).astype(graph.positions.dtype) for name in wants}


def term_sums(loss: Loss, errors: Mapping[str, Array], batch: Batch) -> dict[str, Float[Array, ""]]:
    """Sum of omega rho(x^2) for each term, over frames (atoms, for forces)."""
    targets = batch.targets
    omega = {
        "energy": targets.energy_weight,
        "forces": targets.forces_weight[batch.graph.node_graph],
        "stress": targets.stress_weight,
    }
    out = {}
    for name, error in errors.items():
        term = getattr(loss, name)
        square = (error / (term.scale or SCALES[name])) ** 2
        out[name] = jnp.sum(omega[name] * term.rho(jnp.mean(square, axis=tuple(range(1, square.ndim)))))
    return out


def total(weights: Mapping[str, Any], sums: Mapping[str, Any], numbers: Mapping[str, Any]) -> Any:
    """L from the sums of its terms and the numbers of labels."""
    return sum(weights[name] * sums[name] / jnp.maximum(numbers[name], 1) for name in sums)
