"""The page of a report: it holds everything itself, and text stays text."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import numpy as np
import pytest
from equipot.uncertainty.page import NOTES, write_page

from equipot.figures import new_figure, save_figure

NASTY = '<script>alert("1 & 2")</script>\'é'


class Reader(HTMLParser):
    """What a browser would see: tags with their attributes, and the text in each."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.open = [], {}, []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data)


def seen(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def figure(tmp_path):
    drawn, (axis,) = new_figure(2, 2, 1)
    axis.plot(np.arange(3))
    save_figure(drawn, tmp_path / "figure.png")
    return tmp_path / "figure.png"


def test_a_page_holds_everything_itself_and_text_stays_text(tmp_path, figure):
    rows = [["", "RMSE", "unit"], ["forces_std", "93.1", NASTY], ["energy_std", "-1e-3", ""]]
    path = write_page(tmp_path / "new" / "folder", NASTY, {NASTY: rows, "empty": []}, {NASTY: figure}, [NASTY, "and more"])
    assert path == tmp_path / "new" / "folder" / "uncertainty.html" and [x.name for x in path.parent.iterdir()] == [path.name]
    content = figure.read_bytes()
    figure.unlink()
    page = seen(path)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    places = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    (place,) = places
    assert base64.b64decode(place.removeprefix("data:image/png;base64,")) == content
    assert "url(" not in path.read_text() and "@import" not in path.read_text()
    assert page.text["h1"] == page.text["title"] == [NASTY]
    assert page.text["h2"] == [NASTY, "empty", NASTY, "Notes"] and page.text["p"] == [NASTY, "and more"]
    assert page.text["th"] == ["RMSE", "unit"] and page.text["td"] == ["forces_std", "93.1", NASTY, "energy_std", "-1e-3"]
    numbers = [attributes.get("class") == "number" for tag, attributes in page.tags if tag == "td"]
    assert numbers == [False, True, False, False, True, False]
    assert next(attributes["alt"] for tag, attributes in page.tags if tag == "img") == NASTY


def test_a_page_says_what_intervals_promise_and_that_a_shift_ends_it(tmp_path):
    text = " ".join(seen(write_page(tmp_path, "title", {}, {})).text["p"])
    assert text == " ".join(NOTES) and "of the same kind" in text and "ends with a shift" in text


def test_what_cannot_be_a_page_leaves_the_old_one(tmp_path, figure):
    path = write_page(tmp_path, "first", {}, {})
    before = path.read_bytes()
    (tmp_path / "no.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="'one': a row has 1 cells, and the first 2"):
        write_page(tmp_path, "second", {"one": [["a", "b"], ["c"]]}, {})
    with pytest.raises(ValueError, match="is no PNG file"):
        write_page(tmp_path, "second", {}, {"figure": tmp_path / "no.png"})
    with pytest.raises(FileNotFoundError):
        write_page(tmp_path, "second", {}, {"figure": tmp_path / "missing.png"})
    assert path.read_bytes() == before
