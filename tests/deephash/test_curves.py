import csv
import importlib.util

import pytest
from PIL import Image

from deephash.curves import check_curve_file, write_curve
from deephash.evaluation import RadiusPoint

POINTS = [
    RadiusPoint(radius=0, precision=0.0, recall=0.0),
    RadiusPoint(radius=1, precision=1 / 3, recall=0.5),
    RadiusPoint(radius=2, precision=0.25, recall=1.0),
]


def test_a_csv_has_every_radius_to_the_last_digit(tmp_path):
    write_curve(POINTS, tmp_path / "c.csv", title="t")
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["radius"]), float(r["precision"]), float(r["recall"])) for r in rows] == [
        (point.radius, point.precision, point.recall) for point in POINTS
    ]


def test_a_png_shows_the_curve_and_a_title_with_dollars(tmp_path):
    pytest.importorskip("matplotlib")
    write_curve(POINTS, tmp_path / "c.PNG", title="$100 and 5$")
    write_curve([], tmp_path / "empty.png", title="$100 and 5$")
    with Image.open(tmp_path / "c.PNG") as drawn, Image.open(tmp_path / "empty.png") as empty:
        assert drawn.format == "PNG"
        assert drawn.size == empty.size
        assert drawn.tobytes() != empty.tobytes()


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    with pytest.raises(ImportError, match=r"pip install 'deephash\[plots\]', or write a \.csv"):
        check_curve_file(tmp_path / "c.png")
    write_curve(POINTS, tmp_path / "c.csv", title="t")


@pytest.mark.parametrize(("name", "message"), [("c.pdf", r"neither \.png nor \.csv"), ("no/c.csv", "does not exist")])
def test_files_that_cannot_be_written_are_refused(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        check_curve_file(tmp_path / name)
