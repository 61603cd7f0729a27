"""A term: a contribution to the energy of a graph, as a frozen linen module, and what the term says about each atom."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from equipot.graph import Graph
from equipot.quantities import BORN_CHARGES, DIPOLE, POLARIZABILITY, Quantity
from equipot.structure import Structure

__all__ = ["Atomic", "Scope", "Space", "Term", "cutoff_of", "walk"]

NEEDS = ("space", "charge", "spin", "field")
"""What a term can depend on besides edge vectors and elements."""


class Atomic(NamedTuple):
    """Values of a term for each atom."""

    energy: Float[Array, " atoms"]
    """Interaction energy of each atom, without E0 of the isolated atom, eV."""
    charges: Float[Array, " atoms"] | None = None
    """Partial charge of each atom, e."""
    latent: Float[Array, "atoms features"] | None = None
    """Invariant descriptor of each atom, for novelty."""
    features: Float[Array, "atoms features"] | None = None
    """Numbers f_i of each atom that the last linear layer acts on, in eV for weights of order one: the energy is f_i . w but
    for a part that does not depend on these weights. None for a term without such a layer."""
    others: Mapping[str, Float[Array, "atoms ..."]] = {}
    """Values of further quantities that the term ``provides``, by name; a quantity of a graph is the sum over the atoms."""

    def get(self, quantity: Quantity) -> Float[Array, "atoms ..."] | None:
        """Return a quantity's value for each atom, or None where the term does not provide the quantity."""
        own = getattr(self, quantity.name) if quantity.name in self._fields else None
        return self.others.get(quantity.name) if own is None else own


class Space(NamedTuple):
    """Positions and cell, for terms whose energy is not a function of the edge vectors alone."""

    positions: Float[Array, "*copies atoms 3"]
    """Å, not wrapped into the cell. Padding atoms are at zero: sums over atoms must leave them out (``graph.node_mask``)."""
    cell: Float[Array, "*copies graphs 3 3"]
    """Lattice vectors as rows, Å; rows of zeros are completed, see ``graph.complete_cell``."""
    repeats: Bool[Array, "graphs 3"]
    """Whether a row of ``cell`` is a lattice vector along which the system repeats."""


