"""The laws of physics, each over every term and every system, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from subjects import SUBJECTS

from equipot.testing import laws
from equipot.testing.systems import ALONE, SYSTEMS, structure

VARIANTS = [name for name in SUBJECTS if name.startswith(("mace-", "nequip-", "schnet-"))]
SKIPPED = {
    "without jit": VARIANTS,
    "Hessian": VARIANTS,
    "training gradient": [*VARIANTS, "mace", "nequip"],
    "single precision": ["mace-nonlinear", "nequip", "nequip-l3-natural", "nequip-no-self", "nequip-senders"],
}
"""Laws that compile a program of their own for each term, which takes long, and the networks that are left out there."""
CASES = [
    case for name, subject in SUBJECTS.items() for case in laws.cases(subject) if name not in SKIPPED.get(case.law.name, ())
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_law(case):
    case()


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.source)
def test_the_systems_have_neighbours(system):
    """Without, the laws would say nothing."""
    mask = SUBJECTS["mace"].graph(system).slot_mask[: len(system)]
    assert mask.any(axis=1).all() == (system.source not in ALONE)


def test_virials_without_a_volume_do_not_vanish():
    """Else the law about them would say nothing."""
    cell = np.diag([5.1, 0.0, 0.0])
    open_system = structure([1, 6, 8], [[0, 0, 0], [1.1, 0.2, 0.4], [2.3, 1.0, -0.5]], cell, (True, False, False))
    assert np.abs(SUBJECTS["collective"].predict(open_system).virials.sum(axis=0)).max() > 1e-3
