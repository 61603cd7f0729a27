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
# # From quantum-mechanical data to molecular dynamics
#
# This tutorial walks the straight line of equipot once, on the ethanol that comes with the package:
#
#     file -> Structure -> neighbours -> Graph -> model -> energy -> forces -> training | ASE | vibrations | MD
#
# It takes a few minutes on two cores. The reference method is GFN2-xTB, which is semi-empirical: good for learning, not
# for science. The same steps work for your own data: put your file wherever this page says `bundled:ethanol`.
#
# Units are eV, Å and amu throughout, so forces are eV/Å.

# %%
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import equipot
from equipot.data import bundled

FAST = bool(os.environ.get("EQUIPOT_TUTORIAL_FAST"))  # The test suite runs this page with next to no training.
RUNS = Path("runs/tutorial")
BLUE, ORANGE, GREY = "#20639b", "#d1603d", "#8a8f98"
plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1. Data
#
# A `Structure` is one system on the host, in numpy: atomic numbers, positions, cell, and labels where they are known.
# `load` reads the bundled set; `equipot.data.read.read("train.xyz")` reads your files.

# %%
frames = bundled.load("ethanol/train")
test = bundled.load("ethanol/test")
free = [frame for frame in frames if len(frame) == 1]
train = [frame for frame in frames if len(frame) > 1]
print(f"{len(train)} training frames, {len(test)} test frames, and {len(free)} isolated atoms:")
for atom in free:
    print(f"  Z = {atom.numbers[0]}: E0 = {atom.energy:.3f} eV")
print(f"the first frame, {train[0].source}: {train[0].to_ase().symbols}, energy {train[0].energy:.3f} eV")

# %% [markdown]
# The frames come from molecular dynamics at three temperatures. Hot frames lie higher in energy and have larger forces;
# a potential for 300 K is safer when it has seen some of what lies above.

# %%
temperatures = sorted({frame.info["config_type"] for frame in train}, key=lambda name: int(name[3:-1]))
lowest = min(frame.energy for frame in train)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for name, colour in zip(temperatures, (BLUE, GREY, ORANGE)):
    chosen = [frame for frame in train if frame.info["config_type"] == name]
    energies, forces = [frame.energy - lowest for frame in chosen], np.ravel([frame.forces for frame in chosen])
    axes[0].hist(energies, bins=np.linspace(0, 2, 41), color=colour, alpha=0.6, label=name.removeprefix("md_"))
    axes[1].hist(forces, bins=np.linspace(-10, 10, 81), histtype="step", color=colour)
axes[0].set(xlabel="energy above the lowest frame (eV)", ylabel="frames")
axes[0].legend()
axes[1].set(xlabel="force component (eV/Å)", ylabel="number", yscale="log")
plt.show()

# %% [markdown]
# ## 2. The neighbour graph
#
# A model sees an atom through its neighbours within the cutoff. `neighbor_list` finds every pair, periodic images
# included, and `pad` puts one or several structures into a `Graph`: a row of neighbour *slots* for each atom, so that
# messages are sums along an axis. Unused slots point to their own atom and are masked.

# %%
from equipot.data.batch import pad
from equipot.graph import edge_vectors
from equipot.neighbors import neighbor_list

cutoff = 4.5
edges = neighbor_list(train[0].positions, train[0].cell, train[0].pbc, cutoff)
graph = pad(train[:3], cutoff)
print(f"{len(train[0])} atoms have {len(edges.centers)} directed pairs within {cutoff} Å")
print(f"a graph of three molecules: {graph.num_atoms} atoms, {graph.num_slots} slots each, {graph.slot_mask.sum()} of them used")
print("neighbours of the first atom:", graph.neighbors[0])

# %%
everything = pad(train, cutoff)
distances = np.linalg.norm(np.asarray(edge_vectors(everything)), axis=-1)[everything.slot_mask]
figure, axis = plt.subplots(figsize=(9, 2.4), layout="constrained")
axis.hist(distances, bins=200, color=BLUE)
axis.set(xlabel="distance of neighbours (Å)", ylabel="pairs", xlim=(0.8, cutoff))
plt.show()

