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
# # A crystal: lattice, elasticity, phonons, heat and strength
#
# What is published about a crystal, each by one call from a potential, and each beside a number that is known.
#
# The potential of this page is that of Stillinger and Weber for silicon (Phys. Rev. B 31, 5262 (1985)), because much of
# it can be checked with pencil and paper. Nothing below depends on that choice. With your own `model.eqp`, or with a
# published potential by its name,
#
#     potential = equipot.load("sevennet-0", dtype="float64")
#
# the rest of the page stays as it is. The same from a terminal:
#
#     equipot relax sevennet-0 crystal.cif --set cell=full
#     equipot bulk sevennet-0 crystal.cif --set tension='{span: 0.4}'
#     equipot phonons sevennet-0 crystal.cif --set qha.volumes=9
#
# Units are eV and Å, unless a name or a line says otherwise.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

from equipot.physics import Morse, StillingerWeber, closed_form
from equipot.units import GPa

FAST = bool(os.environ.get("EQUIPOT_TUTORIAL_FAST"))  # The test suite runs this page with fewer points.
BLUE, ORANGE, GREY = "#20639b", "#d1603d", "#8a8f98"
plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

potential = closed_form(StillingerWeber(), "Si")

# %% [markdown]
# ## 1. Relaxation
#
# A cell that is too large and sheared, with atoms off their places. Positions and the whole cell relax until the largest
# force *and* the largest component of the stress are below their limits.
#
# In the diamond structure every angle has the value that costs nothing, so that each bond takes the length at which the
# pair energy is least: $r_0 = 2^{1/6}\sigma$. The lattice constant is $4 r_0/\sqrt{3}$, and with two bonds per atom the
# energy is $-2\epsilon$.

# %%
from equipot.workflows.relax import RelaxConfig, relax

start = bulk("Si", a=5.6)
start.set_cell(start.cell[:] @ (np.eye(3) + [[0, 0.02, 0], [0.02, 0, 0], [0, 0, 0.03]]), scale_atoms=True)
start.rattle(0.05, seed=1)

(relaxed,) = relax(potential, start, RelaxConfig(cell="full", fmax=1e-7, smax_GPa=1e-5))
silicon = relaxed.structure

term = potential.term
r0 = 2 ** (1 / 6) * term.sigma
print(f"{relaxed.evaluations} evaluations, largest force {relaxed.fmax:.0e} eV/Å, stress {relaxed.stress_error:.0e} GPa")
print(f"lattice constant {(4 * silicon.volume) ** (1 / 3):.5f} Å, pencil and paper {4 * r0 / np.sqrt(3):.5f}, experiment 5.431")
print(f"energy per atom {relaxed.energy / 2:.5f} eV, pencil and paper {-2 * term.epsilon:.5f}")

# %% [markdown]
# ## 2. What pencil and paper say
#
# Near the perfect crystal the potential is a set of springs: of stiffness $K$ along each bond, and an energy
# $\kappa\,(\cos\theta + 1/3)^2$ for each angle. From these two numbers follow, with the volume per atom
# $V = 8 r_0^3/(3\sqrt{3})$,
#
# - the bulk modulus $B = \sqrt{3}K/(12 r_0)$,
# - the elastic constants $C_{11} - C_{12} = 64\kappa/(9V)$, $C_{11} + 2C_{12} = 3B$, and
#   $C_{44} = \frac{1}{2V}\,\frac{ab}{a+b}$ with $a = K r_0^2$ and $b = 128\kappa/9$: two springs in series, because the two
#   atoms of the cell shift against each other when it is sheared. If they could not, it would be
#   $C_{44}^0 = \frac{2}{V}\left(\frac{a}{9} + \frac{b}{36}\right)$,
# - and the optical frequency at Γ, $(2\pi\nu)^2 = \frac{4}{M}\left(\frac{2K}{3} + \frac{256\kappa}{27 r_0^2}\right)$.

# %%
from equipot.units import THz


def bond(r):
    x = r / term.sigma
    return term.epsilon * term.pair_strength * (term.repulsion / x**4 - 1) * jnp.exp(1 / (x - term.cutoff / term.sigma))


