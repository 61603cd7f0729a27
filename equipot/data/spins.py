"""What ``spin`` means in a file: unpaired electrons or the multiplicity, by the numbers of electrons of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from equipot.data.keys import Units, setting
from equipot.data.labels import Frame
from equipot.electrons import Meaning, Stated, impossible, stated


def with_meaning(units: Units, frames: Sequence[Frame], path: str) -> Units:
    """Return units with the meaning of ``spin`` in a file: the one of the config, or the only one that can be in all frames.

    A frame tells the two apart where it states its charge and does not repeat, since the number of all electrons says whether
    that of unpaired ones is even; so does a spin of zero, which is no multiplicity, and a multiplicity stated beside the spin.

    Raises:
        ValueError: for a model that sees the spin, no meaning that fits all frames, or two that do.
    """
    told = [(f, said) for f in frames if (said := stated(f.entries, f.source)).spin is not None]
    if units.spin is not None or not any(said.spin for _, said in told):
        return units
    meanings: tuple[Meaning, Meaning] = ("unpaired", "multiplicity")
    wrong = {meaning: next((f for f, said in told if not fits(f, said, meaning)), None) for meaning in meanings}
    fitting = [meaning for meaning in meanings if wrong[meaning] is None]
    if len(fitting) == 1:
        return replace(units, spin=fitting[0])
    if not units.spin_matters:
        return replace(units, spin="unpaired")
    option = setting("units.spin")
    if fitting:
        f, said = next((f, said) for f, said in told if said.spin)
        why = "the frames repeat or do not state their charge, so that the number of electrons does not tell"
        raise ValueError(
            f"{f.source}: spin is {said.spin:g}: unpaired electrons or a multiplicity ({why}); set {option} to unpaired or "
            "multiplicity"
        )
    said_of = {f.source: said for f, said in told}
    first, second = (wrong[meaning] for meaning in meanings)
    assert first is not None and second is not None
    shown = lambda f: f"{f.source} (charge {said_of[f.source].charge or 0:+g}, spin {said_of[f.source].spin:g})"
    raise ValueError(
        f"{path}: as unpaired electrons the spin cannot be in {shown(first)}, as a multiplicity not in {shown(second)}; "
        f"correct them, or set {option} to see all that are wrong"
    )


def fits(f: Frame, said: Stated, meaning: Meaning) -> bool:
    """Whether a frame may have the stated spin in one meaning."""
    assert said.spin is not None
    unpaired = said.spin - (meaning == "multiplicity")
    if said.multiplicity is not None and unpaired != said.multiplicity - 1:
        return False
    # Without a charge the number of electrons is not known: an ion may have lost its charge on the way into the file.
    open_or_charged = bool(f.atoms.pbc.any()) or said.charge is None
    return not impossible(f.atoms.numbers, open_or_charged, said.charge or 0.0, unpaired)
