"""Pages hold everything themselves, text stays text, and no number is lost or invented."""

from __future__ import annotations

import base64
import sys

import numpy as np
import pytest
from page_reader import read

from equipot.figures import new_figure, save_figure
from equipot.pages import (
    Block,
    Curve,
    Frame,
    Listing,
    Picture,
    Plot,
    Table,
    Text,
    Viewer,
    chemiscope,
    try_to_write_page,
    write_page,
)
from equipot.pages.plot import MOST_POINTS
from equipot.pages.viewer import LONGEST_ARROW, MOST_FRAMES, oblique_view

NASTY = '</script><script>alert("1 & 2")</script>\'é'


@pytest.fixture
def figure(tmp_path):
    drawn, (axis,) = new_figure(2, 2, 1)
    axis.plot(np.arange(3))
    save_figure(drawn, tmp_path / "figure.png")
    return tmp_path / "figure.png"


def water(shift=0.0, vectors=None, label=""):
    positions = np.array([[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]) + shift
    return Frame(np.array([8, 1, 1]), positions, None, np.zeros(3, bool), vectors, label)


def crystal():
    return Frame(
        np.array([14, 14]), np.array([[0, 0, 0], [1.4, 1.4, 1.4]]), np.full((3, 3), 2.7) - 2.7 * np.eye(3), np.ones(3, bool)
    )


def test_a_page_holds_everything_itself_and_text_stays_text(tmp_path, figure):
    rows = [["", "RMSE", "unit"], ["forces_std", "93.1", NASTY], ["energy_std", "-1e-3", ""]]
    curve = Curve(NASTY, np.arange(3), np.arange(3.0), group=NASTY)
    blocks = [
        Text(NASTY, [NASTY, "and more"], alarm=True),
        Table(NASTY, rows),
        Table("empty", []),
        Picture(NASTY, figure),
        Picture("bytes", figure.read_bytes()),
        Plot(NASTY, [curve], NASTY, NASTY, [(1.0, NASTY)]),
        Listing(NASTY, f"a: {NASTY}\n  b: 1\n"),
        Viewer(NASTY, [water(label=NASTY), water()], {NASTY: np.arange(2.0)}),
    ]
    path = write_page(tmp_path / "new" / "folder" / "a.html", NASTY, blocks)
    assert path == tmp_path / "new" / "folder" / "a.html" and [x.name for x in path.parent.iterdir()] == ["a.html"]
    content = figure.read_bytes()
    figure.unlink()
    page = read(path)
    assert {base64.b64decode(place.removeprefix("data:image/png;base64,")) for place in page.sources} == {content}
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert links == [f"#s{k}" for k in range(1, 9)] and not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert page.text["h1"] == page.text["title"] == [NASTY]
    assert page.text["h2"] == page.text["a"] == [NASTY, NASTY, "empty", NASTY, "bytes", NASTY, NASTY, NASTY]
    assert page.text["p"][:3] == [NASTY, "and more", "No entries."]
    assert page.text["th"] == ["RMSE", "unit"] and page.text["td"] == ["forces_std", "93.1", NASTY, "energy_std", "-1e-3"]
    numbers = [attributes.get("class") == "number" for tag, attributes in page.tags if tag in ("th", "td")]
    assert numbers == [False, True, False, False, True, False, False, True, False]
    assert page.text["pre"][0].lstrip("\n") == f"a: {NASTY}\n  b: 1\n"
    assert ("section", {"id": "s1", "class": "alarm"}) in page.tags
    (plot,) = page.plots
    assert plot["heading"] == plot["x_label"] == plot["y_label"] == plot["marks"][0][1] == plot["curves"][0]["group"] == NASTY
    # The viewer's own script would take tags in names for HTML.
    told = str(page.viewers[0]["properties"]) + page.viewers[0]["meta"]["name"]
    assert not set("<>&") & set(told) and "‹script›" in told
    assert page.viewers[0]["properties"]["frame"]["values"] == [0, 1]


def test_numbers_stand_to_the_right_except_among_text(tmp_path):
    table = Table("t", [("", "", ""), ("steps", "12", "1.5"), ("end", "finished", ""), ("devices", "1 x cpu", "7%")])
    page = read(write_page(tmp_path / "a.html", "t", [table]))
    right = [attributes.get("class") == "number" for tag, attributes in page.tags if tag == "td"]
    assert right == [False, False, True, False, False, False, False, False, True]
    assert not [tag for tag, _ in page.tags if tag in ("thead", "th")]


def test_numbers_in_a_plot_come_back_as_they_were_and_what_is_none_is_a_gap(tmp_path):
    y = np.array([1.0, np.nan, -1 / 3, np.inf, 12345.678901])
    error = np.array([0.1, 0.1, np.nan, 0.1, 0.1])
    block = Plot("p", [Curve("a", np.arange(5), y, error=error), Curve("b", [1.0], [2.0], points=True)], "x", "y", log_y=True)
    (plot,) = (page := read(write_page(tmp_path / "a.html", "t", [block]))).plots
    first, second = plot["curves"]
    assert first["x"] == [0, 1, 2, 3, 4] and first["y"] == [1, None, -0.3333333333, None, 12345.6789]
    assert first["error"] == [0.1, 0.1, None, 0.1, 0.1] and second["error"] is None and second["points"] and plot["log_y"]
    assert any("2 point(s) whose values are not finite" in note for note in page.text["p"])
    assert any("1 point(s) that are not positive" in note for note in page.text["p"])
    (plot,) = (page := read(write_page(tmp_path / "b.html", "t", [Plot("p", [Curve("a", [np.nan], [1.0])], "x", "y")]))).plots
    assert plot["curves"][0]["x"] == [None] and "nothing to plot" in page.text["p"][0]


def test_a_long_curve_keeps_its_peaks_and_the_page_says_that_it_is_thinned(tmp_path):
    x, rng = np.arange(100_000), np.random.default_rng(0)
    y = rng.normal(0, 1, len(x))
    y[[777, 54_321]] = [1e3, -1e3]
    y[60_000:70_000] = np.nan
    thin = Curve("a", x, y).thinned()
    assert len(thin.x) <= MOST_POINTS + 2 and np.all(np.diff(thin.x) > 0) and thin.x[0] == 0 and thin.x[-1] == x[-1]
    assert (
        {1e3, -1e3} <= set(thin.y) and np.isnan(thin.y).any() and np.array_equal(y[thin.x.astype(int)], thin.y, equal_nan=True)
    )
    dots = Curve("a", x, y, points=True).thinned()
    assert len(dots.x) == MOST_POINTS and dots.x[0] == 0 and dots.x[-1] == x[-1]
    text = read(write_page(tmp_path / "a.html", "t", [Plot("p", [Curve("a", x, y)], "x", "y")])).text["p"]
    assert any("up to 100000 points are drawn with about 4000" in note for note in text)
    few = Curve("a", x[:9], y[:9])
    assert few.thinned() is few


def test_a_viewer_holds_atoms_cells_arrows_and_properties(tmp_path):
    vectors = np.array([[0, 0, 2.0], [0, 0, -1.0], [0, 0, 0]])
    frames = [water(0.1, vectors, "first"), water(0.2), crystal()]
    properties = {
        "energy (eV)": np.array([1.0, np.nan, -2.5]),
        "time (ps)": np.array([0, 0.5, 1.0]),
        "unknown": np.full(3, np.nan),
    }
    page = read(write_page(tmp_path / "a.html", "t", [Viewer("v", frames, properties)]))
    (shown,) = page.viewers
    first, _, third = shown["structures"]
    assert first["names"] == ["O", "H", "H"] and first["size"] == 3 and "cell" not in first
    np.testing.assert_allclose(np.array([first[k] for k in "xyz"]).T, frames[0].positions, atol=1e-4)
    assert third["names"] == ["Si", "Si"] and third["cell"] == [0, 2.7, 2.7, 2.7, 0, 2.7, 2.7, 2.7, 0]
    assert shown["properties"]["energy (eV)"]["values"] == [1, None, -2.5] and "unknown" not in shown["properties"]
    assert shown["properties"]["label"]["values"] == ["first", "", ""]
    axes = shown["settings"]["map"]
    assert (axes["x"]["property"], axes["y"]["property"]) == ("time (ps)", "energy (eV)")
    arrows = np.array([atom["vector"] for atom in shown["shapes"]["vectors"]["parameters"]["atom"]])
    assert arrows.shape == (8, 3) and not arrows[3:].any()
    np.testing.assert_allclose(arrows[:3], LONGEST_ARROW / 2 * vectors)
    assert any("longest is drawn 1.5 Å" in note for note in page.text["p"])
    # The licences of what is copied into the page stand in the page.
    assert "chemiscope developers" in page.text["pre"][0] and "3dmol" in page.text["pre"][0]


def test_a_crystal_is_seen_upright_and_whole():
    camera = oblique_view(np.zeros((1, 3)), np.diag([4.0, 4.0, 4.0]))
    vector = lambda name: np.array(list(camera[name].values()))
    towards, up = vector("eye") - vector("center"), vector("up")
    # Columns 2 and 1 of a rotation, whose column 2 is where the z axis of the crystal goes: up, and a little to the front.
    right = np.cross(up, towards)
    rotation = np.column_stack([right, up, towards])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    x, y, z = rotation @ [0, 0, 1]
    assert x == pytest.approx(0, abs=1e-12) and y > 0.9 and z > 0
    np.testing.assert_allclose(vector("center"), -2.0)
    assert camera["radius"] == pytest.approx(np.sqrt(12) + 0.5)


def test_a_long_trajectory_is_thinned_and_the_page_says_so(tmp_path):
    frames = [water(0.001 * k) for k in range(1201)]
    block = Viewer("v", frames, {"energy (eV)": np.arange(1201.0)})
    (shown,) = (page := read(write_page(tmp_path / "a.html", "t", [block]))).viewers
    kept = shown["properties"]["energy (eV)"]["values"]
    assert len(shown["structures"]) == len(kept) == MOST_FRAMES and (kept[0], kept[-1]) == (0, 1200)
    assert shown["properties"]["frame"]["values"] == kept and "label" not in shown["properties"]
    assert any("500 of 1201 frames" in note for note in page.text["p"])
    large = Frame(np.ones(150_000), np.zeros((150_000, 3)), None, np.zeros(3, bool))
    assert Viewer("v", [large] * 7).kept.tolist() == [6] and not Viewer("v", [large]).unshown
    huge = Frame(np.ones(200_001), np.zeros((200_001, 3)), None, np.zeros(3, bool))
    assert "200001 atoms are too many" in Viewer("v", [huge]).html()


def test_without_chemiscope_a_page_says_how_to_get_it_and_shows_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(chemiscope, "installed", lambda: None)
    block = Viewer("v", [water(), water(0.1)], {"energy (eV)": np.array([1.0, 2.0])})
    page = read(write_page(tmp_path / "a.html", "t", [block, Text("more", ["text"])]))
    assert "pip install 'equipot[viewer]'" in page.text["p"][0] and "text" in page.text["p"]
    (plot,) = page.plots
    assert plot["y_label"] == "energy (eV)" and plot["curves"][0]["y"] == [1, 2] and not page.viewers
    assert (tmp_path / "a.html").stat().st_size < 50_000


def test_no_module_of_chemiscope_is_imported(tmp_path):
    write_page(tmp_path / "a.html", "t", [Viewer("v", [water()])])
    assert "chemiscope" not in sys.modules and "ipywidgets" not in sys.modules


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table("one", [["a", "b"], ["c"]]), "'one': a row has 1 cells, and the first 2"),
        (lambda: Curve("c", [1.0, 2.0], [1.0]), "'c': x, y and error have shapes"),
        (lambda: Curve("c", [1.0], [1.0], error=[1.0, 2.0]), "'c': x, y and error have shapes"),
        (lambda: Curve("c", [[1.0]], [[1.0]]), "'c': x, y and error have shapes"),
        (lambda: Frame(np.ones(2), np.zeros((3, 3)), None, np.zeros(3)), "positions has shape"),
        (lambda: Frame(np.ones(2), np.zeros((2, 3)), None, np.zeros(3), np.zeros((1, 3))), "vectors has shape"),
        (lambda: Frame(np.ones(1), np.full((1, 3), np.nan), None, np.zeros(3)), "positions has a value that is not finite"),
        (lambda: Viewer("v", []), "there are no frames"),
        (lambda: Viewer("v", [water()], {"e": np.zeros(2)}), r"e has shape \(2,\), but there are 1 frames"),
    ],
)
def test_what_cannot_be_a_block_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_cannot_be_a_page_leaves_the_old_one(tmp_path):
    path = write_page(tmp_path / "a.html", "first", [])
    before = path.read_bytes()
    (tmp_path / "no.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="is no PNG file"):
        write_page(path, "second", [Picture("figure", tmp_path / "no.png")])
    with pytest.raises(FileNotFoundError):
        write_page(path, "second", [Picture("figure", tmp_path / "missing.png")])
    with pytest.raises(NotImplementedError, match="Block does not say"):
        write_page(path, "second", [Block("bare")])
    said = []
    missing = lambda: [Picture("figure", tmp_path / "missing.png")]
    assert try_to_write_page(path, "second", missing, said.append) is None
    assert len(said) == 1 and "a.html could not be written (FileNotFoundError" in said[0]
    assert path.read_bytes() == before and sorted(x.name for x in tmp_path.iterdir()) == ["a.html", "no.png"]
    assert try_to_write_page(path, "third", lambda: [], said.append) == path and len(said) == 1


def test_equal_content_makes_equal_pages(tmp_path):
    blocks = [Viewer("v", [water()]), Plot("p", [Curve("a", [1.0], [1.0])], "x", "y")]
    first, second = (write_page(tmp_path / name, "t", blocks).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
