"""Minima of convex energies in many variables, as differentiable functions of everything that the energies depend on.

The variables of a batch are those of its systems, which do not know of each other: each system has its own steps, ends when it
has converged, and is not a number alone where it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import sum_segments

MOST_NEWTON = 40
"""Most steps of Newton's method: about five are usual."""
MOST_CONJUGATE = 200
"""Most steps of conjugate gradients in each."""
SHARE = 0.1
"""Residual of the first conjugate gradients relative to the slope; Newton's method corrects what they leave."""
FAILED = 1e3
"""Residual over the tolerance beyond which a solution counts as not found, and is not a number."""
SHORTEST = 1e-6
"""Share of a Newton step below which no shorter one is tried."""


class Systems(NamedTuple):
    """To which system each of the variables belongs."""

    number: int
    """Of systems."""
    index: Any
    """System of each entry along the first axis of each array: a pytree of the structure of the variables."""

    @classmethod
    def one(cls, variables: Any) -> Systems:
        """Return a single system of all variables."""
        return cls(1, jax.tree.map(lambda x: jnp.zeros(len(x), jnp.int32), variables))

    def total(self, tree: Any) -> Float[Array, " systems"]:
        """Sum all entries of each system."""
        rows = jax.tree.map(lambda x: jnp.sum(x, axis=tuple(range(1, x.ndim))), tree)
        sums = jax.tree.map(lambda index, x: sum_segments(x, index, self.number), self.index, rows)
        return sum(jax.tree.leaves(sums), jnp.zeros((), _dtype(tree)))

    def dot(self, a: Any, b: Any) -> Float[Array, " systems"]:
        """Compute the scalar product of two pytrees in each system."""
        return self.total(jax.tree.map(jnp.multiply, a, b))

    def size(self, tree: Any) -> Float[Array, " systems"]:
        """Compute the Euclidean norm in each system."""
        return jnp.sqrt(self.dot(tree, tree))

    def of_each(self, values: Any, tree: Any) -> Any:
        """Copy a value of each system to its entries, with axes to be broadcast against the arrays of ``tree``."""
        return jax.tree.map(lambda index, x: values[index].reshape(-1, *[1] * (x.ndim - 1)), self.index, tree)

    def scaled(self, factors: Float[Array, " systems"], tree: Any) -> Any:
        """Multiply all entries of each system by its factor; by zero to zero, whatever they are."""
        factors = self.of_each(factors, tree)
        return jax.tree.map(lambda factor, x: jnp.where(factor == 0, 0, factor * x), factors, tree)

    def unless(self, found: Bool[Array, " systems"], tree: Any) -> Any:
        """Return a tree in which systems that were not ``found`` are not numbers; a comparison with NaN finds nothing."""
        return jax.tree.map(lambda mine, x: jnp.where(mine, x, jnp.nan), self.of_each(found, tree), tree)


def tolerance(dtype: Any) -> float:
    """Return the relative residual to which equations are solved in a precision."""
    return 1e-12 if dtype == jnp.float64 else 1e-6


def solved(operator: Callable[[Any], Any], wanted: Any, systems: Systems, steps: int = MOST_CONJUGATE) -> Any:
    """Solve a symmetric positive definite linear equation by conjugate gradients; differentiable to any order. Of a system for
    which none is found, the solution is not a number.

    Args:
        operator: linear map of a pytree of arrays onto one of the same structure, which does not mix systems.
        wanted: right-hand side.
        systems: to which system each entry belongs.
        steps: most iterations.
    """
    precise = tolerance(_dtype(wanted))

    def solve(linear: Callable[[Any], Any], b: Any) -> Any:
        x, left = conjugate_gradients(linear, b, systems, jnp.asarray(precise, _dtype(b)), steps)
        return systems.unless(left <= FAILED * precise * systems.size(b), x)

    return lax.custom_linear_solve(operator, wanted, solve, symmetric=True)


class Elastic(NamedTuple):
    """A strictly convex function of a pytree x of arrays, a sum over entries of their first axes. Its gradient w stands for x
    everywhere: near the boundary of a domain, x tells no longer how near it is."""

    place: Callable[[Any], Any]
    """The x at which the gradient is w, a differentiable function of w."""
    energy: Callable[[Any], Any]
    """Of w, the energy of each entry."""
    softness: Callable[[Any, Any], Any]
    """Of w and v, the root R of the inverse of the second derivative, applied to v; R is symmetric."""
    hardness: Callable[[Any, Any], Any]
    """Of w and v, the inverse of ``softness``."""
    moved: Callable[[Any, Any], Any]
    """Of w and a step v of x, the gradient at x + v to first order in v."""