# %% [markdown]
# The peaks at 1 Å and 1.1 Å are O-H and C-H bonds, those around 1.4 Å and 1.5 Å are C-O and C-C.
#
# ## 3. Training
#
# A run is described by a config. Every key is a field of a dataclass, checked before anything starts; whatever is left
# out has its default. This is a small MACE, the same as in `configs/quickstart.yaml`. On the command line it would be
# `equipot train config.yaml --out runs/tutorial/train`.

# %%
CONFIG = """
data:
  train: bundled:ethanol/train
  valid: 0.1
model:
  kind: MACE
  cutoff: 4.5
  channels: 16
  hidden_l: 1
  l_max: 2
  correlation: 2
  radial:
    mlp: [32, 32]
training:
  epochs: 60
  batch_size: 4
  optimizer:
    kind: Muon
    learning_rate: 0.01
"""
RUNS.mkdir(parents=True, exist_ok=True)
(RUNS / "config.yaml").write_text(CONFIG);

# %%
from equipot import config
from equipot.training import TrainConfig
from equipot.training import train as fit

changes = ["training.epochs=4", "model.channels=4", "model.l_max=1", "model.layers=1"] if FAST else []
settings = config.load(RUNS / "config.yaml", TrainConfig, changes)
best = fit(settings, RUNS / "train")

# %%
rows = [json.loads(line) for line in (RUNS / "train" / "metrics.jsonl").read_text().splitlines()]
epochs = [row["epoch"] for row in rows]
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for axis, key, label in zip(axes, ("energy_mae_per_atom", "forces_mae"), ("energy MAE (meV/atom)", "force MAE (meV/Å)")):
    for prefix, colour in (("train", GREY), ("valid", BLUE)):
        axis.semilogy(epochs, [1e3 * row[f"{prefix}_{key}"] for row in rows], color=colour, label=prefix)
    axis.set(xlabel="epoch", ylabel=label)
axes[0].legend()
plt.show()

# %% [markdown]
# The validation curve belongs to the moving average of the parameters, which is what is kept as `best.eqp`; that is why
# it can lie below the training curve.
#
# ## 4. How good is it?
#
# The test frames come from other trajectories than the training frames. `evaluate_set` predicts them and makes the
# table that `equipot evaluate` prints.

# %%
from equipot.training.errors import evaluate_set, table_text

potential = equipot.load(best)
table, predicted = evaluate_set(potential, test)
print(table_text({"test": table}))

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
pairs = (
    ("energy (eV)", [f.energy - lowest for f in test], [f.energy - lowest for f in predicted]),
    ("force component (eV/Å)", np.ravel([f.forces for f in test]), np.ravel([f.forces for f in predicted])),
)
for axis, (label, reference, prediction) in zip(axes, pairs):
    axis.plot(reference, prediction, ".", color=BLUE, markersize=3, alpha=0.5, rasterized=True)
    axis.axline((0, 0), slope=1, color=GREY, linewidth=0.8)
    axis.set(xlabel=f"GFN2-xTB {label}", ylabel=f"predicted {label}")
plt.show()

# %% [markdown]
# Minutes of training on some two hundred frames give a usable toy. With more frames, more channels
# (`configs/mace-molecules.yaml`) and more epochs the errors keep falling; `benchmarks/` measures what the same code
# reaches on published data sets.
#
# ## 5. Does it obey physics?
#
# From here on in double precision, which a caller asks for explicitly. Forces are minus the gradient of the energy:
# compare with central differences over all 27 coordinates. And a rotated molecule has the same energy and rotated
# forces.

# %%
potential = equipot.load(best, dtype="float64")
frame = test[0]
out = equipot.evaluate(potential, frame)

step = 1e-3
shifted = [
    frame.replace(positions=frame.positions + sign * step * np.eye(27)[k].reshape(9, 3)) for k in range(27) for sign in (1, -1)
]
energies = equipot.evaluate(potential, shifted, want=("energy",)).energy.reshape(27, 2)
differences = -(energies[:, 0] - energies[:, 1]).reshape(9, 3) / (2 * step)
print(f"largest force component              {np.abs(out.forces).max():.3f} eV/Å")
print(f"largest deviation from differences   {np.abs(out.forces - differences).max():.1e} eV/Å")

# %%
from scipy.spatial.transform import Rotation

