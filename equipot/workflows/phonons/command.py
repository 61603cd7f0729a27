"""The command ``equipot phonons``."""

from __future__ import annotations

from equipot.files import write_atomically
from equipot.workflows.phonons import page, pictures, results
from equipot.workflows.phonons.calculation import phonons
from equipot.workflows.phonons.config import PhononsConfig
from equipot.workflows.task import Outcome, Task, only

CONFIG = PhononsConfig


def run(task: Task, settings: PhononsConfig) -> Outcome:
    """Compute the phonons of one crystal and write phonons.json, figures, phonons.html and the files of phonopy.

    Raises:
        ValueError: several frames, or see ``phonons``.
    """
    found = phonons(task.potential, only(task), settings, task.console)
    write_atomically(task.out / "phonons.json", results.as_json(found, task.model).encode())
    results.write_for_phonopy(found, task.out)
    pictures.draw_bands(found, task.out / "bands.png")
    pictures.draw_thermal(found.thermal, task.out / "thermal.png")
    if found.qha is not None:
        pictures.draw_quasi_harmonic(found.qha, task.out / "quasi-harmonic.png")
    page.write(found, task.model, task.out / "phonons.html")
    return Outcome(found.summary(), found.failures)
