"""Minima of convex energies in many variables, as differentiable functions of everything that the energies depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

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


def tolerance(dtype: Any) -> float:
    """Return the relative residual to which equations are solved in a precision."""
    return 1e-12 if dtype == jnp.float64 else 1e-6


def solved(operator: Callable[[Any], Any], wanted: Any, steps: int = MOST_CONJUGATE) -> Any:
    """Solve a symmetric positive definite linear equation by conjugate gradients; differentiable to any order. A solution that
    is not found is not a number.

    Args:
        operator: linear map of a pytree of arrays onto one of the same structure.
        wanted: right-hand side.
        steps: most iterations.
    """
    precise = tolerance(_dtype(wanted))

    def solve(linear: Callable[[Any], Any], b: Any) -> Any:
        x, _, left = conjugate_gradients(lambda x: (linear(x), ()), b, precise, steps)
        return _unless(left <= FAILED * precise * _size(b), x)

    return lax.custom_linear_solve(operator, wanted, solve, symmetric=True)


class Elastic(NamedTuple):
    """A strictly convex function of a pytree of arrays with its derivatives, each quick to compute."""

    energy: Callable[[Any], Float[Array, ""]]
    slope: Callable[[Any], Any]
    """Gradient, of the structure of x."""
    curvature: Callable[[Any, Any], Any]
    """Of x and v, the second derivative at x applied to v."""
    within: Callable[[Any], Bool[Array, ""]]
    """Whether x lies inside the domain, where the function is finite."""


def minimum(elastic: Elastic, pull: Any, stiffness: Callable[[Any], Any]) -> Any:
    """Return the x at which elastic(x) + pull . x + x . stiffness(x) / 2 is least, by Newton's method from zero.

    Derivatives of the result follow from the linearised condition that the slope vanishes there, to any order. A result that
    is not found, for what is not a number or for want of steps, is not a number. The linear equation of each step is solved by
    conjugate gradients, which apply ``stiffness`` once in each iteration.

    Args:
        elastic: function whose domain holds zero.
        pull: slope at zero, but for that of ``elastic``.
        stiffness: linear map, symmetric and positive semidefinite.
    """
    slope = lambda x: _sum(elastic.slope(x), pull, stiffness(x))

    def solve(_: Callable[[Any], Any], first: Any) -> Any:
        begun = _sum(elastic.slope(first), pull)
        least, enough = 4 * jnp.finfo(_dtype(first)).eps * _size(begun), tolerance(_dtype(first)) * _size(begun)

        def improved(at: _Newton) -> _Newton:
            x, stiff, uphill = at.x, at.stiff, at.uphill

            def bent(v: Any) -> tuple[Any, Any]:
                pulled = stiffness(v)
                return _sum(elastic.curvature(x, v), pulled), pulled

            share = SHARE * jnp.minimum(1.0, _size(uphill) / _size(begun))
            *step, _ = conjugate_gradients(bent, _scaled(-1, uphill), share, MOST_CONJUGATE)
            t = _length(lambda y, stiff: elastic.energy(y) + _dot(pull, y) + _dot(y, stiff) / 2, elastic.within, at, step)
            x = _sum(x, _scaled(t, step[0]))
            # Not added up over the steps, where rounding errors would be added up with it.
            stiff = stiffness(x)
            return _Newton(x, stiff, _sum(elastic.slope(x), pull, stiff), _size(uphill), at.count + 1)

        def on(at: _Newton) -> Array:
            # Once it is small enough, only for as long as it still falls.
            size = _size(at.uphill)
            return (size > least) & ((size > enough) | (size < at.before / 2)) & (at.count < MOST_NEWTON)

        start = _Newton(first, _scaled(0, first), begun, jnp.asarray(jnp.inf, _dtype(first)), jnp.int32(0))
        end = lax.while_loop(on, improved, start)
        return _unless(_size(end.uphill) <= FAILED * enough, end.x)

    return lax.custom_root(slope, _scaled(0, pull), solve, solved)


class _Newton(NamedTuple):
    """State of Newton's method."""

    x: Any
    stiff: Any
    """stiffness(x)."""
    uphill: Any
    """Slope at x."""
    before: Float[Array, ""]
    """Size of the slope one step before."""
    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count


def _length(
    energy: Callable[[Any, Any], Array], within: Callable[[Any], Array], at: _Newton, step: Sequence[Any]
) -> Float[Array, ""]:
    """Return the share of a step after which the energy has fallen enough (Armijo's rule), halved until it has."""
    x, stiff, uphill = at.x, at.stiff, at.uphill
    here, gain = energy(x, stiff), _dot(uphill, step[0])
    # As long as rounding lets the energy tell.
    room = 8 * jnp.finfo(here.dtype).eps * (jnp.abs(here) + jnp.abs(gain))
    end = lambda t: (_sum(x, _scaled(t, step[0])), _sum(stiff, _scaled(t, step[1])))
    bad = lambda t: ~within(end(t)[0]) | (energy(*end(t)) > here + 1e-4 * t * gain + room)
    return lax.while_loop(lambda t: bad(t) & (t > SHORTEST), lambda t: t / 2, jnp.ones((), here.dtype))


def conjugate_gradients(
    operator: Callable[[Any], tuple[Any, Any]], wanted: Any, share: float | Float[Array, ""], steps: int
) -> tuple[Any, Any, Float[Array, ""]]:
    """Solve operator(x) = wanted from zero, until the residual is below a ``share`` of the right-hand side.

    Unlike those of jax.scipy they apply the operator at one place only, which halves the time to compile, and add up whatever
    else the operator returns of x.

    Args:
        operator: returns a symmetric positive definite linear map of a pytree, and further linear maps of it.
        wanted: right-hand side.
        share: relative residual.
        steps: most iterations.

    Returns:
        x, the further maps of x, and the size of the residual.
    """
    enough = (share * _size(wanted)) ** 2
    more = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(operator, wanted)[1])
    begun = _scaled(0, wanted), more, wanted, wanted, _dot(wanted, wanted), jnp.int32(0)

    def improved(at: Any) -> Any:
        x, more, residual, direction, square, count = at
        found, further = operator(direction)
        # A residual of zero has no direction.
        length = square / jnp.where(square > 0, _dot(direction, found), 1)
        x, more = _sum(x, _scaled(length, direction)), _sum(more, _scaled(length, further))
        residual = _sum(residual, _scaled(-length, found))
        new = _dot(residual, residual)
        direction = _sum(residual, _scaled(new / jnp.where(square > 0, square, 1), direction))
        return x, more, residual, direction, new, count + 1

    x, more, _, _, square, _ = lax.while_loop(lambda at: (at[4] > enough) & (at[5] < steps), improved, begun)
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


def _unless(found: Bool[Array, ""], tree: Any) -> Any:
    """Return a tree where it was ``found``, else one that is not a number; a comparison with NaN finds nothing."""
    return jax.tree.map(lambda x: jnp.where(found, x, jnp.nan), tree)


def _sum(*trees: Any) -> Any:
    return jax.tree.map(lambda *x: sum(x[1:], x[0]), *trees)


def _scaled(factor: Any, tree: Any) -> Any:
    return jax.tree.map(lambda x: factor * x, tree)


def _dot(a: Any, b: Any) -> Float[Array, ""]:
    return sum((jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)), jnp.zeros((), _dtype(a)))


def _size(tree: Any) -> Float[Array, ""]:
    return jnp.sqrt(_dot(tree, tree))


def _dtype(tree: Any) -> Any:
    return jax.tree.leaves(tree)[0].dtype
