# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How far to trust a potential
#
# A trained potential gives a number for every structure, also for those that it knows nothing about. This page gives a
# small potential for ethanol an estimate of its own errors, checks whether the estimate is right, and uses it: for
# structures unlike the data, in molecular dynamics, and for a result that is computed from many evaluations.
#
# The data come with the package. The reference method is GFN2-xTB: good for learning, not for science. `tutorial.ipynb`
# explains what this page takes for granted. Units are eV and Å.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.io import read, write

import equipot
from equipot import uncertainty
from equipot.data import bundled

FAST = bool(os.environ.get("EQUIPOT_TUTORIAL_FAST"))  # The test suite runs this page with next to no training.
RUNS = Path("runs/uncertainty")
RUNS.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, GREY = "#20639b", "#d1603d", "#8a8f98"
plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1. Data and a potential
#
# The frames come from molecular dynamics at 300, 600 and 1000 K. Those at 1000 K are left out of everything that makes
# the potential and its estimate: they play the part of what is met later. Of the others, three in eight are kept for the
# calibration, which has to see frames that were not trained on. The test frames come from trajectories of their own.
# (All sets are multiples of a batch of 20, so that fewer shapes have to be compiled.)

# %%
is_hot = lambda frame: frame.info["config_type"] == "md_1000K"
frames, others = bundled.load("ethanol/train"), bundled.load("ethanol/test")
free = [frame for frame in frames if len(frame) == 1]
known = [frame for frame in frames if len(frame) > 1 and not is_hot(frame)]
calibration = [frame for k, frame in enumerate(known) if k % 8 in (0, 3, 6)]
valid = known[4::8]
train = [frame for k, frame in enumerate(known) if k % 8 in (1, 2, 5, 7)]
test = [frame for frame in others if not is_hot(frame)]
hot = [frame for frame in frames + others if is_hot(frame)][:100]
batch = {"batch_size": 20}
for name, chosen in (("train", free + train), ("valid", valid), ("calibration", calibration), ("test", test), ("hot", hot)):
    write(RUNS / f"{name}.xyz", [frame.to_ase() for frame in chosen])
print(f"to train {len(train)}, to validate {len(valid)}, to calibrate {len(calibration)}, to test {len(test)}, hot {len(hot)}")

# %%
from equipot import config
from equipot.training import TrainConfig
from equipot.training import train as fit

(RUNS / "config.yaml").write_text(f"""
data:
  train: {RUNS}/train.xyz
  valid: {RUNS}/valid.xyz
model:
  kind: MACE
  cutoff: 4.5
  channels: 16
  hidden_l: 0
  l_max: 2
  correlation: 2
  radial:
    mlp: [32, 32]
training:
  epochs: 40
  batch_size: 4
  optimizer:
    kind: Muon
    learning_rate: 0.01
""")
small = "training.epochs=4 model.channels=4 model.l_max=1 model.layers=1 model.correlation=1 model.radial.mlp=[8]"
settings = config.load(RUNS / "config.yaml", TrainConfig, small.split() if FAST else [])
best = fit(settings, RUNS / "train", progress=False)
bare = equipot.load(best)

# %% [markdown]
# ## 2. An estimate of the errors
#
# `fit` gives the weights of the last linear layer a posterior from the structures of the training set, and scales the
# deviations so that they are those of the errors on the calibration frames, each element by itself. The potential
# predicts as before. On the command line:
#
#     equipot uncertainty best.eqp --data train.xyz --calibrate calibration.xyz --test test.xyz -o sure.eqp --out report

# %%
potential = uncertainty.fit(bare, train, calibrate=calibration, **batch)
equipot.save(potential, RUNS / "sure.eqp")

want = ("energy", "energy_std", "forces", "forces_std", "novelty")
frame = test[0]
out = equipot.evaluate(potential, frame, want=want)
half = uncertainty.half_width(potential, "forces_std", 0.9, frame.numbers)
half_energy = float(uncertainty.half_width(potential, "energy_std", 0.9))
print(f"energy {out.energy[0]:.3f} ± {half_energy * out.others['energy_std'][0]:.3f} eV (90%), reference {frame.energy:.3f} eV")
print("     force along x ± half of the interval of 90%, reference (eV/Å); novelty")
for k, symbol in enumerate(frame.to_ase().symbols):
    interval = half[k] * out.others["forces_std"][k]
    print(f"  {symbol}  {out.forces[k, 0]:+.3f} ± {interval:.3f}   {frame.forces[k, 0]:+.3f}   {out.others['novelty'][k]:.2f}")

# %% [markdown]
# `energy_std` is the standard deviation of the energy, `forces_std` that of each component of the force on an atom.
# `half_width` makes intervals of them. `novelty` needs no labels: it is the distance of the environment of an atom from
# those of the training set, and 1 is as far as the farthest per cent of these.
#
# ASE has the same numbers by the names of the properties:

# %%
atoms = frame.to_ase()
atoms.calc = potential.calculator()
print("forces_std (eV/Å): ", np.round(atoms.calc.get_property("forces_std", atoms), 3))

# %% [markdown]
# ## 3. Is the estimate right?
#
# That is to be measured on frames that neither training nor calibration has seen. Any estimate has to beat one that is
# free: the norm of the features of an atom, calibrated in the same way. `with_statistics` makes it from the sums that
# the potential holds already.

# %%
from equipot.quantities import ENERGY_STD, FORCES_STD
from equipot.uncertainty.calibration import compare
from equipot.uncertainty.diagnostics import assess, reliability

statistics = potential.posterior.statistics
norm = uncertainty.with_statistics(bare, statistics, uncertainty.FeatureNorm(), "the training set")
norm = uncertainty.calibrated(norm, calibration, uncertainty.Linear(), **batch)

sets = {"test": test, "1000 K": hot}
rows = (ENERGY_STD, FORCES_STD)


def judged(model):
    """Errors and deviations on both sets, and what follows from them: [set][name of the deviation]."""
    samples = {name: compare(model, chosen, rows, **batch) for name, chosen in sets.items()}
    known = model.posterior.calibrations
    return samples, {name: {d: assess(x, known[d]) for d, x in found.items()} for name, found in samples.items()}


def show(label, results):
    for name in sets:
        e, f = (results[name][row.name] for row in rows)
        print(
            f"{label:17} {name:7}  {1e3 * e['rmse']:6.1f} {1e3 * e['sharpness']:9.1f} {e['coverage_90']:9.0%}     "
            f"{1e3 * f['rmse']:6.0f} {1e3 * f['sharpness']:9.0f} {f['coverage_90']:9.0%} {f['spearman']:7.2f}"
        )


HEAD = f"""{"":25}     energy (meV)                  forces (meV/Å)
{"":25}    RMSE deviation in 90%         RMSE deviation in 90%    rank"""
samples, results = judged(potential)
samples_norm, results_norm = judged(norm)
print(HEAD)
show("last layer", results)
show("norm of features", results_norm)

# %% [markdown]
# "Deviation" is the root mean square of the predicted deviations, which should be near the root mean square error.
# "In 90%" is the share of errors within their intervals of 90%. "Rank" is the rank correlation of the size of the force
# error on an atom with its deviation: 1 is perfect order, 0 is chance. It is never near 1, because a deviation is only
# the width of a distribution, from which each error is one draw.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
for name, colour in (("test", BLUE), ("1000 K", ORANGE)):
    atomic = samples[name]["forces_std"].whole
    axes[0].loglog(1e3 * atomic.raw, 1e3 * atomic.error, ".", color=colour, markersize=2, alpha=0.3, rasterized=True)
    tenths = np.array_split(np.argsort(atomic.raw), 10)
    mean = lambda x: [1e3 * np.sqrt(np.mean(x[tenth] ** 2)) for tenth in tenths]
    axes[0].plot(mean(atomic.raw), mean(atomic.error), "o-", color=colour, markeredgecolor="white", label=name)
    for axis, row in zip(axes[1:], rows[::-1]):
        for made, style in ((samples, "-"), (samples_norm, ":")):
            sample = made[name][row.name]
            axis.plot(*reliability(sample.error / sample.raw), style, color=colour, label=name if style == "-" else None)
axes[0].axline((100, 100), (200, 200), color=GREY, linewidth=0.8)
axes[0].xaxis.set(major_locator=plt.LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=plt.NullFormatter())
axes[0].set(xlabel="deviation of the force (meV/Å)", ylabel="error of the force (meV/Å)", title="errors and deviations")
axes[0].set_ylim(bottom=1)
axes[0].legend(title="rms of a tenth")
for axis, name in zip(axes[1:], ("forces", "energies")):
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axis.set(xlabel="level of a normal interval", ylabel="share of errors within", title=f"reliability, {name}")
axes[2].plot([], [], ":", color="black", label="norm of the features")
axes[2].legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# Left, every point is an atom; circles are root mean squares of tenths of the atoms, in the order of their deviations.
# On the grey line deviations are right. On the test frames they are: the intervals hold about what they promise.
#
# The frames at 1000 K are of another kind than those of the calibration, and the promise does not extend to them. The
# deviations are larger there, and the order of the atoms is as good or better, but errors grow faster than deviations,
# most of all those of energies. A curve below the grey line means intervals that are too narrow.
#
# If such frames matter, the remedy is to label some of them. Calibrated on forty of the hot frames, the intervals
# hold for the other hot frames:

# %%
some, rest = [f for k, f in enumerate(hot) if k % 5 < 2], [f for k, f in enumerate(hot) if k % 5 >= 2]
if not FAST:
    anew = uncertainty.calibrated(potential, some, uncertainty.Linear(), **batch)
    for name, sample in compare(anew, rest, rows, **batch).items():
        print(f"{name:10}  {assess(sample, anew.posterior.calibrations[name])['coverage_90']:.0%} in intervals of 90%")

# %% [markdown]
# ## 4. A bond is stretched
#
# Now something that is in none of the frames: the C-O bond of the relaxed molecule is drawn out to 2.6 Å, and the rest
# stays as it is. The energies of GFN2-xTB were made with tblite 0.8.

# %%
from ase import Atoms

RELAXED = Atoms("C2OH6", [
    [1.17782, -0.40503, 0.0], [-0.00314, 0.55295, 0.0], [-1.19434, -0.20642, 0.0], [-1.95072, 0.38823, 0.0],
    [0.03846, 1.19696, 0.89103], [0.03846, 1.19696, -0.89103], [2.1106, 0.1518, 0.0], [1.13627, -1.03859, 0.88153],
    [1.13627, -1.03859, -0.88153],
])  # fmt: skip
lengths = np.arange(1.2, 2.61, 0.1)
xtb = np.array([-308.843, -309.726, -309.986, -309.878, -309.556, -309.112, -308.608, -308.082, -307.563, -307.071])
xtb = np.append(xtb, [-306.618, -306.210, -305.851, -305.540, -305.274])  # eV

stretched = []
for length in lengths:
    atoms = RELAXED.copy()
    along = atoms.positions[2] - atoms.positions[1]
    atoms.positions[[2, 3]] += (length / np.linalg.norm(along) - 1) * along
    stretched.append(atoms)
found = equipot.evaluate_each(potential, stretched, want=want, **batch)
energy, deviation = (np.ravel([x.energy for x in found]), np.ravel([x.others["energy_std"] for x in found]))
largest = {name: np.array([np.max(x.others[name]) for x in found]) for name in ("forces_std", "novelty")}
bonds = [np.linalg.norm(frame.positions[2] - frame.positions[1]) for frame in train]

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
axes[0].fill_between(
    lengths, energy - half_energy * deviation - xtb[2], energy + half_energy * deviation - xtb[2], color=BLUE, alpha=0.3, lw=0
)
axes[0].plot(lengths, energy - xtb[2], color=BLUE, label="potential, 90%")
axes[0].plot(lengths, xtb - xtb[2], "o", color="black", markersize=3, label="GFN2-xTB")
axes[0].set(ylabel="energy (eV)")
axes[1].semilogy(lengths, np.abs(energy - xtb), "o", color="black", markersize=3, label="error")
axes[1].semilogy(lengths, deviation, color=BLUE, label="deviation")
axes[1].set(ylabel="of the energy (eV)")
axes[2].semilogy(lengths, largest["novelty"], color=ORANGE, label="novelty")
axes[2].semilogy(lengths, largest["forces_std"], color=BLUE, label="deviation of a force (eV/Å)")
axes[2].axhline(1, color=ORANGE, linewidth=0.8, linestyle=":")
axes[2].set(ylabel="largest of all atoms")
for axis in axes:
    axis.axvspan(min(bonds), max(bonds), color=GREY, alpha=0.15, lw=0)
    axis.set(xlabel="C-O distance (Å)")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1))
plt.show()

