"""Examine in one minute whether a potential is sound for given elements and structures.

>>> from equipot.workflows import doctor
>>> report = doctor.examine(potential, atoms)
>>> print(report.table())
"""

from equipot.workflows.doctor.examination import examine
from equipot.workflows.doctor.findings import Finding, Measure, Report

__all__ = ["Finding", "Measure", "Report", "examine"]
