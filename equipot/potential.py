"""A potential: a term, the term's variables and their origin; energy and all derivatives of the energy in one backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from equipot.dipole_derivatives import dipole_derivatives
from equipot.extent import Extent, extent_of
from equipot.feature_slopes import feature_slopes
from equipot.geometry import Geometry, atomic_virials, change_of, geometry_of, stress_of
from equipot.graph import HEADS, Graph, choose_head, complete_cell, sum_graphs
from equipot.metadata import Metadata
from equipot.observables import Observables
from equipot.posterior import Change, Posterior, Sensitivity, check_estimates
from equipot.quantities import (
    DIPOLE,
    FEATURE_FORCES,
    FEATURE_SLOPES,
    FEATURES,
    FORCES,
    FORCES_STD,
    RESULTS,
    STRESS,
    STRESS_STD,
    VIRIALS,
    Quantity,
    among,
    further,
)
from equipot.structure import Structure, symbols
from equipot.term import NEEDS, Atomic, Space, Term, call, cutoff_of

__all__ = ["Potential", "atomic", "evaluate", "forces_at", "interaction_energy"]

NO_FEATURES = "has no features of a last linear layer; take MACE, NequIP or another network"


@partial(jax.tree_util.register_dataclass, data_fields=["variables", "posterior"], meta_fields=["term", "metadata"])
@dataclasses.dataclass(frozen=True)
class Potential:
    """A term with variables and metadata: a pytree whose leaves are the variables and arrays of the posterior; term and
    metadata are static."""

    term: Term
    variables: Any
    metadata: Metadata = Metadata()
    posterior: Posterior | None = None
    """Uncertainty of the potential, see ``equipot.uncertainty.fit``; None where nothing is known of it."""

    @property
    def cutoff(self) -> float:
        """Cutoff of the term, Å.

        Raises:
            ValueError: the term has no cutoff.
        """
        return cutoff_of(self.term)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the potential knows, ascending."""
        return self.metadata.elements

    @property
    def params(self) -> Mapping[str, Any]:
        """Trained variables, a tree of arrays; empty for a term without any."""
        return self.variables.get("params", {})

    @property
    def provides(self) -> tuple[Quantity, ...]:
        """Quantities that the term predicts besides the energy and its derivatives, and the derivatives of its dipole moment.

        Raises:
            ValueError: a quantity whose name is taken, see ``further``.
        """
        return further((*self.term.provides, *self.term.responses))

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the levels of theory to choose from; none for a potential of a single level."""
        return self.term.head_names

    def head(self, name: str) -> Potential:
        """Return the potential of one level of theory among several, with E0 of that head.

        Raises:
            ValueError: no such head.
        """
        if name not in self.heads:
            there = f"its heads are {', '.join(self.heads)}" if self.heads else "it has only one level of theory"
            raise ValueError(f"the potential has no head {name!r}: {there}")
        k = self.heads.index(name)
        head = self.metadata.heads[k]
        metadata = dataclasses.replace(
            self.metadata, atomic_energies=head.atomic_energies, level_of_theory=head.level_of_theory, heads=()
        )
        return Potential(self.term.with_heads(()), _of_head(self.variables, k), metadata)

    def member(self, name: str) -> Potential:
        """Return the potential of a member of the term, by its name in ``Term.members``, with the metadata of the whole."""
        leaves = flatten_dict(self.variables).items()
        found = {inner: leaf for path, leaf in leaves if (inner := self.term.path_in_member(name, path)) is not None}
        term = self.term.members[name].clone(parent=None, name=None)
        return self.replace(term=term, variables=unflatten_dict(found))

    def with_member(self, name: str, member: Potential) -> Potential:
        """Return the potential with another term and variables for a member; the metadata stay."""
        leaves = flatten_dict(self.variables).items()
        own = {path: leaf for path, leaf in leaves if self.term.path_in_member(name, path) is None}
        scope = self.term.scope_of(name)
        theirs = {scope.outside(path): leaf for path, leaf in flatten_dict(member.variables).items()}
        return self.replace(term=self.term.with_members({name: member.term}), variables=unflatten_dict(own | theirs))

    @property
    def dtype(self) -> Any:
        """Precision of the variables, and so of energies and forces on the device."""
        leaves = [leaf for leaf in jax.tree.leaves(self.variables) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return leaves[0].dtype if leaves else jnp.zeros(0).dtype

    def astype(self, dtype: Any) -> Potential:
        """Convert the variables to ``"float32"`` or ``"float64"``; the latter switches JAX to 64 bits.

        Raises:
            ValueError: another precision.
        """
        dtype = jnp.dtype(dtype)
        if dtype == jnp.float64:
            # Where that is so already, perhaps only for a while, nothing is left switched.
            if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
                jax.config.update("jax_enable_x64", True)
        elif dtype != jnp.float32:
            raise ValueError(f"dtype {dtype} is not supported; use float32 or float64")
        cast = lambda x: jnp.asarray(x, dtype) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) else jnp.asarray(x)
        posterior = None if self.posterior is None else self.posterior.astype(dtype)
        return dataclasses.replace(self, variables=jax.tree.map(cast, self.variables), posterior=posterior)

    def replace(self, **changes: Any) -> Potential:
        """Return a copy with other fields. With other variables, or another term, it has no posterior but a given one."""
        if {"variables", "term"} & changes.keys():
            changes = {"posterior": None, **changes}
        return dataclasses.replace(self, **changes)

    @property
    def deviations(self) -> tuple[Quantity, ...]:
        """Estimates of uncertainty that the potential has: deviations that are calibrated, and novelty."""
        if self.posterior is None:
            return ()
        known = self.posterior.calibrations
        single = (row for row in self.posterior.method.provides if not row.calibrated_by)
        return tuple(row for row in single if not row.deviation_of or row.name in known)

    @property
    def correction(self) -> Potential:
        """The term alone, for a use that adds the subtracted method itself: see ``Metadata.subtracted``."""
        return self.replace(metadata=dataclasses.replace(self.metadata, subtracted=None))

    def extent(self, structures: Iterable[Structure]) -> Extent | None:
        """Return atoms and waves of structures for ``Graph.extent``; None for a term that needs no space."""
        return extent_of(structures, self.term.longest_wave)

    def check(self, structures: Iterable[Structure]) -> None:
        """Check that the potential applies to structures.

        Raises:
            ValueError: an element that the potential does not know, several heads and none chosen, a system that the term does
                not apply to, a charge or spin that cannot be or that it was not trained on, or an electric field that it does
                not see; names the structure. Or the potential is a correction to a method, which has to be added.
        """
        if self.metadata.subtracted is not None:
            raise ValueError(
                f"the potential is a correction to {self.metadata.subtracted.name} and means nothing without, and it cannot be "
                "added here; equipot.evaluate, `equipot evaluate`, `equipot md` and the ASE calculator, "
                "potential.calculator(), add it"
            )
        for structure in structures:
            if self.heads and structure.head is None:
                raise ValueError(choose_head(self.heads))
            known = sorted(self.metadata.isolated_atom_energies(structure.head))
            unknown = sorted(set(structure.numbers.tolist()) - set(known))
            if unknown:
                raise ValueError(
                    f"{structure.name}: the potential does not know {symbols(unknown)}; "
                    f"it was trained on {symbols(known) or 'no element'}"
                )
            self.term.check(structure)
            if what := self.metadata.refusal(structure, self.term.needs):
                raise ValueError(f"{structure.name}: {what}")

    def calculator(self, **options: Any) -> Any:
        """Make an ASE calculator of energy, free_energy, forces, stress, energies and stresses, see ``interfaces.ase``."""
        from equipot.interfaces.ase import EquipotCalculator

        return EquipotCalculator(self, **options)


def _of_head(tree: Any, k: int) -> Any:
    """Return the variables of one head among several, at any depth."""
    if not isinstance(tree, Mapping):
        return tree
    own = {key: _of_head(value, k) for key, value in tree.items() if key != HEADS}
    return own | jax.tree.map(lambda x: x[k], dict(tree.get(HEADS, {})))


def _called(term: Term, graph: Graph, geometry: Geometry) -> Atomic:
    unknown = [name for name in term.needs if name not in NEEDS]
    if unknown:
        raise ValueError(f"{type(term).__name__} needs {unknown[0]!r}; a term can need {', '.join(NEEDS)}")
    vectors, positions, cell = geometry
    space = None
    if positions is not None and cell is not None:
        complete = jax.vmap(complete_cell) if cell.ndim == 4 else complete_cell
        # All geometries of a committee repeat alike.
        repeats = jnp.any(cell.reshape(-1, *cell.shape[-3:])[0] != 0, axis=-1) if graph.pbc is None else graph.pbc
        space = Space(positions, complete(cell), jnp.asarray(repeats))
    # Accelerators may round matrix products of float32 to 19 bits unless told not to.
    with jax.default_matmul_precision("highest"):
        return call(term, graph, vectors, space)


def initial(term: Term, key: Array, graph: Graph, geometry: Geometry | None = None) -> dict[str, Any]:
    """Draw random variables of a term, by collection."""
    geometry = geometry_of(term, graph) if geometry is None else geometry
    return dict(nn.init(_called, term)(key, graph, geometry))


def measure(term: Term, variables: Any, graph: Graph, geometry: Geometry) -> dict[str, Any]:
    """Return the constants of a term after a call with a graph, which sets those that are measured on the network."""
    return nn.apply(_called, term, mutable=["constants"])(variables, graph, geometry)[1]


def atomic(potential: Potential, graph: Graph, geometry: Geometry | None = None) -> Atomic:
    """Call the term of a potential for each atom of a graph, with another ``geometry`` than the graph's where one is given.

    Every use of a potential, training included, calls the term through this function.

    Raises:
        ValueError: the term needs something unknown.
    """
    geometry = geometry_of(potential.term, graph) if geometry is None else geometry
    return nn.apply(_called, potential.term)(potential.variables, graph, geometry)


def interaction_energy(potential: Potential, graph: Graph) -> Float[Array, " graphs"]:
    """Compute the energy of each graph less E0 of the atoms (eV); NaN where the term does not know an element."""
    return sum_graphs(atomic(potential, graph).energy, graph)


def evaluate(potential: Potential, graph: Graph, want: tuple[str, ...] = ("energy", "forces", "stress")) -> Observables:
    """Compute the interaction energy and the quantities that ``want`` names on the device.

    The result holds ``interaction`` always, and ``interactions`` of the atoms where ``want`` has "energies": energies without
    E0. ``energy`` and ``energies`` stay None; ``equipot.evaluate`` adds E0 on the host, in double precision.

    The energy is differentiated once, with respect to the edge vectors v and, for a term that needs ``space``, the positions r
    and the cell h: g_v, g_r, g_h. The force on an atom is the sum of g_v over its slots, less the sum over the slots that point
    to the atom, less g_r. The virial of a graph is sum v (x) g_v + sum r (x) g_r + h^T g_h; see ``atomic_virials``.

    That pass is the only one, but for derivatives of the dipole moment and for deviations of forces and stress, which take one
    for each sample of the posterior.

    Raises:
        ValueError: ``want`` names an unknown quantity, one that the term does not provide, or an estimate of uncertainty that
            the potential does not have.
    """
    rows = among(want, (*RESULTS, *potential.provides))
    estimated = [row for row in rows if row.of_posterior]
    check_estimates(potential.posterior, estimated)
    found = differentiated(potential, graph, rows)
    answer = found.answer
    out: dict[str, Any] = {"interaction": sum_graphs(answer.energy, graph), **_own(potential, graph, answer, rows)}
    # Where an energy is not a number, nor is any derivative of it, not even those that masks have made zero.
    undefined = graph.node_mask & jnp.isnan(out["interaction"])[graph.node_graph]
    nan_or_zero = jnp.where(undefined, jnp.nan, 0.0).astype(answer.energy.dtype)
    if "energies" in want:
        out["interactions"] = jnp.where(graph.node_mask, answer.energy, 0)
    if "forces" in want:
        out["forces"] = nan_or_zero[:, None] - found.to_positions(found.gradient)[0]
    if {"stress", "virials"} & set(want):
        per_atom = atomic_virials(graph, found.geometry, found.gradient) + nan_or_zero[:, None, None]
        if "virials" in want:
            out["virials"] = per_atom
        if "stress" in want:
            out["stress"] = stress_of(per_atom, graph)
    if FEATURE_FORCES in rows:
        units = jnp.eye(found.features.shape[1], dtype=found.features.dtype)
        out[FEATURE_FORCES.name] = jnp.moveaxis(jax.lax.map(lambda unit: found.change(unit).forces, units), 0, -1)
    if FEATURE_SLOPES in rows:
        place = lambda r: atomic(potential, graph.replace(positions=r, positions_residual=graph.positions_residual)).features
        out[FEATURE_SLOPES.name] = feature_slopes(place, graph)
    if estimated:
        assert potential.posterior is not None, "checked before"
        estimates = potential.posterior.estimate(Sensitivity(graph, answer, found.change, found.members), estimated)
        broken = {"graph": jnp.isnan(out["interaction"]), "atom": jnp.isnan(nan_or_zero)}
        for row in estimated:
            value = estimates[row.name]
            mask = broken[row.per].reshape(-1, *[1] * (value.ndim - 1))
            out[row.name] = jnp.where(mask, jnp.nan, value)
    if of_dipole := [row for row in rows if row.of_dipole]:
        out |= dipole_derivatives(lambda moved: atomic(potential, moved).get(DIPOLE), graph, of_dipole)
    return Observables.of(out)


def _own(potential: Potential, graph: Graph, answer: Atomic, rows: Sequence[Quantity]) -> dict[str, Array]:
    """Return what the term itself says, by name.

    Raises:
        ValueError: a quantity that the term does not provide.
    """
    out, name = {}, type(potential.term).__name__
    for row in rows:
        if row.of_dipole and row not in potential.provides:
            raise ValueError(f"{name} does not provide {row.name}")
        if row.energy_derivative or row.of_dipole or row.of_posterior or row.of_features:
            continue
        if (value := answer.get(row)) is None:
            raise ValueError(f"{name} {NO_FEATURES}" if row is FEATURES else f"{name} does not provide {row.name}")
        out[row.name] = sum_graphs(value, graph) if row.per == "graph" else value
    return out


class Differentiated(NamedTuple):
    """A term's answer, and the derivatives of its energy and of its features."""

    answer: Atomic
    geometry: Geometry
    to_positions: Callable[[Geometry], Any]
    """Gradient by the positions, of an energy, from that by the geometry."""
    gradient: Any = None
    """Gradient of the energy by the geometry, a ``Geometry``; None where nothing needs it."""
    change: Any = None
    """See ``posterior.Sensitivity``; None where nothing needs features."""
    members: Change | None = None
    """See ``posterior.Sensitivity``."""

    @property
    def features(self) -> Float[Array, "atoms features"]:
        """Features of the atoms."""
        assert self.answer.features is not None, "checked before"
        return self.answer.features


