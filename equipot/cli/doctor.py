"""``equipot doctor MODEL [STRUCTURE]``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from equipot.cli.runtime import prepare


def execute(args: argparse.Namespace) -> int:
    """Examine a potential, print the table and write the report; return 1 if a check found a defect, else 0."""
    from equipot import published
    from equipot.data.read import read_one
    from equipot.files import check_writable, write_atomically
    from equipot.pages import try_to_write_page
    from equipot.workflows.doctor import examine
    from equipot.workflows.doctor.page import report_blocks
    from equipot.workflows.doctor.picture import draw_report

    out = args.out or Path("runs") / ("doctor-" + Path(args.model).name.replace(".eqp", ""))
    for path in filter(None, (out / "doctor.json", args.json)):
        check_writable(path)
    prepare("float64")
    elements = None if args.elements is None else numbers_of(args.elements)
    potential = published.load(args.model)
    # A correction to a method is refused here, in one line, rather than by each examination.
    potential.check(())
    structure = None if args.structure is None else read_one(args.structure, default=-1)
    report = examine(potential, structure, elements=elements, dtype=args.dtype)
    report = dataclasses.replace(report, model=f"{args.model} ({report.model})")
    for path in filter(None, (out / "doctor.json", args.json)):
        write_atomically(path, report.to_json().encode())
    write_atomically(out / "doctor.md", report.markdown().encode())
    draw_report(report, out / "doctor.png")
    try_to_write_page(out / "doctor.html", f"{report.model}: {report.verdict}", lambda: report_blocks(report), print)
    print(f"\n{report.table()}\n\n{report.summary} ({report.seconds:.0f} s); everything is in {out}")
    return int(report.verdict == "broken")


def numbers_of(text: str) -> list[int]:
    """Convert symbols such as ``Si,O`` to atomic numbers.

    Raises:
        ValueError: an unknown symbol.
    """
    from ase.data import atomic_numbers

    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if not atomic_numbers.get(name)]
    if wrong:
        raise ValueError(f"--elements {text}: {wrong[0]!r} is no element; give symbols with commas between, such as Si,O")
    return [atomic_numbers[name] for name in names]
