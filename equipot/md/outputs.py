"""Files of a run that grow with every chunk: the log, the trajectory, and what the gate records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from equipot.md import log
from equipot.md.config import MDConfig
from equipot.md.gate import Recorder
from equipot.md.trajectory import Frame, System, TextFile, Writer


class Outputs:
    """Log and frames of a run, appended by chunks and cut back to a checkpoint."""

    def __init__(self, config: MDConfig, out: Path, system: System):
        self.log = TextFile(out / "log.csv")
        self.trajectory: Writer | None = None if config.trajectory is None else config.trajectory.writer(out, system)
        self.recorder = None if config.gate is None else Recorder(out, system, config.gate)

    def append(self, table: list[log.Line], frames: list[Frame], checked: list[Frame]) -> None:
        """Append lines to the log, frames to the trajectory, and those that the gate records to its file."""
        self.log.append("".join(map(log.text, table)))
        if self.trajectory is not None:
            self.trajectory.append(frames)
        if self.recorder is not None:
            self.recorder.append(checked)

    def draw_recorded(self) -> None:
        """Draw the last frame that the gate recorded."""
        if self.recorder is not None:
            self.recorder.draw()

    def marks(self) -> dict[str, int]:
        """Return the lengths: of the log and of recorded frames in bytes, of the trajectory in bytes or frames."""
        files = {"log": self.log, "frames": self.trajectory, "recorded": self.recorder}
        return {name: 0 if file is None else file.mark() for name, file in files.items()}

    def cut(self, marks: Mapping[str, int]) -> None:
        """Shorten the files to earlier lengths."""
        self.log.cut(marks["log"])
        if self.trajectory is not None:
            self.trajectory.cut(marks["frames"])
        if self.recorder is not None:
            self.recorder.cut(marks.get("recorded", 0))

    def clear(self) -> None:
        """Remove the first line and the first frame, which a kill before the first checkpoint leaves behind.

        Raises:
            ValueError: the log is longer, so that the checkpoint was removed.
        """
        if self.log.mark() and self.log.path.read_text(encoding="utf-8").count("\n") > 2:
            raise ValueError(
                f"{self.log.path} is of a run whose checkpoint.safetensors is gone: it cannot be resumed; choose another folder"
            )
        self.cut({"log": 0, "frames": 0, "recorded": 0})
