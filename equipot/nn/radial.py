"""Radial functions: bases, envelopes that vanish at the cutoff, distance transforms, splines, and the radial MLP."""

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

from equipot.arrays import AnyArray

SILU_SCALE = 1.6765324703310907
"""1 / sqrt(E[silu(x)^2]) for x ~ N(0, 1): keeps the second moment of activations at one."""


def silu(x: Array) -> Array:
    """SiLU with unit second moment for normally distributed input."""
    return SILU_SCALE * jax.nn.silu(x)


@dataclasses.dataclass(frozen=True)
class Basis:
    """Base of the radial bases: ``basis(r, cutoff, frequencies)`` gives ``n`` functions of the distance r (Å)."""

    def learned(self, scope: nn.Module, dtype: Any) -> Float[Array, " n"] | None:
        """Return the learned frequencies, a parameter of the compact module ``scope``; None for a basis without parameters."""
        return None


def along_last(values: Float[AnyArray, " n"], like: Array) -> Float[Array, "... n"]:
    """Reshape values of the last axis of ``like`` to as many axes as that has."""
    return jnp.asarray(values).reshape(*[1] * (like.ndim - 1), -1)


@dataclasses.dataclass(frozen=True)
class Bessel(Basis):
    """Radial Bessel functions, eq. 7 of Gasteiger et al., arXiv:2003.03123.

    b_k(r) = sqrt(2/c) sin(k pi r / c) / r for k = 1..n, c the cutoff, with the finite limit at r = 0. The functions vanish at
    the cutoff but their slopes do not: multiply by an envelope.
    """

    n: int = 8
    """Number of functions."""
    trainable: bool = False
    """Whether the frequencies are learned, starting from k pi (NequIP, arXiv:2101.03164)."""

    def frequencies(self) -> np.ndarray:
        """Return the initial frequencies, k pi for k = 1..n."""
        return np.arange(1, self.n + 1) * np.pi

    def learned(self, scope: nn.Module, dtype: Any) -> Float[Array, " n"] | None:
        return scope.param("frequencies", lambda _: jnp.asarray(self.frequencies(), dtype)) if self.trainable else None

    def __call__(
        self, r: Float[Array, "*edges"], cutoff: float, frequencies: Float[Array, " n"] | None = None
    ) -> Float[Array, "*edges n"]:
        """Compute the functions at distances r (Å); ``frequencies`` replace k pi by learned values."""
        w = jnp.asarray(self.frequencies() if frequencies is None else frequencies, r.dtype) / cutoff
        r = jnp.maximum(r, 1e-6)[..., None]
        return math.sqrt(2 / cutoff) * jnp.sin(along_last(w, r) * r) / r


@dataclasses.dataclass(frozen=True)
class Gaussian(Basis):
    """Gaussian basis exp(-(r - mu_k)^2 / 2 sigma^2), n equidistant centres mu_k from 0 to the cutoff, sigma their spacing."""

    n: int = 16
    """Number of functions."""

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n is {self.n}, but the width of a Gaussian is the distance to the next; give 2 or more")

    def __call__(self, r: Float[Array, "*edges"], cutoff: float, frequencies: Array | None = None) -> Float[Array, "*edges n"]:
        centers, step = np.linspace(0, cutoff, self.n, retstep=True)
        return jnp.exp(-0.5 * ((r[..., None] - along_last(centers.astype(r.dtype), r[..., None])) / float(step)) ** 2)


@dataclasses.dataclass(frozen=True)
class Chebyshev(Basis):
    """Chebyshev polynomials of the first kind T_k(x) for k = 1..n, x linear in the distance r."""

    n: int = 8
    """Number of functions."""
    interval: tuple[float, float] | None = None
    """Distances (Å) where x is -1 and 1; None for zero and the cutoff."""

    def __call__(self, r: Float[Array, "*edges"], cutoff: float, frequencies: Array | None = None) -> Float[Array, "*edges n"]:
        start, end = self.interval or (0.0, cutoff)
        x = (2 * jnp.minimum(r, cutoff) - start - end) / (end - start)
        terms = [jnp.ones_like(x), x]
        while len(terms) <= self.n:
            terms.append(2 * x * terms[-1] - terms[-2])
        return jnp.stack(terms[1 : self.n + 1], axis=-1)


