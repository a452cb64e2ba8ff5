"""The raw numbers: one file for each kind of codes, size and length."""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, conditions
from deephash.writing import replacing

__all__ = ["FOLDER", "file_of", "load_results", "took_part", "write"]

FOLDER = RESULTS / "search"
_DIGITS = 4


def file_of(data: str, n: int, n_bits: int, folder: Path = FOLDER) -> Path:
    """Returns the file of one combination."""
    return folder / f"{data}-{n}-{n_bits}.json"


def write(path: Path, config: dict[str, Any], measured: dict[str, Any]) -> None:
    """Writes a file, a line for each row; ``load_average`` in the conditions says how busy the machine was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shared = conditions() | {"load_average": [round(value, 2) for value in os.getloadavg()]}
    head = {"config": config, "conditions": shared, "left_out": measured["left_out"]}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    rows = ",\n ".join(json.dumps(_rounded(row)) for row in measured["rows"])
    with replacing(path, "w") as file:
        file.write("{\n" + ",\n".join([*lines, f'"rows": [\n {rows}\n]']) + "\n}\n")


def took_part(path: Path) -> set[str]:
    """Returns the contestants that a file has results of, or the reason why not; none without the file."""
    if not path.exists():
        return set()
    content = json.loads(path.read_text(encoding="utf-8"))
    return {row["contestant"] for row in content["rows"]} | set(content["left_out"])


def load_results(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Returns the contents of all files, by size, length and kind of codes."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(found, key=lambda one: (one["config"]["n"], one["config"]["n_bits"], one["config"]["data"]))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value
