"""Evaluate energies, forces and stresses of many structures by one compiled function of fixed shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from equipot.data.batch import Shape, find_slots, pad, smallest_shape
from equipot.potential import Potential, evaluate
from equipot.structure import Structure

SPARE = 4
"""Spare slots for neighbours that appear when atoms move."""

_evaluate = jax.jit(evaluate, static_argnames="want")


class Prediction(NamedTuple):
    """Prediction for one structure."""

    energy: float
    """Energy, eV, without E0 of the isolated atoms."""
    forces: Float[np.ndarray, "atoms 3"]
    """eV/Å."""
    stress: Float[np.ndarray, "3 3"] | None
    """eV/Å^3; None without a volume."""

    @property
    def strongest(self) -> float:
        """Largest force on an atom, eV/Å."""
        return float(np.linalg.norm(self.forces, axis=1).max())


class Bench(NamedTuple):
    """A potential and the padded shape of all batches, so that the potential is compiled once."""

    potential: Potential
    shape: Shape

    def predict(self, structures: Sequence[Structure], radius: float | None = None) -> list[Prediction]:
        """Predict energies, forces and stresses in the potential's precision; larger structures are compiled in a shape of
        their own.

        Args:
            radius: reach of the neighbour list, Å; None for the cutoff.
        """
        radius = self.potential.cutoff if radius is None else radius
        step = self.shape.graphs
        return [seen for k in range(0, len(structures), step) for seen in self._batch(structures[k : k + step], radius)]

    def _batch(self, structures: Sequence[Structure], radius: float) -> list[Prediction]:
        found = [find_slots(structure, radius) for structure in structures]
        shape = Shape(*map(max, self.shape[:3], smallest_shape(found)[:3]))
        graph = pad(structures, radius, shape, self.potential.dtype, found, extent=self.potential.extent(structures))
        out = jax.tree.map(np.asarray, _evaluate(self.potential, graph, want=("forces", "stress")))
        forces = np.split(out.forces.astype(np.float64), np.cumsum([len(s) for s in structures]))
        stress = lambda k, s: out.stress[k].astype(np.float64) if s.pbc.any() and s.volume > 0 else None
        return [Prediction(float(out.interaction[k]), forces[k], stress(k, s)) for k, s in enumerate(structures)]


class Subject(NamedTuple):
    """Structures and their predictions."""

    bench: Bench
    structures: list[Structure]
    predictions: list[Prediction]


def bench_for(potential: Potential, structures: Sequence[Structure], radius: float) -> Bench:
    """Make a bench whose shape holds all structures with neighbours within ``radius`` (Å) and spare slots."""
    need = smallest_shape([find_slots(structure, radius) for structure in structures])
    return Bench(potential, need._replace(slots=need.slots + SPARE))


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Set JAX to ``float32`` or ``float64`` within the context."""
    before = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
