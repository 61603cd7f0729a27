"""Small terms of every kind."""

from __future__ import annotations

from collective import Collective
from polar import Polar
from schnet import SchNet

from equipot.models.mace import MACE
from equipot.models.nequip import NaturalParity, NequIP, RotationsOnly
from equipot.nn.edge_features import SolidHarmonics
from equipot.nn.electrons import Electrons
from equipot.nn.features import Shared
from equipot.nn.interaction import Attention, NonLinear, Plain, Residual
from equipot.nn.normalize import Density, MeanNeighbors, PairDensity, RMSNorm, SenderNeighbors
from equipot.nn.radial import (
    XPLOR,
    Agnesi,
    Bessel,
    Chebyshev,
    Gaussian,
    OnWeights,
    PolynomialEnvelope,
    PowerEnvelope,
    Radial,
    Soft,
)
from equipot.physics.charges import Equilibrated, Flows, PerSpecies, Predicted
from equipot.physics.coulomb import Gaussians, Points
from equipot.physics.damping import Zero
from equipot.physics.dispersion import ATM, D3
from equipot.physics.electrostatics import Electrostatics
from equipot.physics.guard import Guarded, Wall
from equipot.physics.lennard_jones import LennardJones
from equipot.physics.mesh import ParticleMesh
from equipot.physics.morse import Morse
from equipot.physics.polarizable import Polarizable
from equipot.physics.stillinger_weber import StillingerWeber
from equipot.physics.sum import Sum
from equipot.physics.zbl import ZBL
from equipot.testing.subject import Subject

CUTOFF = 4.0

HIGH = Wall(1.0, 0.5)
"""So high that bonds of the systems lie within its transition, and some below its inner radii."""
TERMS = {
    "mace": MACE(cutoff=CUTOFF, channels=4, radial=Radial(mlp=(8,))),
    "mace-plain-l2": MACE(
        cutoff=CUTOFF, channels=3, hidden_l=2, l_max=2, correlation=2, layers=3, first=Plain(), others=Plain(Density()),
        radial=Radial(Gaussian(8), PowerEnvelope(3), Soft(), (8,)),
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
    "mace-electrons": MACE(
        cutoff=CUTOFF, channels=3, l_max=1, correlation=2, radial=Radial(mlp=(6,)), electrons=Electrons(4),
    ),
    "nequip-electrons": NequIP(cutoff=CUTOFF, channels=3, l_max=1, layers=2, radial=Radial(mlp=(6,)), electrons=Electrons(4)),
    "schnet": SchNet(cutoff=CUTOFF),
    "schnet-heads-zbl": SchNet(cutoff=CUTOFF, heads=("low", "high"), repulsion=ZBL()),
    "zbl": ZBL(cutoff=CUTOFF),
    "lennard-jones": LennardJones(cutoff=CUTOFF, sigma=1.2),
    "morse": Morse(cutoff=CUTOFF, distance=1.4, onset=0.6),
    "stillinger-weber": StillingerWeber(cutoff=CUTOFF, epsilon=0.3, sigma=1.6, attractive_power=0.5, cosine=-0.2),
    "polar": Polar(cutoff=CUTOFF, sigma=1.2),
    "collective": Collective(cutoff=CUTOFF),
    "d3": D3(cutoff=CUTOFF, functional="pbe", switch=1.5),
    "d3-zero-atm": D3(
        cutoff=CUTOFF, functional="b3lyp", damping=Zero(), switch=1.5, coordination_cutoff=3.5,
        three_body=ATM(cutoff=3.2, scale=0.5, s9=30.0, switch=1.0),
    ),
    "atm": ATM(cutoff=CUTOFF, scale=0.5, s9=10.0, switch=1.5),
    "mace-with-d3": Sum(
        (
            MACE(cutoff=2.6, channels=3, layers=1, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,))),
            D3(cutoff=CUTOFF, functional="pbe", switch=1.5),
        ),
    ),
    "sum": Sum(
        (
            MACE(cutoff=3.7, channels=3, layers=1, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,))),
            ZBL(cutoff=CUTOFF), Collective(cutoff=2.0),
        ),
        factors=(0.7, 1.0, 1.3),
    ),
    "guarded-mace": Guarded(
        MACE(cutoff=CUTOFF, channels=3, layers=1, l_max=1, correlation=2, radial=Radial(mlp=(6,))), HIGH
    ),
    "guarded-polar": Guarded(Polar(cutoff=CUTOFF, sigma=1.2), HIGH),
    "guarded-heads": Guarded(SchNet(cutoff=CUTOFF, heads=("low", "high")), HIGH),
    "guarded-beside-collective": Sum((Guarded(SchNet(cutoff=CUTOFF), HIGH), Collective(cutoff=2.0))),
}  # fmt: skip

ELECTRONS = {"mace-electrons": (2.0, 1.0), "nequip-electrons": (-1.0, 2.0)}
"""Charge (e) and unpaired electrons of all systems, for terms that see them."""
NETWORK = MACE(cutoff=CUTOFF, channels=3, layers=1, l_max=1, hidden_l=0, correlation=2, radial=Radial(mlp=(6,)))
SMOOTH = Gaussians(0.7, 1e-14)
TERMS |= {
    "points": Electrostatics(cutoff=CUTOFF, charges=PerSpecies(), kernel=Points(0.55, 1e-14), uniform_background=True),
    "mesh": Electrostatics(
        cutoff=CUTOFF, charges=PerSpecies(), kernel=Points(0.55, 1e-14), waves=ParticleMesh(14, 2.0), uniform_background=True
    ),
    "predicted": Electrostatics(base=NETWORK, charges=Predicted((5,)), kernel=SMOOTH, uniform_background=True),
    "flows": Electrostatics(base=NETWORK, charges=Flows(rank=3, radial=4), kernel=SMOOTH, uniform_background=True),
    "equilibrated": Electrostatics(base=NETWORK, charges=Equilibrated((5,)), kernel=SMOOTH, uniform_background=True),
    "polarizable": Electrostatics(
        base=NETWORK, charges=Polarizable((5,), flow_limit=0.3, dipole_limit=0.3), kernel=SMOOTH, uniform_background=True
    ),
}

CHIRAL = ("nequip-rotations",)
COLLECTIVE = (
    "collective", "sum", "points", "mesh", "predicted", "flows", "equilibrated", "polarizable", "guarded-beside-collective",
)  # fmt: skip
NOT_EXTENSIVE = ("collective", "sum", "guarded-beside-collective")
VANISH = {"nequip-rotations": 2, "lennard-jones": 2, "polar": 2, "guarded-polar": 2}

SUBJECTS = {
    name: Subject(
        term, name, chiral=name in CHIRAL, collective=name in COLLECTIVE, extensive=name not in NOT_EXTENSIVE,
        vanishes=VANISH.get(name, 3), charge=ELECTRONS.get(name, (0.0, 0.0))[0], spin=ELECTRONS.get(name, (0.0, 0.0))[1],
    )
    for name, term in TERMS.items()
}  # fmt: skip
