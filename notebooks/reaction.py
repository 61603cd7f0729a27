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
# # Reactions: paths, saddle points, rates, and what vibrates and flows
#
# From two minima to the path between them, the exact saddle point, the reaction coordinate and the rate; then vibrations and
# free energies of a molecule, and diffusion in a liquid. Each step is one call, and stands beside a number that is known.
#
# The potentials of this page are written down in closed form, so that it runs in a minute and other programs can check
# it. With your own `model.eqp`, or with a published potential by its name,
#
#     potential = equipot.load("sevennet-0", dtype="float64")
#
# everything works the same. From a terminal:
#
#     equipot neb sevennet-0 ends.xyz --set images=9 --set reaction_coordinate=true
#     equipot vibrations sevennet-0 molecule.xyz
#     equipot transport liquid.xyz --model sevennet-0 --set run.temperature_K=94.4
#
# Units are eV, Å and amu, unless a name or a line says otherwise.

# %%
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from equipot.physics import LennardJones, Morse, closed_form
from equipot.units import kB

FAST = bool(os.environ.get("EQUIPOT_TUTORIAL_FAST"))  # The test suite runs this page with less of everything.
BLUE, ORANGE, GREY = "#20639b", "#d1603d", "#8a8f98"
plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1. In two dimensions
#
# The landscape of Müller and Brown (Theor. Chim. Acta 53, 75 (1979)) has three minima and two saddle points. The functions
# that find reaction paths of atoms work on any function of JAX, so that one can look at what they do.
#
# - `relax_band` relaxes a chain of images between two minima: springs keep them apart, only the force across the path
#   moves them down, and the highest image climbs (nudged elastic band).
# - `find_saddle` goes on from the highest image with exact products of the Hessian, uphill along its lowest
#   eigenvector and downhill across.
# - `descend` follows the steepest way down to both sides: the intrinsic reaction coordinate.

# %%
from equipot.workflows.neb import BandConfig, FunctionSurface, SaddleConfig, descend, find_saddle, relax_band


def landscape(x):
    height = jnp.array([-200.0, -100.0, -170.0, 15.0])
    a, b, c = jnp.array([-1, -1, -6.5, 0.7]), jnp.array([0, 0, 11, 0.6]), jnp.array([-10, -10, -6.5, 0.7])
    u, v = x[0] - jnp.array([1, 0, -0.5, -1]), x[1] - jnp.array([0, 0.5, 1.5, 1])
    return jnp.sum(height * jnp.exp(a * u**2 + b * u * v + c * v**2))


surface = FunctionSurface(landscape)
minima = np.array([[-0.5582, 1.4417], [-0.0500, 0.4667], [0.6235, 0.0280]])
straight = np.linspace(minima[0], minima[1], 9)
band = relax_band(surface, straight, BandConfig(fmax=0.5, spring=50.0, climb_below=50.0))
saddle = find_saddle(surface, band.points[band.highest], SaddleConfig(fmax=1e-6, radius=0.1))
assert band.converged and saddle.converged
ways = descend(surface, saddle.point, saddle.mode, masses=np.ones(2), longest=5.0, fmax=1.0)
print(f"path: {band.evaluations} evaluations of all images; saddle point: {saddle.gradients} gradients more")
print(f"saddle point {np.round(saddle.point, 6)}, published (-0.822002, 0.624313)")
print(f"its energy   {saddle.energy:.6f}, published -40.664844")

# %%
x, y = np.meshgrid(np.linspace(-1.5, 1.1, 121), np.linspace(-0.3, 1.9, 101))
energies, _ = surface.evaluate(np.stack([x.ravel(), y.ravel()], axis=1))
figure, axis = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
axis.contour(x, y, energies.reshape(x.shape), levels=np.linspace(-145, 60, 30), cmap="Greys_r", linewidths=0.7)
axis.plot(*straight.T, ".", color=GREY, markersize=4, label="first path")
axis.plot(*band.points.T, "o-", color=BLUE, markersize=4, linewidth=1, label="nudged elastic band")
for way, name in zip(ways, ("reaction coordinate", None)):
    axis.plot(*way.points.T, color=ORANGE, linewidth=2, alpha=0.7, label=name)
