"""Results of an examination: measures with limits, findings, and the report as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from equipot.workflows.doctor.evidence import Evidence
from equipot.workflows.results import plain

Verdict = Literal["sound", "look", "broken"]
ORDER: tuple[Verdict, ...] = ("sound", "look", "broken")
"""Verdicts from best to worst."""
PAIRS = ("pair", "minimum (Å)", "depth (eV)", "bond / radii", "hole below (Å)", "barrier (eV)", "bottom of the hole (eV)")
"""Columns of the table of pairs, see ``Curve.row``."""


@dataclass(frozen=True)
class Measure:
    """One measured number with its limits.

    Values beyond ``look`` deserve a look, values beyond ``broken`` are defects. If ``broken`` < ``look``, small values are bad.
    A value that is not finite is a defect.
    """

    what: str
    value: float
    unit: str
    look: float
    broken: float = math.inf

    @property
    def verdict(self) -> Verdict:
        """Verdict of the value by the limits."""
        if not math.isfinite(self.value):
            return "broken"
        sign = 1 if self.broken >= self.look else -1
        beyond = lambda limit: sign * self.value > sign * limit
        return "broken" if beyond(self.broken) else "look" if beyond(self.look) else "sound"

    @property
    def text(self) -> str:
        """Name, value and unit."""
        return " ".join(filter(None, (self.what, f"{self.value:.2g}", self.unit)))

    @property
    def limit(self) -> str:
        """Limit of sound values, with its sign; empty without a limit."""
        return f"{'≤' if self.broken >= self.look else '≥'} {self.look:.2g}" if math.isfinite(self.look) else ""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    name: str
    measures: tuple[Measure, ...]
    note: str = ""
    """Meaning and remedy in one sentence; empty if the verdict needs no comment."""

    @property
    def verdict(self) -> Verdict:
        """Worst verdict of the measures; broken without measures."""
        return worst([measure.verdict for measure in self.measures] or ["broken"])

    @property
    def measured(self) -> str:
        """All measures as text."""
        return ", ".join(measure.text for measure in self.measures)

    @property
    def limit(self) -> str:
        """Limits of all measures as text."""
        return ", ".join(measure.limit for measure in self.measures if measure.limit)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of several verdicts."""
    return max(verdicts, key=ORDER.index, default="sound")


def largest(measures: Sequence[Measure]) -> Measure:
    """Return the worst of several measures: among those of the worst verdict, the farthest beyond its limit."""
    return max(measures, key=lambda m: (ORDER.index(m.verdict), np.nan_to_num(m.value / m.look, nan=math.inf)))


@dataclass(frozen=True)
class Report:
    """Report of an examination."""

    model: str
    systems: tuple[str, ...]
    """Descriptions of the examined structures."""
    findings: tuple[Finding, ...]
    seconds: float
    evidence: Evidence = field(default_factory=Evidence)
    """Arrays for the figures."""

    @property
    def verdict(self) -> Verdict:
        """Worst verdict of the findings."""
        return worst([finding.verdict for finding in self.findings])

    def finding(self, name: str) -> Finding:
        """Return the finding of a check by name.

        Raises:
            ValueError: no finding has the name.
        """
        for found in self.findings:
            if found.name == name:
                return found
        raise ValueError(f"{name} was not examined; there are {', '.join(found.name for found in self.findings)}")

    @property
    def summary(self) -> str:
        """Verdict and number of findings of each verdict."""
        count = lambda verdict: sum(found.verdict == verdict for found in self.findings)
        return f"{self.verdict}: {', '.join(f'{count(verdict)} {verdict}' for verdict in ORDER)}"

    def table(self) -> str:
        """Write all findings as a Markdown table, followed by their notes."""
        rows = [(f.name, f.measured, f.limit, f.verdict) for f in self.findings]
        remarks = [f"- {f.name}: {f.note}" for f in self.findings if f.note]
        return "\n".join([_table(("check", "measured", "sound if", "verdict"), rows), "", *remarks]).rstrip()

    def markdown(self) -> str:
        """Write the whole report as Markdown."""
        systems = "\n".join(f"- {system}" for system in self.systems)
        parts = [f"# {self.model}: {self.summary}", systems, self.table()]
        if self.evidence.dimers:
            parts += ["## Pairs of elements", _table(PAIRS, [curve.row() for curve in self.evidence.dimers])]
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        """Write the report as JSON; numbers that are not finite become null."""
        findings = [
            {"name": f.name, "verdict": f.verdict, "note": f.note, "measures": [asdict(m) for m in f.measures]}
            for f in self.findings
        ]
        content = {
            "model": self.model,
            "verdict": self.verdict,
            "systems": list(self.systems),
            "seconds": round(self.seconds, 1),
            "findings": findings,
            "dimers": [curve.figures() for curve in self.evidence.dimers],
        }
        return json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table with aligned columns."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])
