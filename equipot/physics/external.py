"""A method of another program beside a term, called on the host at every evaluation: for dynamics of a correction to a method.

The method sees positions in the precision of the potential. Nothing but first derivatives is known of it.
"""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.data.method import Runner
from equipot.graph import Graph
from equipot.potential import Potential
from equipot.quantities import ENERGY, FORCES, STRESS, Quantity
from equipot.structure import Structure
from equipot.term import NEEDS, Atomic, Scope, Space, Term, call, cutoff_of

__all__ = ["WithMethod", "with_method"]


class WithMethod(Term):
    """The energy of ``base`` and that of a method, less a constant, of one system; it cannot be written to a file.

    The method gives E, the forces -dE/dr and the stress s. From s, of the volume V, follows the derivative by the cell h that
    leaves the virial V s = sum r (x) dE/dr + h^T dE/dh.
    """

    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Å; that of ``base``."""
    base: Term  # type: ignore[misc]  # the cutoff before it is for keywords only
    runner: Runner  # type: ignore[misc]
    """The method."""
    zero: float  # type: ignore[misc]
    """Energy (eV) that is subtracted from that of the method, so that single precision resolves the rest."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cutoff", cutoff_of(self.base))
        super().__post_init__()

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # of an object, where others have it of a class
        """Space, charge and spin, on which the method depends, and what ``base`` needs."""
        return tuple(name for name in NEEDS if name in ("space", "charge", "spin", *self.base.needs))

    @property
    def provides(self) -> tuple[Quantity, ...]:  # type: ignore[override]  # as ``needs``
        """What ``base`` provides."""
        return self.base.provides

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Those of ``base``."""
        return self.base.inner_cutoffs

    @property
    def longest_wave(self) -> float:
        return self.base.longest_wave or 0.0

    def scope_of(self, member: str) -> Scope:
        """That of the term itself."""
        return Scope(())

    def check(self, structure: Structure) -> None:
        self.base.check(structure)
        self.runner.check(structure)

    def setup(self) -> None:
        nn.share_scope(self, self.base)

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"], space: Space | None = None) -> Atomic:
        assert space is not None and graph.charge is not None and graph.spin is not None, "a term that needs all of them"
        if graph.num_graphs != 1:
            raise ValueError(f"{self.runner.method.name} is called for one system at a time, not for {graph.num_graphs}")
        answer = call(self.base, graph, vectors, space)
        state = (graph.numbers, space.repeats[0], graph.charge[0], graph.spin[0])
        energy = _energy(self.runner, self.zero, state, space.positions, space.cell[0])
        return answer._replace(energy=answer.energy + energy / graph.num_atoms)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _energy(runner: Runner, zero: float, state: tuple, positions: Array, cell: Array) -> Float[Array, ""]:
    """Energy of a method less ``zero``, eV."""
    return _called(runner, zero, state, positions, cell)[0]


def _forward(runner: Runner, zero: float, state: tuple, positions: Array, cell: Array) -> tuple[Array, tuple]:
    energy, *gradient = _called(runner, zero, state, positions, cell)
    return energy, (state, *gradient)


def _backward(runner: Runner, zero: float, kept: tuple, factor: Array) -> tuple[Any, Array, Array]:
    state, by_positions, by_cell = kept
    nothing = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0 if x.dtype.kind in "bi" else x.dtype), state)
    return nothing, factor * by_positions, factor * by_cell


_energy.defvjp(_forward, _backward)


def _called(runner: Runner, zero: float, state: tuple, positions: Array, cell: Array) -> tuple[Array, Array, Array]:
    """Run the method on the host; return energy less ``zero``, and its derivatives by positions and cell."""
    dtype = positions.dtype
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, dtype) for x in (jnp.zeros(()), positions, cell))
    on_host = lambda *values: tuple(np.asarray(x, dtype) for x in derivatives(runner, zero, *map(np.asarray, values)))
    return jax.pure_callback(on_host, shapes, *state, positions, cell)


def derivatives(
    runner: Runner, zero: float, numbers: Any, repeats: Any, charge: Any, spin: Any, positions: Any, cell: Any
) -> tuple[float, np.ndarray, np.ndarray]:
    """Run a method for one system; return the energy less ``zero`` (eV), dE/dr and dE/dh.

    Without a stress dE/dh is not a number where the system repeats, and all three are none, with a warning, where the method
    fails: no error leaves a compiled function in one line.
    """
    box = cell if repeats.any() else np.zeros((3, 3))
    structure = Structure(numbers, positions, box, repeats, charge=float(charge), spin=float(spin), source="the present frame")
    try:
        found = runner.run(structure)
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        return np.nan, np.full(positions.shape, np.nan), np.full((3, 3), np.nan)
    gradient = -found[FORCES]
    by_cell = np.full((3, 3), np.nan if repeats.any() else 0.0)
    if STRESS in found:
        virial = structure.volume * found[STRESS] - structure.positions.T @ gradient
        by_cell = np.linalg.solve(structure.cell.T, virial)
    return found[ENERGY] - zero, gradient, by_cell


def with_method(potential: Potential, runner: Runner, start: Structure) -> tuple[Potential, float]:
    """Return the potential of a correction and its method together, and the constant (eV) that its energies lack.

    The method is taken to be without errors: the uncertainty is that of the correction.

    Args:
        start: the system, or one like it, whose energy by the method, in whole eV, is the constant.

    Raises:
        ValueError: the method does not apply to the system, fails, or has no forces.
    """
    found = runner.run(start)
    if FORCES not in found:
        raise ValueError(f"{runner.method.name} gives no forces, and nothing can be moved by it")
    zero = float(round(found[ENERGY]))
    term = WithMethod(base=potential.term.clone(), runner=runner, zero=zero)
    return potential.correction.replace(term=term, posterior=potential.posterior), zero
