"""Samples of all parameters by stochastic-gradient Langevin dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equipot.console import Console
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.training.parameter_posterior import ParameterPosterior, finite, parameter_posterior
from equipot.uncertainty.sampler import Sampler


@dataclass(frozen=True)
class Langevin(Sampler):
    """Stochastic-gradient Langevin dynamics (M. Welling and Y. W. Teh, ICML 2011) with the kernel of ``blackjax``, in units of
    the diagonal curvature at the trained parameters, about which gradients have control variates (J. Baker, P. Fearnhead, E. B.
    Fox and C. Nemeth, Stat. Comput. 29, 599, 2019).

    The step after t steps is ``step`` (1 + t / T)^(-1/3), T a tenth of the run (Y. W. Teh, A. H. Thiery and S. J. Vollmer, J.
    Mach. Learn. Res. 17, 1, 2016): the shorter, the more exact. Samples are taken at equal distances from the second fifth of
    the run on. The range of a result over the members is a credible interval, as far as the chain has mixed.
    """

    samples: int = 8
    epochs: int = 40
    """Passes over the structures."""
    step: float = 1e-3
    """First step; 1 is about the time in which the parameters forget where they were."""
    temperature: float = 1.0
    """Factor on the variance of the posterior."""
    batch_size: int = 5
    """Structures in a step."""
    prior: float = 10.0
    """Standard deviation of the parameters before any data."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "epochs"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 2")
        for name in ("step", "temperature", "prior"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} must be positive")

    def members(self, potential: Potential, structures: Sequence[Structure], console: Console) -> list[Potential]:
        target, made = parameter_posterior(potential, structures, self.batch_size, self.prior, self.seed)
        return [made(vector) for vector in self.draw(target, console)]

    def draw(self, target: ParameterPosterior, console: Console) -> list[Float[Array, " parameters"]]:
        """Draw samples of the parameters.

        Raises:
            ImportError: blackjax is not installed.
        """
        blackjax = needed_blackjax()
        unit = 1 / jnp.sqrt(jnp.maximum(target.curvature(), 1e-12 / self.prior**2) + 1 / self.prior**2)
        gradient, whole = jax.jit(target.gradient), jnp.zeros_like(target.start)
        for batch in target.batches(0):
            whole += gradient(target.start, batch) / target.count

        def log_slope(place: Array, batch: Any) -> Array:
            """Derivative of the logarithm of the posterior by the place, start + unit place."""
            own = target.gradient(target.start + unit * place, batch)
            return -unit * (own - target.gradient(target.start, batch) + whole)

        kernel = blackjax.sgld(log_slope)
        move = jax.jit(kernel.step)
        total = self.epochs * target.count
        due = {round(total * (0.2 + 0.8 * (k + 1) / self.samples)) for k in range(self.samples)}
        place, key, samples, done = kernel.init(jnp.zeros_like(target.start)), jax.random.key(self.seed), [], 0
        console.open(self.epochs, 0)
        for epoch in range(self.epochs):
            for batch in target.batches(epoch):
                key, own = jax.random.split(key)
                size = self.step * (1 + 10 * done / total) ** (-1 / 3)
                place = move(own, place, batch, size, self.temperature)
                done += 1
                if done in due:
                    samples.append(target.start + unit * place)
            console.progress(f"Langevin dynamics: epoch {epoch + 1} of {self.epochs}")
        console.close()
        finite(samples, "Langevin")
        return samples


def needed_blackjax() -> Any:
    """Import blackjax.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import blackjax
    except ImportError:
        raise ImportError("Langevin needs the package blackjax: pip install 'equipot[sampling]'") from None
    return blackjax
