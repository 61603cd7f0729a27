"""Text, data and scripts inside HTML."""

from __future__ import annotations

import base64
import gzip
import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

DIGITS = 10
"""Significant digits of the numbers in a page."""


def plain(value: Any) -> Any:
    """Convert arrays and numbers in nested dicts and sequences to what JSON has; numbers that are not finite become None.

    Numbers are rounded to ``DIGITS`` significant digits.
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def json_text(value: Any) -> str:
    """Write JSON that may stand in a script element: no text in ``value`` can end the element."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def packed(text: str) -> str:
    """Compress text to base64 of gzip, which the scripts of a page unpack; equal text gives equal bytes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@cache
def asset(name: str) -> str:
    """Read a script or style sheet that lies beside this module."""
    return files("equipot.pages").joinpath(name).read_text(encoding="utf-8")


def script(name: str) -> str:
    """Write a script of this package as a script element."""
    return f"<script>\n{asset(name)}</script>"
