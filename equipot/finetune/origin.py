"""The base potential of a fine-tuning, and the potential from which each head starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from equipot import eqp, published
from equipot.finetune.electrons import with_electrons
from equipot.metadata import Method
from equipot.physics.guard import Wall, guard, is_guarded
from equipot.physics.sum import refuse_second_dispersion
from equipot.potential import Potential
from equipot.term import walk
from equipot.training.config import TrainConfig


class Origin(NamedTuple):
    """The base of a fine-tuning."""

    base: Potential
    """With the electrons and the wall of the config, where it adds them."""
    sha256: str
    """SHA-256 of the term, the metadata and the variables of the base as its file has them."""
    subtracted: Method | None
    """Method that the base is a correction to: it is subtracted from the data, and ``base`` is the correction alone."""
    heads: Mapping[str, Potential]
    """Potential from which each head of the result starts, by name; the name of a single head is empty. Heads of the base come
    first, then new ones in the order of ``data.heads``."""

    def isolated_atom_energies(self, head: str) -> dict[int, float]:
        """Return E0 of the potential from which a head starts, eV by Z."""
        return dict(self.heads[head].metadata.atomic_energies)


def load_origin(config: TrainConfig) -> Origin:
    """Load the potential that ``model.from`` names.

    Raises:
        ValueError: heads of config and base that do not fit, a base that electrons cannot be added to or that cannot be
            guarded, or a base with dispersion and data of a level of theory that has it.
        FileNotFoundError: no such potential.
    """
    base = published.load(config.model.from_, config.dtype)
    if any(term.copies for term in walk(base.term)):
        raise ValueError(
            f"{config.model.from_} is a committee, and training the mean of its members would leave them no spread; tune each "
            "member, and join the results by `equipot uncertainty A --committee B C`"
        )
    sha256, electrons = eqp.sha256_of(base), config.model.electrons
    method, base = base.metadata.subtracted, base.correction
    if electrons is not None:
        base = with_electrons(base, electrons, config.seed)
    if isinstance(config.guard, Wall) and not is_guarded(base.term):
        base = guard(base, config.guard)
    for data in config.data.by_head.values() if base.term.has_dispersion else ():
        refuse_second_dispersion(data.level_of_theory, method)
    return Origin(base, sha256, method, heads_of(config, base))


def heads_of(config: TrainConfig, base: Potential) -> dict[str, Potential]:
    """Choose the potential from which each head starts, see ``Origin.heads``.

    Raises:
        ValueError: heads of config and base that do not fit.
    """
    model, wanted = config.model, tuple(config.data.heads)
    if not wanted:
        if base.heads:
            choice = f"{model.from_}@{base.heads[0]}"
            raise ValueError(
                f"{model.from_} has the heads {', '.join(base.heads)}: begin with one of them, model.from: {choice}, or give "
                "data.heads with data of each level of theory"
            )
        return {"": base}
    known = {name: base.head(name) for name in base.heads} or ({model.head: base} if model.head else {})
    if base.heads and model.head is not None and model.head not in known:
        raise ValueError(f"model.head: {model.from_} has no head {model.head!r}; its heads are {', '.join(known)}")
    new = [name for name in wanted if name not in known]
    if base.heads and new and model.head is None:
        raise ValueError(f"data.heads: {new[0]} is new; set model.head to what it begins as, one of {', '.join(known)}")
    return known | {name: base if model.head is None else known.get(model.head, base) for name in new}
