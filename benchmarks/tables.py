"""Writes the tables of README.md, benchmarks/RESULTS.md and benchmarks/SEARCH.md from the raw results.

python -m benchmarks.tables          (--check: change nothing, exit 1 when a table is out of date)
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    billion,
    churn,
    cifar10_end_to_end,
    copies,
    evaluation,
    fine_tuning,
    first_use,
    general,
    rounding,
    startup,
    store,
)
from benchmarks.cifar10.markdown import cost_table, nesting_table, protocol_table, tuning_table
from benchmarks.cifar10.options import TUNING
from benchmarks.cifar10.results import load_results
from benchmarks.encode import report as encode
from benchmarks.record import RESULTS, load_numbers
from benchmarks.search import markdown as search
from benchmarks.search.results import load_results as load_search
from benchmarks.serve import report as serve

PAGES = [Path(__file__).parents[1] / "README.md", *(Path(__file__).with_name(f"{n}.md") for n in ("RESULTS", "SEARCH"))]


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for page in PAGES:
        written = page.read_text(encoding="utf-8")
        generated = fill_tables(written)
        if options.check and written != generated:
            sys.exit(f"{page.name} is out of date: python -m benchmarks.tables")
        if not options.check:
            page.write_text(generated, encoding="utf-8")


def fill_tables(text: str) -> str:
    """Returns the text with every block ``<!-- table: NAME -->`` filled from the results of that name."""

    def fill(block: re.Match[str]) -> str:
        return f"{block[1]}{_TABLES[block[2]]()}\n{block[3]}"

    return _BLOCK.sub(fill, text)


def _of_file(name: str, table: Callable[[Any], str]) -> Callable[[], str]:
    return lambda: table(load_numbers(name))


def _of_protocol(protocol: str, **options: bool) -> Callable[[], str]:
    return lambda: protocol_table(load_results(), protocol, **options)


def _of_folder(name: str, table: Callable[[Any], str]) -> Callable[[], str]:
    return lambda: table([json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS / name).glob("*.json")])


def _of_search(n: int, n_bits: int, table: Callable[[Any, int, int], str]) -> Callable[[], str]:
    return lambda: table(load_search(), n, n_bits)


_TABLES: dict[str, Callable[[], str]] = {
    **{name: _of_protocol(name) for name in ("cifar10-1", "cifar10", "cifar10-2", "cifar10-unseen")},
    "cifar10-2-asymmetric": _of_protocol("cifar10-2", asymmetric=True),
    "cifar10-end-to-end": _of_folder("cifar10-end-to-end", cifar10_end_to_end.table),
    "cifar10-cost": lambda: cost_table(load_results()),
    "cifar10-nesting": _of_file("cifar10-nesting", nesting_table),
    "cifar10-tuning": _of_file(TUNING, tuning_table),
    "billion": _of_file("billion", billion.table),
    "churn": _of_file("churn", churn.table),
    "copies": _of_file("copies", copies.table),
    "encode": _of_file("encode", encode.table),
    "encode-bf16": _of_file("encode-bf16", encode.table),
    "evaluation": _of_file("evaluation", evaluation.table),
    "fine_tuning": _of_file("fine_tuning", fine_tuning.table),
    "first_use": _of_file("first_use", first_use.table),
    "general": _of_file("general", general.table),
    "general-cifar10": _of_file("general", general.table_cifar10),
    "rounding": _of_file("rounding", rounding.table),
    "rounding-bf16": _of_file("rounding-bf16", rounding.table),
    "rounding-speed": _of_file("rounding-bf16", rounding.speed_table),
    "serve": _of_file("serve", serve.table),
    "serve-xeon": _of_file("serve-xeon", serve.table),
    "search-ratios": lambda: search.ratio_table(load_search()),
    "startup": _of_file("startup", startup.table),
    "store": _of_file("store", store.table),
    **{
        f"search-{n}-{bits}{suffix}": _of_search(n, bits, table)
        for n in (10**5, 10**6, 10**7, 10**8)
        for bits in (64, 128, 256)
        for suffix, table in (("", search.table), ("-cost", search.cost_table))
    },
}
_BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


if __name__ == "__main__":
    main()
