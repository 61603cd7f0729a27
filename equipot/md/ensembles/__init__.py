"""Ensembles of molecular dynamics; each class holds the parameters and the integrator of one ensemble."""

from equipot.md.ensembles.base import Ensemble
from equipot.md.ensembles.csvr import NVTCSVR
from equipot.md.ensembles.langevin import NVTLangevin
from equipot.md.ensembles.nose_hoover import NVTNoseHoover
from equipot.md.ensembles.npt_flexible import NPTFlexible
from equipot.md.ensembles.npt_isotropic import NPTIsotropic
from equipot.md.ensembles.nve import NVE

__all__ = ["NVE", "NVTCSVR", "Ensemble", "NPTFlexible", "NPTIsotropic", "NVTLangevin", "NVTNoseHoover"]