class Scope(NamedTuple):
    """Where the variables of a member of a term are."""

    path: tuple[str, ...]
    """Path within each collection of the term's variables; empty for a member that shares the term's scope."""
    constant: bool = False
    """Whether the member is not trained: all of its collections are below ``path`` in the term's ``constants``."""

    def outside(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """Return the path of a variable in the term from that in the member; a path begins with the collection."""
        return ("constants", *self.path, *path) if self.constant else (path[0], *self.path, *path[1:])

    def inside(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the path of a variable in the member from that in the term; None for a variable outside of the scope."""
        rest = path[1 + len(self.path) :]
        if path[1 : 1 + len(self.path)] != self.path or (self.constant and path[0] != "constants"):
            return None
        return rest if self.constant else (path[0], *rest)


class Term(nn.Module):
    """A contribution to the energy: frozen hyper-parameters, called with a graph and its edge vectors.

    A term sees distances only through ``vectors``. Whatever else the energy depends on is named in ``needs``: a term is called
    with a graph without positions, cell, charge, spin and electric field unless these are named, so that no dependence can
    escape the one backward pass. Trained variables are in the collection ``params``; variables that are taken from data are in
    ``constants``.

    A call must mask the slots that hold no neighbour (``graph.slot_mask``), give an atom of an unknown element the energy NaN,
    and count half of the energy of a pair, since each pair stands in a slot of either atom. Variables are declared as in any
    linen module. ``physics/lennard_jones.py`` is a short example; ``equipot.testing.laws`` checks all of this.
    """

    builtin_kinds: ClassVar[dict[str, str]] = {
        "Electrostatics": "equipot.physics.electrostatics:Electrostatics",
        "ATM": "equipot.physics.dispersion:ATM",
        "Committee": "equipot.physics.committee:Committee",
        "D3": "equipot.physics.dispersion:D3",
        "FromData": "equipot.models.from_data:FromData",
        "MACE": "equipot.models.mace:MACE",
        "NequIP": "equipot.models.nequip:NequIP",
        "Sum": "equipot.physics.sum:Sum",
        "ZBL": "equipot.physics.zbl:ZBL",
        "Guarded": "equipot.physics.guard:Guarded",
        "potential": "equipot.physics.imported:Imported",
    }
    """Values of ``kind`` in a config, besides ``package.module:Class``."""
    list_kind: ClassVar[tuple[str, str]] = ("Sum", "terms")
    """The kind that a list in a config stands for, and the key of that list."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Names from ``NEEDS`` of what the energy depends on: ``space`` adds the argument ``space`` to the call; ``charge``,
    ``spin`` and ``field`` stay in the graph."""
    provides: ClassVar[tuple[Quantity, ...]] = ()
    """Quantities that the term predicts, in ``Atomic.others`` unless ``Atomic`` has a field of that name, and is trained on."""
    has_dispersion: ClassVar[bool] = False
    """Whether the term is a correction for dispersion, which a level of theory must have only once."""
    has_three_body_dispersion: ClassVar[bool] = False
    """Whether the term corrects the dispersion of triples."""
    own_constants: ClassVar[tuple[str, ...]] = ()
    """Names of the term's own constants, for a term whose member shares its scope."""
    cutoff: float | None = None
    """Å. Training chooses a cutoff that is left out, see ``equipot.data.stats.typical_cutoff``; all other uses need one."""

    def __post_init__(self) -> None:
        """Check the cutoff.

        Raises:
            ValueError: the cutoff is not a positive number.
        """
        if self.cutoff is not None and not 0 < self.cutoff < math.inf:
            raise ValueError(f"cutoff {self.cutoff:g} Å of {type(self).__name__} must be positive and finite, 5.0 for example")
        super().__post_init__()

    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        """Compute the energy of each atom and the quantities that the term provides.

        A term that needs ``space`` takes a third argument, ``space``.

        Args:
            vectors: from each atom to the neighbours in its slots, Å.
        """
        raise NotImplementedError

    @property
    def longest_wave(self) -> float | None:
        """Length (1/Å) of the longest reciprocal vector that a term with ``space`` sums over; 0 for a term that has ``space``
        but no waves, None for a term without ``space``."""
        return 0.0 if "space" in self.needs else None

    @property
    def receptive_radius(self) -> float | None:
        """Distance (Å) within which other atoms change the energy of an atom: the cutoff times the number of layers that pass
        messages. None where that is not bounded, as for a term with ``space``, or where a term does not say it."""
        return None

    @property
    def copies(self) -> int:
        """Number of members that each take a geometry of their own where there is an axis of that length before all others
        of ``vectors`` and ``space``; 0 for a term that takes a single geometry."""
        return 0

    @property
    def learns_from(self) -> tuple[Quantity, ...]:
        """Quantities of which the training data must label at least one; none for a term that needs no labels of its own."""
        return ()

    def check(self, structure: Structure) -> None:
        """Raise ValueError for a structure that the term does not apply to, with the structure's name and a remedy."""

    @property
    def responses(self) -> tuple[Quantity, ...]:
        """Derivatives of the dipole moment that follow from what the term provides."""
        by_positions = (BORN_CHARGES,) if DIPOLE in self.provides else ()
        return (*by_positions, POLARIZABILITY) if by_positions and "field" in self.needs else by_positions

    @property
    def has_elements(self) -> bool:
        """Whether the term has a field ``elements``: atomic numbers, taken from the data where they are left out."""
        return any(field.name == "elements" for field in dataclasses.fields(self))

    def natural_cutoff(self, elements: tuple[int, ...]) -> float | None:
        """Return the distance (Å) beyond which the energy vanishes without a cutoff, between ``elements``; None for no such."""
        return None

    @property
    def averaging_cutoff(self) -> float | None:
        """Cutoff (Å) within which the mean number of neighbours is counted; None for a term that has no use for that number."""
        return None

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        """Cutoffs (Å) of parts that see less far than the term, for which lists plan ``Shell``s; ascending."""
        return ()

    @property
    def members(self) -> dict[str, Term]:
        """Terms that the term is made of, by the names of its fields: ``base``, or ``terms_0`` for the first of a tuple."""
        found: dict[str, Any] = {}
        for field in (field for field in dataclasses.fields(self) if field.name != "parent"):
            value = getattr(self, field.name)
            found[field.name] = value
            if isinstance(value, tuple):
                found |= {f"{field.name}_{k}": member for k, member in enumerate(value)}
        return {name: value for name, value in found.items() if isinstance(value, Term)}

    def with_members(self, members: Mapping[str, Term]) -> Term:
        """Return the term with other members in place of those of these names."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in members:
                changes[field.name] = members[field.name]
            elif isinstance(value, tuple) and any(f"{field.name}_{k}" in members for k in range(len(value))):
                changes[field.name] = tuple(members.get(f"{field.name}_{k}", member) for k, member in enumerate(value))
        return self.clone(**changes)

    def scope_of(self, member: str) -> Scope:
        """Return where the variables of a member are, by its name in ``members``."""
        return Scope((member,))

    def path_in_member(self, member: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the path of a variable in a member from that in the term; None for a variable that is not the member's."""
        own = path[0] == "constants" and path[1] in self.own_constants
        return None if own else self.scope_of(member).inside(path)

    def factor_of(self, member: str) -> float:
        """Return the constant factor on the energy of a member, by its name in ``members``."""
        return 1.0

    @property
    def trained_members(self) -> dict[str, Term]:
        """Members whose variables are those of the term in the same collections."""
        return {name: member for name, member in self.members.items() if not self.scope_of(name).constant}

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the levels of theory among which a graph's ``head`` chooses: those of the trained members; none for a term
        with a single one."""
        return next((names for member in self.trained_members.values() if (names := member.head_names)), ())

    @property
    def can_have_heads(self) -> bool:
        """Whether the term can have several heads: whether one of its trained members can."""
        return any(member.can_have_heads for member in self.trained_members.values())

    def with_heads(self, names: tuple[str, ...]) -> Term:
        """Return the term for several levels of theory, or for a single one without a name.

        Raises:
            ValueError: the term cannot have several heads.
        """
        able = {name: member for name, member in self.trained_members.items() if member.can_have_heads}
        if not able:
            raise ValueError(f"{type(self).__name__} cannot have several heads; use one of equipot's networks")
        return self.with_members({name: member.with_heads(names) for name, member in able.items()})

    def at_least(self, least: int, *names: str) -> None:
        """Raise ValueError for a hyper-parameter among ``names`` that is smaller than ``least``."""
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} must be at least {least}")


def walk(term: Term) -> Iterator[Term]:
    """Return a term, the terms that it is made of, those that these are made of, and so on."""
    yield term
    for member in term.members.values():
        yield from walk(member)


def largest_radius(terms: Iterable[Term]) -> float | None:
    """Return the largest receptive radius of some terms (Å); None if that of any is not bounded or not known."""
    found = [term.receptive_radius for term in terms]
    return None if None in found else max((radius for radius in found if radius is not None), default=None)


def cutoff_of(term: Term) -> float:
    """The cutoff of a term, Å.

    Raises:
        ValueError: it has none.
    """
    if term.cutoff is None:
        raise ValueError(f"{type(term).__name__} has no cutoff; give one in Å, cutoff=5.0 for example")
    return term.cutoff


def call(term: Term, graph: Graph, vectors: Float[Array, "*copies atoms slots 3"], space: Space | None) -> Atomic:
    """Call a term, bound to its variables, with only those parts of a graph that the term needs."""
    hidden = {name: None for name in ("positions", "cell", "charge", "spin", "field") if name not in term.needs}
    graph = graph.replace(**hidden)
    return term(graph, vectors, space=space) if "space" in term.needs else term(graph, vectors)  # type: ignore[call-arg]
