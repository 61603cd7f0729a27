"""Pages in a real browser: they draw what they hold, answer to the mouse, and complain of nothing."""

from __future__ import annotations

import numpy as np
import pytest
from browser import ask, needs_browser, screenshot

from equipot.pages import Curve, Frame, Listing, Plot, Table, Text, Viewer, write_page

pytestmark = needs_browser

PLOTS = """
const pictures = [...document.querySelectorAll(".chart svg")];
const first = document.querySelector(".chart-frame"), box = first.getBoundingClientRect();
const lines = () => [...first.querySelectorAll(".chart-line, .chart-points")].map((e) => e.dataset.curve);
const ticks = () => [...first.querySelectorAll("text")].map((e) => e.textContent);
const fire = (kind, x, y) => {
  first.dispatchEvent(new PointerEvent(kind, { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
};
const found = { count: pictures.length, lines: lines(), ticks: ticks() };
found.sizes = pictures.map((e) => e.getBoundingClientRect().width);
found.paths = [...document.querySelectorAll(".chart-line, .chart-points")].map((e) => e.getAttribute("d"));
found.names = [...document.querySelectorAll("svg")[1].querySelectorAll("text")].map((e) => e.textContent);
found.logTicks = [...document.querySelectorAll("svg")[2].querySelectorAll("text")].map((e) => e.textContent);
found.errors = document.querySelectorAll(".chart-error").length;
const [x0, y0] = first.querySelector(".chart-points").getAttribute("d").match(/M([\\d.]+) ([\\d.]+)/).slice(1).map(Number);
fire("pointermove", x0 + 3, y0 - 3);
found.readout = first.querySelector(".chart-readout").textContent;
fire("pointermove", 5, 5);
found.silent = first.querySelector(".chart-readout").hidden;
fire("pointerdown", 200, 40);
fire("pointermove", 400, 120);
fire("pointerup", 400, 120);
found.zoomed = ticks();
found.reset = !first.parentElement.querySelector(".chart-reset").hidden;
first.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
found.restored = ticks();
document.querySelector(".chart-legend button").click();
found.hidden = lines();
document.querySelector(".chart-legend button").click();
found.shown = lines();
found.tags = document.querySelectorAll("main b, main i").length;
answer(found);
"""


@pytest.fixture
def plots(tmp_path):
    x = np.linspace(0, 10, 200)
    y = np.sin(x)
    y[90:100] = np.nan
    k = np.linspace(0, 1, 50)
    measured = Curve("measured <b>", x[::20], np.cos(x[::20]), points=True, error=np.full(10, 0.1))
    bands = [Curve(f"band {n}", k, n + np.abs(np.sin(3 * k)), group="bands") for n in range(3)]
    blocks = [
        Text("Failures", ["<i>no convergence</i>"], alarm=True),
        Table("Numbers", [["a", "b"], ["1", "2"]]),
        Plot("Two curves", [Curve("sine", x, y), measured], "time (ps)", "energy (eV)", [(5.0, "half")]),
        Plot("Bands", bands, "", "frequency (THz)", [(0, "Γ"), (0.5, "X"), (1, "L")]),
        Plot("Loss", [Curve("loss", np.arange(1, 1001), 1 / np.arange(1, 1001))], "epoch", "loss", log_x=True, log_y=True),
        Plot("Nothing", [Curve("none", [np.nan], [np.nan])], "x", "y"),
        Plot("Constant", [Curve("one", np.arange(3), np.full(3, -7.5))], "x", "y"),
        Listing("Config", "model: <b>"),
    ]
    return write_page(tmp_path / "plots.html", "Plots <b>", blocks)