K = float(jax.grad(jax.grad(bond))(r0))
kappa = term.epsilon * term.angle_strength * np.exp(2 * term.angle_range / (2 ** (1 / 6) - term.cutoff / term.sigma))
V, a, b, mass = 8 * r0**3 / (3 * np.sqrt(3)), K * r0**2, 128 * kappa / 9, start.get_masses()[0]
B = np.sqrt(3) * K / (12 * r0) / GPa
difference = 64 * kappa / (9 * V) / GPa
paper = {
    "C11": B + 2 * difference / 3,
    "C12": B - difference / 3,
    "C44": a * b / (a + b) / (2 * V) / GPa,
    "C44, atoms clamped": 2 / V * (a / 9 + b / 36) / GPa,
}
optical = np.sqrt(4 / mass * (2 * K / 3 + 256 * kappa / (27 * r0**2))) / (2 * np.pi * THz)
print(f"K = {K:.4f} eV/Å², kappa = {kappa:.4f} eV; published C11, C12, C44: 151.4, 76.4, 56.4 GPa")  # Phys. Rev. B 46, 2250
print(", ".join(f"{name} {value:.2f} GPa" for name, value in paper.items()))

# %% [markdown]
# ## 3. Equation of state
#
# Energies of cells whose volume is held while shape and atoms relax, all in one batch, and a fit of Birch and Murnaghan's
# equation. The pressures of the right-hand panel are not those of the fit but the potential's own, from its stress.

# %%
from equipot.workflows.bulk import EquationOfState, equation_of_state

curve = equation_of_state(potential, silicon, EquationOfState(span=0.06, points=7 if FAST else 13))
assert not curve.failures
print(f"bulk modulus {curve.bulk_modulus:.2f} GPa, pencil and paper {B:.2f}; its derivative {curve.derivative:.2f}")
print(f"volume per atom {curve.volume / 2:.4f} Å³, relaxed {silicon.volume / 2:.4f}")

volumes = np.linspace(curve.volumes.min(), curve.volumes.max(), 101)
slopes = -np.gradient(curve.fitted(volumes), volumes) / GPa
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(volumes / 2, curve.fitted(volumes) / 2, color=GREY, linewidth=1, label="fit")
axes[0].plot(curve.volumes / 2, curve.energies / 2, "o", color=BLUE, markersize=4, label="relaxed cells")
axes[0].set(xlabel="volume per atom (Å³)", ylabel="energy per atom (eV)")
axes[0].legend()
axes[1].plot(volumes / 2, slopes, color=GREY, linewidth=1, label="slope of the fit")
axes[1].plot(curve.volumes / 2, curve.pressures, "o", color=BLUE, markersize=4, label="from the stress")
axes[1].set(xlabel="volume per atom (Å³)", ylabel="pressure (GPa)")
axes[1].legend()
plt.show()

# %% [markdown]
# ## 4. Elastic constants
#
# The tensor comes from exact second derivatives: of the energy by strains, by displacements of the atoms, and by both.
# Atoms relax under strain, as they do in a crystal (`relaxed`); `clamped` is what one gets without. `check` strains the
# cell by hand as well, relaxes, and takes differences of stresses.

# %%
from equipot.workflows.bulk import elastic_tensor

tensor = elastic_tensor(potential, silicon, check=0.0 if FAST else 1e-3)
found = {
    "C11": tensor.relaxed[0, 0], "C12": tensor.relaxed[0, 1],
    "C44": tensor.relaxed[3, 3], "C44, atoms clamped": tensor.clamped[3, 3],
}  # fmt: skip
experiment = {"C11": "165.8", "C12": "63.9", "C44": "79.6"}  # McSkimin and Andreatch, J. Appl. Phys. 35, 2161 (1964)
print(f"{'GPa':20s}{'found':>9s}{'paper':>9s}{'experiment':>12s}")
for name, value in found.items():
    print(f"{name:20s}{value:9.2f}{paper[name]:9.2f}{experiment.get(name, '-'):>12s}")
if tensor.finite_strains is not None:
    print(f"finite strains differ from the exact derivatives by {np.abs(tensor.finite_strains - tensor.relaxed).max():.0e} GPa")

# %% [markdown]
# A crystal is stable if every small strain costs energy: if all eigenvalues of the tensor are positive (Born). Of a cubic
# crystal they are $C_{11}-C_{12}$ twice, $2C_{44}$ three times, and $C_{11}+2C_{12}$. For a polycrystal, Voigt's average
# assumes that all grains have the same strain, Reuss's the same stress; Hill's is the mean of both. For $E$ and $\nu$ of a
# polycrystal of silicon, tables have about 160 GPa and 0.22.

