"""Electrostatic potentials of the charges of a batch: direct sums in open systems, reciprocal sums in crystals and slabs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erf, erfc
from jaxtyping import Array, Bool, Float

from equipot.graph import Graph
from equipot.physics.ewald import COULOMB, Crystal, WaveSum, covers, longest_wave, wave_felt, wave_potentials, with_vacuum
from equipot.physics.mesh import ParticleMesh
from equipot.physics.rows import Rows, rows_of
from equipot.term import Space

MOST_PAIRS = 2**22
"""Pairs of a system beyond which a direct sum goes through its atoms in blocks."""


@dataclass(frozen=True)
class Gaussians:
    """Charges that are Gaussian densities: their interaction is damped at short distance, and a network learns the rest.

    Two charges of the standard deviation w interact as erf(r / (2 w)) / r.
    """

    width: float = 1.0
    """w, Å."""
    tolerance: float = 1e-9
    """Factor exp(-w^2 k^2) of a wave below which reciprocal vectors are left out."""

    def __post_init__(self) -> None:
        _check_positive("width", self.width, "Å")
        _check_tolerance(self.tolerance)

    @property
    def smearing(self) -> float:
        """Smearing of the interaction of two charges, sqrt(2) w (Å)."""
        return math.sqrt(2) * self.width

    @property
    def own(self) -> float:
        """Limit of ``pair`` at zero distance, 1/Å: twice the energy of a unit charge with itself, in units of Ke."""
        return 1 / (math.sqrt(math.pi) * self.width)

    def pair(self, r: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        """Compute the interaction of two unit charges at distances r > 0 (Å) in units of Ke: 1/Å."""
        return erf(r / (math.sqrt(2) * self.smearing)) / r

    def pair_slopes(self, r: Float[Array, "*pairs"]) -> tuple[Float[Array, "*pairs"], ...]:
        """Compute f = ``pair`` (1/Å), f' / r (1/Å^3) and (f' / r)' / r (1/Å^5), of which interactions of dipoles are made."""
        s = self.smearing
        f, density = self.pair(r), math.sqrt(2 / math.pi) / s * jnp.exp(-((r / s) ** 2) / 2)
        once = (density - f) / r**2
        return f, once, -(density / s**2 + 3 * once) / r**2

    def remainder(self, r: Float[Array, "*pairs"]) -> Float[Array, "*pairs"] | None:
        """Compute what the waves leave out, 1/Å; None where that is nothing."""
        return None

    @property
    def left_out(self) -> float:
        """Integral of ``remainder`` over all space, Å^2."""
        return 0.0


@dataclass(frozen=True)
class Points:
    """Point charges, 1/r at every distance. What waves leave out in crystals and slabs is summed within the cutoff."""

    smearing: float = 1.0
    """Smearing s (Å) of the part that is summed over waves; erfc(cutoff / (sqrt(2) s)) of each pair is lost."""
    tolerance: float = 1e-9
    """Factor exp(-s^2 k^2 / 2) of a wave below which reciprocal vectors are left out."""

    def __post_init__(self) -> None:
        _check_positive("smearing", self.smearing, "Å")
        _check_tolerance(self.tolerance)

    @property
    def own(self) -> float:
        """Refuse charges that must have an energy with themselves.

        Raises:
            ValueError: always: that of a point charge is infinite.
        """
        raise ValueError("equilibrated charges need the kernel Gaussians: a point charge has an infinite energy with itself")

    def pair(self, r: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        """Compute 1/r, 1/Å."""
        return 1 / r

    def remainder(self, r: Float[Array, "*pairs"]) -> Float[Array, "*pairs"] | None:
        """Compute what the waves leave out, erfc(r / (sqrt(2) s)) / r, 1/Å."""
        return erfc(r / (math.sqrt(2) * self.smearing)) / r

    @property
    def left_out(self) -> float:
        """Integral of ``remainder`` over all space, 2 pi s^2 (Å^2)."""
        return 2 * math.pi * self.smearing**2


def _check_positive(name: str, value: float, unit: str) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} {value} {unit} must be positive and finite")


def _check_tolerance(tolerance: float) -> None:
    if not 0 < tolerance < 0.1:
        raise ValueError(f"tolerance {tolerance} must lie between 0 and 0.1, 1e-9 for example")


class Felt(NamedTuple):
    """What charges and dipoles cause at each atom, without the atom's own."""

    potential: Float[Array, " atoms"]
    """Electrostatic potential, V."""
    field: Float[Array, "atoms 3"]
    """Electric field, V/Å."""


