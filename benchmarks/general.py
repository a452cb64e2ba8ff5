"""How good codes without labels are on images of objects that nobody trained on.

    python -m benchmarks.general --objects DIR --photos DIR --cifar DIR

The first DIR holds one folder of photographs for each class (51 classes of Caltech-101, 24 images each, for the numbers
in the README). Every image is a query against all others (itself left out); two images are relevant to each other when
they lie in the same folder. The third DIR holds cifar-10-batches-py: the same on 2,000 of its test images. Labels serve
for the judgement alone. Compared on the same features: the shipped general models, the hash layer fitted to the
collection itself (what ``deephash index`` does) on all images and on samples of them, LSH, and the float features by
cosine. Re-ranked: the 100 nearest by Hamming distance (10 times k = 10), or all, are ordered by asymmetric distance;
``ms_a_query`` is the median time of a search of this collection with and without it. The second DIR holds the
photographs that the general models were fitted to: for the other ways to fit them. Raw numbers in
``results/general.json``.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.record import write_result
from deephash.datasets import load_cifar10
from deephash.evaluation import (
    RetrievalReport,
    average_precision,
    evaluate_codes,
    evaluate_features,
    precision_at_k,
)
from deephash.fitting import COLLECTION_BLOCK_WIDTH, fit_hash_layer, sample_features
from deephash.image_files import find_images
from deephash.images import preprocess
from deephash.model import HashModel, load_model, untrained_model
from deephash.progress import ignore_progress
from deephash.shallow import LSH
from index import HammingIndex, hamming_distances, pack_bits
from index.reranking import OVERSAMPLING, asymmetric_distances

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTHS = (64, 128, 256, 512)
SAMPLES = (100, 200, 400, 800)
_K = 10
_CIFAR = "CIFAR-10"
_N_CIFAR = 2_000
# What is drawn of a method: colour, marker and dashes; others stay in the table.
_STYLES = {
    "fitted to the collection (default)": ("#D55E00", "o", "-"),
    "... re-ranked: fitted to the collection (default)": ("#D55E00", "o", "--"),
    "general model (shipped)": ("#0072B2", "s", "-"),
    "... re-ranked: general model (shipped)": ("#0072B2", "s", "--"),
    "LSH": ("#666666", "^", ":"),
    "float cosine, 1,280 dimensions": ("#000000", "", "-."),
}
_Features = NDArray[np.float32]


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    options = parser.parse_args()
    base = load_model("general-128")
    plain = untrained_model("efficientnet_lite0")
    sample = sample_features(base, list(find_images([options.objects])), on_progress=ignore_progress)
    folders = [os.path.basename(os.path.dirname(image.file.path)) for image in sample.images]
    labels = np.unique(folders, return_inverse=True)[1]
    photos = sample_features(base, list(find_images([options.photos])), on_progress=ignore_progress)
    rows = measure(base, sample.features, labels, photos.features)
    crop = replace(plain.input_spec, resize=plain.input_spec.size)
    for name, spec in {
        "float cosine of the network as it is": base.input_spec,
        "... of the centre instead of the whole picture": crop,
        "... of the centre, short side 256 before the crop": plain.input_spec,
    }.items():
        model = untrained_model("efficientnet_lite0", input_spec=spec)
        features = sample_features(model, list(find_images([options.objects])), on_progress=ignore_progress).features
        rows.append(_row(name, None, _judge_floats(features, labels)))
    cifar, chosen = load_cifar10(options.cifar), np.random.default_rng(0).permutation(10_000)[:_N_CIFAR] + 50_000
    pixels, targets = cifar.pixels[chosen], cifar.targets[chosen]
    tiny = measure(base, _features_of_pixels(base, pixels), targets, photos.features)
    as_it_is = _features_of_pixels(untrained_model("efficientnet_lite0", input_spec=crop), pixels)
    tiny.append(_row("float cosine of the network as it is", None, _judge_floats(as_it_is, targets)))
    rows += [row | {"collection": _CIFAR} for row in tiny]
    config = {
        "images": len(labels),
        "classes": int(labels.max()) + 1,
        "protocol": "each image against all others",
        _CIFAR: f"{_N_CIFAR} test images, each against all others",
        "block_width": COLLECTION_BLOCK_WIDTH,
        "seed": 0,
    }
    path = write_result("general", config=config, numbers=rows)
    print(table(rows), table_cifar10(rows), sep="\n\n")
    print(f"raw numbers: {path}")


def measure(base: HashModel, features: _Features, labels: NDArray[np.int64], photos: _Features) -> list[dict[str, Any]]:
    """Returns one row for each method and length."""
    exclude = np.arange(len(labels))
    rows = [_row("float cosine, 1,280 dimensions", None, _judge_floats(features, labels))]

    def judge(method: str, n_bits: int, encode: Callable[[_Features], NDArray[np.uint8]]) -> None:
        codes = encode(features)
        judged = evaluate_codes(
            codes, codes, n_bits=n_bits, query_labels=labels, database_labels=labels, exclude=exclude
        )
        rows.append(_row(method, n_bits, judged))

    for n_bits in LENGTHS:
        lsh = LSH(n_bits).fit(features)
        judge("LSH", n_bits, base.with_hash_layer(*_layer(lsh), name="lsh", method="lsh").codes_of_features)
        shipped = load_model(f"general-{n_bits}")
        fitted = fit_hash_layer(base, features, n_bits, collection="objects")
        for method, model in {
            "general model (shipped)": shipped,
            "fitted to the collection (default)": fitted,
        }.items():
            judge(method, n_bits, model.codes_of_features)
            logits = model.logits_of_features(features)
            costs = _costs(logits)
            for name, oversampling in {"re-ranked": OVERSAMPLING, "all re-ranked": None}.items():
                rows.append(_reranked_row(f"... {name}: {method}", logits, labels, oversampling) | costs)
        if n_bits > COLLECTION_BLOCK_WIDTH:
            judge("fitted to the collection, in one block", n_bits, _fitted(base, features, n_bits, block_width=n_bits))
            judge("ITQ of the photographs, in one block", n_bits, _fitted(base, photos, n_bits, block_width=n_bits))
            judge("ITQ of the photographs, in blocks of leading components", n_bits, _fitted(base, photos, n_bits))
        # What the training of the general models begins with.
        judge(
            "ITQ of the photographs, in blocks of following components",
            n_bits,
            _fitted(base, photos, n_bits, blocks="following"),
        )
        for size in SAMPLES:
            chosen = np.random.default_rng(0).permutation(len(features))[:size]
            judge(f"fitted to {size} of its images", n_bits, _fitted(base, features[chosen], n_bits))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows of the objects as a Markdown table, P@10 / mAP."""
    return _table([row for row in rows if "collection" not in row])


