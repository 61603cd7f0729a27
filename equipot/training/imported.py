"""Trained potentials among the terms of a model: their terms and variables in the model, and what they leave to be learned.

E0 of the model are those of the imported potentials, each times its factor, and those of the rest: what a fit finds in the
labels less the predictions, or isolated atoms less the imported E0. Scale and shift of new networks are those of the residuals.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
from equipot.term import Term
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
    return isinstance(term, Imported) or any(map(holds_import, _members(term).values()))


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
    if term.has_dispersion:
        for part in found:
            refuse_second_dispersion(part.potential.metadata.level_of_theory)
    return resolved, tuple(found)


def _resolved(term: Term, dtype: str, scope: tuple[str, ...], factor: float, found: list[Import]) -> Term:
    """Return a term with potentials in place of what stands for them, which are appended to ``found``."""
    if not holds_import(term):
        return term
    changes: dict[tuple[str, int | None], Term] = {}
    fixed = set(term.frozen) if isinstance(term, Sum) else set()
    for place, member in _members(term).items():
        name, k = place
        own = factor * (term.factors[k] if isinstance(term, Sum) and term.factors and k is not None else 1.0)
        # A wall shares the scope of its base.
        inside = scope if isinstance(term, Guarded) else (*scope, name if k is None else f"{name}_{k}")
        if not isinstance(member, Imported):
            if k in fixed:
                raise ValueError(f"model: frozen names term {k}, which holds a potential: freeze the potential itself instead")
            changes[place] = _resolved(member, dtype, inside, own, found)
            continue
        frozen = member.frozen or k in fixed
        if frozen and (k is None or not isinstance(term, Sum)):
            raise ValueError(f"model: {member.from_} can be frozen only in a list of terms; write it as a list of one, [...]")
        if frozen and k is not None:
            fixed.add(k)
            inside = (*scope, f"frozen_{k}")
        found.append(_load(member, dtype, inside, frozen, own))
        changes[place] = found[-1].potential.term.clone(parent=None, name=None)
    if isinstance(term, Sum):
        return _with_members(term, changes, frozen=tuple(sorted(fixed)))
    return _with_members(term, changes)


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
    theirs = _members(resolved)
    changes = {place: recorded(member, theirs[place]) for place, member in _members(given).items()}
    if any(field.name == "elements" for field in dataclasses.fields(given)):
        return _with_members(given, changes, elements=resolved.elements)
    return _with_members(given, changes)


def with_variables(potential: Potential, imports: Sequence[Import]) -> Potential:
    """Put the variables of imported potentials into a model."""
    variables: Any = potential.variables
    for part in imports:
        if part.frozen:
            variables = _put(variables, ("constants", *part.scope), part.potential.variables)
            continue
        for collection, tree in part.potential.variables.items():
            variables = _put(variables, (collection, *part.scope), tree)
    return potential.replace(variables=variables)


def _put(tree: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = path
    return {**tree, name: _put(tree.get(name, {}), tuple(rest), value) if rest else value}


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


def _members(term: Term) -> dict[tuple[str, int | None], Term]:
    """Return the terms that a term is made of, by field and place in it; the place is None for a field that is no list."""
    found: dict[tuple[str, int | None], Term] = {}
    for field in (field for field in dataclasses.fields(term) if field.name != "parent"):
        value = getattr(term, field.name)
        if isinstance(value, Term):
            found[field.name, None] = value
        elif isinstance(value, tuple):
            found |= {(field.name, k): member for k, member in enumerate(value) if isinstance(member, Term)}
    return found


def _with_members(term: Term, members: Mapping[tuple[str, int | None], Term], **fields: Any) -> Term:
    """Return a term made of other terms, at the places of ``_members``; its cutoff follows from theirs."""
    changes: dict[str, Any] = {}
    for (name, k), member in members.items():
        if k is None:
            changes[name] = member
        else:
            held = list(changes.get(name, getattr(term, name)))
            held[k] = member
            changes[name] = tuple(held)
    return term.clone(**changes, **fields)
