"""Energy surfaces on which paths and saddle points are sought: a potential's for given atoms, or any function's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from equipot.data.batch import Shape, centred, find_slots, pad
from equipot.evaluation import one_structure
from equipot.extent import Extent, still_holds
from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.neighbors import still_complete
from equipot.neighbors.shells import crowding, room, roomy_shells
from equipot.potential import Potential, evaluate
from equipot.second_derivatives import hessian_vector_product
from equipot.structure import Structure


class Surface(Protocol):
    """An energy as a function of n coordinates. Energies and gradients may have any units, as long as they fit each other."""

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute energies (points,) and gradients (points, n) at points (points, n)."""
        ...

    def product(self, point: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Multiply the Hessian at a point (n,) with a direction (n,)."""
        ...


class FunctionSurface:
    """The surface of a function of JAX, such as a two-dimensional landscape or a cost that was interpolated.

    The function is called with coordinates in double precision, whatever JAX is set to.

    Args:
        function: Energy of coordinates (n,), differentiable.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._each = jax.jit(jax.vmap(jax.value_and_grad(function)))
        self._product = jax.jit(lambda x, v: jax.jvp(jax.grad(function), (x,), (v,))[1])

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute energies (points,) and gradients (points, n) at points (points, n)."""
        with jax.enable_x64(True):
            energies, gradients = self._each(jnp.asarray(points, jnp.float64))
        return np.array(energies, np.float64), np.array(gradients, np.float64)

    def product(self, point: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Multiply the Hessian at a point (n,) with a direction (n,)."""
        with jax.enable_x64(True):
            found = self._product(jnp.asarray(point, jnp.float64), jnp.asarray(direction, jnp.float64))
        return np.asarray(found, np.float64)


class AtomsSurface:
    """The energy (eV, without E0) of given atoms in a given cell, as a function of their positions (Å), flattened to (3 n,).

    All points of a call are evaluated in one batch, whose neighbour lists are kept as long as they are complete. Gradients of
    components that the structure fixes are zero.

    Args:
        potential: Potential, best in double precision.
        structure: Atoms and cell, as ``ase.Atoms`` or ``Structure``.
        skin: Reach of the lists beyond the cutoff, Å.

    Raises:
        ValueError: several structures, or an element that the potential does not know.
    """

    def __init__(self, potential: Potential, structure: Any, skin: float = 0.5) -> None:
        structure = one_structure(structure, "a surface is")
        potential.check([structure])
        self.potential = potential.replace(metadata=Metadata(), posterior=None)
        self.structure = structure.without_labels()
        self.skin = skin
        self.free = np.ones(3 * len(structure), bool) if structure.fixed is None else ~structure.fixed.reshape(-1)
        self._held: dict[int, tuple[list[Structure], Graph]] = {}

    def at(self, point: np.ndarray) -> Structure:
        """Return the structure at a point (3 n,)."""
        return self.structure.replace(positions=np.reshape(point, (-1, 3)))

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute energies (points,), eV, and gradients (points, 3 n), eV/Å, at points (points, 3 n), Å."""
        energies, gradients = self.everywhere(points)
        return energies, np.where(self.free, gradients, 0)

    def everywhere(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute energies and gradients as ``evaluate`` does, with those of fixed components."""
        energies, forces = _forces(self.potential, self._graph([self.at(x) for x in points]))
        return np.array(energies, np.float64), -np.array(forces, np.float64).reshape(len(points), -1)

    def product(self, point: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Multiply the Hessian (eV/Å^2) at a point (3 n,), Å, with a direction (3 n,)."""
        graph = self._graph([self.at(point)])
        along = jnp.asarray(np.where(self.free, direction, 0).reshape(-1, 3), self.potential.dtype)
        found = np.asarray(_product(self.potential, graph, along), np.float64).reshape(-1)
        return np.where(self.free, found, 0)

    def _graph(self, images: list[Structure]) -> Graph:
        """Return the graph of several structures, with the lists of the last ones of that number where they still hold."""
        known = self._held.get(len(images))
        holds = lambda old, new: still_complete(old, new, self.potential.cutoff, self.skin)
        if known is None or not all(map(holds, known[0], images)):
            self._held[len(images)] = images, self._padded(images, known[1] if known else None)
        listed, graph = self._held[len(images)]
        dtype = self.potential.dtype
        # As the lists were: positions about their mean, which only ions in a field must keep.
        middle = [old.positions.mean(axis=0) - centred(old).mean(axis=0) for old in listed]
        placed = np.concatenate([new.positions - m for new, m in zip(images, middle, strict=True)]).astype(dtype)
        return graph.replace(positions=jnp.asarray(placed), positions_residual=None)

    def _padded(self, images: list[Structure], old: Graph | None) -> Graph:
        p = self.potential
        found = [find_slots(s, p.cutoff + self.skin, bool(p.term.inner_cutoffs)) for s in images]
        slots = room(max(x.mask.shape[1] for x in found), old.num_slots if old is not None else 0)
        extent: Extent | None = old.extent if old is not None else None
        if extent is None or not all(still_holds(extent, s, p.term.longest_wave) for s in images):
            extent = p.extent(images)
        cutoffs = p.term.inner_cutoffs
        reach = [c + self.skin for c in cutoffs]
        counts = [crowding(x, s.positions, s.cell, reach) for x, s in zip(found, images, strict=True)] if cutoffs else []
        most = np.max(counts, axis=0) if counts else ()
        shells = roomy_shells(most, cutoffs, old.shells if old is not None else ())
        shape = Shape(sum(map(len, images)), slots, len(images))
        graph = pad(images, p.cutoff, shape, p.dtype, found, extent=extent, shells=shells)
        return jax.device_put(graph)


@jax.jit
def _forces(potential: Potential, graph: Graph) -> tuple[Any, Any]:
    out = evaluate(potential, graph, ("forces",))
    return out.interaction, out.forces


_product = jax.jit(hessian_vector_product)
