"""What is computed of each crystal by the workflows of the package: quantities, details, and what failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.crystals.references import UNITS, references
from benchmarks.crystals.structures import ATOMS, CUBIC, families, primitive, shaken, supercell, vacancy
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.workflows.relax import RelaxConfig, Relaxed, relax

CELL = RelaxConfig(cell="full", fmax=1e-4, smax_GPa=0.001)
"""Relaxation of primitive cells."""
POSITIONS = RelaxConfig(fmax=2e-3, symmetry=False)
"""Relaxation of vacancies in cells that stay."""
SHAKE = 0.02
"""Displacement (Å) of all atoms before a vacancy is relaxed; four-coordinated atoms around it may pair then."""
IMAGES = 5
"""Images of the path of a vacancy, both ends included; the one in the middle is the saddle point by symmetry."""
COPIES = 4
"""Copies of the primitive cell along each vector, in which force constants are computed."""


@dataclass(frozen=True)
class Answer:
    """What was found of one crystal."""

    quantities: dict[str, dict[str, float]]
    """Values by subject and quantity, in the units of ``references.UNITS``."""
    details: dict[str, Any]
    """Sizes, convergence and checks."""
    failures: list[str] = field(default_factory=list)
    """What did not converge or is not sound, one sentence each."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each quantity, with what is published of it."""
        return [
            {
                "subject": subject, "quantity": name, "unit": UNITS[name], "value": value,
                "published": [r._asdict() for r in references(subject, name)],
            }
            for subject, found in self.quantities.items()
            for name, value in found.items()
        ]  # fmt: skip


def at_rest(potential: Potential, name: str) -> tuple[Relaxed, list[str]]:
    """Relax the primitive cell of a cubic crystal; also says what failed."""
    (found,) = relax(potential, [primitive(name)], CELL)
    return found, [] if found.converged else [f"relaxation: {found.reason}"]


def constant_of(relaxed: Relaxed, name: str) -> float:
    """Return the lattice constant (Å) of the cubic cell."""
    s = relaxed.structure
    return float((ATOMS[CUBIC[name]] * s.volume / len(s)) ** (1 / 3))


def elastic(potential: Potential, name: str) -> Answer:
    """Lattice constant, elastic constants with relaxed and with clamped atoms, and bulk modulus of a cubic crystal."""
    from equipot.workflows.bulk import elastic_tensor, equation_of_state
    from equipot.workflows.bulk.command import curve_facts, tensor_facts

    relaxed, failures = at_rest(potential, name)
    tensor = elastic_tensor(potential, relaxed.structure, check=0.002)
    facts, more = tensor_facts(tensor)
    curve = equation_of_state(potential, relaxed.structure)
    of_curve, wrong = curve_facts(curve)
    c, clamped = tensor.relaxed, tensor.clamped
    values = {"a": constant_of(relaxed, name), "B": curve.bulk_modulus, "C11": c[0, 0], "C12": c[0, 1], "C44": c[3, 3]}
    # Where every atom is a centre of inversion, no strain displaces atoms.
    if abs(clamped[3, 3] - c[3, 3]) > 0.1:
        values["C44 clamped"] = clamped[3, 3]
    details = {"elasticity": facts, "equation_of_state": of_curve, "bulk_modulus_of_tensor_GPa": (c[0, 0] + 2 * c[0, 1]) / 3}
    return Answer({name: {k: float(x) for k, x in values.items()}}, details, failures + more + wrong)


def phonon(potential: Potential, name: str) -> Answer:
    """Highest frequency, and that of the optical modes at Gamma, without the splitting of LO and TO modes."""
    from equipot.workflows.phonons import PhononsConfig, phonons

    settings = PhononsConfig(supercell=(COPIES,) * 3, band_points=31, mesh_length=20.0)
    found = phonons(potential, primitive(name).to_ase(), settings)
    highest = max(float(segment.frequencies.max()) for segment in found.bands)
    values = {"highest": highest}
    if len(found.gamma.frequencies) > 3:
        values = {"optical at Gamma": float(found.gamma.frequencies[-1]), **values}
    details = {
        "atoms_of_supercell": found.atoms_of_supercell, "gamma_THz": found.gamma.frequencies.tolist(),
        "special_points_THz": special_points(found), "notes": list(found.notes),
        "sum_rule_violation_eV_per_A2": found.crystal.checks.sum_rule, "share_at_boundary": found.crystal.checks.boundary,
    }  # fmt: skip
    return Answer({name: values}, details, list(found.failures))


def special_points(found: Any) -> dict[str, list[float]]:
    """Return the frequencies (THz) at the ends of the segments of the path."""
    ends = [(s.ends[k], s.frequencies[-k]) for s in found.bands for k in (0, 1)]
    return {name: [float(x) for x in values] for name, values in ends}


