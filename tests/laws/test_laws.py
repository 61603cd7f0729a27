"""The laws of physics, each over every term and every system, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from subjects import SUBJECTS

from equipot.testing import laws
from equipot.testing.systems import ALONE, OPEN, SYSTEMS

VARIANTS = [
    name for name in SUBJECTS
    if name.startswith(("mace-", "nequip-", "schnet-")) and not name.endswith("electrons")
]  # fmt: skip
FEATURED = ("mace", "mace-nonlinear", "nequip", "nequip-l3-natural")
"""Terms of every kind of readout."""
SKIPPED = {
    "features": [name for name in SUBJECTS if name not in FEATURED],
    "without jit": VARIANTS,
    "Hessian": VARIANTS,
    "training gradient": [*VARIANTS, "mace", "nequip", "zbl", "lennard-jones", "morse", "stillinger-weber", "polar"],
    "single precision": ["mace-nonlinear", "nequip", "nequip-l3-natural", "nequip-no-self", "nequip-senders"],
}
"""Laws that compile a program of their own for each term, which takes long, and the terms that are left out there: variants of
networks, and for the training gradient also terms that have no parameters."""
DERIVED = ("polarizable", "mesh", "predicted", "flows", "d3-zero-atm", "sum", "guarded-mace", "guarded-heads")
"""Terms that differ from one checked by default in the charges, the damping, or the parts that are summed or guarded."""
ALIKE = ("nequip-l3-natural", "nequip-no-self", "nequip-electrons", "schnet-heads-zbl", "mace-with-d3", "predicted")
"""Terms that depend on distances only through what other terms depend on, too: radial basis, envelope, transform and switch."""
SLOW = {
    "without jit": [*DERIVED, "nequip-electrons"],
    "Hessian": [*DERIVED, "nequip-electrons"],
    "training gradient": ["polarizable", "mesh", "predicted", "sum", "guarded-mace", "guarded-heads"],
    "smooth inside the cutoff": ["polarizable", "mesh", "guarded-mace", *ALIKE],
}
"""The same, of terms that are checked with the slow tests."""
CASES = [
    pytest.param(case, id=str(case), marks=[pytest.mark.slow] * (name in SLOW.get(case.law.name, ())))
    for name, subject in SUBJECTS.items()
    for case in laws.cases(subject)
    if name not in SKIPPED.get(case.law.name, ())
]


@pytest.mark.parametrize("case", CASES)
def test_law(case):
    case()


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.source)
def test_the_systems_have_neighbours(system):
    """Without, the laws would say nothing."""
    mask = SUBJECTS["mace"].graph(system).slot_mask[: len(system)]
    assert mask.any(axis=1).all() == (system.source not in ALONE)


@pytest.mark.parametrize("system", OPEN, ids=lambda s: s.source)
def test_virials_without_a_volume_do_not_vanish(system):
    """Else the law about them would say nothing."""
    assert np.abs(SUBJECTS["collective"].predict(system).virials.sum(axis=0)).max() > 1e-3
