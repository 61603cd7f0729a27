"""Sums of terms, and of potentials."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from equipot.graph import Graph
from equipot.metadata import Head, Metadata, Method, dispersion_of
from equipot.neighbors.shells import narrowed
from equipot.physics.imported import Imported
from equipot.potential import Potential
from equipot.quantities import Quantity
from equipot.structure import Structure
from equipot.term import NEEDS, Atomic, Scope, Space, Term, call, cutoff_of, largest_radius

__all__ = ["Sum", "add"]


class Sum(Term):
    """Terms whose energies are added: E_i = sum_k factor_k E_k,i. In YAML, a list under ``model`` stands for one.

    A ``cutoff`` given to the sum is that of every term which leaves it out, unless the term's energy ends before; afterwards
    ``cutoff`` is the largest one. Each term sees the neighbours within its own cutoff. Charges and further quantities are those
    of the one term that provides them; latent features of several terms are put side by side.
    """

    cutoff: float | None = dataclasses.field(default=None, kw_only=True)
    """Å."""
    terms: tuple[Term, ...] = ()
    """Terms that are added."""
    factors: tuple[float, ...] | None = None
    """Constant factor on the energy of each term; 1 where left out."""
    frozen: tuple[int, ...] = ()
    """Places of terms that are not trained: all their variables are constants."""
    elements: tuple[int, ...] = ()
    """Atomic numbers of the terms that have a table of elements and are trained; taken from the data where left out. Frozen
    terms keep their own."""

    def __post_init__(self) -> None:
        self._check()
        known = {tuple(term.elements) for term in self._trained if term.has_elements and term.elements}
        if not self.elements and len(known) > 1:
            shown = " and ".join(str(list(zs)) for zs in sorted(known))
            raise ValueError(f"elements of the terms differ: {shown}; give all the same")
        elements = self.elements or next(iter(known), ())
        ending = [ended(term, self.cutoff, elements) for term in self.terms]
        held = lambda k, term: () if k in self.frozen and term.has_elements and term.elements else elements
        members = [filled(term, self.cutoff, held(k, term)) for k, term in enumerate(ending)]
        # One object named twice would be one set of variables.
        terms = tuple(term.clone() if any(term is other for other in members[:k]) else term for k, term in enumerate(members))
        cutoffs = [term.cutoff for term in terms if term.cutoff is not None]
        cutoff = None if len(cutoffs) < len(terms) else max(cutoffs)
        if self.cutoff is not None and self.cutoff != cutoff and all(term.cutoff is not None for term in self.terms):
            raise ValueError(f"cutoff {self.cutoff} Å of a Sum is not the largest of its terms, {cutoff} Å; leave it out")
        for name, value in (("terms", terms), ("cutoff", cutoff), ("elements", elements)):
            object.__setattr__(self, name, value)
        super().__post_init__()

    def _check(self) -> None:
        if not self.terms:
            raise ValueError("terms is empty: a Sum needs at least one term")
        if self.factors is not None and len(self.factors) != len(self.terms):
            raise ValueError(f"factors has {len(self.factors)} numbers for {len(self.terms)} terms; give one for each")
        if not all(math.isfinite(factor) for factor in self.factors or ()):
            raise ValueError(f"factors {list(self.factors or ())} must be numbers")
        if len(set(self.frozen)) < len(self.frozen):
            raise ValueError(f"frozen: {list(self.frozen)} names a term twice")
        wrong = [k for k in self.frozen if not 0 <= k < len(self.terms)]
        if wrong:
            raise ValueError(f"frozen: there is no term {wrong[0]}; the {len(self.terms)} terms are counted from 0")
        rows = [row.name for term in self.terms for row in term.provides if not row.energy_part]
        twice = sorted({name for name in rows if rows.count(name) > 1})
        if twice:
            raise ValueError(f"terms: more than one provides {twice[0]}; keep one of them")
        if sum(term.has_dispersion for term in self.terms) > 1:
            raise ValueError("terms: more than one corrects dispersion, which would be counted twice; keep one of them")
        if sum(term.has_three_body_dispersion for term in self.terms) > 1:
            raise ValueError("terms: more than one corrects the dispersion of triples; keep one ATM, or three_body of D3")
        headed = [type(self.terms[k]).__name__ for k in self.frozen if self.terms[k].head_names]
        if headed:
            raise ValueError(f"terms: {headed[0]} is frozen and has several heads; choose one with potential.head")
        several = {names for term in self._trained if (names := term.head_names)}
        if len(several) > 1:
            shown = " and ".join(str(list(names)) for names in sorted(several))
            raise ValueError(f"terms: heads differ: {shown}; give all the same, or choose one with potential.head")

    @property
    def _trained(self) -> tuple[Term, ...]:
        return tuple(term for k, term in enumerate(self.terms) if k not in self.frozen)

    @property
    def has_elements(self) -> bool:
        return any(term.has_elements for term in self._trained)

    @property
    def averaging_cutoff(self) -> float | None:
        """The longest of those of the terms that are trained."""
        return max((c for term in self._trained if (c := term.averaging_cutoff) is not None), default=None)

    @property
    def receptive_radius(self) -> float | None:
        """The largest one of the terms; None if that of any is."""
        return largest_radius(self.terms)

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Cutoffs (Å) of terms and of their parts that are shorter than the cutoff of the sum."""
        found = {c for term in self.terms for c in (term.cutoff, *term.inner_cutoffs) if c is not None}
        return tuple(sorted(c for c in found if self.cutoff is not None and c < self.cutoff))

    @property
    def has_dispersion(self) -> bool:  # type: ignore[override]  # as ``needs``
        """Whether any of the terms is a correction for dispersion."""
        return any(term.has_dispersion for term in self.terms)

    @property
    def has_three_body_dispersion(self) -> bool:  # type: ignore[override]  # as ``needs``
        """Whether any of the terms corrects the dispersion of triples."""
        return any(term.has_three_body_dispersion for term in self.terms)

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # of the terms of an object, where others have it of a class
        """What any of the terms needs."""
        found = {name for term in self.terms for name in term.needs}
        return (*(name for name in NEEDS if name in found), *sorted(found - set(NEEDS)))

    @property
    def provides(self) -> tuple[Quantity, ...]:  # type: ignore[override]  # as ``needs``
        """Quantities that any of the terms provides; factors act on energies and parts of them alone."""
        return tuple(dict.fromkeys(row for term in self.terms for row in term.provides))

    @property
    def longest_wave(self) -> float | None:
        return max((wave for term in self.terms if (wave := term.longest_wave) is not None), default=None)

    @property
    def learns_from(self) -> tuple[Quantity, ...]:
        return tuple(row for term in self._trained for row in term.learns_from)

    def check(self, structure: Structure) -> None:
        for term in self.terms:
            term.check(structure)

    def place_of(self, member: str) -> int:
        """Return the place of a term by its name in ``members``."""
        return list(self.members).index(member)

    def factor_of(self, member: str) -> float:
        return 1.0 if self.factors is None else self.factors[self.place_of(member)]

    def scope_of(self, member: str) -> Scope:
        k = self.place_of(member)
        return Scope((f"frozen_{k}",), constant=True) if k in self.frozen else Scope((member,))

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"], space: Space | None = None) -> Atomic:
        found = [self._answer(k, graph, vectors, space) for k in range(len(self.terms))]
        factors = self.factors or (1.0,) * len(found)
        # Parts of the energy are added as the energy is.
        added = lambda values: functools.reduce(
            jnp.add, (factor * value for factor, value in zip(factors, values, strict=True) if value is not None)
        )
        charges = [answer.charges for answer in found if answer.charges is not None]
        if len(charges) > 1:
            raise ValueError("more than one term of the Sum provides charges; keep one of them")
        latent = [answer.latent for answer in found if answer.latent is not None]
        features = [factor * x.features for factor, x in zip(factors, found, strict=True) if x.features is not None]
        others = {name: value for answer in found for name, value in answer.others.items()}
        others |= {row.name: added(answer.get(row) for answer in found) for row in self.provides if row.energy_part}
        side_by_side = lambda values: jnp.concatenate(values, axis=-1) if values else None
        energy = added(answer.energy for answer in found)
        return Atomic(energy, charges[0] if charges else None, side_by_side(latent), side_by_side(features), others)

    def _answer(self, k: int, graph: Graph, vectors: Array, space: Space | None) -> Atomic:
        """Call a term with the neighbours within its own cutoff."""
        graph, vectors, lost = narrowed(graph, vectors, cutoff_of(self.terms[k]))
        answer = self._called(k, graph, vectors, space)
        # Nothing that is said of atoms without all of their neighbours is a number.
        return jax.tree.map(lambda x: jnp.where(lost, jnp.nan, x), answer)

    def _called(self, k: int, graph: Graph, vectors: Array, space: Space | None) -> Atomic:
        term = self.terms[k]
        if k not in self.frozen:
            return call(term, graph, vectors, space)
        alone = term.clone(parent=None, name=None)
        start = lambda: nn.init(call, alone)(self.make_rng("params"), graph, vectors, space)
        return nn.apply(call, alone)(self.variable("constants", f"frozen_{k}", start).value, graph, vectors, space)