rotation = Rotation.random(rng=np.random.default_rng(1)).as_matrix()
turned = equipot.evaluate(potential, frame.replace(positions=frame.positions @ rotation.T))
print(f"energy changes on rotation by        {abs(turned.energy - out.energy)[0]:.1e} eV")
print(f"forces differ from rotated forces by {np.abs(turned.forces - out.forces @ rotation.T).max():.1e} eV/Å")

# %% [markdown]
# The deviation from central differences is their own error, of order step²; the symmetry holds to rounding because it
# is built into the model, not learned.
#
# ## 6. In ASE
#
# `potential.calculator()` is an ASE calculator, so that everything ASE does is at hand. Here: relax ethanol.

# %%
from ase.build import molecule
from ase.optimize import BFGS

atoms = molecule("CH3CH2OH")
atoms.calc = potential.calculator()
before = atoms.get_potential_energy()
BFGS(atoms, logfile=None).run(fmax=1e-4, steps=20 if FAST else 500)
print(f"energy {before:.4f} -> {atoms.get_potential_energy():.4f} eV, largest force {np.abs(atoms.get_forces()).max():.1e} eV/Å")
print(f"GFN2-xTB relaxes the same molecule to {-309.9885:.4f} eV")
print(f"C-C {atoms.get_distance(0, 1):.3f} Å, C-O {atoms.get_distance(1, 2):.3f} Å (GFN2-xTB: 1.521 and 1.413)")

# %% [markdown]
# ## 7. Hessian and vibrations
#
# The Hessian is exact, by differentiating twice. Divided by the masses, its eigenvalues are squared frequencies; six of
# them are translations and rotations. The reference frequencies were made with GFN2-xTB itself (tblite 0.8, central
# differences of its forces at its own minimum).

# %%
from ase import units

hessian = equipot.hessian_of(potential, atoms).reshape(27, 27)
masses = np.repeat(atoms.get_masses(), 3)
squares = np.linalg.eigvalsh((hessian + hessian.T) / 2 / np.sqrt(np.outer(masses, masses)))
hbar = units._hbar * units.J * units.second
wavenumbers = np.sign(squares) * np.sqrt(np.abs(squares)) * hbar / units.invcm
xtb = [202.3, 293.9, 393.9, 837.3, 930.3, 1040.3, 1128.1, 1152.3, 1239.6, 1265.2, 1365.5, 1404.6, 1474.3, 1493.6, 1495.5]
xtb += [2852.8, 2886.0, 3046.1, 3051.2, 3055.0, 3567.7]  # cm^-1

rigid = np.argsort(np.abs(wavenumbers))[:6]
vibrations = np.sort(np.delete(wavenumbers, rigid))
print("translations and rotations (1/cm):", np.round(wavenumbers[rigid], 1))
print("vibrations (1/cm), equipot and GFN2-xTB:")
for ours, theirs in zip(vibrations, xtb):
    print(f"  {ours:7.1f}  {theirs:7.1f}  {ours - theirs:+6.1f}")
print(f"mean absolute difference {np.abs(vibrations - xtb).mean():.1f} 1/cm")

# %%
figure, axis = plt.subplots(figsize=(9, 2.4), layout="constrained")
axis.vlines(vibrations, 0, 1, color=BLUE, label="equipot")
axis.vlines(xtb, -1, 0, color=ORANGE, label="GFN2-xTB")
axis.axhline(0, color=GREY, linewidth=0.8)
axis.set(xlabel="wavenumber (1/cm)", yticks=[], xlim=(0, 3800))
axis.legend(loc="upper center")
plt.show()

# %% [markdown]
# A negative number here would stand for an imaginary frequency: the structure would not be a minimum. Soft torsions are
# the hardest to get right, because they hardly show in the forces that training sees.
#
# ## 8. Molecular dynamics with jax-md
#
# A jax-md script changes two lines: `neighbor_fn, energy_fn` come from the potential. The whole loop is one compiled
# function. Velocity Verlet does not keep the energy exactly, but the fluctuation falls with the square of the time
# step, as it must where the forces are the exact gradient of a smooth energy.

# %%
from jax_md import simulate, space

from equipot.interfaces import jaxmd
from equipot.units import fs, kB

