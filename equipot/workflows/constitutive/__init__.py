"""Hyperelastic laws of materials, from a potential or from stress-strain data: energy and stress as functions of F.

>>> data = label(potential, crystal, random_gradients(StrainRange(), 200, seed=0)).data
>>> law = fit(data, point_rotations(crystal)).law
>>> law.save("copper.law"); law.export("copper_law.py")
"""

from equipot.workflows.constitutive.baselines import NeoHooke, SaintVenantKirchhoff
from equipot.workflows.constitutive.config import ConstitutiveConfig, Sampling, Training
from equipot.workflows.constitutive.deformations import Deformations, read_deformations
from equipot.workflows.constitutive.density import Density
from equipot.workflows.constitutive.examination import ellipticity, indifference
from equipot.workflows.constitutive.fitting import Fitted, fit
from equipot.workflows.constitutive.kinematics import StrainRange
from equipot.workflows.constitutive.labelling import label
from equipot.workflows.constitutive.law import Law
from equipot.workflows.constitutive.network import Convex, Unconstrained
from equipot.workflows.constitutive.sampling import random_gradients
from equipot.workflows.constitutive.symmetry import GroupAverage, StructuralTensors, point_rotations

__all__ = [
    "ConstitutiveConfig", "Convex", "Deformations", "Density", "Fitted", "GroupAverage", "Law", "NeoHooke",
    "SaintVenantKirchhoff", "Sampling", "StrainRange", "StructuralTensors", "Training", "Unconstrained", "ellipticity", "fit",
    "indifference", "label", "point_rotations", "random_gradients", "read_deformations",
]  # fmt: skip
