"""What an examination says: measures with their limits, findings, and the report as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from equipot.workflows.doctor.evidence import Evidence

Verdict = Literal["sound", "look", "broken"]
ORDER: tuple[Verdict, ...] = ("sound", "look", "broken")
"""From best to worst."""
PAIRS = ("pair", "minimum (Å)", "depth (eV)", "bond / radii", "hole below (Å)", "barrier (eV)", "bottom of the hole (eV)")
"""Columns of the table of pairs, see ``Curve.row``."""


@dataclass(frozen=True)
class Measure:
    """One number, and where it begins to be worth a look and to be a defect.

    The way from ``look`` to ``broken`` is the way to worse: where ``broken`` is the smaller one, small values are bad. A value
    that is not finite is a defect, whatever the limits.
    """

    what: str
    value: float
    unit: str
    look: float
    broken: float = math.inf

    @property
    def verdict(self) -> Verdict:
        if not math.isfinite(self.value):
            return "broken"
        sign = 1 if self.broken >= self.look else -1
        beyond = lambda limit: sign * self.value > sign * limit
        return "broken" if beyond(self.broken) else "look" if beyond(self.look) else "sound"

    @property
    def text(self) -> str:
        return " ".join(filter(None, (self.what, f"{self.value:.2g}", self.unit)))

    @property
    def limit(self) -> str:
        """The limit of what is sound."""
        return f"{'≤' if self.broken >= self.look else '≥'} {self.look:.2g}" if math.isfinite(self.look) else ""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    measures: tuple[Measure, ...]
    note: str = ""
    """What it means and what to do, in one sentence; empty where there is nothing to say."""

    @property
    def verdict(self) -> Verdict:
        """The worst of its measures; broken where there is none."""
        return worst([measure.verdict for measure in self.measures] or ["broken"])

    @property
    def measured(self) -> str:
        return ", ".join(measure.text for measure in self.measures)

    @property
    def limit(self) -> str:
        return ", ".join(measure.limit for measure in self.measures if measure.limit)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    return max(verdicts, key=ORDER.index, default="sound")


def largest(measures: Sequence[Measure]) -> Measure:
    """The worst of several measures of one kind: of the worst verdict, that which is farthest beyond its limit."""
    return max(measures, key=lambda m: (ORDER.index(m.verdict), np.nan_to_num(m.value / m.look, nan=math.inf)))


@dataclass(frozen=True)
class Report:
    """An examination: what was looked at, and what was found."""

    model: str
    systems: tuple[str, ...]
    """The structures that it was examined on, in words."""
    findings: tuple[Finding, ...]
    seconds: float
    evidence: Evidence = field(default_factory=Evidence)
    """What the pictures are made of."""

    @property
    def verdict(self) -> Verdict:
        return worst([finding.verdict for finding in self.findings])

    def finding(self, name: str) -> Finding:
        """One finding by its name.

        Raises:
            ValueError: there is none of this name.
        """
        for found in self.findings:
            if found.name == name:
                return found
        raise ValueError(f"{name} was not examined; there are {', '.join(found.name for found in self.findings)}")

    @property
    def summary(self) -> str:
        count = lambda verdict: sum(found.verdict == verdict for found in self.findings)
        return f"{self.verdict}: {', '.join(f'{count(verdict)} {verdict}' for verdict in ORDER)}"

    def table(self) -> str:
        """All findings as a Markdown table, then what there is to say of them."""
        rows = [(f.name, f.measured, f.limit, f.verdict) for f in self.findings]
        remarks = [f"- {f.name}: {f.note}" for f in self.findings if f.note]
        return "\n".join([_table(("check", "measured", "sound if", "verdict"), rows), "", *remarks]).rstrip()

    def markdown(self) -> str:
        """The whole report as text."""
        systems = "\n".join(f"- {system}" for system in self.systems)
        parts = [f"# {self.model}: {self.summary}", systems, self.table()]
        if self.evidence.dimers:
            parts += ["## Pairs of elements", _table(PAIRS, [curve.row() for curve in self.evidence.dimers])]
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        """The report as JSON; what is not a finite number is null."""
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
        return json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])