outside = (lengths < min(bonds)) | (lengths > max(bonds))
held = np.abs(energy - xtb) <= half_energy * deviation
print(f"C-O distances of the training set: {min(bonds):.2f} to {max(bonds):.2f} Å (grey)")
print(f"energies within their intervals of 90%: {held[~outside].sum()} of {(~outside).sum()} inside, "
      f"{held[outside].sum()} of {outside.sum()} outside")  # fmt: skip
print(f"novelty above 1: {(largest['novelty'] > 1)[outside].sum()} of {outside.sum()} outside")
print(f"at {lengths[-1]:.1f} Å: error {abs(energy - xtb)[-1]:.2f} eV, deviation {deviation[-1]:.2f} eV, "
      f"novelty {largest['novelty'][-1]:.1f}")  # fmt: skip

# %% [markdown]
# Novelty and the deviations of forces rise as soon as the bond leaves the range of the data, and so they say *that* the
# potential is on unknown ground. The deviation of the energy hardly notices: at the end it is smaller than the error by
# two orders of magnitude. None of them says how wrong the potential is. The features of atoms change little more
# once the bond is broken, and no posterior of the last layer can know what the network before it has never seen. Take a
# large novelty for a warning that intervals are void, and not for an error bar.
#
# Which atoms is it about? `draw_deviations` colours them. The atoms of the bond are the ones whose environment
# is new:

# %%
from equipot.structure import Structure
from equipot.uncertainty.pictures import draw_deviations

k = int(np.argmin(np.abs(lengths - 1.8)))
draw_deviations(Structure.from_ase(stretched[k]), title=f"C-O at {lengths[k]:.1f} Å", **{
    name: found[k].others[name] for name in largest
})  # fmt: skip

# %% [markdown]
# ## 5. A gate in molecular dynamics
#
# A simulation may walk out of what the potential knows without any sign in its energies. A `Gate` looks at the
# deviations on the way. Limits are best taken from frames that are known to be sound. Here: `record` is what one
# atom in a hundred of the calibration frames exceeds, and no less than the largest deviation in the relaxed molecule, from
# which the run starts; `halt` is three times as much. The molecule starts at 300 K, and a thermostat heats it far beyond
# the data:

# %%
from equipot import md
from equipot.md import log

sound = compare(potential, calibration, rows, **batch)["forces_std"].raw
start = equipot.evaluate(potential, RELAXED, want=want).others["forces_std"]
record = round(float(max(np.quantile(sound, 0.99), start.max())), 3)
gate = md.Gate(record=record, halt=3 * record, every=10)
write(RUNS / "start.xyz", RELAXED)
settings = md.MDConfig(
    model=str(RUNS / "sure.eqp"),
    structure=str(RUNS / "start.xyz"),
    ensemble=md.NVTLangevin(),
    steps=200 if FAST else 4000,
    initial_temperature_K=300.0,
    temperature_K=2500.0,
    gate=gate,
)
print(f"record from {gate.record:.3f} eV/Å on, halt at {gate.halt:.3f} eV/Å")
try:
    md.run(settings, RUNS / "md", progress=False)
    print("the run reached its end")
except md.Halted as halted:
    print(halted)
recorded = RUNS / "md" / "recorded.xyz"
unsure = read(recorded, ":") if recorded.exists() and recorded.stat().st_size else []
print(f"{len(unsure)} frames in {recorded}")

# %%
lines = log.read(RUNS / "md" / "log.csv")
seen = np.isfinite(lines["max_forces_std_eV_A"])
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
axes[0].plot(lines["time_ps"], lines["temperature_K"], color=BLUE, linewidth=0.8)
axes[0].set(xlabel="time (ps)", ylabel="temperature (K)")
if seen.any():
    axes[1].plot(lines["time_ps"][seen], lines["max_forces_std_eV_A"][seen], ".-", color=BLUE, markersize=3, linewidth=0.8)
axes[1].axhline(gate.record, color=GREY, linestyle=":", label="record")
axes[1].axhline(gate.halt, color=ORANGE, linestyle=":", label="halt")
axes[1].set(xlabel="time (ps)", ylabel="largest deviation (eV/Å)", yscale="log")
axes[1].yaxis.set(major_locator=plt.LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=plt.NullFormatter())
axes[1].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
plt.show()

# %% [markdown]
# The frames in `recorded.xyz` are those worth a calculation with the reference method: label them, add them to the
# training set, and train on. The last one, coloured as above:

# %%
drawn = lambda atoms: draw_deviations(
    Structure.from_ase(atoms), atoms.arrays["forces_std"], title=f"{atoms.info['time_fs']:.0f} fs"
)
drawn(unsure[-1]) if unsure else None

