"""Energies, forces and stresses of SevenNet checkpoints by sevenn, in double precision; run where that is installed:

    python benchmarks/parity/sevennet.py CHECKPOINT OUT.json [--head PBE] [--only NAME ...]

It imports nothing of equipot.
"""

from __future__ import annotations

import sevenn._keys as KEY
import structures
import torch
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.train.dataload import unlabeled_atoms_to_graph

PACKAGES = ("sevenn", "torch", "e3nn")


def evaluate(calculator: SevenNetCalculator, record: dict) -> dict:
    """The record with what the model says; sevenn's own calculator would round the edge vectors to single precision."""
    atoms = structures.as_atoms(record)
    numbers = unlabeled_atoms_to_graph(atoms, calculator.cutoff, with_shift=True)
    data = AtomGraphData.from_numpy_dict(dict(numbers))
    data[KEY.EDGE_VEC] = torch.tensor(numbers[KEY.EDGE_VEC], dtype=torch.float64)
    data[KEY.CELL_VOLUME] = torch.tensor(numbers[KEY.CELL_VOLUME], dtype=torch.float64)
    if calculator.modal:
        data[KEY.DATA_MODALITY] = calculator.modal
    out = calculator.model(data)
    xx, yy, zz, xy, yz, zx = (-out[KEY.PRED_STRESS].detach().numpy()).reshape(6).tolist()
    return {
        **record,
        "energy": out[KEY.PRED_TOTAL_ENERGY].item(),
        "forces": out[KEY.PRED_FORCE].detach().numpy().tolist(),
        "stress": [[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]] if atoms.pbc.all() else None,
    }


def in_double(calculator: SevenNetCalculator) -> None:
    """Everything in double precision; sevenn's one-hot vectors are always single and are cast on their way."""

    def cast(module: torch.nn.Module, inputs: tuple, data: dict) -> None:
        for key in (KEY.NODE_FEATURE, KEY.NODE_ATTR, KEY.MODAL_ATTR):
            if key in data and data[key].is_floating_point():
                data[key] = data[key].double()

    torch.set_default_dtype(torch.float64)
    calculator.model.double().set_is_batch_data(False)
    for name, module in calculator.model.named_children():
        if "onehot_idx" in name or "one_hot" in name:
            module.register_forward_hook(cast)


def main() -> None:
    args = structures.arguments(head=True)
    calculator = SevenNetCalculator(str(args.checkpoint), modal=args.head, device="cpu")
    in_double(calculator)
    made = structures.structures()
    chosen = {name: made[name] for name in args.only or made}
    records = [evaluate(calculator, structures.as_record(name, atoms)) for name, atoms in chosen.items()]
    provenance = structures.provenance(__file__, args.checkpoint, PACKAGES, head=args.head)
    structures.write(args.out, provenance, records)


if __name__ == "__main__":
    main()
