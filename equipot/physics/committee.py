"""Committees: several terms for one potential energy surface, whose mean predicts and whose spread is the uncertainty."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.neighbors.shells import narrowed
from equipot.posterior import variables_digest
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.structure import Structure, symbols
from equipot.term import NEEDS, Atomic, Space, Term, call, cutoff_of, largest_radius

WEIGHTS, OFFSETS = "weights", "offsets"


class Committee(Term):
    """Terms whose energies are averaged: E_i = sum_k w_k (E_k,i + o_k(Z_i)), w_k = 1 / K unless changed.

    Each term sees the neighbours within its own cutoff. Features are the deviations of the members from their mean,
    E_k,i + o_k(Z_i) - mean. Charges and further quantities are averages of those that every term provides; latent features are
    those of the first term. Constants are the weights w [K] and the offsets o [K, 119] (eV), of members that count energies
    from other isolated atoms than the committee.

    Where ``vectors`` and ``space`` have an axis of K before all others, each term takes a geometry of its own, so that one
    backward pass gives the derivatives of every member.
    """

    own_constants: ClassVar[tuple[str, ...]] = (WEIGHTS, OFFSETS)
    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Å; the largest one of the terms."""
    terms: tuple[Term, ...] = ()
    """Members, at least two."""

    def __post_init__(self) -> None:
        if len(self.terms) < 2:
            raise ValueError(f"a committee of {len(self.terms)} says nothing of its uncertainty; give at least 2 members")
        headed = [type(term).__name__ for term in self.terms if term.head_names]
        if headed:
            raise ValueError(f"a member of a committee, {headed[0]}, has several heads; choose one with potential.head")
        # One object named twice would be one set of variables.
        terms = tuple(t.clone() if any(t is other for other in self.terms[:k]) else t for k, t in enumerate(self.terms))
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "cutoff", max(cutoff_of(term) for term in terms))
        super().__post_init__()

    @property
    def copies(self) -> int:
        return len(self.terms)

    @property
    def receptive_radius(self) -> float | None:
        """The largest one of the members; None if that of any is."""
        return largest_radius(self.terms)

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Cutoffs (Å) of members and of their parts that are shorter than the cutoff of the committee."""
        found = {c for term in self.terms for c in (term.cutoff, *term.inner_cutoffs) if c is not None}
        return tuple(sorted(c for c in found if c < cutoff_of(self)))

    @property
    def has_dispersion(self) -> bool:  # type: ignore[override]  # of an object, where others have it of a class
        """Whether any of the members has a correction for dispersion."""
        return any(term.has_dispersion for term in self.terms)

    @property
    def has_three_body_dispersion(self) -> bool:  # type: ignore[override]  # as ``has_dispersion``
        """Whether any of the members corrects the dispersion of triples."""
        return any(term.has_three_body_dispersion for term in self.terms)

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # as ``has_dispersion``
        """What any of the members needs."""
        found = {name for term in self.terms for name in term.needs}
        return (*(name for name in NEEDS if name in found), *sorted(found - set(NEEDS)))

    @property
    def provides(self) -> tuple[Quantity, ...]:  # type: ignore[override]  # as ``has_dispersion``
        """Quantities that all members provide."""
        first, *others = self.terms
        return tuple(row for row in first.provides if all(row in other.provides for other in others))

    @property
    def longest_wave(self) -> float | None:
        return max((wave for term in self.terms if (wave := term.longest_wave) is not None), default=None)

    def check(self, structure: Structure) -> None:
        for term in self.terms:
            term.check(structure)

    def factor_of(self, member: str) -> float:
        return 1 / len(self.terms)

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "*copies atoms slots 3"], space: Space | None = None) -> Atomic:
        count = len(self.terms)
        answers = self._answers(graph, vectors, space)
        weights = self.variable("constants", WEIGHTS, lambda: jnp.full(count, 1 / count, answers[0].energy.dtype)).value
        offsets = self.variable("constants", OFFSETS, lambda: jnp.zeros((count, 119), answers[0].energy.dtype)).value
        energies = jnp.stack([answer.energy for answer in answers], axis=1) + offsets.T[jnp.asarray(graph.numbers)]
        mean = functools.partial(jnp.einsum, "k,k...->...", weights)
        others = {row.name: [x for answer in answers if (x := answer.get(row)) is not None] for row in self.provides}
        known = {name: mean(jnp.stack(values)) for name, values in others.items() if values}
        return Atomic(
            energies @ weights,
            known.pop("charges", None),
            answers[0].latent,
            energies - jnp.mean(energies, axis=1, keepdims=True),
            known,
        )

    def _answers(self, graph: Graph, vectors: Array, space: Space | None) -> list[Atomic]:
        """Call all members; those of one architecture by one compiled loop over their variables."""
        # Without their places in this module, terms of one architecture are equal.
        alone = [term.clone(parent=None, name=None, _deep_clone=True, _reset_names=True) for term in self.terms]
        groups: dict[Term, list[int]] = {}
        for k, term in enumerate(alone):
            groups.setdefault(term, []).append(k)
        found: dict[int, Atomic] = {}
        for term, places in groups.items():
            kept = [geometry_of_member(k, graph, vectors, space, cutoff_of(term)) for k in places]
            if len(places) == 1 or self.is_initializing():
                for k, (near, v, s, lost) in zip(places, kept, strict=True):
                    found[k] = _nan_where(lost, call(self.terms[k], near, v, s))
                continue
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *(self._variables_of(k) for k in places))
            near, _, _, lost = kept[0]
            if vectors.ndim == 3:
                one = lambda v, term=term, near=near, geometry=kept[0]: nn.apply(call, term)(v, near, geometry[1], geometry[2])
                every = jax.lax.map(one, stacked)
            else:
                geometries = jax.tree.map(lambda *x: jnp.stack(x), *((v, s) for _, v, s, _ in kept))
                own = lambda x, term=term, near=near: nn.apply(call, term)(x[0], near, *x[1])
                every = jax.lax.map(own, (stacked, geometries))
            for place, k in enumerate(places):
                found[k] = _nan_where(lost, jax.tree.map(lambda x, place=place: x[place], every))
        return [found[k] for k in range(len(self.terms))]

    def _variables_of(self, k: int) -> dict[str, Any]:
        """Return the variables of a member, by collection."""
        name = f"terms_{k}"
        return {collection: part[name] for collection, part in self.variables.items() if name in part}


def geometry_of_member(
    k: int, graph: Graph, vectors: Float[Array, "*copies atoms slots 3"], space: Space | None, cutoff: float
) -> tuple[Graph, Float[Array, "atoms near 3"], Space | None, Array]:
    """Return graph, vectors (Å) and space of a member, by its place, and whether a neighbour within its cutoff is lost."""
    if vectors.ndim == 4:
        vectors = vectors[k]
        space = None if space is None else space._replace(positions=space.positions[k], cell=space.cell[k])
    near, v, lost = narrowed(graph, vectors, cutoff)
    return near, v, space, lost


def _nan_where(lost: Array, answer: Atomic) -> Atomic:
    return jax.tree.map(lambda x: jnp.where(lost, jnp.nan, x), answer)


def committee(potentials: Sequence[Potential]) -> Potential:
    """Join potentials of one level of theory, trained independently, to their mean; they may differ in architecture.

    E0 is the mean of theirs; how those of a member differ from it counts in its energies.

    Raises:
        ValueError: fewer than two, the same potential twice, different levels of theory, elements, charges or subtracted
            methods, or several heads.
    """
    first, *others = potentials
    digests = [(repr(p.term), variables_digest(p.variables)) for p in potentials]
    for k, digest in enumerate(digests):
        if digest in digests[:k]:
            raise ValueError(
                f"members {digests.index(digest)} and {k} of the committee are the same potential, whose spread says nothing; "
                "name each once"
            )
    for k, other in enumerate(others, 1):
        for what in ("level_of_theory", "elements", "subtracted"):
            a, b = (getattr(p.metadata, what) for p in (first, other))
            if a != b:
                shown = (symbols(a) or "none", symbols(b) or "none") if what == "elements" else (a or "none", b or "none")
                raise ValueError(f"members 0 and {k} of the committee differ in {what}: {shown[0]} and {shown[1]}")
    term = Committee(terms=tuple(p.term for p in potentials))
    tables = [dict(p.metadata.atomic_energies) for p in potentials]
    mean = {z: float(np.mean([table[z] for table in tables])) for z in first.elements}
    offsets = np.zeros((len(potentials), 119))
    for z, energy in mean.items():
        offsets[:, z] = [table[z] - energy for table in tables]
    variables: dict[str, dict[str, Any]] = {
        "constants": {
            WEIGHTS: jnp.full(len(potentials), 1 / len(potentials), first.dtype),
            OFFSETS: jnp.asarray(offsets, first.dtype),
        }
    }
    for k, potential in enumerate(potentials):
        for collection, part in potential.astype(first.dtype).variables.items():
            variables.setdefault(collection, {})[f"terms_{k}"] = part
    common = lambda name: tuple(sorted(set.intersection(*(set(getattr(p.metadata, name)) for p in potentials))))
    metadata = Metadata(
        atomic_energies=tuple(sorted(mean.items())),
        level_of_theory=first.metadata.level_of_theory,
        version=first.metadata.version,
        charges=common("charges"),
        spins=common("spins"),
        subtracted=first.metadata.subtracted,
    )
    return Potential(term, variables, metadata)
