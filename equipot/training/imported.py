"""Trained potentials among the terms of a model: their terms and variables in the model, and what they leave to be learned.

E0 of the model are those of the imported potentials, each times its factor, and those of the rest: what a fit finds in the
labels less the predictions, or isolated atoms less the imported E0. Scale and shift of new networks are those of the residuals.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from equipot import eqp, published
from equipot.data.loader import sha256_of
from equipot.data.packed import pack, unpack
from equipot.data.split import Rezeroed
from equipot.data.stats import Known
from equipot.metadata import Metadata
from equipot.physics.guard import Guarded
from equipot.physics.imported import Imported
from equipot.physics.sum import Sum, refuse_second_dispersion
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.term import Scope, Term
from equipot.training.checkpoint import TRAINING
from equipot.training.errors import predict

NAME = "imported.safetensors"


class Import(NamedTuple):
    """A potential in a model."""

    name: str
    """File or published name."""
    potential: Potential
    sha256: str
    """SHA-256 of term, metadata and variables."""
    scope: tuple[str, ...]
    """Scope of its variables in each collection of the model, or in the constants where it is frozen."""
    frozen: bool
    factor: float
    """Factor on its energy in the model."""

    @property
    def described(self) -> str:
        """Name, SHA-256 and treatment."""
        return f"{self.name} (SHA-256 {self.sha256}, {'frozen' if self.frozen else 'trained'})"


def holds_import(term: Term) -> bool:
    """Whether a term, or one that it is made of, stands for a potential."""
    return isinstance(term, Imported) or any(map(holds_import, term.members.values()))


def resolve(term: Term, dtype: str) -> tuple[Term, tuple[Import, ...]]:
    """Load the potentials of a model and put their terms into it; without any, the term itself.

    Args:
        dtype: float32 or float64, for the variables.

    Raises:
        ValueError: a potential alone, or that is frozen outside of a list; several heads; a correction to a method; a second
            dispersion.
        FileNotFoundError: no such potential.
    """
    if not holds_import(term):
        return term, ()
    inner = term.base if isinstance(term, Guarded) else term
    if isinstance(inner, Imported):
        raise ValueError(
            f"model: {inner.from_} alone is trained by fine-tuning, model: {{from: {inner.from_}}}; in a list, other terms "
            "learn what it leaves"
        )
    found: list[Import] = []
    resolved = _resolved(term, dtype, (), 1.0, found)
    for part in found:
        if term.has_dispersion or any(other.potential.term.has_dispersion for other in found if other is not part):
            refuse_second_dispersion(part.potential.metadata.level_of_theory, part.potential.metadata.subtracted)
    return resolved, tuple(found)


def _resolved(term: Term, dtype: str, scope: tuple[str, ...], factor: float, found: list[Import]) -> Term:
    """Return a term with potentials in place of what stands for them, which are appended to ``found``."""
    if not holds_import(term):
        return term
    if isinstance(term, Sum):
        asked = [term.place_of(name) for name, member in term.members.items() if isinstance(member, Imported) and member.frozen]
        term = term.clone(frozen=tuple(sorted({*term.frozen, *asked})))
    changes: dict[str, Term] = {}
    for name, member in term.members.items():
        inside = term.scope_of(name)
        path, own = (*scope, *inside.path), factor * term.factor_of(name)
        if not isinstance(member, Imported):
            if inside.constant and holds_import(member):
                raise ValueError(f"model: frozen names {name}, which holds a potential: freeze the potential itself instead")
            changes[name] = _resolved(member, dtype, path, own, found)
            continue
        if member.frozen and not inside.constant:
            raise ValueError(f"model: {member.from_} can be frozen only in a list of terms; write it as a list of one, [...]")
        found.append(_load(member, dtype, path, inside.constant, own))
        changes[name] = found[-1].potential.term.clone(parent=None, name=None)
    return term.with_members(changes)


def _load(member: Imported, dtype: str, scope: tuple[str, ...], frozen: bool, factor: float) -> Import:
    potential, name = published.load(member.from_, dtype), member.from_
    if potential.heads:
        raise ValueError(
            f"model: {name} has the heads {', '.join(potential.heads)}; choose one, from: {name}@{potential.heads[0]}"
        )
    if (method := potential.metadata.subtracted) is not None:
        raise ValueError(f"model: {name} is a correction to {method.name} itself, and cannot be a part of another model")
    return Import(name, potential, eqp.sha256_of(potential), scope, frozen, factor)


def recorded(given: Term, resolved: Term) -> Term:
    """Return a resolved term with names in place of the potentials, as a config holds it, and all else as it was chosen.

    Args:
        given: the term before ``resolve``.
        resolved: the term after it, with cutoffs and elements that the data decided.
    """
    if not holds_import(given):
        return resolved
    if isinstance(given, Imported):
        return given
    theirs = resolved.members
    term = given.with_members({name: recorded(member, theirs[name]) for name, member in given.members.items()})
    own = any(field.name == "elements" for field in dataclasses.fields(given))
    return term.clone(elements=resolved.elements) if own else term


def with_variables(potential: Potential, imports: Sequence[Import]) -> Potential:
    """Put the variables of imported potentials into a model."""
    leaves = flatten_dict(potential.variables)
    for part in imports:
        scope = Scope(part.scope, part.frozen)
        leaves = {path: leaf for path, leaf in leaves.items() if scope.inside(path) is None}
        leaves |= {scope.outside(path): leaf for path, leaf in flatten_dict(part.potential.variables).items()}
    return potential.replace(variables=unflatten_dict(leaves))


def with_origin(metadata: Metadata, imports: Sequence[Import]) -> Metadata:
    """Add names, citations and licences of imported potentials to metadata."""
    joined = lambda texts: "; ".join(dict.fromkeys(filter(None, texts)))
    told = [part.potential.metadata for part in imports]
    return dataclasses.replace(
        metadata,
        citation=joined(m.citation for m in told),
        licence=joined(m.licence for m in told),
        extra=(*metadata.extra, *(("holds", part.described) for part in imports)),
    )


def predictions(
    imports: Sequence[Import], frames: Sequence[Structure], out: Path, resume: bool, devices: int
) -> list[Structure]:
    """Predict energies without E0, forces and stresses of frames by the imported potentials, each times its factor, in all.

    They are kept in the folder ``out`` of the run, and a resumed run reads them: an accelerator may differ in the last digits.

    Raises:
        ValueError: a frame that one of the potentials does not apply to.
        OSError: the predictions cannot be written.
    """
    path = out / NAME
    key = json.dumps([[part.sha256, part.factor] for part in imports] + [sha256_of(frames)])
    if resume and path.exists():
        _, record, arrays = TRAINING.read(path)
        if record["key"] == key:
            return unpack(frames, arrays)
    total: list[Structure] = []
    for part in imports:
        try:
            # The other terms may see what this one does not.
            seen = frames if "field" in part.potential.term.needs else [s.replace(field=np.zeros(3)) for s in frames]
            found = predict(part.potential, seen, devices=devices)
        except ValueError as error:
            raise ValueError(f"model: {part.name}: {error}") from None
        energies = {z: -energy for z, energy in part.potential.metadata.atomic_energies}
        bare = Rezeroed(found, energies)
        told = [{row: part.factor * v for row, v in s.labels.items() if row.energy_derivative} for s in bare]
        if total:
            told = [{row: v + s.labels[row] for row, v in one.items()} for one, s in zip(told, total, strict=True)]
        total = [s.replace(labels=one) for s, one in zip(found, told, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    TRAINING.write(path, {"key": key}, pack(total))
    return total


def isolated_atom_energies(imports: Sequence[Import]) -> dict[int, float]:
    """Return the sum of E0 of imported potentials, each times its factor, eV by Z, of the elements that all of them know."""
    tables = [(part.factor, dict(part.potential.metadata.atomic_energies)) for part in imports]
    common = set.intersection(*(set(table) for _, table in tables))
    return {z: sum(factor * table[z] for factor, table in tables) for z in sorted(common)}


def known(imports: Sequence[Import], predicted: Sequence[Structure]) -> Known:
    """Return what imported potentials explain of the energies of training frames, from which E0 of the model are found."""
    energies = isolated_atom_energies(imports)
    return Known(np.array([s.energy for s in Rezeroed(predicted, energies)]), energies, ())
