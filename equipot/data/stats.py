"""Estimate the constants of a model from the training set: E0, scale, shift and mean number of neighbours.

The model is E = sum_i E0[s_i] + sum_i (scale[s_i] net_i + shift[s_i]). E0 comes from isolated atoms, from the config, or from
least squares over compositions. The scale is the RMS force, the shift a least-squares fit per element to the energies less E0.
Compositions need not determine every element's energy: undetermined combinations are reported, and the solution closest to one
energy shared by all atoms is used, which predicts every composition in the data equally well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from equipot.data.compositions import (
    ELECTRONS,
    Fit,
    compositions,
    electrons_of,
    fit_energies,
    neutral_where_enough,
    symbol,
)
from equipot.data.split import evenly
from equipot.neighbors import Slots, neighbor_list
from equipot.quantities import ENERGY, FORCES
from equipot.structure import Structure

ISOLATED_DISTANCE = 8.0
"""Distance (Å) of periodic images beyond which a single atom counts as isolated."""
NEIGHBORS = 36
LONGEST = 6.0
"""Default cutoff: mean number of neighbours within the cutoff, and the largest cutoff (Å)."""
EXAMPLES = 64
"""Number of frames from which the default cutoff is estimated."""


@dataclass(frozen=True)
class AtomicEnergies:
    """E0 and its origin."""

    energies: Mapping[int, float]
    """eV by Z."""
    origin: str
    """isolated, fit, config or, in fine-tuning, base."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Known:
    """Predictions of a potential from which new E0 are fitted."""

    explained: np.ndarray
    """(frames,) predicted total energies, eV."""
    energies: Mapping[int, float]
    """E0 of the potential, eV by Z."""
    kept: Collection[int]
    """Z of the elements whose E0 are kept."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Constants of a model estimated from the training set; arrays are in the order of ``elements``."""

    elements: tuple[int, ...]
    """Z, ascending."""
    avg_num_neighbors: float
    scale: np.ndarray
    """(elements,) RMS force component times 1 Å (eV), equal for all elements."""
    shift: np.ndarray
    """(elements,) energy per atom beyond E0 by least squares, eV."""
    force_rms: float
    """RMS of all force components, eV/Å; NaN without forces."""
    energy_rms: float
    """RMS of the energies less E0 and shifts, eV/atom; NaN without energies."""
    electron_shift: np.ndarray
    """(3,) energy (eV) for each unit of positive charge, of negative charge, and for each unpaired electron."""
    charges: tuple[float, ...]
    """Total charges (e) of the frames, ascending."""
    spins: tuple[float, ...]
    """Numbers of unpaired electrons of the frames, ascending."""


def is_isolated_atom(structure: Structure) -> bool:
    """Whether a frame is one neutral atom, marked by config_type or without periodic images within ``ISOLATED_DISTANCE``."""
    kind = str(structure.info.get("config_type", "")).replace("_", "").lower()
    if len(structure) != 1 or structure.charge != 0:
        return False
    if kind in ("isolatedatom", "isolated"):
        return True
    rows = structure.cell[structure.pbc]
    if not np.all(np.linalg.norm(rows, axis=1) > ISOLATED_DISTANCE) or np.linalg.matrix_rank(rows) < len(rows):
        return False
    # The images in a sheared cell are closer than its vectors are long.
    return not len(neighbor_list(np.zeros((1, 3)), structure.cell, structure.pbc, ISOLATED_DISTANCE).centers)


def typical_cutoff(structures: Sequence[Structure], neighbors: float = NEIGHBORS, longest: float = LONGEST) -> float:
    """Find the distance (Å, to 0.01) within which an atom has ``neighbors`` neighbours on average, at most ``longest``.

    With this cutoff an atom costs the same in every substance and sees as many shells in a loose crystal as in a dense one. The
    estimate uses ``EXAMPLES`` frames, spread evenly over the set, without frames of weight zero.
    """
    picked = evenly(len(structures), EXAMPLES)
    distances, atoms = [np.zeros(0)], 0
    for s in (s for k in picked if (s := structures[int(k)]).geometry_weight):
        edges = neighbor_list(s.positions, s.cell, s.pbc, longest)
        vectors = s.positions[edges.neighbors] + edges.shifts @ s.cell - s.positions[edges.centers]
        distances.append(np.linalg.norm(vectors, axis=1))
        atoms += len(s)
    found, rank = np.concatenate(distances), round(neighbors * atoms)
    return round(float(np.partition(found, rank)[rank]), 2) if rank < len(found) else longest