def differentiated(potential: Potential, graph: Graph, rows: Sequence[Quantity]) -> Differentiated:
    """Call the term of a potential, and differentiate as far as quantities need it.

    Raises:
        ValueError: a quantity needs features, and the term has none.
    """
    moved_to = lambda r: graph.replace(positions=r, positions_residual=graph.positions_residual)
    geometry, to_positions = jax.vjp(lambda r: geometry_of(potential.term, moved_to(r)), graph.positions)
    by_features = FEATURE_FORCES in rows or any(row.of_posterior for row in rows)
    # With a geometry for each member of a committee, one pass gives the derivatives of all members.
    copies = potential.term.copies if FORCES_STD in rows or STRESS_STD in rows else 0
    copied = jax.tree.map(lambda x: jnp.broadcast_to(x, (copies, *x.shape)), geometry) if copies else geometry
    joined = lambda gradient: jax.tree.map(lambda x: jnp.sum(x, axis=0), gradient) if copies else gradient

    def total(geometry: Geometry) -> tuple[tuple[Array, Array | None], Atomic]:
        answer = atomic(potential, graph, geometry)
        energy = jnp.sum(jnp.where(graph.node_mask, answer.energy, 0))
        return (energy, answer.features if by_features else None), answer

    if not (by_features or {FORCES, STRESS, VIRIALS} & set(rows)):
        return Differentiated(total(copied)[1], geometry, to_positions)
    (energy, features), pull, answer = jax.vjp(total, copied, has_aux=True)
    (every,) = pull((jnp.ones_like(energy), None if features is None else jnp.zeros_like(features)))
    if by_features and features is None:
        raise ValueError(f"{type(potential.term).__name__} {NO_FEATURES}")
    to_change = lambda slope: change_of(graph, geometry, slope, to_positions, STRESS_STD in rows)

    def change(weights: Array) -> Change:
        (slope,) = pull((jnp.zeros_like(energy), jnp.where(graph.node_mask[:, None], weights[None], 0)))
        return to_change(joined(slope))

    # The energy is the mean of the members.
    members = jax.lax.map(to_change, jax.tree.map(lambda x: copies * x, every)) if copies else None
    return Differentiated(answer, geometry, to_positions, joined(every), change if by_features else None, members)


def forces_at(potential: Potential, graph: Graph, positions: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
    """Compute forces (eV/Å) at other positions (Å) with the neighbours of the graph; the graph's residual is added to them."""
    moved = graph.replace(positions=positions, positions_residual=graph.positions_residual)
    return jnp.asarray(evaluate(potential, moved, ("forces",)).forces)
