"""Contact sheets: what stands in the page and in the picture, whatever the files and their names."""

import base64
import html.parser
import io
import os
import re
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from deephash.report import Picture, Row, Sheet, write_html, write_png

RED, GREEN, BLUE = (255, 0, 0), (0, 160, 0), (0, 0, 255)
HOSTILE = '<img src=x onerror="alert(1)">&\'{}.png'


def plain(colour, size=(300, 200)):
    return Image.new("RGB", size, colour)


def sheet(*pictures, title="title", notes=()):
    first, *others = pictures
    return Sheet(title, [Row(first, others)], notes)


class Page(html.parser.HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(sheet, tmp_path):
    write_html(sheet, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text("utf-8")
    return text, Page(text)


def picture_in(source):
    kind, data = re.fullmatch(r"data:image/(jpeg|png);base64,(.*)", source).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


# --- HTML ---


def test_the_page_holds_its_pictures_and_refers_to_nothing_else(tmp_path):
    path = tmp_path / "red.png"
    plain(RED).save(path)
    text, page = page_of(sheet(Picture(path, "query", "query", str(path)), Picture(plain(GREEN), "3 · b")), tmp_path)
    assert not re.search(r"https?:|src=\"(?!data:)|url\(|@import|<script|<link", text)
    (red, green) = [picture_in(image["src"]) for image in page.all("img")]
    assert red[0] == green[0] == "jpeg"
    assert red[1].size == (176, 117)
    assert red[1].getpixel((88, 58))[0] > 240 > red[1].getpixel((88, 58))[1]
    assert green[1].getpixel((88, 58))[1] > 140
    assert [link["href"] for link in page.all("a")] == [path.as_uri()]
    assert page.all("figure")[0] == {"class": "query", "title": str(path)}
    assert "3 · b" in page.words


def test_hostile_names_are_text_everywhere(tmp_path):
    path = tmp_path / HOSTILE
    plain(RED).save(path)
    text, page = page_of(sheet(Picture(str(path), HOSTILE, None, str(path)), title=HOSTILE, notes=(HOSTILE,)), tmp_path)
    assert "<img src=x" not in text
    (image,) = page.all("img")
    assert set(image) == {"alt", "src"}
    assert image["alt"] == HOSTILE
    assert page.words.count(HOSTILE) == 4  # the title twice, the note, the caption
    assert page.all("figure")[0]["title"] == str(path)
    (link,) = page.all("a")
    assert urllib.parse.unquote(link["href"]) == f"file://{path}"


def test_names_that_are_not_utf8_or_hold_newlines(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n\x1b.png")
    plain(RED).save(os.fsdecode(path), "PNG")
    name = os.fsdecode(path)
    text, page = page_of(sheet(Picture(name, os.path.basename(name), None, name), title=name), tmp_path)
    assert "\x1b" not in text
    assert page.all("figure")[0]["title"] == rf"{tmp_path}/caf\xe9\n\x1b.png"
    assert page.all("a")[0]["href"].endswith("/caf%E9%0A%1B.png")
    assert len(page.all("img")) == 1
    write_png(sheet(Picture(name, os.path.basename(name))), tmp_path / "a.png")


def test_a_picture_that_cannot_be_read_shows_its_reason(tmp_path):
    text, page = page_of(
        sheet(Picture(tmp_path / "none.png", "a"), Picture(None, "a code"), Picture(b"", "c")), tmp_path
    )
    assert page.all("img") == []
    lost = re.findall(r'<div class="lost">(.*?)</div>', text)
    assert lost == ["does not exist", "no picture", "is empty"]


def test_small_pictures_keep_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    _, page = page_of(sheet(Picture(pixels, "small"), Picture(plain(RED, (65, 65)), "larger")), tmp_path)
    small, larger = page.all("img")
    assert small["class"] == "small"
    kind, image = picture_in(small["src"])
    assert kind == "png"
    assert np.array_equal(np.asarray(image), pixels)
    assert "class" not in larger


def test_rows_without_matches_and_sheets_without_rows(tmp_path):
    text, _ = page_of(sheet(Picture(plain(RED), "query")), tmp_path)
    assert "nothing found" in text
    text, page = page_of(Sheet("empty", [], ("no copies were found",)), tmp_path)
    assert "no copies were found" in page.words
    for number, rows in enumerate(([], [Row(Picture(plain(RED), "query"), [])])):
        write_png(Sheet("empty", rows), tmp_path / f"{number}.png")
        assert Image.open(tmp_path / f"{number}.png").width > 100


# --- PNG ---


def tiles(path, n_rows, n_columns):
    """Returns the colour in the centre of each cell: the layout is 120 pixels a cell, 10 between, 24 around."""
    image = Image.open(path).convert("RGB")
    top = image.height - 24 - n_rows * 148
    return [
        [image.getpixel((24 + c * 130 + (20 if c else 0) + 60, top + r * 148 + 60)) for c in range(n_columns)]
        for r in range(n_rows)
    ]


def test_the_picture_shows_its_pictures_in_their_places(tmp_path):
    rows = [
        Row(Picture(plain(RED), "a"), [Picture(plain(GREEN), "b"), Picture(plain(BLUE), "c")]),
        Row(Picture(plain(BLUE), "d"), [Picture(plain(RED), "e")]),
    ]
    write_png(Sheet("two rows", rows), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (24 * 2 + 3 * 130 + 20, 24 + 34 + 12 + 2 * 148 + 24)
    assert tiles(tmp_path / "a.png", 2, 3) == [[RED, GREEN, BLUE], [BLUE, RED, (255, 255, 255)]]


def test_marks_colour_the_frames(tmp_path):
    write_png(sheet(Picture(plain(RED), "q", "query"), Picture(plain(RED), "h", "hit")), tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    top = image.height - 24 - 148
    assert image.getpixel((22, top + 50)) == (0x3A, 0x6E, 0xA5)
    assert image.getpixel((24 + 150 - 2, top + 50)) == (0x2E, 0x9E, 0x5B)


def test_what_is_left_out_is_said(tmp_path):
    def size(n_rows, n_others):
        row = Row(Picture(plain(RED), "a"), [Picture(plain(GREEN), "b")] * n_others)
        write_png(Sheet("s", [row] * n_rows), tmp_path / "a.png", max_rows=3, max_columns=4)
        return Image.open(tmp_path / "a.png").size

    width, height = size(3, 3)
    assert size(4, 3) == (width, height + 20)
    assert size(3, 4) == (width, height + 20)
    assert size(9, 50) == (width, height + 40)


@pytest.mark.parametrize("size", [(2000, 50), (50, 2000), (1, 1), (1, 500)])
def test_pictures_of_every_shape_are_shown_whole(tmp_path, size):
    write_png(sheet(Picture(plain(RED, size), "a" * 300)), tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png").convert("RGB")
    top = image.height - 24 - 148
    tile = np.asarray(image)[top : top + 120, 24 : 24 + 120].astype(int)
    red = (tile[:, :, 0] - tile[:, :, 1]) > 100
    height, width = red.any(axis=1).sum(), red.any(axis=0).sum()
    assert max(height, width) == 120
    assert abs(min(height, width) - max(1, 120 * min(size) / max(size))) <= 2
    assert red[58:62, 58:62].any()  # in the middle
    assert image.width < 400  # the long caption is cut


def test_a_long_title_makes_the_picture_wider(tmp_path):
    write_png(sheet(Picture(plain(RED), "a"), title="short"), tmp_path / "a.png")
    write_png(sheet(Picture(plain(RED), "a"), title="a rather long title " * 5), tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").width > 2 * Image.open(tmp_path / "a.png").width


def test_writing_replaces_a_file_whole(tmp_path):
    (tmp_path / "a.html").write_text("old")
    (tmp_path / "a.png").write_text("old")
    write_html(sheet(Picture(plain(RED), "a")), tmp_path / "a.html")
    write_png(sheet(Picture(plain(RED), "a")), tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.png"]
    assert (tmp_path / "a.html").read_text("utf-8").startswith("<!doctype html>")
    Image.open(tmp_path / "a.png").load()
