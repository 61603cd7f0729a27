"""Result files as Markdown tables."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import constitutive
from benchmarks.crystals.tables import crystals
from benchmarks.hessian_tables import hessian_steps, hessians
from benchmarks.markdown import markdown
from benchmarks.relaxation_tables import relaxation

README = Path(__file__).parent / "README.md"
PLACE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""Where the table of an item belongs, by the name of its result files without the date."""


def fill(readme: Path, results: Path) -> None:
    """Puts the table of the newest result file of each item into its place; without a file a place is left as it is."""

    def newest(place: re.Match) -> str:
        found = sorted(results.glob(f"{place[2]}-[0-9]*-[0-9][0-9]-[0-9][0-9].json"))
        if not found:
            return place[0]
        title, _, rest = text(found[-1:]).partition("\n")
        return f"{place[1]}\n**{title.removeprefix('### ')}.** {rest.strip()}\n\n{place[3]}"

    readme.write_text(PLACE.sub(newest, readme.read_text()))


def text(files: Sequence[Path]) -> str:
    """One section for each file."""
    return "\n\n".join(section(json.loads(path.read_text())) for path in files)


def section(record: dict[str, Any]) -> str:
    """The table of one result file, under a line that says where it was measured."""
    machine, versions = record["machine"], record["versions"]
    results = record["results"]
    where = results[0].get("device", "") if results else ""
    cores = results[0].get("cores_used", machine["cores"]) if results else machine["cores"]
    settings = "".join(f", {name}={value}" for name, value in machine["settings"].items())
    load = [record[when]["load_average"][0] for when in ("before", "after")]
    head = (
        f"### {record['item']}, {record['before']['date'][:10]}\n\n"
        f"`{record['command']}` on {machine['cpu']}, {cores} of {machine['cores']} cores, {where or 'CPU'}{settings}; "
        f"load average {load[0]} before and {load[1]} after; equipot {versions['equipot']} ({versions['commit']}), "
        f"jax {versions['jax']}, Python {versions['python']}.\n\n"
    )
    return head + TABLES[record["item"]](results)


def scaling(results: Sequence[dict[str, Any]]) -> str:
    header = (
        "over", "value", "atoms", "edges", "CPU ms/atom", "least", "wall ms/atom", "least", "temp kB/atom", "peak RSS MB",
        "compile s",
    )  # fmt: skip
    rows = [
        (
            r.get("over", "atoms"), r.get("value", r["atoms"]), r["atoms"], r["edges"], r["cpu_ms_per_atom"],
            r["cpu_ms_min_per_atom"], r["wall_ms_per_atom"], r["wall_ms_min_per_atom"],
            r["temp_bytes_per_atom"] / 1e3 if "temp_bytes_per_atom" in r else None, round(r["peak_rss_MB"]), r["compile_s"],
        )
        for r in results
    ]  # fmt: skip
    return markdown(header, rows)


def rounded(x: float | None) -> int | None:
    return None if x is None else round(x)


def speed(results: Sequence[dict[str, Any]]) -> str:
    header = (
        "what", "model", "system", "atoms", "edges", "CPU ms", "least", "wall ms", "least", "compile s", "from cache",
        "peak RSS MB", "from cache",
    )  # fmt: skip
    rows = [
        (
            r["case"], r["arguments"]["model"], f"{r['frames']} x {r['arguments']['system']}", r["atoms"],
            r["edges"], r["cpu_ms"], r["cpu_ms_min"], r["wall_ms"], r["wall_ms_min"], r.get("compile_s"),
            r.get("cached_compile_s"), round(r["peak_rss_MB"]), rounded(r.get("cached_peak_rss_MB")),
        )
        for r in results
    ]  # fmt: skip
    return markdown(header, rows)


