"""Join data of several levels of theory, one per head, into the data of one run.

Total energies of two levels of theory differ by far more than a network should learn, and most of the difference lies in the
isolated atoms. Such a run therefore stores energies less E0 of the frame's own level of theory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipot.data.checks.report import Report
from equipot.data.read import Dataset
from equipot.data.split import Chain, Headed, Rezeroed
from equipot.structure import Structure


def label(kind: str, head: str) -> str:
    """Name a set of one head in reports; ``head`` is empty if there is only one level of theory."""
    return f"{kind}.{head}" if head else kind


def frames_by_head(data: Dataset, part: str) -> tuple[Sequence[Structure], ...]:
    """Split the ``train``, ``valid`` or ``test`` set of a run by head."""
    frames = getattr(data, part)
    return frames.parts if data.head_energies else (frames,)


def with_head(frames: Sequence[Structure], head: int, energies: Mapping[int, float]) -> Sequence[Structure]:
    """Assign frames to a head, by its index, and subtract E0 (``energies``, eV by Z) from their energies."""
    return Headed(Rezeroed(frames, {z: -energy for z, energy in energies.items()}), head)


def joined(datasets: Mapping[str, Dataset], heads: Sequence[str]) -> Dataset:
    """Join datasets, by the names of their heads, into one whose E0 are zero and whose frames carry the index of their head."""
    part = lambda name: Chain(
        tuple(with_head(getattr(data, name), heads.index(head), data.atomic_energies) for head, data in datasets.items())
    )
    elements = sorted({z for data in datasets.values() for z in data.atomic_energies})
    return Dataset(
        part("train"), part("valid"), part("test"), dict.fromkeys(elements, 0.0),
        origin=", ".join(dict.fromkeys(data.origin for data in datasets.values())),
        report=one_report({name: data.report for name, data in datasets.items()}),
        head_energies={name: data.atomic_energies for name, data in datasets.items()},
    )  # fmt: skip


def one_report(reports: Mapping[str, Report]) -> Report:
    """Join the reports of the checks, by the names of the heads."""
    return Report(
        tuple(problem for report in reports.values() for problem in report.problems),
        tuple(f"{name}, {line}" for name, report in reports.items() for line in report.summary),
        tuple(f"{name}: {note}" for name, report in reports.items() for note in report.notes),
    )