displacement, shift = space.free()
neighbor_fn, energy_fn = jaxmd.neighbor_list_energy(potential, atoms.numbers)
position, mass = jnp.asarray(atoms.positions), jnp.asarray(atoms.get_masses())
init_fn, apply_fn = simulate.nve(energy_fn, shift)
neighbors = neighbor_fn.allocate(position)
start = init_fn(jax.random.key(0), position, 600 * kB, mass=mass, neighbor=neighbors)


@jax.jit
def run(state, neighbors, dt):
    """Steps, with the total energy after each (eV)."""

    def step(carry, _):
        state, neighbors = carry
        neighbors = neighbors.update(state.position)
        state = apply_fn(state, neighbor=neighbors, dt=dt)
        kinetic = jnp.sum(state.momentum**2 / (2 * state.mass))
        return (state, neighbors), energy_fn(state.position, neighbors) + kinetic

    return jax.lax.scan(step, (state, neighbors), length=50 if FAST else 2000)


figure, axis = plt.subplots(figsize=(9, 2.8), layout="constrained")
for dt, colour in ((1.0, ORANGE), (0.5, BLUE), (0.25, GREY)):
    (last, used), total = run(start, neighbors, dt * fs)
    assert not used.did_buffer_overflow  # else: allocate again, from the last good state
    axis.plot(dt * np.arange(1, len(total) + 1), 1e3 * (total - total[0]), color=colour, linewidth=0.8, label=f"{dt} fs")
    print(f"time step {dt:4.2f} fs: total energy {1e3 * jnp.std(total):6.3f} meV standard deviation")
axis.set(xlabel="time (fs)", ylabel="total energy (meV)", xlim=(0, dt * len(total)))
axis.legend(title="time step", loc="upper right")
plt.show()

# %% [markdown]
# ## 9. Molecular dynamics with `equipot md`
#
# For real runs there is a driver around the same integrators: it writes log, trajectory and checkpoints, repeats a
# chunk whose neighbour list overflowed, stops with the last frames where a system falls apart, and resumes exactly. On
# the command line: `equipot md md-nve --set model=runs/tutorial/train/best.eqp`. From Python, at constant energy and in
# double precision:

# %%
from equipot import md

settings = md.MDConfig(
    model=str(best),
    structure="bundled:ethanol/test",
    ensemble=md.NVE(),
    steps=100 if FAST else 10_000,
    timestep_fs=0.5,
    temperature_K=300.0,
    dtype="float64",
)
summary = md.run(settings, RUNS / "nve")

# %%
from equipot.md import log

lines = log.read(RUNS / "nve" / "log.csv")
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
start = lines["total_eV"][0]
axes[0].plot(lines["time_ps"], lines["potential_eV"] - start, color=BLUE, linewidth=0.6, label="potential")
axes[0].plot(lines["time_ps"], lines["total_eV"] - start, color=ORANGE, linewidth=1.2, label="total")
axes[0].set(xlabel="time (ps)", ylabel="energy (eV)")
axes[0].legend(loc="center right")
axes[1].plot(lines["time_ps"], 1e3 * (lines["total_eV"] - start), color=ORANGE, linewidth=0.6)
axes[1].set(xlabel="time (ps)", ylabel="total energy (meV)")
plt.show()
slope, spread = np.polyfit(lines["time_ps"], lines["total_eV"], 1)[0], np.std(lines["total_eV"])
print(f"mean temperature {lines['temperature_K'].mean():.0f} K, total energy {1e3 * spread:.3f} meV standard deviation")
print(f"slope of the total energy {1e6 * slope / 9:.2f} meV/atom/ns")

# %% [markdown]
# The total energy is a thin line beside the potential energy: what moves between potential and kinetic energy is
# conserved. The slope over a few picoseconds is mostly that of its fluctuations, extrapolated two hundredfold to a
# nanosecond; judge drift on long runs.
#
# The mean temperature is not the 300 K of the initial velocities: at constant energy, heat and potential energy share
# what there is. `ensemble=md.NVTLangevin()` and others hold the temperature; `configs/md-*.yaml` has one recipe for
# each.
#
# ## Where to go from here
#
# - Your own data: `equipot data FILE` shows what is in it and what is wrong with it; then `equipot train mace-molecules
#   --set data.train=FILE`.
# - Periodic solids: `configs/mace-crystals.yaml` trains on energies, forces and stress.
# - A term of your own: CONTRIBUTING.md. All conventions: the top of `equipot/graph.py`.
