"""Laws of derivatives: forces, stress, virials, Hessians and gradients of a loss beside central differences of fourth order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from equipot.data.batch import Shape
from equipot.graph import Graph
from equipot.potential import evaluate
from equipot.second_derivatives import hessian, hessian_vector_product
from equipot.structure import Structure
from equipot.testing.subject import Subject, small
from equipot.testing.systems import DIMER, MOLECULE, TRICLINIC

STEP = 3e-5
"""Step of central differences by positions (Å), strain and numbers of order one."""


def forces(subject: Subject, system: Structure) -> None:
    """Forces are minus the derivative of the energy by positions."""
    base = subject.graph(system)
    units = np.eye(3 * len(system)).reshape(-1, len(system), 3)
    energies = lambda step: np.array([subject.energy(_displaced(base, step * STEP * unit))[0] for unit in units])
    small("forces", subject.predict(system).forces[: len(system)].ravel() + _slope(energies, STEP), 1e-7)


def _displaced(base: Graph, displacement: Float[np.ndarray, "n 3"]) -> Graph:
    positions = np.array(base.positions)
    positions[: len(displacement)] += displacement
    return base.replace(positions=positions)


def _slope(value: Callable[[int], Any], step: float) -> Any:
    """Derivative at zero, of fourth order, of ``value`` at -2, -1, 1 and 2 steps."""
    return (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)


def stress(subject: Subject, system: Structure) -> None:
    """Stress is the derivative of the energy by strain over the volume."""
    base = subject.graph(system)
    numeric = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            energy = lambda step, i=i, j=j: float(subject.energy(_strained(base, i, j, step * STEP))[0])
            numeric[i, j] = _slope(energy, STEP) / system.volume
    small("stress", subject.predict(system).stress[0] - numeric, 1e-8)


def _strained(base: Graph, i: int, j: int, strain: float) -> Graph:
    """Apply a symmetric strain whose elements ij and ji sum to ``strain``, or whose element ii is ``strain``."""
    deform = np.eye(3)
    deform[i, j] += strain / 2
    deform[j, i] += strain / 2
    assert base.positions is not None and base.cell is not None
    return base.replace(positions=base.positions @ deform, cell=base.cell @ deform)


def virials_without_a_volume(subject: Subject, system: Structure) -> None:
    """Where lattice vectors are missing there is no stress, but virials; completed rows of the cell turn with the others."""
    base = subject.graph(system)
    virial = subject.predict(system).virials.sum(axis=0)
    for i, j in ((0, 0), (1, 2), (0, 1), (2, 2), (0, 2)):
        energy = lambda step, i=i, j=j: float(subject.energy(_strained(base, i, j, step * STEP))[0])
        small("virial", virial[i, j] - _slope(energy, STEP), 1e-6)


def hessians(subject: Subject) -> None:
    """The Hessian is minus the derivative of the forces by positions, and symmetric."""
    made, base = subject.potential, subject.graph(DIMER, shape=Shape(4, 6, 1))
    at = jax.jit(lambda r: evaluate(made, base.replace(positions=r), ("forces",)).forces)
    matrix = np.asarray(jax.jit(hessian)(made, base)).reshape(12, 12)[:6, :6]
    columns = []
    for unit in np.eye(6).reshape(6, 2, 3):
        plus, minus = (at(_displaced(base, sign * STEP * unit).positions)[:2] for sign in (1, -1))
        columns.append(-np.asarray(plus - minus).reshape(-1) / (2 * STEP))
    scale = max(1.0, np.abs(matrix).max())
    small("Hessian", matrix - np.stack(columns, axis=1), 1e-5 * scale)
    small("asymmetry of the Hessian", matrix - matrix.T, 1e-10 * scale)
    direction = np.random.default_rng(0).normal(size=(4, 3))
    direction[2:] = 0
    product = jax.jit(hessian_vector_product)(made, base, jnp.asarray(direction))[:2].reshape(-1)
    small("Hessian times a vector", product - matrix @ direction[:2].reshape(-1), 1e-10 * scale)


def training_gradient(subject: Subject) -> None:
    """A loss of forces and stress has the right derivative by the parameters, if there are any."""
    made, base = subject.potential, subject.graph(TRICLINIC, MOLECULE)
    if not made.params:
        return

    @jax.jit
    def loss(params: Any) -> Any:
        out: Any = evaluate(made.replace(variables={**made.variables, "params": params}), base, ("forces", "stress"))
        return 1e3 * jnp.sum(out.forces**2) + 1e6 * jnp.sum(out.stress[0] ** 2)

    params = made.params
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)
    gradient = jax.grad(loss)(params)
    slope = float(sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction))))
    h = 1e-4
    numeric = _slope(lambda k: float(loss(jax.tree.map(lambda x, d: x + k * h * d, params, direction))), h)
    assert abs(slope) > 0.1, "the loss hardly depends on the parameters, so that nothing is compared"
    small("derivative of the loss", slope / numeric - 1, 1e-7)
