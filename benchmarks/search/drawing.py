"""The plot of the search: time against recall."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.search.data import DATA
from benchmarks.search.measuring import CONTESTANTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_search"]

# Ours in one colour, that of each library in another (Okabe and Ito 2008); a marker for each contestant.
_STYLES = {
    "ours-flat": ("#D55E00", "s"),
    "ours-mih": ("#D55E00", "*"),
    "ours-ivf": ("#D55E00", "o"),
    "ours-hnsw": ("#D55E00", "^"),
    "ours-prefix": ("#D55E00", "D"),
    "faiss-flat": ("#0072B2", "s"),
    "faiss-ivf": ("#0072B2", "o"),
    "faiss-hnsw": ("#0072B2", "^"),
    "faiss-multihash": ("#0072B2", "*"),
    "usearch-exact": ("#009E73", "s"),
    "usearch-hnsw": ("#009E73", "^"),
    "numpy": ("#000000", "s"),
    "lancedb-flat": ("#CC79A7", "s"),
    "lancedb-ivf": ("#CC79A7", "o"),
    "milvus-lite": ("#E69F00", "s"),
}
# Misses below this are drawn as this: the scale is logarithmic in them.
_FEWEST_MISSES = 1e-4


def draw_search(results: Sequence[dict[str, Any]], n: int, n_bits: int) -> "Figure":
    """Returns milliseconds a single query (one thread) against the share of neighbours missed, a panel for each data.

    Both logarithmic, better is lower and further right; exact contestants stand at the right edge.
    """
    from matplotlib.figure import Figure

    chosen = {
        one["config"]["data"]: one for one in results if (one["config"]["n"], one["config"]["n_bits"]) == (n, n_bits)
    }
    kinds = [kind for kind in DATA if kind in chosen]
    figure = Figure(figsize=(9.6, 4.0 * -(-len(kinds) // 2) + 1.2), layout="constrained")
    figure.suptitle(f"{n:,} codes of {n_bits} bits: milliseconds a query (one thread) against recall@10", fontsize=12)
    axes = figure.subplots(-(-len(kinds) // 2), 2, squeeze=False).ravel()
    entries = {}
    for kind, panel in zip(kinds, axes, strict=False):
        rows = chosen[kind]["rows"]
        for name, (colour, marker) in _STYLES.items():
            own = [row for row in rows if row["contestant"] == name]
            if own:
                times = [row["single_ms"]["1"] for row in own]
                if own[0]["exact"]:
                    own, times = [min(own, key=lambda row: row["single_ms"]["1"])], [min(times)]
                misses = [max(_FEWEST_MISSES, 1 - row["recall"]) for row in own]
                (line,) = panel.plot(
                    misses, times, color=colour, marker=marker, markersize=6, linewidth=1.2, clip_on=False, zorder=3
                )
                entries[CONTESTANTS[name].label] = line
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlim(0.6, _FEWEST_MISSES)
        panel.set_xticks([0.5, 0.1, 0.05, 0.01, 0.001, _FEWEST_MISSES])
        panel.set_xticklabels([".5", ".9", ".95", ".99", ".999", "1"])
        panel.minorticks_off()
        panel.grid(color="#E5E5E5", linewidth=0.6)
        panel.set_title(DATA[kind].title)
        panel.set_xlabel("recall")
        panel.set_ylabel("ms a query")
    for panel in axes[len(kinds) :]:
        panel.set_visible(False)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure
