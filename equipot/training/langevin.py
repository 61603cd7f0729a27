"""Samples of all parameters by stochastic-gradient Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from equipot.training.chain import Chain, Walk
from equipot.training.parameter_posterior import ParameterPosterior


@dataclass(frozen=True)
class Langevin(Chain):
    """Stochastic-gradient Langevin dynamics (M. Welling and Y. W. Teh, ICML 2011) with the kernel of ``blackjax``, in units of
    the diagonal curvature at the trained parameters, about which gradients have control variates (J. Baker, P. Fearnhead, E. B.
    Fox and C. Nemeth, Stat. Comput. 29, 599, 2019).

    The step after t steps is ``step`` (1 + t / T)^(-1/3), T a tenth of the run (Y. W. Teh, A. H. Thiery and S. J. Vollmer, J.
    Mach. Learn. Res. 17, 1, 2016): the shorter, the more exact. Samples are taken at equal distances from the second fifth of
    the run on. The range of a result over the members is a credible interval, as far as the chain has mixed.
    """

    epochs: int = 40
    """Passes over the structures."""
    step: float = 1e-3
    """First step; 1 is about the time in which the parameters forget where they were."""
    temperature: float = 1.0
    """Factor on the variance of the posterior."""

    positive: ClassVar[tuple[str, ...]] = (*Chain.positive, "step", "temperature")

    def walk(self, target: ParameterPosterior) -> Walk:
        """Return the walk.

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

        kernel, key = blackjax.sgld(log_slope), jax.random.key(self.seed)
        move = jax.jit(kernel.step)
        total = self.epochs * target.count
        due = {round(total * (0.2 + 0.8 * (k + 1) / self.samples)): k for k in range(self.samples)}

        def epoch(state: dict[str, Any], number: int) -> dict[str, Any]:
            place, samples = state["place"], state["samples"]
            for done, batch in enumerate(target.batches(number), start=number * target.count):
                size = self.step * (1 + 10 * done / total) ** (-1 / 3)
                place = move(jax.random.fold_in(key, done), place, batch, size, self.temperature)
                if done + 1 in due:
                    samples = samples.at[due[done + 1]].set(target.start + unit * place)
            return {"place": place, "samples": samples}

        place = kernel.init(jnp.zeros_like(target.start))
        start = {"place": place, "samples": jnp.zeros((self.samples, len(target.start)), target.start.dtype)}
        return Walk(start, epoch, lambda state: list(state["samples"]))


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
