"""Both neighbour lists against a brute-force reference, the skin against what it promises, and the flags against silence."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from equipot.graph import edge_vectors
from equipot.neighbors import (
    Edges,
    ListSpec,
    allocate,
    grow,
    is_stale,
    may_miss_pairs,
    more_pairs,
    neighbor_list,
    plan,
    slots,
    to_graph,
    update,
)  # fmt: skip

PERIODICITY = list(itertools.product((True, False), repeat=3))
jitted = partial(jax.jit, static_argnums=0)
build = jitted(allocate)
build_many = jitted(jax.vmap(allocate, in_axes=(None, 0, 0)))
stale = jitted(is_stale)
renew = jitted(update)
label = lambda pbc: "".join("FT"[p] for p in pbc)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def brute_force(positions, cell, pbc, cutoff):
    """Every pair, by trying every image that the size of the system allows."""
    cell = np.where(np.array(pbc)[:, None], cell, 0.0)
    heights = 1 / np.maximum(np.linalg.norm(np.linalg.pinv(cell), axis=0), 1e-12)
    difference = positions[None] - positions[:, None]
    span = np.linalg.norm(difference, axis=-1).max()
    most = [int(np.ceil((cutoff + span) / h)) if p else 0 for h, p in zip(heights, pbc, strict=True)]
    images = np.array(list(itertools.product(*(range(-m, m + 1) for m in most))))
    near = np.linalg.norm(difference[:, :, None] + images @ cell, axis=-1) < cutoff
    near[np.arange(len(positions)), np.arange(len(positions)), len(images) // 2] = False
    i, j, k = np.nonzero(near)
    return table((i, j, images[k]))


def table(edges):
    """Sorted rows (i, j, shift), to be compared."""
    rows = np.column_stack([edges[0], edges[1], edges[2]]).astype(int).reshape(-1, 5)
    return rows[np.lexsort(rows.T[::-1])]


def device_table(dlist):
    rows, slot = np.nonzero(dlist.slot_mask)
    return table(Edges(rows, np.asarray(dlist.neighbors)[rows, slot], np.asarray(dlist.shifts)[rows, slot]))


def assert_reverse(neighbors, shifts, reverse, mask):
    """The reverse of (i, j, s) is (j, i, -s); unused slots hold their own atom, no shift and themselves."""
    neighbors, shifts, reverse, mask = map(np.asarray, (neighbors, shifts, reverse, mask))
    atom = np.broadcast_to(np.arange(len(mask))[:, None], mask.shape)
    own = np.arange(mask.size).reshape(mask.shape)
    assert np.array_equal(reverse.ravel()[reverse], own)
    assert mask.ravel()[reverse[mask]].all()
    assert np.array_equal(atom.ravel()[reverse[mask]], neighbors[mask])
    assert np.array_equal(neighbors.ravel()[reverse[mask]], atom[mask])
    assert np.array_equal(shifts.reshape(-1, 3)[reverse[mask]], -shifts[mask])
    assert np.array_equal(neighbors[~mask], atom[~mask]) and np.array_equal(reverse[~mask], own[~mask])
    assert not shifts[~mask].any()


def fields(dlist):
    return dlist.neighbors, dlist.shifts, dlist.reverse, dlist.slot_mask


def random_cell(rng, length, skew=0.25, flat=0.5):
    """A skewed cell, left- or right-handed, none of whose heights is below ``flat`` times ``length``."""
    while True:
        cell = length * (np.diag(rng.uniform(0.7, 1.3, 3)) + rng.normal(scale=skew, size=(3, 3)))[rng.permutation(3)]
        if np.min(1 / np.linalg.norm(np.linalg.inv(cell), axis=0)) > flat * length:
            return cell


def random_system(rng, n, length, outside=0, flat=0.5):
    cell = random_cell(rng, length, flat=flat)
    return (rng.random((n, 3)) + rng.integers(-outside, outside + 1, (n, 3))) @ cell, cell


def shrunk_to_fit(positions, cell, pbc):
    """Open directions have no cell, half of the time as a zero row; atoms must not be far apart along them."""
    fraction = positions @ np.linalg.inv(cell)
    return np.where(pbc, fraction, fraction % 1) @ cell


@pytest.mark.parametrize("pbc", PERIODICITY, ids=label)
def test_both_lists_equal_brute_force(pbc):
    """320 random cells, triclinic, of both hands and smaller than the cutoff, with atoms that have left them."""
    rng = np.random.default_rng(sum(2**k for k in range(3) if pbc[k]))
    cutoff = 4.5
    reach = tuple(4 if p else 0 for p in pbc)
    spec = ListSpec(cutoff, 0.0, pbc, slots=260, grid=(1, 1, 1), reach=reach, occupancy=4, slack=1.0)
    systems = []
    for k in range(40):
        positions, cell = random_system(rng, 4, 3.2, outside=1)
        positions[3] = positions[2] if k == 0 else positions[3]
        zero = np.array(pbc) | (k % 2 == 0)
        systems.append((shrunk_to_fit(positions, cell, pbc), np.where(zero[:, None], cell, 0)))
    lists = jax.device_get(build_many(spec, *map(np.array, zip(*systems, strict=True))))
    assert not lists.overflow.any()
    hands, most = set(), 0
    for k, (positions, cell) in enumerate(systems):
        reference = brute_force(positions, cell, pbc, cutoff)
        edges = neighbor_list(positions, cell, np.array(pbc), cutoff)
        one = jax.tree.map(lambda x, k=k: x[k], lists)
        assert np.array_equal(np.column_stack(edges), reference)
        assert np.array_equal(device_table(one), reference)
        assert_reverse(*slots(edges, 4))
        assert_reverse(*fields(one))
        hands.add(np.sign(np.linalg.det(cell)))
        most = max(most, len(reference))
    assert {1.0, -1.0} <= hands
    assert most > 12 or not any(pbc)


@pytest.mark.parametrize("pbc", [PERIODICITY[k] for k in (0, 2, 7)], ids=label)
def test_grids_equal_brute_force(pbc):
    """Several bins along each vector, empty ones among them; a cell that was not planned for; words of more than one."""
    rng = np.random.default_rng(5)
    systems = [random_system(rng, 70, 11.0, outside=1, flat=0.7) for _ in range(5)]
    systems = [(shrunk_to_fit(r, c, pbc), c) for r, c in systems]
    specs = [plan(r, c, pbc, 2.5, skin=0.3, slack=2.0) for r, c in systems]
    smallest = tuple(min(s.grid[k] for s in specs) for k in range(3))
    spec = max(specs, key=lambda s: s.slots)
    spec = dataclasses.replace(spec, grid=tuple(g + 1 for g in smallest), occupancy=40, reach=(1, 1, 1))
    assert spec.words == 2 and min(spec.grid) > 2
    lists = jax.device_get(build_many(spec, *map(np.array, zip(*systems, strict=True))))
    assert not lists.overflow.any()
    for k, (positions, cell) in enumerate(systems):
        one = jax.tree.map(lambda x, k=k: x[k], lists)
        reference = brute_force(positions, cell, pbc, 2.8)
        assert np.array_equal(device_table(one), reference)
        assert np.array_equal(np.column_stack(neighbor_list(positions, cell, np.array(pbc), 2.8)), reference)
        assert_reverse(*fields(one))


def test_one_atom_and_a_cutoff_of_many_cells():
    rng = np.random.default_rng(2)
    cell = random_cell(rng, 1.5, flat=0.6)
    positions = np.array([[7.0, -3.0, 11.0]])
    spec = plan(positions, cell, True, 6.0, skin=0.0)
    dlist = build(spec, positions, cell)
    reference = brute_force(positions, cell, (True, True, True), 6.0)
    assert len(reference) > 200 and not dlist.overflow
    assert np.array_equal(device_table(dlist), reference)
    assert np.array_equal(np.column_stack(neighbor_list(positions, cell, np.ones(3, bool), 6.0)), reference)
    assert_reverse(*fields(dlist))


@pytest.mark.parametrize("pbc", PERIODICITY, ids=label)
def test_host_list_equals_ase_and_matscipy(pbc):
    from ase.neighborlist import primitive_neighbor_list
    from matscipy.neighbours import neighbour_list

    rng = np.random.default_rng(11)
    for _ in range(4):
        positions, cell = random_system(rng, 12, 4.0)
        ours = np.column_stack(neighbor_list(positions, cell, np.array(pbc), 4.0))
        assert len(ours)
        assert np.array_equal(ours, table(primitive_neighbor_list("ijS", pbc, cell, positions, 4.0)))
        theirs = neighbour_list("ijS", cutoff=4.0, positions=positions, cell=cell, pbc=np.array(pbc))
        assert np.array_equal(ours, table(theirs))


def test_two_atoms_at_the_same_place_are_a_pair():
    positions = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
    for cell in (np.zeros((3, 3)), 8.0 * np.eye(3)):
        edges = neighbor_list(positions, cell, cell.diagonal() > 0, 1.5)
        assert np.column_stack(edges)[:, :2].tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]


@pytest.mark.parametrize("pbc", [(True, True, False), (True, False, False), (False, False, False)], ids=label)
def test_atoms_far_away_along_an_open_direction(pbc):
    """Such a gap once ended the process inside vesin."""
    cell = np.diag([10.0, 10.0, 0.0])
    positions = np.array([[0, 0, 0], [1, 0, 0], [3, 2, 1e7], [3, 3, 1e7]], float)
    if not pbc[1]:
        positions[2:, 1] += 1e6
    edges = neighbor_list(positions, cell, np.array(pbc), 4.0)
    assert np.column_stack(edges)[:, :2].tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    if pbc[1]:
        dlist = build(plan(positions, cell, pbc, 4.0, skin=0.5), positions, cell)
        assert np.array_equal(device_table(dlist), np.column_stack(edges)) and not dlist.overflow


BAD = {
    "cutoff": (np.zeros((1, 3)), np.eye(3), True, 0.0, "cutoff is 0.0 Å"),
    "infinite cutoff": (np.zeros((1, 3)), np.eye(3), True, np.inf, "cutoff is inf"),
    "nan": (np.array([[0, 0, 0], [0, np.nan, 0]]), np.eye(3), True, 3.0, "position of atom 1"),
    "no cell": (np.zeros((1, 3)), np.zeros((3, 3)), True, 3.0, "no volume"),
    "flat": (np.zeros((1, 3)), np.array([[3, 0, 0], [0, 3, 0], [3, 3, 0]]), True, 3.0, "no volume"),
    "parallel": (np.zeros((1, 3)), np.array([[3, 0, 0], [6, 0, 0], [0, 0, 9]]), (True, True, False), 3.0, "no volume"),
    "zero wire": (np.zeros((1, 3)), np.diag([0, 3, 3]), (True, False, False), 3.0, "no volume"),
    "nan cell": (np.zeros((1, 3)), np.full((3, 3), np.nan), True, 3.0, "finite lattice vectors"),
}


@pytest.mark.parametrize("case", BAD)
def test_nonsense_is_refused(case):
    positions, cell, pbc, cutoff, message = BAD[case]
    for call in (neighbor_list, plan):
        with pytest.raises(ValueError, match=message):
            call(positions, cell, pbc, cutoff)


def test_plan_and_slots_refuse_nonsense():
    edges = neighbor_list(np.array([[0.0, 0, 0], [1, 0, 0]]), np.zeros((3, 3)), np.zeros(3, bool), 2.0)
    with pytest.raises(ValueError, match="only 0 slots"):
        slots(edges, 2, 0)
    with pytest.raises(ValueError, match="lacks its reverse"):
        slots(Edges(*(field[:1] for field in edges)), 2)
    for n, skin, slack, message in ((0, 0.5, 1.25, "at least one atom"), (1, -1, 1.25, "skin"), (1, 0, 0.5, "slack")):
        with pytest.raises(ValueError, match=message):
            plan(np.zeros((n, 3)), np.eye(3), True, 2.0, skin, slack)


def crystal(repeats, jitter=0.1, seed=0):
    """Diamond silicon."""
    basis = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]]) / 4
    basis = np.concatenate([basis, basis + 0.25])
    corner = np.array(list(itertools.product(range(repeats), repeat=3)))[:, None]
    positions = 5.43 * (corner + basis).reshape(-1, 3)
    return positions + np.random.default_rng(seed).normal(scale=jitter, size=positions.shape), 5.43 * repeats * np.eye(3)


def close_pairs(spec, dlist, positions, cell):
    """How many pairs of the list are within the cutoff now."""
    vectors = edge_vectors(to_graph(dlist, positions, jnp.ones(len(positions), jnp.int32), cell))
    return jnp.sum(jnp.linalg.norm(vectors, axis=-1) < spec.cutoff)


count = jitted(close_pairs)


def test_list_inside_a_loop_with_a_changing_cell():
    """A flexible-cell trajectory with drift, as one compiled loop: at no step is a pair missing, though few steps rebuild."""
    positions, cell = crystal(1)
    spec = plan(positions, cell, True, 5.0, skin=0.6, slack=2.0)
    positions, cell = jnp.asarray(positions), jnp.asarray(cell)
    rate = jnp.asarray([[-2.0, 1.5, 0.9], [0.0, -0.3, -1.2], [0.6, 0.0, 1.5]]) * 1e-3

    def step(carry, key):
        positions, cell, dlist = carry
        strain = jnp.eye(3) + rate
        positions = positions @ strain + 0.02 * jax.random.normal(key, positions.shape) + jnp.asarray([[0.3, 0.2, -0.1]])
        cell = cell @ strain
        old = dlist.reference_positions
        dlist = update(spec, dlist, positions, cell)
        rebuilt = jnp.any(dlist.reference_positions != old)
        return (positions, cell, dlist), (positions, cell, close_pairs(spec, dlist, positions, cell), rebuilt)

    keys = jax.random.split(jax.random.key(0), 80)
    run = jax.jit(lambda p, c: jax.lax.scan(step, (p, c, allocate(spec, p, c)), keys))
    (_, _, dlist), (path, cells, counts, rebuilt) = run(positions, cell)
    assert not dlist.overflow
    assert 2 <= rebuilt.sum() <= 20
    for r, c, count in zip(np.asarray(path), np.asarray(cells), counts, strict=True):
        assert count == len(neighbor_list(r, c, np.ones(3, bool), 5.0).centers)
    # The list at the end knows nothing of the lists before it, so a restarted run is the same run.
    afresh = build(spec, dlist.reference_positions, dlist.reference_cell)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(dlist), jax.tree.leaves(afresh), strict=True))


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True)], ids=label)
def test_no_pair_is_missed_before_the_list_is_stale(pbc):
    rng = np.random.default_rng(8)
    spec = ListSpec(4.0, 1.0, pbc, slots=200, grid=(1, 1, 1), reach=tuple(4 * p for p in pbc), occupancy=6, slack=1.0)
    held = went_stale = 0
    for _ in range(15):
        positions, cell = random_system(rng, 6, 3.6, flat=0.6)
        dlist = build(spec, positions, cell)
        assert not dlist.overflow
        before = np.asarray(positions), np.asarray(cell)
        rate, drift = np.eye(3) + rng.normal(loc=-0.005, scale=0.012, size=(3, 3)), rng.normal(size=3)
        for _ in range(20):
            positions = positions @ rate + rng.normal(scale=0.02, size=positions.shape) + drift
            cell = cell @ rate
            on_the_host = may_miss_pairs(before, (positions, cell), pbc, spec.radius, spec.cutoff)
            assert on_the_host == stale(spec, dlist, positions, cell)
            if on_the_host:
                went_stale += 1
                break
            held += 1
            wanted = len(neighbor_list(positions, cell, np.array(pbc), spec.cutoff).centers)
            assert count(spec, dlist, positions, cell) == wanted
    assert held > 40 and went_stale > 8


def test_without_the_strain_a_pair_would_be_missed():
    """One atom that does not move in a cell that shrinks: its displacement alone says nothing."""
    positions, cell = jnp.zeros((1, 3)), 3.0 * jnp.eye(3)
    squeezed = 0.8 * cell
    spec = plan(positions, squeezed, True, 5.0, skin=0.5)
    dlist = build(spec, positions, cell)
    wanted = len(neighbor_list(positions, squeezed, np.ones(3, bool), 5.0).centers)
    assert close_pairs(spec, dlist, positions, squeezed) < wanted
    assert stale(spec, dlist, positions, squeezed)
    assert close_pairs(spec, renew(spec, dlist, positions, squeezed), positions, squeezed) == wanted


def test_bound_is_tight():
    """What brings no pair nearer costs no rebuild; what does, costs one at exactly the promised strain and displacement."""
    positions, cell = map(jnp.asarray, crystal(1))
    spec = plan(positions, cell, True, 4.0, skin=1.0)
    dlist = build(spec, positions, cell)
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    thin = np.diag([1, 1, 0.799])
    for deformation, answer in ((q, False), (1.3 * np.eye(3), False), (0.801 * q, False), (0.799 * q, True), (thin, True)):
        assert stale(spec, dlist, positions @ deformation + 17.0, cell @ deformation) == answer
    assert stale(spec, dlist, positions.at[0, 0].set(jnp.nan), cell)
    two = jnp.zeros((2, 3))
    spec = plan(two, jnp.zeros((3, 3)), False, 4.0, skin=1.0)
    dlist = build(spec, two, jnp.zeros((3, 3)))
    for x, answer in ((0.999, False), (1.001, True)):
        assert stale(spec, dlist, two.at[0, 1].set(x), jnp.zeros((3, 3))) == answer
    exact = dataclasses.replace(spec, skin=0.0)
    assert not stale(exact, dlist, two, jnp.zeros((3, 3)))
    assert stale(exact, dlist, two.at[0, 1].set(1e-6), jnp.zeros((3, 3)))


SHORT = {
    "slots": dict(slots=20),
    "occupancy": dict(occupancy=3),
    "reach": dict(reach=(1, 1, 0)),
}


@pytest.mark.parametrize("name", SHORT)
def test_overflow_is_flagged_and_grow_mends_it(name):
    positions, cell = map(jnp.asarray, crystal(1))
    good = plan(positions, cell, True, 4.5, skin=0.5)
    short = dataclasses.replace(good, **SHORT[name])
    bad = build(short, positions, cell)
    assert bad.overflow
    assert np.asarray(bad.neighbors).max() < 8 and np.asarray(bad.reverse).max() < bad.reverse.size
    larger = grow(short, positions, cell)
    assert larger.slots >= short.slots and larger.occupancy >= short.occupancy
    dlist = build(larger, positions, cell)
    assert not dlist.overflow
    assert np.array_equal(device_table(dlist), brute_force(np.asarray(positions), np.asarray(cell), (True,) * 3, 5.0))


@pytest.mark.parametrize("deformation", [0.8 * np.eye(3), [[1, 0, 0], [1.2, 1, 0], [0, 0, 1]]], ids=["shrunk", "sheared"])
def test_a_cell_too_flat_for_the_plan_is_flagged(deformation):
    positions, cell = crystal(1)
    spec = plan(positions, cell, True, 4.5, skin=0.5)
    spec = dataclasses.replace(spec, slots=200)
    dlist = build(spec, positions, cell)
    positions, cell = positions @ np.array(deformation), cell @ np.array(deformation)
    assert not dlist.overflow
    after = renew(spec, dlist, positions, cell)
    assert after.overflow
    assert renew(spec, after, positions / np.max(deformation), cell / np.max(deformation)).overflow
    spec = grow(spec, positions, cell)
    dlist = build(spec, positions, cell)
    assert not dlist.overflow
    assert np.array_equal(device_table(dlist), brute_force(positions, cell, (True,) * 3, 5.0))


def test_grow_from_the_state_before_makes_everything_larger():
    positions, cell = crystal(1)
    spec = plan(positions, cell, True, 4.5)
    larger = grow(spec, positions, cell)
    assert larger.slots > spec.slots and larger.occupancy > spec.occupancy
    assert (larger.cutoff, larger.skin, larger.pbc) == (spec.cutoff, spec.skin, spec.pbc)
    assert grow(larger, positions, cell).slots > larger.slots


def test_what_is_not_finite_is_flagged_and_named():
    positions, cell = crystal(1)
    spec = plan(positions, cell, True, 4.5)
    dlist = build(spec, positions, cell)
    broken = np.where(np.arange(8)[:, None] == 3, np.nan, positions)
    for r, c in ((broken, cell), (positions, cell * np.nan), (positions, cell * 0)):
        assert renew(spec, dlist, r, c).overflow
    with pytest.raises(ValueError, match="position of atom 3"):
        grow(spec, broken, cell)


def test_graph_of_a_list():
    positions, cell = crystal(1)
    spec = plan(positions, cell, True, 4.5)
    r, c = jnp.asarray(positions), jnp.asarray(cell)
    dlist = build(spec, r, c)
    graph = to_graph(dlist, r, np.full(8, 14), c, charge=1.0)
    assert graph.charge.tolist() == [1.0] and graph.node_mask.all() and graph.cell.shape == (1, 3, 3)
    lengths = np.linalg.norm(edge_vectors(graph), axis=-1)[np.asarray(dlist.slot_mask)]
    assert 2.0 < lengths.min() and lengths.max() < spec.radius
    energy = lambda r, c: jnp.sum(
        jnp.exp(-jnp.sum(edge_vectors(to_graph(allocate(spec, r, c), r, np.ones(8, int), c)) ** 2, -1))
    )
    assert np.abs(jax.jit(jax.grad(energy))(r, c)).max() > 0
    open_spec = plan(positions, cell, False, 4.5)
    assert not to_graph(build(open_spec, r, c), r, np.ones(8, int), c).cell.any()


def test_ten_thousand_atoms_in_float32_and_linear_memory():
    positions, cell = crystal(11)
    cell = cell + np.array([[0, 0, 0], [9.0, 0, 0], [-7.0, 12.0, 0]])
    n = len(positions)
    spec = plan(positions, cell, True, 5.0, skin=0.5)
    assert min(spec.grid) > 4
    r, c = jnp.asarray(positions, jnp.float32), jnp.asarray(cell, jnp.float32)
    compiled = jax.jit(allocate, static_argnums=0).lower(spec, r, c).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n**2 / 2
    dlist = compiled(r, c)
    assert dlist.reference_positions.dtype == jnp.float32 and not dlist.overflow
    assert_reverse(*fields(dlist))
    exact = neighbor_list(np.asarray(r, float), np.asarray(c, float), np.ones(3, bool), spec.radius)
    ours, theirs = (set(map(tuple, t)) for t in (device_table(dlist), np.column_stack(exact)))
    assert len(ours ^ theirs) < 1e-4 * len(theirs)
    near = neighbor_list(np.asarray(r, float), np.asarray(c, float), np.ones(3, bool), spec.radius - 1e-4)
    assert set(map(tuple, np.column_stack(near))) <= ours


@pytest.mark.parametrize("symbol, structure, a, cutoff", [("LiF", "rocksalt", 4.0, 6.0), ("Si", "diamond", 5.43, 5.43)])
def test_a_shell_of_a_perfect_crystal_at_the_cutoff_has_room(symbol, structure, a, cutoff):
    crystal = bulk(symbol, structure, a=a, cubic=True)
    geometry = crystal.positions, crystal.cell[:]
    for r in (cutoff * (1 - 5e-5), cutoff, cutoff * (1 + 5e-5)):
        spec = plan(*geometry, True, r)
        assert not build(spec, *geometry).overflow


def test_pairs_without_room_are_flagged_and_grow_makes_room():
    crystal = bulk("Ar", "fcc", a=5.0, cubic=True) * (2, 2, 2)
    positions, cell = crystal.positions, crystal.cell[:]
    # The second shell, at 5 Å, comes in when the crystal shrinks by a hundredth.
    spec = plan(positions, cell, True, 4.96, skin=1.0)
    dlist = build(spec, positions, cell)
    assert not dlist.overflow and spec.pair_capacity < 18 * len(positions)
    crowded = renew(spec, dlist, 0.99 * positions, 0.99 * cell)
    assert crowded.overflow
    spec = grow(spec, 0.99 * positions, 0.99 * cell)
    assert spec.pair_capacity >= 18 * len(positions) and not build(spec, 0.99 * positions, 0.99 * cell).overflow
    before = plan(positions, cell, True, 4.96, skin=1.0)
    assert grow(before, positions, cell).pair_capacity > before.pair_capacity
    most = before.slots * len(positions)
    assert more_pairs(before, len(positions)).pair_capacity == min(most, 2 * before.pair_capacity)
    assert more_pairs(dataclasses.replace(before, pair_capacity=most), len(positions)) is None


def test_a_molecule_all_of_whose_pairs_come_within_the_cutoff_has_room():
    """As many pairs as slots hold are never too many: there is nothing that could be lost."""
    ring = 2.0 * np.stack([np.cos(np.arange(9) * 0.7), np.sin(np.arange(9) * 0.7), 0 * np.arange(9.0)], axis=1)
    spec = plan(ring, np.zeros((3, 3)), False, 3.9, skin=0.5)
    dlist = build(spec, ring, np.zeros((3, 3)))
    closer = 0.9 * ring
    assert close_pairs(spec, dlist, ring, np.zeros((3, 3))) < 72 == close_pairs(spec, dlist, closer, np.zeros((3, 3)))
    assert not renew(spec, dlist, closer, np.zeros((3, 3))).overflow


def test_a_list_that_does_not_fit_into_memory_is_told_before_it_is_made(monkeypatch):
    """A crystal whose density gives more pairs than there is room for, and a cutoff that would fit."""
    from equipot import memory

    positions, cell = np.zeros((1, 3)), np.eye(3) * 2.0
    monkeypatch.setattr(memory, "available_on_host", lambda: 2**30)
    with pytest.raises(ValueError, match=r"cutoff 300 Å: 1 atoms .* 1\.0 GiB are free; a cutoff below 27\d\.\d Å would fit"):
        neighbor_list(positions, cell, np.ones(3, bool), 300.0)
    assert len(neighbor_list(positions, cell, np.ones(3, bool), 10.0).centers) > 100