# %%
c11, c12, c44 = (tensor.relaxed[k] for k in ((0, 0), (0, 1), (3, 3)))
print("stable" if tensor.is_stable else "not stable", "- eigenvalues (GPa):", np.round(tensor.eigenvalues, 2))
print("C11 - C12, 2 C44, C11 + 2 C12 (GPa):      ", np.round([c11 - c12, 2 * c44, c11 + 2 * c12], 2))
voigt, reuss = (c11 - c12 + 3 * c44) / 5, 5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12))
moduli = tensor.moduli
print(f"shear modulus {moduli['shear_modulus_hill_GPa']:.2f} GPa, mean of {voigt:.2f} (Voigt) and {reuss:.2f} (Reuss)")
print(f"Young's modulus {moduli['youngs_modulus_hill_GPa']:.1f} GPa, Poisson's ratio {moduli['poisson_ratio_hill']:.3f}")

# %% [markdown]
# ## 5. Phonons
#
# Force constants are exact derivatives as well, three products with the Hessian for each atom of the primitive cell; from
# there on it is phonopy's work, along the path that seekpath finds. A supercell must be longer than twice the distance
# at which force constants vanish. With this potential two atoms know of each other if they share a neighbour: 8 Å do;
# the default is 12 Å.
#
# The points are from neutron scattering (G. Nilsson and G. Nelin, Phys. Rev. B 6, 3777 (1972)). That this potential's optical
# and transverse acoustic modes are too high is well known, and a fault of its own.

# %%
from equipot.workflows.phonons import PhononsConfig, bands_figure, phonons

settings = PhononsConfig(
    relax="none",  # The crystal is at rest already.
    supercell_length=8.0,
    band_points=41,
    mesh_length=25.0 if FAST else 40.0,
    temperature_step_K=5.0,
)
vibrating = phonons(potential, silicon, settings)
assert not vibrating.failures
print(vibrating.summary())
print(f"optical modes at Γ {vibrating.gamma.frequencies[3]:.4f} THz, pencil and paper {optical:.4f}, experiment 15.53")

# %%
neutrons = {"Γ": [15.53], "X": [4.49, 12.32, 13.90], "L": [3.43, 11.35, 12.60, 14.68]}  # THz
figure = bands_figure(vibrating)
for distance, name in vibrating.marks:
    for frequency in neutrons.get(name, []):
        figure.axes[0].plot(distance, frequency, "o", color=ORANGE, markersize=5, clip_on=False, zorder=3)
figure

# %% [markdown]
# `failures` and `notes` say all that is not in order: a relaxation that did not end, imaginary modes, a supercell that is too
# small, a missing splitting of longitudinal and transverse modes in a polar crystal.
#
# ## 6. Heat capacity and entropy
#
# At high temperature each atom takes up $3k_B$ (Dulong and Petit), at low temperature the modes freeze. At 298.15 K,
# tables have an entropy of 18.81 J/K and a heat capacity (at constant pressure) of 19.8 J/K per mole of atoms, the two
# points in the figure. Frequencies that are too high make both too low.

# %%
thermal = vibrating.thermal
at = lambda values: np.interp(298.15, thermal.temperature, values) / 2  # Per mole of atoms, of which the cell has two.
print(f"at 298.15 K: entropy {at(thermal.entropy):.2f} J/K/mol, heat capacity {at(thermal.heat_capacity):.2f} J/K/mol")

figure, axis = plt.subplots(figsize=(5.5, 3), layout="constrained")
axis.plot(thermal.temperature, thermal.heat_capacity / 2, color=BLUE, label="heat capacity")
axis.plot(thermal.temperature, thermal.entropy / 2, color=ORANGE, label="entropy")
axis.axhline(3 * 8.314463, color=GREY, linewidth=0.8, linestyle="--", label="Dulong and Petit")
axis.plot([298.15], [19.8], "o", color=BLUE, markersize=5)
axis.plot([298.15], [18.81], "o", color=ORANGE, markersize=5)
axis.set(xlabel="temperature (K)", ylabel="J/K per mole of atoms", xlim=(0, 1000), ylim=(0, 45))
axis.legend()
plt.show()

# %% [markdown]
# ## 7. Thermal expansion
#
# Phonons at several volumes, and at each temperature the volume of least free energy: the quasi-harmonic approximation.
# Heat expands the crystal by $\beta = \gamma C_V / (B V)$, with Grüneisen's parameter $\gamma$, which says how fast frequencies
# fall when the volume grows. Silicon's is $7.8\cdot10^{-6}$/K at 300 K and negative below 120 K, where transverse acoustic
# modes stiffen with the volume. This potential is too simple for that.

# %%
import dataclasses

from equipot.workflows.phonons import QHAConfig, quasi_harmonic_figure