def test_plots_are_drawn_and_answer(plots):
    found = ask(plots, PLOTS)
    assert found["count"] == 5 and min(found["sizes"]) > 500
    assert found["lines"] == ["sine", "measured <b>"] and found["errors"] == 1 and found["tags"] == 0
    sine, dots, *bands, loss, nothing, constant = found["paths"]
    # A gap begins a new piece; points are pieces of their own.
    assert sine.count("M") == 2 and sine.count("L") == 188 and dots.count("h0") == 10 and "NaN" not in "".join(found["paths"])
    assert len(bands) == 3 and loss.count("L") == 999 and nothing == "" and constant.count("L") == 2
    assert {"time (ps)", "energy (eV)", "half", "0.5", "-1.0", "8"} <= set(found["ticks"])
    # Names of points stand for numbers below the axis where it has no label.
    assert {"Γ", "X", "L", "1.0"} <= set(found["names"]) and "0.4" not in found["names"]
    assert {"1", "10", "100", "1000", "0.01"} <= set(found["logTicks"])
    assert found["readout"] == "measured <b>: 1 ± 0.1 at 0" and found["silent"]
    assert found["zoomed"] != found["ticks"] and found["reset"] and found["restored"] == found["ticks"]
    assert found["hidden"] == ["measured <b>"] and found["shown"] == found["lines"]


def test_plots_fit_a_narrow_window(plots):
    script = "answer([innerWidth, document.documentElement.scrollWidth, document.querySelector('.chart svg').clientWidth])"
    assert ask(plots, script)[2] > 700
    narrow, whole, chart = ask(plots, script, size=(500, 900))
    assert whole <= narrow == 500 and 400 < chart <= 500


VIEWER = """
const all = (root) => [...root.querySelectorAll("*")].flatMap((e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
const state = () => ({
  text: all(document).filter((e) => e.tagName === "TABLE").map((e) => e.textContent).join(" "),
  pin: all(document).find((e) => e.matches(".chsp-map-pin-marker")).style.top,
});
const red = () => {
  const source = all(document).filter((e) => e.tagName === "CANVAS").at(-1), copy = document.createElement("canvas");
  [copy.width, copy.height] = [source.width, source.height];
  const context = copy.getContext("2d");
  context.drawImage(source, 0, 0);
  const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
  let count = 0;
  const isRed = ([r, g, b]) => r > 100 && 3 * g < r && 3 * b < r;
  for (let k = 0; k < pixels.length; k += 4) count += isRed(pixels.slice(k, k + 3));
  return count / (pixels.length / 4);
};
const whenReady = (tries) => {
  if (!all(document).some((e) => e.matches("input[type=range]")) || tries < 20) return setTimeout(whenReady, 200, tries + 1);
  const before = state(), slider = all(document).find((e) => e.matches("input[type=range]"));
  const share = red();
  slider.value = 3;
  for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
  setTimeout(() => answer({ share, before, after: state() }), 500);
};
whenReady(0);
"""


def test_a_viewer_shows_atoms_and_the_plot_follows_the_frame(tmp_path):
    positions = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    frame = lambda k: Frame(np.array([8, 1, 1]), positions + 0.05 * k, None, np.zeros(3, bool), positions, f"frame {k} <b>")
    properties = {"time (ps)": np.arange(5.0), "temperature (K)": 300.0 + np.arange(5)}
    path = write_page(tmp_path / "viewer.html", "Viewer", [Viewer("Trajectory", [frame(k) for k in range(5)], properties)])
    found = ask(path, VIEWER, virtual_ms=20_000)
    # Oxygen is red.
    assert found["share"] > 0.003
    assert "structure 0" in found["before"]["text"] and "temperature (K)300" in found["before"]["text"]
    assert "structure 3" in found["after"]["text"] and "temperature (K)303" in found["after"]["text"]
    assert found["before"]["pin"] != found["after"]["pin"] and "frame 3 ‹b›" in found["after"]["text"]


def test_a_crystal_fills_its_picture(tmp_path):
    cell = np.diag([5.6, 5.6, 5.6])
    positions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) @ cell
    path = write_page(
        tmp_path / "crystal.html", "t", [Viewer("Crystal", [Frame(np.full(4, 8), positions, cell, np.ones(3, bool))])]
    )
    pixels = screenshot(path, tmp_path / "crystal.png", size=(700, 700), virtual_ms=8000).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    rows, columns = np.nonzero(red[180:])
    assert red[180:].mean() > 0.003 and np.ptp(rows) > 120 and np.ptp(columns) > 120
