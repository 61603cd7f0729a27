"""Conversion of names in files of format 1 to their present names, for potentials and checkpoints of training.

In format 1 the parameters of heads had no scope of their own, and ``radial.envelope_on`` was called ``radial.place``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OWN = {"MACE": ("readout",), "NequIP": ("readout",)}
"""Prefixes of the parameters that each head has of its own in format 1, by kind of term; scale and shift are per head too."""


def term_of_1(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the hyper-parameters of a term in format 1."""
    renamed = {"place": "envelope_on"}
    radial = settings.get("radial")
    if not isinstance(radial, Mapping):
        return dict(settings)
    return {**settings, "radial": {renamed.get(key, key): value for key, value in radial.items()}}


def path_of_1(path: str, term: Mapping[str, Any]) -> str:
    """Convert the path of a variable in format 1, such as ``params/readout0/w0``, to the present path.

    ``term`` holds the stored hyper-parameters: with several heads, variables of each head moved into the scope ``heads``.
    """
    own = OWN.get(term.get("kind", ""), ())
    if not term.get("heads") or not own:
        return path
    return re.sub(rf"^(params/)((?:{'|'.join(own)})\d*/)|^(constants/)(scale|shift)$", _into_heads, path)


def state_path_of_1(path: str, term: Mapping[str, Any]) -> str:
    """Convert the path of an array of a training state, such as ``.params['readout0']['w0']``, from format 1."""
    own = OWN.get(term.get("kind", ""), ())
    if not term.get("heads") or not own:
        return path
    return re.sub(rf"(\['(?:{'|'.join(own)})\d*'\])", r"['heads']\1", path, count=1)


def _into_heads(found: re.Match[str]) -> str:
    collection, name = (part for part in found.groups() if part)
    return f"{collection}heads/{name}"