def dynamics(results: Sequence[dict[str, Any]]) -> str:
    header = ("atoms", "what", "slots", "CPU ms", "least", "wall ms", "least")
    parts = (
        ("bare evaluation", "evaluation"), ("evaluation in the list", "evaluation_in_list"), ("building the list", "list"),
        ("MD step, all included", "step"),
    )  # fmt: skip
    slots = lambda r, name: r["slots"] if name == "evaluation" else r["list"]["slots"]
    rows = [
        (r["atoms"], label, slots(r, name), *(r[name][key] for key in ("cpu_ms", "cpu_ms_min", "wall_ms", "wall_ms_min")))
        for r in results
        for label, name in parts
    ]
    ratios = "; ".join(f"{r['atoms']} atoms {r['step_over_evaluation']:.2f}" for r in results)
    return f"{markdown(header, rows)}\n\nStep over bare evaluation (least CPU): {ratios}."


def accuracy(results: Sequence[dict[str, Any]]) -> str:
    header = ("task", "error", "equipot", "published", "minutes", "epochs", "source")
    rows = [
        (
            r["task"], f"{q['name']}, {q['unit']}", f"{q['value']:.3g}",
            ", ".join(f"{who} {value:g}" for who, value in q["published"].items()),
            round(r["minutes"]), r["epochs"], r["source"].partition(",")[0],
        )
        for r in results
        for q in r["quantities"]
    ]  # fmt: skip
    sources = "\n".join(f"- {source}" for source in dict.fromkeys(r["source"] for r in results))
    settings = sorted({setting for r in results for setting in r["overrides"]})
    return f"{markdown(header, rows)}\n\nSources:\n{sources}" + (f"\n\nOverrides: {', '.join(settings)}" if settings else "")


def materials(results: Sequence[dict[str, Any]]) -> str:
    header = ("solid", "a, Å", "published", "B, GPa", "published", "source of the published")
    keys = ("solid", "lattice_constant", "published_lattice_constant", "bulk_modulus", "published_bulk_modulus", "source")
    return markdown(header, [[r[key] for key in keys] for r in results])


def charge_states(results: Sequence[dict[str, Any]]) -> str:
    header = ("set", "model", "state", "energy MAE, meV", "least without states", "force MAE, meV/Å")
    rows = [
        (r["set"], r["model"], state, e["energy_mae_meV"], e.get("least_meV"), e["force_mae_meV_per_A"])
        for r in results
        for state, e in r["states"].items()
    ]
    return markdown(header, rows)


def long_range(results: Sequence[dict[str, Any]]) -> str:
    header = ("set", "model", "part", "energy RMSE, meV", "force RMSE, meV/Å", "charge RMSE, e", "minutes")
    rows = [
        (r["set"], r["variant"], part, e["energy_meV"], e["force_meV_per_A"], e.get("charge_e"), r["minutes"])
        for r in results
        for part, e in r["errors"].items()
    ]
    return markdown(header, rows)


def separation(results: Sequence[dict[str, Any]]) -> str:
    header = ("system", "model", "exponent of the energy", "energy x distance, eV Å", "charge of the first fragment, e")
    curves = [r for r in results if r["model"] != "data"]
    end = lambda r: r["first_charge_e"][-1] if "first_charge_e" in r else None
    rows = [(r["system"], r["model"], r["exponent"], r["energy_times_distance_eV_A"], end(r)) for r in curves]
    return markdown(header, rows)


