"""What a command of a workflow is given, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from equipot.console import Console
from equipot.potential import Potential
from equipot.structure import Structure

__all__ = ["Analysis", "Command", "Outcome", "Task", "only"]


class Task(NamedTuple):
    """Work of one command: a potential applied to structures, with a folder for results."""

    model: str
    """Name or path of the potential as the user wrote it, for headings and results."""
    potential: Potential
    """In the precision of the run."""
    structures: Sequence[Structure]
    """At least one, with the constraints of ASE named in ``Structure.constraints``."""
    out: Path
    """Folder of the results."""
    resume: bool
    """Whether results that are in the folder are gone on with."""
    console: Console
    """Lines and bar of progress."""


class Analysis(NamedTuple):
    """Work of one command on a trajectory, which is read frame by frame and never as a list of structures."""

    source: str
    """Trajectory, or structure file, as the user named it."""
    model: str | None
    """Name or path of the potential; None without one."""
    potential: Potential | None
    """In the precision of the run; None for an analysis of the trajectory alone."""
    out: Path
    """Folder of the results."""
    resume: bool
    """Whether results that are in the folder are gone on with."""
    console: Console
    """Lines and bar of progress."""


def only(task: Task) -> Structure:
    """Return the structure of a task that takes one.

    Raises:
        ValueError: several frames.
    """
    if len(task.structures) != 1:
        raise ValueError(
            f"the file has {len(task.structures)} frames, but this takes one: choose it with FILE@INDEX, FILE@-1 for the last"
        )
    return task.structures[0]


@dataclass(frozen=True)
class Outcome:
    """Answer of a command."""

    summary: str
    """Lines for the terminal."""
    failures: tuple[str, ...] = ()
    """What did not come to its end or is not sound, one sentence each; any makes the exit code 1."""


class Command(Protocol):
    """A module ``equipot.workflows.NAME.command``; see ``equipot.cli.workflow``."""

    CONFIG: type
    """Class of the settings: a frozen dataclass, whose fields are the keys of ``--set`` and of a config."""

    def run(self, task: Task, settings: Any) -> Outcome:
        """Do the work, with all results in ``task.out``: NAME.json, figures and NAME.html."""
        ...
