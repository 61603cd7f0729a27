"""Select the entries of a file that are labels (energy, forces, stress, ...) and convert them to eV and Å.

Programs name the labels differently. A name in the config is used; otherwise the file is searched for common names, and where
two of them hold different values the user has to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from equipot import electric_field, hessian_labels
from equipot.data import stated
from equipot.data.comment import is_boolean
from equipot.data.keys import AGREE, SWITCHED_OFF, Keys, Units, setting
from equipot.electrons import KEYS as ELECTRONS
from equipot.electrons import charge_and_spin
from equipot.quantities import ENERGY, FORCES, STRESS, Quantity
from equipot.structure import Structure, fixed_components, kinds_of_constraints


class Frame(NamedTuple):
    """Content of one frame in a file, before labels are selected."""

    atoms: Any
    """``ase.Atoms``."""
    entries: Mapping[str, Any]
    """Values of the frame by name: entries of the comment, key-value pairs and calculator results."""
    columns: Mapping[str, Any]
    """Values per atom by name: columns and calculator results."""
    source: str
    units: Mapping[str, str]
    """Units that the file states, by label or by the name of an entry, see ``stated.joined``."""


def frame(atoms: Any, source: str, keys: Keys, units: Iterable[tuple[str, str]] = ()) -> Frame:
    """Sort the values that ASE stores in ``info``, ``arrays`` or a calculator into values per frame and values per atom.

    SchNetPack and others keep forces in the ``data`` of a database row: entries with a common name and the shape of a label per
    atom, or with the name from the config, become columns.

    Args:
        units: units that the file states outside of the entries of the frame, with the names to which they belong.
    """
    entries = {key: value for key, value in atoms.info.items() if key not in ("key_value_pairs", "data")}
    for nested in ("key_value_pairs", "data"):
        entries |= dict(atoms.info.get(nested) or {})
    columns = {key: value for key, value in atoms.arrays.items() if key not in ("numbers", "positions")}
    known, per_atom = keys.known(), keys.per_atom()
    for label, shape in per_atom.items():
        named = keys.named(label)
        for key in [key for key in entries if key == named or _rank(key, known[label]) is not None]:
            if key not in columns and (key == named or _is_of_atoms(entries[key], len(atoms), shape)):
                columns[key] = entries.pop(key)
    for key, value in (atoms.calc.results if atoms.calc is not None else {}).items():
        # A calculator's stress is in ASE's order, whatever the files of the config have.
        value = voigt_6_to_full_3x3_stress(value) if key == "stress" and np.shape(value) == (6,) else value
        (columns if key in (*per_atom, "energies", "stresses", "charges", "magmoms") else entries)[key] = value
    for row in keys.rows:
        if row.per == "pair" and keys.named(row.name) != SWITCHED_OFF:
            for key in _stems([*entries, *columns], known[row.name], keys.named(row.name)):
                hessian_labels.gather(entries, columns, key, len(atoms), source)
    return Frame(atoms, entries, columns, source, stated.joined([*units, *stated.of_entries(entries)]))


def _stems(names: Iterable[str], known: Sequence[str], named: str | None) -> list[str]:
    """List the names of a Hessian in a frame, each once, the endings of parts taken off: common names, or the one given."""
    endings = (hessian_labels.PRODUCTS, hessian_labels.DIRECTIONS, hessian_labels.COLUMNS)
    stems = {name.removesuffix(next((end for end in endings if name.endswith(end)), "")) for name in names}
    return sorted(stem for stem in stems if stem == named or _rank(stem, known) is not None)


def _rank(name: str, known: Sequence[str]) -> int | None:
    """Return the index of a name in the common names of a label, or None; a name of one letter is matched with its case."""
    name = name if len(name) == 1 else name.lower()
    return known.index(name) if name in known else None


def _candidates(f: Frame, shape: tuple[int, ...] | None) -> Iterable[str]:
    """List the names in a frame that could be a label: per atom with a given shape, or per frame if ``shape`` is None."""
    if shape is None:
        return f.entries
    return [*f.columns, *(key for key, value in f.entries.items() if _is_of_atoms(value, len(f.atoms), shape))]


def _is_of_atoms(value: Any, atoms: int, shape: tuple[int, ...]) -> bool:
    """Whether a value has the shape (atoms, *shape)."""
    return np.array(value, object).shape == (atoms, *shape)


def choose(frames: Sequence[Frame], keys: Keys, path: str) -> dict[str, str]:
    """Choose the name of each label in a file.

    Raises:
        ValueError: no frame has the name that the config gives, or two common names hold different values.
    """
    chosen, per_atom = {}, keys.per_atom()
    for label, known in keys.known().items():
        where = "columns" if label in per_atom else "entries"
        named = keys.named(label)
        if named == SWITCHED_OFF or (named is None and _other_named(label, keys)):
            continue
        if named is not None:
            if not any(named in getattr(f, where) for f in frames):
                names = sorted({key for f in frames for key in _candidates(f, per_atom.get(label))})
                there = f"there is {', '.join(names) or 'nothing'}"
                raise ValueError(f"{path}: no frame has {named!r}, set by {setting(f'keys.{label}')}; {there}")
            chosen[label] = named
            continue
        present = _present(frames, known, where, label in ("weight", *keys.weights()))
        if len(present) > 1:
            _agree(frames, present, label, where, path)
        if present:
            # Where some frames lack one of two names that agree elsewhere, the one that reaches furthest.
            chosen[label] = max(present, key=lambda name: sum(name in getattr(f, where) for f in frames))  # noqa: B023
    return chosen


def _present(frames: Sequence[Frame], known: Sequence[str], where: str, is_weight: bool) -> list[str]:
    """List the common names of a label that occur in the frames, the most usual first.

    Booleans are not labels: ASE turns bare words of a comment into True.
    """
    usable = lambda value: is_weight or not is_boolean(value)
    there = {
        name for f in frames for name, value in getattr(f, where).items() if _rank(name, known) is not None and usable(value)
    }
    return sorted(there, key=lambda name: (_rank(name, known), name.lower() != name))


def _other_named(label: str, keys: Keys) -> bool:
    """Whether the config names the virial where ``label`` is the stress, or the reverse: the two are one label."""
    other = {"stress": keys.virial, "virial": keys.stress}.get(label)
    return other is not None and other != SWITCHED_OFF


def _agree(frames: Sequence[Frame], names: Sequence[str], label: str, where: str, path: str) -> None:
    """Check that several names of one label hold equal values in every frame, and that one name occurs wherever any does.

    Raises:
        ValueError: values that differ, or names that occur in different frames.
    """
    remedy = f"set {setting(f'keys.{label}')} to the one to learn"
    for f in frames:
        held = [name for name in names if name in getattr(f, where)]
        first, values = held[:1], {name: _array(getattr(f, where)[name], label, f.source) for name in held}
        for name in held[1:]:
            a, b = values[first[0]], values[name]
            if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=AGREE.get(label, 1e-12), equal_nan=True):
                for broken in (key for key in (first[0], name) if not np.all(np.isfinite(values[key]))):
                    raise ValueError(f"{f.source}: {broken!r} holds NaN or infinity; calculate the frame again or remove it")
                shown = f" ({a.flat[0]:g} and {b.flat[0]:g})" if a.size == b.size == 1 else ""
                free = any("free_energy" in key for key in (first[0], name))
                why = "; where both come from one code, forces are the slope of the free energy" if free else ""
                raise ValueError(f"{f.source}: {first[0]!r} and {name!r} disagree{shown}; {remedy}{why}")
    covered = {name: sum(name in getattr(f, where) for f in frames) for name in names}
    if max(covered.values()) < sum(any(name in getattr(f, where) for name in names) for f in frames):
        listed = ", ".join(f"{name!r} in {count}" for name, count in covered.items())
        raise ValueError(f"{path}: {label} has different names in different frames ({listed} of {len(frames)}); {remedy}")


def structure(f: Frame, chosen: Mapping[str, str], keys: Keys, units: Units) -> Structure:
    """Convert a frame to a structure with labels in eV and Å.

    Args:
        chosen: name of each label, from ``choose``.

    Raises:
        ValueError: a label that is not a number, a wrong shape, a virial without a volume, or units that contradict the file.
    """
    factors = stated.factors(units, f.units, chosen, f.source)
    further = stated.further_factors(units, f.units, chosen, keys.rows, factors, f.source)
    values: dict[str, np.ndarray] = {}
    per_atom = keys.per_atom()
    for label, name in chosen.items():
        held = (f.columns if label in per_atom else f.entries).get(name)
        if held is not None:
            values[label] = _array(held, label, f.source)
    cell = np.array(f.atoms.cell[:]) * factors["length"]
    tensors: dict[str, np.ndarray] = {
        label: _tensor(values[label], chosen[label], keys, f.source) for label in ("stress", "virial") if label in values
    }
    tensor = _stress(f, tensors, chosen, factors, abs(np.linalg.det(cell)))
    motion = lambda key: _array(f.columns[key], key, f.source) if key in f.columns else None
    charge, spin = charge_and_spin(f.entries, f.source, units.spin or "unpaired")
    conditions = (*ELECTRONS, *electric_field.KEYS)
    is_label = lambda key: key in chosen.values() or any(_rank(key, names) is not None for names in keys.known().values())
    weighted = keys.weights()
    weights = {k: float(v) for k, v in values.items() if k in ("weight", *weighted) and v.ndim == 0}
    label_weights = {weighted[k]: v for k, v in weights.items() if k != "weight"}
    for label in ("energy", "weight", *weighted):
        if label in values and values[label].size != 1:
            raise ValueError(f"{f.source}: {chosen[label]!r} has shape {values[label].shape}, but the {label} is one number")
    for label, value in weights.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{f.source}: {chosen[label]!r} is {value:g}; a weight must be zero or positive")
    return Structure(
        numbers=f.atoms.numbers,
        positions=f.atoms.positions * factors["length"],
        cell=cell,
        pbc=f.atoms.pbc,
        labels={
            ENERGY: float(values["energy"].reshape(())) * factors["energy"] if "energy" in values else None,
            FORCES: values["forces"] * factors["forces"] if "forces" in values else None,
            STRESS: tensor,
            **{row: row.scaled(_shaped(row, values[row.name], f), further[row]) for row in keys.rows if row.name in values},
        },
        weight=weights.get("weight", 1.0),
        label_weights=label_weights,
        charge=charge,
        spin=spin,
        field=_field(f, factors),
        masses=motion("masses"),
        momenta=motion("momenta"),
        constraints=kinds_of_constraints(f.atoms),
        fixed=fixed_components(f.atoms),
        info={key: value for key, value in f.entries.items() if not is_label(key) and key.lower() not in conditions},
        source=f.source,
    )


def _field(f: Frame, factors: Mapping[str, float]) -> np.ndarray:
    """Return the electric field of a frame (3,), V/Å; zero where the frame states none.

    Raises:
        ValueError: a field in a frame that is not in eV and Å, where the unit of the field is unclear.
    """
    field = electric_field.stated(f.entries, f.source)
    if field is None:
        return np.zeros(3)
    if field.any() and (factors["energy"] != 1 or factors["length"] != 1):
        raise ValueError(
            f"{f.source}: an electric field is read in V/Å, but the frame is not in eV and Å, so that its unit is unclear; "
            "convert the file to eV, Å and V/Å"
        )
    return field


def _shaped(row: Quantity, value: np.ndarray, f: Frame) -> np.ndarray:
    """Reshape a label of a further quantity to the shape of the quantity.

    Raises:
        ValueError: a wrong number of components.
    """
    atoms = len(f.atoms)
    wanted = row.shape_of(atoms)
    if row.per == "pair" and value.ndim == 4 and value.shape[1:] == (2, atoms, 3):
        return value
    if value.size != np.prod(wanted, dtype=int):
        raise ValueError(f"{f.source}: the {row.name} has shape {value.shape}, but {atoms} atoms need {wanted}")
    return value.reshape(wanted)


def _stress(f: Frame, found: Mapping[str, np.ndarray], chosen: Mapping[str, str], factors: Mapping[str, float],
            volume: float) -> np.ndarray | None:  # fmt: skip
    """Compute the stress (3, 3) in eV/Å^3 from the stress or the virial; None for an open system whose label is zero.

    Raises:
        ValueError: an open system with a label, or a stress and a virial that differ.
    """
    if not found:
        return None
    if not f.atoms.pbc.any() or volume == 0:
        if all(np.all(tensor == 0) for tensor in found.values()):
            return None
        label = next(iter(found))
        raise ValueError(
            f"{f.source}: has {chosen[label]!r} but " + ("no periodic direction" if volume else "a cell without volume")
            + "; give the cell and pbc, or set keys.stress and keys.virial (data.keys in training) to none"
        )  # fmt: skip
    both = {}
    if "stress" in found:
        both["stress"] = found["stress"] * factors["stress"]
    if "virial" in found:
        both["virial"] = -found["virial"] * factors["virial"] / volume
    if len(both) == 2:
        scale = np.abs(both["stress"]).max() + np.abs(both["virial"]).max()
        if np.abs(both["stress"] - both["virial"]).max() > 1e-3 * scale + 1e-6:
            raise ValueError(
                f"{f.source}: {chosen['stress']!r} and -{chosen['virial']!r}/volume disagree "
                f"(xx {both['stress'][0, 0]:.3g} and {both['virial'][0, 0]:.3g} eV/Å^3); "
                "set keys.stress or keys.virial (data.keys in training) to the one to learn"
            )
    return next(iter(both.values()))


def _tensor(value: np.ndarray, name: str, keys: Keys, source: str) -> np.ndarray:
    """Convert 3x3, nine or six numbers (in the order of ``keys.six``) to a symmetric tensor (3, 3).

    Raises:
        ValueError: another number of components, or a tensor that is not symmetric.
    """
    if value.size == 6:
        held = dict(zip(keys.order(), value.reshape(6), strict=True))
        return np.array([[held["".join(sorted(a + b))] for b in "xyz"] for a in "xyz"])
    if value.size != 9:
        raise ValueError(f"{source}: {name!r} has shape {value.shape}; give 3x3, nine or six numbers")
    tensor = value.reshape(3, 3)
    skew = np.abs(tensor - tensor.T).max()
    if skew > 0.05 * np.abs(tensor).max() + 1e-8:
        raise ValueError(f"{source}: {name!r} is not symmetric (by up to {skew:.3g}); a stress is, so the order may be wrong")
    return (tensor + tensor.T) / 2


def _array(value: Any, label: str, source: str) -> np.ndarray:
    """Convert a label to an array of floats.

    Raises:
        ValueError: a boolean or another value that is not a number.
    """
    if is_boolean(value):
        raise ValueError(f"{source}: the {label} is {str(value)[:40]}, not a number; give the number, or take the entry out")
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{source}: the {label} is {str(value)[:40]!r}, not a number") from None
