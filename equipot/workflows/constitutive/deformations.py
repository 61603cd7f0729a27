"""Energies and stresses of a material at deformations: the data that a constitutive law is fitted to, and their files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from equipot.files import write_atomically
from equipot.units import GPa
from equipot.units import stress as stress_unit
from equipot.workflows.constitutive.kinematics import check, piola_of_cauchy

STRESSES = ("P", "sigma")
"""Names of stresses in files: first Piola-Kirchhoff and Cauchy."""


@dataclass(frozen=True, eq=False)
class Deformations:
    """Energies and stresses at deformation gradients.

    Raises:
        ValueError: arrays of different lengths, values that are not finite, or a determinant that is not positive.
    """

    gradients: Float[np.ndarray, "n 3 3"]
    """Deformation gradients F."""
    stresses: Float[np.ndarray, "n 3 3"]
    """First Piola-Kirchhoff stresses P, GPa."""
    energies: Float[np.ndarray, " n"] | None = None
    """Energies per volume of the reference, less the reference's own, GPa (1 GPa = 10^9 J/m^3); None where unknown."""

    def __post_init__(self) -> None:
        n = len(self.gradients)
        arrays = {"gradients": self.gradients, "stresses": self.stresses, "energies": self.energies}
        for name, array in arrays.items():
            if array is None:
                continue
            if len(array) != n:
                raise ValueError(f"{name}: {len(array)} entries, but there are {n} deformation gradients")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: entry {int(np.argmin(np.isfinite(array).reshape(n, -1).all(axis=1)))} is not finite")
        check(self.gradients)

    def __len__(self) -> int:
        return len(self.gradients)

    def chosen(self, index: np.ndarray) -> Deformations:
        """Return some of the deformations, by index or mask."""
        energies = None if self.energies is None else self.energies[index]
        return Deformations(self.gradients[index], self.stresses[index], energies)

    def write(self, path: Path) -> None:
        """Write an npz file that ``read_deformations`` reads."""
        content = io.BytesIO()
        arrays = {"F": self.gradients, "P_GPa": self.stresses}
        if self.energies is not None:
            arrays["W_GPa"] = self.energies
        np.savez(content, **arrays)  # type: ignore[arg-type]
        write_atomically(path, content.getvalue())


def read_deformations(path: str | Path) -> Deformations:
    """Read stress-strain data from an npz or CSV file.

    The file states the units in its names. An npz file holds ``F`` (n, 3, 3), a stress ``P_UNIT`` (first Piola-Kirchhoff) or
    ``sigma_UNIT`` (Cauchy), (n, 3, 3), and may hold ``W_UNIT`` (n,), the energy per volume of the reference; UNIT is GPa, MPa,
    Pa, kbar or eV/Å^3. A CSV file has a line of names, with a column for each component: F11, F12, ..., F33, P11_MPa, ...,
    P33_MPa (or sigma11_MPa, ...), and perhaps W_MPa.

    Raises:
        ValueError: an unknown suffix or unit, a name that is missing, or values that ``Deformations`` refuses.
    """
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            named: dict[str, np.ndarray] = {name: np.asarray(file[name], np.float64) for name in file.files}
    elif path.suffix == ".csv":
        named = _columns(path)
    else:
        raise ValueError(
            f"{path}: stress-strain data are read from .npz and .csv files, not {path.suffix or 'a file without suffix'}"
        )
    if "F" not in named:
        raise ValueError(f"{path}: has no deformation gradients `F` (CSV: F11 ... F33), but {', '.join(named) or 'nothing'}")
    gradients = named["F"]
    found = [(name, *name.split("_", 1)) for name in named if "_" in name]
    stresses = [(named[name] * stress_unit(unit) / GPa, kind) for name, kind, unit in found if kind in STRESSES]
    if len(stresses) != 1:
        raise ValueError(
            f"{path}: needs one stress with its unit in its name, such as P_GPa (first Piola-Kirchhoff) or sigma_MPa (Cauchy), "
            f"not {len(stresses)}; names are {', '.join(named)}"
        )
    energies = [named[name] * stress_unit(unit) / GPa for name, kind, unit in found if kind == "W"]
    stress, kind = stresses[0]
    if gradients.shape[1:] != (3, 3) or stress.shape != gradients.shape:
        raise ValueError(f"{path}: F has the shape {gradients.shape} and the stress {stress.shape}; both must be (n, 3, 3)")
    return Deformations(
        gradients, piola_of_cauchy(stress, gradients) if kind == "sigma" else stress, energies[0] if energies else None
    )


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a CSV file, and join those of one tensor."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = [name.strip() for name in lines[0].split(",")] if lines else []
    values = np.array([[float(word) for word in line.split(",")] for line in lines[1:] if line.strip()])
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"{path}: has no rows with a value for each of its {len(names)} columns")
    columns = dict(zip(names, values.T, strict=True))
    joined = {}
    for first in [name for name in names if "11" in name]:
        wanted = [first.replace("11", f"{i}{j}", 1) for i in (1, 2, 3) for j in (1, 2, 3)]
        if missing := [name for name in wanted if name not in columns]:
            raise ValueError(f"{path}: column {missing[0]} is missing beside {first}")
        joined[first.replace("11", "", 1)] = np.stack([columns.pop(name) for name in wanted], axis=1).reshape(-1, 3, 3)
    return joined | columns
