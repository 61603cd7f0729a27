"""A wall inside of which atoms repel each other whatever a potential has learned."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.nn.edge_features import pairs_within
from equipot.nn.radial import covalent_radii
from equipot.physics.sum import filled
from equipot.physics.zbl import ZBL
from equipot.potential import Atomic, Term, call, cutoff_of
from equipot.quantities import Quantity


class Guarded(Term):
    """A potential that sees no distance below an inner radius, and a wall below that radius.

    With a = ``share`` (R_i + R_j), R the covalent radii, and b = (1 + ``width``) a, ``base`` sees a pair at the distance r at

        r' = r for r >= b,   r' = b - (b - a) (1/2 - t^6 + 3 t^5 - 5/2 t^4), t = (r - a) / (b - a) between,
        r' = (a + b) / 2 for r <= a,

    whose first three derivatives are continuous. The wall is a repulsion of nuclei that ends at b. Below a, the force
    between the atoms of a pair is that of the wall alone; at b and above, nothing is changed.
    """

    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Å; that of ``base`` where left out."""
    base: Term = None  # type: ignore[assignment]  # linen's own fields have defaults
    share: float = 0.5
    """Share of the sum of the covalent radii at which the wall stands alone."""
    width: float = 0.15
    """Width of the transition, as a share of the inner radius."""
    wall: ZBL = ZBL()
    elements: tuple[int, ...] = ()
    """Atomic numbers that ``base`` knows; taken from ``base``, else from the data, where left out."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share} of the covalent radii must be above 0 and at most 1")
        if not 0 < self.width <= 1:
            raise ValueError(f"width {self.width} of the transition must be above 0 and at most 1")
        elements = self.elements or (tuple(self.base.elements) if self.base.has_elements else ())
        base = filled(self.base, self.cutoff, elements)
        for name, value in (("elements", elements), ("base", base), ("cutoff", base.cutoff)):
            object.__setattr__(self, name, value)
        super().__post_init__()

    @property
    def has_elements(self) -> bool:
        return self.base.has_elements

    @property
    def averaging_cutoff(self) -> float | None:
        """That of ``base``."""
        return self.base.averaging_cutoff

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Those of ``base``."""
        return self.base.inner_cutoffs

    @property
    def has_dispersion(self) -> bool:  # type: ignore[override]  # as ``provides``
        """Whether ``base`` has a correction for dispersion."""
        return self.base.has_dispersion

    @property
    def provides(self) -> tuple[Quantity, ...]:  # type: ignore[override]  # of an object, where others have it of a class
        """What ``base`` provides."""
        return self.base.provides

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        outer = (1 + self.width) * self.share * self._radii(graph, vectors.dtype)
        r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        # Exactly one beyond, so that neither energies nor derivatives are rounded there.
        near = graph.slot_mask & (r < outer)
        shown = jnp.where(near, clamped(r, outer / (1 + self.width), outer) / r, 1)
        inside = call(self.base, graph, vectors * shown[..., None], None)
        pairs, _, distances = pairs_within(graph, vectors, cutoff_of(self))
        ends = jnp.where(pairs.slots < 0, 1, pairs.from_slots(outer))
        energy = self.wall.repel(pairs, distances, graph.numbers, ends, cutoff_of(self))
        return inside._replace(energy=inside.energy + jnp.where(pairs.overflow, jnp.nan, energy))

    def _radii(self, graph: Graph, dtype: jnp.dtype) -> Float[Array, "atoms slots"]:
        """Return the sum of the covalent radii of the atoms of each slot, Å."""
        own = jnp.asarray(covalent_radii(range(119)), dtype)[graph.numbers]
        return own[:, None] + own[graph.neighbors]


def clamped(
    r: Float[Array, "atoms slots"], inner: Float[Array, "atoms slots"], outer: Float[Array, "atoms slots"]
) -> Float[Array, "atoms slots"]:
    """Clamp distances below ``outer`` to no less than the mean of ``inner`` and ``outer``, see ``Guarded``."""
    t = jnp.clip((r - inner) / (outer - inner), 0, 1)
    between = outer - (outer - inner) * (0.5 - t**4 * (2.5 - 3 * t + t**2))
    return jnp.where(r < outer, between, r)
