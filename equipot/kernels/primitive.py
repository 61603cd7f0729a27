"""Primitives of JAX that are closed under differentiation: derivatives are calls of the primitive with other static parameters.

A primitive computes several results at once from index arrays and operands. Its static parameter ``forms``, a hashable object
with the methods of ``Forms``, describes the results, their derivative along tangents and their transpose. Differentiation of
any order, forward and backward, and batching follow from these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


class Forms(Protocol):
    """Static description of the results of a primitive, as functions of its operands; hashable.

    The arguments of a primitive are ``indices`` index arrays followed by the operands. An operand is named by its position
    among the operands.
    """

    @property
    def indices(self) -> int:
        """Number of index arrays."""

    @property
    def outputs(self) -> tuple:
        """One entry for each result."""

    def shapes(self, *shapes: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the shapes of the results for given shapes of all arguments."""

    def tangent(self, varied: Sequence[int]) -> Forms:
        """Describe the derivative of every result along tangents of the operands ``varied``.

        The operands of the derivative are the operands followed by the tangents. A result that depends on none of ``varied``
        is an output without terms.
        """

    def transpose(self, linear: Sequence[int], given: Sequence[int]) -> Forms:
        """Describe the transpose with respect to the operands ``linear``, from cotangents of the outputs ``given``.

        The operands of the transpose are the operands, of which ``linear`` are not read, followed by the cotangents. The
        outputs are the cotangents of ``linear``, up to ``finish``.
        """

    def finish(self, operand: int, cotangent: Array, indices: Sequence[Array]) -> Array:
        """Turn an output of ``transpose`` into the cotangent of ``operand``."""

    def pruned(self) -> tuple[Forms, Sequence[int], Sequence[int]]:
        """Drop outputs without terms and unused operands; return the new description, the operands and the outputs kept."""

    def over_atoms(self) -> tuple[list[bool], list[bool]]:
        """Return, for each operand and for each result, whether its rows belong to atoms or pairs of one system."""

    def repeat(self, indices: Sequence[Array], size: int) -> list[Array]:
        """Return the index arrays of a system that consists of ``size`` copies, one behind the other."""


Implementation = Callable[..., list[Array]]
"""Function that computes the results from all arguments and ``forms``."""


def make(name: str, plain: Implementation, native: Implementation, batch: Callable[..., tuple] | None = None) -> Primitive:
    """Make a primitive with the static parameter ``forms``.

    Args:
        name: Name of the primitive in jaxprs.
        plain: Implementation for every platform but CPUs.
        native: Implementation for CPUs.
        batch: Batching rule, called with the arguments, their batch axes and ``forms``; ``join_systems`` unless given.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def bind(indices: Sequence, operands: Sequence, forms: Forms) -> list:
        """Compute all outputs; None for an output without terms."""
        pruned, kept, outputs = forms.pruned()
        results: list = [None] * len(forms.outputs)
        if outputs:
            for k, value in zip(outputs, primitive.bind(*indices, *(operands[o] for o in kept), forms=pruned), strict=True):
                results[k] = value
        return results

    def abstract(*avals: Any, forms: Forms) -> list:
        dtype = avals[-1].dtype
        # A kernel reads all operands as numbers of one type.
        assert {a.dtype for a in avals[forms.indices :]} == {dtype}, [a.dtype for a in avals]
        assert all(a.dtype in (jnp.int32, jnp.bool_) for a in avals[: forms.indices]), [a.dtype for a in avals]
        return [jax.core.ShapedArray(shape, dtype) for shape in forms.shapes(*(a.shape for a in avals))]

    def jvp(primals: Sequence, tangents: Sequence, *, forms: Forms) -> tuple:
        out = primitive.bind(*primals, forms=forms)
        indices, operands, changes = primals[: forms.indices], primals[forms.indices :], tangents[forms.indices :]
        varied = [k for k, t in enumerate(changes) if type(t) is not ad.Zero]
        found = bind(indices, [*operands, *(changes[k] for k in varied)], forms.tangent(varied))
        zero = lambda value: ad.Zero(jax.typeof(value).to_tangent_aval())
        return out, [zero(o) if t is None else t for o, t in zip(out, found, strict=True)]

    def transpose(cotangents: Sequence, *arguments: Any, forms: Forms) -> list:
        indices, operands = arguments[: forms.indices], arguments[forms.indices :]
        linear = [k for k, operand in enumerate(operands) if ad.is_undefined_primal(operand)]
        given = [k for k, cotangent in enumerate(cotangents) if type(cotangent) is not ad.Zero]
        found = bind(indices, [*operands, *(cotangents[k] for k in given)], forms.transpose(linear, given))
        results: list = [None] * len(arguments)
        for k, value in zip(linear, found, strict=True):
            zero = ad.Zero(operands[k].aval)
            results[len(indices) + k] = zero if value is None else forms.finish(k, value, indices)
        return results

    def join(arguments: Sequence, axes: Sequence, *, forms: Forms) -> tuple:
        return join_systems(primitive, arguments, axes, forms)

    def precise(*arguments: Array, forms: Forms) -> list[Array]:
        # Traced where XLA lowers, out of reach of the precision that the caller asked for, and accelerators may round matrix
        # products of float32 to 19 bits unless told not to.
        with jax.default_matmul_precision("highest"):
            return plain(*arguments, forms=forms)

    run = jax.jit(lambda *arguments, forms: primitive.bind(*arguments, forms=forms), static_argnames="forms")
    primitive.def_impl(lambda *arguments, forms: run(*arguments, forms=forms))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(precise, multiple_results=True))
    mlir.register_lowering(primitive, mlir.lower_fun(native, multiple_results=True), platform="cpu")
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch or join
    return primitive


def join_systems(primitive: Primitive, arguments: Sequence, axes: Sequence, forms: Forms) -> tuple:
    """Batch a primitive: a batch of systems with equal index arrays becomes one system with all atoms.

    Where index arrays, or operands without rows for atoms or pairs, differ along the batch, the systems are computed one after
    the other.
    """
    mapped = [isinstance(axis, int) for axis in axes]
    front = [jnp.moveaxis(x, axis, 0) if m else x for x, axis, m in zip(arguments, axes, mapped, strict=True)]
    size = next(x.shape[0] for x, m in zip(front, mapped, strict=True) if m)
    of_atoms, results_of_atoms = forms.over_atoms()
    common = [m for m, mine in zip(mapped[forms.indices :], of_atoms, strict=True) if not mine]
    if any(mapped[: forms.indices]) or any(common) or not all(results_of_atoms):

        def one(values: list) -> list:
            given = iter(values)
            return primitive.bind(*(next(given) if m else x for x, m in zip(front, mapped, strict=True)), forms=forms)

        out = jax.lax.map(one, [x for x, m in zip(front, mapped, strict=True) if m])
        return out, [0] * len(out)
    wide = forms.repeat(front[: forms.indices], size)
    for x, m, mine in zip(front[forms.indices :], mapped[forms.indices :], of_atoms, strict=True):
        whole = x if m or not mine else jnp.broadcast_to(x, (size, *x.shape))
        wide.append(whole.reshape(-1, *whole.shape[2:]) if mine else x)
    out = primitive.bind(*wide, forms=forms)
    return [y.reshape(size, y.shape[0] // size, *y.shape[1:]) for y in out], [0] * len(out)
