"""``python -m benchmarks.parity REFERENCE.json CHECKPOINT [--head NAME]``: a converted potential against values of its source.

``--certificate OUT.json`` also writes the few structures that equipot carries for the certificate of a published checkpoint.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import equipot
from equipot.convert import convert
from equipot.convert.certificate import certify, read_references

CERTIFICATE = ("ethanol", "silicon", "copper, one atom", "sodium chloride", "strontium titanate", "uranium dioxide")
"""A molecule, a covalent, a metallic, an ionic solid, an oxide and an actinide."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--head")
    parser.add_argument("--json", type=Path, help="write the deviations here")
    parser.add_argument("--certificate", type=Path)
    args = parser.parse_args()
    references = read_references(args.reference)
    potential = convert(args.checkpoint, args.head)
    found = {dtype: certify(potential, references, dtype) for dtype in ("float64", "float32")}
    print(f"{args.checkpoint.name}{f' ({args.head})' if args.head else ''}")
    for certificate in found.values():
        print(f"    {certificate}; forces deviate most in {certificate.worst}")
    if args.certificate:
        chosen = [record for record in references["structures"] if record["name"] in CERTIFICATE]
        args.certificate.write_text(json.dumps({**references, "structures": chosen}) + "\n", encoding="utf-8")
    if args.json:
        rows = {dtype: {**vars(certificate), "passed": certificate.passed} for dtype, certificate in found.items()}
        here = {"equipot": equipot.__version__, "machine": platform.machine(), "python": platform.python_version()}
        text = json.dumps({"reference": references["provenance"], **here, **rows}, indent=1)
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
