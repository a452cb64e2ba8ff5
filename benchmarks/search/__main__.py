"""Measures search of binary codes, ours beside faiss, usearch, NumPy, LanceDB and Milvus Lite.

    python -m benchmarks.search --cifar10 DIR                              # 1e5 and 1e6 codes
    python -m benchmarks.search --cifar10 DIR --sizes 1e7 --bits 64
    python -m benchmarks.search --quick                                    # a minute, writes nothing

DIR holds cifar-10-batches-py; without it, codes of CIFAR-10 are left out. usearch comes with pip install
'deephash[bench]'; LanceDB and Milvus Lite want environments of their own: --python lancedb=DIR/bin/python (pip install
lancedb) and --python milvus=DIR/bin/python (pip install milvus-lite==2.5.1 'pymilvus<3' 'setuptools<80'). Who is not
installed is left out, and named. Every contestant runs in a process of its own; they take turns, one working at a time.
A combination of codes, size and length that has results of all that are asked for is not run again: delete its file in
results/search to do so. Graphs take minutes to build: above 1e5 codes they take part up to 1e6, with 64 bits, clustered
and of CIFAR-10, unless they are asked for by name (--contestants).
``python -m benchmarks.tables`` then writes the tables, ``python -m benchmarks.plots`` the plots.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks.search.data import DATA, make
from benchmarks.search.markdown import rows_table
from benchmarks.search.measuring import CONTESTANTS, Budget, measure
from benchmarks.search.results import FOLDER, file_of, took_part, write

# Where graphs, which take minutes to build, take part above 1e5 codes.
GRAPHS_ABOVE, GRAPHS_UP_TO, GRAPH_BITS, GRAPH_DATA = 1e5, 1e6, 64, ("clustered", "cifar10")
QUICK = ("ours-flat", "ours-mih", "ours-ivf", "faiss-flat", "numpy")


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e5, 1e6])
    parser.add_argument("--bits", nargs="+", type=int, choices=[64, 128, 256], default=[64, 128, 256])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, help="by default all")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=Budget.rounds, help="of all contestants; medians are over all")
    parser.add_argument("--cifar10", type=Path, metavar="DIR")
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PYTHON", help="of lancedb, of milvus")
    parser.add_argument("--results", type=Path, help="folder, by default results/search")
    parser.add_argument("--quick", action="store_true", help="1e5 clustered codes of 64 bits, few contestants")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.bits, options.data, options.contestants = [1e5], [64], ["clustered"], list(QUICK)
    asked = options.contestants or list(CONTESTANTS)
    budget = Budget(rounds=1, openings=1) if options.quick else Budget(rounds=options.rounds)
    python = dict(text.split("=", 1) for text in options.python)
    folder = options.results or FOLDER
    started = time.monotonic()
    for n, n_bits, data in (
        (int(n), bits, data) for n in options.sizes for bits in options.bits for data in options.data
    ):
        path = file_of(data, n, n_bits, folder)
        keeps = not options.quick or options.results is not None
        if keeps and set(asked) <= took_part(path):
            print(f"{path.name}: there already", flush=True)
            continue
        if data == "cifar10" and options.cifar10 is None:
            print(f"{path.name}: left out, needs --cifar10 DIR", flush=True)
            continue
        print(f"{data}, {n:,} codes, {n_bits} bits ({(time.monotonic() - started) / 60:.0f} min)", flush=True)
        names, without = asked, dict[str, str]()
        if options.contestants is None and not has_graphs(n, n_bits, data):
            without = {name: "takes minutes to build" for name in asked if CONTESTANTS[name].is_graph}
            names = [name for name in asked if name not in without]
        codes, queries = make(data, n, n_bits, options.cifar10)
        with tempfile.TemporaryDirectory(prefix="search-") as place:
            measured = measure(
                names, codes, queries, k=options.k, folder=Path(place), budget=budget, python=python,
                say=lambda text: print(f"  {text}", flush=True),
            )  # fmt: skip
        measured["left_out"] |= without
        for name, why in measured["left_out"].items():
            print(f"  {name} left out: {why}", flush=True)
        config = {
            "data": data, "how": DATA[data].how, "n": n, "n_bits": n_bits, "k": options.k, "queries": len(queries),
            "rounds": budget.rounds, "threads": len(os.sched_getaffinity(0)),
        }  # fmt: skip
        if keeps:
            write(path, config, measured)
        print(rows_table({"config": config, **measured}), flush=True)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


def has_graphs(n: int, n_bits: int, data: str) -> bool:
    """Returns whether graphs take part, where nobody asks for them by name."""
    return n <= GRAPHS_ABOVE or (n <= GRAPHS_UP_TO and n_bits == GRAPH_BITS and data in GRAPH_DATA)


if __name__ == "__main__":
    main()
