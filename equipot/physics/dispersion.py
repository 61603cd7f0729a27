"""Dispersion between atoms: D3 with coefficients that follow the coordination numbers, and the three-body term alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from equipot import units
from equipot.data.batch import pad
from equipot.graph import Graph, computed_once, gather
from equipot.metadata import Metadata
from equipot.neighbors.shells import narrowed
from equipot.nn.features import check_elements, species_index
from equipot.physics.damping import BeckeJohnson, Zero
from equipot.physics.dispersion_reference import Reference, reference
from equipot.potential import Potential, initial
from equipot.quantities import DISPERSION_ENERGY, Quantity
from equipot.structure import Structure
from equipot.term import Atomic, Term, cutoff_of

__all__ = ["ATM", "D3", "correction"]

STEEPNESS = 16.0
"""k1 of the counting function."""
SHARPNESS = 4.0
"""k3 of the weights of reference molecules."""
BLOCK = 2**20
"""Number of triples that are computed at once."""


class Environment(NamedTuple):
    """Atoms with what their coefficients depend on."""

    species: Int[Array, " atoms"]
    known: Float[Array, " atoms"]
    """NaN for an atom whose element the term does not know, else 1."""
    weights: Float[Array, "atoms references"]
    """Weight of each reference molecule of the atom's element; their sum is 1."""
    table: Reference
    """Values by species."""

    def contracted(self) -> Float[Array, "atoms elements references"]:
        """Contract the reference C6 with the weights of each atom (eV Å^6)."""
        elements, references = self.table.coordination.shape
        c6 = jnp.swapaxes(self.table.c6, 1, 2).reshape(elements * references, -1)
        return (self.spread() @ c6).reshape(-1, elements, references)

    def spread(self) -> Float[Array, "atoms pairs"]:
        """Return the weights of the reference molecules of all elements; zero for elements other than the atom's."""
        elements = len(self.table.coordination)
        own = jax.nn.one_hot(self.species, elements, dtype=self.weights.dtype)
        return (own[:, :, None] * self.weights[:, None]).reshape(len(own), -1)


