"""Radial functions: bases, the envelope that makes everything vanish at the cutoff, distance transforms, and the radial MLP."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

SILU_SCALE = 1.6765324703310907
"""1 / sqrt(E[silu(x)^2]) for x ~ N(0, 1): keeps the second moment of activations at one."""


def silu(x: Array) -> Array:
    """SiLU with unit second moment for normally distributed input."""
    return SILU_SCALE * jax.nn.silu(x)


@dataclasses.dataclass(frozen=True)
class Basis:
    """Base of the radial bases: ``basis(r, cutoff, frequencies)`` gives ``n`` functions of the distance r (Å)."""

    def learned(self, scope: nn.Module, dtype: Any) -> Float[Array, " n"] | None:
        """Frequencies that the compact module ``scope`` learns, a parameter of it; None for a basis without any."""
        return None


@dataclasses.dataclass(frozen=True)
class Bessel(Basis):
    """Radial Bessel functions, eq. 7 of Gasteiger et al., arXiv:2003.03123.

    b_k(r) = sqrt(2/c) sin(k pi r / c) / r for k = 1..n, with its finite limit at r = 0. It vanishes at the cutoff but its
    slope does not: multiply by an envelope.
    """

    n: int = 8
    trainable: bool = False
    """Learn the frequencies, k pi at first (NequIP, arXiv:2101.03164)."""

    def frequencies(self) -> np.ndarray:
        """k pi for k = 1..n."""
        return np.arange(1, self.n + 1) * np.pi

    def learned(self, scope: nn.Module, dtype: Any) -> Float[Array, " n"] | None:
        return scope.param("frequencies", lambda _: jnp.asarray(self.frequencies(), dtype)) if self.trainable else None

    def __call__(
        self, r: Float[Array, "*edges"], cutoff: float, frequencies: Float[Array, " n"] | None = None
    ) -> Float[Array, "*edges n"]:
        """``frequencies`` are those that were learned."""
        w = jnp.asarray(self.frequencies() if frequencies is None else frequencies, r.dtype) / cutoff
        r = jnp.maximum(r, 1e-6)[..., None]
        return math.sqrt(2 / cutoff) * jnp.sin(w * r) / r


@dataclasses.dataclass(frozen=True)
class Gaussian(Basis):
    """exp(-(r - mu_k)^2 / 2 sigma^2) with n centres from 0 to the cutoff, sigma their spacing."""

    n: int = 16

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n is {self.n}, but the width of a Gaussian is the distance to the next; give 2 or more")

    def __call__(self, r: Float[Array, "*edges"], cutoff: float, frequencies: None = None) -> Float[Array, "*edges n"]:
        centers, step = np.linspace(0, cutoff, self.n, retstep=True)
        return jnp.exp(-0.5 * ((r[..., None] - centers.astype(r.dtype)) / float(step)) ** 2)


@dataclasses.dataclass(frozen=True)
class Chebyshev(Basis):
    """Chebyshev polynomials of the first kind T_k(x) for k = 1..n, x linear in r."""

    n: int = 8
    interval: tuple[float, float] | None = None
    """The distances (Å) where x is -1 and 1; from zero to the cutoff where left out."""

    def __call__(self, r: Float[Array, "*edges"], cutoff: float, frequencies: None = None) -> Float[Array, "*edges n"]:
        start, end = self.interval or (0.0, cutoff)
        x = (2 * jnp.minimum(r, cutoff) - start - end) / (end - start)
        terms = [jnp.ones_like(x), x]
        while len(terms) <= self.n:
            terms.append(2 * x * terms[-1] - terms[-2])
        return jnp.stack(terms[1 : self.n + 1], axis=-1)


@dataclasses.dataclass(frozen=True)
class PolynomialEnvelope:
    """u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), x = r/c; eq. 8 of arXiv:2003.03123.

    The value and the first two derivatives vanish at the cutoff.
    """

    p: int = 5

    def __post_init__(self) -> None:
        if self.p < 2:
            raise ValueError(f"envelope exponent p = {self.p} is too small for smooth forces; use p >= 2")

    def __call__(self, r: Float[Array, "*edges"], cutoff: float) -> Float[Array, "*edges"]:
        p = self.p
        x = jnp.minimum(r / cutoff, 1)
        u = 1 - x**p * ((p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x * x)
        return jnp.where(r < cutoff, u, 0)


@dataclasses.dataclass(frozen=True)
class XPLOR:
    """1 up to ``on``, then (c^2 - r^2)^2 (c^2 + 2 r^2 - 3 on^2) / (c^2 - on^2)^3, the switching function of X-PLOR.

    Only the value and the first derivative are continuous: force constants jump at ``on`` and at the cutoff.
    """

    on: float
    """Å, below the cutoff."""

    def __call__(self, r: Float[Array, "*edges"], cutoff: float) -> Float[Array, "*edges"]:
        if not 0 <= self.on < cutoff:
            raise ValueError(f"envelope.on {self.on:g} Å must be from 0 to below the cutoff {cutoff:g} Å")
        c, on, x = cutoff**2, self.on**2, jnp.clip(r, self.on, cutoff) ** 2
        return (c - x) ** 2 * (c + 2 * x - 3 * on) / (c - on) ** 3


@dataclasses.dataclass(frozen=True)
class Agnesi:
    """T(r) = 1 / (1 + a y^q / (1 + y^(q-p))), y = r/r0: resolves short distances; eq. 2 of Witt et al., arXiv:2309.03161.

    r0 is half the sum of the two covalent radii. The basis is evaluated at T(r), the envelope at r.
    """

    a: float = 1.0805
    q: float = 0.9183
    p: float = 4.5791

    def __call__(self, r: Float[Array, "*edges"], radii: Float[Array, "*edges"]) -> Float[Array, "*edges"]:
        y = jnp.maximum(r, 1e-3) / (radii / 2)
        return 1 / (1 + self.a * y**self.q / (1 + y ** (self.q - self.p)))


@dataclasses.dataclass(frozen=True)
class Soft:
    """T(r) = p0 + (r - p0) (1 + tanh(alpha (r - m) / (p1 - p0))) / 2: flat below the bond length, r beyond it.

    p0 and p1 are 3/4 and 4/3 of the sum of the covalent radii, m their mean.
    """

    alpha: float = 4.0

    def __call__(self, r: Float[Array, "*edges"], radii: Float[Array, "*edges"]) -> Float[Array, "*edges"]:
        p0, p1 = 0.75 * radii, 4 / 3 * radii
        return p0 + (r - p0) * (1 + jnp.tanh(self.alpha * (r - (p0 + p1) / 2) / (p1 - p0))) / 2


@dataclasses.dataclass(frozen=True)
class OnFeatures:
    """The envelope multiplies what enters the radial network, which must map zero to zero."""

    is_separate: ClassVar[bool] = False
    """Whether the envelope stands beside the features, for the output of the radial network."""

    def __call__(self, features: Float[Array, "*edges n"], envelope: Float[Array, "*edges"]) -> tuple[Array, Array | None]:
        """What enters the radial network, and the factor of its output, None for one."""
        return features * envelope[..., None], None


@dataclasses.dataclass(frozen=True)
class OnWeights:
    """The envelope multiplies what leaves the radial network, which sees the bare basis."""

    is_separate: ClassVar[bool] = True
    """As for ``OnFeatures``."""

    def __call__(self, features: Float[Array, "*edges n"], envelope: Float[Array, "*edges"]) -> tuple[Array, Array | None]:
        """As ``OnFeatures``."""
        return features, envelope


@dataclasses.dataclass(frozen=True)
class Splines:
    """Radial weights as quintic splines of the distance on a uniform grid from zero to the cutoff.

    Four derivatives are continuous; at the cutoff the value and two derivatives vanish. ``equipot compress`` makes them.
    """

    intervals: int = 256
    pairs: bool = False
    """Whether every ordered pair of species has splines of its own."""

    def __post_init__(self) -> None:
        if self.intervals < 8:
            raise ValueError(f"table.intervals {self.intervals} is too coarse for quintic splines; give 8 or more")

    @property
    def rows(self) -> int:
        """Coefficients of one spline."""
        return self.intervals + DEGREE

    def __call__(self, r: Float[Array, "*edges"], cutoff: float) -> tuple[Int[Array, "*edges"], Float[Array, "*edges 6"]]:
        """The first basis function that does not vanish at r, and the values of all that do not, which follow it."""
        x = jnp.clip(r, 0, cutoff) * (self.intervals / cutoff)
        start = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, self.intervals - 1)
        t = x - start.astype(r.dtype)
        value = jnp.zeros((*r.shape, DEGREE + 1), r.dtype)
        for power in reversed(CARDINAL.T):
            value = value * t[..., None] + power.astype(r.dtype)
        return start, value


DEGREE = 5
CARDINAL = (
    np.array(
        [
            [1, -5, 10, -10, 5, -1],
            [26, -50, 20, 20, -20, 5],
            [66, 0, -60, 0, 30, -10],
            [26, 50, 20, -20, -20, 10],
            [1, 5, 10, 10, 5, -5],
            [0, 0, 0, 0, 0, 1],
        ]
    )
    / 120
)
"""The cardinal B-spline of degree 5 on each of its intervals, last interval first, as coefficients of powers of t in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Radial:
    """Distance to radial features: basis(transform(r)), times envelope(r) before or after the radial MLP."""

    basis: Bessel | Gaussian | Chebyshev = Bessel()
    envelope: PolynomialEnvelope | XPLOR = PolynomialEnvelope()
    transform: Agnesi | Soft | None = None
    mlp: tuple[int, ...] = (64, 64, 64)
    """Hidden widths of the radial MLP."""
    envelope_on: OnFeatures | OnWeights = OnFeatures()
    """What the envelope multiplies."""
    table: Splines | None = None
    """What stands in for basis, envelope and MLP in a compressed potential."""

    def __post_init__(self) -> None:
        if min((self.basis.n, *self.mlp)) < 1:
            raise ValueError(f"basis.n {self.basis.n} and every width in mlp {list(self.mlp)} must be at least 1")

    def __call__(
        self,
        r: Float[Array, "*edges"],
        cutoff: float,
        radii: Float[Array, "*edges"] | None = None,
        frequencies: Float[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "*edges n"], Float[Array, "*edges"] | None]:
        """The features, and the factor of the radial network's output: None where the features have the envelope.

        ``radii``, for a transform, are the sums of the covalent radii of each pair (Å); ``frequencies`` are what a Bessel basis
        learned.
        """
        x = r if self.transform is None else self.transform(r, radii)
        features = self.basis(x, cutoff, frequencies)
        return self.envelope_on(features, self.envelope(r, cutoff))


class MLP(nn.Module):
    """Layers of x @ W / sqrt(fan_in), W ~ N(0, 1), without bias; SiLU between, none after the last."""

    widths: Sequence[int]

    @nn.compact
    def weights(self, fan: int, dtype: Any) -> list[Float[Array, "inputs outputs"]]:
        """The matrices, scaled by 1 / sqrt(fan_in), for an input of width ``fan``."""
        out = []
        for k, width in enumerate(self.widths):
            w = self.param(f"w{k}", nn.initializers.normal(1.0), (fan, width))
            out.append((w / math.sqrt(fan)).astype(dtype))
            fan = width
        return out

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        return apply_mlp(x, self.weights(x.shape[-1], x.dtype))


def apply_mlp(x: Float[Array, "*batch n"], weights: Sequence[Array]) -> Float[Array, "*batch m"]:
    """``MLP`` with weights in hand."""
    for w in weights[:-1]:
        x = silu(x @ w)
    return x @ weights[-1]


def covalent_radii(elements: Sequence[int]) -> np.ndarray:
    """Covalent radii in Å, Cordero et al. 2008, as tabulated by ASE."""
    from ase.data import covalent_radii as table

    return np.asarray([table[z] for z in elements])
