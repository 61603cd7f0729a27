"""The page of an examination: defects come first, and curves of pairs show wells and holes."""

from __future__ import annotations

import dataclasses

import numpy as np
from page_reader import read

from equipot.pages import write_page
from equipot.workflows.doctor.evidence import Curve, EnergyRun, Evidence, Passage
from equipot.workflows.doctor.findings import Finding, Measure, Report
from equipot.workflows.doctor.page import pieces, report_blocks

DISTANCE = np.linspace(0.5, 3.0, 6)
HOLE = Curve("C-H", DISTANCE, np.array([-4.0, 90.0, 50.0, 2.0, -2.0, np.nan]), np.zeros(6), 1.0, 2.5, 2.0, 1.0, 92.0, -2.0, 0.0)


def report(*findings):
    line = np.arange(3.0)
    passage, run = Passage("C···H", line, line, line), EnergyRun("NVE", line, line, 300 + line)
    evidence = Evidence(line, line, (HOLE,), (passage,), (run,))
    return Report("model.eqp", ("start.xyz: <2 atoms>",), findings, 3.0, evidence)


def test_defects_come_first_and_every_finding_is_listed(tmp_path):
    sound = Finding("rotation", (Measure("energy", 1e-9, "meV/atom", 1e-3, 1.0),))
    broken = Finding("dimer wall", (Measure("C-H hole", 92.0, "eV", 1.0, 2.0),), "atoms may fuse")
    page = read(write_page(tmp_path / "a.html", "t", report_blocks(report(sound, broken))))
    assert page.text["h2"][:3] == ["Broken: 1 of 2 checks", "Findings", "Examined"]
    assert page.text["p"][0] == "dimer wall: C-H hole 92 eV. atoms may fuse" and "start.xyz: <2 atoms>" in page.text["p"]
    cells = page.text["td"]
    assert cells[:4] == ["rotation", "sound", "energy 1e-09 meV/atom", "≤ 0.001"] and cells[4:6] == ["dimer wall", "broken"]
    headings = ["Two atoms alone, up to 6 eV", "An atom passes the cutoff"]
    headings += ["Forces along random directions", "Dynamics at constant energy"]
    assert [plot["heading"] for plot in page.plots] == headings
    assert page.plots[0]["marks"] == [[1.0, "hole C-H"]] and page.plots[1]["curves"][0]["y"] == [0, 1000, 2000]
    whole = read(write_page(tmp_path / "b.html", "t", report_blocks(report(sound))))
    assert whole.text["h2"][0] == "Findings"
    bare = read(write_page(tmp_path / "c.html", "t", report_blocks(dataclasses.replace(report(sound), evidence=Evidence()))))
    assert not bare.plots and bare.text["h2"] == ["Findings", "Examined"]


def test_no_line_is_drawn_over_a_barrier():
    hole, well = pieces(HOLE, 6.0)
    assert hole.y.tolist() == [-4.0] and hole.group == well.group == "C-H"
    np.testing.assert_array_equal(well.x, DISTANCE[3:])
    np.testing.assert_array_equal(well.y, [2.0, -2.0, np.nan])
    assert [len(piece.x) for piece in pieces(HOLE, 100.0)] == [6] and pieces(HOLE, -10.0)[0].x.tolist() == [3.0]
