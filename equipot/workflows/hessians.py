"""Make labels of Hessians: by central differences of the forces of any ASE calculator, or exactly from a potential.

Each frame that is done is kept in a folder beside the output, so that a run that was killed goes on with the next one; the
output is written at the end. A frame that fails is told and left out; the folder then stays, for another try.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equipot import eqp, hessian_labels, published
from equipot.artifact import DamagedError, Kind
from equipot.console import Console, duration
from equipot.data.checks.hessians import ASYMMETRY, asymmetry
from equipot.data.hdf5 import is_hdf5, write_hdf5
from equipot.data.method import CALCULATORS, Runner, check_settings, method_of, start
from equipot.data.subtract import key_of
from equipot.evaluation import evaluate_each
from equipot.evaluation.hessians import products
from equipot.files import check_writable, write_atomically
from equipot.potential import Potential
from equipot.quantities import ENERGY, FORCES, HESSIAN, STRESS, Labels
from equipot.structure import Structure

__all__ = ["HessianConfig", "label_hessians"]

FRAME = Kind("hessian of a frame", "file of a Hessian", 1, "delete it: it is computed again")
XTB = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB", "ipea1-xtb": "IPEA1-xTB"}
"""Methods of tblite by their own names, in lower case."""
SUFFIXES = (".xyz", ".extxyz")
"""Suffixes of the output besides those of HDF5."""


@dataclass(frozen=True)
class HessianConfig:
    """Settings of the calculation of Hessians."""

    columns: int | None = None
    """Number of columns of each Hessian, drawn at random; None for whole matrices or projections."""
    projections: int | None = None
    """Number of products of each Hessian with random directions; None for whole matrices or columns."""
    step: float = 0.005
    """Largest displacement of an atom in differences of forces (Å)."""
    seed: int = 0
    """Seed of columns and directions."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the calculator, such as accuracy: 0.01 of tblite."""

    def __post_init__(self) -> None:
        if self.columns is not None and self.projections is not None:
            raise ValueError(f"columns {self.columns} and projections {self.projections} exclude each other; give one of them")
        for name in ("columns", "projections"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"{name} {count} must be at least 1; leave it out for whole matrices")
        if not 0 < self.step <= 0.1:
            raise ValueError(f"step {self.step} Å must be positive and at most 0.1: the error grows with its square")

    def directions(self, structure: Structure, index: int) -> np.ndarray | None:
        """Draw the directions (K, atoms, 3), of unit length, of frame ``index``.

        None stands for a whole matrix, also where there would be as many directions as it has columns.
        """
        n, rng = len(structure), np.random.default_rng([self.seed, index])
        count = self.columns or self.projections
        if count is None or count >= 3 * n:
            return None
        if self.columns is not None:
            return hessian_labels.unit_directions(np.sort(rng.permutation(3 * n)[:count]), n)
        found = rng.normal(size=(count, n, 3))
        return found / np.linalg.norm(found, axis=(1, 2), keepdims=True)


class Source(ABC):
    """What gives energies, forces and products of Hessians."""

    @property
    @abstractmethod
    def identity(self) -> Any:
        """All that results depend on besides the frame, as JSON has it."""

    @abstractmethod
    def labels(self, structure: Structure) -> Labels:
        """Compute energy, forces and, where there is one, stress of a structure; raise ValueError where that fails."""

    @abstractmethod
    def products(self, structure: Structure, directions: np.ndarray) -> np.ndarray:
        """Compute products of the Hessian with directions (K, atoms, 3), eV/Å^2; raise ValueError where that fails."""


@dataclass(frozen=True)
class Differences(Source):
    """Central differences of the forces of a calculator: H d = (F(r - h d) - F(r + h d)) / 2h.

    h is chosen so that the atom that moves most moves by ``step``.
    """

    runner: Runner
    step: float
    """Å."""

    @property
    def identity(self) -> Any:
        return [asdict(self.runner.method), self.step]

    def labels(self, structure: Structure) -> Labels:
        found = self.runner.run(structure)
        if FORCES not in found:
            raise ValueError(f"{self.runner.method.name} gives no forces, whose differences a Hessian is; take another method")
        return found

    def products(self, structure: Structure, directions: np.ndarray) -> np.ndarray:
        out = []
        for direction in directions:
            h = self.step / np.linalg.norm(direction, axis=1).max()
            moved = lambda sign, shift=h * direction: structure.replace(positions=structure.positions + sign * shift)
            back, forth = (self.runner.run(moved(sign))[FORCES] for sign in (-1, 1))
            out.append((back - forth) / (2 * h))
        return np.array(out)


@dataclass(frozen=True)
class Exact(Source):
    """Forward derivatives of the forces of a potential."""

    potential: Potential

    @property
    def identity(self) -> Any:
        return [eqp.sha256_of(self.potential), str(self.potential.dtype)]

    def labels(self, structure: Structure) -> Labels:
        found = evaluate_each(self.potential, [structure])[0]
        return {row: value for row in (ENERGY, FORCES, STRESS) if (value := found[row]) is not None}

    def products(self, structure: Structure, directions: np.ndarray) -> np.ndarray:
        return products(self.potential, structure, directions)


