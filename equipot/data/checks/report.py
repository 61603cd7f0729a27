"""Problems that the checks of reference data find, and their report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

ERROR, WARNING = "error", "warning"
SHOWN = 3
"""Number of frames listed for each kind of problem."""
LISTED = 10
"""Number of problems listed in the message of a DataError."""
SWITCHES = (
    "force_sign", "energy_unit", "stress_unit", "stress_sign", "stress_order", "stress_zero", "stress_pressure",
    "hessian_symmetry", "hessian_sum", "hessian_size",
    "force_zero", "energy_size", "force_size", "stress_size", "contradiction", "isolated_energy",
)  # fmt: skip
"""Kinds of problems that ``data.checks`` can turn into warnings or skip: estimates, not errors that prevent training."""


class DataError(ValueError):
    """Errors in reference data; the message lists the first ones."""


@dataclass(frozen=True)
class Problem:
    """One problem in reference data."""

    severity: str
    """error or warning."""
    kind: str
    """Name of the check, such as force_sign."""
    where: str
    """File and frame, such as ``train.xyz, frame 12``."""
    what: str
    remedy: str

    def __str__(self) -> str:
        past = f"; if it is right, data.checks.{self.kind}: warn goes past it"
        return f"{self.where}: {self.what}; {self.remedy}" + (past if self.severity == ERROR and self.kind in SWITCHES else "")


@dataclass(frozen=True)
class Report:
    """Problems that the checks found, and a summary of the sets."""

    problems: tuple[Problem, ...]
    summary: tuple[str, ...]
    """One line per set."""
    notes: tuple[str, ...] = ()
    """Further warnings, about E0."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that are errors."""
        return tuple(p for p in self.problems if p.severity == ERROR)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings and notes as lines of text; repeated ones are counted."""
        return (*_brief([p for p in self.problems if p.severity == WARNING]), *self.notes)

    def with_warnings(self, notes: Iterable[str]) -> Report:
        """Add notes to the report."""
        return replace(self, notes=(*self.notes, *notes))

    def judged(self, checks: Mapping[str, str]) -> Report:
        """Turn errors of some kinds into warnings, or remove problems of some kinds.

        Args:
            checks: ``warn`` or ``skip`` by kind, one of ``SWITCHES``.
        """
        kept = [p for p in self.problems if checks.get(p.kind) != "skip"]
        return replace(self, problems=tuple(replace(p, severity=WARNING) if p.kind in checks else p for p in kept))

    def with_problems(self, problems: Iterable[Problem]) -> Report:
        """Add problems to the report."""
        return replace(self, problems=(*self.problems, *problems))

    def without(self, kind: str) -> Report:
        """Remove the problems of one kind."""
        return replace(self, problems=tuple(p for p in self.problems if p.kind != kind))

    def raise_errors(self) -> None:
        """Raise the errors, if there are any.

        Raises:
            DataError: there are errors; up to ten are listed.
        """
        lines = _brief(self.errors)
        if len(lines) == 1:
            raise DataError(lines[0])
        if lines:
            more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
            raise DataError("the data have errors:\n  " + "\n  ".join(lines[:LISTED]) + more)

    def __str__(self) -> str:
        errors = [f"error: {line}" for line in _brief(self.errors)]
        return "\n".join([*self.summary, *errors, *(f"warning: {line}" for line in self.warnings)])


def _brief(problems: Sequence[Problem]) -> list[str]:
    """Write one line for each problem, but only for the first few of a kind in a file."""
    groups: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for p in problems:
        groups[p.kind, file_of(p.where)].append(p)
    lines = []
    for members in groups.values():
        lines += [str(p) for p in members[:SHOWN]]
        if len(members) > SHOWN:
            lines[-1] += f" (and the same in {len(members) - SHOWN} more frames)"
    return list(dict.fromkeys(lines))


def file_of(where: str) -> str:
    """Return the file of ``FILE, frame K``."""
    return where.rpartition(", frame ")[0] or where
