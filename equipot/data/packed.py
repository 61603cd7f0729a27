"""Labels of many structures as a few arrays, for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from equipot.quantities import TABLE, Quantity, ordered
from equipot.structure import Structure


def pack(structures: Sequence[Structure]) -> dict[str, np.ndarray]:
    """Join labels to arrays by quantity, [frames, *shape] or [atoms of all frames, *shape], NaN for missing labels.

    Labels of pairs (Hessians) are left out: no method or potential whose results are kept in this form gives any.
    """
    rows = [row for row in ordered(row for s in structures for row in s.labels) if row.per != "pair"]
    held = lambda row: [s.labels.get(row, np.full(row.shape_of(len(s)), np.nan)) for s in structures]
    return {row.name: np.concatenate(held(row)) if row.per == "atom" else np.array(held(row)) for row in rows}


def unpack(
    structures: Sequence[Structure], labels: Mapping[str, np.ndarray], rows: Sequence[Quantity] = TABLE
) -> list[Structure]:
    """Give structures the labels of ``pack``, of the quantities ``rows``."""
    rows = [row for row in rows if row.name in labels]
    ends = np.cumsum([len(s) for s in structures])
    out = []
    for k, s in enumerate(structures):
        own: dict[str, slice | int] = {"atom": slice(ends[k] - len(s), ends[k]), "graph": k}
        found = {row: labels[row.name][own[row.per]] for row in rows}
        out.append(s.replace(labels={row: value for row, value in found.items() if not np.isnan(value).any()}))
    return out