@dataclasses.dataclass(frozen=True)
class PolynomialEnvelope:
    """u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), x = r/c; eq. 8 of arXiv:2003.03123.

    The value and the first two derivatives vanish at the cutoff c.
    """

    p: int = 5
    """Exponent: the larger, the nearer to the cutoff the envelope falls."""

    def __post_init__(self) -> None:
        if self.p < 2:
            raise ValueError(f"envelope exponent p = {self.p} is too small for smooth forces; use p >= 2")

    def __call__(self, r: Float[Array, "*edges"], cutoff: float | Float[Array, "*edges"]) -> Float[Array, "*edges"]:
        p = self.p
        x = jnp.minimum(r / cutoff, 1)
        u = 1 - x**p * ((p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x * x)
        return jnp.where(r < cutoff, u, 0)


@dataclasses.dataclass(frozen=True)
class PowerEnvelope:
    """u(x) = ((1 - x) / (1 - one_at))^n, x = r/c: falls from the nearest neighbours on, so that these count most.

    The value and the first n - 1 derivatives vanish at the cutoff c.
    """

    n: int = 6
    """Exponent: the larger, the more the nearest neighbours count."""
    one_at: float = 0.2
    """Distance where the envelope is 1, as a share of the cutoff."""

    def __post_init__(self) -> None:
        if self.n < 3:
            raise ValueError(f"envelope exponent n = {self.n} is too small for smooth force constants; use n >= 3")
        if not 0 <= self.one_at < 1:
            raise ValueError(f"envelope.one_at {self.one_at:g} must be from 0 to below 1: it is a share of the cutoff")

    def __call__(self, r: Float[Array, "*edges"], cutoff: float) -> Float[Array, "*edges"]:
        x = jnp.minimum(r / cutoff, 1)
        return ((1 - x) / (1 - self.one_at)) ** self.n


@dataclasses.dataclass(frozen=True)
class XPLOR:
    """Switching function of X-PLOR: 1 up to ``on``, then (c^2 - r^2)^2 (c^2 + 2 r^2 - 3 on^2) / (c^2 - on^2)^3.

    Only the value and the first derivative are continuous: force constants jump at ``on`` and at the cutoff c.
    """

    on: float
    """Distance (Å) where the function begins to fall, below the cutoff."""

    def __call__(self, r: Float[Array, "*edges"], cutoff: float) -> Float[Array, "*edges"]:
        if not 0 <= self.on < cutoff:
            raise ValueError(f"envelope.on {self.on:g} Å must be from 0 to below the cutoff {cutoff:g} Å")
        c, on, x = cutoff**2, self.on**2, jnp.clip(r, self.on, cutoff) ** 2
        return (c - x) ** 2 * (c + 2 * x - 3 * on) / (c - on) ** 3


@dataclasses.dataclass(frozen=True)
class Agnesi:
    """T(r) = 1 / (1 + a y^q / (1 + y^(q-p))), y = r/r0, which resolves short distances; eq. 2 of Witt et al., arXiv:2309.03161.

    r0 is half the sum of the two covalent radii. The basis is evaluated at T(r), the envelope at r.
    """

    a: float = 1.0805
    """Strength of the transform at the distance r0."""
    q: float = 0.9183
    """Exponent at long distances."""
    p: float = 4.5791
    """Exponent at short distances."""

    def __call__(self, r: Float[Array, "*edges"], radii: Float[Array, "*edges"]) -> Float[Array, "*edges"]:
        y = jnp.maximum(r, 1e-3) / (radii / 2)
        return 1 / (1 + self.a * y**self.q / (1 + y ** (self.q - self.p)))


@dataclasses.dataclass(frozen=True)
class Soft:
    """T(r) = p0 + (r - p0) (1 + tanh(alpha (r - m) / (p1 - p0))) / 2 in Å: constant below the bond length, r beyond it.

    p0 and p1 are 3/4 and 4/3 of the sum of the covalent radii, m is the mean of p0 and p1.
    """

    alpha: float = 4.0
    """Steepness of the step from p0 to r."""

    def __call__(self, r: Float[Array, "*edges"], radii: Float[Array, "*edges"]) -> Float[Array, "*edges"]:
        p0, p1 = 0.75 * radii, 4 / 3 * radii
        return p0 + (r - p0) * (1 + jnp.tanh(self.alpha * (r - (p0 + p1) / 2) / (p1 - p0))) / 2


@dataclasses.dataclass(frozen=True)
class OnFeatures:
    """The envelope multiplies the input of the radial network, which must map zero to zero."""

    is_separate: ClassVar[bool] = False
    """Whether the envelope multiplies the output of the radial network instead of the radial features."""

    def __call__(self, features: Float[Array, "*edges n"], envelope: Float[Array, "*edges"]) -> tuple[Array, Array | None]:
        """Return the input of the radial network, and the factor of its output; None for a factor of one."""
        return features * envelope[..., None], None


@dataclasses.dataclass(frozen=True)
class OnWeights:
    """The envelope multiplies the output of the radial network, whose input is the bare basis.

    Fields and methods are described in ``OnFeatures``.
    """

    is_separate: ClassVar[bool] = True

    def __call__(self, features: Float[Array, "*edges n"], envelope: Float[Array, "*edges"]) -> tuple[Array, Array | None]:
        return features, envelope


@dataclasses.dataclass(frozen=True)
class Splines:
    """Radial weights as quintic splines of the distance on a uniform grid from zero to the cutoff.

    Four derivatives are continuous; at the cutoff the value and two derivatives vanish. Made by ``equipot compress``.
    """

    intervals: int = 256
    """Number of intervals of the grid."""
    pairs: bool = False
    """Whether each ordered pair of species has its own splines."""

    def __post_init__(self) -> None:
        if self.intervals < 8:
            raise ValueError(f"table.intervals {self.intervals} is too coarse for quintic splines; give 8 or more")

    @property
    def rows(self) -> int:
        """Number of coefficients of one spline."""
        return self.intervals + DEGREE

    def __call__(self, r: Float[Array, "*edges"], cutoff: float) -> tuple[Int[Array, "*edges"], Float[Array, "*edges 6"]]:
        """Return the index of the first of the six B-splines that do not vanish at r, and the values of these six."""
        x = jnp.clip(r, 0, cutoff) * (self.intervals / cutoff)
        start = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, self.intervals - 1)
        t = x - start.astype(r.dtype)
        value = jnp.zeros((*r.shape, DEGREE + 1), r.dtype)
        for power in reversed(CARDINAL.T):
            value = value * t[..., None] + along_last(power.astype(r.dtype), value)
        return start, value


