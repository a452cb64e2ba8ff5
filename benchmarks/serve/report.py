"""The table and the plot of the server's numbers."""

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_serve", "table"]

_COLOURS = {"rss": "#0072B2", "anonymous": "#D55E00", "workers": "#009E73"}
_LABELS = {"rss": "server", "anonymous": "of it, not mapped files", "workers": "its decoding processes"}


def table(numbers: dict[str, Any]) -> str:
    """Returns the numbers beside what was aimed at, as a Markdown table."""
    by_id, uploads, soak, adding = (numbers[name] for name in ("by_id", "uploads", "soak", "adding"))
    one = uploads["one_client"]
    added = f"{adding['added']:,} images added in {adding['seconds']:.0f} s"
    # Results from before the two took turns have one time of each.
    names = ("before", "while_adding")
    turns = adding.get("p99_of_turns") or {name: [adding[name]["ms"]["99"]] for name in names}
    before, during = (statistics.median(turns[name]) for name in names)
    n_turns = len(turns["before"])
    without = f"before, medians of {n_turns} turns" if n_turns > 1 else "before"
    rows = [
        (
            f"search by id, {by_id['clients']} clients without pause",
            f"p50 {by_id['ms']['50']:.1f} ms, p99 {by_id['ms']['99']:.1f} ms, {by_id['per_second']:,.0f} a second",
            "p50 3 ms, p99 15 ms",
        ),
        (
            "search by photograph, 1 client",
            f"p50 {one['ms']['50']:.1f} ms, {uploads['slowdown']:.2f} of the bare encode of one image",
            "1.5",
        ),
        (
            f"search by photograph, {uploads['many_clients']} clients",
            f"{uploads['per_second']:.0f} a second, {uploads['share_of_encoder']:.2f} of the encoder's batches alone, "
            f"{uploads['share_of_most']:.2f} of what decoding leaves of them",
            "0.8",
        ),
        (
            f"all at once, {soak['clients']} clients",
            f"{soak['answers']:,} answers, {soak['errors']} errors, {soak['sent_away']} sent away (429); "
            f"p99 of searches by id {soak['kinds']['id']['ms']['99']:.0f} ms",
            "0 errors",
        ),
        (
            f"memory, from second {soak['growth_from_second']:.0f} to the end",
            f"{soak['growth_mib']['rss']:+.0f} MiB of {soak['settled_mib']['rss']:.0f}",
            "flat",
        ),
        (
            f"search by id at {adding['rate']:,} a second while a job adds images",
            f"p99 {during:.1f} ms, {adding['p99_ratio']:.2f} of {before:.1f} ms {without}; {added}",
            "1.5",
        ),
    ]
    if "core_ms" in uploads:  # measured by now
        took = uploads["core_ms"]
        share = (
            f"{took['encoder']:.1f} encoder ({uploads['encoder_core_ms']:.1f} alone), {took['decoding']:.1f} decoding, "
            f"{took['server']:.1f} receiving, searching and answering, {took['clients']:.1f} the clients"
        )
        rows.insert(3, ("ms of a core that each such search takes", share, ""))
    if "waiting_ms" in adding:
        waited = adding["waiting_ms"]
        rows.append(
            (
                "ms that each such search waits for a core",
                f"{waited['while_adding']:.2f}, {waited['before']:.2f} before",
                "",
            )
        )
    head = [f"| {numbers['images']:,} images, 2 cores for server and clients | measured | aim |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {what} | {found} | {aim} |" for what, found, aim in rows)])


def draw_serve(numbers: dict[str, Any]) -> "Figure":
    """Returns latency by percentile, and memory under the mixed load through time."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    figure.suptitle(f"deephash serve, {numbers['images']:,} images, server and clients on the same cores", fontsize=12)
    latency, memory = figure.subplots(1, 2)
    adding, soak = numbers["adding"], numbers["soak"]
    for label, found, colour, marker in (
        (f"by id, {numbers['by_id']['clients']} clients without pause", numbers["by_id"], "#0072B2", "o"),
        (f"by id, {adding['rate']:,} a second", adding["before"], "#009E73", "s"),
        ("the same while images are added", adding["while_adding"], "#D55E00", "^"),
        ("by photograph, 1 client", numbers["uploads"]["one_client"], "#000000", "v"),
    ):
        latency.plot(list(found["ms"]), list(found["ms"].values()), color=colour, marker=marker, label=label)
    latency.set_yscale("log")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_minor_formatter(NullFormatter())
    latency.set_xlabel("percentile")
    latency.set_ylabel("ms from when a request was due")
    latency.set_title("searches")
    times, *columns = zip(*soak["memory_mib"], strict=True)
    for (name, colour), values in zip(_COLOURS.items(), columns, strict=True):
        memory.plot(times, values, color=colour, label=_LABELS[name])
    memory.set_ylim(bottom=0)
    memory.set_xlabel(f"seconds of all calls at once, {soak['clients']} clients")
    memory.set_ylabel("MiB")
    memory.set_title("memory")
    for panel in (latency, memory):
        panel.grid(color="#E5E5E5", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.legend(fontsize=9, frameon=False)
    return figure
