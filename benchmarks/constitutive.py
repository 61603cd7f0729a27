"""Hyperelastic laws of copper: networks, polyconvex or not, beside Saint Venant-Kirchhoff and neo-Hooke.

Labels are those of a potential, or of ASE's EMT; atoms follow the deformation. Errors are those of the stress on unseen
deformations inside the range, at its edge, and outside of it, with 100 rotations and the Legendre-Hadamard condition.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.optimize import brentq

import equipot
from benchmarks.markdown import markdown
from equipot.structure import Structure
from equipot.units import GPa
from equipot.workflows.constitutive import (
    Convex,
    Density,
    GroupAverage,
    NeoHooke,
    SaintVenantKirchhoff,
    StrainRange,
    StructuralTensors,
    Training,
    Unconstrained,
    ellipticity,
    fit,
    indifference,
    label,
    point_rotations,
    random_gradients,
)  # fmt: skip
from equipot.workflows.constitutive.baselines import voigt
from equipot.workflows.constitutive.command import SMALL, TESTS
from equipot.workflows.constitutive.deformations import Deformations
from equipot.workflows.constitutive.examination import Evaluated, error_of
from equipot.workflows.constitutive.kinematics import piola_of_cauchy
from equipot.workflows.constitutive.labelling import deformed, elastic_tensor_of, reference_stress, small_strains

BOUNDS = StrainRange(shear=0.1, volume=0.12)
REACH = 1.5
FORMS = {
    "average over the group": Density(GroupAverage(), Unconstrained()),
    "structural tensors": Density(StructuralTensors(), Unconstrained()),
    "polyconvex, average": Density(GroupAverage(), Convex()),
    "polyconvex, structural": Density(StructuralTensors(), Convex()),
}


def cell(size: float) -> Structure:
    """Return the primitive cell of fcc copper with a lattice constant in Å."""
    return Structure.from_ase(bulk("Cu", "fcc", a=size), "fcc copper")


def by_emt(structures: list[Structure]) -> tuple[np.ndarray, np.ndarray]:
    """Compute energies (eV) and Cauchy stresses (GPa) by ASE's EMT."""
    energies, stresses = [], []
    for structure in structures:
        atoms = structure.to_ase()
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        stresses.append(atoms.get_stress(voigt=False) / GPa)
    return np.array(energies), np.array(stresses)


def labelled_by_emt(crystal: Structure, gradients: np.ndarray) -> Deformations:
    """Compute energies and stresses of deformed copper by ASE's EMT."""
    energies, cauchy = by_emt([crystal, *deformed(crystal, gradients)])
    density = (energies[1:] - energies[0]) / crystal.volume / GPa
    return Deformations(gradients, piola_of_cauchy(cauchy[1:], gradients), density)


def material(model: str | None) -> tuple[Structure, Callable[[np.ndarray], Deformations]]:
    """Return copper without stress, and the function that computes its deformations."""
    if model is None:
        size = brentq(lambda a: np.trace(by_emt([cell(a)])[1][0]), 3.4, 3.8, xtol=1e-12)
        return cell(size), lambda f: labelled_by_emt(cell(size), f)
    potential = equipot.load(model, dtype="float64")
    size = brentq(lambda a: np.trace(reference_stress(potential, cell(a))), 3.4, 3.8, xtol=1e-10)
    return cell(size), lambda f: label(potential, cell(size), f, "affine").data


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", help="a potential for copper (default: ASE's EMT)")
    sub.add_argument("--count", type=int, default=200, help="deformations for training")
    sub.add_argument("--steps", type=int, default=1000, help="steps of Adam, and as many of L-BFGS")


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Fit each law to the same deformations; yield the relative errors of its stress by range of deformations."""
    jax.config.update("jax_enable_x64", True)
    crystal, find = material(args.model)
    rotations = point_rotations(crystal)
    data = find(random_gradients(BOUNDS, args.count, 0))
    tests = {
        name: find(random_gradients(BOUNDS, 60, 1000 + k, low, REACH if high is None else high))
        for k, (name, (low, high)) in enumerate(TESTS.items())
    }
    tensor = elastic_tensor_of(find(small_strains(SMALL)), SMALL, rotations)
    labels = {"labels": args.model or "ASE EMT", "count": args.count, "elastic_tensor_GPa": voigt(tensor).tolist()}
    compare = lambda law: {
        test: asdict(error_of(law.energies(d.gradients), law.stresses(d.gradients), d)) for test, d in tests.items()
    }
    classical = {
        "Saint Venant-Kirchhoff, elastic tensor": SaintVenantKirchhoff(tensor),
        "Saint Venant-Kirchhoff, fitted": SaintVenantKirchhoff.fitted(data, rotations),
        "neo-Hooke, fitted": NeoHooke.fitted(data),
    }
    for name, law in classical.items():
        yield {"law": name, **labels, "errors": compare(law)}
    for name, form in FORMS.items():
        start = time.perf_counter()
        training = Training(adam_steps=args.steps, lbfgs_steps=args.steps)
        law = fit(data, rotations, form, training, bounds=BOUNDS, source="copper").law
        seconds = time.perf_counter() - start
        waves = asdict(ellipticity(law, BOUNDS, REACH))
        waves["worst"] = waves["worst"].tolist()
        yield {
            "law": name, **labels, "errors": compare(Evaluated(law)), "seconds": seconds, "ellipticity": waves,
            "rotations_100": asdict(indifference(law, BOUNDS)),
        }  # fmt: skip


def table(results: Sequence[dict[str, Any]]) -> str:
    """Relative errors (%) of the stress of each law by range of deformations, and its change under rotations."""
    ranges = list(results[0]["errors"])
    rows = [
        (r["law"], r["labels"], *(100 * r["errors"][name]["relative"] for name in ranges),
         r.get("rotations_100", {}).get("stress"), r.get("seconds"))
        for r in results
    ]  # fmt: skip
    header = ("law", "labels", *(f"stress error %, {name}" for name in ranges), "change under 100 rotations", "fit s")
    return markdown(header, rows)
