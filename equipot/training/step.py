"""Steps of training and of validation over all local devices, each of which takes a slice of the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from equipot import memory
from equipot.data.batch import Batch
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.training.descent import Descent
from equipot.training.loss import Loss, counts, evaluate_batch, penalty_sums, residuals, total
from equipot.training.merge import merge
from equipot.training.stacks import Stacks

AXIS = "devices"


class State(NamedTuple):
    """State of the training, changed by each step."""

    params: Any
    """Trained parameters, see ``merge.merge``, by ``stacks.Stacks``."""
    moments: Any
    """State of the optimiser."""
    ema: Any
    """Average of the trained parameters, which is validated and saved."""
    step: Any
    """Number of steps taken, an int32 scalar."""
    ok: Any
    """Whether all losses and gradients so far were finite, a boolean scalar. If False, further steps change nothing."""


def mesh_of(devices: int) -> Mesh:
    """Make a one-dimensional mesh of the first ``devices`` local devices."""
    return Mesh(np.array(jax.local_devices()[:devices]), (AXIS,))


def place(mesh: Mesh, batch: Any) -> Any:
    """Put a batch with a leading axis of devices on the devices of the mesh, one slice on each."""
    return jax.device_put(batch, NamedSharding(mesh, P(AXIS)))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Put a copy of a tree of arrays on each device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def first_state(params: Any, descent: Descent) -> State:
    """Make the state before the first step, with copies of all arrays, since a step overwrites the arrays of its state."""
    copies = partial(jax.tree.map, lambda x: jax.device_put(np.array(x)))
    # One program, not one for each array.
    moments = jax.jit(descent.init)(params)
    return State(copies(params), moments, copies(params), copies(np.zeros((), np.int32)), copies(np.array(True)))


def with_params(potential: Potential, trained: Any) -> Potential:
    """Return the potential with trained parameters, see ``merge.merge``."""
    return potential.replace(variables={**potential.variables, "params": merge(potential.params, trained)})


def sum_devices(tree: Any) -> Any:
    """Sum a tree of real numbers over devices, in one message instead of one for each leaf."""
    if jax.lax.axis_size(AXIS) == 1:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.psum(flat, AXIS))


def error_sums(errors: dict[str, Any], batch: Batch, wants: Sequence[Quantity]) -> dict[str, Any]:
    """Sum labelled values, absolute and squared errors of each quantity, for ``mean_errors``."""
    numbers = counts(batch, wants)
    out = {}
    for row in wants:
        name, error = row.name, errors[row.name]
        out[f"{name}_n"] = numbers[name] * math.prod(row.target_shape)
        out[f"{name}_abs"] = jnp.sum(jnp.abs(error))
        out[f"{name}_sq"] = jnp.sum(error**2)
    return out


def shape_of(batch: Batch) -> tuple[Any, ...]:
    """Return the static sizes of a batch, for each of which a step is compiled."""
    graph = batch.graph
    return (*graph.neighbors.shape, *graph.graph_mask.shape, graph.pair_capacity)


class CompiledStep:
    """A step with fixed variables of the potential: a function of a state or parameters, a batch, and further factors.

    Args:
        function: Jitted function of (state, variables, batch, *factors).
        variables: Variables of the potential, on all devices.
        factors: Examples of the arguments after the batch: in training, place in the schedule and factor on the learning rate.
    """

    def __init__(self, function: Any, variables: Any, factors: tuple[Any, ...] = ()):
        self.function, self.variables, self.factors = function, variables, factors
        self.ahead: dict[Any, Future] = {}

    def __call__(self, state: Any, batch: Batch, *factors: Any) -> Any:
        """Take the step; wait for its program where that is being compiled, and raise the error of that."""
        given = [jnp.asarray(x, like.dtype) for x, like in zip(factors, self.factors, strict=True)]
        ahead = self.ahead.get(shape_of(batch))
        # Compilation ahead ends with the steps of training: what was not begun then is compiled here.
        function = self.function if ahead is None or ahead.cancelled() else ahead.result()
        return function(state, self.variables, batch, *given)

    @property
    def compiles(self) -> bool:
        """Whether a thread is compiling the step for some shape, which takes time from the steps of others."""
        return not all(ahead.done() for ahead in self.ahead.values())

    def compile(self, state: Any, batch: Batch, pool: Executor, check: Callable[[int], None]) -> Future:
        """Start to compile the step for the shape of a batch, by a thread of ``pool``.

        Args:
            state: State or parameters.
            batch: Batch.
            pool: Threads.
            check: Function of the memory (bytes) that the step needs on each device besides its arguments, 0 if XLA does not
                tell; its error is raised where the step is taken.
        """
        # Lowered here, by the settings of JAX of this thread.
        lowered = self.function.lower(state, self.variables, batch, *self.factors)

        def compiled() -> Callable:
            program = lowered.compile()
            check(memory.needed(program))
            return program

        return self.ahead.setdefault(shape_of(batch), pool.submit(compiled))


def make_train_step(
    potential: Potential, loss: Loss, wants: tuple[Quantity, ...], descent: Descent, mesh: Mesh, stacks: Stacks
) -> CompiledStep:
    """Make ``step(state, batch, position, factor) -> state, report``.

    ``position`` is the place in the schedules of the learning rate and of the weights, from 0 to ``descent.steps``; ``factor``
    multiplies the learning rate.

    A step with a loss or gradient that is not finite changes nothing but ``state.ok``, which makes all later steps change
    nothing; ``report["finite"]`` is then False. The state passed in is donated.
    """

    def train_step(state: State, variables: Any, batch: Batch, position: Any, factor: Any) -> tuple[State, dict[str, Any]]:
        batch = jax.tree.map(lambda x: x[0], batch)
        numbers = sum_devices(counts(batch, wants))
        weights = loss.weights(wants, position / descent.steps)

        def share(params: Any) -> tuple[Any, Any]:
            model = with_params(potential.replace(variables=variables), stacks.unstack(params))
            errors = residuals(evaluate_batch(model, batch, wants), batch, wants)
            sums = penalty_sums(loss, wants, errors, batch)
            return total(weights, sums, numbers), (sums, error_sums(errors, batch, wants))

        # Each device differentiates its share of the loss, in which the counts of the whole batch are constants; the shares
        # add up. A psum inside the differentiated function would count every device's gradient once per device.
        (value, (sums, seen)), gradient = jax.value_and_grad(share, has_aux=True)(state.params)
        value, sums, seen, gradient = sum_devices((value, sums, seen, gradient))
        norm = optax.tree.norm(gradient)
        finite = state.ok & jnp.isfinite(value) & jnp.isfinite(norm)
        new = advance(state, gradient, descent.rate(position) * factor, descent, (value, loss_of_batch(share)))
        state = jax.tree.map(partial(jnp.where, finite), new, state)._replace(ok=finite)
        penalties = {f"{name}_sum": x for name, x in sums.items()} | {f"{name}_count": x for name, x in numbers.items()}
        return state, {"loss": value, "gradient_norm": norm, "finite": finite, **penalties, **seen}

    mapped = jax.shard_map(train_step, mesh=mesh, in_specs=(P(), P(), P(AXIS), P(), P()), out_specs=(P(), P()), check_vma=False)
    variables = replicate(mesh, potential.variables)
    compiled = jax.jit(mapped, donate_argnums=0)
    factors = replicate(mesh, (jnp.zeros((), jnp.int32), jnp.ones((), potential.dtype)))
    return CompiledStep(compiled, variables, factors)


def loss_of_batch(share: Callable[[Any], tuple[Any, Any]]) -> Callable[[Any], Any]:
    """Make the differentiable loss of a whole batch, a function of the parameters, from one device's share of the loss."""

    @jax.custom_vjp
    def whole(params: Any) -> Any:
        return sum_devices(share(params)[0])

    def forward(params: Any) -> tuple[Any, Any]:
        (value, _), gradient = jax.value_and_grad(share, has_aux=True)(params)
        return sum_devices((value, gradient))

    # The custom rule keeps psum out of the differentiated function, as in the step.
    whole.defvjp(forward, lambda gradient, tangent: (jax.tree.map(lambda x: tangent * x, gradient),))
    return whole


