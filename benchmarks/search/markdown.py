"""Results as Markdown: all of one combination, and the table of one size and length."""

from collections.abc import Sequence
from typing import Any

from benchmarks.search.data import DATA
from benchmarks.search.measuring import CONTESTANTS

__all__ = ["RECALL", "cost_table", "ratio_table", "rows_table", "table", "wanted"]

RECALL = 0.95
_Results = Sequence[dict[str, Any]]


def rows_table(result: dict[str, Any]) -> str:
    """Returns all rows of one combination, as the script prints them."""
    threads = result["config"]["threads"]
    counts = sorted({1, threads})
    head = [*(f"single, {count} thr" for count in counts), *(f"batch, {count} thr" for count in counts)]
    lines = [
        _line(["ms a query", "setting", "recall", *head, "build s", "bytes a code", "open ms"]),
        "|---" * (6 + len(head)) + "|",
    ]
    for row in result["rows"]:
        times = [_ms(row[mode][str(count)]) for mode in ("single_ms", "batch_ms") for count in counts]
        opened = row.get("open_seconds")
        lines.append(
            _line(
                [
                    CONTESTANTS[row["contestant"]].label, _setting(row), f"{row['recall']:.4f}", *times,
                    f"{row['build_seconds']:.1f}", f"{row['memory_bytes'] / result['config']['n']:.0f}",
                    "" if opened is None else f"{1000 * opened:.1f}",
                ]
            )
        )  # fmt: skip
    return "\n".join(lines)


def table(results: _Results, n: int, n_bits: int) -> str:
    """Returns milliseconds a query with one thread, single / in a batch, by contestant and kind of codes.

    Of an approximate contestant it is the fastest setting with a recall of .95, which stands beside its time; "under"
    where none has it. Bold: the best of the exact and of the approximate ones, single.
    """
    chosen = {
        one["config"]["data"]: one for one in results if (one["config"]["n"], one["config"]["n_bits"]) == (n, n_bits)
    }
    kinds = [kind for kind in DATA if kind in chosen]
    if not kinds:
        return ""
    cells: dict[tuple[str, str], str] = {}
    labels: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for kind in kinds:
        picked = [row for exact in (True, False) for row in wanted(chosen[kind]["rows"], exact=exact)]
        for exact in (True, False):
            group = [row for row in picked if row["exact"] is exact]
            best = min((row["single_ms"]["1"] for row in group if row["recall"] >= RECALL), default=0.0)
            for row in group:
                label = _label(row)
                labels[exact][label] = None
                cells[label, kind] = _cell(row, best=row["single_ms"]["1"] == best)
    head = f"{_number(n)} codes, {n_bits} bits: ms a query, single / batch"
    lines = [_line([head, *(DATA[kind].title for kind in kinds)]), "|---" * (len(kinds) + 1) + "|"]
    for exact, title in ((True, "*Exact*"), (False, "*Approximate: fastest setting of recall .95*")):
        lines.append(_line([title, *("" for _ in kinds)]))
        lines += [_line([label, *(cells.get((label, kind), "") for kind in kinds)]) for label in labels[exact]]
    return "\n".join(lines)


def cost_table(results: _Results, n: int, n_bits: int, data: str = "clustered") -> str:
    """Returns what building, holding, keeping and opening cost, of one kind of codes."""
    for one in results:
        if (one["config"]["n"], one["config"]["n_bits"], one["config"]["data"]) == (n, n_bits, data):
            break
    else:
        return ""
    head = f"{_number(n)} codes of {n_bits // 8} bytes, {DATA[data].title}"
    columns = [head, "build", "bytes in memory, a code", "on disk, a code", "open", "first query"]
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for name, row in {row["contestant"]: row for row in one["rows"]}.items():
        opened, first = row.get("open_seconds"), row.get("first_query_seconds")
        lines.append(
            _line(
                [
                    CONTESTANTS[name].label, f"{row['build_seconds']:.1f} s", f"{row['memory_bytes'] / n:.0f}",
                    f"{row['file_bytes'] / n:.0f}", "" if opened is None else f"{1000 * opened:.1f} ms",
                    "" if first is None else f"{1000 * first:.1f} ms",
                ]
            )
        )  # fmt: skip
    return "\n".join(lines)


