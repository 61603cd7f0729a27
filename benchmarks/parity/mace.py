"""Energies, forces and stresses of a MACE model by mace-torch, in double precision; run where that is installed:

    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python benchmarks/parity/mace.py NAME.model OUT.json [--head NAME] [--only NAME ...]

Structures with elements that the model does not know are left out. It imports nothing of equipot. The result is what
`equipot convert NAME.model -o NAME.eqp --reference OUT.json` compares with.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This file has the name of a package that mace-torch brings.
here = str(Path(__file__).parent)
sys.path = [*(path for path in sys.path if path != here), here]

import structures  # noqa: E402
from mace.calculators import MACECalculator  # noqa: E402


def evaluate(calculator: MACECalculator, record: dict) -> dict:
    """The record with what the model says."""
    atoms = structures.as_atoms(record)
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False).tolist() if atoms.pbc.all() else None
    return {**record, "energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist(), "stress": stress}


def main() -> None:
    args = structures.arguments(head=True)
    options = {"head": args.head} if args.head else {}
    calculator = MACECalculator(str(args.checkpoint), device="cpu", default_dtype="float64", **options)
    known = {int(z) for z in calculator.models[0].atomic_numbers}
    made = {name: atoms for name, atoms in structures.structures().items() if set(atoms.numbers.tolist()) <= known}
    chosen = {name: made[name] for name in args.only or made}
    records = [evaluate(calculator, structures.as_record(name, atoms)) for name, atoms in chosen.items()]
    provenance = structures.provenance(__file__, args.checkpoint, ("mace-torch", "torch", "e3nn"), head=args.head)
    structures.write(args.out, provenance, records)


if __name__ == "__main__":
    main()