def vacancies(potential: Potential, name: str, repeats: Sequence[int]) -> Answer:
    """Formation energy of a vacancy at the lattice constant of the crystal, in cubes of ``repeats`` cubic cells."""
    relaxed, failures = at_rest(potential, name)
    constant, per_atom = constant_of(relaxed, name), relaxed.energy / len(relaxed.structure)
    holes = [vacancy(supercell(name, constant, n)).before for n in repeats]
    found = relax(potential, [shaken(s, SHAKE) for s in holes], POSITIONS)
    failures += [f"vacancy of {len(x.structure)} atoms: {x.reason}" for x in found if not x.converged]
    energies = [x.energy - len(x.structure) * per_atom for x in found]
    sizes = [
        {"atoms": len(x.structure), "formation_eV": e, "largest_force_eV_per_A": x.fmax, "evaluations": x.evaluations}
        for x, e in zip(found, energies, strict=True)
    ]
    details = {"sizes": sizes, "lattice_constant_A": constant, "neighbours_A": around(found[-1].structure, holes[-1])}
    # A vacancy that did not relax has no formation energy.
    value = energies[-1] if found[-1].converged else math.nan
    return Answer({name: {"vacancy formation": value}}, details, failures)


def around(relaxed: Structure, perfect: Structure) -> list[float]:
    """Return the distances (Å) among the four atoms nearest to the vacant place, the origin: they tell whether atoms pair."""
    from ase.geometry import find_mic, get_distances

    _, lengths = find_mic(perfect.positions, perfect.cell, perfect.pbc)
    nearest = relaxed.positions[np.argsort(lengths, kind="stable")[:4]]
    between = get_distances(nearest, cell=relaxed.cell, pbc=relaxed.pbc)[1]
    return sorted(float(between[i, j]) for i in range(4) for j in range(i))


def barrier(potential: Potential, name: str, repeats: int) -> Answer:
    """Barrier of a vacancy's jump to a neighbouring place: the climbing image of a band, and the exact saddle point."""
    from equipot.workflows.neb import BandConfig, NEBConfig, SaddleConfig, reaction

    relaxed, failures = at_rest(potential, name)
    hole = vacancy(supercell(name, constant_of(relaxed, name), repeats))
    settings = NEBConfig(images=IMAGES, ends=POSITIONS, band=BandConfig(fmax=0.02), saddle=SaddleConfig(fmax=1e-3), rate=False)
    found = reaction(potential, [hole.before, hole.after], settings)
    saddle = found.saddle
    details = {
        "atoms": len(hole.before), "path_energies_eV": (found.band.energies - found.band.energies[0]).tolist(),
        "path_force_eV_per_A": found.band.force, "path_evaluations": found.band.evaluations,
        "back_eV": found.barrier_back, "saddle": None if saddle is None else {
            "converged": saddle.converged, "curvature_eV_per_A2": saddle.curvature, "force_eV_per_A": saddle.force,
            "gradients": saddle.gradients, "hessian_products": saddle.products,
        },
    }  # fmt: skip
    value = found.barrier if saddle is not None and saddle.converged else math.nan
    return Answer({name: {"vacancy migration": value}}, details, failures + list(found.failures))


def polymorphs(potential: Potential, name: str) -> Answer:
    """Order of the polymorphs of a composition, each relaxed with its cell, by ``equipot.workflows.bulk.rank``."""
    from equipot.workflows.bulk import rank

    family = families()[name]
    cells = [Structure.from_ase(cell, f"{name} {kind}") for kind, cell in family.cells.items()]
    found = relax(potential, cells, RelaxConfig(cell="full", fmax=1e-3, smax_GPa=0.01, max_steps=500))
    failures = [f"{x.structure.name}: {x.reason}" for x in found if not x.converged]
    order = rank(potential, found)
    above = dict(zip(order.order, order.enthalpies, strict=True))
    zero = above[list(family.cells).index(family.reference)]
    values, details = {}, {}
    for k, x in enumerate(found):
        volume = family.atoms * x.structure.volume / len(x.structure)
        energy = 1e3 * family.atoms * float(above[k] - zero)
        # A structure that did not relax has no energy to be ranked by.
        values[x.structure.name] = {"energy": energy if x.converged else math.nan, "volume": volume}
        details[x.structure.name] = {
            "converged": x.converged, "space_group": x.group, "lengths_A": np.linalg.norm(x.structure.cell, axis=1).tolist(),
            "stress_error_GPa": x.stress_error, "evaluations": x.evaluations,
        }  # fmt: skip
    ranking = [found[k].structure.name for k in order.order if found[k].converged]
    return Answer(values, {"order": ranking, "atoms_of_energy": family.atoms, "polymorphs": details}, failures)


def parts(repeats: Sequence[int]) -> dict[str, Callable[[Potential, str], Answer]]:
    """Return what computes each part; vacancies are in cubes of ``repeats`` cubic cells, barriers in the last of them."""
    return {
        "elastic": elastic,
        "phonons": phonon,
        "vacancies": lambda potential, name: vacancies(potential, name, repeats),
        "barriers": lambda potential, name: barrier(potential, name, repeats[-1]),
        "polymorphs": polymorphs,
    }
