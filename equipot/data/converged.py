"""Find the frames of an output whose self-consistent field (SCF) did not converge.

ASE's readers return energies and forces of such frames without notice. Here the text of the output is searched for the
program's message of failure: block by block if the blocks of the format are frames, else by the energy beside the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from equipot.units import hartree, rydberg

NEVER = re.compile(
    r"SCF NOT CONVERGED|SCF IS UNCONVERGED|SCF run NOT converged|Wavefunction not fully converged|SCF_NOT_CONV"
    r"|Calculation failed to converge|was not enough scf cycles to converge|Self-consistency cycle not converged"
    r"|system has not reached the groundstate|Convergence failure -- run terminated|Convergence criterion not met"
    r"|convergence NOT achieved after|Did not converge!",
    re.IGNORECASE,
)
"""Messages of programs whose SCF did not converge."""
_NUMBER = r"(-?\d+\.\d+(?:[DEde][-+]?\d+)?)"
SCF_CONVERGED = "scf_converged"
"""Key in a frame's ``info`` whether the SCF converged, None for unknown; extended XYZ files may set the key themselves, in any
case."""
SAME = 1e-6
"""Largest relative difference between copies of one energy, since programs and ASE use different CODATA constants."""

ROUGH = 1000.0
"""Ratio of the accuracy to the threshold of an SCF beyond which it failed; thresholds are changed within a run, but by less."""


def states_of(info: Mapping[str, Any]) -> list[Any]:
    """Return the values of the key ``SCF_CONVERGED`` in any case."""
    return [value for key, value in info.items() if key.lower() == SCF_CONVERGED]


def says_no(state: Any) -> bool:
    """Whether a value of the key ``SCF_CONVERGED`` says that the SCF failed: F, False, .false., no or 0."""
    return state in (False, 0) or str(state).lower() in ("f", "false", ".false.", "no", "n")


def unconverged(path: Path, kind: str, frames: Sequence[Any]) -> Sequence[bool | None]:
    """Find for each frame of an output whether the text reports a failed SCF.

    Args:
        path: an output that ASE reads.
        kind: ASE's name of the format.
        frames: ``ase.Atoms`` of all frames of the output.

    Returns:
        (frames,) whether the SCF failed; None for every frame if one failed, but the text does not tell in which frame.
    """
    if kind not in OUTPUTS:
        return [False] * len(frames)
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rt") as stream:
        text = stream.read()
    found = OUTPUTS[kind](text, frames)
    return [None] * len(frames) if found is None else found


def _vasp_out(text: str, frames: Sequence[Any]) -> list[bool]:
    """Find failures in an OUTCAR: steps whose electronic loop reached NELM cycles without convergence to EDIFF."""
    blocks = text.split("FREE ENERGIE OF THE ION-ELECTRON SYSTEM")
    limit = re.search(r"\bNELM\s*=\s*(\d+)", text)

    def failed(block: str) -> bool:
        if "EDIFF was not reached" in block:
            return True
        cycles = len(re.findall(r"-+ Iteration\s+\d+\(\s*\d+\)", block))
        return limit is not None and cycles >= int(limit[1]) > 1 and "EDIFF is reached" not in block

    return _in_order([failed(block) for block in blocks], frames)


def _vasp_xml(text: str, frames: Sequence[Any]) -> list[bool]:
    """Find failures in a vasprun.xml: steps with NELM electronic cycles, the last of which changed the energy by > EDIFF."""
    limit, threshold = re.search(r'name="NELM">\s*(\d+)', text), re.search(r'name="EDIFF">\s*([-\d.Ee+]+)', text)
    if limit is None or threshold is None:
        return [False] * len(frames)

    def failed(block: str) -> bool:
        steps = re.findall(r"<scstep>.*?</scstep>", block, re.DOTALL)
        energies = [float(found[1]) for step in steps if (found := re.search(rf'name="e_fr_energy">\s*{_NUMBER}', step))]
        at_limit = len(energies) >= int(limit[1]) > 1
        return at_limit and abs(energies[-1] - energies[-2]) > float(threshold[1])

    return _in_order([failed(block) for block in re.split(r"<calculation[ >]", text)[1:]], frames)


def _orca(text: str, frames: Sequence[Any]) -> list[bool]:
    """Find failures in an output of ORCA, in the blocks into which ASE splits the text."""
    blocks = re.split(r".*(?:ORCA TERMINATED NORMALLY|ORCA GEOMETRY RELAXATION STEP).*", text)
    return _in_order([NEVER.search(block) is not None for block in blocks], frames)


def _gaussian(text: str, frames: Sequence[Any]) -> list[bool]:
    """Find failures in an output of Gaussian: a message between the coordinates of a geometry and the next ones."""
    blocks = re.split(r"(?:Input|Standard|Z-Matrix) orientation:", text)
    found = [
        (NEVER.search(block) is not None, _numbers(rf"(?:SCF Done:[^=]*=|Energy=)\s*{_NUMBER}", block)) for block in blocks
    ]
    return _by_energy([(e * hartree, failed) for failed, energies in found for e in energies], frames)


def _espresso(text: str, frames: Sequence[Any]) -> list[bool]:
    """Find failures in an output of Quantum ESPRESSO, in the text from the energy of a step to the first iteration of the next.

    With ``scf_must_converge=.false.`` a failed step says that it converged; it is known by its accuracy.
    """
    threshold = _numbers(r"convergence threshold\s*=\s*([-+.\dDEde]+)", text)

    def failed(block: str) -> bool:
        accuracy = _numbers(r"estimated scf accuracy\s*<\s*([-+.\dDEde]+)", block)
        poor = bool(threshold and accuracy) and accuracy[0] > ROUGH * threshold[0]
        return poor or "convergence NOT achieved" in block

    blocks = [re.split(r"\n\s*iteration #", block)[0] for block in re.split(r"\n(?=!\s+total energy)", text)[1:]]
    found = [(failed(block), _numbers(rf"!\s+total energy\s*=\s*{_NUMBER}", block)) for block in blocks]
    return _by_energy([(e * rydberg, failed) for failed, energies in found for e in energies], frames)


def _one_frame(text: str, frames: Sequence[Any]) -> list[bool] | None:
    """Find a failure in an output of one frame; None if one of several frames failed, since the text does not tell which."""
    if not NEVER.search(text):
        return [False] * len(frames)
    return [True] if len(frames) == 1 else None


OUTPUTS: dict[str, Callable[[str, Sequence[Any]], list[bool] | None]] = {
    "vasp-out": _vasp_out,
    "vasp-xml": _vasp_xml,
    "orca-output": _orca,
    "gaussian-out": _gaussian,
    "espresso-out": _espresso,
} | dict.fromkeys(
    ("abinit-out", "aims-output", "castep-castep", "gamess-us-out", "gpaw-out", "nwchem-out", "onetep-out"), _one_frame
)  # fmt: skip


def _in_order(failed: list[bool], frames: Sequence[Any]) -> list[bool]:
    """Assign flags of blocks to frames in order; blocks after the last frame are ignored, missing blocks count as converged."""
    return (failed + [False] * len(frames))[: len(frames)]


def _numbers(pattern: str, text: str) -> list[float]:
    return [float(found.replace("D", "e").replace("d", "e")) for found in re.findall(pattern, text)]


def _by_energy(known: Sequence[tuple[float, bool]], frames: Sequence[Any]) -> list[bool]:
    """Assign to each frame the flag of the nearest energy; ``known`` holds energies (eV) and whether their SCF failed."""
    flags = []
    for atoms in frames:
        energy = None if atoms.calc is None else atoms.calc.results.get("energy")
        if energy is None or not known:
            flags.append(False)
            continue
        nearest, failed = min(known, key=lambda one: abs(one[0] - energy))
        flags.append(failed and abs(nearest - energy) <= SAME * abs(energy))
    return flags
