"""Tables of the results, in Markdown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cifar10.methods import FLOAT, METHODS
from benchmarks.cifar10.options import GRID
from benchmarks.cifar10.runs import prefixes_of
from deephash.datasets import PROTOCOLS

__all__ = ["check_one_frame", "cost_table", "nesting_table", "protocol_table", "tuning_table"]

_Runs = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class _Column:
    title: str
    n_bits: int
    number: str
    form: str
    best_is_bold: bool = True


_COLUMNS = (
    *(_Column(f"{n_bits} bits", n_bits, "map", ".3f") for n_bits in (12, 24, 32, 48)),
    _Column("P@H≤2, 48 bits", 48, "p_within_2", ".3f"),
    _Column("empty balls, 48 bits", 48, "empty_within_2", ".1%", best_is_bold=False),
)
_REFERENCES = METHODS[FLOAT].group
_COMPETING = [name for name, entry in METHODS.items() if entry.group != _REFERENCES and not entry.is_ablation]


def protocol_table(results: _Runs, protocol: str, *, asymmetric: bool = False) -> str:
    """Returns tie-aware mAP@all by method and bits, and what lies in Hamming balls of radius 2 at 48 bits.

    Mean ± standard deviation over the seeds; a cell of fewer seeds than others says how many in parentheses. The best
    of a column is bold; references and ablations are out of the competition. Empty when there are no results.

    Raises:
        ValueError: results of different frames.
    """
    runs = [run for run in results if run["protocol"] == protocol and METHODS[run["method"]].asymmetric == asymmetric]
    if not runs:
        return ""
    check_one_frame(runs)
    n_seeds = len({run["seed"] for run in runs})
    title = f"`{protocol}`, mAP@all, {n_seeds} seed{'s' if n_seeds > 1 else ''}"
    lines = [_row(title, [column.title for column in _COLUMNS]), "|---" * (len(_COLUMNS) + 1) + "|"]
    best = {column: _best(runs, column) for column in _COLUMNS}
    for group in dict.fromkeys(entry.group for entry in METHODS.values()):
        rows = []
        for method, entry in METHODS.items():
            if entry.group == group and any(run["method"] == method for run in runs):
                cells = [_cell(_values(runs, method, column), column.form, n_seeds) for column in _COLUMNS]
                bold = [method in _COMPETING and _shown(runs, method, column) == best[column] for column in _COLUMNS]
                cells = [f"**{cell}**" if cell and won else cell for cell, won in zip(cells, bold, strict=True)]
                rows.append(_row(entry.label, cells))
        if group == _REFERENCES:
            chance = f"{statistics.mean(run['chance'] for run in runs):.3f}"
            rows.append(_row("chance", [chance if column.number == "map" else "" for column in _COLUMNS]))
        if rows:
            lines += [_row(f"*{group}*", [""] * len(_COLUMNS)), *rows]
    return "\n".join(lines)


def tuning_table(numbers: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the validation mAP of all options that were tried, the chosen ones bold."""
    lines = ["| loss | options | 12 bits | 48 bits | mean |", "|---|---|---|---|---|"]
    for loss in GRID:
        chosen = max(numbers[loss], key=lambda one: one["mean"])
        for one in numbers[loss]:
            options = ", ".join(f"{name} = {value:g}" for name, value in one["options"].items()) or "defaults"
            cells = [options, *(f"{statistics.mean(one['map'][n]):.3f}" for n in ("12", "48")), f"{one['mean']:.3f}"]
            lines.append(_row(METHODS[loss].label, [f"**{cell}**" for cell in cells] if one is chosen else cells))
    return "\n".join(lines)


def nesting_table(numbers: dict[str, dict[str, list[float]]]) -> str:
    """Returns the validation mAP of each way to learn several lengths, mean ± standard deviation over the seeds."""
    lengths = list(next(iter(numbers.values())))
    lines = [_row("", [f"{length} bits" for length in lengths]), "|---" * (len(lengths) + 1) + "|"]
    for way, maps in numbers.items():
        lines.append(_row(way, [_cell(maps[length], ".3f", len(maps[length])) for length in lengths]))
    return "\n".join(lines)


def cost_table(results: _Runs) -> str:
    """Returns the CPU time of learning and encoding by protocol.

    A training that serves two protocols, or several lengths, counts once.
    """
    counted = set()
    costs: dict[str, list[tuple[float, str]]] = {}
    for run in sorted(results, key=lambda one: list(PROTOCOLS).index(one["protocol"])):
        n_bits = None if prefixes_of(run["method"]) else run["n_bits"]
        training = (run["method"], n_bits, run["seed"], run["cpu_seconds"])
        if training not in counted:
            counted.add(training)
            costs.setdefault(run["protocol"], []).append((run["cpu_seconds"], METHODS[run["method"]].label))
    lines = ["| protocol | trainings | CPU minutes | median CPU seconds | slowest |", "|---|---|---|---|---|"]
    for protocol, all_costs in costs.items():
        seconds = [cost for cost, _ in all_costs]
        most, label = max(all_costs)
        cells = [
            len(seconds),
            f"{sum(seconds) / 60:.0f}",
            f"{statistics.median(seconds):.1f}",
            f"{most:.0f} s, {label}",
        ]
        lines.append(_row(f"`{protocol}`", [str(cell) for cell in cells]))
    return "\n".join(lines)


def check_one_frame(runs: _Runs) -> None:
    """Checks that results may stand in one table.

    Raises:
        ValueError: two of them have another backbone, or another budget of the head.
    """
    for name in ("backbone", "budget"):
        seen: dict[str, dict[str, Any]] = {}
        for run in runs:
            if name in run["config"]:
                seen.setdefault(str(run["config"][name]), run)
        if len(seen) > 1:
            first, second = list(seen.values())[:2]
            raise ValueError(
                f"{first['method']} and {second['method']} on {first['protocol']} differ in {name} "
                f"({first['config'][name]} and {second['config'][name]}): delete one of the files and run it again"
            )


def _values(runs: _Runs, method: str, column: _Column) -> list[float]:
    """One for each seed; the float features have no bits and stand in every column."""
    return [
        run[column.number]
        for run in runs
        if run["method"] == method and run["n_bits"] in (column.n_bits, None) and column.number in run
    ]


def _shown(runs: _Runs, method: str, column: _Column) -> float | None:
    values = _values(runs, method, column)
    return round(statistics.mean(values), 3) if values else None


def _best(runs: _Runs, column: _Column) -> float | None:
    means = [mean for method in _COMPETING if (mean := _shown(runs, method, column)) is not None]
    return max(means, default=None) if column.best_is_bold else None


def _cell(values: list[float], form: str, n_seeds: int) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    fewer = f" ({len(values)})" if len(values) < n_seeds else ""
    return f"{statistics.mean(values):{form}}{deviation}{fewer}"


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"
