"""The tables of the CIFAR-10 benchmark: means, the best in bold, one frame in a table, nothing left out."""

import re

import pytest

from benchmarks.cifar10.markdown import cost_table, nesting_table, protocol_table, tuning_table
from benchmarks.cifar10.methods import METHODS, Supervised
from benchmarks.cifar10.options import GRID, chosen_options
from benchmarks.tables import PAGES, fill_tables
from deephash.losses import LOSSES, UNSUPERVISED, create_loss
from deephash.shallow import SHALLOW

from .results import a_run


def cells(table: str, label: str) -> list[str]:
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


RUNS = [
    a_run("float", None, 0, 0.9), a_run("float", None, 1, 0.9),
    a_run("trivial", 12, 0, 0.95),
    a_run("itq", 12, 0, 0.3), a_run("itq", 12, 1, 0.5),
    a_run("dsdh", 12, 0, 0.7), a_run("dsdh", 12, 1, 0.8), a_run("dsdh", 48, 0, 0.6),
    a_run("dpsh", 48, 0, 0.6004), a_run("dpsh", 48, 1, 0.6004),
    a_run("dpsh", 12, 0, 0.99, protocol="cifar10"), a_run("adsh", 12, 0, 0.99),
]  # fmt: skip


def test_table_has_means_deviations_and_the_best_in_bold():
    table = protocol_table(RUNS, "cifar10-1")
    assert cells(table, "DSDH")[0] == "**0.750 ± 0.071**"
    assert cells(table, "ITQ")[0] == "0.400 ± 0.141"
    # A cell of fewer seeds than the table has says so; equal to the last digit shown, both are best.
    assert cells(table, "DSDH")[3] == "**0.600 (1)**"
    assert cells(table, "DPSH") == ["", "", "", "**0.600 ± 0.000**", "**0.300 ± 0.000**", "25.0% ± 0.0%"]
    assert cells(table, "`cifar10-1`, mAP@all, 2 seeds")[0] == "12 bits"


def test_references_and_ablations_are_out_of_the_competition():
    table = protocol_table([*RUNS, a_run("dsdh-batch", 12, 0, 0.8)], "cifar10-1")
    assert cells(table, "DSDH")[0] == "**0.750 ± 0.071**"
    assert cells(table, "W and B for each batch on its own")[0] == "0.800 (1)"
    assert cells(table, "cosine of the float features") == [*["0.900 ± 0.000"] * 4, "", ""]
    assert cells(table, "trivial: the predicted class as code")[0] == "0.950 (1)"
    assert cells(table, "chance") == [*["0.100"] * 4, "", ""]


def test_rows_stand_below_their_group():
    titles = [line.strip("| ").split(" |")[0] for line in protocol_table(RUNS, "cifar10-1").splitlines()[2:]]
    groups = [title for title in titles if title.startswith("*")]
    assert groups == ["*References*", "*Without labels*", "*Deep, with labels*"]
    assert titles[titles.index("*Without labels*") + 1] == "ITQ"
    assert titles[titles.index("*Deep, with labels*") + 1 :] == ["DSDH", "DPSH"]


def test_asymmetric_methods_and_other_protocols_have_tables_of_their_own():
    assert cells(protocol_table(RUNS, "cifar10-1", asymmetric=True), "ADSH")[0] == "**0.990**"
    assert "ADSH" not in protocol_table(RUNS, "cifar10-1")
    assert cells(protocol_table(RUNS, "cifar10"), "DPSH")[0] == "**0.990**"
    assert protocol_table(RUNS, "cifar10-2") == ""


@pytest.mark.parametrize("part", ["backbone", "budget"])
def test_results_of_two_frames_are_refused(part):
    other = a_run("csq", 12, 0, 0.5)
    other["config"] = other["config"] | {part: {"other": 1}}
    with pytest.raises(ValueError, match=rf"dpsh and csq on cifar10-1 differ in {part} .*delete one of the files"):
        protocol_table([a_run("dpsh", 12, 0, 0.5), other], "cifar10-1")


def test_every_method_of_the_library_is_a_contestant():
    assert {*LOSSES, *SHALLOW, *UNSUPERVISED} <= set(METHODS)
    assert set(GRID) == {name for name, loss in LOSSES.items() if not loss.asymmetric}


def test_every_loss_has_as_many_options_to_choose_from_and_all_are_its_own():
    assert {len(candidates) for candidates in GRID.values()} == {4}
    for name, candidates in GRID.items():
        assert candidates[0] == {}
        for options in candidates:
            create_loss(name, n_bits=12, n_classes=10, n_train=20, **options)


def test_the_best_on_validation_images_is_chosen_and_shown():
    tried = {loss: [{"options": {}, "map": {"12": [0.1, 0.2], "48": [0.3]}, "mean": 0.2}] for loss in GRID}
    tried["dpsh"].append({"options": {"eta": 50.0}, "map": {"12": [0.5], "48": [0.7]}, "mean": 0.6})
    rows = [line for line in tuning_table(tried).splitlines() if line.startswith("| DPSH")]
    assert rows == [
        "| DPSH | defaults | 0.150 | 0.300 | 0.200 |",
        "| DPSH | **eta = 50** | **0.500** | **0.700** | **0.600** |",
    ]


def test_a_training_that_serves_two_protocols_costs_once():
    runs = [
        *(
            a_run("dsdh", 12, 0, 0.5, protocol=protocol) | {"cpu_seconds": 70.0}
            for protocol in ("cifar10", "cifar10-1")
        ),
        a_run("csq", 12, 0, 0.5) | {"cpu_seconds": 20.0},
        a_run("csq", 12, 0, 0.5, protocol="cifar10-2") | {"cpu_seconds": 240.0},
    ]
    assert cost_table(runs).splitlines()[2:] == [
        "| `cifar10-1` | 2 | 2 | 45.0 | 70 s, DSDH |",
        "| `cifar10-2` | 1 | 4 | 240.0 | 240 s, CSQ |",
    ]


def test_a_training_of_several_lengths_costs_once():
    runs = [a_run("dsdh-nested", n_bits, 0, 0.5) | {"cpu_seconds": 60.0} for n_bits in (12, 24, 32, 48)]
    assert cost_table(runs).splitlines()[2:] == ["| `cifar10-1` | 1 | 1 | 60.0 | 60 s, DSDH, one nested model |"]


def test_ways_to_learn_several_lengths_stand_side_by_side():
    table = nesting_table({"apart": {"12": [0.5, 0.7], "48": [0.8, 0.8]}, "at once": {"12": [0.6], "48": [0.7]}})
    assert table.splitlines() == [
        "|  | 12 bits | 48 bits |",
        "|---|---|---|",
        "| apart | 0.600 ± 0.141 | 0.800 ± 0.000 |",
        "| at once | 0.600 | 0.700 |",
    ]


def test_changes_add_to_the_chosen_options():
    assert Supervised("dsdh", {"eta": 0.0}).options == chosen_options("dsdh") | {"eta": 0.0}
    assert Supervised("dsdh", {"eta": 0.0}, tuned=False).options == {"eta": 0.0}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_the_tables_of_the_raw_results(page):
    text = page.read_text(encoding="utf-8")
    assert fill_tables(text) == text
    # And would be filled if they were empty.
    emptied = re.sub(r"(<!-- table: [\w-]+ -->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.DOTALL)
    assert emptied != text
    assert fill_tables(emptied) == text
