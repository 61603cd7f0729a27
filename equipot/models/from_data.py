"""Stand-in for a network that is chosen when the training data are known."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.term import Atomic, Term


class FromData(Term):
    """The model of a config that names none: training puts a MACE that suits the data in its place.

    What is given here is kept; None is chosen. See ``equipot.models.mace.MACE`` for the meaning.
    """

    channels: int | None = None
    """Width of every irrep."""
    hidden_l: int | None = None
    """Highest l of the features passed between layers."""
    l_max: int | None = None
    """Highest l of the spherical harmonics."""
    correlation: int | None = None
    """Factors in the symmetric contraction, the body order less one."""
    layers: int | None = None
    """Number of layers."""

    @property
    def given(self) -> dict[str, Any]:
        """Hyper-parameters that are not left to the data, by name."""
        names = ("cutoff", "channels", "hidden_l", "l_max", "correlation", "layers")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        """Raise ValueError: there is no network yet."""
        raise ValueError("FromData stands for a network that training chooses; it has no energy")
