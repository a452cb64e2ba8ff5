"""Plans are made from clusters, written, read again, and refused when they are not to be trusted."""

import dataclasses
import json
import os
from datetime import datetime

import pytest

from deephash import ImageSearch, PlanError, make_plan, read_plan, write_plan
from tests.deephash.copies import make_copies


def planned(copies, radius=None, **options):
    """Returns [(kept name, [(dropped name, distance, kind), ...]), ...] of a plan that was written and read again."""
    with ImageSearch.open(copies.index) as search:
        plan = make_plan(copies.index, search.duplicates(radius=radius), radius=radius, **options)
    copies.plan.unlink(missing_ok=True)
    write_plan(plan, copies.plan)
    assert read_plan(copies.plan) == plan

    def name(file):
        return os.path.relpath(file.path, copies.photos)

    return [(name(a.keep), [(name(d), d.distance, d.kind) for d in a.drop]) for a in plan.actions]


def test_a_plan_keeps_what_duplicates_would_keep(tmp_path):
    copies = make_copies(tmp_path, {"a": (b"small", 0), "b": (b"the larger", 0b1), "c": (b"small", 0), "d": b"alone"})
    assert planned(copies) == [("a", [("c", 0, "identical")])]
    assert planned(copies, 2) == [("b", [("a", 1, "near"), ("c", 1, "near")])]


def test_the_written_plan_has_the_fields_that_are_promised(tmp_path):
    copies = make_copies(tmp_path, {"a": b"one", "b": b"one"})
    planned(copies)
    fields = json.loads(copies.plan.read_text("utf-8"))
    assert datetime.fromisoformat(fields.pop("created"))
    assert fields == {
        "deephash_plan": 1,
        "index": str(copies.index),
        "index_hex": None,
        "actions": [
            {"keep": copies.planned("a", b"one"), "drop": [copies.planned("b", b"one", distance=0, kind="identical")]}
        ],
    }


@pytest.mark.skipif(os.name == "nt", reason="names are bytes only on POSIX")
def test_names_that_are_not_utf8_come_back_as_they_were(tmp_path):
    name = os.fsdecode(b"\xff\\xfe.png")
    copies = make_copies(tmp_path, {"a": b"one", name: b"one"})
    assert planned(copies) == [("a", [(name, 0, "identical")])]
    (action,) = json.loads(copies.plan.read_text("utf-8"))["actions"]
    assert action["drop"][0]["path"].endswith(r"\xff\xfe.png")
    assert bytes.fromhex(action["drop"][0]["path_hex"]).endswith(b"\xff\\xfe.png")


def test_protected_copies_are_kept_and_the_others_dropped_for_them(tmp_path):
    copies = make_copies(tmp_path, {"large": (b"large one", 0), "best/p": (b"p", 0b11), "x": (b"x", 0b1)})
    assert planned(copies, 2) == [("large", [("x", 1, "near"), ("best/p", 2, "near")])]
    found = planned(copies, 2, protect=[copies.photos / "best"])
    assert found == [("best/p", [("x", 1, "near"), ("large", 2, "near")])]


def test_nothing_is_dropped_for_a_protected_image_that_it_is_no_copy_of(tmp_path):
    # Both are copies of the one in the middle, and the middle may go; what is far from the protected one stays.
    copies = make_copies(tmp_path, {"middle": (b"large one", 0), "best/p": (b"p", 0b11), "far": (b"f", 0b1100)})
    assert planned(copies, 2, protect=[copies.photos / "best"]) == [("best/p", [("middle", 2, "near")])]


def test_several_protected_copies_all_stay(tmp_path):
    copies = make_copies(
        tmp_path, {"x": (b"x1", 0), "best/p": (b"pp", 0b1), "best/q": (b"q", 0b1111), "y": (b"y", 0b111)}
    )
    found = planned(copies, 4, protect=[copies.photos / "best"])
    assert found == [("best/p", [("x", 1, "near"), ("y", 2, "near")])]
    assert planned(copies, 4, protect=[copies.photos]) == []


