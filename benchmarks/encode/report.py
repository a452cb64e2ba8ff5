"""The benchmark's numbers as Markdown tables and as a plot."""

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.encode.back_ends import ONNX_RUNTIME, REFERENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_encode", "table"]

_OURS, _OTHERS = "#D55E00", "#0072B2"


def table(numbers: dict[str, Any]) -> str:
    """Returns the tables, one after another."""
    return "\n\n".join([_forward_table(numbers), _whole_table(numbers)])


def draw_encode(numbers: dict[str, Any]) -> "Figure":
    """Returns images a second: the bare forward pass of each back-end, and whole programs from files to codes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    figure.suptitle(f"Encoding photographs on {numbers['cores']} cores", fontsize=12)
    forward, whole = figure.subplots(1, 2)
    rates = {row["name"]: row["images_per_second"] for row in numbers["forward"]}
    programs = {peer["name"]: peer["images"] / peer["process_seconds"] for peer in numbers["peers"]}
    runs = [_runs(numbers), *([[numbers["large"]["first"]]] if numbers["large"] else [])]
    programs |= {f"ours, {each[0]['images']:,} files": _rate(each) for each in runs}
    for panel, title, found in ((forward, "bare forward pass", rates), (whole, "files to codes", programs)):
        bars = panel.barh(
            list(found), list(found.values()), color=[_OURS if name.startswith("ours") else _OTHERS for name in found]
        )
        panel.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
        panel.margins(x=0.12)
        panel.invert_yaxis()
        panel.set_xlabel("images a second")
        panel.set_title(title)
        panel.tick_params(axis="y", labelsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _forward_table(numbers: dict[str, Any]) -> str:
    base = next(row["images_per_second"] for row in numbers["forward"] if row["name"] == ONNX_RUNTIME)
    codes = {(row["model"], row["name"]): row for row in numbers["codes"]}
    lines = [
        "| bare forward pass | images a second | of ONNX Runtime "
        "| bits kept: general 128 / 256 | fitted 128 | P@10, general 256 |",
        "|---|---|---|---|---|---|",
    ]
    for row in numbers["forward"]:
        name, rate = row["name"], row["images_per_second"]
        kept = [codes[model, name]["equal_bits"] for model in ("general-128", "general-256", "fitted, 128 bits")]
        general, fitted = f"{kept[0]:.2%} / {kept[1]:.2%}", f"{kept[2]:.2%}"
        if name == REFERENCE:
            general = fitted = ""
        picked = " (picked)" if name == numbers["picked"] else ""
        precision = codes["general-256", name]["precision_at_10"]
        lines.append(f"| {name}{picked} | {rate:.0f} | {rate / base:.2f} | {general} | {fitted} | {precision:.3f} |")
    return "\n".join(lines)


def _whole_table(numbers: dict[str, Any]) -> str:
    forward = {row["name"]: row["images_per_second"] for row in numbers["forward"]}
    bare, runs = forward[numbers["picked"]], _runs(numbers)
    rate = _rate(runs)
    beside = numbers.get("decode_cpu_ms_beside_encoder")  # measured by now
    decode = beside or numbers["decode_cpu_ms"]
    bound = 1 / (1 / bare + decode / 1000 / numbers["cores"])
    shares = [_of_bare(run, bare) for run in runs]
    share = f"{statistics.median(shares):.2f} of the bare forward pass"
    if len(runs) > 1:
        share += f" around it, medians of {len(runs)} runs ({min(shares):.2f} to {max(shares):.2f})"
    share += _beside_onnx_runtime(runs)
    slowly = numbers.get("decode_cpu_ms_with_pillow_alone")  # measured by now
    without = f" ({slowly:.1f} where Pillow scales)" if slowly else ""
    lines = ["| whole runs, files to codes | |", "|---|---|"]
    rows = {
        f"`deephash index`, {runs[0]['images']:,} photographs": f"{rate:.0f} images/s, {share}; decoding, "
        f"{decode:.1f} ms of one core an image{' beside the encoder' if beside else ''}{without}, leaves {bound:.0f}"
    }
    for peer in numbers["peers"]:
        theirs = peer["images"] / peer["process_seconds"]
        rows[peer["name"]] = f"{theirs:.0f} images/s; ours {rate / theirs:.1f} times as fast"
    if large := numbers["large"]:
        first, again = large["first"], large["again"]
        name = f"`deephash index`, {first['images']:,} files"
        rate = _rate([first])
        share = f"{_of_bare(first, bare):.2f} of the bare forward pass{_beside_onnx_runtime([first])}"
        rows[name] = f"{rate:.0f} images/s, {share}, peak {first['peak_mib'] / 1024:.2f} GiB"
        rows["... again, nothing changed"] = (
            f"{again['process_seconds']:.1f} s, peak {again['peak_mib'] / 1024:.2f} GiB"
        )
    return "\n".join([*lines, *(f"| {name} | {text} |" for name, text in rows.items())])


def _of_bare(run: dict[str, Any], bare: float) -> float:
    """Returns a run's rate as a share of the bare forward pass around it; of ``bare`` where none was measured there."""
    return _share(run, run.get("bare_images_per_second") or [bare])


def _beside_onnx_runtime(runs: list[dict[str, Any]]) -> str:
    """Returns how the runs compare with what ONNX Runtime did around them; nothing, where that was not measured."""
    shares = [_share(run, around) for run in runs if (around := run.get("onnx_runtime_images_per_second"))]
    return f", {statistics.median(shares):.2f} of ONNX Runtime's" if shares else ""


def _share(run: dict[str, Any], around: list[float]) -> float:
    return float(run["decoded"] / run["seconds"] / (sum(around) / len(around)))


def _runs(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    runs = numbers["index"]
    return [runs] if isinstance(runs, dict) else list(runs)  # of a time when there was one


def _rate(runs: list[dict[str, Any]]) -> float:
    """Returns images a second, the median of runs."""
    return statistics.median(run["decoded"] / run["seconds"] for run in runs)
