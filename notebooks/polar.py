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
# # Polar molecules: charges, polarizabilities and electric fields
#
# A network with a cutoff of 4.5 Å does not know that two molecules 8 Å apart attract each other, and does not see an
# electric field at all. This page trains a potential that does, on the water clusters that come with the package, and
# looks at what it has learned: dipole moments, polarizabilities, the interaction of molecules that are far apart, strong
# fields, and molecular dynamics in a field.
#
# The reference method is GFN2-xTB: good for learning, not for science. `tutorial.ipynb` explains what this page takes for
# granted. Units are eV, Å, e and V/Å; 1 e Å is 4.80 debye.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import equipot
from equipot.data import bundled
from equipot.quantities import DIPOLE, ELECTROSTATIC_ENERGY, POLARIZABILITY

FAST = bool(os.environ.get("EQUIPOT_TUTORIAL_FAST"))  # The test suite runs this page with next to no training.
RUNS = Path("runs/polar")
BLUE, ORANGE, GREY = "#20639b", "#d1603d", "#8a8f98"
plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1. Data
#
# One to four molecules. Of three frames, one is as it came from molecular dynamics, one has its molecules drawn apart,
# and one is in a homogeneous field; the field stands in the frame, as `electric_field` does in an extended XYZ file.
# Dipole moments are labels like energies and forces.

# %%
train = [frame for frame in bundled.load("water/train") if len(frame) > 1]
test = bundled.load("water/test")
fields = np.array([np.linalg.norm(frame.field) for frame in train])
print(f"{len(train)} training frames, {np.count_nonzero(fields)} of them in fields of up to {fields.max():.2f} V/Å")
print("labels of a frame:", ", ".join(row.name for row in train[0].labels))

# %% [markdown]
# ## 2. A potential with charges that respond
#
# `Electrostatics` puts charges beside any network. `Polarizable` lets charge flow along pairs of neighbouring atoms and
# gives every atom an induced dipole; both settle where the energy is least, in each other's field and in the external
# one. The network says how easily, and which atoms attract electrons. This is the recipe `polar-molecules`, cut to a
# hundred epochs.

# %%
CONFIG = """
data:
  train: bundled:water/train
  valid: 0.1
model:
  kind: Electrostatics
  charges:
    kind: Polarizable
  base:
    kind: MACE
    cutoff: 4.5
    channels: 16
    hidden_l: 1
    l_max: 2
    correlation: 2
    radial:
      mlp: [32, 32]
training:
  epochs: 100
  batch_size: 4
  loss:
    charges: {weight: 0.0}  # GFN2's are Mulliken's, which no dipole moment follows from
  optimizer:
    kind: Muon
    learning_rate: 0.01
"""
RUNS.mkdir(parents=True, exist_ok=True)
(RUNS / "config.yaml").write_text(CONFIG)
# %%
from equipot import config
from equipot.training import TrainConfig
from equipot.training import train as fit

small = ["training.epochs=2", "model.base.channels=4", "model.base.l_max=1", "model.base.layers=1", "model.base.hidden_l=0"]
settings = config.load(RUNS / "config.yaml", TrainConfig, small if FAST else [])
best = fit(settings, RUNS / "train")

# %%
from equipot.training.errors import evaluate_set, table_text

potential = equipot.load(best, dtype="float64")
table, predicted = evaluate_set(potential, test)
print(table_text({"test": table}))

# %%
reference, found = (np.ravel([frame.labels[DIPOLE] for frame in frames]) for frames in (test, predicted))
figure, axis = plt.subplots(figsize=(3.8, 3.6), layout="constrained")
axis.plot(reference, found, ".", color=BLUE, markersize=4, alpha=0.6)
axis.axline((0, 0), slope=1, color=GREY, linewidth=0.8)
axis.set(xlabel="GFN2-xTB dipole component (e Å)", ylabel="predicted (e Å)")
plt.show()

# %% [markdown]
# ## 3. One molecule
#
# Everything electric is a derivative of one energy. The dipole moment is minus its slope by the field, the
# polarizability the second derivative: no label of a polarizability was trained on. The numbers of GFN2-xTB were made
# with tblite 0.8, by differences of the dipole moment in fields of ±0.05 V/Å. (Its polarizability is that of a minimal
# basis, half of the real one, 1.45 Å³: a potential is as good as what it has learned from.)

# %%
from ase.build import molecule

water = molecule("H2O")  # O and its hydrogens in the plane of y and z; z is the axis of the molecule
(out,) = equipot.evaluate_each(potential, water, want=("energy", "dipole", "polarizability", "charges"))

step = 1e-3
pair = [water.copy() for _ in range(2)]
for atoms, sign in zip(pair, (1, -1)):
    atoms.info["electric_field"] = [0, 0, sign * step]
energies = equipot.evaluate(potential, pair, want=("energy",)).energy
print(f"dipole moment along the axis  {out[DIPOLE][2]:+.4f} e Å (GFN2-xTB -0.4760)")
print(f"minus the slope by the field  {-(energies[0] - energies[1]) / (2 * step):+.4f} e Å")
volume = 14.3996  # Å^3 of a polarizability volume, for 1 e^2 Å^2/eV
print("polarizability (Å^3) along x, y, z:", np.round(volume * np.diag(out[POLARIZABILITY]), 2), "(GFN2-xTB: 0.00 0.78 0.33)")
print("charges (e):", np.round(out.charges, 3))