def advance(state: State, gradient: Any, rate: Any, descent: Descent, loss: tuple[Any, Callable[[Any], Any]]) -> State:
    """Take one step along a gradient at a learning rate; ``loss`` is the loss, and the loss as a function of the parameters."""
    value, value_fn = loss
    params, moments = descent.move(gradient, state.moments, state.params, rate, value=value, grad=gradient, value_fn=value_fn)
    return State(params, moments, descent.average(state.ema, params, moments, state.step), state.step + 1, state.ok)


def make_valid_step(potential: Potential, loss: Loss, wants: tuple[Quantity, ...], mesh: Mesh, stacks: Stacks) -> CompiledStep:
    """Make ``step(params, batch) -> report``, the sums for ``mean_loss`` and ``mean_errors``."""

    def valid_step(params: Any, variables: Any, batch: Batch) -> dict[str, Any]:
        batch = jax.tree.map(lambda x: x[0], batch)
        model = with_params(potential.replace(variables=variables), stacks.unstack(params))
        errors = residuals(evaluate_batch(model, batch, wants), batch, wants)
        penalties = {f"{name}_sum": x for name, x in penalty_sums(loss, wants, errors, batch).items()}
        penalties |= {f"{name}_count": x for name, x in counts(batch, wants).items()}
        return sum_devices({**penalties, **error_sums(errors, batch, wants)})

    mapped = jax.shard_map(valid_step, mesh=mesh, in_specs=(P(), P(), P(AXIS)), out_specs=P(), check_vma=False)
    variables = replicate(mesh, potential.variables)
    compiled = jax.jit(mapped)
    return CompiledStep(compiled, variables)


def mean_errors(wants: Sequence[Quantity], sums: Mapping[str, float]) -> dict[str, float]:
    """Compute MAE and RMSE from ``error_sums`` added up over batches, in the units of the quantities, per atom if extensive."""
    out = {}
    for row in wants:
        n = sums.get(f"{row.name}_n", 0)
        if n:
            out[row.error_name.format("mae")] = sums[f"{row.name}_abs"] / n
            out[row.error_name.format("rmse")] = (sums[f"{row.name}_sq"] / n) ** 0.5
    return out


def mean_loss(loss: Loss, wants: Sequence[Quantity], sums: Mapping[str, float], fraction: float = 1.0) -> float:
    """Compute the loss over many batches with the weights at a share ``fraction`` of the run.

    With the weights of the end of the run, losses of all epochs can be compared.

    Args:
        loss: Penalties of the quantities.
        wants: Quantities in the loss.
        sums: Reports of ``make_valid_step``, added up over batches.
        fraction: Share of the run's steps at which weights are taken.
    """
    weights = loss.weights(wants, fraction)
    found = [row.name for row in wants if f"{row.name}_sum" in sums]
    return float(sum(weights[n] * sums[f"{n}_sum"] / max(sums[f"{n}_count"], 1) for n in found))