def uncertainty(results: Sequence[dict[str, Any]]) -> str:
    known = lambda x: None if x is None or x != x else x
    keys = ("spearman", "spearman_within", "nll", "miscalibration", "normal_90", "coverage_90", "retained")
    header = (
        "task",
        "frames",
        "deviation",
        "method",
        "rank",
        "in frames",
        "NLL",
        "miscalibration",
        "normal 90%",
        "90% held",
        "retained",
    )
    methods = lambda r: r.get("methods", {}) | ({"ensemble": r["ensemble"]} if "ensemble" in r else {})
    rows = [
        (r["task"], test, row, method, *(known(scores.get(key)) for key in keys))
        for r in results
        for method, tests in methods(r).items()
        for test, table in tests.items()
        for row, scores in table.items()
    ]
    rows.sort(key=lambda row: row[:3])
    told = [
        (r["task"], name, test, x["auroc"].get(test), x.get("auroc_of_largest", {}).get(test), share)
        for r in results
        for name, x in r.get("novelty", {}).items()
        for test, share in x["beyond"].items()
    ]
    new = [(r["task"], name, x) for r in results for name, x in r.get("new", {}).items() if name != "atoms"]
    cost = [(r["task"], name, x) for r in results for name, x in r.get("cost", {}).items()]
    cost += [(r["task"], f"ensemble, {name}", x) for r in results for name, x in r.get("ensemble_cost", {}).items()]
    tables = [
        markdown(header, rows),
        markdown(("task", "novelty", "frames", "AUROC of atoms", "of frames", "share beyond 1"), told),
        markdown(("task", "bonds missing, against crystals and melts", "AUROC"), new),
        markdown(("task", "with", "time over that without"), cost),
    ]
    return "\n\n".join(tables)


def delta(results: Sequence[dict[str, Any]]) -> str:
    header = ("set", "learned", "energy MAE, meV/atom", "energy MAE, meV", "force MAE, meV/Å", "steps", "minutes")
    keys = ("energy_mae_per_atom", "energy_mae", "forces_mae")
    test = lambda r: [1e3 * r["errors"]["test"][key] for key in keys]
    return markdown(header, [(r["set"], r["learned"], *test(r), r["steps"], r["minutes"]) for r in results])


def walls(results: Sequence[dict[str, Any]]) -> str:
    hot = [r for r in results if "wall" in r]
    header = ("system", "seed", "wall", "closest over radii", "fused after fs", "lowest energy, eV")
    keys = ("system", "seed", "wall", "closest_over_radii", "fused_after_fs", "lowest_energy_eV")
    rows = [[key, value] for r in results if "model" in r for key, value in r.items()]
    return f"{markdown(header, [[r[key] for key in keys] for r in hot])}\n\n{markdown(('of the potential', ''), rows)}"


def coulomb(results: Sequence[dict[str, Any]]) -> str:
    header = ("atoms", "program", "mesh", "CPU ms", "least", "µs/atom", "x equipot", "force error, rms, eV/Å", "largest")
    keys = ("ratio_to_equipot", "force_error_rms", "force_error_max")
    rows = [
        (
            r["atoms"], name, "x".join(map(str, f.get("mesh", ()))), f["cpu_ms"], f["cpu_ms_min"],
            1e3 * f["cpu_ms_min"] / r["atoms"], *(f.get(key) for key in keys),
        )
        for r in results if r["work"] == "salt"
        for name, f in r["programs"].items()
    ]  # fmt: skip
    parts = [markdown(header, rows)]
    for r in (r for r in results if r["work"] == "water"):
        alone = r["step"]["network"]["cpu_ms_min"]
        steps = [(name, f["cpu_ms"], f["cpu_ms_min"], f["cpu_ms_min"] / alone) for name, f in r["step"].items()]
        parts.append(
            f"A step of {r['atoms']} atoms of water:\n\n{markdown(('model', 'CPU ms', 'least', 'over the network'), steps)}"
        )
    rms = "; ".join(f"{r['atoms']} atoms {r['force_rms']:.3g}" for r in results if "force_rms" in r)
    return "\n\n".join([*parts, f"The forces themselves are, rms, in eV/Å: {rms}."])