def table_cifar10(rows: list[dict[str, Any]]) -> str:
    """Returns the rows of CIFAR-10 that tell how general the general models are, as `table` does."""
    shown = [method for method in _STYLES if method != "LSH"] + ["float cosine of the network as it is"]
    return _table([row for row in rows if row.get("collection") == _CIFAR and row["method"] in shown])


def _table(rows: list[dict[str, Any]]) -> str:
    methods = dict.fromkeys(row["method"] for row in rows)
    lines = ["| P@10 / mAP | " + " | ".join(f"{n} bits" for n in LENGTHS) + " |", "|---" * (len(LENGTHS) + 1) + "|"]
    for method in methods:
        cells = {row["n_bits"]: f"{row['p_at_10']:.3f} / {row['map']:.3f}" for row in rows if row["method"] == method}
        texts = [cells.get(n, "") for n in LENGTHS] if None not in cells else [cells[None], *[""] * (len(LENGTHS) - 1)]
        lines.append(f"| {method} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def draw_general(rows: list[dict[str, Any]]) -> "Figure":
    """Returns P@10 and mAP against bits; the float features are horizontal lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    figure.suptitle("Codes without labels on photographs of 51 kinds of objects", fontsize=12)
    panels = figure.subplots(1, 2)
    rows = [row for row in rows if "collection" not in row]
    for panel, key, title in zip(panels, ("p_at_10", "map"), ("P@10", "mAP"), strict=True):
        for method, (colour, marker, dashes) in _STYLES.items():
            points = [(row["n_bits"], row[key]) for row in rows if row["method"] == method]
            if points and points[0][0] is None:
                panel.axhline(points[0][1], color=colour, linestyle=dashes, linewidth=1, label=method)
            elif points:
                panel.plot(
                    *zip(*sorted(points), strict=True), color=colour, marker=marker, linestyle=dashes, label=method
                )
        panel.set_xscale("log", base=2)
        panel.set_xticks(LENGTHS, map(str, LENGTHS))
        panel.set_xlabel("bits")
        panel.set_title(title)
        panel.grid(color="#E5E5E5", linewidth=0.6)
        panel.set_axisbelow(True)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    return figure


def _fitted(
    base: HashModel, features: _Features, n_bits: int, **blocks: Any
) -> Callable[[_Features], NDArray[np.uint8]]:
    fitted = fit_hash_layer(base, features, n_bits, collection="objects", **blocks)
    return fitted.codes_of_features


def _features_of_pixels(model: HashModel, pixels: NDArray[np.uint8]) -> _Features:
    spec = model.input_spec
    batches = (pixels[start : start + 32] for start in range(0, len(pixels), 32))
    return np.concatenate(
        [model.features(np.stack([preprocess(Image.fromarray(one), spec) for one in batch])) for batch in batches]
    )


def _judge_floats(features: _Features, labels: NDArray[np.int64]) -> RetrievalReport:
    exclude = np.arange(len(labels))
    return evaluate_features(features, features, query_labels=labels, database_labels=labels, exclude=exclude)


def _reranked_row(
    method: str, logits: _Features, labels: NDArray[np.int64], oversampling: int | None
) -> dict[str, Any]:
    """Judges rankings by asymmetric distance of the nearest by Hamming, and by Hamming distance behind them."""
    codes = pack_bits(logits > 0)
    precisions, averages = [], []
    for query, hamming in enumerate(hamming_distances(codes, codes)):
        others = np.arange(len(codes)) != query
        ranked, relevant = hamming[others].astype(float), labels[others] == labels[query]
        near = np.ones(len(ranked), bool)
        if oversampling is not None:
            near = ranked <= np.sort(ranked)[_K * oversampling - 1]
        # Asymmetric distances in place of the candidates' own, all of them below what is no candidate.
        nearest = asymmetric_distances(logits[query], codes[others][near])
        ranked[near] = nearest - nearest.max() - 1
        precisions.append(precision_at_k(ranked, relevant, _K))
        averages.append(average_precision(ranked, relevant).expected)
    mean, precision = statistics.mean(averages), statistics.mean(precisions)
    return {"method": method, "n_bits": logits.shape[1], "p_at_10": precision, "map": mean}


def _costs(logits: _Features) -> dict[str, Any]:
    index = HammingIndex(logits.shape[1])
    index.add(pack_bits(logits > 0))
    times: dict[str, list[float]] = {"search": [], "search_logits": []}
    for row in logits[:200, None]:
        code = pack_bits(row > 0)
        for name, search in {
            "search": lambda code=code: index.search(code, _K),
            "search_logits": lambda row=row: index.search_logits(row, _K),
        }.items():
            started = time.perf_counter()
            search()
            times[name].append(1000 * (time.perf_counter() - started))
    return {"ms_a_query": {name: round(statistics.median(values), 4) for name, values in times.items()}}


def _layer(method: LSH) -> tuple[_Features, _Features]:
    return np.ascontiguousarray(method.projection.T), -method.mean @ method.projection


def _row(method: str, n_bits: int | None, report: RetrievalReport) -> dict[str, Any]:
    return {"method": method, "n_bits": n_bits, "p_at_10": report.precision_at[10], "map": report.map}


if __name__ == "__main__":
    main()
