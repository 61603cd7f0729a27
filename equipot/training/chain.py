"""Walks through the parameters of a potential, epoch by epoch: with progress, and gone on with where they were interrupted."""

from __future__ import annotations

import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from equipot import artifact, config
from equipot.console import Console
from equipot.data.loader import sha256_of
from equipot.data.method import Runner
from equipot.data.subtract import Difference, run
from equipot.interrupts import Interrupts
from equipot.posterior import variables_digest
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.training.checkpoint import differences
from equipot.training.parameter_posterior import ParameterPosterior, parameter_posterior
from equipot.uncertainty.sampler import Sampler

SAMPLING = artifact.Kind("sampling", "state of a sampler", 1, "delete it: sampling begins anew")
NAME = "state.safetensors"
SAVE_SECONDS = 30.0
"""Time (s) after which the state is written."""


class Walk(NamedTuple):
    """A walk through the parameters."""

    start: Any
    """State before the first epoch, a pytree of arrays."""
    epoch: Callable[[Any, int], Any]
    """State after an epoch, of the state before it and its number."""
    samples: Callable[[Any], Sequence[Float[Array, " parameters"]]]
    """Samples of the parameters, of the state after the last epoch."""


@dataclass(frozen=True)
class Chain(Sampler):
    """Base of the samplers that walk through the parameters."""

    samples: int = 8
    """Number of samples that are drawn."""
    epochs: int = 20
    """Passes over the structures."""
    batch_size: int = 5
    """Structures in a step."""
    prior: float = 10.0
    """Standard deviation of the parameters before any data."""
    seed: int = 0
    """Seed of the order of the structures and of the random numbers."""

    several: ClassVar[tuple[str, ...]] = ("samples", "epochs")
    """Fields that must be at least 2."""
    positive: ClassVar[tuple[str, ...]] = ("prior",)
    """Fields that must be positive."""

    def __post_init__(self) -> None:
        for name in self.several:
            if getattr(self, name) < 2:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 2")
        for name in self.positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")

    @abstractmethod
    def walk(self, target: ParameterPosterior) -> Walk:
        """Return the walk through the parameters of a posterior."""

    def members(
        self,
        potential: Potential,
        structures: Sequence[Structure],
        console: Console,
        folder: Path | None = None,
        runner: Runner | None = None,
    ) -> list[Potential]:
        with tempfile.TemporaryDirectory() as passing:
            folder = folder or Path(passing)
            method = potential.metadata.subtracted
            if method is not None and runner is None:
                raise ValueError(f"the potential is a correction to {method.name}, which must be subtracted: give its runner")
            labels = structures if runner is None else Difference(structures, run(runner, [structures], folder))
            labels = [labels[k] for k in range(len(labels))]
            target, made = parameter_posterior(potential.correction, labels, self.batch_size, self.prior, self.seed)
            identity = {
                "sampler": config.dump(self), "potential": variables_digest(potential.variables), "data": sha256_of(labels),
                "dtype": str(potential.dtype), "atomic_energies": [list(pair) for pair in potential.metadata.atomic_energies],
            }  # fmt: skip
            vectors = self.draw(target, console, folder / NAME, identity)
        return [made(vector).replace(metadata=potential.metadata) for vector in vectors]

    def draw(
        self,
        target: ParameterPosterior,
        console: Console,
        path: Path | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> list[Float[Array, " parameters"]]:
        """Draw samples of the parameters.

        Args:
            path: file that holds the state during the walk; it is gone on with where it holds one of the same ``identity``.
            identity: JSON values of all that the walk depends on.

        Raises:
            ValueError: parameters that run away.
            KeyboardInterrupt: Ctrl-C, after the state was written.
        """
        walk, name = self.walk(target), type(self).__name__
        state, done = resumed(walk.start, path, identity or {}, console)
        written = time.monotonic()
        console.open(self.epochs, done)
        try:
            with Interrupts(lambda: console.say("stopping after this epoch; once more to stop at once")) as interrupts:
                for epoch in range(done, self.epochs):
                    state = walk.epoch(state, epoch)
                    console.advance()
                    console.progress(f"{name}: epoch {epoch + 1} of {self.epochs}")
                    last = epoch + 1 == self.epochs
                    due = last or interrupts.requested or time.monotonic() - written > SAVE_SECONDS
                    if path is not None and due:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        record = {"identity": identity, "epochs": epoch + 1}
                        SAMPLING.write(path, record, artifact.named_leaves(jax.device_get(state)))
                        written = time.monotonic()
                    if interrupts.requested:
                        after = f"{name}: stopped after epoch {epoch + 1} of {self.epochs}"
                        message = after if path is None else f"{after}; the same command goes on from there"
                        console.say(message)
                        interrupts.reraise(message)
        finally:
            console.close()
        samples = list(walk.samples(state))
        if not all(np.isfinite(np.asarray(vector)).all() for vector in samples):
            raise ValueError(f"{name}: the parameters ran away; lower its step")
        return samples


def resumed(start: Any, path: Path | None, identity: Mapping[str, Any], console: Console) -> tuple[Any, int]:
    """Return the state in a file and the number of epochs it has behind it; the start where the file is of another walk."""
    if path is None or not path.exists():
        return start, 0
    try:
        _, record, arrays = SAMPLING.read(path)
    except artifact.DamagedError as error:
        console.say(f"{error}; sampling begins anew")
        return start, 0
    if changed := differences(record["identity"], dict(identity)):
        console.say(f"{path} is of another run ({changed[0]}); sampling begins anew")
        return start, 0
    console.say(f"going on after epoch {record['epochs']}")
    state = artifact.restored(start, arrays, f"{path} belongs to another model")
    return jax.tree.map(jax.numpy.asarray, state), record["epochs"]