def isolated_energies(structures: Iterable[Structure]) -> dict[int, float]:
    """Return the energies (eV by Z) of the frames that are isolated atoms, without frames of weight zero.

    Raises:
        ValueError: an isolated atom whose energy is missing or not finite, or two energies for one element.
    """
    found: dict[int, tuple[float, str]] = {}
    for s in structures:
        if not is_isolated_atom(s) or not s.weight * s.label_weights.get(ENERGY, 1.0):
            continue
        z = int(s.numbers[0])
        if s.energy is None:
            raise ValueError(f"{s.name}: an isolated {symbol(z)} atom without an energy; label it or remove the frame")
        if not np.isfinite(s.energy):
            what = f"the energy of the isolated {symbol(z)} atom is {s.energy:g}, but it gives E0"
            raise ValueError(f"{s.name}: {what}; calculate the frame again or remove it")
        if z in found and abs(found[z][0] - s.energy) > 1e-3:
            raise ValueError(
                f"{s.name}: the isolated {symbol(z)} atom has {s.energy:.4f} eV, but {found[z][0]:.4f} eV in {found[z][1]}; "
                "keep the one of the theory and spin state that the data have"
            )
        found.setdefault(z, (s.energy, s.name))
    return {z: energy for z, (energy, _) in sorted(found.items())}


def from_symbols(given: Mapping[str, float]) -> dict[int, float]:
    """Convert E0 by symbol, from a config, to E0 by Z.

    Raises:
        ValueError: an unknown symbol, or an energy that is not finite.
    """
    for name, energy in given.items():
        if name not in atomic_numbers or name == "X":
            raise ValueError(f"data.atomic_energies: {name!r} is not the symbol of an element")
        if not np.isfinite(energy):
            raise ValueError(f"data.atomic_energies: {name} has {energy:g}; give a finite energy (eV)")
    return {atomic_numbers[name]: float(energy) for name, energy in given.items()}


def atomic_energies(
    structures: Iterable[Structure],
    isolated: Mapping[int, float],
    choice: str | Mapping[str, float],
    known: Known | None = None,
) -> AtomicEnergies:
    """Find E0 of every element in ``structures``.

    A fit uses the neutral frames, if these determine as much as all frames do. Otherwise it uses all frames and fits an energy
    for each unit of positive and of negative charge, which is no part of E0 and is left out.

    Args:
        isolated: energies of the isolated atoms in the files, eV by Z.
        choice: ``isolated``, ``fit``, ``auto`` (isolated if that covers all elements, else fit) or E0 (eV) by symbol.
        known: potential whose predictions are subtracted before the fit; E0 of ``known.kept`` are not looked for. Changes of
            E0 that compositions do not determine are chosen closest to one energy for all atoms.

    Raises:
        ValueError: an element without E0.
    """
    counts, energies, weights, present, electrons = compositions(structures)
    if known is not None:
        energies = energies - known.explained
    open_ones = [k for k, z in enumerate(present) if known is None or z not in known.kept]
    counts, wanted = counts[:, open_ones], tuple(present[k] for k in open_ones)
    given = isolated if isinstance(choice, str) else from_symbols(choice)
    missing = ", ".join(symbol(z) for z in wanted if z not in given)
    if not isinstance(choice, str):
        if missing:
            raise ValueError(f"data.atomic_energies has no E0 for {missing}; add it (eV)")
        return AtomicEnergies({z: given[z] for z in wanted}, "config")
    if choice not in ("auto", "isolated", "fit"):
        raise ValueError(f"data.atomic_energies: {choice!r} is none of auto, isolated, fit, or energies by symbol")
    if choice == "isolated" and missing:
        raise ValueError(
            f"no isolated-atom frame for {missing}: add single-atom frames with config_type=isolated_atom to data.train, "
            "or set data.atomic_energies to fit or to energies by symbol"
        )
    if choice != "fit" and not missing:
        return AtomicEnergies({z: isolated[z] for z in wanted}, "isolated")
    labelled = np.isfinite(energies) & counts.any(axis=1)
    unseen = [symbol(z) for z, seen in zip(wanted, counts[labelled].any(axis=0), strict=True) if not seen]
    if labelled.any() and unseen:
        raise ValueError(
            f"no training frame with an energy contains {', '.join(unseen)}, so its E0 cannot be fitted; "
            "give data.atomic_energies by symbol, or leave out the frames that contain it"
        )
    used = neutral_where_enough(counts, electrons, labelled)
    fit = fit_energies(counts[used], energies[used], wanted, weights[used], electrons[used, :2])
    notes = []
    if choice == "auto" and isolated:
        notes.append(f"isolated atoms are there, but not of {missing}: E0 of all elements are fitted; add the missing atoms")
    before = {} if known is None else known.energies
    found = {z: before.get(z, 0.0) + energy for z, energy in fit.energies.items()}
    return AtomicEnergies(found, "fit", (*notes, *_rank_warning(fit, "E0" if known is None else "changes of E0")))