# %% [markdown]
# `gate: {novelty: 3}` looks at every step instead. It needs no calibration and no further evaluation of the network:
# novelty follows from features that every evaluation of the forces computes.
#
# ## 6. The error bar of a result
#
# What is published is seldom one energy. `propagate` repeats a calculation with every sample of the posterior. Here the
# molecule is relaxed in both of its conformations, with the hydroxyl group anti and gauche; what comes out are the
# difference of the energies and the C-O bond length.

# %%
from ase.optimize import BFGS


def conformers(model):
    """Energy of anti less gauche (meV), and C-O bond length of gauche (Å)."""
    energies = []
    for dihedral in (180, 60):
        atoms = RELAXED.copy()
        atoms.set_dihedral(0, 1, 2, 3, dihedral, indices=[3])
        atoms.calc = model.calculator()
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=5 if FAST else 100)
        energies.append(atoms.get_potential_energy())
    return np.array([1e3 * (energies[0] - energies[1]), atoms.get_distance(1, 2)])


result = uncertainty.propagate(potential, conformers)
for name, value, std, reference in zip(("anti - gauche (meV)", "C-O (Å)"), result.value, result.std, (67.3, 1.4085)):
    print(f"{name:20} {value:8.4f} ± {std:.4f}   GFN2-xTB {reference}   off by {(value - reference) / std:+.1f} deviations")
print("energy differences of the members (meV):", np.round(result.members[:, 0], 1))

# %% [markdown]
# ± is one standard deviation. The error of a difference is not that of its terms: what both conformers have in
# common cancels within each member, which no rule for the propagation of independent errors would know. With eight
# members the deviation itself is known to about a quarter.
#
# ## 7. Which method?
#
# The last layer needs no labels and no training. `ShallowEnsemble` trains the spread of eight last layers on the errors
# on the training set. A committee is several networks with their own seeds; its energy is their mean, and its deviation
# is their spread. Here are three networks, the one from above and two more (`ensemble: {members: 3}` in a config does
# it in one go).

# %%
every = {"norm of features": results_norm, "last layer": results}
if not FAST:
    shallow = uncertainty.fit(bare, train, calibrate=calibration, method=uncertainty.ShallowEnsemble(), **batch)
    members = [bare]
    for seed in (1, 2):
        settings = config.load(RUNS / "config.yaml", TrainConfig, [f"seed={seed}"])
        members.append(equipot.load(fit(settings, RUNS / f"train-{seed}", progress=False)))
    committee = uncertainty.fit(uncertainty.committee(members), train, calibrate=calibration, **batch)
    for label, model in (("shallow ensemble", shallow), ("committee", committee)):
        _, every[label] = judged(model)

print(HEAD)
for label, results in every.items():
    show(label, results)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
place = np.arange(len(every))
for shift, name, colour in ((-0.2, "test", BLUE), (0.2, "1000 K", ORANGE)):
    picked = lambda key, name=name: [results[name]["forces_std"][key] for results in every.values()]
    axes[0].bar(place + shift, picked("spearman"), 0.38, color=colour, label=name)
    axes[1].bar(place + shift, picked("coverage_90"), 0.38, color=colour)
axes[0].set(ylabel="rank correlation of forces")
axes[1].set(ylabel="force errors in 90%", ylim=(0, 1.05))
axes[1].axhline(0.9, color=GREY, linewidth=0.8)
for axis in axes:
    axis.set_xticks(place, [label.replace(" ", "\n", 1) for label in every])
figure.legend(loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# One seed and one small data set do not rank methods; the README has more. What repeats itself: on frames of the kind of
# the calibration all of them hold about 90%, because calibration sees to that, and the difference is in the order. The
# committee has lower errors than one network, and costs as many trainings and evaluations as it has members. On the hot
# frames the intervals of all hold fewer than on the test frames.
#
# ## What to remember
#
# - Calibrate on frames that were not trained on; a hundred make 90% hold to a few points.
# - A calibrated deviation is right on average over frames of the same kind. It is no bound for one atom.
# - Away from these frames, deviations and novelty rise, and are too small. They tell where to look, not how wrong it is.
# - Compare with the norm of the features. An estimate that does not beat it is not worth its cost.
# - The page of `equipot uncertainty --test ... --out DIR` has these curves for your own data.
