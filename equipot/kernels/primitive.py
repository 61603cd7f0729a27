"""Primitives of JAX whose derivatives are of the same kind as they are.

A bundle is a static description of results to be computed together from index arrays and operands, all of them multilinear or
polynomial. It says what bundles its tangents and its transpose are; from that follow differentiation of any order, in both
directions, and batching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


class Bundle(Protocol):
    """What ``make`` needs to know; hashable."""

    @property
    def indices(self) -> int:
        """How many of the arguments, the first ones, are index arrays."""

    @property
    def outputs(self) -> tuple:
        """One entry for each result."""

    def shapes(self, *shapes: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shapes of the results, from those of the arguments."""

    def tangent(self, varied: Sequence[int]) -> Bundle:
        """Derivative along tangents of the operands ``varied``, which follow the operands. An output may have no terms."""

    def transpose(self, linear: Sequence[int], given: Sequence[int]) -> Bundle:
        """The transposed map: its operands are all of these, of which ``linear`` are not looked at, then the cotangents of the
        outputs ``given``; its outputs are the cotangents of ``linear``, up to ``finish``."""

    def finish(self, operand: int, cotangent: Array, indices: Sequence[Array]) -> Array:
        """Cotangent of an operand from what ``transpose`` gives for it."""

    def pruned(self) -> tuple[Bundle, Sequence[int], Sequence[int]]:
        """The same without outputs that have no terms and operands that nobody uses, and which of both were kept."""

    def over_atoms(self) -> tuple[list[bool], list[bool]]:
        """Which operands and which results have a row for each atom; the others belong to all atoms."""

    def repeat(self, indices: Sequence[Array], size: int) -> list[Array]:
        """Index arrays of so many copies of the system, one behind the other."""


def make(name: str, plain: Callable[..., list[Array]], native: Callable[..., list[Array]]) -> Primitive:
    """A primitive with the parameter ``bundle``; ``native`` computes it on a CPU, ``plain`` elsewhere."""
    primitive = Primitive(name)
    primitive.multiple_results = True

    def bind(indices: Sequence, operands: Sequence, bundle: Bundle) -> list:
        """Results for all outputs, None for those without terms."""
        pruned, kept, outputs = bundle.pruned()
        results: list = [None] * len(bundle.outputs)
        if outputs:
            for k, value in zip(outputs, primitive.bind(*indices, *(operands[o] for o in kept), bundle=pruned), strict=True):
                results[k] = value
        return results

    def abstract(*avals: Any, bundle: Bundle) -> list:
        dtype = avals[-1].dtype
        # A kernel takes what it is given for numbers of one type.
        assert {a.dtype for a in avals[bundle.indices :]} == {dtype}, [a.dtype for a in avals]
        assert all(a.dtype in (jnp.int32, jnp.bool_) for a in avals[: bundle.indices]), [a.dtype for a in avals]
        return [jax.core.ShapedArray(shape, dtype) for shape in bundle.shapes(*(a.shape for a in avals))]

    def jvp(primals: Sequence, tangents: Sequence, *, bundle: Bundle) -> tuple:
        out = primitive.bind(*primals, bundle=bundle)
        indices, operands, changes = primals[: bundle.indices], primals[bundle.indices :], tangents[bundle.indices :]
        varied = [k for k, t in enumerate(changes) if type(t) is not ad.Zero]
        found = bind(indices, [*operands, *(changes[k] for k in varied)], bundle.tangent(varied))
        return out, [ad.Zero.from_primal_value(o) if t is None else t for o, t in zip(out, found, strict=True)]

    def transpose(cotangents: Sequence, *arguments: Any, bundle: Bundle) -> list:
        indices, operands = arguments[: bundle.indices], arguments[bundle.indices :]
        linear = [k for k, operand in enumerate(operands) if ad.is_undefined_primal(operand)]
        given = [k for k, cotangent in enumerate(cotangents) if type(cotangent) is not ad.Zero]
        found = bind(indices, [*operands, *(cotangents[k] for k in given)], bundle.transpose(linear, given))
        results: list = [None] * len(arguments)
        for k, value in zip(linear, found, strict=True):
            zero = ad.Zero(operands[k].aval)
            results[len(indices) + k] = zero if value is None else bundle.finish(k, value, indices)
        return results

    def batch(arguments: Sequence, axes: Sequence, *, bundle: Bundle) -> tuple:
        mapped = [isinstance(axis, int) for axis in axes]
        front = [jnp.moveaxis(x, axis, 0) if m else x for x, axis, m in zip(arguments, axes, mapped, strict=True)]
        size = next(x.shape[0] for x, m in zip(front, mapped, strict=True) if m)
        of_atoms, results_of_atoms = bundle.over_atoms()
        shared = [m for m, mine in zip(mapped[bundle.indices :], of_atoms, strict=True) if not mine]
        if any(mapped[: bundle.indices]) or any(shared) or not all(results_of_atoms):
            chosen = [x for x, m in zip(front, mapped, strict=True) if m]

            def one(values: list) -> list:
                values = iter(values)
                return primitive.bind(*(next(values) if m else x for x, m in zip(front, mapped, strict=True)), bundle=bundle)

            out = jax.lax.map(one, chosen)
        else:
            # More systems are more atoms.
            wide = bundle.repeat(front[: bundle.indices], size)
            for x, m, mine in zip(front[bundle.indices :], mapped[bundle.indices :], of_atoms, strict=True):
                whole = x if m or not mine else jnp.broadcast_to(x, (size, *x.shape))
                wide.append(whole.reshape(-1, *whole.shape[2:]) if mine else x)
            out = primitive.bind(*wide, bundle=bundle)
            out = [y.reshape(size, y.shape[0] // size, *y.shape[1:]) for y in out]
        return out, [0] * len(out)

    run = jax.jit(lambda *arguments, bundle: primitive.bind(*arguments, bundle=bundle), static_argnames="bundle")
    primitive.def_impl(lambda *arguments, bundle: run(*arguments, bundle=bundle))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=True))
    mlir.register_lowering(primitive, mlir.lower_fun(native, multiple_results=True), platform="cpu")
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch
    return primitive