class Coulomb:
    """The linear map from the charges (and dipoles) of a batch to electrostatic potentials (and fields), for one geometry.

    Energies are half of the sum of charge times potential, less half of the sum of dipole times field. The map is symmetric
    within each system, and zero between systems.
    """

    def __init__(
        self,
        kernel: Gaussians | Points,
        method: WaveSum | ParticleMesh,
        graph: Graph,
        vectors: Float[Array, "atoms slots 3"],
        space: Space,
    ) -> None:
        self.kernel, self.method, self.graph, self.vectors, self.space = kernel, method, graph, vectors, space
        self.rows: Rows = rows_of(graph)
        self.positions = self.rows.arrange(space.positions)
        self.periodic = jnp.any(space.repeats, axis=-1)
        self.waves = graph.extent.waves if graph.extent is not None else (0, 0, 0)

    def __call__(self, charges: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
        """Compute the potential (V) at each atom of charges (e); NaN where waves are missing or atoms have no place."""
        arranged, positions, used = self.rows.arrange(charges), self.positions, self.rows.used
        direct = partial(direct_potentials, self.kernel)
        phi = self._summed(direct, wave_potentials, arranged, used, positions)
        # What a smooth charge feels of itself is in the sum over waves, not in the direct one.
        phi -= self._itself * arranged
        return jnp.where(self.graph.node_mask, self._collected(phi) + self._short(charges), 0)

    def felt(self, charges: Float[Array, " atoms"], dipoles: Float[Array, "atoms 3"]) -> Felt:
        """Compute potential and field at each atom of charges (e) and dipoles (e Å); NaN as by a call.

        Raises:
            ValueError: the kernel is that of points, of which two dipoles at short distance have an energy without bound.
        """
        if isinstance(self.kernel, Points):
            raise ValueError(
                "dipoles need the kernel Gaussians: two polarizable points at short distance polarize without bound"
            )
        q, p, used = self.rows.arrange(charges), self.rows.arrange(dipoles), self.rows.used
        phi, field = self._summed(partial(direct_felt, self.kernel), wave_felt, q, p, used, self.positions)
        phi -= self._itself * q
        field += (self._itself / (3 * self.kernel.smearing**2))[..., None] * p
        real = self.graph.node_mask
        return Felt(jnp.where(real, self._collected(phi), 0), jnp.where(real[:, None], self._collected(field), 0))

    def prepared(self) -> Callable[[Array], Array]:
        """Return the map of a call with all done that does not depend on the charges, for sources that apply it many times.

        Of systems whose sum is not complete it says nothing: only the map itself does.
        """
        return jax.linearize(self, jnp.zeros_like(self.space.positions[:, 0]))[1]

    def prepared_felt(self) -> Callable[[Array, Array], Felt]:
        """Return the map ``felt``, as ``prepared``."""
        none = self.space.positions
        return jax.linearize(self.felt, jnp.zeros_like(none[:, 0]), jnp.zeros_like(none))[1]

    def _summed(self, direct: Callable[..., Any], waves: Callable[..., Any], *rows: Array) -> Any:
        """Sum over the pairs of each open system, and over the waves of each other one; arguments are [graphs, row, ...]."""
        open_ = jnp.any(~self.periodic & self.graph.graph_mask)
        pairs = jax.vmap(direct)
        none = lambda *x: jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), jax.eval_shape(pairs, *x))
        found = jax.lax.cond(open_, pairs, none, *rows)
        if not any(self.waves):
            return found
        kernel = self.kernel
        crystal = lambda h, n: Crystal(h, n, self.method, self.waves, kernel.smearing, kernel.left_out)
        smooth = jax.vmap(lambda h, n, *x: waves(crystal(h, n), *x))(self._lattice(), self._repeats(), *rows)
        chosen = lambda x, y: jnp.where(self.periodic.reshape(-1, *[1] * (x.ndim - 1)), x, y)
        return jax.tree.map(chosen, smooth, found)

    @property
    def _itself(self) -> Float[Array, "graphs 1"]:
        """Potential (V) that waves give a unit charge at its own place, in systems that are summed by waves."""
        return jnp.where(self.periodic[:, None], COULOMB * math.sqrt(2 / math.pi) / self.kernel.smearing, 0)

    def _collected(self, values: Float[Array, "graphs row ..."]) -> Float[Array, "atoms ..."]:
        """Copy values of rows to their atoms, NaN for systems whose sum is not complete."""
        possible = self._possible().reshape(-1, *[1] * (values.ndim - 1))
        return self.rows.collect(jnp.where(possible, values, jnp.nan))

    def _repeats(self) -> Bool[Array, "graphs 3"]:
        """Return along which rows each system repeats; open systems, which are summed directly, pass for crystals."""
        return self.space.repeats | ~self.periodic[:, None]

    def _lattice(self) -> Float[Array, "graphs 3 3"]:
        """Return the cell of each system, the unit matrix for open ones."""
        return jnp.where(self.periodic[:, None, None], self.space.cell, jnp.eye(3, dtype=self.space.cell.dtype))

    def _possible(self) -> Bool[Array, " graphs"]:
        """Return for which systems the sum is complete: not along a wire, nor in a cell that has outgrown the waves."""
        longest = longest_wave(self.kernel.smearing, self.kernel.tolerance)
        cells = jax.vmap(lambda *x: with_vacuum(*x)[0])(self.positions, self.rows.used, self._lattice(), self._repeats())
        enough = jax.vmap(lambda cell: covers(cell, self.waves, longest))(jax.lax.stop_gradient(cells))
        wire = jnp.sum(self.space.repeats, axis=-1) == 1
        known = ~self.periodic | (enough & ~wire)
        return known & self.rows.complete

    def _short(self, charges: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
        """Compute the part of the potential that waves leave out, from the neighbours of each atom."""
        graph = self.graph
        mask = graph.slot_mask & self.periodic[graph.node_graph][:, None]
        r = jnp.sqrt(jnp.sum(self.vectors**2, axis=-1))
        remainder = self.kernel.remainder(jnp.where(mask, r, 1))
        if remainder is None:
            return jnp.zeros_like(charges)
        return COULOMB * jnp.sum(jnp.where(mask, remainder * charges[graph.neighbors], 0), axis=1)


def direct_potentials(
    kernel: Gaussians | Points, charges: Float[Array, " row"], used: Bool[Array, " row"], positions: Float[Array, "row 3"]
) -> Float[Array, " row"]:
    """Compute the potential (V) at each atom of the others' charges (e): Ke sum_j q_j f(r_ij), with f = ``kernel.pair``."""

    def of_atom(k: Array) -> Array:
        other, _, r = _others(k, used, positions)
        return COULOMB * jnp.sum(jnp.where(other, charges * kernel.pair(r), 0))

    return _each(of_atom, len(used))


def direct_felt(
    kernel: Gaussians,
    charges: Float[Array, " row"],
    dipoles: Float[Array, "row 3"],
    used: Bool[Array, " row"],
    positions: Float[Array, "row 3"],
) -> tuple[Float[Array, " row"], Float[Array, "row 3"]]:
    """Compute potential (V) and field (V/Å) at each atom of the charges (e) and dipoles (e Å) of the others.

    With f = ``kernel.pair``, a = f' / r, b = a' / r and v the vector from i to j,
    phi_i = Ke sum_j [q_j f + a p_j . v] and F_i = Ke sum_j [a (q_j v + p_j) + b (p_j . v) v].
    """

    def of_atom(k: Array) -> tuple[Array, Array]:
        other, v, r = _others(k, used, positions)
        f, a, b = (jnp.where(other, COULOMB * x, 0) for x in kernel.pair_slopes(r))
        along = jnp.sum(dipoles * v, axis=1)
        return jnp.sum(charges * f + a * along), (a * charges + b * along) @ v + a @ dipoles

    return _each(of_atom, len(used))


def _others(k: Array, used: Bool[Array, " row"], positions: Float[Array, "row 3"]) -> tuple[Array, Array, Array]:
    """Return which rows hold other atoms than the one in row k, the vectors from that to all (Å), and their lengths."""
    other = used & used[k] & (jnp.arange(len(used)) != k)
    vectors = jnp.where(other[:, None], positions - positions[k][None], 1)
    return other, vectors, jnp.sqrt(jnp.sum(vectors**2, axis=-1))


def _each(of_atom: Callable[[Array], Any], count: int) -> Any:
    """Call a function of the row of an atom for every row, in blocks where there are many pairs."""
    index = jnp.arange(count)
    if count**2 <= MOST_PAIRS:
        return jax.vmap(of_atom)(index)
    return jax.lax.map(jax.checkpoint(of_atom), index, batch_size=max(1, MOST_PAIRS // count))
