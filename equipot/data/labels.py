"""Which entries of a file are the energy, forces and stress, in which units.

Every group has its own names for the same labels. Those named in the config win; otherwise the file is searched for the names
in use, and where two of them disagree the choice is left to the user rather than made silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from equipot import units as unit
from equipot.structure import Structure


@dataclass(frozen=True)
class Keys:
    """Names of the labels in the files; what is left out is searched for among the names in use. ``none`` switches one off."""

    energy: str | None = None
    """Total energy of a frame."""
    forces: str | None = None
    """Forces on its atoms."""
    stress: str | None = None
    """Stress, positive under tension: 3x3, nine numbers, or six in the order xx, yy, zz, yz, xz, xy."""
    virial: str | None = None
    """Virial -dE/d(strain), as GAP, MACE, NEP and DeePMD write it: read as a stress of -virial/volume."""
    weight: str | None = None
    """Weight of a frame in the loss."""
    energy_weight: str | None = None
    """Weight of its energy."""
    forces_weight: str | None = None
    """Weight of its forces."""
    stress_weight: str | None = None
    """Weight of its stress."""


@dataclass(frozen=True)
class Units:
    """Units of the files. Formats that state their own (outputs of codes read through ASE, HDF5) come as eV and Å."""

    energy: str = "eV"
    """eV, meV, Hartree, Ry, kcal/mol or kJ/mol."""
    length: str = "Å"
    """Å, bohr, nm or pm; of positions and cells."""
    forces: str | None = None
    """energy/length, such as Hartree/bohr; that of the two above when left out."""
    stress: str | None = None
    """GPa, kbar, bar, Pa, or energy/length^3; that of the two above when left out."""

    def __post_init__(self) -> None:
        self.factors()

    def factors(self) -> dict[str, float]:
        """What to multiply each quantity with to reach eV and Å."""
        energy, length = unit.energy(self.energy), unit.length(self.length)
        forces = energy / length if self.forces is None else unit.force(self.forces)
        stress = energy / length**3 if self.stress is None else unit.stress(self.stress)
        return {"energy": energy, "length": length, "forces": forces, "stress": stress, "virial": energy}


def _spellings(*names: str) -> tuple[str, ...]:
    prefixes = ("", "REF_", "ref_", "dft_", "DFT_", "qm_", "QM_")
    suffixes = ("_dft", "_DFT", "_ref", "_REF")
    names = (*names, *(name.title() for name in names))
    return tuple(p + n for n in names for p in prefixes) + tuple(n + s for n in names for s in suffixes)


KNOWN: dict[str, tuple[str, ...]] = {
    "energy": (*_spellings("energy", "free_energy"), "E", "total_energy", "potential_energy", "TotEnergy"),
    "forces": (*_spellings("forces", "force"), "F"),
    "stress": _spellings("stress"),
    "virial": _spellings("virial", "virials"),
    "weight": ("config_weight",),
    "energy_weight": ("energy_weight", "config_energy_weight"),
    "forces_weight": ("forces_weight", "config_forces_weight", "force_weight"),
    "stress_weight": ("stress_weight", "config_stress_weight", "config_virials_weight", "virials_weight"),
}
"""The names in use for each label. A bare ``weight`` is not among them: it is as often a molecular mass."""
PER_ATOM = ("forces",)
LABELS = ("energy", "forces", "stress", "virial")
AGREE = {"energy": 1e-6, "forces": 1e-6, "stress": 1e-8, "virial": 1e-6}
"""Labels closer than this are the same one under two names."""
SWITCHED_OFF = "none"


class Frame(NamedTuple):
    """What a reader found for one frame, before it is decided what is a label."""

    atoms: Any
    """``ase.Atoms``."""
    entries: Mapping[str, Any]
    """Per frame: header entries, key-value pairs and calculator results under one roof."""
    columns: Mapping[str, Any]
    """Per atom, likewise."""
    source: str


def frame(atoms: Any, source: str, keys: Keys) -> Frame:
    """Sorts out what ASE may have put into ``info``, ``arrays`` or a calculator.

    SchNetPack and others keep forces in the ``data`` of a database row: what has their name and shape, or the name from the
    config, is moved to the columns.
    """
    entries = {key: value for key, value in atoms.info.items() if key not in ("key_value_pairs", "data")}
    for nested in ("key_value_pairs", "data"):
        entries |= dict(atoms.info.get(nested) or {})
    columns = {key: value for key, value in atoms.arrays.items() if key not in ("numbers", "positions")}
    for label in PER_ATOM:
        named = getattr(keys, label)
        for key in {*KNOWN[label], named} & entries.keys() - columns.keys():
            if key == named or _is_vectors(entries[key], len(atoms)):
                columns[key] = entries.pop(key)
    for key, value in (atoms.calc.results if atoms.calc is not None else {}).items():
        (columns if key in (*PER_ATOM, "energies", "stresses", "charges", "magmoms") else entries)[key] = value
    return Frame(atoms, entries, columns, source)


def _candidates(f: Frame, label: str) -> Iterable[str]:
    """What a frame has that could be the label."""
    if label not in PER_ATOM:
        return f.entries
    return [*f.columns, *(key for key, value in f.entries.items() if _is_vectors(value, len(f.atoms)))]


def _is_vectors(value: Any, atoms: int) -> bool:
    """Whether a value has three components for each atom."""
    return np.array(value, object).shape == (atoms, 3)


def choose(frames: Sequence[Frame], keys: Keys, path: str) -> dict[str, str]:
    """The name of each label in this file.

    Raises:
        ValueError: a name from the config that no frame has; two names that disagree.
    """
    chosen = {}
    for label, known in KNOWN.items():
        where = "columns" if label in PER_ATOM else "entries"
        named = getattr(keys, label)
        if named == SWITCHED_OFF or (named is None and _other_named(label, keys)):
            continue
        if named is not None:
            if not any(named in getattr(f, where) for f in frames):
                there = sorted({key for f in frames for key in _candidates(f, label)})
                raise ValueError(
                    f"{path}: no frame has {named!r} (data.keys.{label}); there is {', '.join(there) or 'nothing'}"
                )
            chosen[label] = named
            continue
        present = [name for name in known if any(name in getattr(f, where) for f in frames)]
        if len(present) > 1:
            _agree(frames, present, label, where, path)
        if present:
            # Where some frames lack one of two names that agree elsewhere, the one that reaches furthest.
            chosen[label] = max(present, key=lambda name: sum(name in getattr(f, where) for f in frames))  # noqa: B023
    return chosen


def _other_named(label: str, keys: Keys) -> bool:
    """Stress and virial are one label: naming one switches the search for the other off."""
    other = {"stress": keys.virial, "virial": keys.stress}.get(label)
    return other is not None and other != SWITCHED_OFF


def _agree(frames: Sequence[Frame], names: Sequence[str], label: str, where: str, path: str) -> None:
    remedy = f"set data.keys.{label} to the one to learn"
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


def structure(f: Frame, chosen: Mapping[str, str], factors: Mapping[str, float]) -> Structure:
    """One frame with its labels in eV and Å.

    Raises:
        ValueError: a label that is no number, of the wrong shape, or a virial without a volume.
    """
    values: dict[str, np.ndarray] = {}
    for label, name in chosen.items():
        held = (f.columns if label in PER_ATOM else f.entries).get(name)
        if held is not None:
            values[label] = _array(held, label, f.source)
    cell = np.array(f.atoms.cell[:]) * factors["length"]
    tensor = _stress(f, values, chosen, factors, abs(np.linalg.det(cell)))
    labelled = {name for names in KNOWN.values() for name in names} | set(chosen.values()) | {"free_energy"}
    weights = {k: float(v) for k, v in values.items() if k.endswith("weight") and v.ndim == 0}
    for label in ("energy", "weight", "energy_weight", "forces_weight", "stress_weight"):
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
        energy=float(values["energy"].reshape(())) * factors["energy"] if "energy" in values else None,
        forces=values["forces"] * factors["forces"] if "forces" in values else None,
        stress=tensor,
        charge=_scalar(f, "charge"),
        spin=_scalar(f, "spin"),
        info={key: value for key, value in f.entries.items() if key not in labelled | {"charge", "spin"}},
        source=f.source,
        **weights,
    )


def _stress(f: Frame, values: Mapping[str, np.ndarray], chosen: Mapping[str, str], factors: Mapping[str, float],
            volume: float) -> np.ndarray | None:  # fmt: skip
    """The stress from whichever of stress and virial is there; None for an open system with a label of zeros."""
    found = {label: _tensor(values[label], chosen[label], f.source) for label in ("stress", "virial") if label in values}
    if not found:
        return None
    if not f.atoms.pbc.any() or volume == 0:
        if all(np.all(tensor == 0) for tensor in found.values()):
            return None
        label = next(iter(found))
        raise ValueError(
            f"{f.source}: has {chosen[label]!r} but " + ("no periodic direction" if volume else "a cell without volume")
            + "; give the cell and pbc, or set data.keys.stress and data.keys.virial to none"
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
                "set data.keys.stress or data.keys.virial to the one to learn"
            )
    return next(iter(both.values()))


def _tensor(value: np.ndarray, name: str, source: str) -> np.ndarray:
    """A symmetric 3x3 tensor from 3x3, nine or six (ASE's Voigt order) numbers."""
    if value.size == 6:
        xx, yy, zz, yz, xz, xy = value.reshape(6)
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if value.size != 9:
        raise ValueError(f"{source}: {name!r} has shape {value.shape}; give 3x3, nine or six numbers")
    tensor = value.reshape(3, 3)
    skew = np.abs(tensor - tensor.T).max()
    if skew > 0.05 * np.abs(tensor).max() + 1e-8:
        raise ValueError(f"{source}: {name!r} is not symmetric (by up to {skew:.3g}); a stress is, so the order may be wrong")
    return (tensor + tensor.T) / 2


def _array(value: Any, label: str, source: str) -> np.ndarray:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{source}: the {label} is {str(value)[:40]!r}, not a number") from None


def _scalar(f: Frame, name: str) -> float:
    held = f.entries.get(name)
    value = _array(0.0 if held is None else held, name, f.source)
    if value.size != 1:
        raise ValueError(f"{f.source}: the {name} has shape {value.shape}, but it is one number")
    return float(value.reshape(()))
