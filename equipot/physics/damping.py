"""Damping of the dispersion energy of pairs at short distance, and its parameters for density functionals."""

from __future__ import annotations

import dataclasses
import difflib
from typing import ClassVar, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot import units


@dataclasses.dataclass(frozen=True)
class Damping:
    """Base of the damping functions: ``damping(square, ratio, contact)`` gives the energy of a pair over -C6."""

    FUNCTIONALS: ClassVar[dict[str, dict[str, float]]] = {}
    """Parameters by the name of a functional, in small letters and digits."""

    def of(self, functional: str) -> Self:
        """Return the damping function with the parameters of a functional where none are given.

        Raises:
            ValueError: a parameter is missing and the functional is unknown.
        """
        missing = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is None]
        if not missing:
            return self
        name = "".join(c for c in functional.lower() if c.isalnum())
        kind = type(self).__name__
        if name not in self.FUNCTIONALS:
            close = difflib.get_close_matches(name, self.FUNCTIONALS, 1, 0.6)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(self.FUNCTIONALS)}"
            what = f"functional {functional!r} is unknown to {kind}" if functional else f"{kind} has no functional"
            raise ValueError(f"{what}: {remedy}; or give {', '.join(missing)} of the damping")
        values = self.FUNCTIONALS[name]
        return dataclasses.replace(self, **{key: values[key] for key in missing})

    def __call__(
        self, square: Float[Array, "*pairs"], ratio: Float[Array, "*pairs"], contact: Float[Array, "*pairs"]
    ) -> Float[Array, "*pairs"]:
        """Compute the energy of pairs over -C6, Å^-6.

        Args:
            square: Squared distances, Å^2.
            ratio: C8 / C6, Å^2.
            contact: Distances R0 at which the atoms touch, Å.
        """
        raise NotImplementedError


def _table(names: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {functional: dict(zip(names, row, strict=True)) for functional, row in rows.items()}


@dataclasses.dataclass(frozen=True)
class BeckeJohnson(Damping):
    """Damping to a finite energy, D3(BJ): sum over n = 6, 8 of s_n C_n / (r^n + (a1 R + a2)^n), R = sqrt(C8 / C6).

    Grimme, Ehrlich and Goerigk, J. Comput. Chem. 32, 1456 (2011). Parameters are from there or from Goerigk and Grimme,
    Phys. Chem. Chem. Phys. 13, 6670 (2011); those of HSE06, SCAN and r2SCAN from J. Phys. Chem. C 118, 7615 (2014), Phys. Rev.
    B 94, 115144 (2016) and J. Chem. Phys. 154, 061101 (2021).
    """

    s8: float | None = None
    """Scale of the terms in C8; that of the functional where left out."""
    a1: float | None = None
    """Factor on R in the damping; that of the functional where left out."""
    a2: float | None = None
    """bohr, as it is published."""
    s6: float = 1.0
    """Scale of the terms in C6."""

    FUNCTIONALS: ClassVar[dict[str, dict[str, float]]] = _table(
        ("s8", "a1", "a2"),
        {
            "pbe": (0.7875, 0.4289, 4.4407),
            "pbe0": (1.2177, 0.4145, 4.8593),
            "revpbe": (2.3550, 0.5238, 3.5016),
            "blyp": (2.6996, 0.4298, 4.2359),
            "b3lyp": (1.9889, 0.3981, 4.4211),
            "bp86": (3.2822, 0.3946, 4.8516),
            "b97d": (2.2609, 0.5545, 3.2297),
            "tpss": (1.9435, 0.4535, 4.4752),
            "tpss0": (1.2576, 0.3768, 4.5865),
            "hf": (0.9171, 0.3385, 2.8830),
            "pbesol": (2.9491, 0.4466, 6.1742),
            "rpbe": (0.8318, 0.1820, 4.0094),
            "camb3lyp": (2.0674, 0.3708, 5.4743),
            "tpssh": (2.2382, 0.4529, 4.6550),
            "revpbe0": (1.7588, 0.4679, 3.7619),
            "hse06": (2.3100, 0.3830, 5.6850),
            "scan": (0.0, 0.5380, 5.4200),
            "r2scan": (0.78981345, 0.49484001, 5.73083694),
        },
    )

    def __call__(
        self, square: Float[Array, "*pairs"], ratio: Float[Array, "*pairs"], contact: Float[Array, "*pairs"]
    ) -> Float[Array, "*pairs"]:
        assert self.s8 is not None and self.a1 is not None and self.a2 is not None, "of() comes first"
        inner = (self.a1 * jnp.sqrt(ratio) + self.a2 * units.bohr) ** 2
        return self.s6 / (square**3 + inner**3) + self.s8 * ratio / (square**4 + inner**4)


@dataclasses.dataclass(frozen=True)
class Zero(Damping):
    """Damping to zero, D3(0): sum over n = 6, 8 of s_n C_n / r^n / (1 + 6 (r / (rs_n R0))^-alpha_n).

    alpha_6 = ``alpha``, alpha_8 = ``alpha`` + 2; Grimme, Antony, Ehrlich and Krieg, J. Chem. Phys. 132, 154104 (2010), with R0
    the distance at which the atoms touch. Parameters are from there and from the papers that ``BeckeJohnson`` names.
    """

    s8: float | None = None
    """Scale of the terms in C8; that of the functional where left out."""
    rs6: float | None = None
    """Factor on R0 in the damping of C6; that of the functional where left out."""
    rs8: float = 1.0
    """Factor on R0 in the damping of C8."""
    s6: float = 1.0
    """Scale of the terms in C6."""
    alpha: float = 14.0
    """Exponent of the damping of C6; that of C8 is larger by 2."""

    FUNCTIONALS: ClassVar[dict[str, dict[str, float]]] = _table(
        ("s8", "rs6"),
        {
            "pbe": (0.722, 1.217),
            "pbe0": (0.928, 1.287),
            "revpbe": (1.010, 0.923),
            "blyp": (1.682, 1.094),
            "b3lyp": (1.703, 1.261),
            "bp86": (1.683, 1.139),
            "b97d": (0.909, 0.892),
            "tpss": (1.105, 1.166),
            "tpss0": (1.242, 1.252),
            "hf": (1.746, 1.158),
            "pbesol": (0.612, 1.345),
            "rpbe": (0.514, 0.872),
            "camb3lyp": (1.217, 1.378),
            "tpssh": (1.219, 1.223),
            "hse06": (0.109, 1.129),
            "scan": (0.0, 1.324),
        },
    )

    def __call__(
        self, square: Float[Array, "*pairs"], ratio: Float[Array, "*pairs"], contact: Float[Array, "*pairs"]
    ) -> Float[Array, "*pairs"]:
        assert self.s8 is not None and self.rs6 is not None, "of() comes first"

        def damped(half: int, reach: float, alpha: float) -> Array:
            # Written so that nothing overflows at short distance: 1 / (r^n (1 + 6 x^-alpha)), x = r / R.
            power = (square / (reach * contact) ** 2) ** (int(alpha / 2) if alpha % 2 == 0 else alpha / 2)
            return power / (power + 6) / square**half

        return self.s6 * damped(3, self.rs6, self.alpha) + self.s8 * ratio * damped(4, self.rs8, self.alpha + 2)
