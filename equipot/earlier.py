"""What earlier versions of equipot wrote, in the words of this one: the one place that knows names of the past.

Format 1 of potentials and of checkpoints of training is that before heads had a scope of their own; ``radial.envelope_on`` was
``radial.place`` there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OWN = {"MACE": ("readout",), "NequIP": ("readout",)}
"""By the kind of a term: how names of parameters begin that each head had of its own, in format 1; scale and shift, too."""


def term_of_1(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters of a term in format 1, under their present names."""
    renamed = {"place": "envelope_on"}
    radial = settings.get("radial")
    if not isinstance(radial, Mapping):
        return dict(settings)
    return {**settings, "radial": {renamed.get(key, key): value for key, value in radial.items()}}


def path_of_1(path: str, term: Mapping[str, Any]) -> str:
    """Path of a variable in format 1, such as ``params/readout0/w0``, where it stands now.

    ``term`` are the term's settings as stored: with several heads, what each had of its own has moved into the scope ``heads``.
    """
    own = OWN.get(term.get("kind", ""), ())
    if not term.get("heads") or not own:
        return path
    return re.sub(rf"^(params/)((?:{'|'.join(own)})\d*/)|^(constants/)(scale|shift)$", _into_heads, path)


def state_path_of_1(path: str, term: Mapping[str, Any]) -> str:
    """Path of an array of a training state in format 1, such as ``.params['readout0']['w0']``, where it stands now."""
    own = OWN.get(term.get("kind", ""), ())
    if not term.get("heads") or not own:
        return path
    return re.sub(rf"(\['(?:{'|'.join(own)})\d*'\])", r"['heads']\1", path, count=1)


def _into_heads(found: re.Match[str]) -> str:
    collection, name = (part for part in found.groups() if part)
    return f"{collection}heads/{name}"
