"""Small SevenNet models with random weights and what sevenn says of some structures; run where sevenn is installed:

    python benchmarks/parity/sevennet_models.py FOLDER

They cover what the published checkpoints do not use: parity, self-connections for every species, biases, single scales,
untrained frequencies. equipot's tests read them from tests/convert/data.
"""

from __future__ import annotations

import copy
import importlib.metadata
import sys
from pathlib import Path

import sevenn._const as const
import sevennet
import structures
import torch
from sevenn.calculator import SevenNetCalculator
from sevenn.model_build import build_E3_equivariant_model

ELEMENTS = ("H", "C", "O", "Na", "Si", "Cl")
CHOSEN = ("ethanol", "silicon", "sodium chloride", "chloromethane")
SMALL = {
    "cutoff": 4.0,
    "channel": 3,
    "weight_nn_hidden_neurons": [5, 6],
    "conv_denominator": [1.4, 1.6, 1.5],
    "num_convolution_layer": 3,
    "chemical_species": list(ELEMENTS),
    "_number_of_species": len(ELEMENTS),
    "version": importlib.metadata.version("sevenn"),
    "_model_type": "E3_equivariant_model",
}
MODELS = {
    "parity": {
        "lmax": 2, "is_parity": True, "self_connection_type": "nequip", "use_bias_in_linear": True,
        # Odd scalars first appear after the third layer, and reach the energy after the sixth.
        "num_convolution_layer": 6, "conv_denominator": [1.4, 1.6, 1.5, 1.3, 1.2, 1.1], "channel": 2,
        "shift": [-1.0, -2.0, -3.0, 1.5, -5.0, 0.5], "scale": 1.7,
    },
    "rotations": {
        "lmax": 2, "is_parity": False, "self_connection_type": "linear", "_normalize_sph": False,
        "irreps_manual": ["4x0e", "4x0e+3x1e+2x2e", "4x0e+3x1e+2x2e", "4x0e"],
        "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 3.1}, "shift": 0.3,
        "scale": [0.5, 0.6, 0.7, 0.8, 0.9, 1.1],
    },
    "modalities": {
        "lmax": 1, "is_parity": True, "self_connection_type": "linear", "use_modality": True, "_number_of_modalities": 3,
        "_modal_map": {"PBE": 0, "R2SCAN": 2, "HSE": 1}, "use_modal_self_inter_intro": True, "use_modal_self_inter_outro": True,
        "use_modal_output_block": True, "use_modal_wise_shift": True, "use_modal_wise_scale": False, "use_bias_in_linear": True,
        "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 5, "trainable_coeff": False},
        "shift": [[1.0] * 6, [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [3.0] * 6], "scale": 0.9,
    },
}  # fmt: skip
HEADS = {"modalities": ("PBE", "R2SCAN")}


def make(name: str, folder: Path) -> None:
    """A checkpoint, and reference values for each of its heads."""
    config = copy.deepcopy(const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG) | SMALL | MODELS[name]
    config["_type_map"] = {structures.ase.data.atomic_numbers[symbol]: k for k, symbol in enumerate(ELEMENTS)}
    torch.manual_seed(len(name))
    model = build_E3_equivariant_model(copy.deepcopy(config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    path = folder / f"sevennet-{name}.pth"
    torch.save({"model_state_dict": model.state_dict(), "config": config, "epoch": 0}, path)
    made = structures.structures()
    for head in HEADS.get(name, (None,)):
        calculator = SevenNetCalculator(str(path), modal=head, device="cpu")
        sevennet.in_double(calculator)
        records = [sevennet.evaluate(calculator, structures.as_record(key, made[key])) for key in CHOSEN]
        torch.set_default_dtype(torch.float32)
        target = folder / (f"sevennet-{name}-{head}.json" if head else f"sevennet-{name}.json")
        structures.write(target, structures.provenance(sevennet.__file__, path, sevennet.PACKAGES, head=head), records)


if __name__ == "__main__":
    for each in MODELS:
        make(each, Path(sys.argv[1]))
