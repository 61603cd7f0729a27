"""Properties of crystals: equation of state, elastic tensor, stress-strain curves, the order of polymorphs."""

from equipot.workflows.bulk.config import BulkConfig, Elasticity, EquationOfState, Tension
from equipot.workflows.bulk.elasticity import ElasticTensor, elastic_tensor
from equipot.workflows.bulk.equation_of_state import VolumeCurve, equation_of_state
from equipot.workflows.bulk.ranking import Ranking, rank
from equipot.workflows.bulk.tension import StressStrain, stress_strain

__all__ = [
    "BulkConfig", "ElasticTensor", "Elasticity", "EquationOfState", "Ranking", "StressStrain", "Tension", "VolumeCurve",
    "elastic_tensor", "equation_of_state", "rank", "stress_strain",
]  # fmt: skip
