"""Mean errors of a potential over labelled structures, as tables, JSON and extended XYZ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot.data.method import Runner
from equipot.data.split import Chain
from equipot.evaluation.batched import Job, evaluate_in_batches
from equipot.evaluation.hessians import with_hessians
from equipot.evaluation.method import with_method
from equipot.files import write_atomically
from equipot.hessian_labels import parts
from equipot.isolated_atoms import isolated_atom_energy
from equipot.posterior import check_estimates
from equipot.potential import Potential
from equipot.quantities import ENERGY, LABELLED, Quantity, ordered
from equipot.structure import Structure
from equipot.training.hessian_errors import LINES, NAMES, hessian_errors

__all__ = ["error_table", "evaluate_set", "evaluate_sets", "predict", "table_text", "write_predictions"]

Table = dict[str, float]
"""Mean errors by name, see ``evaluate_set``."""


def evaluate_set(
    potential: Potential,
    structures: Sequence[Structure],
    batch_size: int | None = None,
    devices: int | None = None,
    runner: Runner | None = None,
    estimates: Sequence[Quantity] = (),
) -> tuple[Table, list[Structure]]:
    """Compute the mean errors of a potential against the labels of structures.

    The table has, in eV and Å, ``energy_mae``, ``energy_rmse`` (of whole structures), ``energy_mae_per_atom``,
    ``energy_rmse_per_atom``, ``forces_mae``, ``forces_rmse`` (over Cartesian components; also for each element, such as
    ``forces_mae_Si``), ``stress_mae``, ``stress_rmse`` (over the nine components), MAE and RMSE of any other quantity that the
    potential provides, those of Hessians (see ``training.hessian_errors``), and the numbers
    ``frames`` and ``atoms``. Quantities that no structure has a label of are left out.

    Args:
        potential: Potential to evaluate.
        structures: Structures with labels.
        batch_size: As in ``predict``.
        devices: As in ``predict``.
        runner: As in ``predict``.
        estimates: As in ``predict``.

    Returns:
        The table, and the structures with predictions as their labels.

    Raises:
        ValueError: there are no structures, or the potential does not know an element.
    """
    predictions = predict(potential, structures, batch_size, devices, runner, estimates)
    # Nothing says what the Hessian of the method is that a correction is added to.
    if runner is None:
        predictions = list(with_hessians(potential, structures, predictions))
    return error_table(structures, predictions), predictions


def evaluate_sets(
    potential: Potential, sets: Mapping[str, Sequence[Structure]], batch_size: int | None = None, devices: int | None = None
) -> dict[str, tuple[Table, list[Structure]]]:
    """Compute ``evaluate_set`` for several sets in one pass with shared compilations; empty sets are left out.

    Raises:
        ValueError: the potential does not know an element.
    """
    sets = {name: structures for name, structures in sets.items() if len(structures)}
    predictions = predict(potential, Chain(tuple(sets.values())), batch_size, devices) if sets else []
    out, first = {}, 0
    for name, structures in sets.items():
        own = list(with_hessians(potential, structures, predictions[first : first + len(structures)]))
        out[name] = (error_table(structures, own), own)
        first += len(structures)
    return out


def predict(
    potential: Potential,
    structures: Sequence[Structure],
    batch_size: int | None = None,
    devices: int | None = None,
    runner: Runner | None = None,
    estimates: Sequence[Quantity] = (),
) -> list[Structure]:
    """Return the structures with predictions as their labels.

    Predicted are energy, forces, stress where the cell has a volume, and all other quantities that the potential provides; no
    Hessians, see ``evaluation.hessians.with_hessians``.

    Args:
        potential: Potential to evaluate.
        structures: Structures; their labels are replaced.
        batch_size: Number of structures evaluated at a time, over all devices; None for a size chosen by use and memory.
        devices: Number of local devices; None for all.
        runner: Method that the potential is a correction to, see ``data.method.runner_of``; None for no such method.
        estimates: Estimates of uncertainty that are predicted besides, such as ``potential.deviations``. A structure with an
            element for which a deviation was not calibrated gets none.

    Raises:
        ValueError: there are no structures, the potential does not know an element or has no such estimate, or it is a
            correction without its method.
    """
    if not len(structures):
        raise ValueError("there are no structures to evaluate")
    (potential if runner is None else potential.correction).check(structures)
    check_estimates(potential.posterior, estimates)
    energies, rows = dict(potential.metadata.atomic_energies), (*predicted_quantities(potential), *estimates)
    periodic = any(structures[k].pbc.any() for k in range(len(structures)))
    wanted = tuple(row.name for row in rows if row is not ENERGY and (periodic or not row.needs_volume))
    out: dict[int, Structure] = {}
    for k, found in evaluate_in_batches(Job(potential, wanted), structures, batch_size, devices):
        structure = structures[k]
        free = isolated_atom_energy(structure.numbers, energies).sum()
        found = with_method(found.replace(energy=np.float64(np.asarray(found.interaction)) + free), structure, runner)
        # What the method does not say, its correction alone does not either.
        lost = () if runner is None else tuple(row for row in LABELLED if row.name not in runner.properties)
        labels: dict[Quantity, Any] = {row: value for row in rows if row not in lost and (value := found[row]) is not None}
        labels[ENERGY] = float(labels[ENERGY])
        out[k] = structure.replace(labels={row: value for row, value in labels.items() if is_known(row, value, structure)})
    return [out[k] for k in range(len(structures))]


def is_known(row: Quantity, value: Any, structure: Structure) -> bool:
    """Whether a structure has a value of a quantity that may be undefined: for want of a volume, or of a calibration."""
    if row.needs_volume:
        return bool(structure.pbc.any() and np.isfinite(value).all())
    return not row.deviation_of or bool(np.isfinite(value).all())


def predicted_quantities(potential: Potential) -> tuple[Quantity, ...]:
    """List the quantities that a potential predicts: energy, forces, stress, and the quantities that its term provides."""
    return (*LABELLED, *(row for row in potential.provides if row not in LABELLED))


def error_table(references: Sequence[Structure], predictions: Sequence[Structure]) -> Table:
    """Compute mean errors of predictions (see ``evaluate_set``) from the labels of both."""
    from ase.data import chemical_symbols

    errors: dict[str, list[np.ndarray]] = {}
    add = lambda name, value: errors.setdefault(name, []).append(np.ravel(value))
    pairs = [(references[k], predicted) for k, predicted in enumerate(predictions)]
    rows = ordered(row for reference, predicted in pairs for row in reference.labels.keys() & predicted.labels.keys())
    for row in rows:
        for reference, predicted in pairs:
            if row not in reference.labels or row not in predicted.labels:
                continue
            if row.per == "pair":
                for key, value in hessian_errors(reference, reference.labels[row], predicted.labels[row]).items():
                    add(NAMES[key], value)
                continue
            difference = np.subtract(predicted.labels[row], reference.labels[row])
            add(f"{row.name}_{{}}", difference)
            if row.extensive:
                add(row.error_name, difference / len(reference))
            for z in np.unique(reference.numbers) if row.per == "atom" else ():
                add(f"{row.name}_{{}}_{chemical_symbols[z]}", difference[reference.numbers == z])
    table: Table = {"frames": len(pairs), "atoms": sum(len(reference) for reference, _ in pairs)}
    for name, found in errors.items():
        values = np.concatenate(found)
        table[name.format("mae")] = float(np.mean(np.abs(values)))
        table[name.format("rmse")] = float(np.sqrt(np.mean(values**2)))
    return table


class ErrorRow(NamedTuple):
    """A line of the printed error table."""

    label: str
    key: str
    """Key in a ``Table``, with {} in place of mae or rmse."""
    factor: float
    """Factor from eV and Å to ``unit``."""
    unit: str


def error_rows(quantity: Quantity, elements: Sequence[str]) -> list[ErrorRow]:
    """List the lines of a quantity in the printed table; a quantity of atoms has one more line for each of ``elements``."""
    unit, factor = quantity.shown
    if quantity.per == "pair":
        return [ErrorRow(label, NAMES[key], 1.0, unit) for key, (label, unit) in LINES.items()]
    lines = [ErrorRow(quantity.name, f"{quantity.name}_{{}}", factor, unit)]
    if quantity.extensive:
        lines.insert(0, ErrorRow(f"{quantity.name} per atom", quantity.error_name, factor, f"{unit}/atom"))
    if quantity.per == "atom":
        lines += [ErrorRow(f"{quantity.name} on {e}", f"{quantity.name}_{{}}_{e}", factor, unit) for e in elements]
    return lines


def table_rows(tables: Mapping[str, Table], quantities: Sequence[Quantity] = LABELLED) -> list[list[str]]:
    """List the cells of one table with MAE and RMSE of several sets in columns; the first row has the names of the columns."""
    sets = list(tables)
    prefixes = tuple(f"{row.name}_mae_" for row in quantities if row.per == "atom")
    keys = [key for t in tables.values() for key in t if key.startswith(prefixes)]
    elements = sorted({key.rpartition("_")[2] for key in keys})
    elements = elements if len(elements) > 1 else []
    lines = [["", *(f"{name} {kind}" for name in sets for kind in ("MAE", "RMSE")), "unit"]]
    for label, key, factor, unit in (line for row in quantities for line in error_rows(row, elements)):
        cells = [tables[name].get(key.format(kind)) for name in sets for kind in ("mae", "rmse")]
        if any(cell is not None for cell in cells):
            lines.append([label, *("" if cell is None else f"{cell * factor:.4g}" for cell in cells), unit])
    return lines


def table_text(tables: Mapping[str, Table], quantities: Sequence[Quantity] = LABELLED) -> str:
    """Format ``table_rows`` as Markdown."""
    header, *lines = table_rows(tables, quantities)
    widths = [max(len(line[k]) for line in [header, *lines]) for k in range(len(header))]
    is_text = lambda k: k in (0, len(header) - 1)
    place_cell = lambda k, cell: cell.ljust(widths[k]) if is_text(k) else cell.rjust(widths[k])
    row = lambda line: "| " + " | ".join(place_cell(k, cell) for k, cell in enumerate(line)) + " |"
    rule = "|".join("-" * (width + 1) + ("-" if is_text(k) else ":") for k, width in enumerate(widths))
    return "\n".join([row(header), f"|{rule}|", *map(row, lines)])


def write_json(table: Mapping[str, Any], path: str | Path) -> None:
    """Write a table as a JSON file."""
    write_atomically(path, (json.dumps(table, indent=2) + "\n").encode())


def write_predictions(references: Sequence[Structure], predictions: Sequence[Structure], path: str | Path) -> None:
    """Write structures with ``REF_energy``, ``REF_forces``, ``predicted_energy``, ... of all quantities as extended XYZ."""
    import io

    from ase.io import write

    frames = []
    for k, predicted in enumerate(predictions):
        atoms = predicted.without_labels().to_ase()
        # Ragged lists and mappings, as databases hold them, cannot be read back from this format.
        plain = (str, int, float, np.generic, np.ndarray)
        atoms.info = {key: value for key, value in atoms.info.items() if isinstance(value, plain)}
        # Values that the file had under the names of labels would contradict the labels.
        for source, prefix in ((references[k], "REF_"), (predicted, "predicted_")):
            for row, value in source.labels.items():
                if row.per == "pair":
                    entries, columns = parts(value, f"{prefix}{row.name}")
                    atoms.info |= entries
                    atoms.arrays |= columns
                    continue
                held, rows = (atoms.arrays, len(atoms)) if row.per == "atom" else (atoms.info, 1)
                flat = value if row.shape == () else np.reshape(value, (rows, -1))
                held[f"{prefix}{row.name}"] = flat[0] if row.shape and row.per == "graph" else flat
        frames.append(atoms)
    text = io.StringIO()
    write(text, frames, format="extxyz")
    write_atomically(path, text.getvalue().encode())
