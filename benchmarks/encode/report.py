"""The benchmark's numbers as Markdown tables."""

from typing import Any

from benchmarks.encode.back_ends import ONNX_RUNTIME, REFERENCE

__all__ = ["table"]


def table(numbers: dict[str, Any]) -> str:
    """Returns the tables, one after another."""
    return "\n\n".join([_forward_table(numbers), _whole_table(numbers)])


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
    bare, run = forward[numbers["picked"]], numbers["index"]
    rate = run["decoded"] / run["seconds"]
    decode = numbers["decode_cpu_ms"]
    bound = 1 / (1 / bare + decode / 1000 / numbers["cores"])
    lines = ["| whole runs, files to codes | |", "|---|---|"]
    rows = {
        f"`deephash index`, {run['images']:,} photographs": f"{rate:.0f} images/s, {rate / bare:.2f} of the bare "
        f"forward pass; decoding, {decode:.1f} ms of one core an image, leaves {bound:.0f}"
    }
    for peer in numbers["peers"]:
        theirs = peer["images"] / peer["process_seconds"]
        rows[peer["name"]] = f"{theirs:.0f} images/s; ours {rate / theirs:.1f} times as fast"
    if large := numbers["large"]:
        first, again = large["first"], large["again"]
        name = f"`deephash index`, {first['images']:,} files"
        rows[name] = f"{first['decoded'] / first['seconds']:.0f} images/s, peak {first['peak_mib'] / 1024:.2f} GiB"
        rows["... again, nothing changed"] = (
            f"{again['process_seconds']:.1f} s, peak {again['peak_mib'] / 1024:.2f} GiB"
        )
    return "\n".join([*lines, *(f"| {name} | {text} |" for name, text in rows.items())])
