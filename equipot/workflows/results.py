"""Results of a workflow as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipot.files import write_atomically


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Write results to a JSON file, atomically; numbers that are not finite become null, since JSON has none."""
    text = json.dumps(plain(told), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def plain(value: Any) -> Any:
    """Convert arrays, numbers of NumPy, mappings and sequences to what JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