class Dispersive(Term):
    """Base of terms whose coefficients follow the coordination numbers of the atoms, as those of D3.

    The coordination number of an atom is the sum over its neighbours of 1 / (1 + exp(-16 (4 (R_i + R_j) / 3 r - 1))), with R
    the covalent radii. C6 of a pair is the mean over pairs of reference molecules a and b with the weights
    exp(-4 (CN_i - CN_a)^2 - 4 (CN_j - CN_b)^2); Grimme, Antony, Ehrlich and Krieg, J. Chem. Phys. 132, 154104 (2010).

    Energies fall to zero with two continuous derivatives over the last ``switch`` Å before the cutoff.
    """

    provides: ClassVar[tuple[Quantity, ...]] = (DISPERSION_ENERGY,)
    switch: float = 2.0
    """Width of the switch (Å); with 0, energies jump at the cutoff, as those of most programs do."""
    coordination_cutoff: float | None = None
    """Cutoff of the coordination numbers (Å); that of the energy where left out."""
    elements: tuple[int, ...] = ()
    """Atomic numbers that the term knows; taken from the data where left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_elements(self.elements)
        cutoff = self.cutoff
        if cutoff is not None and not 0 <= self.switch <= cutoff:
            raise ValueError(f"switch {self.switch:g} Å must be from 0 to the cutoff, {cutoff:g} Å")
        if cutoff is not None and self.coordination_cutoff is not None and not 0 < self.coordination_cutoff <= cutoff:
            raise ValueError(
                f"coordination_cutoff {self.coordination_cutoff:g} Å must be above 0 and at most the cutoff, {cutoff:g} Å"
            )

    @property
    def receptive_radius(self) -> float | None:
        # The coefficients of a pair follow the coordination numbers of both atoms.
        return None if self.cutoff is None else self.cutoff + (self.coordination_cutoff or self.cutoff)

    def table(self) -> Reference:
        """Return the reference values of the term's elements, which are constants of the potential.

        Raises:
            ValueError: the term has no elements.
        """
        if not self.elements:
            raise ValueError(f"{type(self).__name__} has no elements; give them, elements=(1, 6, 8) for example")
        start = lambda k: jnp.asarray(reference(self.elements)[k])
        return Reference(*(self.variable("constants", name, start, k).value for k, name in enumerate(Reference._fields)))

    def environment(self, graph: Graph, square: Float[Array, "atoms slots"], inside: Bool[Array, "atoms slots"]) -> Environment:
        """Compute the weights of the reference molecules of each atom from the coordination numbers.

        Args:
            graph: Graph with the elements.
            square: Squared distances, Å^2; any positive number where not ``inside``.
            inside: Whether a slot holds a neighbour within the cutoff.
        """
        table = Reference(*(jnp.asarray(x, square.dtype) for x in self.table()))
        species, known = species_index(graph.numbers, self.elements)
        own = table.covalent[species]
        reach = cutoff_of(self) if self.coordination_cutoff is None else self.coordination_cutoff

        def counted(square: Array, radii: Array) -> Array:
            r = jnp.sqrt(square)
            return jax.nn.sigmoid(STEEPNESS * (radii / r - 1)) * self.switched(r, reach)

        counts = with_slope(counted, square, own[:, None] + own[graph.neighbors])
        coordination = jnp.sum(jnp.where(inside, counts, 0), axis=1)
        there = table.coordination[species]
        # Far from all molecules the nearest counts alone.
        exponent = jnp.where(there < 0, -jnp.inf, -SHARPNESS * (coordination[:, None] - there) ** 2)
        return Environment(species, known.astype(square.dtype), jax.nn.softmax(exponent, axis=1), table)

    def switched(self, r: Float[Array, "*pairs"], cutoff: float) -> Float[Array, "*pairs"]:
        """Compute the factor of distances r (Å) that falls from 1 to 0 before a cutoff (Å)."""
        if self.switch == 0:
            return jnp.where(r < cutoff, 1, 0).astype(r.dtype)
        x = jnp.clip((cutoff - r) / self.switch, 0, 1)
        return x**3 * (x * (6 * x - 15) + 10)


class ATM(Dispersive):
    """Three-body dispersion of Axilrod, Teller and Muto, for a level of theory whose own dispersion, if any, is of pairs alone.

    E = s9 sum over triples of C9 (3 cos a cos b cos c + 1) / (r_ij r_ik r_jk)^3 / (1 + 6 x^-(alpha + 2)), with C9 =
    sqrt(C6_ij C6_ik C6_jk) in atomic units, a, b, c the angles of the triangle, and x the geometric mean of r / (4/3 R0) of the
    three pairs, as in D3. All three distances are below the cutoff; the switches of the three multiply the energy,
    of which each atom has a third.
    """

    has_three_body_dispersion: ClassVar[bool] = True
    cutoff: float | None = 8.0
    """Longest distance in a triple, Å."""
    s9: float = 1.0
    """Scale of the energy of triples."""
    scale: float = 4 / 3
    """Factor on R0."""
    alpha: float = 14.0
    """Exponent of the damping, less 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.s9 < math.inf:
            raise ValueError(f"s9 {self.s9} is the share of the energy of triples; it must not be negative")

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        atoms = self.environment(graph, *squares(graph, vectors, cutoff_of(self)))
        return dispersed(self.triples(graph, vectors, atoms) * atoms.known)

    def triples(self, graph: Graph, vectors: Float[Array, "atoms slots 3"], atoms: Environment) -> Float[Array, " atoms"]:
        """Compute a third of the energy of all triples of each atom, eV, a block of atoms at a time."""
        cutoff = cutoff_of(self)
        square, inside = squares(graph, vectors, cutoff)
        r = jnp.sqrt(square)
        n, slots = r.shape
        size = max(1, min(n, BLOCK // slots**2))
        blocks = -(-n // size)
        # Copies of the last atom, since zero is no sensible distance.
        longer = lambda x: jnp.pad(x, [(0, blocks * size - n)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        split = lambda x: longer(x).reshape(blocks, size, *x.shape[1:])
        left, right = atoms.contracted().reshape(n, -1), atoms.spread()
        contact = self.scale * atoms.table.contact

        @jax.checkpoint
        def block(of_block: tuple) -> Float[Array, " block"]:
            species, row, vectors, r, inside, neighbors = of_block
            apart = vectors[:, :, None] - vectors[:, None]
            square = jnp.sum(apart**2, axis=-1)
            both = inside[:, :, None] & inside[:, None] & (square < cutoff**2) & ~jnp.eye(slots, dtype=bool)[None]
            other = jnp.sqrt(jnp.where(both, square, 1))
            c6 = jnp.einsum("bi,bki->bk", row, right[neighbors])
            cube = c6[:, :, None] * c6[:, None] * jnp.einsum("bki,bli->bkl", left[neighbors], right[neighbors])
            c9 = jnp.sqrt(jnp.where(both, cube, 1) / units.hartree)
            kinds = atoms.species[neighbors]
            near, far = contact[species[:, None], kinds], contact[kinds[:, :, None], kinds[:, None]]
            a, b, c = jnp.broadcast_arrays(r[:, :, None] ** 2, r[:, None] ** 2, other**2)
            product = r[:, :, None] * r[:, None] * other
            cosines = 3 / 8 * (a + b - c) * (a + c - b) * (b + c - a) / product**2
            x = product / (near[:, :, None] * near[:, None] * far)
            damped = 1 / (1 + 6 * x ** (-(self.alpha + 2) / 3))
            end = self.switched(r, cutoff)
            switch = end[:, :, None] * end[:, None] * self.switched(other, cutoff)
            energy = c9 * (cosines + 1) / product**3 * damped * switch
            return self.s9 / 6 * jnp.sum(jnp.where(both, energy, 0), axis=(1, 2))

        parts = atoms.species, left, vectors, r, inside, graph.neighbors
        return jax.lax.map(block, tuple(map(split, parts))).reshape(-1)[:n]


class D3(Dispersive):
    """Dispersion correction D3 of a density functional, from C6 and C8 of all pairs and, if asked for, of triples.

    E = -sum over pairs of C6 g(r), with g the ``damping``. With a cutoff of 10, 15 or 20 Å, PBE's lacks 11, 2.7 or 1.0 meV
    per atom of the energy of NaCl, 8, 2.2 or 0.9 of them without the switch.
    """

    has_dispersion: ClassVar[bool] = True
    cutoff: float | None = 15.0
    """Longest distance of a pair, Å."""
    functional: str = ""
    """Density functional, such as pbe; not needed where the damping has all its parameters."""
    damping: BeckeJohnson | Zero = BeckeJohnson()
    """Damping at short distance."""
    three_body: ATM | None = None
    """Energy of triples; null for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "damping", self.damping.of(self.functional))
        three = self.three_body
        if three is not None and self.cutoff is not None and cutoff_of(three) > self.cutoff:
            raise ValueError(f"three_body.cutoff {three.cutoff:g} Å is longer than the cutoff, {self.cutoff:g} Å; shorten it")

    @property
    def has_three_body_dispersion(self) -> bool:  # type: ignore[override]  # of an object, where others have it of a class
        """Whether there is a ``three_body`` part."""
        return self.three_body is not None

    @property
    def inner_cutoffs(self) -> tuple[float, ...]:
        three = self.three_body
        return () if three is None or three.cutoff == self.cutoff else (cutoff_of(three),)

    @nn.compact
    def __call__(self, graph: Graph, vectors: Float[Array, "atoms slots 3"]) -> Atomic:
        cutoff = cutoff_of(self)
        square, inside = squares(graph, vectors, cutoff)
        atoms = self.environment(graph, square, inside)
        species, moment = atoms.species, atoms.table.moment[atoms.species]
        ratio = 3 * moment[:, None] * moment[graph.neighbors]
        contact = atoms.table.contact[species[:, None], species[graph.neighbors]]
        damped = lambda square, *pair: self.damping(square, *pair) * self.switched(jnp.sqrt(square), cutoff)
        factors = jnp.where(inside, with_slope(damped, square, ratio, contact), 0)
        # Each pair is in two slots, and half of its energy belongs to either atom.
        energy = -0.5 * times_c6(factors, graph, atoms)
        if self.three_body is not None:
            near, short, lost = narrowed(graph, vectors, cutoff_of(self.three_body))
            energy += jnp.where(lost, jnp.nan, self.three_body.triples(near, short, atoms))
        return dispersed(energy * atoms.known)


def dispersed(energy: Float[Array, " atoms"]) -> Atomic:
    """Return the energy of dispersion of each atom (eV) as the energy, and as a part of it."""
    return Atomic(energy, others={DISPERSION_ENERGY.name: energy})


def correction(term: Dispersive, elements: Iterable[int]) -> Potential:
    """Make a potential of a dispersion term alone, which ``physics.sum.add`` adds to another: E0 of its elements is zero.

    Args:
        term: Term.
        elements: Atomic numbers.
    """
    known = tuple(sorted(elements))
    term = term.clone(elements=known)
    atom = Structure(np.array(known[:1]), np.zeros((1, 3)))
    variables = initial(term, jax.random.key(0), pad([atom], cutoff_of(term)))
    name = "D3" if term.has_dispersion else "ATM"
    return Potential(term, variables, Metadata(tuple((z, 0.0) for z in known), level_of_theory=name))


def squares(
    graph: Graph, vectors: Float[Array, "atoms slots 3"], cutoff: float
) -> tuple[Float[Array, "atoms slots"], Bool[Array, "atoms slots"]]:
    """Compute the squared distances (Å^2) of the slots within a cutoff (Å), 1 in other slots, and which slots these are."""
    # The derivative by the square is then computed once as well, not once for each component of the vector.
    square = computed_once(jnp.sum(vectors**2, axis=-1), graph, 0.0)
    inside = jnp.asarray(graph.slot_mask & (square < cutoff**2))
    return jnp.where(inside, square, 1), inside


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_slope(function: Callable[..., Array], x: Array, *constants: Array) -> Array:
    """Compute an elementwise function of ``x`` and of arrays that are not differentiated by.

    Value and slope are computed in one pass, instead of many intermediate values that are kept for the backward pass.
    """
    return function(x, *constants)


@with_slope.defjvp
def _(function: Callable[..., Array], primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    x, *constants = primals
    value, slope = jax.jvp(lambda x: function(x, *constants), (x,), (jnp.ones_like(x),))
    return value, slope * tangents[0]


@jax.custom_jvp
def times_c6(factors: Float[Array, "atoms slots"], graph: Graph, atoms: Environment) -> Float[Array, " atoms"]:
    """Compute sum_j f_ij C6_ij of each atom i, C6 in eV Å^6, for factors f of the slots.

    Of ``atoms``, only the weights are differentiated by. With w_i the weights and T_i[k] = sum_a w_i,a C6_a of the pairs of
    atom i and the species k, C6_ij = w_i . T_j[k_i] = T_i[k_j] . w_j, whose two halves give the derivatives by w_i and w_j
    without a scatter by species.
    """
    rows = _rows(atoms, atoms.species[:, None], jnp.asarray(graph.neighbors))
    return jnp.sum(factors * jnp.sum(atoms.weights[:, None] * rows, axis=-1), axis=1)


@times_c6.defjvp
def _(primals: tuple[Array, Graph, Environment], tangents: tuple[Array, Any, Any]) -> tuple[Array, Array]:
    factors, graph, atoms = primals
    moved, weights = tangents[0], tangents[2].weights
    rows = _rows(atoms, atoms.species[:, None], jnp.asarray(graph.neighbors))
    c6 = jnp.sum(atoms.weights[:, None] * rows, axis=-1)
    own = jnp.sum(jnp.sum(factors[..., None] * rows, axis=1) * weights, axis=1)
    others = _rows(atoms, atoms.species[graph.neighbors], jnp.arange(len(factors))[:, None])
    change = c6 * moved + factors * jnp.sum(others * gather(weights, graph), axis=-1)
    return jnp.sum(factors * c6, axis=1), jnp.sum(change, axis=1) + own


def _rows(atoms: Environment, species: Int[Array, "..."], of: Int[Array, "..."]) -> Float[Array, "atoms slots references"]:
    """Select T_j[k] of an atom j (``of``) and a species k for each slot; the two are broadcast against each other."""
    count, references = atoms.table.coordination.shape
    return atoms.contracted().reshape(-1, references)[of * count + species]