def source_of(name: str, settings: HessianConfig) -> Source:
    """Return the source of Hessians that a name stands for.

    Names are those of GFN2-xTB and its like, calculators as ``data.subtract`` has them (tblite, emt, package.module:Class),
    files of potentials, and names of published ones.

    Raises:
        ValueError: none of these, an option that the calculator does not have, a missing package, or a potential that cannot be
            read or is a correction to a method.
    """
    if name.lower() in XTB:
        given = {"calculator": "tblite", "method": XTB[name.lower()]}
    elif name in CALCULATORS or (":" in name and not Path(name).exists()):
        given = {"calculator": name}
    else:
        if settings.options:
            raise ValueError(f"{name} is a potential, which has no options {', '.join(settings.options)}; leave them out")
        try:
            potential = published.load(name, "float64")
        except FileNotFoundError as error:
            known = ", ".join((*XTB, *CALCULATORS))
            raise ValueError(f"{name} is no calculator ({known}, package.module:Class), and no potential: {error}") from None
        potential.check([])
        return Exact(potential)
    given |= settings.options
    check_settings(given)
    return Differences(start(method_of(given), "hessian"), settings.step)


class Outcome(NamedTuple):
    """What became of the frames."""

    labelled: int
    """Number of frames in the output."""
    kept: int
    """Number of them that were done before."""
    failures: tuple[str, ...]
    """Why frames are left out, or labels are not sound, one line each."""
    asymmetry: float
    """Largest ratio of the antisymmetric part of a matrix to the whole, before it was made symmetric."""


def label_hessians(
    frames: Sequence[Structure], source: Source, settings: HessianConfig, out: Path, console: Console
) -> Outcome:
    """Label frames with Hessian, energy, forces and stress of a source, one after the other, and write them to a file.

    Args:
        frames: Structures; their labels are replaced.
        source: Where labels come from.
        settings: Settings.
        out: Extended XYZ or HDF5, by its suffix.
        console: Where progress is told.

    Raises:
        ValueError: another suffix, or every frame failed.
        OSError: the file cannot be written.
    """
    if out.suffix.lower() not in SUFFIXES and not is_hdf5(out):
        raise ValueError(f"{out}: Hessians are written as {', '.join(SUFFIXES)}, .h5 or .hdf5; choose one of these endings")
    check_writable(out)
    folder = out.with_name(f"{out.name}.frames")
    folder.mkdir(exist_ok=True)
    failures, done, kept, largest, began = [], list[Structure](), 0, 0.0, time.monotonic()
    for k in range(len(frames)):
        bare, path = frames[k].without_labels(), folder / f"{frame_key(frames[k], source, settings, k)}.safetensors"
        found = read_frame(path, bare)
        kept += found is not None
        try:
            found = found or compute(bare, source, settings.directions(bare, k), path)
        except ValueError as error:
            failures.append(f"left out: {error}")
            console.say(failures[-1])
            continue
        largest = max(largest, found.asymmetry)
        if found.asymmetry > ASYMMETRY[0]:
            what = f"{bare.name}: differences of forces are not symmetric by {found.asymmetry:.1%}"
            failures.append(f"{what}; converge them, or change the step")
        done.append(found.structure)
        left = (time.monotonic() - began) / max(k + 1 - kept, 1) * (len(frames) - k - 1)
        console.progress(f"{k + 1} of {len(frames)} frames, about {duration(left)} left", before="Hessians:")
    if not done:
        raise ValueError(f"no Hessian could be computed: {failures[0] if failures else 'there are no frames'}")
    write_frames(out, done)
    if len(done) == len(frames):
        shutil.rmtree(folder)
    return Outcome(len(done), kept, tuple(failures), largest)


class Labelled(NamedTuple):
    """A structure with labels."""

    structure: Structure
    asymmetry: float
    """Ratio of the antisymmetric part of the Hessian to the whole, before it was made symmetric."""


def compute(structure: Structure, source: Source, directions: np.ndarray | None, path: Path) -> Labelled:
    """Label a structure and keep the labels in a file.

    Raises:
        ValueError: the source failed.
    """
    n, labels = len(structure), dict(source.labels(structure))
    if directions is None:
        rows = source.products(structure, np.eye(3 * n).reshape(-1, n, 3)).reshape(n, 3, n, 3)
        labels[HESSIAN] = (rows + rows.transpose(2, 3, 0, 1)) / 2
    else:
        rows = labels[HESSIAN] = hessian_labels.of_products(directions, source.products(structure, directions))
    found = Labelled(structure.replace(labels=labels), asymmetry(rows))
    FRAME.write(path, {"asymmetry": found.asymmetry}, {row.name: np.asarray(value) for row, value in labels.items()})
    return found


def frame_key(structure: Structure, source: Source, settings: HessianConfig, index: int) -> str:
    """Compute the SHA-256 of all that the labels of frame ``index`` depend on."""
    digest = hashlib.sha256(json.dumps(source.identity, sort_keys=True, default=str).encode())
    digest.update(key_of(structure).encode() + str(structure.head).encode())
    directions = settings.directions(structure, index)
    digest.update(b"whole" if directions is None else directions.tobytes())
    return digest.hexdigest()


def read_frame(path: Path, structure: Structure) -> Labelled | None:
    """Read the labels that were kept of a structure; None where there are none, or a file that is damaged."""
    try:
        _, record, arrays = FRAME.read(path)
    except (FileNotFoundError, DamagedError):
        return None
    return Labelled(structure.replace(labels=arrays), record["asymmetry"])


def write_frames(out: Path, structures: Sequence[Structure]) -> None:
    """Write labelled structures as HDF5 or extended XYZ, by the suffix."""
    if is_hdf5(out):
        write_hdf5(out, structures)
        return
    from ase.io import write

    text = io.StringIO()
    write(text, list(_plain(structures)), format="extxyz")
    write_atomically(out, text.getvalue().encode())


def _plain(structures: Sequence[Structure]) -> Iterator[Any]:
    """Convert structures to ASE's atoms without entries that extended XYZ cannot hold."""
    for structure in structures:
        atoms = structure.to_ase()
        plain = (str, int, float, np.generic, np.ndarray)
        atoms.info = {key: value for key, value in atoms.info.items() if isinstance(value, plain)}
        yield atoms