def minimum(elastic: Elastic, pull: Any, stiffness: Callable[[Any], Any], systems: Systems) -> Any:
    """Find the x at which elastic(x) + pull . x + x . stiffness(x) / 2 is least, by Newton's method, and return the gradient of
    ``elastic`` there, which stands for x.

    Linear equations are solved by conjugate gradients for z with x = R z, whose matrix 1 + R stiffness R has no eigenvalue
    below one, near the boundary of the domain as elsewhere.

    Derivatives of the result follow from the linearised condition that the slope vanishes there, to any order. Where none is
    found in a system, for what is not a number or for want of steps, it is not a number.

    Args:
        elastic: function whose gradient vanishes at zero.
        pull: slope at zero.
        stiffness: linear map, symmetric and positive semidefinite, which does not mix systems.
        systems: to which system each entry belongs.
    """
    least = lambda pull: _newton(elastic, pull, stiffness, systems)
    bare, constants = jax.closure_convert(least, pull)
    # Derivatives go through the equation below alone, which holds for any start and any R.
    start = bare(*lax.stop_gradient((pull, *constants)))
    soft, hard = (partial(function, start) for function in (elastic.softness, elastic.hardness))

    def slope(z: Any) -> Any:
        w = _sum(start, hard(z))
        return soft(_sum(w, pull, stiffness(elastic.place(w))))

    nothing = jax.tree.map(jnp.zeros_like, pull)
    z = lax.custom_root(slope, nothing, lambda _, found: found, lambda f, wanted: solved(f, wanted, systems))
    return _sum(start, hard(z))


def _newton(elastic: Elastic, pull: Any, stiffness: Callable[[Any], Any], systems: Systems) -> Any:
    """Find the gradient of ``elastic`` where the whole is least, without derivatives; see ``minimum``."""
    # Slopes count in units in which the second derivative of ``elastic`` is one.
    sized = lambda w, slope: systems.size(elastic.softness(w, slope))
    first = jax.tree.map(jnp.zeros_like, pull)
    size = sized(first, pull)
    enough = tolerance(size.dtype) * size

    def active(at: _Newton) -> Bool[Array, " systems"]:
        # Once the slope is small enough, only for as long as it still falls.
        return (at.size > 4 * jnp.finfo(size.dtype).eps * size) & ((at.size > enough) | (at.size < at.before / 2))

    def improved(at: _Newton) -> _Newton:
        root = partial(elastic.softness, at.w)
        bent = lambda z: _sum(z, root(stiffness(root(z))))
        wanted = systems.scaled(-active(at).astype(size.dtype), root(at.uphill))
        # Never as precise as numbers are: then conjugate gradients wander off, and the next step is there for what they leave.
        share = jnp.maximum(SHARE * jnp.minimum(1.0, at.size / size), tolerance(size.dtype) ** 0.5)
        z, _ = conjugate_gradients(bent, wanted, systems, share, MOST_CONJUGATE)
        w, stiff = _lower(elastic, pull, stiffness, systems, at, root(z))
        uphill = _sum(w, pull, stiff)
        return _Newton(w, stiff, uphill, sized(w, uphill), at.size, at.count + 1)

    start = _Newton(first, first, pull, size, jnp.full_like(size, jnp.inf), jnp.int32(0))
    end = lax.while_loop(lambda at: jnp.any(active(at)) & (at.count < MOST_NEWTON), improved, start)
    return systems.unless(end.size <= FAILED * enough, end.w)


class _Newton(NamedTuple):
    """State of Newton's method."""

    w: Any
    """Gradient of ``elastic`` at x."""
    stiff: Any
    """stiffness(x)."""
    uphill: Any
    """Slope at x."""
    size: Float[Array, " systems"]
    """Of the slope."""
    before: Float[Array, " systems"]
    """Size of the slope one step before."""
    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count


