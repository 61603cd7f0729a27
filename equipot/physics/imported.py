"""A potential of a file, or a published one, among the terms of a config."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.term import Atomic, Term


class Imported(Term):
    """The place of a trained potential in a config, for which a run puts the term of the potential and its variables.

    ``{kind: potential, from: sevennet-0}`` in a list of terms keeps its variables, so that the others learn the difference to
    it; with ``frozen: false`` it is trained with them, from the values that it has. The result holds all of it.
    """

    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Not to be given: the potential has its own."""
    from_: str  # type: ignore[misc]  # the cutoff before it is for keywords only
    """File of the potential, ``FILE@HEAD`` for one of several levels of theory, or the name of a published one."""
    frozen: bool = True
    """Whether the variables keep their values; only in a list of terms."""

    def __post_init__(self) -> None:
        if self.cutoff is not None:
            raise ValueError(f"cutoff {self.cutoff:g} Å: {self.from_} has its own; leave it out")
        super().__post_init__()

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        raise ValueError(f"{self.from_} stands for a potential that a training run puts here; load it by equipot.load")


class Nothing(Term):
    """A term without energy, in place of one whose energies are subtracted from the labels."""

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        return Atomic(jnp.zeros(graph.num_atoms, vectors.dtype))
