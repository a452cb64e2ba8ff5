"""Writes the precision-recall curve by radius to a file: a PNG, or a CSV for other tools."""

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from .evaluation import RadiusPoint

__all__ = ["check_curve_file", "write_curve"]


def check_curve_file(path: Path) -> None:
    """Refuses a file that ``write_curve`` could not write, before the work that comes first.

    Raises:
        ValueError: its ending is neither .png nor .csv, or its folder does not exist.
        ImportError: a PNG is wanted, and matplotlib is not installed.
    """
    if path.suffix.lower() not in (".png", ".csv"):
        raise ValueError(f"{path} ends in neither .png nor .csv")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: the folder does not exist")
    if path.suffix.lower() == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("a PNG needs matplotlib: pip install 'deephash[plots]', or write a .csv")


def write_curve(points: Sequence[RadiusPoint], path: Path, *, title: str) -> None:
    """Writes precision and recall at each radius as a PNG, or as a CSV, by the ending of the path.

    The CSV has the columns ``radius``, ``precision`` and ``recall``. The PNG leaves out radii within which nothing
    lies, where precision has no meaning.

    Raises:
        ValueError, ImportError: as ``check_curve_file``.
    """
    check_curve_file(path)
    if path.suffix.lower() == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["radius", "precision", "recall"])
            writer.writerows([point.radius, point.precision, point.recall] for point in points)
        return
    _draw(points, path, title)


def _draw(points: Sequence[RadiusPoint], path: Path, title: str) -> None:
    # Figure alone: pyplot would look for a screen, and keep the figure.
    from matplotlib.figure import Figure

    shown = [point for point in points if point.precision or point.recall]
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    title = title.replace("$", r"\$")  # which begins a formula
    axes = figure.add_subplot(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.plot([point.recall for point in shown], [point.precision for point in shown], marker="o", markersize=3)
    for point in shown[:: max(1, len(shown) // 8)]:
        axes.annotate(f"r={point.radius}", (point.recall, point.precision), (3, 3), textcoords="offset points")
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
