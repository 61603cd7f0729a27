"""Molecular dynamics on the device, in chunks of many steps, with Nosé-Hoover chains of jax-md.

>>> from equipot import md
>>> md.run(md.MDConfig(model="model.eqp", structure="start.xyz", ensemble=md.NVTCSVR(), steps=10_000), "runs/md")
"""

from equipot.md.config import MDConfig
from equipot.md.driver import Explosion, Summary, run, simulate
from equipot.md.ensembles import NVE, NVTCSVR, Ensemble, NPTFlexible, NPTIsotropic, NVTLangevin, NVTNoseHoover
from equipot.md.trajectory import H5MD, ExtXYZ

__all__ = [
    "H5MD", "NVE", "NVTCSVR", "Ensemble", "Explosion", "ExtXYZ", "MDConfig", "NPTFlexible", "NPTIsotropic", "NVTLangevin",
    "NVTNoseHoover", "Summary", "run", "simulate",
]  # fmt: skip
