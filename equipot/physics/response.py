"""Minima of convex energies in many variables, as differentiable functions of everything that the energies depend on.

The variables of a batch are those of its systems, which do not know of each other: each system has its own steps, ends when it
has converged, and is not a number alone where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        x, _, left = conjugate_gradients(lambda x: (linear(x), ()), b, systems, jnp.asarray(precise, _dtype(b)), steps)
        return systems.unless(left <= FAILED * precise * systems.size(b), x)

    return lax.custom_linear_solve(operator, wanted, solve, symmetric=True)


class Elastic(NamedTuple):
    """A strictly convex function of a pytree of arrays, a sum over entries of their first axes, with its derivatives; each
    quick to compute."""

    energy: Callable[[Any], Any]
    """Energy of each entry."""
    slope: Callable[[Any], Any]
    """Gradient, of the structure of x."""
    curvature: Callable[[Any, Any], Any]
    """Of x and v, the second derivative at x applied to v."""
    within: Callable[[Any], Any]
    """Whether each entry of x lies inside the domain, where the function is finite."""


def minimum(elastic: Elastic, pull: Any, stiffness: Callable[[Any], Any], systems: Systems) -> Any:
    """Return the x at which elastic(x) + pull . x + x . stiffness(x) / 2 is least, by Newton's method from zero.

    Derivatives of the result follow from the linearised condition that the slope vanishes there, to any order. Where none is
    found in a system, for what is not a number or for want of steps, it is not a number. The linear equation of each step is
    solved by conjugate gradients, which apply ``stiffness`` once in each iteration.

    Args:
        elastic: function whose domain holds zero.
        pull: slope at zero, but for that of ``elastic``.
        stiffness: linear map, symmetric and positive semidefinite, which does not mix systems.
        systems: to which system each entry belongs.
    """
    slope = lambda x: _sum(elastic.slope(x), pull, stiffness(x))

    def solve(_: Callable[[Any], Any], first: Any) -> Any:
        begun = _sum(elastic.slope(first), pull)
        size = systems.size(begun)
        least, enough = 4 * jnp.finfo(_dtype(first)).eps * size, tolerance(_dtype(first)) * size

        def active(at: _Newton) -> Bool[Array, " systems"]:
            # Once the slope is small enough, only for as long as it still falls.
            size = systems.size(at.uphill)
            return (size > least) & ((size > enough) | (size < at.before / 2))

        def improved(at: _Newton) -> _Newton:
            x, going = at.x, active(at)

            def bent(v: Any) -> tuple[Any, Any]:
                pulled = stiffness(v)
                return _sum(elastic.curvature(x, v), pulled), pulled

            uphill = systems.scaled(going.astype(_dtype(x)), at.uphill)
            share = SHARE * jnp.minimum(1.0, systems.size(at.uphill) / size)
            *step, _ = conjugate_gradients(bent, _negative(uphill), systems, share, MOST_CONJUGATE)
            energy = lambda y, stiff: systems.total(elastic.energy(y)) + systems.dot(_sum(pull, _halved(stiff)), y)
            x = _sum(x, systems.scaled(_length(energy, elastic.within, systems, at, step), step[0]))
            # Not added up over the steps, where rounding errors would be added up with it.
            stiff = stiffness(x)
            return _Newton(x, stiff, _sum(elastic.slope(x), pull, stiff), systems.size(at.uphill), at.count + 1)

        nothing = jax.tree.map(jnp.zeros_like, first)
        start = _Newton(first, nothing, begun, jnp.full_like(size, jnp.inf), jnp.int32(0))
        end = lax.while_loop(lambda at: jnp.any(active(at)) & (at.count < MOST_NEWTON), improved, start)
        return systems.unless(systems.size(end.uphill) <= FAILED * enough, end.x)

    linear = lambda operator, wanted: solved(operator, wanted, systems)
    return lax.custom_root(slope, jax.tree.map(jnp.zeros_like, pull), solve, linear)


class _Newton(NamedTuple):
    """State of Newton's method."""

    x: Any
    stiff: Any
    """stiffness(x)."""
    uphill: Any
    """Slope at x."""
    before: Float[Array, " systems"]
    """Size of the slope one step before."""
    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count


def _length(
    energy: Callable[[Any, Any], Array],
    within: Callable[[Any], Any],
    systems: Systems,
    at: _Newton,
    step: Sequence[Any],
) -> Float[Array, " systems"]:
    """Return the share of a step after which the energy of each system has fallen enough (Armijo's rule), halved until then."""
    x, stiff, uphill = at.x, at.stiff, at.uphill
    here, gain = energy(x, stiff), systems.dot(uphill, step[0])
    # As long as rounding lets the energy tell.
    room = 8 * jnp.finfo(here.dtype).eps * (jnp.abs(here) + jnp.abs(gain))

    def bad(t: Float[Array, " systems"]) -> Bool[Array, " systems"]:
        end, stiffened = (_sum(a, systems.scaled(t, b)) for a, b in zip((x, stiff), step, strict=True))
        outside = systems.total(jax.tree.map(lambda inside: (~inside).astype(here.dtype), within(end)))
        return (t > SHORTEST) & ((outside > 0) | (energy(end, stiffened) > here + 1e-4 * t * gain + room))

    return lax.while_loop(lambda t: jnp.any(bad(t)), lambda t: jnp.where(bad(t), t / 2, t), jnp.ones_like(here))


def conjugate_gradients(
    operator: Callable[[Any], tuple[Any, Any]],
    wanted: Any,
    systems: Systems,
    share: Float[Array, "..."],
    steps: int,
) -> tuple[Any, Any, Float[Array, " systems"]]:
    """Solve operator(x) = wanted from zero, until the residual of each system is below a ``share`` of the right-hand side.

    Unlike those of jax.scipy they apply the operator at one place only, which halves the time to compile, add up whatever else
    the operator returns of x, and go on for each system by itself.

    Args:
        operator: returns a symmetric positive definite linear map of a pytree, and further linear maps of it, of the same
            structure or empty; none of them mixes systems.
        wanted: right-hand side.
        systems: to which system each entry belongs.
        share: relative residual, one number or one for each system.
        steps: most iterations.

    Returns:
        x, the further maps of x, and the size of the residual of each system.
    """
    begun = systems.dot(wanted, wanted)
    enough = share**2 * begun
    further = jax.eval_shape(operator, wanted)[1]
    nothing, more = (jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree) for tree in (wanted, further))

    def improved(at: Any) -> Any:
        x, more, residual, direction, square, count = at
        found, further = operator(direction)
        going = square > enough
        length = jnp.where(going, square / jnp.where(going, systems.dot(direction, found), 1), 0)
        x, residual = _sum(x, systems.scaled(length, direction)), _sum(residual, systems.scaled(-length, found))
        if jax.tree.leaves(more):
            more = _sum(more, systems.scaled(length, further))
        new = jnp.where(going, systems.dot(residual, residual), square)
        direction = _sum(residual, systems.scaled(jnp.where(going, new / jnp.where(going, square, 1), 0), direction))
        return x, more, residual, direction, new, count + 1

    start = nothing, more, wanted, wanted, begun, jnp.int32(0)
    x, more, _, _, square, _ = lax.while_loop(lambda at: jnp.any(at[4] > enough) & (at[5] < steps), improved, start)
    return x, more, jnp.sqrt(square)


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


def _negative(tree: Any) -> Any:
    return jax.tree.map(jnp.negative, tree)


def _halved(tree: Any) -> Any:
    return jax.tree.map(lambda x: x / 2, tree)


def _dtype(tree: Any) -> Any:
    return jax.tree.leaves(tree)[0].dtype
