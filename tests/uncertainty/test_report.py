"""The page on an estimate of uncertainty holds its table and its figure, and says what intervals promise."""

from __future__ import annotations

import numpy as np
from page_reader import read

from equipot.figures import new_figure, save_figure
from equipot.pages import write_page
from equipot.uncertainty.report import NAME, NOTES, report_blocks


def test_a_page_says_what_intervals_promise_and_that_a_shift_ends_it(tmp_path):
    drawn, (axis,) = new_figure(2, 2, 1)
    axis.plot(np.arange(3))
    save_figure(drawn, tmp_path / "figure.png")
    blocks = report_blocks("9 frames of test.xyz", [["", "RMSE"], ["forces_std", "93.1"]], tmp_path / "figure.png")
    page = read(write_page(tmp_path / NAME, "title", blocks))
    assert page.text["h2"] == ["On 9 frames of test.xyz", "Errors, reliability and retention", "Notes"]
    assert page.text["td"] == ["forces_std", "93.1"] and len(page.sources) == 1
    text = " ".join(page.text["p"])
    assert text == " ".join(NOTES) and "of the same kind" in text and "ends with a shift" in text