def ended(term: Term, cutoff: float | None, elements: tuple[int, ...]) -> Term:
    """Return a member of a composition with the cutoff (Å) at which it ends by itself, if it has none and does so."""
    if term.cutoff is not None or (end := term.natural_cutoff(elements)) is None:
        return term
    return term.clone(cutoff=end if cutoff is None else min(end, cutoff))


def filled(term: Term, cutoff: float | None, elements: tuple[int, ...]) -> Term:
    """Return a member of a composition with the cutoff (Å), if it has none, and the elements of the whole."""
    changes: dict[str, Any] = {}
    if isinstance(term, Imported):
        return term
    if term.cutoff is None and cutoff is not None:
        changes["cutoff"] = cutoff
    if term.has_elements and elements and tuple(term.elements) != elements:
        changes["elements"] = elements
    # The same object where nothing changes: linen takes terms over by identity.
    return term.clone(**changes) if changes else term


def add(potentials: Sequence[Potential], factors: Sequence[float] | None = None, frozen: Sequence[int] = ()) -> Potential:
    """The potential whose energy is the sum of those of ``potentials``, each times its factor; see ``Sum``.

    E0 is the same sum over the isolated atoms; elements, charges and spins are those that all of them know. To learn the
    difference to a potential, add a new one to it, with the place of the first in ``frozen``, and fine-tune the sum.

    Raises:
        ValueError: what ``Sum`` refuses, no element that all of them know, no charge that all of them were trained on, a
            second dispersion, or a correction to a method with a factor or beside another one.
    """
    terms = tuple(p.term for p in potentials)
    # One level of theory, under no name, for a potential without heads.
    single = lambda p: Head("", p.metadata.atomic_energies, p.metadata.level_of_theory)
    levels = [{head.name: head for head in p.metadata.heads or (single(p),)} for p in potentials]
    for k, other in enumerate(terms):
        for place in (place for place in range(len(levels)) if place != k and other.has_dispersion):
            for head in levels[place].values():
                refuse_second_dispersion(head.level_of_theory, potentials[place].metadata.subtracted)
    term = Sum(terms=terms, factors=None if factors is None else tuple(factors), frozen=tuple(frozen))
    variables: dict[str, dict[str, Any]] = {}
    for k, potential in enumerate(potentials):
        if k in frozen:
            variables.setdefault("constants", {})[f"frozen_{k}"] = potential.variables
            continue
        for collection, part in potential.variables.items():
            variables.setdefault(collection, {})[f"terms_{k}"] = part
    common = set.intersection(*(set(p.elements) for p in potentials))
    if not common:
        raise ValueError("the potentials know no element in common, so that their sum would know none")
    weights = term.factors or (1.0,) * len(potentials)
    heads = [_added(name, levels, weights) for name in term.head_names or ("",)]
    recorded = [p.metadata for p in potentials if p.metadata.charges]
    charges, spins = (_common(values) for values in ([m.charges for m in recorded], [m.spins for m in recorded]))
    if recorded and not charges:
        raise ValueError("the potentials were trained on no charge in common, so that their sum would know none")
    metadata = Metadata(charges=charges, spins=spins, subtracted=_method(potentials, weights))
    if term.head_names:
        zero = tuple((z, 0.0) for z in sorted(common))
        return Potential(term, variables, dataclasses.replace(metadata, atomic_energies=zero, heads=tuple(heads)))
    (only,) = heads
    metadata = dataclasses.replace(metadata, atomic_energies=only.atomic_energies, level_of_theory=only.level_of_theory)
    return Potential(term, variables, metadata)


