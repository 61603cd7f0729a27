"""A wall inside of which atoms repel each other whatever a potential has learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from equipot.data.closest import ROWS
from equipot.graph import Graph
from equipot.nn.radial import covalent_radii
from equipot.physics.sum import filled
from equipot.physics.zbl import ZBL
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.structure import Structure
from equipot.term import Atomic, Scope, Term, call, cutoff_of

__all__ = ["Guarded", "Wall", "guard"]

MARGIN = 0.95
"""Share of the closest distance in the data at which the transition ends at the latest: no frame of the data is changed."""
OUTER = "outer_radii"
"""Name of the constant with the outer radii."""
REPULSION = ZBL()
"""Energy of a pair in the wall. All coefficients are positive, so that the repulsion is strict at any distance."""


@dataclasses.dataclass(frozen=True)
class Wall:
    """Choice of the inner radii a and outer radii b of the pairs of elements; b = (1 + ``width``) a.

    a is a share of the sum of the covalent radii. Where the closest distance d of a pair in data is known, b is at most
    ``MARGIN`` d: what data show is neither hidden from a network nor changed. Nor does b exceed the cutoff.
    """

    share: float = 0.5
    """Share of the sum of the covalent radii. The shortest bonds of all, of Cr2 and Mo2, have 0.6."""
    width: float = 0.15
    """Width of the transition, as a share of the inner radius."""
    share_in_training: float = 0.8
    """Share for the pairs whose closest distance in the data limits it, in a training from random parameters: between data and
    wall a network may learn anything, and a hole there can be deeper than a wall is high."""

    def __post_init__(self) -> None:
        for name in ("share", "width", "share_in_training"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} of a wall must be above 0 and at most 1")

    def outer_radii(self, cutoff: float, closest: Float[np.ndarray, "119 119"] | None = None) -> Float[np.ndarray, "119 119"]:
        """Compute the outer radii (Å) by atomic numbers.

        Args:
            cutoff: Å.
            closest: closest distances in the training data (Å), infinite for a pair that is not there; None for no data.
        """
        own = covalent_radii(range(ROWS))
        closest = np.full((ROWS, ROWS), np.inf) if closest is None else closest
        share = np.where(np.isfinite(closest), self.share_in_training, self.share)
        return np.minimum(np.minimum((1 + self.width) * share * (own[:, None] + own), cutoff), MARGIN * closest)


class Guarded(Term):
    """A potential that sees no distance below an inner radius, and a wall below that radius.

    With the radii a and b of a pair, see ``Wall``, ``base`` sees the vector of the pair at the length

        r' = r for r >= b,   r' = b - (b - a) (1/2 - t^6 + 3 t^5 - 5/2 t^4), t = (r - a) / (b - a) between,
        r' = (a + b) / 2 for r <= a,

    whose first three derivatives are continuous. The wall is a repulsion of nuclei that ends at b with two continuous
    derivatives. Below a, the force along a pair, -dE/dr with everything else fixed, is that of the wall alone; at b and above,
    nothing is changed. What ``base`` provides besides the energy is computed from r' as well.

    The variables are those of ``base``, under the same names, and the constant ``outer_radii`` [119, 119], b (Å) by atomic
    numbers.
    """

    own_constants: ClassVar[tuple[str, ...]] = (OUTER,)
    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Å; that of ``base``, which takes it over where it has none."""
    base: Term  # type: ignore[misc]  # the cutoff before it is for keywords only
    """Term inside the wall."""
    wall: Wall = Wall()
    """Radii of the wall."""
    elements: tuple[int, ...] = ()
    """Atomic numbers that ``base`` knows; taken from ``base``, else from the data, where left out."""

    def __post_init__(self) -> None:
        if is_guarded(self.base):
            raise ValueError("base has a wall already; change that one instead")
        if "space" in self.base.needs:
            raise ValueError(
                f"{type(self.base).__name__} cannot be guarded: its energy depends on positions, which a wall cannot hide; "
                "give its own base the wall (base: {kind: Guarded, base: ...}), or the other terms of a list"
            )
        elements = self.elements or (tuple(self.base.elements) if self.base.has_elements else ())
        base = filled(self.base, self.cutoff, elements)
        if self.cutoff not in (None, base.cutoff):
            raise ValueError(f"cutoff {self.cutoff} Å is not that of base, {base.cutoff} Å; leave it out")
        for name, value in (("elements", elements), ("base", base), ("cutoff", base.cutoff)):
            object.__setattr__(self, name, value)
        super().__post_init__()

    @property
    def has_elements(self) -> bool:
        return self.base.has_elements

    @property
    def receptive_radius(self) -> float | None:
        """That of ``base``."""
        return self.base.receptive_radius

    @property
    def averaging_cutoff(self) -> float | None:
        """That of ``base``."""
        return self.base.averaging_cutoff

    @property
    def learns_from(self) -> tuple[Quantity, ...]:
        return self.base.learns_from

    def check(self, structure: Structure) -> None:
        self.base.check(structure)

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Those of ``base``."""
        return self.base.inner_cutoffs

    @property
    def has_dispersion(self) -> bool:  # type: ignore[override]  # as ``provides``
        """Whether ``base`` has a correction for dispersion."""
        return self.base.has_dispersion

    @property
    def has_three_body_dispersion(self) -> bool:  # type: ignore[override]  # as ``provides``
        """Whether ``base`` corrects the dispersion of triples."""
        return self.base.has_three_body_dispersion

    def scope_of(self, member: str) -> Scope:
        """That of the term itself."""
        return Scope(())

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # of an object, where others have it of a class
        """What ``base`` needs; never ``space``."""
        return self.base.needs

    @property
    def provides(self) -> tuple[Quantity, ...]:  # type: ignore[override]  # as ``needs``
        """What ``base`` provides."""
        return self.base.provides

    def setup(self) -> None:
        nn.share_scope(self, self.base)
        self.outer = self.variable("constants", OUTER, lambda: jnp.asarray(self.wall.outer_radii(cutoff_of(self))))

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        outer = self.outer.value.astype(vectors.dtype)[graph.numbers[:, None], graph.numbers[graph.neighbors]]
        r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        near = graph.slot_mask & (r < outer)
        # The factor is exactly one beyond, so that neither energies nor derivatives are rounded there.
        factor = jnp.where(near, clamped(r, outer / (1 + self.wall.width), outer) / r, 1)
        answer = call(self.base, graph, vectors * factor[..., None], None)
        charge = jnp.maximum(graph.numbers, 1).astype(vectors.dtype)
        energy = REPULSION.of_pairs(jnp.where(near, r, outer), charge[:, None], charge[graph.neighbors], outer)
        return answer._replace(energy=answer.energy + 0.5 * jnp.sum(jnp.where(near, energy, 0), axis=-1))


def clamped(r: Float[Array, "*pairs"], inner: Float[Array, "*pairs"], outer: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
    """Clamp distances below ``outer`` to no less than the mean of ``inner`` and ``outer``, see ``Guarded``."""
    t = jnp.clip((r - inner) / (outer - inner), 0, 1)
    between = outer - (outer - inner) * (0.5 - t**4 * (2.5 - 3 * t + t**2))
    return jnp.where(r < outer, between, r)


def is_guarded(term: Term) -> bool:
    """Whether a term, or one that it is made of, has a wall."""
    return any(True for _ in _walls(term))


def with_wall(term: Term, wall: Wall) -> Term:
    """Return a term with a wall: around the whole, or where that depends on positions, as charges do, around the network in it.

    Raises:
        ValueError: the term has a wall, or depends on positions and does not hold exactly one network.
    """
    if "space" not in term.needs:
        return Guarded(base=term.clone(), wall=wall)
    if is_guarded(term):
        raise ValueError("the model has a wall already; change that one instead")
    networks = {name: member for name, member in term.trained_members.items() if member.averaging_cutoff is not None}
    if len(networks) != 1:
        raise ValueError(
            f"{type(term).__name__} cannot be guarded: it depends on positions, which a wall cannot hide, and holds "
            f"{len(networks) or 'no'} network{'s' * (len(networks) != 1)} that the wall could be around; give it to one before "
            "they are put together (model: {kind: Guarded, base: ...}, or equipot guard)"
        )
    ((name, member),) = networks.items()
    return term.with_members({name: with_wall(member, wall)})


def guard(potential: Potential, wall: Wall) -> Potential:
    """Add a wall to a potential, see ``with_wall``.

    Raises:
        ValueError: the potential has a wall, or depends on positions and has no base to guard.
    """
    return _with_radii(potential.replace(term=with_wall(potential.term, wall)), wall.outer_radii(potential.cutoff))


def fitted(potential: Potential, closest: Float[np.ndarray, "119 119"]) -> Potential:
    """Choose the radii of all walls for training data, see ``Wall``; frozen terms of a sum stay.

    Args:
        closest: closest distances in the data (Å) by atomic numbers, infinite where unknown, see ``data.closest``.
    """
    return _changed(potential, lambda term, _: term.wall.outer_radii(cutoff_of(term), closest))


def lowered(potential: Potential, closest: Float[np.ndarray, "119 119"]) -> Potential:
    """Lower the radii of all walls for data with closer pairs, see ``fitted``; other radii stay."""
    return _changed(potential, lambda _, radii: np.minimum(radii, MARGIN * closest))


def outer_radii(potential: Potential) -> Float[np.ndarray, "119 119"]:
    """Return the outer radii of a guarded potential, Å by atomic numbers; over 1 + ``wall.width``, these are the inner ones."""
    [(path, _)] = _walls(potential.term)
    return np.asarray(flatten_dict(potential.variables)["constants", *path, OUTER])


def wall_of(term: Term) -> Wall:
    """Return the choice of the radii of a guarded term."""
    [(_, guarded)] = _walls(term)
    return guarded.wall


def guarded_part(potential: Potential) -> Potential | None:
    """Return the part of a potential that its one wall is around, with the wall: the whole, or a base; None for no wall."""
    if len(list(_walls(potential.term))) != 1:
        return None
    while not isinstance(potential.term, Guarded):
        inside = potential.term.trained_members
        potential = potential.member(next(name for name, member in inside.items() if is_guarded(member)))
    return potential


def _changed(potential: Potential, radii: Callable[[Guarded, np.ndarray], np.ndarray]) -> Potential:
    """Replace the radii of every wall by a function of the guarded term and its radii."""
    leaves = flatten_dict(potential.variables)
    for path, term in _walls(potential.term):
        place = ("constants", *path, OUTER)
        leaves[place] = np.asarray(radii(term, np.asarray(leaves[place], np.float64)), leaves[place].dtype)
    return potential.replace(variables=unflatten_dict(leaves))


def _walls(term: Term, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Guarded]]:
    """Find the guarded terms with the scopes of their variables, as linen names them; not among frozen terms of a sum."""
    if isinstance(term, Guarded):
        yield path, term
        return
    for name, member in term.trained_members.items():
        yield from _walls(member, (*path, *term.scope_of(name).path))


def _with_radii(potential: Potential, radii: Float[np.ndarray, "119 119"]) -> Potential:
    leaves = flatten_dict(potential.variables)
    leaves |= {("constants", *path, OUTER): np.asarray(radii, potential.dtype) for path, _ in _walls(potential.term)}
    return potential.replace(variables=unflatten_dict(leaves))
