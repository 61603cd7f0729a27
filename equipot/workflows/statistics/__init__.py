"""Statistics of correlated series: averages, spectra and integrals of correlation functions, each with its error."""

from equipot.workflows.statistics.blocking import Average, average
from equipot.workflows.statistics.cepstrum import Cepstral, zero_frequency
from equipot.workflows.statistics.correlation import Correlations, Correlator
from equipot.workflows.statistics.pool import Pool
from equipot.workflows.statistics.trajectory import Snapshot, Trajectory, open_trajectory

__all__ = [
    "Average",
    "Cepstral",
    "Correlations",
    "Correlator",
    "Pool",
    "Snapshot",
    "Trajectory",
    "average",
    "open_trajectory",
    "zero_frequency",
]
