"""The page on how good an estimate of uncertainty is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equipot.pages import Block, Picture, Table, Text

NAME = "uncertainty.html"
"""Name of the page in its folder."""
NOTES = (
    "An interval of 90% holds the truth of nine in ten values: of frames of the same kind as those that calibrated it (split "
    "conformal prediction, each frame counted once), and on average over them, not for each atom or each kind of environment.",
    "That promise ends with a shift. Far from the structures that the estimate rests on and was calibrated on (hotter, denser, "
    "another phase, another composition) errors grow faster than deviations, and fewer values are within their intervals. A "
    "large novelty says where that may be so; a test set from there says by how much.",
    "A rank correlation of 0 or a retained error of 1 means that the deviations tell no better than chance which values are "
    "wrong. An estimate is worth its cost if it beats the line of the norm of the features.",
)
"""What intervals promise and what they do not."""


def report_blocks(frames: str, rows: Sequence[Sequence[str]], figure: Path) -> list[Block]:
    """Make the blocks of the page.

    Args:
        frames: Description of the frames that the estimate was compared with.
        rows: Table of diagnostics, the names of the columns first.
        figure: PNG file with errors, reliability and retention.
    """
    return [Table(f"On {frames}", rows), Picture("Errors, reliability and retention", figure), Text("Notes", NOTES)]
