"""How good estimates of uncertainty are, on labelled frames that neither training nor calibration has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from equipot.posterior import LEVELS, Calibration
from equipot.uncertainty.calibration import LEAST, Sample

__all__ = ["assess", "auroc", "rank_correlation", "reliability", "retention"]

PARTS = 100
"""Number of coverages, and of shares of a set, at which curves are computed."""


def assess(sample: Sample, calibration: Calibration | None = None) -> dict[str, float]:
    """Compute what tells whether deviations are right, and whether large ones are where errors are large.

    Returns:
        ``rmse`` of the quantity and ``sharpness``, the root mean square deviation, both in its unit; ``spearman``, the rank
        correlation of the size of errors and deviations over all values, and ``spearman_within``, its mean over frames of the
        values in one; ``nll``, mean negative log-likelihood of normal errors, and ``crps``, mean continuous ranked probability
        score (T. Gneiting and A. E. Raftery, J. Am. Stat. Assoc. 102, 359, 2007), in the unit of the quantity;
        ``miscalibration``, area between the coverage of normal intervals and their level; ``coverage_90`` and ``normal_90``,
        share of errors within intervals of 90% by ``calibration`` and of a normal distribution; ``retained``, area under the
        curve of the error that remains where the most uncertain are left out, over that of chance: 1 is no better than chance.
    """
    from scipy.stats import norm

    error, sigma = sample.error, np.maximum(sample.raw, LEAST)
    z = error / sigma
    found = {
        "count": float(len(error)),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "sharpness": float(np.sqrt(np.mean(sigma**2))),
        "spearman": rank_correlation(sample.whole.error, sample.whole.raw),
        "spearman_within": within_frames(sample.whole),
        "nll": float(np.mean(0.5 * z**2 + np.log(sigma) + 0.5 * np.log(2 * np.pi))),
        "crps": float(np.mean(sigma * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)))),
        "miscalibration": miscalibration(z),
        "normal_90": float(np.mean(np.abs(z) <= norm.ppf(0.95))),
        "retained": retained(sample.whole),
    }
    if calibration is not None:
        factors = np.asarray(calibration.quantiles)[..., LEVELS.index(0.9)]
        factor = factors if factors.ndim == 0 else factors[sample.number]
        if np.isfinite(factor).all():
            found["coverage_90"] = float(np.mean(np.abs(error) <= factor * sigma))
    return found


def rank_correlation(error: Float[np.ndarray, " n"], sigma: Float[np.ndarray, " n"]) -> float:
    """Compute Spearman's rank correlation of the size of errors with deviations; NaN where one is constant."""
    from scipy.stats import spearmanr

    if len(error) < 3 or np.ptp(sigma) == 0 or np.ptp(np.abs(error)) == 0:
        return np.nan
    return float(spearmanr(np.abs(error), sigma).statistic)


def within_frames(sample: Sample) -> float:
    """Compute the mean over frames of the rank correlation of the values in one; NaN for one value per frame."""
    found = [rank_correlation(part.error, part.raw) for k in np.unique(sample.frame) for part in [sample.of(sample.frame == k)]]
    found = [x for x in found if np.isfinite(x)]
    return float(np.mean(found)) if found else np.nan


def reliability(z: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " levels"]]:
    """Return levels and the share of errors, in units of their deviations, within normal intervals of these levels."""
    from scipy.stats import norm

    levels = (np.arange(PARTS) + 0.5) / PARTS
    ranked = np.sort(np.abs(z))
    return levels, np.searchsorted(ranked, norm.ppf(0.5 + levels / 2), side="right") / len(z)


def miscalibration(z: Float[np.ndarray, " n"]) -> float:
    """Compute the area between the reliability curve and the diagonal: 0 is perfect, 0.5 the worst."""
    levels, seen = reliability(z)
    return float(np.mean(np.abs(seen - levels)))


def retention(error: Float[np.ndarray, " n"], order: Float[np.ndarray, " n"]) -> Float[np.ndarray, " parts"]:
    """Compute the root mean square error of the shares 1 / PARTS to 1 of values that are first in ``order``."""
    squares = np.cumsum(error[np.argsort(order, kind="stable")] ** 2)
    counts = np.maximum(1, np.round(np.arange(1, PARTS + 1) / PARTS * len(error)).astype(int))
    return np.sqrt(squares[counts - 1] / counts)


def retained(sample: Sample) -> float:
    """Compute the area under the retention curve, most certain first, over that in an order by chance."""
    whole = np.sqrt(np.mean(sample.error**2))
    return float(np.mean(retention(sample.error, sample.raw)) / max(whole, LEAST))


