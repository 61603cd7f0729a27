"""Data of several levels of theory as the data of one run.

Total energies of two levels of theory differ by far more than what a network should learn, most of it in the isolated atoms. So
energies of such a run are counted from the isolated atoms of each frame's own level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipot.data.checks.report import Report
from equipot.data.read import Dataset
from equipot.data.split import Chain, Headed, Rezeroed
from equipot.structure import Structure


def label(kind: str, head: str) -> str:
    """What reports call a set of one head; ``head`` is empty where there is only one level of theory."""
    return f"{kind}.{head}" if head else kind


def by_level(data: Dataset, part: str) -> tuple[Sequence[Structure], ...]:
    """``train``, ``valid`` or ``test`` of a run, for each of its levels of theory."""
    frames = getattr(data, part)
    return frames.parts if data.levels else (frames,)


def of_level(frames: Sequence[Structure], head: int, energies: Mapping[int, float]) -> Sequence[Structure]:
    """Frames as those of one head among several, their energies less ``energies`` of the isolated atoms (eV by Z)."""
    return Headed(Rezeroed(frames, {z: -energy for z, energy in energies.items()}), head)


def joined(datasets: Mapping[str, Dataset], heads: Sequence[str]) -> Dataset:
    """The data of each level of theory, by its name among ``heads``, as one: E0 are zero, and every frame has its head."""
    part = lambda name: Chain(
        tuple(of_level(getattr(data, name), heads.index(head), data.atomic_energies) for head, data in datasets.items())
    )
    elements = sorted({z for data in datasets.values() for z in data.atomic_energies})
    return Dataset(
        part("train"), part("valid"), part("test"), dict.fromkeys(elements, 0.0),
        origin=", ".join(dict.fromkeys(data.origin for data in datasets.values())),
        report=one_report({name: data.report for name, data in datasets.items()}),
        levels={name: data.atomic_energies for name, data in datasets.items()},
    )  # fmt: skip


def one_report(reports: Mapping[str, Report]) -> Report:
    """What the checks found in the data of each head."""
    return Report(
        tuple(problem for report in reports.values() for problem in report.problems),
        tuple(f"{name}, {line}" for name, report in reports.items() for line in report.summary),
        tuple(f"{name}: {note}" for name, report in reports.items() for note in report.notes),
    )
