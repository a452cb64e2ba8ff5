"""Draws the results: `python -m benchmarks.plots` writes PNGs to benchmarks/results/plots.

Needs matplotlib: pip install 'deephash[plots]'.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cifar10.markdown import check_one_frame
from benchmarks.cifar10.methods import METHODS
from benchmarks.cifar10.results import load_results
from benchmarks.encode.report import draw_encode
from benchmarks.general import draw_general
from benchmarks.record import RESULTS, load_numbers
from benchmarks.search.drawing import draw_search
from benchmarks.search.results import load_results as load_search
from benchmarks.serve.report import draw_serve
from deephash.datasets import PROTOCOLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_map", "draw_precision_recall", "main"]

FOLDER = RESULTS / "plots"
# (colour, marker, dashes); colours that people of any colour vision tell apart (Okabe and Ito 2008).
_STYLES: dict[str, tuple[str, str, str]] = {
    "dsdh": ("#D55E00", "o", "-"),
    "dpsh": ("#0072B2", "s", "-"),
    "hashnet": ("#009E73", "^", "-"),
    "mihash": ("#CC79A7", "v", "-"),
    "orthohash": ("#E69F00", "D", "-"),
    "greedyhash": ("#56B4E9", "P", "-"),
    "sdh": ("#000000", "X", "--"),
    "bihalf": ("#666666", "*", ":"),
    "itq": ("#999999", ".", ":"),
}
_LEVELS: dict[str, tuple[str, str]] = {"float": ("#000000", "-."), "trivial": ("#000000", ":")}
_CURVE_BITS = 48
_DPI = 100
_Runs = Sequence[dict[str, Any]]


def main() -> None:
    """Draws what there are results for."""
    results, searches = load_results(), load_search()
    figures = {"cifar10-map": draw_map(results), "cifar10-precision-recall": draw_precision_recall(results)}
    for n, n_bits in sorted({(one["config"]["n"], one["config"]["n_bits"]) for one in searches}):
        figures[f"search-{n}-{n_bits}"] = draw_search(searches, n, n_bits)
    draw: dict[str, Callable[[Any], Figure]] = {"general": draw_general, "encode": draw_encode, "serve": draw_serve}
    figures |= {name: draw[name](numbers) for name in draw if (numbers := load_numbers(name)) is not None}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = FOLDER / f"{name}.png"
        # The default metadata hold the version of matplotlib: the same picture would be another file.
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
        print(f"{path}: {path.stat().st_size:,} bytes")


def draw_map(results: _Runs) -> "Figure":
    """Returns mAP against bits, a panel for each protocol: means over the seeds, bars of one standard deviation.

    The scale is logarithmic in 1 - mAP: most methods with labels lie close together near the top. Those without a
    colour of their own are thin grey lines; references are horizontal.
    """
    from matplotlib.ticker import MultipleLocator

    figure, panels = _panels("mAP@all against bits", results)
    for protocol, panel, runs in panels:
        for method, entry in METHODS.items():
            if entry.asymmetric:
                continue
            points = _means(runs, method, "map")
            if method in _LEVELS and points:
                colour, dashes = _LEVELS[method]
                panel.axhline(points[-1][1], color=colour, linestyle=dashes, linewidth=1, label=entry.label)
            elif method in _STYLES and points:
                colour, marker, dashes = _STYLES[method]
                bits, means, deviations = zip(*points, strict=True)
                panel.errorbar(
                    bits, means, deviations, color=colour, marker=marker, linestyle=dashes, markersize=5,
                    linewidth=1.5, elinewidth=1, zorder=3, label=entry.label,
                )  # fmt: skip
            elif points and entry.group == METHODS["dsdh"].group:
                bits, means, _ = zip(*points, strict=True)
                panel.plot(bits, means, color="#C8C8C8", linewidth=1, zorder=1, label="other losses with labels")
        panel.set_yscale("function", functions=(_error_scale, _from_error_scale))
        panel.yaxis.set_major_locator(
            MultipleLocator(0.05 if panel.get_ylim()[1] - panel.get_ylim()[0] > 0.15 else 0.02)
        )
        panel.set_title(protocol)
        panel.set_xlabel("bits")
        panel.set_ylabel("mAP@all")
        panel.set_xticks(sorted({run["n_bits"] for run in runs if run["n_bits"]}))
    _legend(figure)
    return figure


def draw_precision_recall(results: _Runs) -> "Figure":
    """Returns precision against recall over the Hamming radius at 48 bits, a panel for each protocol.

    Each marker is a radius, from 0 on; means over the seeds.
    """
    figure, panels = _panels(f"Precision and recall by Hamming radius, {_CURVE_BITS} bits", results)
    for protocol, panel, runs in panels:
        for method, (colour, marker, dashes) in _STYLES.items():
            curves = [run for run in runs if run["method"] == method and run["n_bits"] == _CURVE_BITS]
            if curves:
                recall, precision = (
                    [statistics.mean(values) for values in zip(*(run[name] for run in curves), strict=True)]
                    for name in ("recall_by_radius", "precision_by_radius")
                )
                panel.plot(
                    recall, precision, color=colour, marker=marker, linestyle=dashes, markersize=3.5, linewidth=1.2,
                    label=METHODS[method].label,
                )  # fmt: skip
        panel.set_title(protocol)
        panel.set_xlabel("recall")
        panel.set_ylabel("precision")
        panel.set_xlim(0, 1.01)
        panel.set_ylim(0, 1.01)
    _legend(figure)
    return figure


def _panels(title: str, results: _Runs) -> tuple["Figure", Iterator[tuple[str, Any, _Runs]]]:
    """A figure with a panel for each protocol that has results, and its runs.

    Raises:
        ValueError: results of different frames.
    """
    # The figure without pyplot: no window system, no state.
    from matplotlib.figure import Figure

    protocols = [protocol for protocol in PROTOCOLS if any(run["protocol"] == protocol for run in results)]
    figure = Figure(figsize=(9.6, 4.0 * -(-len(protocols) // 2) + 0.9), layout="constrained")
    figure.suptitle(f"{title} (frozen EfficientNet-Lite0 features)", fontsize=12)
    axes = figure.subplots(-(-len(protocols) // 2), 2, squeeze=False).ravel()

    def panels() -> Iterator[tuple[str, Any, _Runs]]:
        for protocol, panel in zip(protocols, axes, strict=False):
            runs = [run for run in results if run["protocol"] == protocol]
            check_one_frame([run for run in runs if not METHODS[run["method"]].asymmetric])
            panel.grid(color="#E5E5E5", linewidth=0.6)
            panel.set_axisbelow(True)
            yield protocol, panel, runs
        for panel in axes[len(protocols) :]:
            panel.set_visible(False)

    return figure, panels()


def _error_scale(quality: Any) -> Any:
    return -np.log(np.maximum(1 - quality, 1e-3))


def _from_error_scale(scaled: Any) -> Any:
    return 1 - np.exp(-scaled)


def _means(runs: _Runs, method: str, number: str) -> list[tuple[int, float, float]]:
    """(bits, mean, standard deviation) by bits; bits are 0 for the float features."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if run["method"] == method:
            values.setdefault(run["n_bits"] or 0, []).append(run[number])
    return [
        (bits, statistics.mean(some), statistics.stdev(some) if len(some) > 1 else 0.0)
        for bits, some in sorted(values.items())
    ]


def _legend(figure: "Figure") -> None:
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)


if __name__ == "__main__":
    main()