axis.plot(*saddle.point, "*", color=ORANGE, markersize=12, label="saddle point")
axis.plot(*minima.T, "k+", markersize=9)
axis.set(xlabel="x", ylabel="y")
axis.legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# ## 2. An atom hops on a surface
#
# A copper atom on Cu(100) sits in a hollow between four atoms, and hops over the bridge of two of them into the next
# hollow. Atoms attract each other by a Morse potential that was fitted to copper. The lowest layer is held at its place.
#
# `reaction` takes the two ends and does it all: it relaxes them, puts images between them by the image dependent pair
# potential (IDPP), relaxes the band, and finds saddle point, rates and reaction coordinate. Whatever is wrong is listed
# in `failures`.

# %%
from ase.build import add_adsorbate, fcc100
from ase.constraints import FixAtoms

from equipot.workflows.neb import NEBConfig, reaction
from equipot.workflows.relax import RelaxConfig

copper = closed_form(Morse(cutoff=5.2), "Cu")
a = 3.6133  # Å, where a crystal with this potential has no stress
size, layers = (3, 2) if FAST else (3, 3)
ends = []
for offset in ((0, 0), (0, 1)):
    slab = fcc100("Cu", (size, size, layers), a=a, vacuum=6.0)
    add_adsorbate(slab, "Cu", 0.5 * a, "hollow", offset=offset)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == layers))  # Layers are counted from above.
    ends.append(slab)

settings = NEBConfig(
    images=5 if FAST else 9,
    ends=RelaxConfig(fmax=1e-4),
    band=BandConfig(fmax=0.02),
    reaction_coordinate=True,
)
hop = reaction(copper, ends, settings)
assert not hop.failures
print(f"barrier {hop.barrier:.4f} eV, back {hop.barrier_back:.4f} eV")
saddle = hop.saddle
print(f"saddle point: force {saddle.force:.0e} eV/Å after {saddle.gradients} gradients and {saddle.products} Hessian products")

# %% [markdown]
# The same with ASE alone: its Morse potential, its nudged elastic band, its optimiser. (First-principles calculations have
# 0.69 eV for this hop: Lee et al., Surf. Sci. 306, L575 (1994); a pair potential does not know that atoms bind more
# strongly where they have few neighbours.)

# %%
from ase.calculators.morse import MorsePotential
from ase.mep import NEB
from ase.optimize import FIRE

morse = copper.term
images = [hop.images[0].to_ase(), *(hop.images[0].to_ase() for _ in range(3)), hop.images[-1].to_ase()]
for image in images:
    image.set_constraint(ends[0].constraints)
    image.calc = MorsePotential(
        epsilon=morse.depth, r0=morse.distance, rho0=morse.width * morse.distance,
        rcut1=morse.onset * morse.cutoff / morse.distance, rcut2=morse.cutoff / morse.distance,
    )  # fmt: skip
theirs = NEB(images, climb=True, method="improvedtangent")
theirs.interpolate("idpp")
FIRE(theirs, logfile=None).run(fmax=0.01, steps=300)
heights = [image.get_potential_energy() for image in images]
print(f"barrier {hop.barrier:.4f} eV, by ASE {max(heights) - heights[0]:.4f} eV")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(hop.band.lengths, hop.band.energies - hop.band.energies[0], "o", color=BLUE, markersize=5)
axes[0].axhline(hop.barrier, color=ORANGE, linewidth=0.9, linestyle="--", label="saddle point")
axes[0].set(xlabel="length of the path (Å)", ylabel="energy (eV)", title="nudged elastic band")
axes[0].legend(loc="lower center")
axes[1].plot(*hop.reaction_coordinate(), color=BLUE)
axes[1].axvline(0, color=ORANGE, linewidth=0.9, linestyle="--")
axes[1].set(xlabel="reaction coordinate (amu$^{1/2}$ Å)", title="intrinsic reaction coordinate")
plt.show()

# %% [markdown]
# ## 3. The rate
#
# Vineyard's harmonic rate is a barrier and a prefactor, the product of all frequencies at the minimum over that of all
# real ones at the saddle point, both from exact Hessians:
# $k = \prod_{i=1}^{3N}\nu_i \,/ \prod_{i=2}^{3N}\nu_i^\ddagger \cdot \exp(-\Delta E/k_BT)$.
#
# With ASE's forces and their differences instead of exact Hessians:

# %%
from ase.vibrations import Vibrations as Differences

rate = hop.rate
print(f"prefactor {rate.prefactor_THz:.3f} THz, imaginary frequency {rate.imaginary_THz:.3f} THz")

