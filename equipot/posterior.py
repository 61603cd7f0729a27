"""The uncertainty that a potential carries: the interface between ``Potential`` and the methods of ``equipot.uncertainty``."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equipot.graph import Graph, sum_graphs
from equipot.quantities import BY_NAME, Quantity
from equipot.structure import Structure, symbols
from equipot.term import Atomic, Term, walk

LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
"""Coverages of the intervals that are kept by calibration."""


class Change(NamedTuple):
    """How much forces and stress change."""

    forces: Float[Array, "atoms 3"]
    """eV/Å."""
    stress: Float[Array, "graphs 3 3"] | None
    """eV/Å^3; None where it is not wanted."""


class Sensitivity(NamedTuple):
    """What a term says of a batch, and how forces and stress depend on the weights of its last layer."""

    graph: Graph
    answer: Atomic
    change: Callable[[Float[Array, " features"]], Change]
    """Forces and stress of an energy sum_i f_i . w, for a change w of the weights: one backward pass."""
    members: Change | None = None
    """Forces and stress of each member of a committee, along a leading axis, where deviations of these are wanted."""

    @property
    def features(self) -> Float[Array, "atoms features"]:
        """Features of the atoms, zero for padding."""
        assert self.answer.features is not None, "checked before"
        return jnp.where(self.graph.node_mask[:, None], self.answer.features, 0)


class Statistics:
    """Sums over structures in double precision, from which a posterior is made. They never reach the device.

    Two of equal content are equal, so that functions that are compiled for one serve for the other.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = {name: np.asarray(value) for name, value in arrays.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names and values."""
        sha = hashlib.sha256()
        for name in sorted(self.arrays):
            value = np.ascontiguousarray(self.arrays[name])
            sha.update(f"{name}|{value.dtype.str}|{value.shape}|".encode() + value.tobytes())
        return sha.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["scale", "power", "floor", "quantiles"],
    meta_fields=["frames", "data"],
)
@dataclasses.dataclass(frozen=True)
class Calibration:
    """Calibration of a deviation s: sigma^2 = (scale s^power)^2 + floor^2, with factors on sigma that make intervals of known
    coverage."""

    scale: Float[Any, "*elements"]
    """By atomic number [119] for a quantity of atoms, NaN for an element without labels; a single number for one of systems."""
    power: Float[Any, ""]
    """1 for a linear calibration."""
    floor: Float[Any, "*elements"]
    """In the unit of the quantity, for an extensive one per atom; by atomic number or single, as ``scale``; 0 for none."""
    quantiles: Float[Any, "*elements levels"]
    """Quantiles of |error| / sigma at ``LEVELS``, NaN where there are too few frames for one."""
    frames: tuple[int, ...]
    """Number of frames with labels: of each atomic number, or a single one."""
    data: str
    """SHA-256 of the labelled frames."""


@dataclasses.dataclass(frozen=True)
class UncertaintyMethod(ABC):
    """Base of the methods of estimating deviations: frozen dataclasses of hyper-parameters.

    A subclass in any package can be used in a config as ``kind: package.module:Class``.
    """

    builtin_kinds: ClassVar[dict[str, str]] = {
        "FeatureNorm": "equipot.uncertainty.last_layer:FeatureNorm",
        "LastLayer": "equipot.uncertainty.last_layer:LastLayer",
        "MeanVariance": "equipot.uncertainty.mean_variance:MeanVariance",
        "POPS": "equipot.uncertainty.pops:POPS",
        "ShallowEnsemble": "equipot.uncertainty.shallow:ShallowEnsemble",
        "Spread": "equipot.uncertainty.spread:Spread",
    }
    """Values of ``kind`` in a config besides ``package.module:Class``."""

    of_committees: ClassVar[bool] = False
    """Whether the method is for the spread of a committee, and for no single network."""
    learned_array: ClassVar[str] = ""
    """Name of the array of ``Statistics`` that the method learns from errors on labelled structures; empty for a method that
    needs no labels."""

    @property
    @abstractmethod
    def provides(self) -> tuple[Quantity, ...]:
        """Quantities that the method estimates."""

    def check(self, term: Term) -> None:
        """Check that the method applies to a term.

        Raises:
            ValueError: the method does not.
        """
        inside = [other for other in walk(term) if other.copies]
        if inside and not term.copies:
            raise ValueError(
                f"{type(term).__name__} around a committee has no spread; make it around each member, and join these by "
                "equipot.uncertainty.committee or `equipot uncertainty A --committee B C`"
            )
        name, committee = type(self).__name__, bool(term.copies)
        if committee and not self.of_committees:
            raise ValueError(
                f"{name} is for a single network; the uncertainty of a committee is the spread of its members: "
                "method={kind: Spread}"
            )
        if self.of_committees and not committee:
            raise ValueError(
                f"{name} is for a committee, and {type(term).__name__} is none: join potentials by "
                "equipot.uncertainty.committee, or name several files of `equipot uncertainty`"
            )

    def learned(self, statistics: Statistics, lesson: Any) -> Statistics:
        """Add what the method learns from errors, an ``uncertainty.learning.Lesson``, to sums over the same structures."""
        return statistics

    @abstractmethod
    def arrays(self, statistics: Statistics) -> dict[str, np.ndarray]:
        """Compute from sums over structures, on the host in double precision, the arrays that ``deviations`` needs."""

    @abstractmethod
    def deviations(
        self, arrays: Mapping[str, Array], found: Sensitivity, rows: Sequence[Quantity]
    ) -> dict[str, Float[Array, "..."]]:
        """Estimate deviations before calibration, by the names of quantities."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays", "calibrations"],
    meta_fields=["method", "statistics", "variables_sha256", "rests_on"],
)
@dataclasses.dataclass(frozen=True)
class Posterior:
    """Method, statistics and calibration of the uncertainty of a potential with certain variables."""

    method: UncertaintyMethod
    statistics: Statistics
    arrays: Mapping[str, Float[Any, "..."]]
    """Arrays of the method, in the precision of the potential."""
    calibrations: Mapping[str, Calibration]
    """By the name of the deviation."""
    variables_sha256: str
    """``variables_digest`` of the variables that the statistics belong to."""
    rests_on: str
    """What structures the statistics are of, in words."""

    def check(self, rows: Sequence[Quantity], structures: Sequence[Structure] = ()) -> None:
        """Check that deviations are known.

        Raises:
            ValueError: a quantity that the method does not estimate, or a deviation that was not calibrated at all, or not for
                an element in ``structures``.
        """
        for row in rows:
            if row not in self.method.provides:
                there = ", ".join(known.name for known in self.method.provides)
                raise ValueError(f"{type(self.method).__name__} does not estimate {row.name}; it estimates {there}")
            needed = row.name if row.deviation_of else row.calibrated_by
            if needed and needed not in self.calibrations:
                raise ValueError(
                    f"{row.name} is not calibrated: the estimate rests on {self.rests_on}, and there were no labelled frames "
                    "for it, or too few; give some (`equipot uncertainty MODEL --calibrate FILE`), or ask for novelty, which "
                    "needs none"
                )
            if row.calibrated_by and structures and not self.has_spread(row):
                raise ValueError(
                    f"{row.name}: the calibration found no relation of the deviations to the errors, and its members would "
                    f"have no spread; ask for {row.calibrated_by} alone, or calibrate by Proportional"
                )
            # On the host alone: a compiled function has no structures.
            for structure in structures if row.per == "atom" and row.deviation_of else ():
                scale = np.broadcast_to(np.asarray(self.calibrations[row.name].scale), 119)
                if unknown := sorted({z for z in structure.numbers.tolist() if np.isnan(scale[z])}):
                    raise ValueError(
                        f"{structure.name}: {row.name} is not calibrated for {symbols(unknown)}, of which too few labelled "
                        "frames have any, or no structure of the fit; calibrate on frames that have, or ask for novelty"
                    )

    def has_spread(self, row: Quantity) -> bool:
        """Whether a quantity of the members, such as ``ensemble``, is calibrated by a factor above zero: else all are alike."""
        known = self.calibrations.get(row.calibrated_by)
        return known is not None and bool(np.asarray(known.scale).any())

    def estimate(self, found: Sensitivity, rows: Sequence[Quantity]) -> dict[str, Float[Array, "..."]]:
        """Estimate calibrated deviations and novelty of a batch, by the names of quantities."""
        # Accelerators may round matrix products of float32 to 19 bits unless told not to.
        with jax.default_matmul_precision("highest"):
            out = self.method.deviations(self.arrays, found, rows)
        return {name: self._calibrated(name, value, found.graph) for name, value in out.items()}

    def _calibrated(self, name: str, value: Array, graph: Graph) -> Array:
        rows = {row.name: row for row in self.method.provides}
        of = rows[name].calibrated_by or name
        if (known := self.calibrations.get(of)) is None:
            return value
        scale = jnp.asarray(known.scale, value.dtype)
        if of != name:
            # Differences, of either sign; a floor is in none of them.
            return scale * jnp.sign(value) * jnp.abs(value) ** jnp.asarray(known.power, value.dtype)
        of_atoms = lambda x: x[graph.numbers] if x.ndim else x
        raised = of_atoms(scale) * value ** jnp.asarray(known.power, value.dtype)
        floor = of_atoms(jnp.asarray(known.floor, value.dtype))
        if BY_NAME[rows[name].deviation_of].extensive:
            floor = floor * sum_graphs(jnp.asarray(graph.node_mask, value.dtype), graph)
        # Exact for a floor of zero.
        return jnp.hypot(raised, floor)

    def astype(self, dtype: Any) -> Posterior:
        """Convert the arrays to another precision; the statistics stay."""
        real = lambda x: jnp.issubdtype(np.asarray(x).dtype, jnp.floating)
        cast = partial(jax.tree.map, lambda x: jnp.asarray(x, dtype if real(x) else jnp.int32))
        return dataclasses.replace(self, arrays=cast(dict(self.arrays)), calibrations=cast(dict(self.calibrations)))

    def replace(self, **changes: Any) -> Posterior:
        """Return a copy with other fields."""
        return dataclasses.replace(self, **changes)


def check_estimates(posterior: Posterior | None, rows: Sequence[Quantity], structures: Sequence[Structure] = ()) -> None:
    """Check that a potential has estimates of uncertainty.

    Raises:
        ValueError: there is no posterior, or as ``Posterior.check``.
    """
    if posterior is not None:
        posterior.check(rows, structures)
    elif rows:
        raise ValueError(
            f"the potential has no estimate of its uncertainty, and so no {rows[0].name}; make one by `equipot uncertainty "
            "MODEL --data FILE`, or equipot.uncertainty.fit (with other variables, an earlier one no longer holds)"
        )


def variables_digest(variables: Any) -> str:
    """Compute the SHA-256 of variables, rounded to single precision: equal for all precisions of one potential."""
    sha = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_flatten_with_path(variables)[0]):
        value = np.asarray(leaf)
        value = value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else value
        sha.update(f"{path}|{value.dtype.str}|{value.shape}|".encode() + np.ascontiguousarray(value).tobytes())
    return sha.hexdigest()