def test_a_protected_folder_is_known_under_every_spelling(tmp_path):
    copies = make_copies(tmp_path, {"a": b"one", "best/b": b"one"})
    (tmp_path / "link").symlink_to(copies.photos / "best")
    for spelling in (tmp_path / "link", copies.photos / "best" / ".." / "best", f"{copies.photos}/best//"):
        assert planned(copies, protect=[spelling]) == [("best/b", [("a", 0, "identical")])]
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*/bset: check its spelling"):
        planned(copies, protect=[copies.photos / "bset"])


def test_images_without_a_content_hash_are_not_planned_with(tmp_path):
    copies = make_copies(tmp_path, {"a": (b"one", 0), "b": (b"two", 0), "c": (b"2", 0)})
    with ImageSearch.open(copies.index) as search:
        (cluster,) = search.duplicates(radius=0)
    bare = dataclasses.replace(cluster.drop[0][0], content_hash=b"")
    cluster = dataclasses.replace(cluster, drop=((bare, 0), cluster.drop[1]))
    (action,) = make_plan(copies.index, [cluster], radius=0).actions
    assert [item.path for item in action.drop] == [str(copies.photos / "c")]
    assert make_plan(copies.index, [dataclasses.replace(cluster, keep=bare)], radius=0).actions == ()


def test_a_plan_takes_the_place_of_an_older_plan_only(tmp_path):
    copies = make_copies(tmp_path, {"a": b"one", "b": b"one"})
    planned(copies)
    plan = read_plan(copies.plan)
    write_plan(plan, copies.plan)
    other = tmp_path / "diary.txt"
    other.write_text("dear diary")
    with pytest.raises(PlanError, match=r"diary\.txt exists and is no plan"):
        write_plan(plan, other)
    assert other.read_text() == "dear diary"
    (tmp_path / "copies.json.log").touch()
    with pytest.raises(PlanError, match="was carried out already"):
        write_plan(plan, copies.plan)


# --- plans that are refused ---


@pytest.fixture
def good(tmp_path):
    copies = make_copies(tmp_path, {"a": b"one", "b": b"one", "c": b"3", "d": b"4"})
    drop = [
        copies.planned("b", b"one", distance=0, kind="identical"),
        copies.planned("c", b"3", distance=2, kind="near"),
    ]
    actions = [{"keep": copies.planned("a", b"one"), "drop": drop}]
    fields = {
        "deephash_plan": 1,
        "index": str(copies.index),
        "created": "2025-02-03T04:05:06+00:00",
        "actions": actions,
    }
    return copies, fields


def refusal(copies, content):
    copies.plan.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(PlanError) as caught:
        read_plan(copies.plan)
    assert str(copies.plan) in str(caught.value)
    return str(caught.value)