def auroc(known: Float[np.ndarray, " n"], new: Float[np.ndarray, " m"]) -> float:
    """Compute the probability that a new environment has a larger value than a known one, ties counting half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([new, known]))
    return float((ranks[: len(new)].sum() - len(new) * (len(new) + 1) / 2) / (len(new) * len(known)))


COLUMNS = (
    ("rmse", "RMSE"), ("sharpness", "deviation"), ("spearman", "rank"), ("spearman_within", "rank in frames"), ("nll", "NLL"),
    ("crps", "CRPS"), ("miscalibration", "miscalibration"), ("normal_90", "normal 90%"), ("coverage_90", "90% held"),
    ("retained", "retained"),
)  # fmt: skip
"""Keys of ``assess`` with headings of the printed table."""


def table_rows(
    tables: Mapping[str, Mapping[str, Mapping[str, float]]], units: Mapping[str, tuple[str, float]]
) -> list[list[str]]:
    """Format results as rows of cells, the first of which holds the headings.

    Args:
        tables: results of ``assess`` by the name of the method and of the deviation.
        units: unit and factor from eV and Å to it, by the name of the deviation.
    """
    lines = [["", "", *(heading for _, heading in COLUMNS), "unit"]]
    for name in dict.fromkeys(name for table in tables.values() for name in table):
        unit, factor = units[name]
        for method, table in tables.items():
            if name in table:
                scaled = {
                    key: value * (factor if key in ("rmse", "sharpness", "crps") else 1) for key, value in table[name].items()
                }
                if "nll" in scaled:
                    # That of a density, which changes with the unit.
                    scaled["nll"] += np.log(factor)
                show = lambda key, scaled=scaled: f"{scaled[key]:.3g}" if np.isfinite(scaled.get(key, np.nan)) else ""
                lines.append([name, method, *(show(key) for key, _ in COLUMNS), unit])
    return lines


def table_text(lines: Sequence[Sequence[str]]) -> str:
    """Format rows of cells, headings first, as a Markdown table."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    row = lambda line: "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
    return "\n".join([row(lines[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(row, lines[1:])])


def plot(samples: Mapping[str, Sample], units: Mapping[str, tuple[str, float]], path: Any) -> None:
    """Draw for each deviation: errors against deviations, the reliability curve, and the error that remains."""
    import matplotlib
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from equipot.figures import BLUE, GREY, ORANGE, STYLE, empty_figure, save_figure

    with matplotlib.rc_context(STYLE):
        figure = empty_figure(9.6, 3.0 * len(samples))
        grid = figure.subplots(len(samples), 3, squeeze=False)
        for axes, (name, sample) in zip(grid, samples.items(), strict=True):
            (unit, factor), whole = units[name], sample.whole
            of = name.removesuffix("_std")
            chosen = np.random.default_rng(0).permutation(len(whole.raw))[:4000]
            sigma, error = factor * whole.raw[chosen], factor * whole.error[chosen]
            low, high = np.quantile(sigma, [0.001, 0.999])
            axes[0].scatter(sigma, np.abs(error), s=3, color=BLUE, alpha=0.3, lw=0)
            axes[0].plot([low, high], [low, high], color=ORANGE, lw=1)
            parts = [part for part in np.array_split(np.argsort(whole.raw), 10) if len(part)]
            mean = lambda x, parts=parts: [factor * np.sqrt(np.mean(x[part] ** 2)) for part in parts]  # noqa: B023
            axes[0].plot(mean(whole.raw), mean(whole.error), "o-", color="black", ms=3, lw=1, label="rms of a tenth")
            wide = high > 4 * low
            axes[0].set(
                xscale="log" if wide else "linear",
                yscale="log",
                xlabel=f"deviation ({unit})",
                ylabel=f"error ({unit})",
                title=of,
            )
            if wide:
                axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))
                axes[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes[0].xaxis.set_minor_formatter(NullFormatter())
            axes[0].legend(fontsize=7)
            levels, seen = reliability(sample.error / np.maximum(sample.raw, LEAST))
            axes[1].plot(levels, seen, color=BLUE)
            axes[1].plot([0, 1], [0, 1], color=ORANGE, lw=1)
            axes[1].set(
                xlabel="level of a normal interval", ylabel="errors within", title="reliability", xlim=(0, 1), ylim=(0, 1)
            )
            share = np.arange(1, PARTS + 1) / PARTS
            axes[2].plot(share, factor * retention(whole.error, whole.raw), color=BLUE, label="by deviation")
            axes[2].plot(share, factor * retention(whole.error, np.abs(whole.error)), color=GREY, lw=1, label="by error")
            axes[2].axhline(factor * np.sqrt(np.mean(whole.error**2)), color=ORANGE, lw=1, label="by chance")
            axes[2].set(xlabel="share kept, most certain first", ylabel=f"RMSE ({unit})", title="retention", xlim=(0, 1))
            axes[2].set_ylim(bottom=0)
            axes[2].legend(fontsize=7)
        save_figure(figure, path)