# %% [markdown]
# ## 4. Beyond the cutoff
#
# Two molecules with parallel axes on one line attract each other, and from 4.5 Å on no atom of one sees an atom of the
# other. What remains is the energy of two dipoles, -2 Ke p² / r³ where they are far apart: the curve ends on that line
# because charge stays in its molecule. `electrostatic_energy` is the part of the energy that charges and dipoles have,
# the rest is the network's.

# %%
distances = np.geomspace(2.6, 40, 12 if FAST else 40)
dimers = []
for r in distances:
    other = water.copy()
    other.positions += [0, 0, r]
    dimers.append(water + other)
alone = equipot.evaluate(potential, water, want=("energy", "electrostatic_energy"))
both = equipot.evaluate(potential, dimers, want=("energy", "electrostatic_energy"))
total = both.energy - 2 * alone.energy
electric = both[ELECTROSTATIC_ENERGY] - 2 * alone[ELECTROSTATIC_ENERGY]
dipoles = -2 * 14.399645 * out[DIPOLE][2] ** 2 / distances**3

figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.loglog(distances, -1e3 * np.where(total < 0, total, np.nan), color=BLUE, label="interaction energy")
axis.loglog(distances, -1e3 * np.where(electric < 0, electric, np.nan), "--", color=ORANGE, label="of charges and dipoles")
axis.loglog(distances, -1e3 * dipoles, ":", color=GREY, label="two point dipoles")
axis.axvline(4.5, color=GREY, linewidth=0.6)
axis.set_xticks([3, 5, 10, 20, 40], ["3", "5", "10", "20", "40"])
axis.minorticks_off()
axis.set(xlabel="distance (Å)", ylabel="attraction (meV)")
axis.legend()
plt.show()
print(f"energy at {distances[-1]:.0f} Å over that of point dipoles: {total[-1] / dipoles[-1]:.3f}")

# %% [markdown]
# ## 5. Fields that the training has never seen
#
# A model whose response is linear gives an energy that falls with the square of the field, without end: in a strong
# field, or beside an ion, such a model polarizes until the simulation breaks. Here every flow and every induced dipole
# has a limit (`flow_limit`, `dipole_limit`: 2 e and 2 e Å unless you say otherwise, which no molecule at rest comes near).
# The same potential with the limits taken away, and with tight ones, shows what they do.

# %%
import dataclasses

limits = {"without limits": None, "limits of 2": 2.0, "limits of 0.05": 0.05}
strengths = np.concatenate([[0.0], np.geomspace(0.05, 10, 8 if FAST else 24)])
frames = [water.copy() for _ in strengths]
for atoms, strength in zip(frames, strengths):
    atoms.info["electric_field"] = [0, strength, 0]

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for (label, limit), colour, style in zip(limits.items(), (GREY, ORANGE, BLUE), ("-", "--", "-")):
    charges = dataclasses.replace(potential.term.charges, flow_limit=limit, dipole_limit=limit)
    model = potential.replace(term=potential.term.clone(charges=charges))
    response = equipot.evaluate(model, frames, want=("energy", "dipole"))
    axes[0].loglog(strengths[1:], np.abs(response[DIPOLE][1:, 1]), style, color=colour, label=label)
    axes[1].plot(strengths, response.energy - response.energy[0], style, color=colour)
    print(f"{label}: dipole moment {response[DIPOLE][-1, 1]:5.2f} e Å in {strengths[-1]:.0f} V/Å")
axes[0].axvline(0.3, color=GREY, linewidth=0.6)
axes[0].set(xlabel="field from H to H (V/Å)", ylabel="induced dipole moment (e Å)")
axes[1].set(xlabel="field from H to H (V/Å)", ylabel="energy (eV)")
axes[0].legend()
plt.show()

# %% [markdown]
# The vertical line is the strongest field of the training set. In weak fields all are the same; at a limit the dipole
# moment saturates, and the energy falls in proportion to the field instead of its square.
#
# ## 6. Molecular dynamics in a field
#
# In a simulation the field is one key, `field: [0, 0, 0.2]` in the config of `equipot md`. The log has the dipole moment
# of every recorded step. A cluster at 150 K turns its molecules along the field.

# %%
from equipot import md
from equipot.md import log

cluster = max(test, key=len).to_ase()
cluster.info.pop("electric_field", None)
cluster.write(RUNS / "cluster.xyz")
figure, axis = plt.subplots(figsize=(6, 3.0), layout="constrained")
for field, colour in (((0.0, 0.0, 0.0), GREY), ((0.0, 0.0, 0.2), BLUE)):
    settings = md.MDConfig(
        model=str(best),
        structure=str(RUNS / "cluster.xyz"),
        ensemble=md.NVTLangevin(),
        steps=100 if FAST else 4000,
        timestep_fs=0.5,
        temperature_K=150.0,
        field=field,
    )
    folder = RUNS / f"md-{field[2]}"
    md.run(settings, folder)
    lines = log.read(folder / "log.csv")
    axis.plot(lines["time_ps"], lines["dipole_z_eA"], color=colour, label=f"{field[2]} V/Å")
axis.set(xlabel="time (ps)", ylabel="dipole moment along the field (e Å)")
axis.legend()
plt.show()

# %% [markdown]
# ## Where to go from here
#
# - Your own data: a field in a frame is `electric_field` (V/Å), and `data.keys.others` names labels that your files call
#   by other names. `Predicted` charges learn from charges and dipole moments, `Flows` and `Equilibrated` from energies too;
#   the README says what each is good for.
# - Crystals and liquids: the same model, in any cell; from about a thousand atoms on with `waves: {kind: ParticleMesh}`.
# - Born effective charges: `want=("born_effective_charges",)`.
# - Dispersion: put `{kind: D3, functional: ...}` beside the model, as a list of terms.
