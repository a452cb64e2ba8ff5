"""How fast images become codes, and whether the fast ways keep them.

    python -m benchmarks.encode --photos DIR --objects DIR [--peer imagededup=PYTHON ...] [--large 100000]

Four questions, each answered on this machine in one run: the bare forward pass of the default backbone in every way
there is to run it, in turns; which share of the bits of the general models and of codes fitted to the collection is
that of plain float32 PyTorch, and P@10, on photographs of objects (51 classes of Caltech-101; labels judge only); a
whole ``deephash index`` of the photographs, each time between bare forward passes, ours and ONNX Runtime's, and what
decoding costs, alone and beside the encoder; the encoders of other programs on the same files (``--peer
imagededup|DeepImageSearch|CLIP=PYTHON``, a Python that has them and what deephash needs). ``--large N`` indexes N
files, real photographs that differ in a comment, for peak memory, and once more, unchanged. ``--only index`` measures
that part anew and leaves the others as they were. Raw numbers: ``results/encode.json``, or ``encode-bf16.json`` where
the processor computes in bfloat16.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.encode.back_ends import OURS, REFERENCE, Encode, back_ends, onnx_runtime, rate, rates
from benchmarks.encode.codes import decoded, precision_at_10
from benchmarks.encode.report import table
from benchmarks.encode.whole import PEERS, copies_of, index_run, peer_run
from benchmarks.record import RESULTS, conditions, load_numbers, name_here, write_result
from deephash.encoders import VARIABLE
from deephash.fitting import fit_hash_layer
from deephash.image_files import decode_file, find_images
from deephash.machine import count_processors
from deephash.model import HashModel, load_model
from index import FileStat

_MODEL = "general-128"
_LENGTHS = (64, 128, 256, 512)
_BATCH = 32  # of the bare forward pass beside whole runs
_BATCH_OF_ONNX_RUNTIME = 4  # which it is fastest with
_PARTS = (
    "forward", "picked", "codes", "decode_cpu_ms", "decode_cpu_ms_beside_encoder", "decode_cpu_ms_with_pillow_alone",
    "cores", "index", "peers", "large",
)  # fmt: skip


def main() -> None:
    """Runs the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--large", type=int, default=0, metavar="N")
    parser.add_argument("--only", action="append", choices=_PARTS, help="measure that anew, leave the others")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    photos = options.photos.resolve()
    name, only = name_here("encode"), options.only or ()
    for part, given in (("large", options.large), ("peers", options.peer)):
        if part in only and not given:
            parser.error(f"--only {part} needs --{part.removesuffix('s')}")
    wanted = set(only) or {part for part in _PARTS if part != "large" or options.large}
    numbers = load_numbers(name) if only else dict.fromkeys(_PARTS)
    if numbers is None:
        parser.error(f"--only needs results/{name}.json of an earlier run")
    peers = dict(peer.split("=", 1) for peer in options.peer)
    for part, measure in _parts(photos, options.objects, peers, options.rounds, options.large).items():
        if part in wanted:
            numbers[part] = measure()
            numbers.setdefault("measured", {})[part] = conditions()["time"]
            print(json.dumps({part: numbers[part]}), flush=True)  # whoever stops it here has that
    path = write_result(name, config={"model": _MODEL, "threads": torch.get_num_threads()}, numbers=numbers)
    print(table(numbers))
    print(f"raw numbers: {path.relative_to(RESULTS.parents[1])}")


def _parts(photos: Path, objects: Path, peers: dict[str, str], rounds: int, large: int) -> dict[str, Callable[[], Any]]:
    """Returns what measures each part."""
    model = load_model(_MODEL)
    files = list(find_images([photos]))
    pixels, _ = decoded(files[:256], model)

    def around() -> dict[str, float]:
        # Ours about as long as a run over the photographs: speeds drift.
        return {
            "bare_images_per_second": rate(model.encoder, np.concatenate([pixels] * 3), _BATCH),
            "onnx_runtime_images_per_second": rate(reference(), pixels, _BATCH_OF_ONNX_RUNTIME),
        }

    @functools.cache
    def reference() -> Encode:
        return onnx_runtime(model)

    @functools.cache
    def found() -> dict[str, Encode]:
        before = os.environ.pop(VARIABLE, None)
        ways = back_ends(model, lambda name: os.environ.__setitem__(VARIABLE, name))
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
        return ways

    return {
        "forward": lambda: rates(found(), pixels, batches=(4, 32), rounds=rounds),
        "picked": lambda: OURS[model.encoder.name],
        "codes": lambda: _codes_kept(found(), model, list(find_images([objects]))),
        "decode_cpu_ms": lambda: decode_cpu_ms(photos),
        "decode_cpu_ms_beside_encoder": lambda: _decode_cpu_ms_beside(model.encoder, pixels, photos),
        "decode_cpu_ms_with_pillow_alone": lambda: _decode_cpu_ms_with_pillow_alone(photos),
        "cores": count_processors,
        "index": lambda: _index_runs(photos, around, rounds),
        "peers": lambda: [peer_run(name, python, photos) for name, python in peers.items()],
        "large": lambda: _large(photos, large, around),
    }


