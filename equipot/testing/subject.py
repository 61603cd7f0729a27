"""A term under test: random variables in double precision, and what the term is known not to obey."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from equipot.data.batch import Shape, pad
from equipot.extent import extent_of
from equipot.graph import Graph
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.neighbors import neighbor_list
from equipot.potential import Potential, evaluate, interaction_energy
from equipot.structure import Structure
from equipot.term import Term, cutoff_of
from equipot.testing.systems import ELEMENTS, MOLECULE, SYSTEMS

__all__ = ["Subject"]

WANT = ("energy", "forces", "stress", "energies", "virials")
compiled_evaluate = jax.jit(evaluate, static_argnames="want")
compiled_energy = jax.jit(interaction_energy)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A term whose laws are checked. One shape holds all systems, so that the term compiles once."""

    term: Term
    """With its cutoff, of at most 16 Å. A field ``elements`` that is empty is filled with those of the systems."""
    name: str = ""
    """For messages; the name of the class where left out."""
    chiral: bool = False
    """Whether the energy of a mirror image may differ."""
    collective: bool = False
    """Whether the energy of an atom may depend on atoms beyond the cutoff, as in an Ewald sum."""
    extensive: bool = True
    """Whether a repeated cell has the energy of its parts."""
    vanishes: int = 3
    """Power of the distance to the cutoff with which the energy of a pair vanishes there: 3 or more for envelopes of networks,
    2 for a switch that only makes forces continuous. Too high a power breaks the law "smooth at the cutoff"."""
    charge: float = 0.0
    """Total charge of every system whose law does not choose another one, e."""
    spin: float = 0.0
    """Number of unpaired electrons of every system whose law does not choose another one."""

    def __str__(self) -> str:
        return self.name or type(self.term).__name__

    @property
    def cutoff(self) -> float:
        """Cutoff of the term, Å.

        Raises:
            ValueError: the term has none.
        """
        return cutoff_of(self.term)

    @functools.cached_property
    def potential(self) -> Potential:
        """A random potential in float64, with constants that are not trivial; E0 of element Z is -1.5 Z eV."""
        term = self.term
        if term.has_elements and not term.elements:
            term = term.clone(elements=ELEMENTS)
        some = self.prepared(*SYSTEMS[:4], MOLECULE)
        example = pad(some, self.cutoff, dtype=np.float64, extent=extent_of(some, term.longest_wave))
        made = fresh(
            term,
            example,
            jax.random.key(3),
            Metadata(tuple((z, -1.5 * z) for z in ELEMENTS)),
            scale=[0.05, 0.065, 0.04, 0.1],
            shift=[0.1, -0.2, 0.3, 0.4],
            avg_num_neighbors=12.0,
            electron_shift=[0.7, -0.4, 0.2],
        )
        return made.astype("float64")

    def graph(self, *structures: Structure, shape: Shape | None = None, beside: Sequence[Structure] = ()) -> Graph:
        """Pad structures to one shape, that of all systems where left out, and to the waves of those ``beside``; float64."""
        extent = extent_of([*SYSTEMS, *structures, *beside], self.term.longest_wave)
        return pad(self.prepared(*structures), self.cutoff, shape or common_shape(self.cutoff), np.float64, extent=extent)

    def prepared(self, *structures: Structure) -> list[Structure]:
        """Assign structures to the last head of a term that has several, and give neutral singlets ``charge`` and ``spin``."""
        count = len(self.term.head_names)
        headed = [s.replace(head=count - 1) for s in structures] if count else structures
        return [s if s.electrons else s.replace(charge=self.charge, spin=self.spin) for s in headed]

    def predict(self, *structures: Structure, beside: Sequence[Structure] = ()) -> Any:
        """Compute the ``Observables`` of a padded batch as numpy arrays: those in ``WANT`` and what the term provides.

        Structures larger than all systems compile once if each names the others ``beside`` it.
        """
        want = (*WANT, *(row.name for row in self.term.provides))
        out = compiled_evaluate(self.potential, self.graph(*structures, beside=beside), want=want)
        return jax.tree.map(np.asarray, out)

    def energy(self, graph: Graph) -> Any:
        """Compute the interaction energy of each graph (eV)."""
        return compiled_energy(self.potential, graph)


@functools.cache
def common_shape(cutoff: float) -> Shape:
    """Choose a shape that holds two of the systems, or one of twice the atoms, with slots in steps of eight."""
    most = max(_most_neighbors(system, cutoff) for system in SYSTEMS)
    return Shape(atoms=2 * max(map(len, SYSTEMS)) + 2, slots=8 * (most // 8 + 1), graphs=2)


def _most_neighbors(system: Structure, cutoff: float) -> int:
    edges = neighbor_list(system.positions, system.cell, system.pbc, cutoff)
    return int(np.bincount(edges.centers, minlength=len(system)).max(initial=0))


def small(what: str, difference: Any, limit: float) -> None:
    """AssertionError unless the largest magnitude of ``difference`` is below ``limit``; NaN is not."""
    worst = float(np.max(np.abs(difference), initial=0.0))
    assert worst < limit, f"{what}: {worst:.2e}, allowed is {limit:.0e}"


def relative(a: np.ndarray | Sequence[float], b: np.ndarray | Sequence[float]) -> float:
    """Compute the largest deviation over the largest magnitude of ``b``, or over 1e-3 where ``b`` vanishes by symmetry."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.max(np.abs(a - b), initial=0.0) / max(1e-3, np.max(np.abs(b), initial=0.0)))