def _lower(
    elastic: Elastic, pull: Any, stiffness: Callable[[Any], Any], systems: Systems, at: _Newton, step: Any
) -> tuple[Any, Any]:
    """Return w and the stiffness of x after a Newton step of x, halved until the energy of each system has fallen (Armijo)."""

    def energy(w: Any, x: Any, stiff: Any) -> Float[Array, " systems"]:
        return systems.total(elastic.energy(w)) + systems.dot(pull, x) + systems.dot(stiff, x) / 2

    here, gain = energy(at.w, elastic.place(at.w), at.stiff), systems.dot(at.uphill, step)
    # As long as rounding lets the energy tell.
    room = 8 * jnp.finfo(here.dtype).eps * (jnp.abs(here) + jnp.abs(gain))
    still = systems.of_each(gain == 0, at.w)

    def shorter(trial: Any) -> Any:
        t, good, _, _ = trial
        t = jnp.where(good, t, t / 2)
        w = jax.tree.map(jnp.where, still, at.w, elastic.moved(at.w, systems.scaled(t, step)))
        x = elastic.place(w)
        stiff = stiffness(x)
        # What is not a number does not get better.
        good = ~(energy(w, x, stiff) > here + 1e-4 * t * gain + room)
        return t, good, w, stiff

    begun = jnp.full_like(here, 2.0), jnp.zeros_like(here, bool), at.w, at.stiff
    _, _, w, stiff = lax.while_loop(lambda trial: jnp.any(~trial[1] & (trial[0] > SHORTEST)), shorter, begun)
    return w, stiff


def conjugate_gradients(
    operator: Callable[[Any], Any], wanted: Any, systems: Systems, share: Float[Array, "..."], steps: int
) -> tuple[Any, Float[Array, " systems"]]:
    """Solve operator(x) = wanted from zero, until the residual of each system is below a ``share`` of the right-hand side.

    Unlike those of jax.scipy they apply the operator at one place only, which halves the time to compile, and go on for each
    system by itself.

    Args:
        operator: symmetric positive definite linear map of a pytree, which does not mix systems.
        wanted: right-hand side.
        systems: to which system each entry belongs.
        share: relative residual, one number or one for each system.
        steps: most iterations.

    Returns:
        x, and the size of the residual of each system.
    """
    begun = systems.dot(wanted, wanted)
    enough = share**2 * begun

    def improved(at: Any) -> Any:
        x, residual, direction, square, count = at
        found, going = operator(direction), square > enough
        length = jnp.where(going, square / jnp.where(going, systems.dot(direction, found), 1), 0)
        x, residual = _sum(x, systems.scaled(length, direction)), _sum(residual, systems.scaled(-length, found))
        new = jnp.where(going, systems.dot(residual, residual), square)
        direction = _sum(residual, systems.scaled(jnp.where(going, new / jnp.where(going, square, 1), 0), direction))
        return x, residual, direction, new, count + 1

    start = jax.tree.map(jnp.zeros_like, wanted), wanted, wanted, begun, jnp.int32(0)
    x, _, _, square, _ = lax.while_loop(lambda at: jnp.any(at[3] > enough) & (at[4] < steps), improved, start)
    return x, jnp.sqrt(square)


def held(function: Callable[[Any], Any], variables: Any) -> Any:
    """Call a function whose sum is stationary in ``variables``, and leave these out of its first derivatives.

    They contribute nothing to the first derivatives of the sum (the Hellmann-Feynman theorem), so that a gradient need not
    solve for them. Second derivatives are complete. Derivatives of single entries of the result lack what ``variables`` do.

    Args:
        function: function of the variables, and of whatever else it closes over.
        variables: a pytree of arrays at which the sum of the result is stationary.
    """
    flat, constants = jax.closure_convert(function, variables)
    return _held(Partial(flat), variables, tuple(constants))


@jax.custom_jvp
def _held(function: Any, variables: Any, constants: tuple[Any, ...]) -> Any:
    return function(variables, *constants)


@_held.defjvp
def _held_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    function, variables, constants = primals
    return jax.jvp(lambda *c: function(variables, *c), constants, tangents[2])


def _sum(*trees: Any) -> Any:
    return jax.tree.map(lambda *x: sum(x[1:], x[0]), *trees)


def _dtype(tree: Any) -> Any:
    return jax.tree.leaves(tree)[0].dtype
