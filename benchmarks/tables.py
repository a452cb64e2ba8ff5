"""Writes the tables of README.md from the raw results.

python -m benchmarks.tables          (--check: change nothing, exit 1 when a table is out of date)
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cifar10, copies, evaluation, first_use, general, startup
from benchmarks.record import RESULTS

README = Path(__file__).parents[1] / "README.md"
_TABLES: dict[str, Callable[[Any], str]] = {
    "cifar10": cifar10.table,
    "copies": copies.table,
    "evaluation": evaluation.table,
    "general": general.table,
    "startup": startup.table,
    "first_use": first_use.table,
}
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    written = README.read_text(encoding="utf-8")
    generated = fill_tables(written)
    if options.check:
        sys.exit("README.md is out of date: python -m benchmarks.tables" if written != generated else 0)
    README.write_text(generated, encoding="utf-8")


def fill_tables(text: str) -> str:
    """Returns the text with every block ``<!-- table: NAME -->`` filled from the results of that name."""

    def fill(block: re.Match[str]) -> str:
        return f"{block[1]}{_TABLES[block[2]](_load(block[2]))}\n{block[3]}"

    return _BLOCK.sub(fill, text)


def _load(name: str) -> Any:
    """Returns the numbers of one result file, or the results of a folder of them."""
    path = RESULTS / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))["numbers"]
    return [json.loads(part.read_text(encoding="utf-8")) for part in sorted((RESULTS / name).glob("*.json"))]


if __name__ == "__main__":
    main()
