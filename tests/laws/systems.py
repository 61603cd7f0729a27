"""Small systems of every awkward kind and small terms of every kind, in one padded shape: a term compiles once."""

from __future__ import annotations

import functools

import jax
import numpy as np
from collective import Collective

from equipot.data.batch import Shape, pad
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NaturalParity, NequIP, RotationsOnly
from equipot.nn.edge_features import SolidHarmonics
from equipot.nn.features import Shared
from equipot.nn.interaction import Attention, NonLinear, Plain, Residual
from equipot.nn.normalize import Density, MeanNeighbors, PairDensity, RMSNorm, SenderNeighbors
from equipot.nn.radial import XPLOR, Agnesi, Bessel, Chebyshev, Gaussian, OnWeights, PolynomialEnvelope, Radial, Soft
from equipot.physics.sum import Sum
from equipot.physics.zbl import ZBL
from equipot.potential import Metadata
from equipot.structure import Structure

CUTOFF = 4.0
SHAPE = Shape(atoms=20, slots=72, graphs=2)
ELEMENTS = (1, 6, 8, 29)


def structure(numbers, positions, cell=None, pbc=False, source=""):
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, float)
    return Structure(np.asarray(numbers), np.asarray(positions, float), cell, pbc, source=source)


def random_structure(seed, n, cell, pbc, source):
    """Up to eight atoms on a rattled grid: far enough apart for central differences to be sharp."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n] / 2 + 0.05
    positions = (grid + rng.uniform(-0.03, 0.03, (n, 3))) @ np.asarray(cell, float)
    return structure(rng.choice(ELEMENTS, n), positions, cell, pbc, source)


TRICLINIC = [[5.1, 0.3, 0.0], [1.9, 4.6, 0.4], [-0.8, 1.1, 5.3]]
LEFT_HANDED = [[4.9, 0.0, 0.3], [0.2, 0.1, 5.2], [0.4, 5.0, 0.0]]
MOLECULE = structure(
    [6, 6, 8, 1, 1, 1, 1, 1, 1],
    [
        [1.17, -0.40, 0.02], [0.0, 0.55, -0.03], [-1.19, -0.21, 0.04], [-1.94, 0.38, 0.11], [2.10, 0.13, 0.07],
        [1.13, -1.05, 0.92], [1.13, -1.04, -0.87], [0.05, 1.22, 0.84], [0.06, 1.15, -0.95],
    ],
    source="molecule",
)  # fmt: skip
SYSTEMS = [
    structure([29], [[0.1, 0.2, 0.3]], 1.75 * (np.ones((3, 3)) - np.eye(3)), True, "one-atom fcc"),
    random_structure(1, 4, TRICLINIC, True, "triclinic"),
    random_structure(2, 5, LEFT_HANDED, True, "left-handed"),
    random_structure(3, 4, np.diag([4.5, 4.8, 12.0]), (True, True, False), "slab"),
    random_structure(4, 4, [[3.1, 0.5, 0.0], [0, 5.0, 0], [0, 0, 5.4]], (True, False, False), "wire"),
    random_structure(5, 3, np.diag([2.6, 7.0, 7.0]), True, "cutoff beyond the cell"),
    MOLECULE,
    structure([8, 6], [[0, 0, 0], [0.3, 0.4, 1.1]], source="dimer"),
    structure([1], [[0.0, 0.0, 0.0]], source="isolated atom"),
    structure([1, 8, 6], [[0, 0, 0], [9.0, 0, 0], [9.6, 1.0, 0.2]], source="empty neighbourhood"),
]
ALONE = ("isolated atom", "empty neighbourhood")
"""Systems with an atom that has no neighbours, on purpose."""

TERMS = {
    "mace": MACE(cutoff=CUTOFF, channels=4, radial=Radial(mlp=(8,))),
    "mace-plain-l2": MACE(
        cutoff=CUTOFF, channels=3, hidden_l=2, l_max=2, correlation=2, layers=3, first=Plain(), others=Plain(Density()),
        radial=Radial(Gaussian(8), transform=Soft(), mlp=(8,)),
    ),
    "mace-agnesi-correlation-4": MACE(
        cutoff=CUTOFF, channels=3, l_max=1, correlation=4, first=Plain(MeanNeighbors(1.5)), others=Residual(Density()),
        radial=Radial(Bessel(6), PolynomialEnvelope(6), Agnesi(), (8,)),
    ),
    "mace-nonlinear": MACE(
        cutoff=CUTOFF, channels=3, message_channels=2, l_max=2, correlation=(2, 1), contraction=Shared(), readout_bias=True,
        first=NonLinear(), others=NonLinear(PairDensity(4)),
        radial=Radial(Bessel(3, trainable=True), envelope_on=OnWeights(), mlp=(8,)),
    ),
    "mace-attention-zbl": MACE(
        cutoff=CUTOFF, channels=3, l_max=1, correlation=2, first=Attention(Density()), others=Attention(), repulsion=ZBL(),
        radial=Radial(Chebyshev(4, (-1.0, 2.0)), envelope_on=OnWeights(), transform=Agnesi(), mlp=(6, 6)),
    ),
    "nequip": NequIP(cutoff=CUTOFF, channels=3, layers=3, radial=Radial(mlp=(8,))),
    "nequip-l3-natural": NequIP(
        cutoff=CUTOFF, channels=3, l_max=3, layers=2, parity=NaturalParity(), self_connection=Shared(),
        radial=Radial(Chebyshev(6), mlp=(8,)),
    ),
    "nequip-rotations": NequIP(
        cutoff=CUTOFF, channels=(4, 3, 2), l_max=2, layers=3, parity=RotationsOnly(), embedding=5, harmonics=SolidHarmonics(),
        radial=Radial(Bessel(6, trainable=True), XPLOR(3.0), mlp=(8,)), normalization=MeanNeighbors(0.5), layer_norm=RMSNorm(),
        bias=True, readout=None,
    ),
    "nequip-no-self": NequIP(
        cutoff=CUTOFF, channels=3, l_max=1, layers=2, self_connection=None, normalization=MeanNeighbors(0.0),
        radial=Radial(mlp=(8,)),
    ),
    "nequip-senders": NequIP(
        cutoff=CUTOFF, channels=3, l_max=1, layers=2, normalization=SenderNeighbors(), radial=Radial(mlp=(8,)),
    ),
    "collective": Collective(cutoff=CUTOFF),
    "sum": Sum(
        (
            MACE(cutoff=3.7, channels=3, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,))),
            ZBL(cutoff=CUTOFF), Collective(cutoff=2.0),
        ),
        factors=(0.7, 1.0, 1.3),
    ),
}  # fmt: skip

CHIRAL = ("nequip-rotations",)
"""Terms that tell a structure from its mirror image."""
COLLECTIVE = ("collective", "sum")
"""Terms whose energy is not made of what is within the cutoff of each atom."""
VANISH = {"nequip-rotations": 2}
"""Power of the distance to the cutoff with which a pair's energy vanishes, where it is not the third."""


@functools.lru_cache
def potential(name):
    """A random potential in float64 with constants that are not trivial."""
    term = TERMS[name]
    term = term.clone(elements=ELEMENTS) if hasattr(term, "elements") else term
    free = tuple((z, -1.5 * z) for z in ELEMENTS)
    example = pad([*SYSTEMS[:4], MOLECULE], CUTOFF, dtype=np.float64)
    made = fresh(
        term, example, jax.random.key(3), Metadata(free),
        scale=[0.05, 0.065, 0.04, 0.1], shift=[0.1, -0.2, 0.3, 0.4], avg_num_neighbors=12.0,
    )  # fmt: skip
    return made.astype("float64")


def graph(*structures, shape=SHAPE):
    return pad(structures, CUTOFF, shape, np.float64)