def test_a_plan_as_a_page_writes_it_is_read(good):
    copies, fields = good
    for file in (fields["actions"][0]["keep"], *fields["actions"][0]["drop"]):
        del file["path_hex"]
        file["id"] = 7
    fields["created"] = "2025-02-03T04:05:06.789Z"
    copies.plan.write_text(json.dumps(fields), encoding="utf-8-sig")
    (action,) = read_plan(copies.plan).actions
    assert [item.kind for item in action.drop] == ["identical", "near"]


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (["deephash_plan"], 2, "a plan of version 2, and this program knows 1"),
        (["deephash_plan"], True, "a plan of version True"),
        (["deephash_plan"], "1", "a plan of version '1'"),
        (["index"], "photos.dhx", "index of the plan is not an absolute path"),
        (["index"], 5, "index of the plan is not text"),
        (["created"], "yesterday", "created is no ISO 8601 time: 'yesterday'"),
        (["actions"], {}, "actions of the plan is not a list"),
        (["actions", 0], None, r"actions[0] is not an object"),
        (["actions", 0, "keep"], [], r"keep of actions[0] is not an object"),
        (["actions", 0, "drop"], "b", r"drop of actions[0] is not a list"),
        (["actions", 0, "drop", 1], 3, r"actions[0].drop[1] is not an object"),
        (["actions", 0, "drop", 0, "kind"], "same", "is neither identical nor near: 'same'"),
        (["actions", 0, "drop", 1, "kind"], "identical", r"actions[0].drop[1] is called identical, but"),
        (["actions", 0, "drop", 0, "distance"], -1, "is out of range: -1"),
        (["actions", 0, "drop", 0, "distance"], 1.0, "is not a whole number"),
        (["actions", 0, "drop", 0, "n_bytes"], True, "is not a whole number"),
        (["actions", 0, "keep", "n_bytes"], 10**400, "is out of range"),
        (["actions", 0, "keep", "content_hash"], "ab", "is not 32 hexadecimal digits"),
        (["actions", 0, "keep", "content_hash"], "zz" * 16, "is not 32 hexadecimal digits"),
        (["actions", 0, "keep", "content_hash"], " " * 32, "is not 32 hexadecimal digits"),
        (["actions", 0, "keep", "path"], "/x/../etc/passwd", "is not an absolute path without detours"),
        (["actions", 0, "keep", "path"], "a.png", "is not an absolute path without detours"),
        (["actions", 0, "keep", "path"], "", "is not an absolute path without detours"),
        (["actions", 0, "keep", "path"], "/x\0y", "is not an absolute path without detours"),
        (["actions", 0, "keep", "path"], "/x\ud800", "is damaged"),
        (["actions", 0, "keep", "path_hex"], "2f78", "are not the same path"),
        (["actions", 0, "keep", "path_hex"], "xyz", "is damaged"),
        (["actions", 0, "keep", "path_hex"], 4, "is damaged"),
    ],
)  # fmt: skip
def test_wrong_values_are_named_with_their_place(good, place, value, says):
    copies, fields = good
    *way, name = place
    inner = fields
    for step in way:
        inner = inner[step]
    inner[name] = value
    assert says in refusal(copies, fields)


def test_every_missing_field_is_named(good):
    copies, fields = good
    keep, drop = fields["actions"][0]["keep"], fields["actions"][0]["drop"][0]
    places = [(fields, "the plan"), (fields["actions"][0], "actions[0]"), (keep, "actions[0].keep")]
    places.append((drop, "actions[0].drop[0]"))
    n_tried = 0
    for inner, where in places:
        for name in set(inner) - {"deephash_plan", "path_hex"}:
            value = inner.pop(name)
            assert f"{where} has no {name}" in refusal(copies, fields)
            inner[name] = value
            n_tried += 1
    assert n_tried == 3 + 2 + 3 + 5
    del fields["deephash_plan"]
    assert "is not a plan: deephash duplicates INDEX --plan FILE writes one" in refusal(copies, fields)


def test_damaged_files_are_said_to_be_damaged(good):
    copies, fields = good
    whole = json.dumps(fields).encode()
    for content in (whole[:-7], b"", b"\xff\xfe", b"[" * 100_000, whole + b"}", b'{"a": \xc3}'):
        assert "is no plan, or a damaged one" in refusal(copies, content)
    for content in (b"[]", b"null", b"7"):
        assert "is not a plan" in refusal(copies, content)


def test_chains_and_cycles_are_refused(good):
    copies, fields = good
    (action,) = fields["actions"]
    plain = copies.planned("b", b"one")
    chain = {"keep": plain, "drop": [copies.planned("d", b"4", distance=1, kind="near")]}
    assert "/b is both kept and dropped; nothing was done" in refusal(copies, fields | {"actions": [action, chain]})
    cycle = {"keep": plain, "drop": [copies.planned("a", b"one", distance=0, kind="identical")]}
    assert "is both kept and dropped" in refusal(copies, fields | {"actions": [action, cycle]})
    itself = {"keep": plain, "drop": [plain | {"distance": 0, "kind": "identical"}]}
    assert "/b is both kept and dropped" in refusal(copies, fields | {"actions": [itself]})
    again = {"keep": copies.planned("d", b"4"), "drop": [action["drop"][1]]}
    assert "/c is dropped twice" in refusal(copies, fields | {"actions": [action, again]})


def test_a_missing_plan_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path / "none.json")