volumes = QHAConfig(volumes=5 if FAST else 7, smallest=0.985, largest=1.03)
expanding = phonons(potential, silicon, dataclasses.replace(settings, qha=volumes, temperature_step_K=20.0))
assert not expanding.failures
qha = expanding.qha
k = int(np.argmin(np.abs(qha.temperature - 300)))
print(f"at 300 K: expansion {1e6 * qha.thermal_expansion[k]:.2f} 1e-6/K, Grüneisen parameter {qha.gruneisen[k]:.3f}")
growth = qha.volume / qha.volume_grid[0] * volumes.smallest
print(f"volume over that without vibrations: {growth[0]:.5f} at 0 K, {growth[k]:.5f} at 300 K")
quasi_harmonic_figure(qha)

# %% [markdown]
# ## 8. A crystal that is no minimum
#
# Atoms with a short-ranged pair potential want to be close packed. Put into the body-centred cubic structure they have
# imaginary modes, drawn below zero. `follow` goes down the most unstable one, at N, without keeping any symmetry: the way by
# which body-centred zirconium becomes hexagonal (W. G. Burgers, Physica 1, 561 (1934)).
#
# Close packed, with twelve neighbours at the best distance and no others in reach, an atom has $-6D$; in the body-centred
# crystal the least value of $4 v(r) + 3 v(2r/\sqrt{3})$, with $v$ the pair energy.

# %%
from scipy.optimize import minimize_scalar

metal = closed_form(Morse(cutoff=3.87, onset=0.85, width=3.5), "Cu")
morse = metal.term
pair = lambda r: morse.depth * ((1 - np.exp(-morse.width * (r - morse.distance))) ** 2 - 1)
per_atom = lambda r: 4 * pair(r) + 3 * pair(2 * r / np.sqrt(3))
bond_length = minimize_scalar(per_atom, bounds=(2, 3), method="bounded", options={"xatol": 1e-10}).x
least = per_atom(bond_length)

look = dataclasses.replace(settings, relax="full", mesh_length=25.0, temperature_step_K=50.0, follow=True)
body = phonons(metal, bulk("Cu", "bcc", a=2 * bond_length / np.sqrt(3)), look)
assert body.fmax < 1e-6 and abs(body.pressure) < 1e-3
print("most unstable:", body.imaginary[0])
end = body.followed
print(f"{end.before} becomes {end.after}: {end.gain:.5f} eV per atom lower")
print(f"pencil and paper: {least + 6 * morse.depth:.5f} eV, from {least:.4f} to {-6 * morse.depth:.4f}")
bands_figure(body)

# %% [markdown]
# ## 9. How strong is it?
#
# Silicon is pulled along [100], step by step, while all other components of the stress relax. The slope at the beginning is
# Young's modulus in that direction, $1/S_{11}$ with $S = C^{-1}$, and the largest stress the ideal strength of a crystal
# without defects: an upper limit, since a cell of two atoms has no room for anything but a uniform instability.

# %%
from equipot.workflows.bulk import Tension, stress_strain

pulled = stress_strain(potential, silicon, Tension(direction="xx", span=0.3 if FAST else 0.5, steps=6 if FAST else 40))
assert not pulled.failures
young = 1 / np.linalg.inv(tensor.relaxed)[0, 0]
slope = np.polyfit(pulled.strains[:4], pulled.stresses[:4], 3)[-2]
print(f"slope at the beginning {slope:.1f} GPa, Young's modulus along [100] {young:.1f} GPa (experiment 130)")
print(f"ideal strength {pulled.strength:.1f} GPa; fails at a strain of {pulled.failed_at or np.nan:.4g}")

figure, axis = plt.subplots(figsize=(5.5, 3), layout="constrained")
axis.plot(pulled.strains, pulled.stresses, "o-", color=BLUE, markersize=3, linewidth=1)
axis.axline((0, 0), slope=young, color=GREY, linewidth=0.8, linestyle="--")
axis.set(xlabel="strain along [100]", ylabel="stress (GPa)", ylim=(0, 1.25 * pulled.strength))
plt.show()

# %% [markdown]
# ## Where to go from here
#
# - `relax` takes a list of structures and relaxes them in a few compiled programs; `rank` orders polymorphs, with the
#   uncertainty of the order where the potential has one.
# - Under pressure: `RelaxConfig(cell="full", pressure_GPa=10)`, then the elastic tensor and the phonons as above.
# - Polar crystals: Born effective charges split longitudinal and transverse optical modes, from the potential or from a
#   file (`PhononsConfig(born="BORN")`).
# - `vibrating.crystal.phonon` is phonopy's own object, for all that phonopy can do.
# - Barriers, rates, molecules and liquids: `reaction.ipynb`. Thermal conductivity: `equipot transport`.
