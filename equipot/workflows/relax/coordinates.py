"""Coordinates of a relaxation: reference positions and the logarithmic strain of the cell, of all systems of a batch at once.

With u the reference positions (rows) and d the strain coordinate of a system of n atoms, positions and cell are

    r = u F,    h = h_0 F,    F = exp(d / (sqrt(n) 1 Å)),

so that atoms follow the cell, and both kinds of coordinates are lengths whose curvatures are alike. d is symmetric: a cell that
rotates is the same cell. What is minimised is the enthalpy E + p V - w, with the work w of a target stress that is not a
pressure; derivatives are exact, those of the exponential included (as ASE's FrechetCellFilter has them, with another scale).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from equipot.graph import Graph, sum_graphs, to_atoms, volume
from equipot.potential import Potential, evaluate
from equipot.workflows.relax.valence import Internals

T = TypeVar("T")


class Coordinates(NamedTuple):
    """A point, a step or a gradient. Gradients are in eV/Å."""

    positions: Float[Array, "atoms *more 3"]
    """Reference positions u, Å."""
    strain: Float[Array, "graphs *more 3 3"]
    """Coordinate d of the strain, Å; zero where cells are kept."""


class Bounds(NamedTuple):
    """What each system of a batch may do."""

    cell: Float[Array, "graphs 3 3"]
    """Reference cell h_0, rows, Å."""
    free: Bool[Array, "atoms 3"]
    """Components of the positions that may move."""
    strains: Float[Array, "graphs 9 9"]
    """Orthogonal projection on the strains that are allowed; zero where the cell is kept."""
    rotations: Float[Array, "graphs operations 3 3"]
    """Symmetry operations to be kept: the vector of an atom's image is R v; zero beyond the last."""
    images: Int[Array, "operations atoms"]
    """Atom that each operation maps an atom to."""
    pressure: Float[Array, " graphs"]
    """eV/Å^3."""
    work: Float[Array, "graphs 3 3"]
    """Target stress less its mean, times the volume of the reference cell, eV."""
    target: Float[Array, "graphs 3 3"]
    """Target stress, eV/Å^3; minus the pressure for a pressure."""


class Found(NamedTuple):
    """Answer of a potential."""

    interaction: Float[Array, " graphs"]
    """Energy without E0, eV."""
    forces: Coordinates
    """Forces (eV/Å) as ``positions``, and the stress (eV/Å^3, zero without a volume) as ``strain``."""


class Point(NamedTuple):
    """A point with what is known of it."""

    at: Coordinates
    energy: Float[Array, " graphs"]
    """Energy without E0 (eV), and the work of pressure and target stress."""
    gradient: Coordinates
    """Derivative of ``energy``, projected on what is allowed."""
    force: Float[Array, " graphs"]
    """Largest force on an atom (eV/Å), components that are fixed left out."""
    excess: Float[Array, " graphs"]
    """Largest component of stress less target (eV/Å^3) that an allowed strain could relax; zero where the cell is kept."""
    found: Found
    """What the potential says there."""


