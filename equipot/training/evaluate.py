"""How good a potential is: mean errors over labelled structures, predictions beside the labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipot.data.split import Chain
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.files import write_atomically
from equipot.isolated_atoms import isolated_atom_energy
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.units import GPa

Table = dict[str, float]


def evaluate_set(
    potential: Potential, structures: Sequence[Structure], batch_size: int | None = None, devices: int | None = None
) -> tuple[Table, list[Structure]]:
    """Mean errors against the labels, and the structures with predicted labels in place of their own.

    The table has, in eV and Å, ``energy_mae``, ``energy_rmse`` (of whole structures), ``energy_mae_per_atom``,
    ``energy_rmse_per_atom``, ``forces_mae``, ``forces_rmse`` (over Cartesian components; also for each element, such as
    ``forces_mae_Si``), ``stress_mae``, ``stress_rmse`` (over the nine components); and ``frames`` and ``atoms``. What no
    structure has a label for is left out. ``batch_size`` and ``devices`` as in ``predict``.

    Raises:
        ValueError: no structures, or an element that the potential does not know.
    """
    predictions = predict(potential, structures, batch_size, devices)
    return error_table(structures, predictions), predictions


def evaluate_sets(
    potential: Potential, sets: Mapping[str, Sequence[Structure]], batch_size: int | None = None, devices: int | None = None
) -> dict[str, tuple[Table, list[Structure]]]:
    """``evaluate_set`` of several sets in one pass, so that they share what is compiled; empty ones are left out.

    Raises:
        ValueError: an element that the potential does not know.
    """
    sets = {name: structures for name, structures in sets.items() if len(structures)}
    predictions = predict(potential, Chain(tuple(sets.values())), batch_size, devices) if sets else []
    out, first = {}, 0
    for name, structures in sets.items():
        own = predictions[first : first + len(structures)]
        out[name] = (error_table(structures, own), own)
        first += len(own)
    return out


def predict(
    potential: Potential, structures: Sequence[Structure], batch_size: int | None = None, devices: int | None = None
) -> list[Structure]:
    """The structures with predicted energy, forces and, where the cell has a volume, stress as their labels.

    ``batch_size`` are the structures evaluated at a time, over all ``devices`` (nothing means all that are local); where it is
    left out, as many as is useful and as memory allows.

    Raises:
        ValueError: no structures, or an element that the potential does not know.
    """
    if not len(structures):
        raise ValueError("there are no structures to evaluate")
    potential.check(structures)
    energies = dict(potential.metadata.atomic_energies)
    periodic = any(structures[k].pbc.any() for k in range(len(structures)))
    job = Job(potential, ("forces", "stress") if periodic else ("forces",))
    out: dict[int, Structure] = {}
    for k, found in evaluate_in_batches(job, structures, batch_size, devices):
        structure = structures[k]
        stress = None if found.stress is None else np.asarray(found.stress, np.float64)
        out[k] = structure.replace(
            energy=float(found.interaction) + float(isolated_atom_energy(structure.numbers, energies).sum()),
            forces=np.asarray(found.forces, np.float64),
            stress=stress if stress is not None and structure.pbc.any() and np.isfinite(stress).all() else None,
        )
    return [out[k] for k in range(len(structures))]


def error_table(references: Sequence[Structure], predictions: Sequence[Structure]) -> Table:
    """Mean errors of predictions, in eV and Å (see ``evaluate_set``)."""
    from ase.data import chemical_symbols

    errors: dict[str, list[np.ndarray]] = {}
    add = lambda name, value: errors.setdefault(name, []).append(np.ravel(value))
    pairs = [(references[k], predicted) for k, predicted in enumerate(predictions)]
    for reference, predicted in pairs:
        if reference.energy is not None:
            add("energy", predicted.energy - reference.energy)
            add("energy_per_atom", (predicted.energy - reference.energy) / len(reference))
        if reference.forces is not None:
            difference = predicted.forces - reference.forces
            add("forces", difference)
            for z in np.unique(reference.numbers):
                add(f"forces_{chemical_symbols[z]}", difference[reference.numbers == z])
        if reference.stress is not None and predicted.stress is not None:
            add("stress", predicted.stress - reference.stress)
    table: Table = {"frames": len(pairs), "atoms": sum(len(reference) for reference, _ in pairs)}
    for name, parts in errors.items():
        label, _, rest = name.partition("_")
        values = np.concatenate(parts)
        suffix = f"_{rest}" if rest else ""
        table[f"{label}_mae{suffix}"] = float(np.mean(np.abs(values)))
        table[f"{label}_rmse{suffix}"] = float(np.sqrt(np.mean(values**2)))
    return table


ROWS = (
    ("energy per atom", "energy_{}_per_atom", 1e3, "meV/atom"),
    ("energy", "energy_{}", 1e3, "meV"),
    ("forces", "forces_{}", 1e3, "meV/Å"),
    ("stress", "stress_{}", 1 / GPa, "GPa"),
)


def table_text(tables: Mapping[str, Table]) -> str:
    """The tables of several sets as one in Markdown: one line a quantity, MAE and RMSE of each set."""
    sets = list(tables)
    elements = sorted({key[len("forces_mae_") :] for t in tables.values() for key in t if key.startswith("forces_mae_")})
    rows = list(ROWS)
    if len(elements) > 1:
        rows[3:3] = [(f"forces on {symbol}", "forces_{}_" + symbol, 1e3, "meV/Å") for symbol in elements]
    header = ["", *(f"{name} {kind}" for name in sets for kind in ("MAE", "RMSE")), "unit"]
    lines = []
    for label, key, factor, unit in rows:
        cells = [tables[name].get(key.format(kind)) for name in sets for kind in ("mae", "rmse")]
        if any(cell is not None for cell in cells):
            lines.append([label, *("" if cell is None else f"{cell * factor:.4g}" for cell in cells), unit])
    widths = [max(len(line[k]) for line in [header, *lines]) for k in range(len(header))]
    is_text = lambda k: k in (0, len(header) - 1)
    place_cell = lambda k, cell: cell.ljust(widths[k]) if is_text(k) else cell.rjust(widths[k])
    row = lambda line: "| " + " | ".join(place_cell(k, cell) for k, cell in enumerate(line)) + " |"
    rule = "|".join("-" * (width + 1) + ("-" if is_text(k) else ":") for k, width in enumerate(widths))
    return "\n".join([row(header), f"|{rule}|", *map(row, lines)])


def write_json(table: Mapping[str, Any], path: str | Path) -> None:
    """The table as a JSON file."""
    write_atomically(path, (json.dumps(table, indent=2) + "\n").encode())


def write_predictions(references: Sequence[Structure], predictions: Sequence[Structure], path: str | Path) -> None:
    """Extended XYZ with ``REF_energy``, ``REF_forces``, ``REF_stress`` and ``predicted_energy``, ... of each structure."""
    import io

    from ase.io import write

    frames = []
    for k, predicted in enumerate(predictions):
        atoms = predicted.without_labels().to_ase()
        # Ragged lists and mappings, as databases hold them, cannot be read back from this format.
        plain = (str, int, float, np.generic, np.ndarray)
        atoms.info = {key: value for key, value in atoms.info.items() if isinstance(value, plain)}
        # What the file said under these names, before it was read into labels, would contradict them.
        for source, prefix in ((references[k], "REF_"), (predicted, "predicted_")):
            if source.energy is not None:
                atoms.info[f"{prefix}energy"] = source.energy
            if source.forces is not None:
                atoms.arrays[f"{prefix}forces"] = source.forces
            if source.stress is not None:
                atoms.info[f"{prefix}stress"] = source.stress.ravel()
        frames.append(atoms)
    text = io.StringIO()
    write(text, frames, format="extxyz")
    write_atomically(path, text.getvalue().encode())
