"""Loggers for the figures of a run besides metrics.jsonl: TensorBoard and Weights & Biases, imported when used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

Writer = Callable[[int, Mapping[str, float]], None]
"""Function of an epoch's number and its figures by name."""


@dataclass(frozen=True)
class TensorBoard:
    """Event files in the folder ``tensorboard`` of the run."""

    def open(self, out: Path, config: Mapping[str, Any]) -> Writer:
        """Open the logger for a run with the folder ``out``; return the function that writes an epoch's figures."""
        writer = need("tensorboardX", "tensorboard").SummaryWriter(str(out / "tensorboard"))

        def write(epoch: int, row: Mapping[str, float]) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        return write


@dataclass(frozen=True)
class WandB:
    """A run on Weights & Biases; a resumed run continues under its name."""

    project: str = "equipot"
    """Project of the run."""
    name: str | None = None
    """Name of the run; None for the name of its folder."""
    offline: bool = False
    """Whether figures are written to local files only."""

    def open(self, out: Path, config: Mapping[str, Any]) -> Writer:
        """Open the logger for a run with the folder ``out``; return the function that writes an epoch's figures."""
        name = self.name or out.resolve().name
        mode = "offline" if self.offline else "online"
        run = need("wandb", "wandb").init(
            project=self.project, name=name, id=name, resume="allow", dir=str(out), config=dict(config), mode=mode
        )
        return lambda epoch, row: run.log(dict(row), step=epoch)


def need(module: str, extra: str) -> ModuleType:
    """Import an optional package, which ``equipot[extra]`` installs.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"training.logger needs {module}: pip install 'equipot[{extra}]', or leave logger out") from None
