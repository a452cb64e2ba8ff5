"""The plots show the numbers of the raw results, and a method has the same colour in all of them."""

import pytest

from benchmarks import plots

from .results import a_run

RUNS = [
    a_run("float", None, 0, 0.45),
    *(a_run("dsdh", n_bits, seed, n_bits / 100 + seed / 10) for n_bits in (12, 48) for seed in (0, 1)),
    *(a_run("dch", n_bits, 0, 0.3) for n_bits in (12, 48)),
    a_run("itq", 48, 0, 0.2, protocol="cifar10-unseen"),
    a_run("dsdh", 48, 0, 0.3, protocol="cifar10-unseen"),
]


def lines(panel, label):
    return [line for line in panel.get_lines() if line.get_label() == label]


def test_map_is_the_mean_over_the_seeds_by_bits():
    figure = plots.draw_map(RUNS)
    first, second = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["cifar10-1", "cifar10-unseen"]
    (bars,) = [bars for bars in first.containers if bars.get_label() == "DSDH"]
    assert bars.lines[0].get_xydata().ravel() == pytest.approx([12, 0.17, 48, 0.53])
    (segments,) = bars.lines[2]
    assert segments.get_segments()[0][:, 1].tolist() == pytest.approx([0.17 - 0.0707, 0.17 + 0.0707], abs=1e-3)
    assert lines(first, "cosine of the float features")[0].get_ydata() == pytest.approx([0.45, 0.45])
    assert lines(first, "other losses with labels")[0].get_ydata().tolist() == [0.3, 0.3]
    assert len(second.containers) == 2
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(legend) == ["DSDH", "ITQ", "cosine of the float features", "other losses with labels"]


def test_curves_follow_the_radius_at_48_bits():
    first, second = plots.draw_precision_recall(RUNS).axes
    (curve,) = lines(first, "DSDH")
    assert curve.get_xydata().ravel() == pytest.approx([0.1, 0.53, 0.5, 0.265, 1, 0.1])
    assert len(first.get_lines()) == 1
    assert len(lines(second, "ITQ")) == 1
    (bars,) = [bars for bars in plots.draw_map(RUNS).axes[0].containers if bars.get_label() == "DSDH"]
    assert curve.get_color() == bars.lines[0].get_color()


def test_no_two_methods_look_the_same():
    assert len({style[0] for style in plots._STYLES.values()}) == len(plots._STYLES)
    assert len({style[1] for style in plots._STYLES.values()}) == len(plots._STYLES)


def test_results_of_two_frames_are_not_drawn_together():
    other = a_run("dpsh", 12, 0, 0.5)
    other["config"] = other["config"] | {"backbone": "another"}
    with pytest.raises(ValueError, match="differ in backbone"):
        plots.draw_map([*RUNS, other])


def test_files_are_small(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FOLDER", tmp_path / "plots")
    monkeypatch.setattr(plots, "load_results", lambda: RUNS)
    monkeypatch.setattr(plots, "load_search", list)
    monkeypatch.setattr(plots, "load_numbers", lambda name: None)
    plots.main()
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "plots").iterdir()}
    assert sorted(sizes) == ["cifar10-map.png", "cifar10-precision-recall.png"]
    assert all(10_000 < size < 150_000 for size in sizes.values())
