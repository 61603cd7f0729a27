"""Random MACE models of every kind made with mace-torch, and what mace-torch says of small structures with them.

    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python benchmarks/parity/mace_models.py FOLDER [NAME ...]

runs where mace-torch is installed (torch 2.13.0, mace-torch 0.3.16, e3nn 0.4.4) and imports nothing of equipot. For each
model it writes ``NAME.model`` and, with energies (eV), forces (eV/Å) and stresses (eV/Å^3) in double precision,
``NAME.json``. Every parameter is disturbed by uniform random numbers, so that nothing stands at its default. Then

    EQUIPOT_MACE_MODELS=FOLDER pytest tests/convert/test_mace_torch.py -k those_of_mace_torch

compares equipot with all of them; without the variable, with the few that are kept among the tests.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

# A file beside this has the name of the package.
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]

import ase  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from e3nn import o3  # noqa: E402
from e3nn.nn import Gate  # noqa: E402
from e3nn.util.codegen import CodeGenMixin  # noqa: E402
from mace.calculators import MACECalculator  # noqa: E402
from mace.modules import (  # noqa: E402
    MACE,
    GatedEquivariantBlock,
    ScaleShiftMACE,
    blocks,
    interaction_classes,
    readout_classes,
)
from mace.modules.radial import ChebychevBasis  # noqa: E402
from torch.fx import GraphModule  # noqa: E402

CUTOFF = 4.0
ELEMENTS = (1, 6, 8, 29)
BLOCK = "RealAgnostic{}InteractionBlock"
PACKAGES = ("torch", "mace-torch", "e3nn", "ase", "numpy")

SMALL = {
    "max_ell": 1, "hidden_irreps": "3x0e+3x1o", "radial_MLP": [4], "MLP_irreps": "3x0e", "num_bessel": 4, "elements": (6, 8),
}  # fmt: skip
"""Little enough to be kept as a file among the tests."""

MODELS: dict[str, dict[str, Any]] = {
    "plain": {"first": "", "others": "Residual"},
    "residual": {"first": "Residual", "others": "Residual", "scale": 0.3, "shift": -0.2},
    "all-plain": {"first": "", "others": "", "correlation": 2},
    "residual-then-plain": {"first": "Residual", "others": "", "correlation": 2},
    "density": {
        "first": "Density", "others": "DensityResidual", "distance_transform": "Agnesi", "pair_repulsion": True, "disturb": 0.5,
    },
    "density-residual": {"first": "DensityResidual", "others": "DensityResidual", "distance_transform": "Soft"},
    "all-density": {"first": "Density", "others": "Density", "correlation": 1, "num_polynomial_cutoff": 6},
    "nonlinear": {"first": "ResidualNonLinear", "others": "ResidualNonLinear", "apply_cutoff": False},
    "nonlinear-3-layers": {
        "first": "ResidualNonLinear", "others": "ResidualNonLinear", "apply_cutoff": False, "num_interactions": 3,
        "correlation": 2, "use_agnostic_product": True, "distance_transform": "Agnesi", "pair_repulsion": True,
        "readout": "NonLinearBiasReadoutBlock", "heads": ["a", "b"],
    },
    "nonlinear-e3nn-gate": {
        "first": "ResidualNonLinear", "others": "ResidualNonLinear", "apply_cutoff": False, "correlation": 2, "e3nn_gate": True,
    },
    "attention": {
        "first": "AttResidual", "others": "AttResidual", "correlation": 2, "apply_cutoff": False, "disturb": 0.4,
    },
    "zbl": {"first": "", "others": "Residual", "pair_repulsion": True, "scale": 0.7, "shift": 0.4},
    "zbl-mace": {"cls": MACE, "first": "", "others": "Residual", "pair_repulsion": True},
    "mace": {"cls": MACE, "first": "Residual", "others": "Residual", "radial_MLP": [12, 10, 6]},
    "agnesi": {"first": "", "others": "Residual", "distance_transform": "Agnesi", "radial_MLP": [8, 8, 8]},
    "soft": {"first": "", "others": "Residual", "distance_transform": "Soft", "correlation": 2},
    "two-heads": {"first": "", "others": "Residual", "heads": ["pbe", "r2scan"], "correlation": 2},
    "three-heads-mace": {"cls": MACE, "first": "", "others": "DensityResidual", "heads": ["x", "y", "z"], "correlation": 2},
    "correlation-1": {"first": "", "others": "Residual", "correlation": 1},
    "correlation-2": {"first": "", "others": "Residual", "correlation": 2},
    "correlation-per-layer": {"first": "", "others": "Residual", "correlation": [3, 1]},
    "correlation-4": {"first": "", "others": "Residual", "correlation": 4, "max_ell": 1},
    "l0": {"first": "", "others": "Residual", "hidden_irreps": "8x0e"},
    "l2": {"first": "Residual", "others": "Residual", "hidden_irreps": "4x0e+4x1o+4x2e", "correlation": 2},
    "l3-harmonics": {"first": "", "others": "Residual", "max_ell": 3, "hidden_irreps": "4x0e+4x1o"},
    "one-layer": {"first": "Residual", "others": "Residual", "num_interactions": 1},
    "three-layers": {"first": "Density", "others": "Residual", "num_interactions": 3, "correlation": 2},
    "late-cutoff": {"first": "Density", "others": "Residual", "apply_cutoff": False, "correlation": 2},
    "edge-irreps": {"first": "", "others": "Residual", "edge_irreps": "5x0e+5x1o", "correlation": 2},
    "last-readout-only": {"first": "", "others": "Residual", "use_last_readout_only": True, "correlation": 2},
    "keep-last": {"first": "", "others": "Residual", "keep_last_layer_irreps": True, "correlation": 2},
    "gaussian": {"first": "", "others": "Residual", "radial_type": "gaussian", "correlation": 2},
    "chebyshev": {"first": "", "others": "Residual", "radial_type": "chebyshev", "distance_transform": "Agnesi"},
    "legacy": {"first": "Residual", "others": "Residual", "correlation": 2, "legacy": True},
    "no-gate": {"first": "", "others": "Residual", "gate": None, "correlation": 2},
    "float32": {"first": "", "others": "Residual", "dtype": torch.float32, "pair_repulsion": True},
    "float32-density": {
        "first": "Density", "others": "DensityResidual", "dtype": torch.float32, "distance_transform": "Agnesi",
        "pair_repulsion": True, "heads": ["a", "b"], "r_max": 3.7, "disturb": 0.4,
    },
    "mace-residual": SMALL | {"first": "", "others": "Residual", "max_ell": 2, "correlation": 2, "distance_transform": "Soft"},
    "mace-density": SMALL | {
        "first": "Density", "others": "DensityResidual", "distance_transform": "Agnesi", "pair_repulsion": True,
        "heads": ["a", "b"], "dtype": torch.float32,
    },
    "mace-nonlinear": SMALL | {
        "first": "ResidualNonLinear", "others": "ResidualNonLinear", "apply_cutoff": False, "correlation": 2,
        "use_agnostic_product": True, "readout": "NonLinearBiasReadoutBlock",
    },
    "mace-l2": SMALL | {
        "first": "Density", "others": "Residual", "num_interactions": 3, "correlation": [2, 1, 2], "max_ell": 2,
        "hidden_irreps": "2x0e+2x1o+2x2e", "edge_irreps": "3x0e+3x1o+3x2e", "apply_cutoff": False,
        "keep_last_layer_irreps": True, "use_last_readout_only": True,
    },
    "mace-legacy": SMALL | {"first": "", "others": "Residual", "legacy": True, "gate": None},
    "mace-mace": SMALL | {"cls": MACE, "first": "Residual", "others": "", "radial_type": "gaussian", "hidden_irreps": "3x0e"},
}  # fmt: skip


LEGACY = (
    "heads", "apply_cutoff", "edge_irreps", "use_reduced_cg", "use_agnostic_product", "use_so3", "use_last_readout_only",
    "use_edge_irreps_first", "lammps_mliap", "num_heads", "cueq_config", "oeq_config",
)  # fmt: skip
"""Attributes that files of older versions lack."""


def structures(elements: tuple[int, ...]) -> dict[str, ase.Atoms]:
    """A molecule, a triclinic crystal smaller than the cutoff, one atom in an fcc cell, a slab, and a dimer that ZBL repels."""
    rng = np.random.default_rng(0)
    grid = np.array([[0.1, 0.05, 0.0], [0.55, 0.5, 0.1], [0.45, 0.1, 0.6]])
    triclinic = np.array([[3.4, 0.3, 0.0], [0.9, 3.6, 0.2], [-0.6, 0.7, 3.9]])
    slab = np.diag([3.9, 4.2, 14.0])
    chain = np.array([[1.17, -0.4, 0.02], [0, 0.55, -0.03], [-1.19, -0.21, 0.04], [-1.94, 0.38, 0.9], [2.1, 0.13, 0.8]])
    pick = lambda n: rng.choice(elements, n)
    return {
        "molecule": ase.Atoms(pick(5), chain + rng.normal(0, 0.05, (5, 3))),
        "triclinic": ase.Atoms(pick(3), grid @ triclinic, cell=triclinic, pbc=True),
        "fcc": ase.Atoms([elements[-1]], [[0.1, 0.2, 0.3]], cell=1.75 * (np.ones((3, 3)) - np.eye(3)), pbc=True),
        "slab": ase.Atoms(pick(3), (grid * [1, 1, 0.25]) @ slab, cell=slab, pbc=(True, True, False)),
        "dimer": ase.Atoms(elements[:2], [[0, 0, 0], [0.3, 0.2, 0.5]]),
    }


def make(name: str, seed: int) -> torch.nn.Module:
    """A model with disturbed parameters, in the precision that its table entry asks for."""
    entry = {
        "cls": ScaleShiftMACE, "elements": ELEMENTS, "dtype": torch.float64,
        "hidden_irreps": "8x0e+8x1o", "MLP_irreps": "6x0e", "max_ell": 2, "num_interactions": 2,
        "num_bessel": 6, "num_polynomial_cutoff": 5, "correlation": 3, "radial_MLP": [8, 8],
        "gate": torch.nn.functional.silu, "heads": None, "scale": 2.5, "shift": 0.1, "r_max": CUTOFF, **MODELS[name],
    }  # fmt: skip
    torch.set_default_dtype(entry.pop("dtype"))
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    cls, elements, scale, shift = (entry.pop(key) for key in ("cls", "elements", "scale", "shift"))
    disturb = entry.pop("disturb", 1.0)
    legacy, e3nn_gate = entry.pop("legacy", False), entry.pop("e3nn_gate", False)
    blocks.GatedEquivariantBlock = (lambda layout, **kwargs: Gate(**kwargs)) if e3nn_gate else GatedEquivariantBlock
    heads = entry["heads"]
    more = {}
    if cls is ScaleShiftMACE:
        spread = rng.uniform(0.8, 1.2, len(heads)) if heads else 1.0
        more = {"atomic_inter_scale": scale * spread, "atomic_inter_shift": shift * spread}
    model = cls(
        interaction_cls_first=interaction_classes[BLOCK.format(entry.pop("first"))],
        interaction_cls=interaction_classes[BLOCK.format(entry.pop("others"))],
        readout_cls=readout_classes[entry.pop("readout", "NonLinearReadoutBlock")],
        hidden_irreps=o3.Irreps(entry.pop("hidden_irreps")), MLP_irreps=o3.Irreps(entry.pop("MLP_irreps")),
        edge_irreps=o3.Irreps(entry.pop("edge_irreps")) if "edge_irreps" in entry else None,
        num_elements=len(elements), atomic_numbers=list(elements), avg_num_neighbors=3.3,
        atomic_energies=rng.normal(-3, 2, (len(heads), len(elements)) if heads else len(elements)), use_reduced_cg=False,
        **entry, **more,
    )  # fmt: skip
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += disturb * (2 * torch.rand_like(parameter) - 1)
    for module in model.modules() if legacy else ():
        for name in LEGACY:
            module.__dict__.pop(name, None)
    return model


def save(model: torch.nn.Module, path: Path, bare: bool) -> None:
    """Writes a model; ``bare`` leaves out the programs that e3nn stores with it, which only torch needs."""
    state, reduce = CodeGenMixin.__getstate__, GraphModule.__reduce__
    if bare:
        programs = lambda module: getattr(module, "__codegen__", ())
        kept = lambda module: {name: child for name, child in module._modules.items() if name not in programs(module)}
        CodeGenMixin.__getstate__ = lambda self: {**self.__dict__, "_modules": kept(self), "__codegen__": {}}
        GraphModule.__reduce__ = lambda self: (torch.nn.Module, ())
    try:
        torch.save(model, path)
    finally:
        CodeGenMixin.__getstate__, GraphModule.__reduce__ = state, reduce


def predict(model: torch.nn.Module, systems: dict[str, ase.Atoms], head: str | None) -> dict[str, dict[str, Any]]:
    """What mace-torch says of each structure, in double precision."""
    # Products of integers with numbers of Python take this one, whatever the model's.
    torch.set_default_dtype(torch.float64)
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64", head=head)
    out = {}
    for name, system in systems.items():
        atoms = system.copy()
        atoms.calc = calculator
        out[name] = {"energy": float(atoms.get_potential_energy())}
        if isinstance(model.radial_embedding.bessel_fn, ChebychevBasis):
            # Torch does not differentiate its Chebyshev polynomials: these forces are not the gradient of the energy.
            continue
        out[name]["forces"] = atoms.get_forces().tolist()
        if atoms.pbc.all():
            out[name]["stress"] = atoms.get_stress(voigt=False).tolist()
    return out


def describe(atoms: ase.Atoms) -> dict[str, Any]:
    return {
        "numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist(), "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        seed = list(MODELS).index(name)
        path = args.folder / f"{name}.model"
        model = make(name, seed)
        save(model, path, name.startswith("mace-"))
        systems = structures(MODELS[name].get("elements", ELEMENTS))
        golden = {
            "made_with": {package: importlib.metadata.version(package) for package in PACKAGES} | {"seed": seed},
            "structures": {key: describe(atoms) for key, atoms in systems.items()},
            "heads": {head or "": predict(model, systems, head) for head in MODELS[name].get("heads", [None])},
        }
        path.with_suffix(".json").write_text(json.dumps(golden))
        print(f"{name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
