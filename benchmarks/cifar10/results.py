"""The raw numbers: one file for each protocol and method, one line of it for each run.

    {"protocol": …, "method": …, "config": {…}, "conditions": {…}, "runs": [
     {"n_bits": 12, "seed": 0, "map": …, …},

A file holds results of one configuration only.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, conditions
from deephash.writing import replacing

__all__ = ["FOLDER", "add_run", "finished", "load_results"]

FOLDER = RESULTS / "cifar10"
# What may differ from run to run; the rest of the conditions is that of the file.
_OF_A_RUN = ("time", "commit")


def load_results(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Returns all runs, each with ``protocol``, ``method`` and ``config``, by file name, n_bits and seed."""
    results = []
    for path in sorted(folder.glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        shared = {name: content[name] for name in ("protocol", "method", "config")}
        results += [shared | run for run in content["runs"]]
    return results


def finished(protocol: str, method: str, config: dict[str, Any], folder: Path = FOLDER) -> set[tuple[int | None, int]]:
    """Returns (n_bits, seed) of the runs that are there.

    Raises:
        ValueError: they are of another configuration.
    """
    path = folder / protocol / f"{method}.json"
    if not path.exists():
        return set()
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["config"] != json.loads(json.dumps(config)):
        raise ValueError(f"{path} holds results of another configuration: delete it to run them again")
    return {(run["n_bits"], run["seed"]) for run in content["runs"]}


def add_run(protocol: str, method: str, config: dict[str, Any], run: dict[str, Any], folder: Path = FOLDER) -> None:
    """Adds a run to its file; an earlier one of the same length and seed goes.

    Raises:
        ValueError: the file holds results of another configuration, or from another machine or other versions.
    """
    finished(protocol, method, config, folder)
    path = folder / protocol / f"{method}.json"
    now = conditions()
    run = run | {name: now.pop(name) for name in _OF_A_RUN}
    runs = []
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["conditions"] != now:
            raise ValueError(
                f"{path} was made under other conditions ({content['conditions']}): delete it to run again"
            )
        runs = [one for one in content["runs"] if (one["n_bits"], one["seed"]) != (run["n_bits"], run["seed"])]
    runs = sorted([*runs, run], key=lambda one: (one["n_bits"] or 0, one["seed"]))
    head = {"protocol": protocol, "method": method, "config": config, "conditions": now}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    lines.append('"runs": [\n ' + ",\n ".join(json.dumps(one) for one in runs) + "\n]")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "w") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
