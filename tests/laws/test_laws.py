"""The laws of physics, each over every term and every system, in float64."""

from __future__ import annotations

import pytest
from subjects import SUBJECTS

from equipot.testing import laws
from equipot.testing.systems import ALONE, SYSTEMS

MAIN = {
    "without jit": ("mace", "nequip", "collective", "sum", "zbl"),
    "Hessian": ("mace", "nequip", "collective", "sum", "zbl"),
    "training gradient": ("collective", "sum"),
    "single precision": (
        "mace", "mace-plain-l2", "mace-agnesi-correlation-4", "mace-attention-zbl", "nequip-rotations", "sum", "zbl",
    ),
}  # fmt: skip
"""Laws that compile every term anew are checked for these only."""
CASES = [
    case for name, subject in SUBJECTS.items() for case in laws.cases(subject) if name in MAIN.get(case.law.name, SUBJECTS)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_law(case):
    case()


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.source)
def test_the_systems_have_neighbours(system):
    """Without, the laws would say nothing."""
    mask = SUBJECTS["mace"].graph(system).slot_mask[: len(system)]
    assert mask.any(axis=1).all() == (system.source not in ALONE)