DEGREE = 5
"""Degree of the splines."""
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
"""Cardinal B-spline of degree 5: [interval, power of t], t in [0, 1] along the interval; the last interval comes first."""


@dataclasses.dataclass(frozen=True)
class Radial:
    """Map from distance to radial features: basis(transform(r)), times envelope(r) before or after the radial MLP."""

    basis: Bessel | Gaussian | Chebyshev = Bessel()
    """Functions of the distance."""
    envelope: PolynomialEnvelope | PowerEnvelope | XPLOR = PolynomialEnvelope()
    """Factor that falls to zero at the cutoff."""
    transform: Agnesi | Soft | None = None
    """Transform of the distance before the basis; null for none."""
    mlp: tuple[int, ...] = (64, 64, 64)
    """Hidden widths of the radial MLP."""
    envelope_on: OnFeatures | OnWeights = OnFeatures()
    """Choice of the quantity that the envelope multiplies."""
    table: Splines | None = None
    """Splines that replace basis, envelope and MLP in a compressed potential."""

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
        """Compute the radial features, and the factor of the radial network's output.

        Args:
            r: Distances (Å).
            cutoff: Cutoff radius (Å).
            radii: Sum of the covalent radii of each pair (Å), needed by a transform.
            frequencies: Learned frequencies of a Bessel basis.

        Returns:
            The features, and the envelope; None instead of the envelope if the features already contain the envelope.
        """
        x = r
        if self.transform is not None:
            assert radii is not None, "a transform needs the covalent radii"
            x = self.transform(r, radii)
        features = self.basis(x, cutoff, frequencies)
        return self.envelope_on(features, self.envelope(r, cutoff))


class MLP(nn.Module):
    """Layers x @ W / sqrt(fan_in) without bias, W ~ N(0, 1) at initialisation, with SiLU between layers."""

    widths: Sequence[int]
    """Number of outputs of each layer."""

    @nn.compact
    def weights(self, fan: int, dtype: Any) -> list[Float[Array, "inputs outputs"]]:
        """Return the matrices, scaled by 1 / sqrt(fan_in), for an input of width ``fan``."""
        out = []
        for k, width in enumerate(self.widths):
            w = self.param(f"w{k}", nn.initializers.normal(1.0), (fan, width))
            out.append((w / math.sqrt(fan)).astype(dtype))
            fan = width
        return out

    def with_inputs(self, x: Float[Array, "*batch n"]) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch m"]]:
        """Return the inputs of the last layer over sqrt(fan_in), and the outputs: inputs @ W."""
        weights = self.weights(x.shape[-1], x.dtype)
        x = apply_hidden(x, weights)
        return x / math.sqrt(x.shape[-1]), x @ weights[-1]

    def __call__(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch m"]:
        return apply_mlp(x, self.weights(x.shape[-1], x.dtype))


def apply_mlp(x: Float[Array, "*batch n"], weights: Sequence[Array]) -> Float[Array, "*batch m"]:
    """Apply an ``MLP`` with the given matrices, scaled as by ``MLP.weights``."""
    return apply_hidden(x, weights) @ weights[-1]


def apply_hidden(x: Float[Array, "*batch n"], weights: Sequence[Array]) -> Float[Array, "*batch k"]:
    """Apply all layers of an ``MLP`` but the last."""
    for w in weights[:-1]:
        x = silu(x @ w)
    return x


def covalent_radii(elements: Sequence[int]) -> np.ndarray:
    """Return the covalent radius (Å) of each element, Cordero et al., Dalton Trans. 2832 (2008), as tabulated by ASE."""
    from ase.data import covalent_radii as table

    return np.asarray([table[z] for z in elements])
