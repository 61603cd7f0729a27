"""The command ``equipot vibrations``."""

from __future__ import annotations

from equipot.files import write_atomically
from equipot.workflows.task import Outcome, Task, only
from equipot.workflows.vibrations import page, pictures, results
from equipot.workflows.vibrations.calculation import vibrations
from equipot.workflows.vibrations.config import VibrationsConfig

CONFIG = VibrationsConfig


def run(task: Task, settings: VibrationsConfig) -> Outcome:
    """Compute the vibrations of one structure and write vibrations.json, spectrum.png and vibrations.html.

    Raises:
        ValueError: several frames, or see ``vibrations``.
    """
    found = vibrations(task.potential, only(task), settings, task.console)
    write_atomically(task.out / "vibrations.json", results.as_json(found, task.model).encode())
    pictures.draw(found, settings.width_per_cm, task.out / "spectrum.png")
    page.write(found, task.model, settings.width_per_cm, task.out / "vibrations.html")
    return Outcome(found.summary(), found.failures)
