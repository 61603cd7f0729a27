"""E(3)-equivariant interatomic potentials in JAX: from quantum-mechanical data to molecular dynamics.

>>> import equipot
>>> potential = equipot.load("model.eqp")  # or a published one by name, such as "sevennet-0"
>>> potential, certificate = equipot.import_checkpoint("mace.model")  # of another program
>>> equipot.evaluate(potential, atoms).forces
>>> atoms.calc = potential.calculator()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equipot.allocator import keep_freed_memory
    from equipot.eqp import save
    from equipot.evaluation import evaluate, evaluate_each, evaluate_ensemble, hessian_of
    from equipot.metadata import Metadata
    from equipot.observables import Observables
    from equipot.potential import Potential
    from equipot.published import import_checkpoint, load
    from equipot.structure import Structure
    from equipot.term import Term

__version__ = "0.1.0"

# Imported when first used: `import equipot` itself stays light.
_HOMES = {
    "Metadata": "metadata",
    "Observables": "observables",
    "Potential": "potential",
    "Structure": "structure",
    "Term": "potential",
    "evaluate": "evaluation",
    "evaluate_each": "evaluation",
    "evaluate_ensemble": "evaluation",
    "hessian_of": "evaluation",
    "import_checkpoint": "published",
    "keep_freed_memory": "allocator",
    "load": "published",
    "save": "eqp",
}
_MODULES = (
    "config",
    "convert",
    "data",
    "finetune",
    "interfaces",
    "published",
    "md",
    "models",
    "nn",
    "training",
    "uncertainty",
    "units",
    "workflows",
)

__all__ = [
    "Metadata", "Observables", "Potential", "Structure", "Term", "evaluate", "evaluate_each", "evaluate_ensemble", "hessian_of",
    "import_checkpoint", "keep_freed_memory", "load", "save",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"equipot.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"equipot.{name}")
    raise AttributeError(f"module 'equipot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_MODULES])