def _rank_warning(fit: Fit, what: str) -> tuple[str, ...]:
    """Write a warning if the compositions do not determine every element's energy."""
    if not fit.undetermined:
        return ()
    total, kinds = len(fit.energies), "element energies"
    if charges := int(np.count_nonzero(fit.of_electrons)):
        total, kinds = total + charges, "energies of elements and charges"
    shown = "; or ".join(fit.undetermined[:4]) + ("; and more" if len(fit.undetermined) > 4 else "")
    return (
        f"E0 by least squares: the compositions determine {total - len(fit.undetermined)} of {total} {kinds}; "
        f"no frame notices {shown}. The {what} closest to one energy per atom are used: energies of other compositions, and of "
        "reactions between them, will be meaningless. Add isolated atoms, or give data.atomic_energies",
    )


def statistics(
    structures: Sequence[Structure],
    found: Sequence[Slots | None] | None,
    cutoff: float,
    atomic_energies: Mapping[int, float],
    needs: Sequence[str] = (),
) -> Statistics:
    """Estimate the constants of a model from its training set, by the weights of frames and labels, in one pass.

    Frames and labels of weight zero have no influence.

    Args:
        structures: the training set.
        found: neighbour slots of each structure within ``cutoff``, if known.
        cutoff: cutoff of the model, Å.
        atomic_energies: E0, eV by Z.
        needs: inputs of the model, see ``Term.needs``. The energies of charge and unpaired electrons are fitted together with
            ``shift`` for a model that sees these; for others, ``shift`` takes what it can of them.
    """
    seen = ["charge" in needs, "charge" in needs, "spin" in needs]
    elements = tuple(sorted(int(z) for z in atomic_energies))
    place = np.full(max(elements, default=0) + 1, -1)
    place[list(elements)] = np.arange(len(elements))
    square, components, edges, atoms, counts, residuals, weights, electrons = 0.0, 0.0, 0.0, 0.0, [], [], [], []
    states: set[tuple[float, float]] = set()
    for k in range(len(structures)):
        s, slots = structures[k], found[k] if found is not None else None
        if not (weight := s.geometry_weight):
            continue
        states.add((s.charge, s.spin))
        pairs = len(neighbor_list(s.positions, s.cell, s.pbc, cutoff).centers) if slots is None else int(slots.mask.sum())
        edges += weight * pairs
        atoms += weight * len(s)
        if weight := s.weight_of(FORCES):
            square += weight * float(np.sum(s.labels[FORCES] ** 2))
            components += weight * s.labels[FORCES].size
        if weight := s.weight_of(ENERGY):
            counts.append(np.bincount(place[s.numbers], minlength=len(elements)))
            residuals.append(s.labels[ENERGY] - sum(atomic_energies[int(z)] for z in s.numbers))
            weights.append(weight)
            electrons.append(np.where(seen, electrons_of(s), 0.0))
    force_rms = float(np.sqrt(square / components)) if components else float("nan")
    shift, energy_rms, of_electrons = np.zeros(len(elements)), float("nan"), np.zeros(len(ELECTRONS))
    if counts:
        fit = fit_energies(np.array(counts, float), np.array(residuals), elements, np.array(weights), np.array(electrons))
        shift, energy_rms, of_electrons = np.array([fit.energies[z] for z in elements]), fit.rms, fit.of_electrons
    spread = next((x for x in (force_rms, energy_rms) if np.isfinite(x) and x > 0), 1.0)
    neighbors, scale = edges / atoms if atoms else 0.0, np.full(len(elements), spread)
    charges, spins = (tuple(sorted({state[k] for state in states})) for k in range(2))
    return Statistics(elements, neighbors, scale, shift, force_rms, energy_rms, of_electrons, charges, spins)
