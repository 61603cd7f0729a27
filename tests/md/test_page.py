"""The page of a run, from a log and a trajectory that no run has written."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from page_reader import read

from equipot.md.page import MOST_FRAMES, run_blocks
from equipot.md.sampling import evenly, sampled
from equipot.md.summary import Summary
from equipot.md.trajectory import ExtXYZWriter, Frame, H5MDWriter, System
from equipot.pages import write_page

SUMMARY = Summary(4000, 301.5, 12.0, 1.0, 3.25, 2)
NUMBERS = np.array([18, 18, 10])


def frames(count, every=10):
    rng = np.random.default_rng(0)
    cell = lambda k: np.diag([5.0, 6.0, 7.0 + 0.001 * k])
    positions = lambda: rng.normal(0, 2, (3, 3))
    return [
        Frame(every * k, 4.0 * every * k, positions(), rng.normal(0, 1, (3, 3)), positions(), cell(k), -0.1 * k)
        for k in range(count)
    ]


def log(count, every=5):
    step = every * np.arange(count)
    columns = {"step": step.astype(float), "time_ps": step * 0.004, "temperature_K": 300 + np.sin(step)}
    columns |= {"potential_eV": -5e4 + 1e-3 * np.cos(step), "kinetic_eV": np.full(count, 2.0)}
    columns["total_eV"] = columns["potential_eV"] + columns["kinetic_eV"]
    columns["conserved_eV"] = columns["total_eV"] + 0.01
    return columns | {"pressure_GPa": np.full(count, 0.5), "volume_A3": np.full(count, 210.0)}


@pytest.mark.parametrize("kind", ["xyz", "h5"])
def test_frames_that_are_read_back_are_those_that_were_written(kind, tmp_path):
    written = frames(500)
    system = System(NUMBERS, np.array([[40.0], [40.0], [20.0]]), (True, True, False))
    writer = (ExtXYZWriter if kind == "xyz" else H5MDWriter)(tmp_path / f"trajectory.{kind}", system)
    assert kind == "h5" or not (tmp_path / "trajectory.xyz").exists()
    writer.append(written)
    found = sampled(writer.file.path if kind == "xyz" else writer.path, 7)
    assert [sample.step // 10 for sample in found] == [0, 83, 166, 250, 333, 416, 499]
    for sample in found:
        frame = written[sample.step // 10]
        np.testing.assert_allclose(sample.position, frame.position, atol=1e-6)
        np.testing.assert_allclose(sample.cell, frame.cell, atol=1e-6)
        assert sample.numbers.tolist() == NUMBERS.tolist() and sample.pbc == (True, True, False)
        assert sample.time_fs == frame.time_fs
    if kind == "xyz":
        every = ase.io.read(tmp_path / "trajectory.xyz", ":")
        np.testing.assert_array_equal(found[3].position, every[250].positions)


def test_even_choices_have_both_ends():
    assert evenly(0, 5).tolist() == [] and evenly(1, 5).tolist() == [0] and evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(100, 2).tolist() == [0, 99] and len(evenly(1000, 200)) == 200


def test_what_is_no_trajectory_is_refused(tmp_path):
    (tmp_path / "trajectory.xyz").write_text("hello\n")
    with pytest.raises(ValueError, match="does not begin with a number of atoms"):
        sampled(tmp_path / "trajectory.xyz", 5)
    (tmp_path / "empty.xyz").write_text("")
    assert sampled(tmp_path / "empty.xyz", 5) == []


def test_the_page_of_a_run(tmp_path):
    table = log(1000)
    ExtXYZWriter(tmp_path / "trajectory.xyz", System(NUMBERS, np.ones((3, 1)), (True,) * 3)).append(frames(501))
    (tmp_path / "config.yaml").write_text("ensemble: {kind: NVE}\n")
    page = read(write_page(tmp_path / "md.html", "run", run_blocks(tmp_path, table, SUMMARY)))
    assert page.text["h2"] == ["Results", "Energies", "Temperature", "Pressure", "Trajectory", "Config"]
    cells = page.text["td"]
    assert (
        cells[cells.index("mean temperature, second half") + 1] == "301.50 K" and "19.98 ps" in cells and "3.25 ns/day" in cells
    )
    energies, temperature, _ = page.plots
    shown = {curve["name"]: np.array(curve["y"]) for curve in energies["curves"]}
    # Differences of a meV beside a total of 50,000 eV are kept.
    np.testing.assert_allclose(shown["potential"], table["potential_eV"] - table["total_eV"][0], atol=1e-8)
    assert shown["conserved"][0] == 0 and temperature["curves"][1]["name"] == "mean so far"
    (viewer,) = page.viewers
    assert len(viewer["structures"]) == MOST_FRAMES
    time, kelvin = (np.array(viewer["properties"][name]["values"], float) for name in ("time (ps)", "temperature (K)"))
    known = time < 19.98
    np.testing.assert_allclose(kelvin[known], 300 + np.sin(time[known] / 0.004), atol=1e-6)
    # The last frame is of a step that the log does not have.
    assert known.sum() == MOST_FRAMES - 1 and np.isnan(kelvin[-1])


def test_a_run_of_a_molecule_without_a_trajectory_has_no_pressure(tmp_path):
    table = log(4) | {"pressure_GPa": np.full(4, np.nan), "volume_A3": np.full(4, np.nan), "max_novelty": np.full(4, np.nan)}
    page = read(write_page(tmp_path / "md.html", "run", run_blocks(tmp_path, table, SUMMARY._replace(ns_per_day=np.nan))))
    assert page.text["h2"] == ["Results", "Energies", "Temperature"] and not page.viewers
    assert not [cell for cell in page.text["td"] if "pressure" in cell or "speed" in cell]
