"""Figure and page of a constitutive law."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipot.figures import BLUE, GREY, ORANGE, STYLE, new_figure, save_figure
from equipot.workflows.constitutive.baselines import Hyperelastic
from equipot.workflows.constitutive.config import ConstitutiveConfig
from equipot.workflows.constitutive.deformations import Deformations

Paths = Mapping[str, tuple[np.ndarray, Deformations]]
"""Strains and deformations of named paths."""


def component(name: str, stresses: np.ndarray) -> np.ndarray:
    """Return the component of P (GPa) that belongs to a path: along the stretch, a mean, or a shear."""
    if name == "volume":
        return np.trace(stresses, axis1=1, axis2=2) / 3
    if name.startswith("shear"):
        return stresses[:, 0, 1]
    axis = np.ones(3) / np.sqrt(3) if name.endswith("111") else np.eye(3)[0]
    return np.einsum("i,nij,j->n", axis, stresses, axis)


def draw(file: Path, paths: Paths, laws: Mapping[str, Hyperelastic], settings: ConstitutiveConfig) -> None:
    """Draw stresses along paths by the potential and by each of three laws; what is outside of the range is shaded."""
    import matplotlib

    colours = dict(zip(laws, (BLUE, ORANGE, GREY), strict=True))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(12.0, 3.0, len(paths))
        for axis, (name, (strain, data)) in zip(axes, paths.items(), strict=True):
            exact = component(name, data.stresses)
            axis.plot(strain, exact, "o", color="black", ms=3, label="potential")
            for law, function in laws.items():
                axis.plot(strain, component(name, function.stresses(data.gradients)), color=colours[law], label=law)
            outside = settings.sampling.bounds.distance(data.gradients) > 1 + 1e-9
            for side in (outside & (strain < 0), outside & (strain > 0)):
                if side.any():
                    axis.axvspan(strain[side].min(), strain[side].max(), color=GREY, alpha=0.15, lw=0)
            room = 0.3 * np.ptp(exact)
            axis.set(title=name, xlabel="strain", ylim=(exact.min() - room, exact.max() + room))
        axes[0].set_ylabel("first Piola-Kirchhoff stress (GPa)")
        axes[0].legend()
        save_figure(figure, file)


def write_report(
    file: Path, paths: Paths, laws: Mapping[str, Hyperelastic], told: Mapping[str, Any], settings: ConstitutiveConfig
) -> None:
    """Write the page; ``told`` is what the JSON holds."""
    from equipot.pages import Curve, Plot, Table, Text, write_page

    blocks: list[Any] = [Text("Failures", told["failures"], alarm=True)] if told["failures"] else []
    rows = [["deformations", "law", "error of P (GPa)", "relative", "largest (GPa)"]]
    for test, by_law in told["errors"].items():
        rows += [
            [
                test,
                name,
                f"{e['stress_rmse_GPa']:.4g}",
                f"{100 * e['stress_relative']:.2f}%",
                f"{e['largest_stress_error_GPa']:.4g}",
            ]
            for name, e in by_law.items()
        ]
    blocks.append(Table("Errors on unseen deformations; outside of the range nothing was trained on", rows))
    turned, waves = told["rotations_100"], told["ellipticity"]
    sound = [
        ["change of the energy under 100 rotations of the body", f"{turned['energy']:.1e}"],
        ["change of the stress", f"{turned['stress']:.1e}"],
        ["change of the energy under rotations of the crystal", f"{turned['crystal_symmetry']:.1e}"],
        ["lowest acoustic eigenvalue inside the range", f"{waves['lowest_inside_GPa']:.4g} GPa"],
        ["lowest acoustic eigenvalue outside", f"{waves['lowest_outside_GPa']:.4g} GPa"],
        ["share outside without ellipticity", f"{100 * waves['share_lost_outside']:.1f}%"],
        ["stress of the reference by the potential", f"{told['reference_stress_GPa']:.2e} GPa"],
    ]
    blocks.append(Table("Soundness", [["", ""], *sound]))
    constants = [["GPa", "potential", "law"]]
    for name, place in {"C11": (0, 0), "C12": (0, 1), "C44": (3, 3)}.items():
        i, j = place
        constants.append([name, *(f"{told[key][i][j]:.2f}" for key in ("elastic_tensor_GPa", "elastic_tensor_of_law_GPa"))])
    blocks.append(Table("Elastic constants of the reference", constants))
    for name, (strain, data) in paths.items():
        curves = [Curve("potential", strain, component(name, data.stresses), points=True)]
        curves += [Curve(law, strain, component(name, f.stresses(data.gradients))) for law, f in laws.items()]
        edges = [0.0, *strain[settings.sampling.bounds.distance(data.gradients) <= 1 + 1e-9]]
        marks = [(float(min(edges)), "range"), (float(max(edges)), "range")]
        blocks.append(Plot(f"Stress: {name}", curves, "strain", "P (GPa)", marks=marks))
    history = told["history"]
    steps = np.array(history["steps"])
    lines = [Curve(name, steps, np.sqrt(history[f"{name}_loss"])) for name in ("training", "validation")]
    blocks.append(Plot("Training", lines, "step", "relative error", log_y=True))
    write_page(file, f"Hyperelastic law of {told['structure']} by {told['model']}", blocks)