class Landscape(NamedTuple):
    """The energy of a batch as a function of its coordinates. The neighbour list of ``graph`` must hold at the point."""

    potential: Potential
    graph: Graph
    bounds: Bounds
    moves_cells: bool
    """Whether any cell may change; static."""
    cheaper: Landscape | None = None
    """The same batch with another potential, whose Hessian stands in for that of this one."""
    internals: Internals | None = None
    """Stretches, bends and torsions of the systems, where any system has some and the optimiser has a model of them."""

    def placed(self, at: Coordinates) -> Graph:
        """Return the graph with the positions and cells of a point."""
        graph = self.graph
        clear = {"positions_residual": None, "cell_residual": None}
        if not self.moves_cells:
            return graph.replace(positions=at.positions, cell=self.bounds.cell, **clear)
        deformed = self.deformation(at.strain)
        rotated = jnp.einsum("ni,nij->nj", at.positions, to_atoms(deformed, graph), precision="highest")
        cell = jnp.einsum("gai,gij->gaj", self.bounds.cell, deformed, precision="highest")
        return graph.replace(positions=rotated, cell=cell, **clear)

    def deformation(self, strain: Float[Array, "graphs 3 3"]) -> Float[Array, "graphs 3 3"]:
        """Compute F from the strain coordinate (Å)."""
        return jax.vmap(exponential)(strain / self.lengths[:, None, None])

    @property
    def lengths(self) -> Float[Array, " graphs"]:
        """Length (Å) that a strain of 1 counts as: the root of the number of atoms."""
        count = sum_graphs(jnp.ones_like(self.bounds.free[:, 0], self.bounds.cell.dtype), self.graph)
        return jnp.sqrt(jnp.maximum(count, 1))

    def point(self, at: Coordinates) -> Point:
        """Evaluate the potential at a point: one gradient call."""
        bounds = self.bounds
        deformed, pull = jax.vjp(self.deformation, at.strain)
        graph = self.placed(at)
        out = evaluate(self.potential, graph, ("forces", "stress"))
        assert out.interaction is not None and out.forces is not None and out.stress is not None
        interaction, forces = jnp.asarray(out.interaction), jnp.asarray(out.forces)
        v = volume(graph)
        stress = jnp.where((v > 0)[:, None, None], out.stress, 0)
        found = Found(interaction, Coordinates(forces, stress))
        if not self.moves_cells:
            kept = self.project(Coordinates(-forces, jnp.zeros_like(bounds.cell)))
            return Point(at, interaction, kept, self.largest(kept.positions), jnp.zeros_like(v), found)
        # A strain e after F moves vectors by F e, so that dF = F e and dE/dF = F^-T (dE/de).
        virial = v[:, None, None] * (stress + bounds.pressure[:, None, None] * jnp.eye(3, dtype=v.dtype)[None])
        inverse = jnp.linalg.inv(deformed)
        (slope,) = pull(jnp.einsum("gji,gjk->gik", inverse, virial, precision="highest"))
        slope = slope - bounds.work / self.lengths[:, None, None]
        moved = jnp.einsum("nj,nij->ni", -forces, to_atoms(deformed, graph), precision="highest")
        kept = self.project(Coordinates(moved, slope))
        seen = jnp.einsum("ni,nji->nj", kept.positions, to_atoms(inverse, graph), precision="highest")
        off = jnp.einsum("gij,gj->gi", bounds.strains, (stress - bounds.target).reshape(-1, 9), precision="highest")
        work = jnp.sum(bounds.work * at.strain, axis=(1, 2)) / self.lengths
        energy = interaction + bounds.pressure * v - work
        return Point(at, energy, kept, self.largest(seen), jnp.max(jnp.abs(off), axis=1), found)

    def product(self, at: Coordinates, direction: Coordinates) -> Coordinates:
        """Multiply the exact Hessian (eV/Å^2) with a direction, by a forward derivative of the gradient."""
        return jax.jvp(lambda x: self.point(x).gradient, (at,), (self.project(direction),))[1]

    def model_product(self, at: Coordinates, direction: Coordinates) -> Coordinates:
        """Multiply the Hessian of the cheaper potential, where there is one, with a direction."""
        return (self.cheaper or self).product(at, direction)

    def project(self, x: Coordinates) -> Coordinates:
        """Project on what may move and on the symmetry that is kept."""
        bounds = self.bounds
        positions = jnp.where(bounds.free, x.positions, 0)
        if bounds.images.shape[0] > 1:
            positions = self._symmetric(positions)
        strain = jnp.einsum("gij,gj->gi", bounds.strains, x.strain.reshape(-1, 9), precision="highest").reshape(x.strain.shape)
        return Coordinates(positions, strain)

    def _symmetric(self, vectors: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """Average the vectors of atoms over the operations: that of an atom is rotated to the atom's image."""

        def add(total: Array, operation: tuple[Array, Array]) -> tuple[Array, None]:
            rotation, image = operation
            # The image of an atom has its vector, rotated: v_image = R v, and so v = R^T v_image.
            turned = jnp.einsum("nj,nji->ni", vectors[image], to_atoms(rotation, self.graph), precision="highest")
            return total + turned, None

        operations = jnp.moveaxis(self.bounds.rotations, 1, 0), self.bounds.images
        count = jnp.sum(jnp.any(self.bounds.rotations != 0, axis=(2, 3)), axis=1).astype(vectors.dtype)
        total, _ = jax.lax.scan(add, jnp.zeros_like(vectors), operations)
        return total / to_atoms(jnp.maximum(count, 1), self.graph)[:, None]

    def largest(self, vectors: Float[Array, "atoms 3"]) -> Float[Array, " graphs"]:
        """Return the largest norm among the vectors of the atoms of each system; NaN if any is NaN."""
        norms = jnp.linalg.norm(vectors, axis=-1)
        return max_graphs(norms, self.graph)

    def dot(self, a: Coordinates, b: Coordinates) -> Float[Array, " graphs *more"]:
        """Multiply coordinates of each system; further axes stay."""
        positions = sum_graphs(jnp.sum(a.positions * b.positions, axis=-1), self.graph)
        return positions + jnp.sum(a.strain * b.strain, axis=(-2, -1))

    def scaled(self, factor: Float[Array, " graphs"], x: Coordinates) -> Coordinates:
        """Multiply the coordinates of each system by a number."""
        return Coordinates(to_atoms(factor, self.graph)[:, None] * x.positions, factor[:, None, None] * x.strain)

    def longest(self, step: Coordinates) -> Float[Array, " graphs"]:
        """Return the longest way of an atom in a step (Å), that of the strain counted as one more atom's."""
        return jnp.maximum(self.largest(step.positions), jnp.linalg.norm(step.strain, axis=(1, 2)))

    def choose(self, which: Bool[Array, " graphs"], a: T, b: T) -> T:
        """Take a tree of ``Coordinates`` and arrays of graphs where ``which``, else another."""
        atoms = which[self.graph.node_graph]
        pick = lambda mask: lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y)
        return map_rows(pick(atoms), pick(which), a, b)


