"""``equipot constitutive``: the hyperelastic law of a crystal by a potential, beside classical laws, with its examination."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot import config
from equipot.structure import Structure
from equipot.workflows.constitutive.baselines import Hyperelastic, NeoHooke, SaintVenantKirchhoff, voigt
from equipot.workflows.constitutive.config import ConstitutiveConfig
from equipot.workflows.constitutive.deformations import Deformations, read_deformations
from equipot.workflows.constitutive.examination import (
    Ellipticity,
    Evaluated,
    Indifference,
    StressError,
    ellipticity,
    error_of,
    indifference,
)  # fmt: skip
from equipot.workflows.constitutive.fitting import Fitted, fit
from equipot.workflows.constitutive.labelling import TIGHT, elastic_tensor_of, label, reference_stress, small_strains
from equipot.workflows.constitutive.report import draw, write_report
from equipot.workflows.constitutive.sampling import PATHS, path, random_gradients
from equipot.workflows.constitutive.symmetry import point_rotations
from equipot.workflows.relax.config import VOIGT
from equipot.workflows.results import write_json
from equipot.workflows.task import Outcome, Task

CONFIG = ConstitutiveConfig
SMALL = 1e-3
"""Strain of the differences by which the elastic tensor is found."""
RESIDUAL = 0.01
"""Stress of the reference, as a share of the largest elastic constant times 0.01, above which the reference is not one."""
TESTS = {"inside": (0.0, 1.0), "edge": (1.0, 1.0), "outside": (1.0, None)}
"""Distances between which the deformations of each test lie, in units of the range; None for the reach of the settings."""
LAW, LINEAR, NEO_HOOKE = "law", "Saint Venant-Kirchhoff", "neo-Hooke"


class Sets(NamedTuple):
    """Everything that the potential computes."""

    training: Deformations
    small: Deformations
    """At ``small_strains``."""
    tests: dict[str, Deformations]
    paths: dict[str, tuple[np.ndarray, Deformations]]
    """Strains, and deformations."""


class Examined(NamedTuple):
    """What is known of a law and of those that it is compared with."""

    laws: dict[str, Hyperelastic]
    errors: dict[str, dict[str, StressError]]
    """By test, then by law."""
    rotations: Indifference
    waves: Ellipticity


def run(task: Task, settings: ConstitutiveConfig) -> Outcome:
    """Find the law of one crystal; write constitutive.json, .png and .html, the law as a file and as a Python module."""
    if len(task.structures) > 1:
        raise ValueError(f"{len(task.structures)} structures, but a law is that of one crystal; choose one by FILE@-1")
    failures: list[str] = []
    crystal = reference_of(task, settings, failures)
    rotations = point_rotations(crystal, settings.symprec)
    sets = computed(task, crystal, settings, failures)
    tensor = elastic_tensor_of(sets.small, SMALL, rotations)
    residual = float(np.abs(reference_stress(task.potential, crystal)).max())
    if residual > RESIDUAL * 0.01 * np.abs(tensor).max():
        failures.append(
            f"the reference has a stress of {residual:.3g} GPa, but a law has none there: relax the cell, or leave `relax` on"
        )
    task.console.say(f"training on {len(sets.training)} deformations")
    say = lambda done, count, text: task.console.progress(text, f"{done}/{count}")
    source = f"{crystal.name} by {Path(task.model).name}"
    fitted = fit(
        sets.training, rotations, settings.law, settings.training, bounds=settings.sampling.bounds, source=source, say=say
    )
    fitted.law.save(task.out / "law.safetensors")
    fitted.law.export(task.out / "law.py")
    laws: dict[str, Hyperelastic] = {
        LAW: Evaluated(fitted.law), LINEAR: SaintVenantKirchhoff(tensor), NEO_HOOKE: NeoHooke.fitted(sets.training),
    }  # fmt: skip
    found = examined(fitted, laws, sets, settings)
    failures += complaints(found, settings)
    told = facts(task, settings, crystal, sets, fitted, found) | {
        "rotations": len(rotations), "reference_stress_GPa": residual, "elastic_tensor_GPa": voigt(tensor).tolist(),
        "elastic_tensor_of_law_GPa": voigt(elastic_tensor_of_law(laws)).tolist(), "failures": failures,
    }  # fmt: skip
    write_json(task.out / "constitutive.json", told)
    draw(task.out / "constitutive.png", sets.paths, laws, settings)
    write_report(task.out / "constitutive.html", sets.paths, laws, told, settings)
    return Outcome(summary(told), tuple(failures))


def elastic_tensor_of_law(laws: dict[str, Hyperelastic]) -> np.ndarray:
    """Compute the elastic tensor of the law, GPa."""
    law = laws[LAW]
    assert isinstance(law, Evaluated)
    return law.tangents(np.eye(3)[None])[0]


def reference_of(task: Task, settings: ConstitutiveConfig, failures: list[str]) -> Structure:
    """Relax the crystal that deformations begin from."""
    given = task.structures[0]
    if not given.pbc.all() or not given.volume:
        raise ValueError(f"{given.name} does not repeat in three directions: `equipot constitutive` is for crystals")
    if settings.relax is None:
        return given.without_labels()
    from equipot.workflows.relax import relax

    (found,) = relax(task.potential, given, settings.relax)
    if not found.converged:
        failures.append(f"the reference did not relax: {found.reason}")
    return found.structure.without_labels()


def computed(task: Task, crystal: Structure, settings: ConstitutiveConfig, failures: list[str]) -> Sets:
    """Compute energies and stresses of all deformations, or read those that an interrupted run has computed."""
    sampling = settings.sampling
    asked = {"training": random_gradients(sampling.bounds, sampling.count, sampling.seed), "small": small_strains(SMALL)}
    for k, (name, (low, high)) in enumerate(TESTS.items()):
        top = sampling.reach if high is None else high
        asked[name] = random_gradients(sampling.bounds, sampling.tests, sampling.seed + 1000 + k, low, top)
    strains = {}
    for name in PATHS:
        strains[name], asked[name] = path(name, sampling.bounds, sampling.reach, sampling.points)
    whole, kept = labelled(task, crystal, settings, np.concatenate(list(asked.values())))
    found, at, first = {}, {}, 0
    for name, gradients in asked.items():
        mine = (kept >= first) & (kept < first + len(gradients))
        found[name], at[name] = whole.chosen(mine), kept[mine] - first
        first += len(gradients)
        if lost := len(gradients) - len(at[name]):
            failures.append(f"{lost} of {len(gradients)} deformations ({name}) did not relax and are left out")
        if not len(at[name]):
            raise ValueError(f"no deformation ({name}) relaxed; raise relax.max_steps, or take sampling.atoms=affine")
    if len(at["small"]) < len(asked["small"]):
        raise ValueError("small strains of the crystal did not relax: it has no elastic tensor; raise relax.max_steps")
    paths = {name: (strains[name][at[name]], found[name]) for name in PATHS}
    return Sets(found["training"], found["small"], {name: found[name] for name in TESTS}, paths)


def labelled(
    task: Task, crystal: Structure, settings: ConstitutiveConfig, gradients: np.ndarray
) -> tuple[Deformations, np.ndarray]:
    """Compute energies and stresses at deformations (n, 3, 3), and which of them are known, by index."""
    file = task.out / "deformations.npz"
    if task.resume and file.exists():
        found = read_deformations(file)
        off = np.abs(gradients[:, None] - found.gradients[None]).max(axis=(2, 3))
        return found.chosen(np.argmin(off, axis=1)[off.min(axis=1) == 0]), np.flatnonzero(off.min(axis=1) == 0)
    task.console.say(f"{len(gradients)} deformations")
    relaxation = (
        TIGHT
        if settings.relax is None
        else dataclasses.replace(settings.relax, cell="fixed", stress_GPa=None, pressure_GPa=0.0, strains=VOIGT)
    )
    made = label(task.potential, crystal, gradients, settings.sampling.atoms, relaxation)
    made.data.write(file)
    return made.data, made.places


def examined(fitted: Fitted, laws: dict[str, Hyperelastic], sets: Sets, settings: ConstitutiveConfig) -> Examined:
    """Compare laws with the potential on unseen deformations, and examine the new one."""
    errors = {
        test: {name: error_of(law.energies(data.gradients), law.stresses(data.gradients), data) for name, law in laws.items()}
        for test, data in sets.tests.items()
    }
    bounds, seed = settings.sampling.bounds, settings.sampling.seed
    waves = ellipticity(fitted.law, bounds, settings.sampling.reach, seed=seed)
    return Examined(laws, errors, indifference(fitted.law, bounds, seed=seed), waves)


def complaints(found: Examined, settings: ConstitutiveConfig) -> list[str]:
    """List what is not sound about a law."""
    said = []
    inside, turned, waves = found.errors["inside"], found.rotations, found.waves
    if inside[LAW].relative > settings.tolerance:
        said.append(
            f"the stress on unseen deformations inside the range is off by {100 * inside[LAW].relative:.1f}%, more than "
            f"{100 * settings.tolerance:.1f}%: more deformations or training may help, or a law that is not polyconvex "
            "(law.network=Unconstrained)"
        )
    said += [
        f"{name} is closer than the law to the stress on unseen deformations inside the range"
        for name, error in inside.items()
        if name != LAW and error.stress < inside[LAW].stress
    ]
    if max(turned.energy, turned.stress, turned.symmetry) > 1e-9:
        said.append(
            f"rotations change energy by {turned.energy:.1e} and stress by {turned.stress:.1e}, and rotations of the crystal "
            f"the energy by {turned.symmetry:.1e}, relatively: more than rounding"
        )
    if waves.lost_inside:
        said.append(
            f"the law loses ellipticity at {100 * waves.lost_inside:.1f}% of the deformations inside the range (acoustic "
            f"tensor down to {waves.inside:.3g} GPa): finite elements depend on their mesh there; law.network=Convex keeps it"
        )
    return said


def facts(
    task: Task, settings: ConstitutiveConfig, crystal: Structure, sets: Sets, fitted: Fitted, found: Examined
) -> dict[str, Any]:
    """List the results for the JSON."""
    waves, turned = found.waves, found.rotations
    named = lambda error: {
        "stress_rmse_GPa": error.stress, "stress_relative": error.relative, "largest_stress_error_GPa": error.largest,
        "energy_rmse_GPa": error.energy,
    }  # fmt: skip
    return {
        "model": task.model, "structure": crystal.name, "settings": config.dump(settings), "deformations": len(sets.training),
        "errors": {test: {name: named(e) for name, e in by_law.items()} for test, by_law in found.errors.items()},
        "rotations_100": {"energy": turned.energy, "stress": turned.stress, "crystal_symmetry": turned.symmetry},
        "ellipticity": {
            "lowest_inside_GPa": waves.inside, "share_lost_inside": waves.lost_inside, "lowest_outside_GPa": waves.outside,
            "share_lost_outside": waves.lost_outside, "worst_gradient_inside": waves.worst.tolist(),
        },
        "neo_hooke_GPa": asdict(found.laws[NEO_HOOKE]),  # type: ignore[call-overload]
        "history": {"steps": fitted.history[:, 0].tolist(), "training_loss": fitted.history[:, 1].tolist(),
                    "validation_loss": fitted.history[:, 2].tolist()},
    }  # fmt: skip


def summary(told: dict[str, Any]) -> str:
    """Write the lines for the terminal."""
    lines = [f"relative error of the stress of {told['structure']} on unseen deformations, in percent"]
    lines.append(f"{'':24}" + "".join(f"{test:>10}" for test in told["errors"]))
    for name in (LAW, LINEAR, NEO_HOOKE):
        lines.append(
            f"{name:24}" + "".join(f"{100 * told['errors'][t][name]['stress_relative']:10.2f}" for t in told["errors"])
        )
    turned, waves = told["rotations_100"], told["ellipticity"]
    lines.append(f"under 100 rotations: energy to {turned['energy']:.0e}, stress to {turned['stress']:.0e}")
    lines.append(
        f"lowest acoustic eigenvalue: {waves['lowest_inside_GPa']:.3g} GPa inside the range, {waves['lowest_outside_GPa']:.3g} "
        "outside; law.safetensors holds the law, law.py is a module that needs numpy alone"
    )
    return "\n".join(lines)