def _added(name: str, levels: Sequence[Mapping[str, Head]], factors: Sequence[float]) -> Head:
    """Return E0 and the level of theory of one head of a sum; potentials without heads count for every head."""
    mine = [heads[name] if name in heads else heads[""] for heads in levels]
    tables = [dict(head.atomic_energies) for head in mine]
    known = sorted(set.intersection(*map(set, tables)))
    energies = tuple((z, sum(factor * table[z] for factor, table in zip(factors, tables, strict=True))) for z in known)
    return Head(name, energies, " + ".join(dict.fromkeys(head.level_of_theory for head in mine if head.level_of_theory)))


def refuse_second_dispersion(level_of_theory: str, subtracted: Method | None = None) -> None:
    """Check that a correction for dispersion may be added to a level of theory, and to a method that is added as well.

    Raises:
        ValueError: the level of theory or the method includes dispersion.
    """
    if subtracted is not None and (name := subtracted.dispersion) is not None:
        raise ValueError(
            f"{subtracted.name}, which is added to the potential, has dispersion already ({name}), and a correction would "
            "count it twice beyond the reach of the network; leave the correction out, or subtract another method"
        )
    if (name := dispersion_of(level_of_theory)) is not None:
        raise ValueError(
            f"level of theory {level_of_theory}: {name} is dispersion already, and a correction would count it twice; leave "
            "the correction out, or take a potential of the functional alone"
        )


def _method(potentials: Sequence[Potential], factors: Sequence[float]) -> Method | None:
    """Return the method that one of some potentials, with the factor 1, is a correction to."""
    found = [(p.metadata.subtracted, factor) for p, factor in zip(potentials, factors, strict=True) if p.metadata.subtracted]
    if not found:
        return None
    (method, factor), *others = found
    if others or factor != 1:
        raise ValueError(
            f"a potential that is a correction to {method.name} can be added with the factor 1 only, and beside no other such "
            "correction: the method is added once"
        )
    return method


def _common(lists: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the values in all of some lists, ascending; none for no lists."""
    return tuple(sorted(set(lists[0]).intersection(*lists[1:]))) if lists else ()