logarithms = []
for structure in (hop.images[0], hop.saddle_structure):
    atoms = structure.to_ase()
    atoms.calc = images[0].calc
    free = np.flatnonzero(ends[0].get_tags() != layers)
    run = Differences(atoms, indices=free, delta=1e-3, name=f"vibrations-{len(logarithms)}")
    run.run()
    real = np.sort(run.get_frequencies().real)[-3 * len(free) + len(logarithms) :]  # 1/cm; the imaginary one has no real part
    logarithms.append(np.log(real * 0.0299792458).sum())
print(f"prefactor {np.exp(logarithms[0] - logarithms[1]):.3f} THz by differences of ASE's forces")

# %% [markdown]
# An atom that hops to four neighbours at the distance $d$ with the rate $k$ diffuses with $D = k d^2$.

# %%
temperatures = np.array([250, 300, 400, 500, 700, 1000])
rates = np.array([rate.at(T) for T in temperatures])
d = a / np.sqrt(2)
for T, k in zip(temperatures[1:4], rates[1:4]):
    print(f"{T} K: {k:9.3g} hops per second to each side, D = {k * (d * 1e-8) ** 2:.2e} cm²/s")

figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
axis.semilogy(1000 / temperatures, rates, "o-", color=BLUE, markersize=5, linewidth=1)
upper = axis.secondary_xaxis("top", functions=(lambda x: 1000 / np.maximum(x, 1e-9), lambda T: 1000 / np.maximum(T, 1e-9)))
upper.set_xticks([1000, 500, 300, 250])
upper.set_xlabel("temperature (K)")
axis.set(xlabel="1000 K / temperature", ylabel="rate (1/s)")
plt.show()
slope = np.polyfit(1 / (kB * temperatures), np.log(rates), 1)[0]
print(f"slope {-slope:.4f} eV: the barrier")

# %% [markdown]
# ## 4. Relaxation by Newton's method
#
# Thirteen argon atoms make an icosahedron; in units of the well's depth its energy is -44.326801 (Cambridge cluster
# database). Newton's method in a trust region uses products of the exact Hessian with vectors, each as costly as two or
# three gradients, and never the matrix.

# %%
from ase.cluster import Icosahedron

from equipot.workflows.relax import LBFGS, Newton, relax

argon = closed_form(LennardJones(cutoff=30.0), "Ar")  # A cutoff far beyond the cluster.
cluster = Icosahedron("Ar", noshells=2, latticeconstant=5.4)
cluster.rattle(0.3, seed=3)
cluster.cell = None
for optimizer in (Newton(),) if FAST else (LBFGS(), Newton()):
    (found,) = relax(argon, cluster, RelaxConfig(fmax=1e-6, optimizer=optimizer))
    name, energy = type(optimizer).__name__, found.energy / argon.term.epsilon
    work = f"{found.evaluations:3d} gradients, {found.products:3d} products"
    print(f"{name:7s} {work}, force {found.fmax:.0e} eV/Å, energy {energy:.6f}")

# %% [markdown]
# ## 5. A molecule: vibrations and free energy
#
# Nitrogen as a Morse oscillator with the constants of spectroscopy: bond length 1.09768 Å, depth of the well 9.905 eV,
# harmonic wavenumber 2358.57/cm. Vibrations, zero-point energy and the free energy of an ideal gas follow (rigid
# rotor, harmonic oscillator; the symmetry number 2 is found).

# %%
from ase import Atoms

from equipot.units import per_cm, planck
from equipot.workflows.vibrations import VibrationsConfig, vibrations

molecule = Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.09768]])
omega = 2358.57 * per_cm / planck * 2 * np.pi  # Angular frequency, in units of eV, Å and amu.
width = omega * np.sqrt(molecule.get_masses()[0] / 2 / (2 * 9.905))
nitrogen = closed_form(Morse(cutoff=8.0, depth=9.905, width=float(width), distance=1.09768), "N")
gas = vibrations(nitrogen, molecule, VibrationsConfig(relax=False, pressure_Pa=1e5))
assert not gas.failures
print(gas.summary())

# %%
tables = {298.15: 191.61, 500.0: 206.74, 1000.0: 228.17, 2000.0: 252.07}  # NIST-JANAF, J/K/mol at 1 bar
per_mole = 96485.33  # J/mol for 1 eV
for T, known in tables.items():
    hot = vibrations(nitrogen, molecule, VibrationsConfig(relax=False, pressure_Pa=1e5, temperature_K=T)).thermochemistry
    free = hot.gibbs_energy - gas.energy
    print(f"{T:7.2f} K: entropy {per_mole * hot.entropy:.2f} J/K/mol, tables {known:.2f}; Gibbs energy {free:+.4f} eV")

