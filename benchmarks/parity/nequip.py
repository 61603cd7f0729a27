"""Energies, forces and stresses of NequIP models by nequip, in double precision; run where that is installed:

    python benchmarks/parity/nequip.py CHECKPOINT OUT.json [--only NAME ...]

CHECKPOINT is a ``.ckpt`` of nequip-train or a package, ``.nequip.zip``. Structures with elements that the model does not know
are left out. It imports nothing of equipot.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This file has the name of the package that it measures.
here = str(Path(__file__).parent)
sys.path = [*(path for path in sys.path if path != here), here]

import structures  # noqa: E402
import torch  # noqa: E402
from ase.data import atomic_numbers  # noqa: E402
from nequip.data import AtomicDataDict, from_dict  # noqa: E402
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform  # noqa: E402
from nequip.model.saved_models.load_utils import load_saved_model  # noqa: E402
from nequip.nn.graph_model import GraphModel  # noqa: E402
from nequip.utils.global_state import set_global_state  # noqa: E402


def load(path: Path) -> GraphModel:
    """The model that nequip computes with, in double precision: one of single precision is built again from its settings."""
    set_global_state()
    model = load_saved_model(path).eval()
    if model.model_dtype == torch.float64:
        return model
    from hydra.utils import get_method

    config = dict(torch.load(path, map_location="cpu", weights_only=False)["hyper_parameters"]["model"])
    config["model_dtype"] = "float64"
    double = get_method(config.pop("_target_"))(**config)
    # Coupling coefficients stay those of double precision.
    stored = {name: value.double() for name, value in model.state_dict().items() if "_w3j_" not in name}
    missing, unknown = double.load_state_dict(stored, strict=False)
    assert not unknown and all("_w3j_" in name for name in missing), (missing, unknown)
    return double.eval()


def evaluate(model: GraphModel, record: dict) -> dict:
    """The record with what the model says."""
    atoms = structures.as_atoms(record)
    data = from_dict(
        {
            AtomicDataDict.POSITIONS_KEY: torch.tensor(atoms.positions),
            AtomicDataDict.ATOMIC_NUMBERS_KEY: torch.tensor(atoms.numbers),
            AtomicDataDict.CELL_KEY: torch.tensor(atoms.cell[:]),
            AtomicDataDict.PBC_KEY: torch.tensor(atoms.pbc),
        }
    )
    mapper = ChemicalSpeciesToAtomTypeMapper(list(model.type_names))
    out = model(NeighborListTransform(float(model.metadata["r_max"]))(mapper(data)))
    stress = out[AtomicDataDict.STRESS_KEY].detach().numpy().reshape(3, 3).tolist() if atoms.pbc.all() else None
    return {
        **record,
        "energy": out[AtomicDataDict.TOTAL_ENERGY_KEY].item(),
        "forces": out[AtomicDataDict.FORCE_KEY].detach().numpy().tolist(),
        "stress": stress,
    }


def write(checkpoint: Path, out: Path, only: list[str] | None) -> None:
    """What nequip says of the structures, or those of them that are named, in ``out``."""
    model = load(checkpoint)
    known = {atomic_numbers[name] for name in model.type_names}
    made = {name: atoms for name, atoms in structures.structures().items() if set(atoms.numbers.tolist()) <= known}
    records = [evaluate(model, structures.as_record(name, made[name])) for name in only or made]
    structures.write(out, structures.provenance(__file__, checkpoint, ("nequip", "torch", "e3nn")), records)


def main() -> None:
    args = structures.arguments()
    write(args.checkpoint, args.out, args.only)


if __name__ == "__main__":
    main()