def rows_of(x: Any, atoms: slice, graph: int) -> Any:
    """Select the rows of one system from a tree of ``Coordinates`` and of arrays with an axis of graphs in front."""
    graphs = slice(graph, graph + 1)
    return map_rows(lambda leaf: leaf[atoms], lambda leaf: leaf[graphs], x)


def map_rows(of_atoms: Callable[..., Any], of_graphs: Callable[..., Any], *trees: Any) -> Any:
    """Map leaves with an axis of atoms in front by one function, and those with an axis of graphs by another."""
    is_coordinates = lambda x: isinstance(x, Coordinates)

    def one(*leaves: Any) -> Any:
        if is_coordinates(leaves[0]):
            return Coordinates(of_atoms(*(x.positions for x in leaves)), of_graphs(*(x.strain for x in leaves)))
        return of_graphs(*leaves)

    return jax.tree.map(one, *trees, is_leaf=is_coordinates)


def plus(a: Coordinates, b: Coordinates) -> Coordinates:
    """Add coordinates."""
    return jax.tree.map(jnp.add, a, b)


def minus(a: Coordinates, b: Coordinates) -> Coordinates:
    """Subtract coordinates."""
    return jax.tree.map(jnp.subtract, a, b)


def max_graphs(values: Float[Array, " atoms"], graph: Graph) -> Float[Array, " graphs"]:
    """Return the largest value of the real atoms of each system, at least zero; NaN if any is NaN."""
    real = jnp.where(graph.node_mask, values, 0)
    return jnp.maximum(jax.ops.segment_max(real, graph.node_graph, graph.num_graphs, indices_are_sorted=True), 0)


def exponential(x: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Compute the exponential of a matrix of norm below about 1, by a Taylor series of order 10 of x / 16 and four squarings.

    The remainder of the series is below 1e-19 for a norm of 1.
    """
    small, unit = x / 16, jnp.eye(3, dtype=x.dtype)
    total = unit
    for k in range(10, 0, -1):
        total = unit + jnp.matmul(small, total, precision="highest") / k
    for _ in range(4):
        total = jnp.matmul(total, total, precision="highest")
    return total