def ratio_table(results: _Results) -> str:
    """Returns how many times as fast as the others ours are, by what was searched.

    Exact: our fastest against the fastest of the others. Approximate: of all settings of the others with a recall of
    .95 the one that comes nearest to our fastest of at least its recall. Each with the number of threads that suits it.
    """
    head = [
        "ours is so many times as fast",
        "exact, single",
        "exact, batch",
        "approximate, single",
        "approximate, batch",
    ]
    lines = [_line(head), "|---" * len(head) + "|"]
    for one in sorted(results, key=lambda one: [one["config"][name] for name in ("n", "n_bits", "data")]):
        config = one["config"]
        cells = [f"{_number(config['n'])} codes, {config['n_bits']} bits, {DATA[config['data']].title}"]
        for exact in (True, False):
            cells += [_ratio(one["rows"], mode, exact=exact) for mode in ("single_ms", "batch_ms")]
        lines.append(_line(cells))
    return "\n".join(lines)


def _ratio(rows: _Results, mode: str, *, exact: bool) -> str:
    def time(row: dict[str, Any]) -> float:
        return float(min(row[mode].values()))

    ours = [row for row in rows if row["contestant"].startswith("ours")]
    others = [row for row in rows if row not in ours and row["exact"] is exact and row["recall"] >= RECALL]
    found = [
        (time(row) / min(time(own) for own in ours if own["recall"] >= row["recall"] and own["exact"] >= exact), row)
        for row in others
        if any(own["recall"] >= row["recall"] for own in ours)
    ]
    if not found:
        return ""
    ratio, row = min(found, key=lambda pair: pair[0])
    at = "" if exact else f" at {row['recall']:.3f}"
    return f"{ratio:.{0 if ratio >= 10 else 1}f} ({CONTESTANTS[row['contestant']].label}{at})"


def wanted(rows: _Results, *, exact: bool) -> list[dict[str, Any]]:
    """Returns the rows of the exact contestants; or of each other one its fastest of recall .95, else its best."""
    if exact:
        return [row for row in rows if row["exact"]]
    found = []
    for name in dict.fromkeys(row["contestant"] for row in rows if not row["exact"]):
        own = [row for row in rows if row["contestant"] == name]
        good = [row for row in own if row["recall"] >= RECALL]
        found.append(
            min(good, key=lambda row: row["single_ms"]["1"]) if good else max(own, key=lambda row: row["recall"])
        )
    return found


def _label(row: dict[str, Any]) -> str:
    label = CONTESTANTS[row["contestant"]].label
    return f"{label}, {'heap' if row['setting']['use_heap'] else 'counting'}" if "use_heap" in row["setting"] else label


def _cell(row: dict[str, Any], *, best: bool) -> str:
    if row["recall"] < RECALL:
        return f"under: {row['recall']:.2f}"
    single = f"**{_ms(row['single_ms']['1'])}**" if best else _ms(row["single_ms"]["1"])
    return f"{single} / {_ms(row['batch_ms']['1'])}" + ("" if row["exact"] else f" ({row['recall']:.3f})")


def _setting(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row["setting"].items())


def _ms(value: float) -> str:
    return (
        f"{value:.4f}"
        if value < 0.1
        else f"{value:.3f}"
        if value < 1
        else f"{value:.2f}"
        if value < 10
        else f"{value:.0f}"
    )


def _number(n: int) -> str:
    return f"{n // 1_000_000} M" if n >= 1_000_000 and n % 1_000_000 == 0 else f"{n:,}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