def roofline(results: Sequence[dict[str, Any]]) -> str:
    header = (
        "work", "program", "GFLOP", "MB", "arithmetic ms", "memory ms", "CPU ms", "least", "wall ms", "least",
        "over the bound", "temp MB", "XLA GFLOP", "XLA MB",
    )  # fmt: skip
    times = ("cpu_ms", "cpu_ms_min", "wall_ms", "wall_ms_min", "over_bound")
    rows = [
        (
            r["work"], name, 1e-9 * sum(f["flop"].values()), 1e-6 * f["bytes"], f["arithmetic_ms"], f["memory_ms"],
            *(f[key] for key in times), 1e-6 * f["temp_bytes"], 1e-9 * f["xla_flop"], 1e-6 * f["xla_bytes"],
        )
        for r in results
        for name, f in r["programs"].items()
    ]  # fmt: skip
    counts = "\n".join(
        f"- {r['work']}, {name}: " + ", ".join(f"{what} {1e-9 * n:.3g}" for what, n in f["flop"].items()) + " GFLOP"
        for r in results
        for name, f in r["programs"].items()
    )
    peaks = [
        f"{r['work']}: matrix products {r['numpy_GFLOP_per_s']:.0f} (numpy) and {r['xla_GFLOP_per_s']:.0f} (XLA) GFLOP/s, "
        f"memory {r['numpy_GB_per_s']:.1f} and {r['xla_GB_per_s']:.1f} GB/s"
        for r in results
    ]
    return f"{markdown(header, rows)}\n\n{'; '.join(peaks)}. Counts:\n\n{counts}"


def gpu(results: Sequence[dict[str, Any]]) -> str:
    header = (
        "network", "atoms", "device", "evaluation µs/atom", "MD step µs/atom", "MD step ms", "ns/day at 1 fs", "device MB",
        "compile s", "note",
    )  # fmt: skip
    rows = [
        (
            r["network"], r["atoms"], r.get("device", ""), r.get("evaluation_us_per_atom"), r.get("step_us_per_atom"),
            r.get("step", {}).get("wall_ms"), r.get("ns_per_day_at_1_fs"), r.get("peak_device_MB"),
            r.get("evaluation", {}).get("compile_s"), r.get("failed", ""),
        )
        for r in results
    ]  # fmt: skip
    fits: dict[str, int] = {}
    for r in results:
        if "failed" not in r:
            fits[r["network"]] = max(r["atoms"], fits.get(r["network"], 0))
    return f"{markdown(header, rows)}\n\nLargest that fitted: {', '.join(f'{k} {n} atoms' for k, n in fits.items())}."


def sevennet(results: Sequence[dict[str, Any]]) -> str:
    header = ("atoms", "pairs", "equipot, CPU ms", "sevenn, CPU ms", "ratio", "energies differ by, eV/atom")
    rows = [
        (r["atoms"], r["pairs"], r["cpu_ms"]["equipot"], r["cpu_ms"]["sevenn"], r["ratio"], r["difference_eV_per_atom"])
        for r in results
    ]  # fmt: skip
    return markdown(header, rows)


def peers(results: Sequence[dict[str, Any]]) -> str:
    header = (
        "work", "atoms", "pairs", "program", "CPU ms", "least", "wall ms", "least", "peak RSS MB", "first call s",
        "x equipot", "x compressed", "energy apart, eV/atom", "force apart, eV/Å",
    )  # fmt: skip
    keys = (
        "cpu_ms", "cpu_ms_min", "wall_ms", "wall_ms_min", "peak_rss_MB", "first_call_s", "ratio_to_equipot",
        "ratio_to_equipot_compressed", "energy_difference_eV_per_atom", "force_difference_max",
    )  # fmt: skip
    rows = [
        (r["work"], r["atoms"], r["pairs"], name, *(round(f[k]) if k == "peak_rss_MB" else f.get(k) for k in keys))
        for r in results
        for name, f in r["programs"].items()
    ]
    kind = {"cpu_ms_min": "CPU", "wall_ms_min": "wall"}[results[0]["ratio_of"]]
    notes = [f"Ratios are of the least {kind} times; GLIBC_TUNABLES={results[0]['malloc']} for all."]
    forces = "; ".join(f"{r['work']} {r['force_rms']:.3g} ({r['force_max']:.3g})" for r in results if "force_rms" in r)
    if forces:
        notes.append(f"Apart from mace-torch in double precision, whose forces are, rms (largest) in eV/Å: {forces}.")
    notes += [f"{r['work']}: {name} failed ({why})." for r in results for name, why in r["failed"].items()]
    versions = {f"{k} {v}" for r in results for f in r["programs"].values() for k, v in f["versions"].items()}
    return f"{markdown(header, rows)}\n\n{chr(10).join(notes)}\nVersions: {', '.join(sorted(versions))}."


