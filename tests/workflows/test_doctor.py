"""The doctor finds every defect by the check that is meant for it, and accuses nothing sound."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from flax import linen as nn

from equipot import cli, eqp
from equipot.data.batch import pad
from equipot.metadata import Metadata
from equipot.models import fresh
from equipot.models.mace import MACE
from equipot.models.nequip import NequIP
from equipot.neighbors import neighbor_list
from equipot.nn.interaction import Plain, Residual
from equipot.nn.normalize import MeanNeighbors
from equipot.nn.radial import PolynomialEnvelope, Radial
from equipot.physics.guard import Guarded, Wall, guard
from equipot.physics.lennard_jones import LennardJones
from equipot.potential import Potential
from equipot.structure import Structure
from equipot.term import Atomic, Term
from equipot.workflows import doctor
from equipot.workflows.doctor import laws, lists
from equipot.workflows.doctor.bench import Subject, bench_for
from equipot.workflows.doctor.dimers import describe, findings
from equipot.workflows.doctor.findings import Measure
from equipot.workflows.doctor.picture import draw_report
from equipot.workflows.doctor.specimens import rattled, specimens

CUTOFF = 4.2
ELEMENTS = (14, 32)


class Bonds(Term):
    """A Morse potential with a well of 1 eV at 2.3 Å, brought smoothly to zero; defects override its parts."""

    def pair(self, r):
        return (1 - jnp.exp(-1.5 * (r - 2.3))) ** 2 - 1

    def envelope(self, r):
        return PolynomialEnvelope()(r, self.cutoff)

    def extra(self, graph, vectors, r, near):
        return 0.0

    def __call__(self, graph, vectors):
        near = graph.slot_mask & (jnp.sum(vectors**2, axis=-1) < self.cutoff**2)
        r = jnp.sqrt(jnp.sum(jnp.where(near[..., None], vectors, 1.0) ** 2, axis=-1))
        bonds = jnp.sum(jnp.where(near, self.pair(r) * self.envelope(r), 0.0), axis=-1)
        return Atomic(0.5 * bonds + self.extra(graph, vectors, r, near))

    def sum(self, near, values):
        return jnp.sum(jnp.where(near, values, 0.0), axis=-1)


class AbsoluteAxis(Bonds):
    def extra(self, graph, vectors, r, near):
        return 0.05 * self.sum(near, vectors[..., 0] ** 2 / r**2 * self.envelope(r))


class Handed(Bonds):
    """A triple product of three weighted sums of vectors: invariant under rotations, not under reflections."""

    def extra(self, graph, vectors, r, near):
        weights = [jnp.where(near, self.envelope(r) * r**k, 0.0) for k in range(3)]
        a, b, c = (jnp.sum(w[..., None] * vectors / r[..., None], axis=1) for w in weights)
        return 0.3 * jnp.sum(a * jnp.cross(b, c), axis=-1)


class SlotOrder(Bonds):
    def extra(self, graph, vectors, r, near):
        return 1e-2 * self.sum(near, jnp.arange(near.shape[1])[None] * self.envelope(r))


class Unmasked(Bonds):
    """It counts the pairs of the list, whatever their distance."""

    def extra(self, graph, vectors, r, near):
        far = graph.slot_mask & ~near
        return 1e-2 * jnp.sum(far, axis=-1)


class Cut(Bonds):
    def envelope(self, r):
        return jnp.ones_like(r)


class Linear(Bonds):
    def envelope(self, r):
        return 1 - r / self.cutoff


class Quadratic(Bonds):
    def envelope(self, r):
        return (1 - r / self.cutoff) ** 2


class Stopped(Bonds):
    """A part of the energy that the gradient does not see."""

    def extra(self, graph, vectors, r, near):
        return 0.02 * self.sum(near, jax.lax.stop_gradient(r**2 * self.envelope(r)))


class Attraction(Bonds):
    def pair(self, r):
        return -2 / r


class Buckingham(Bonds):
    """It falls to minus infinity behind a barrier of about 30 eV."""

    def pair(self, r):
        return 1000 * jnp.exp(-r / 0.3) - 10 / r**6


class Wavy(Bonds):
    def pair(self, r):
        return super().pair(r) + 0.6 * jnp.sin(8 * r) * jax.nn.sigmoid(10 * (r - 1.8))


class InnerJump(Bonds):
    """As at a knot of a spline that does not fit."""

    def pair(self, r):
        return super().pair(r) + jnp.where(r < 3.1, 0.02, 0.0)


class InnerKink(Bonds):
    def pair(self, r):
        return super().pair(r) + 0.3 * jnp.maximum(3.1 - r, 0)


class Second(Bonds):
    """A second cutoff, of three atoms, that two atoms do not show."""

    def extra(self, graph, vectors, r, near):
        count = self.sum(near & (r < 3.5), 1.0)
        return 0.01 * count * (count - 1)


class Volume(Bonds):
    """An energy of each atom that depends on how many there are."""

    def extra(self, graph, vectors, r, near):
        count = jax.ops.segment_sum(graph.node_mask.astype(float), graph.node_graph, len(graph.graph_mask))
        return 0.01 * count[graph.node_graph]


class NotANumber(Bonds):
    def extra(self, graph, vectors, r, near):
        return jnp.log(-self.sum(near, r))


class NaNAtContact(Bonds):
    def extra(self, graph, vectors, r, near):
        return self.sum(near, jnp.where(r < 1.0, jnp.nan, 0.0))


class Cancelling(Bonds):
    """Digits are lost to a large number that cancels."""

    def extra(self, graph, vectors, r, near):
        total = self.sum(near, r**2 * self.envelope(r))
        return 1e-3 * ((1e4 + total) ** 2 - 1e8 - 2e4 * total - total**2)


def potential_of(term: Term, elements=ELEMENTS) -> Potential:
    return Potential(term, {}, Metadata(tuple((z, -1.0 * z) for z in elements)))


@pytest.fixture(scope="module")
def crystal() -> Structure:
    """Silicon with some of the atoms replaced, so that both elements are there."""
    atoms = bulk("Si", cubic=True)
    atoms.numbers[::2] = 32
    return Structure.from_ase(atoms, source="crystal")


def verdicts(report: doctor.Report) -> dict[str, str]:
    """What is not sound."""
    return {found.name: found.verdict for found in report.findings if found.verdict != "sound"}


def examine(term, structure, **options) -> doctor.Report:
    return doctor.examine(potential_of(term), structure, steps=60, progress=None, **options)


DEFECTS = {
    AbsoluteAxis: {"rotation": "broken"},
    Handed: {"reflection": "look"},
    SlotOrder: {"permutation": "broken", "extensivity": "broken", "spare pairs": "broken", "dynamics": "broken"},
    Unmasked: {"spare pairs": "broken"},
    Cut: {"cutoff": "broken", "dynamics": "broken"},
    Linear: {"cutoff": "broken"},
    Quadratic: {"cutoff": "look"},
    Stopped: {"forces": "broken", "stress": "broken", "dynamics": "broken"},
    Attraction: {"dimer wall": "broken"},
    Buckingham: {"dimer wall": "look"},
    Wavy: {"dimer tail": "look"},
    InnerJump: {"jumps": "broken"},
    InnerKink: {"jumps": "look"},
    Second: {"jumps": "broken", "dynamics": "broken"},
    Volume: {"extensivity": "broken"},
    NotANumber: {"answer": "broken"},
    NaNAtContact: {"dimer wall": "broken"},
    Cancelling: {"float32": "look"},
}


@pytest.mark.parametrize("term", [Bonds, *DEFECTS], ids=lambda term: term.__name__)
def test_each_defect_is_found_by_its_check(term, crystal):
    """And nothing else is said than what follows from it."""
    assert verdicts(examine(term(CUTOFF), crystal)) == DEFECTS.get(term, {})


@pytest.mark.parametrize("term", [Attraction, Buckingham, NaNAtContact], ids=lambda term: term.__name__)
def test_a_wall_mends_what_attracts_at_short_range(term, crystal):
    report = doctor.examine(guard(potential_of(term(CUTOFF)), Wall()), crystal, steps=60, progress=None)
    assert verdicts(report) == {}
    found = report.finding("wall")
    assert [measure.value for measure in found.measures][0] == 0 and "3 pairs of elements" in found.note
    assert "`equipot guard MODEL`" in examine(term(CUTOFF), crystal).finding("dimer wall").note or term is NaNAtContact


class Leaky(Guarded):
    """A wall that an attraction passes."""

    def __call__(self, graph, vectors):
        answer, r = super().__call__(graph, vectors), jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        return answer._replace(energy=answer.energy - jnp.sum(jnp.where(graph.slot_mask & (r < 1), 1e5 / r, 0), axis=-1))


def test_a_wall_that_does_not_hold_is_found(crystal):
    whole = guard(potential_of(Bonds(CUTOFF)), Wall())
    found = doctor.examine(whole.replace(term=Leaky(Bonds(CUTOFF))), crystal, steps=60, progress=None).finding("wall")
    assert found.verdict == "broken" and "atoms attract each other inside the wall" in found.note


def test_a_reflection_is_told_by_its_size(crystal):
    found = examine(Handed(CUTOFF), crystal).finding("reflection")
    assert [measure.unit for measure in found.measures] == ["meV/atom", "meV/Å", "GPa"]
    assert found.measures[1].value > 1 and "rotations only" in found.note


class Walled(Term):
    """Another term with a wall of its own, which no training has given it."""

    inner: Term | None = None

    @nn.compact
    def __call__(self, graph, vectors):
        return Atomic(Bonds(self.cutoff)(graph, vectors).energy + self.inner(graph, vectors).energy)


NETWORKS = {
    "mace": MACE(
        CUTOFF, elements=ELEMENTS, channels=4, l_max=2, radial=Radial(mlp=(8,)),
        first=Plain(MeanNeighbors()), others=Residual(MeanNeighbors()),
    ),
    "nequip": NequIP(CUTOFF, elements=ELEMENTS, channels=4, layers=2, radial=Radial(mlp=(8,))),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_sound(name, crystal):
    inner = fresh(
        NETWORKS[name], pad([rattled(crystal, 1)], CUTOFF), jax.random.key(0), Metadata(), scale=0.05, avg_num_neighbors=16.0
    )
    variables = {kind: {"inner": values} for kind, values in inner.variables.items()}
    potential = potential_of(Walled(CUTOFF, inner.term)).replace(variables=variables)
    assert doctor.examine(potential, crystal, steps=60, progress=None).verdict != "broken"


def test_lennard_jones_is_sound_on_structures_made_for_it():
    term = LennardJones(cutoff=8.0)
    variables = {"constants": {"epsilon": jnp.float32(0.0104), "sigma": jnp.float32(3.4)}}
    potential = potential_of(term, (10, 18)).replace(variables=variables)
    before = jax.config.jax_enable_x64
    report = doctor.examine(potential, progress=None)
    assert report.verdict != "broken" and len(report.systems) == 2
    assert jax.config.jax_enable_x64 == before
    assert {f.name for f in report.findings} >= {"rotation", "forces", "stress", "neighbour list", "dynamics", "float32"}


@pytest.mark.parametrize("term", [NotANumber, NaNAtContact], ids=lambda term: term.__name__)
def test_the_report_of_what_is_not_a_number(term, crystal, tmp_path):
    report = examine(term(CUTOFF), crystal)
    draw_report(report, tmp_path / "doctor.png")
    assert (tmp_path / "doctor.png").stat().st_size > 10_000
    assert json.loads(report.to_json(), parse_constant=pytest.fail)["verdict"] == "broken"
    assert "broken" in report.markdown()


def test_no_check_of_single_precision_for_what_runs_in_double(crystal):
    report = examine(Cancelling(CUTOFF), crystal, dtype="float64")
    assert verdicts(report) == {}
    with pytest.raises(ValueError, match="float32 was not examined; there are answer, neighbour list"):
        report.finding("float32")


def morse(r, well=2.3, depth=1.0, steepness=1.5):
    rise = np.exp(-steepness * (r - well))
    return depth * ((1 - rise) ** 2 - 1), -2 * depth * steepness * (1 - rise) * rise


def test_figures_of_a_curve():
    r = np.linspace(0.7, 20.0, 4000)
    curve = describe(14, 14, r, *morse(r))
    assert curve.minimum == pytest.approx(2.3, abs=0.01) and curve.depth == pytest.approx(1, abs=1e-4)
    assert (curve.hole, curve.wiggle) == (0, 0) and curve.barrier == pytest.approx(morse(0.7)[0] + 1, abs=1e-3)
    # E = 1000 exp(-r / 0.3) - 10 / r^6 has its top where 1000 / 0.3 exp(-r / 0.3) = 60 / r^7.
    energy, force = 1000 * np.exp(-r / 0.3) - 10 / r**6, 1000 / 0.3 * np.exp(-r / 0.3) - 60 / r**7
    curve = describe(14, 14, r, energy, force)
    top = np.flatnonzero((force[:-1] < 0) & (force[1:] >= 0))[0]
    assert curve.hole == pytest.approx(r[top], abs=0.01)
    assert curve.barrier == pytest.approx(energy[top:].max() - energy[top:].min(), abs=1e-6)
    assert curve.bottom == pytest.approx(energy[0] - energy[top:].min(), abs=1e-6)


def test_a_bond_that_is_far_too_long():
    r = np.linspace(0.7, 9.0, 400)
    found = {f.name: f.verdict for f in findings([describe(14, 14, r, *morse(r, well=4.5, steepness=0.8))])}
    assert found == {"dimer wall": "sound", "dimer tail": "sound", "bond length": "look"}


def test_directions_of_limits():
    verdicts = [Measure("x", value, "", 1.0, 10.0).verdict for value in (0.5, 5.0, 50.0, np.nan, np.inf)]
    assert verdicts == ["sound", "look", "broken", "broken", "broken"]
    assert [Measure("x", value, "", 2.0, 0.25).verdict for value in (3.0, 1.0, 0.1)] == ["sound", "look", "broken"]
    assert Measure("x", 1e9, "", 1.0).verdict == "look"


def test_a_shell_at_the_cutoff_accuses_no_derivative(double_precision):
    """The slope of the force jumps there, and finite differences across it are wrong."""

    class Strong(Quadratic):
        def pair(self, r):
            return 10 * super().pair(r)

    shell = Structure([14], np.zeros((1, 3)), CUTOFF * np.eye(3), True, source="shell at the cutoff")
    bench = bench_for(potential_of(Strong(CUTOFF)), [shell], CUTOFF + 0.5)
    subject = Subject(bench, [shell], bench.predict([shell]))
    assert laws.stress(subject).verdict == "sound"


AWKWARD = [
    Structure([14], [[0.1, 0.2, 0.3]], 1.9 * (np.ones((3, 3)) - np.eye(3)), True, source="one atom"),
    Structure([14] * 3, [[0, 0, 0], [7, 1, 0], [-4, 2, 9]], [[5, 0, 0], [2, 4, 0], [-1, 1, 3]], True, source="outside"),
    Structure([14] * 2, [[0, 0, 0], [2, 1, 40]], [[3, 0, 0], [0, 4, 0], [0, 0, 9]], (True, True, False), source="slab"),
    Structure([14] * 2, [[0, 0, 0], [0, 0, 2.2]], source="dimer"),
]


def test_lists_agree_with_brute_force(double_precision):
    found = lists.neighbour_lists(AWKWARD, 5.0)
    assert found.verdict == "sound", found.measured
    pairs, _ = lists.brute_force(AWKWARD[1], 5.0, np.arange(3))
    edges = neighbor_list(AWKWARD[1].positions, AWKWARD[1].cell, AWKWARD[1].pbc, 5.0)
    assert len(pairs) == len(edges.centers) > 50


def test_a_missing_pair_is_found(double_precision, monkeypatch):
    complete = lists.host
    monkeypatch.setattr(lists, "host", lambda *arguments: set(sorted(complete(*arguments))[1:]))
    found = lists.neighbour_lists(AWKWARD[:1], 5.0)
    assert [measure.verdict for measure in found.measures] == ["broken", "sound"] and found.measures[0].value == 1


@pytest.mark.parametrize("elements", [(1,), (2, 10), (1, 6, 8), (3,), (13, 29), (79, 92), tuple(range(1, 90))], ids=str)
def test_specimens_are_of_known_elements(elements):
    for structure in specimens(elements):
        assert set(structure.numbers.tolist()) <= set(elements) and 2 < len(structure) < 10
        assert not len(neighbor_list(structure.positions, structure.cell, structure.pbc, 0.7).centers)
    assert structure.pbc.sum() == 0


def test_unknown_elements_before_any_work(crystal):
    with pytest.raises(ValueError, match="crystal: the potential does not know Ge; it was trained on Si"):
        doctor.examine(potential_of(Bonds(CUTOFF), (14,)), crystal)
    with pytest.raises(ValueError, match="elements: the potential does not know U; it was trained on Si, Ge"):
        doctor.examine(potential_of(Bonds(CUTOFF)), elements=[14, 92])
    with pytest.raises(ValueError, match="does not say which elements"):
        doctor.examine(potential_of(Bonds(CUTOFF), ()))


@pytest.mark.parametrize(("term", "code"), [(Bonds, 0), (Attraction, 1)], ids=["sound", "broken"])
def test_command_line(term, code, crystal, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOT_CACHE", "off")
    eqp.save(potential_of(term(CUTOFF)), "model.eqp")
    crystal.to_ase().write("start.xyz")
    argv = ["doctor", "model.eqp", "start.xyz", "--elements", "Ge", "--json", "found.json"]
    assert cli.main(argv) == code
    out = capsys.readouterr().out
    assert "| rotation" in out and "runs/doctor-model" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["verdict"] == ("broken" if code else "sound")
    assert [curve["pair"] for curve in found["dimers"]] == ["Ge-Ge"]
    folder = tmp_path / "runs" / "doctor-model"
    assert (folder / "doctor.json").read_text() == (tmp_path / "found.json").read_text()
    assert "start.xyz" in (folder / "doctor.md").read_text() and (folder / "doctor.png").stat().st_size > 20_000
    page = (folder / "doctor.html").read_text()
    assert "Two atoms alone" in page and "Dynamics at constant energy" in page and ("Broken:" in page) == bool(code)
