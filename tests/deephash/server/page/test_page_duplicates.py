"""The review of copies, and the plan file that comes of it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from playwright.sync_api import expect

from deephash.plans import read_plan
from tests.deephash.command_line import run
from tests.deephash.photos import write_photos
from tests.deephash.server.servers import running


@pytest.fixture(scope="module")
def copies(tmp_path_factory, tiny_file):
    """Photographs 0 to 11; 0 to 3 twice more in ``copies``, 4 to 6 larger in ``large``, 7 mirrored: near copies."""
    folder = tmp_path_factory.mktemp("copies")
    paths = write_photos(folder / "photos", 0, 12)
    (folder / "photos" / "copies").mkdir()
    (folder / "photos" / "large").mkdir()
    for path in paths[:4]:
        for name in (path.name, f"again-{path.name}"):
            shutil.copy(path, folder / "photos" / "copies" / name)
    for path in paths[4:7]:
        with Image.open(path) as image:
            image.resize((64, 64), Image.Resampling.BICUBIC).save(folder / "photos" / "large" / path.name)
    with Image.open(paths[7]) as image:
        ImageOps.mirror(image).save(folder / "photos" / "mirrored.png")
    index = folder / "photos.dhx"
    assert run("index", folder / "photos", "--index", index, "--model", tiny_file).exit_code == 0
    with running(index, folder) as server:
        server.folder, server.index, server.paths = folder, index, paths
        yield server


def _title(here, text):
    expect(here.page.locator("#set-title")).to_contain_text(text)


def _picks(here):
    """Returns path -> Keep or Drop of the set that is shown."""
    script = """cards => Object.fromEntries(cards.map(card => [
        card.querySelector('h3').title, card.querySelector('[aria-pressed=true].choice').textContent]))"""
    return here.page.locator(".copy").evaluate_all(script)


def _save(here, folder):
    with here.page.expect_download() as download:
        here.page.get_by_role("button", name="Plan file").click()
    assert download.value.suggested_filename == "photos-plan.json"
    download.value.save_as(folder / "plan.json")
    return folder / "plan.json", json.loads((folder / "plan.json").read_text())


def test_identical_copies_by_keyboard_alone_to_a_plan_that_apply_carries_out(visit, copies, tmp_path):
    here = visit(copies, "?page=duplicates")
    clusters = copies.client.duplicates(identical=True)
    assert len(clusters) == 4
    _title(here, "Set 1 of 4")
    keep = clusters[0].keep.path
    # As proposed: the best stays, the others go.
    assert _picks(here) == {keep: "Keep"} | {record.path: "Drop" for record, _ in clusters[0].drop}
    expect(here.page.locator(".copy").first).to_contain_text("Best copy")
    here.shot("duplicates-identical")
    here.page.keyboard.press("k")  # the first that would be dropped stays, too
    here.page.keyboard.press("n")
    _title(here, "Set 2 of 4")
    here.page.keyboard.press("b")  # the other way round: only the copy stays
    here.page.keyboard.press("n")
    _title(here, "Set 3 of 4")
    here.page.keyboard.press("s")
    _title(here, "Set 4 of 4")
    here.page.keyboard.press("n")
    expect(here.page.locator("#sum")).to_contain_text("3 sets decided: 5 files to drop")
    expect(here.page.get_by_role("button", name="Plan file")).to_be_focused()
    here.page.keyboard.press("p")
    _title(here, "Set 3 of 4")

    path, plan = _save(here, tmp_path)
    dropped = {item["path"]: action["keep"]["path"] for action in plan["actions"] for item in action["drop"]}
    first, second, _, fourth = clusters
    assert dropped == {
        first.drop[1][0].path: first.keep.path,
        second.keep.path: second.drop[0][0].path,
        second.drop[1][0].path: second.drop[0][0].path,
        fourth.drop[0][0].path: fourth.keep.path,
        fourth.drop[1][0].path: fourth.keep.path,
    }
    assert {item["kind"] for action in plan["actions"] for item in action["drop"]} == {"identical"}
    read = read_plan(path)
    assert Path(read.index) == copies.index
    moved = tmp_path / "moved"
    done = run("apply", path, "--move", moved)
    assert done.exit_code == 0, done.output
    assert [Path(name).exists() for name in dropped] == [False] * 5
    assert all(Path(name).exists() for name in dropped.values())
    assert run("apply", "--undo", path).exit_code == 0
    assert [Path(name).exists() for name in dropped] == [True] * 5
    assert run("index", copies.folder / "photos", "--index", copies.index).exit_code == 0


def test_what_was_decided_is_there_after_a_reload(visit, copies):
    here = visit(copies, "?page=duplicates")
    _title(here, "Set 1 of 4")
    here.page.keyboard.press("k")
    here.page.keyboard.press("n")
    _title(here, "Set 2 of 4")
    assert here.address()["at"] == ["1"]
    here.page.reload()
    _title(here, "Set 2 of 4")
    expect(here.page.locator("#sum")).to_contain_text("1 set decided")
    here.page.go_back()
    _title(here, "decided")
    assert sorted(_picks(here).values()) == ["Drop", "Keep", "Keep"]
    here.page.keyboard.press("u")
    assert sorted(_picks(here).values()) == ["Drop", "Drop", "Keep"]
    expect(here.page.locator("#sum")).to_have_text("Nothing is decided yet")


def test_near_copies_are_apart_from_identical_ones(visit, copies, tmp_path):
    here = visit(copies, "?page=duplicates")
    here.page.get_by_role("tab", name="Near").click()
    slider = here.page.get_by_role("slider", name="Within distance")
    slider.fill("14")
    here.page.wait_for_url(lambda url: "near=14" in url)
    clusters = [cluster for cluster in copies.client.duplicates(radius=14) if cluster.kind == "near"]
    assert clusters
    _title(here, f"Set 1 of {len(clusters)}")
    assert here.address() == {"page": ["duplicates"], "kind": ["near"], "near": ["14"]}
    identical = {cluster.keep.path for cluster in copies.client.duplicates(identical=True)}
    for number, cluster in enumerate(clusters):
        _title(here, f"Set {number + 1} of")
        expect(here.page.locator(".copy h3").first).to_have_attribute("title", cluster.keep.path)
        assert set(_picks(here)) == {cluster.keep.path, *(record.path for record, _ in cluster.drop)}
        assert not set(_picks(here)) <= identical
        for record, distance in cluster.drop:
            text = "same content" if record.content_hash == cluster.keep.content_hash else f"distance {distance}"
            expect(here.page.locator(".copy", has=here.page.locator(f"h3[title='{record.path}']"))).to_contain_text(
                text
            )
        if number == 0:
            here.shot("duplicates-near")
        here.page.keyboard.press("n")
    _, plan = _save(here, tmp_path)
    kinds = {item["path"]: (item["kind"], item["distance"]) for action in plan["actions"] for item in action["drop"]}
    assert any(kind == "near" for kind, _ in kinds.values())
    assert read_plan(tmp_path / "plan.json").actions


def test_mirrored_copies_are_found_when_asked_for(visit, copies):
    here = visit(copies, "?page=duplicates&kind=near&near=8")
    plain = [cluster for cluster in copies.client.duplicates(radius=8) if cluster.kind == "near"]
    here.page.get_by_role("checkbox", name="Mirrored too").check()
    clusters = [cluster for cluster in copies.client.duplicates(radius=8, mirrored=True) if cluster.kind == "near"]
    mirrored = {"mirrored.png", copies.paths[7].name}
    names = [{Path(r.path).name for r in (c.keep, *(record for record, _ in c.drop))} for c in clusters]
    place = names.index(mirrored)
    assert len(clusters) > len(plain)
    _title(here, f"Set 1 of {len(clusters)}")
    assert here.address() == {"page": ["duplicates"], "kind": ["near"], "near": ["8"], "mirrored": ["1"]}
    here.page.goto(f"{copies.url}?page=duplicates&kind=near&near=8&mirrored=1&at={place}")
    expect(here.page.get_by_role("checkbox", name="Mirrored too")).to_be_checked()
    _title(here, f"Set {place + 1} of {len(clusters)}")
    assert sorted(_picks(here).values()) == ["Drop", "Keep"]
    here.shot("duplicates-mirrored")
    here.page.get_by_role("checkbox", name="Mirrored too").uncheck()
    assert mirrored not in [{Path(r.path).name for r in (c.keep, *(record for record, _ in c.drop))} for c in plain]
    assert here.address() == {"page": ["duplicates"], "kind": ["near"], "near": ["8"]}


def test_the_best_copy_is_proposed_with_its_reason(visit, copies):
    here = visit(copies, "?page=duplicates&kind=near&near=14")
    clusters = [cluster for cluster in copies.client.duplicates(radius=14) if cluster.kind == "near"]
    large = next(place for place, cluster in enumerate(clusters) if "/large/" in cluster.keep.path)
    here.page.goto(f"{copies.url}?page=duplicates&kind=near&near=14&at={large}")
    card = here.page.locator(".copy", has=here.page.locator(f"h3[title='{clusters[large].keep.path}']"))
    expect(card).to_contain_text("Best copy: most pixels")
    expect(card.get_by_role("button", name="Keep")).to_have_attribute("aria-pressed", "true")
    assert list(_picks(here).values()).count("Keep") == 1


def test_protected_folders_are_never_proposed_for_dropping(visit, copies, tmp_path):
    here = visit(copies, "?page=duplicates")
    _title(here, "Set 1 of 4")
    folder = copies.folder / "photos" / "copies"
    here.page.get_by_text("Protected folders").click()
    here.page.get_by_label("Never drop anything below").fill(str(folder))
    here.page.get_by_role("button", name="Protect", exact=True).click()
    here.shot("duplicates-protected")
    picks = _picks(here)
    assert all(pick == "Keep" for path, pick in picks.items() if Path(path).is_relative_to(folder))
    assert [path for path, pick in picks.items() if pick == "Drop"] == [
        path for path in picks if not Path(path).is_relative_to(folder)
    ]
    card = here.page.locator(".copy", has_text=str(folder)).first
    expect(card.get_by_role("button", name="Drop")).to_be_disabled()
    card.locator(".copy-picture").click()
    here.page.keyboard.press("d")
    expect(here.page.get_by_role("alert")).to_contain_text("lies in a protected folder: it is never dropped")
    here.page.get_by_role("button", name="Accept all proposals").click()
    expect(here.page.locator("#sum")).to_contain_text("4 sets decided: 4 files to drop")
    _, plan = _save(here, tmp_path)
    for action in plan["actions"]:
        assert Path(action["keep"]["path"]).is_relative_to(folder)
        assert not any(Path(item["path"]).is_relative_to(folder) for item in action["drop"])
    here.page.get_by_role("button", name=f"Protect {folder} no longer").click()
    here.page.keyboard.press("u")
    assert list(_picks(here).values()).count("Keep") == 1


def test_the_last_copy_always_stays(visit, copies):
    here = visit(copies, "?page=duplicates&at=1")
    _title(here, "Set 2 of 4")
    here.page.locator(".copy-picture").first.click()
    here.page.keyboard.press("d")
    expect(here.page.get_by_role("alert")).to_contain_text("One copy always stays")
    assert sorted(_picks(here).values()) == ["Drop", "Drop", "Keep"]


def test_without_copies_there_is_nothing_to_review(visit, copies):
    here = visit(copies, "?page=duplicates&path=no+such+place")
    expect(here.page.get_by_role("heading", name="Nothing to review")).to_be_visible()
    expect(here.page.get_by_role("button", name="Next")).to_be_disabled()