# %% [markdown]
# Larger molecules have one thing more to choose: modes of low frequency as free rotors, `low_frequency=QuasiRRHO()`. With a
# potential that has charges (`Electrostatics`), each mode gets its infrared intensity.
#
# ## 6. A liquid: structure, diffusion, spectrum
#
# Liquid argon at 94.4 K and 1.374 g/cm³, the state of the first simulation of a liquid with continuous forces
# (A. Rahman, Phys. Rev. 136, A405 (1964)), with Rahman's depth and size of the pair potential. `make_trajectory`
# equilibrates with a thermostat and goes on at constant energy.

# %%
from ase.build import bulk

from equipot.workflows.spectra import density_of_states
from equipot.workflows.statistics import open_trajectory
from equipot.workflows.transport import (
    Radial,
    Run,
    averages,
    displacements,
    finite_size_correction,
    make_trajectory,
    radial_distribution,
    self_diffusion,
)

rahman = closed_form(LennardJones(cutoff=7.65, epsilon=120 * kB, sigma=3.4, onset=0.9), "Ar")
length = 5
box = bulk("Ar", "sc", a=(39.948 * 1.66053907 / 1.374) ** (1 / 3)) * length  # A lattice that melts at once.
box.rattle(0.1, seed=0)
run = Run(temperature_K=94.4, timestep_fs=5.0, every=10, equilibration_steps=2000, steps=20000)
folder = make_trajectory(rahman.astype("float32"), box, run, "runs/argon", progress=False)
trajectory = open_trajectory(str(folder))
mean = averages(trajectory)["temperature_K"]
print(f"{len(box)} atoms, {run.steps * run.timestep_fs / 1000:.0f} ps, temperature {mean.mean:.1f} +- {mean.error:.1f} K")

# %%
radial = radial_distribution(trajectory, Radial(longest=8.5, bins=170))
peak = radial.centers[np.argmax(radial.values[0])]
moved = displacements(trajectory)
(diffusion,) = self_diffusion(moved)
print(f"first peak of g(r) at {peak:.2f} Å (Rahman: 3.7 Å)")
print(f"D = ({1e5 * diffusion.coefficient:.2f} +- {1e5 * diffusion.error:.2f}) 1e-5 cm²/s {diffusion.reason}")
added = finite_size_correction(moved.temperature_K, viscosity_mPa_s=0.25, length=moved.length)
print(f"with the correction for a small cell {1e5 * (diffusion.coefficient + added):.2f}; Rahman: 2.43")

# %%
spectrum = density_of_states(trajectory, resolution_THz=0.3)
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
axes[0].plot(radial.centers, radial.values[0], color=BLUE)
axes[0].axhline(1, color=GREY, linewidth=0.8)
axes[0].set(xlabel="distance (Å)", ylabel="g(r)")
times, squared = moved.curve(0)
axes[1].loglog(times / 1000, squared, ".-", color=BLUE, markersize=4, linewidth=0.8)
late = times > 2000
axes[1].loglog(times[late] / 1000, 60 * diffusion.coefficient * times[late], color=ORANGE, label="6 D t")
axes[1].set(xlabel="time (ps)", ylabel="mean squared displacement (Å²)")
axes[1].legend()
total, error = spectrum.density[0], spectrum.error[0]
axes[2].plot(spectrum.frequencies_THz, total, color=BLUE)
axes[2].fill_between(spectrum.frequencies_THz, total - error, total + error, color=BLUE, alpha=0.25, linewidth=0)
axes[2].set(xlabel="frequency (THz)", ylabel="modes per THz", xlim=(0, 4), ylim=(0, None))
plt.show()

# %% [markdown]
# The error bars come from the trajectory itself; where it is too short for one, the result says so instead. A liquid flows: its
# density of states does not vanish at zero frequency as that of a crystal does.
#
# ## Where to go from here
#
# - **Train on Hessians.** Barriers, frequencies and Newton's steps are as good as second derivatives, and a potential
#   can learn from these. `equipot hessian frames.xyz --calculator gfn2-xtb --out labelled.h5` makes the labels, with any
#   calculator of ASE or another potential; `equipot train labelled.h5` uses them where it finds them.
# - A path that you have already: give `reaction` all of its images instead of two ends. Several barriers in a row: it
#   says where a minimum lies between.
# - Infrared spectra from trajectories with dipole moments: `equipot spectra`. Thermal conductivity and viscosity:
#   `equipot transport`.
# - Crystals: `crystal.ipynb`.