def _codes_kept(found: dict[str, Encode], model: HashModel, files: list[FileStat]) -> list[dict[str, Any]]:
    """Returns, for each model and each way, the share of bits equal to the reference's, and P@10."""
    pixels, paths = decoded(files, model)
    labels = np.unique([os.path.basename(os.path.dirname(path)) for path in paths], return_inverse=True)[1]
    features = {name: _in_batches(encode, pixels) for name, encode in found.items()}
    models = {f"general-{n}": load_model(f"general-{n}") for n in _LENGTHS}
    models |= {
        f"fitted, {n} bits": fit_hash_layer(model, features[REFERENCE], n, collection="objects") for n in _LENGTHS[:3]
    }
    rows = []
    for name, hashed in models.items():
        bits = {way: hashed.logits_of_features(given) > 0 for way, given in features.items()}
        precisions = {way: precision_at_10(hashed, given, labels) for way, given in features.items()}
        for way in found:
            equal = float((bits[way] == bits[REFERENCE]).mean())
            rows.append({"model": name, "name": way, "equal_bits": equal, "precision_at_10": precisions[way]})
    return rows


def _in_batches(encode: Encode, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    # Whole batches: torch.compile compiles anew for another size.
    padded = np.concatenate([pixels, pixels[: -len(pixels) % 32]])
    parts = [encode(padded[start : start + 32]) for start in range(0, len(padded), 32)]
    return np.concatenate(parts)[: len(pixels)]


def decode_cpu_ms(photos: Path) -> float:
    """Returns what an image costs in one thread before it is encoded: hashing, decoding, scaling for both models."""
    files, spec = list(find_images([photos])), load_model(_MODEL).input_spec
    started = time.thread_time()
    for file in files:
        decode_file(file, spec)
    return 1000 * (time.thread_time() - started) / len(files)


def _decode_cpu_ms_beside(encode: Encode, pixels: NDArray[np.uint8], photos: Path) -> float:
    """Returns what it costs while images are encoded, as in a whole run: caches are shared then, and maybe cores."""
    is_done = threading.Event()
    encode(pixels[:_BATCH])  # prepares it

    def encode_on() -> None:
        while not is_done.is_set():
            encode(pixels[:_BATCH])

    with ThreadPoolExecutor(2) as threads:  # as many batches as a whole run encodes at a time
        encoding = [threads.submit(encode_on) for _ in range(2)]
        try:
            cost = decode_cpu_ms(photos)
        finally:
            is_done.set()
        for each in encoding:
            each.result()
    return cost


def _decode_cpu_ms_with_pillow_alone(photos: Path) -> float:
    program = (
        "import sys, pathlib, benchmarks.encode.__main__ as main; print(main.decode_cpu_ms(pathlib.Path(sys.argv[1])))"
    )
    command, environment = [sys.executable, "-c", program, str(photos)], {**os.environ, "DEEPHASH_KERNEL": "0"}
    return float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def _index_runs(photos: Path, around: Callable[[], dict[str, float]], rounds: int) -> list[dict[str, Any]]:
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        index_run(photos, Path(folder), _MODEL)  # converts and compiles what the cache has not yet
    around()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(_index_run(photos, Path(folder), around))
    return runs


def _index_run(photos: Path, folder: Path, around: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Returns a run over a new index, with the rates of the bare forward passes right before and after it."""
    before = around()
    run = index_run(photos, folder, _MODEL)
    after = around()
    return run | {name: [before[name], after[name]] for name in before}


def _large(photos: Path, n: int, around: Callable[[], dict[str, float]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        collection = copies_of(photos, n, Path(folder, "collection"))
        first = _index_run(collection, Path(folder), around)
        again = index_run(collection, Path(folder), _MODEL)
        if again["decoded"]:
            raise RuntimeError(f"the second run decoded {again['decoded']} images of an unchanged folder")
    return {"first": first, "again": again}


if __name__ == "__main__":
    main()
