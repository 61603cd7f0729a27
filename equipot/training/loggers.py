"""Where the figures of a run go besides metrics.jsonl: TensorBoard or Weights & Biases, imported only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

Writer = Callable[[int, Mapping[str, float]], None]
"""Takes the epoch and its figures."""


@dataclass(frozen=True)
class TensorBoard:
    """Event files in the folder ``tensorboard`` of the run."""

    def open(self, out: Path, config: Mapping[str, Any]) -> Writer:
        writer = need("tensorboardX", "tensorboard").SummaryWriter(str(out / "tensorboard"))

        def write(epoch: int, row: Mapping[str, float]) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        return write


@dataclass(frozen=True)
class WandB:
    """A run on Weights & Biases; a resumed run goes on under the same name."""

    project: str = "equipot"
    name: str | None = None
    """Name of the run; nothing means that of the folder."""
    offline: bool = False

    def open(self, out: Path, config: Mapping[str, Any]) -> Writer:
        name = self.name or out.resolve().name
        mode = "offline" if self.offline else "online"
        run = need("wandb", "wandb").init(
            project=self.project, name=name, id=name, resume="allow", dir=str(out), config=dict(config), mode=mode
        )
        return lambda epoch, row: run.log(dict(row), step=epoch)


def need(module: str, extra: str) -> ModuleType:
    """An optional package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"training.logger needs {module}: pip install 'equipot[{extra}]', or leave logger out") from None
