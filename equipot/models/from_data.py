"""Stand-in for a network that is chosen when the training data are known."""

from __future__ import annotations

from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.term import Atomic, Term


class FromData(Term):
    """The model of a config that names none: training puts a network that suits the data in its place (``training.choices``)."""

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        """Raise ValueError: there is no network yet."""
        raise ValueError("FromData stands for a network that training chooses; it has no energy")