def finetune(results: Sequence[dict[str, Any]]) -> str:
    header = (
        "element", "run", "set", "energy MAE, meV/atom", "of the base", "force MAE, meV/Å", "of the base", "frames", "minutes",
    )  # fmt: skip
    rows = []
    for r in results:
        for name, errors in r["errors"].items():
            if name.partition(".")[0] not in ("training", "validation"):
                base = (r["errors_of_base"] or {}).get(name, {})
                values = [1e3 * e[k] if k in e else None for k in ("energy_mae_per_atom", "forces_mae") for e in (errors, base)]
                rows.append(
                    (r.get("element", "Si"), r["run"], name.partition(".")[0], *values, errors["frames"], round(r["minutes"]))
                )
    return markdown(header, rows)


def experiments(results: Sequence[dict[str, Any]]) -> str:
    """Mean absolute errors of judges and, at the end, of training frames, of each experiment on each set, over folds."""
    header = (
        "experiment", "settings", "set", "folds", "energy MAE, meV/atom", "in training", "force MAE, meV/Å", "in training",
        "CPU minutes",
    )  # fmt: skip
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in results:
        groups.setdefault((r["experiment"], r["set"]), []).append(r)
    mean = lambda found, *path: sum(functools.reduce(lambda x, key: x[key], path, r) for r in found) / len(found)
    rows = []
    for (name, key), found in groups.items():
        energy, forces = "energy_mae_per_atom", "forces_mae"
        judged = [1e3 * mean(found, "errors", "test", error) for error in (energy, forces)]
        trained = [1e3 * mean(found, "last", f"train_{error}") for error in (energy, forces)]
        changes = ", ".join(text.removeprefix("training.").removeprefix("model.") for text in found[0]["settings"])
        rows.append((name, changes, key, len(found), judged[0], trained[0], judged[1], trained[1], mean(found, "cpu_minutes")))
    return markdown(header, rows)


def cost(results: Sequence[dict[str, Any]]) -> str:
    """Errors of test frames after a budget of minutes on one core, by program."""
    shown = {
        "energy_mae_per_atom": "energy MAE, meV/atom", "energy_rmse": "energy RMSE, meV",
        "forces_mae": "force MAE, meV/Å", "forces_rmse": "force RMSE, meV/Å",
    }  # fmt: skip
    errors = lambda r: (1e3 * r["errors"][name] for name in shown)
    rows = [(r["set"], r["program"], r["minutes"], r["spent"], r["epochs"], *errors(r)) for r in results]
    return markdown(("set", "program", "minutes asked for", "spent", "epochs", *shown.values()), rows)


TABLES = {
    "scaling": scaling, "speed": speed, "md": dynamics, "accuracy": accuracy, "materials": materials, "peers": peers,
    "sevennet": sevennet, "roofline": roofline, "gpu": gpu, "finetune": finetune,
    "charge-states": charge_states, "walls": walls, "long-range": long_range, "separation": separation,
    "delta": delta, "coulomb": coulomb, "uncertainty": uncertainty, "experiments": experiments,
    "cost": cost, "hessians": hessians, "hessian-steps": hessian_steps, "constitutive": constitutive.table,
    "relaxation": relaxation, "crystals": crystals,
}  # fmt: skip
