"""Bringing an index in step with its folders: what is decoded, what keeps its id, what is reported."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deephash.image_batches
import deephash.sync
from deephash import CollectionError, ImageSearch, Progress, index_images
from deephash.annotations import folder_labels, read_annotations
from deephash.sync import SyncInterrupted
from index import Store
from tests.deephash.photos import codes, ids, python, records, set_mtime, write_photo, write_photos
from tests.deephash.pictures import without_root


@pytest.fixture
def index(tmp_path):
    return tmp_path / "photos.dhx"


@pytest.fixture
def run(photos, index, tiny_file):
    """Syncs the folder of photographs; other roots and options as given."""

    def run(*roots, **options):
        options.setdefault("model", None if index.exists() else tiny_file)
        return index_images(roots or photos, index, **options)

    return run


@pytest.fixture
def decoded(monkeypatch):
    """The paths that were decoded since the list was last cleared."""
    seen = []
    real = deephash.image_batches.decode_file

    def decode_file(file, *args, **options):
        seen.append(file.path)
        return real(file, *args, **options)

    monkeypatch.setattr(deephash.image_batches, "decode_file", decode_file)
    return seen


@pytest.fixture
def public_folder():
    """A folder outside of pytest's own, which is the present user's alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o777)
        yield folder


@contextmanager
def as_owner_without_root(folder):
    """Gives everything in the folder to the one who is somebody else than root for a while."""
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            shutil.chown(path, 65534, 65534)
    with without_root():
        yield


def counts(report):
    """The counts of a report that are not zero, but for the total."""
    names = ("added", "updated", "moved", "touched", "copies", "unchanged", "removed", "vanished", "decoded")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def skipped(report):
    return {Path(item.path).name: item.reason for item in report.skipped}


def files_of(folder):
    return sorted(str(path) for path in folder.rglob("*.png"))


# --- First run, second run ---


def test_the_first_run_indexes_everything(photos, index, run, tiny_model):
    report = run()
    assert (report.found, report.n_images, report.skipped, report.fitted_to) == (40, 40, [], 0)
    assert counts(report) == {"added": 40, "decoded": 40}
    found = records(index)
    assert sorted(found) == files_of(photos)
    # In the order of the paths, ids from 1.
    assert [found[path].id for path in files_of(photos)] == list(range(1, 41))
    for path, record in found.items():
        pixels = np.asarray(Image.open(path))[None]
        assert record.code == tiny_model.encode(pixels).tobytes()
        assert (record.width, record.height, record.n_bytes) == (32, 32, Path(path).stat().st_size)
        assert (record.label, dict(record.metadata)) == (None, {})
    with Store.open(index) as store:
        assert store.roots() == [str(photos)]
        assert store.verify() == []


def test_the_second_run_decodes_nothing(run, index, decoded):
    run()
    assert len(decoded) == 40
    decoded.clear()
    before = records(index)
    report = run()
    assert decoded == []
    assert counts(report) == {"unchanged": 40}
    assert records(index) == before


def test_the_second_run_loads_no_torch(photos, index, run):
    run()
    set_mtime(photos / "frog" / next(iter(os.listdir(photos / "frog"))), 1)
    (photos / "notes.txt").write_text("no image")
    done = python(
        "import sys; from deephash import index_images\n"
        "report = index_images(*sys.argv[1:])\n"
        "print(report.touched, report.unchanged, 'torch' in sys.modules, 'timm' in sys.modules)",
        photos,
        index,
    )
    assert done.stdout == "1 39 False False\n", done.stderr


def test_progress_ends_with_all(run, photos):
    seen = []
    run(on_progress=seen.append)
    assert seen[-1] == Progress("encode", 40, 40)
    assert [item.done for item in seen] == sorted(item.done for item in seen)
    write_photos(photos, 40, 45)
    seen.clear()
    run(on_progress=seen.append)
    assert seen[-1] == Progress("encode", 5, 5)


# --- What changed ---


def test_touched_files_are_not_decoded(photos, index, run, decoded):
    run()
    decoded.clear()
    before = records(index)
    path = files_of(photos)[3]
    set_mtime(path, 1_000_000)
    assert counts(run()) == {"touched": 1, "unchanged": 39}
    assert decoded == []
    after = records(index)
    assert after.pop(path).mtime_ns == 10**15
    before.pop(path)
    assert after == before
    assert counts(run()) == {"unchanged": 40}


def test_changed_files_are_encoded_again_under_their_id(photos, index, run, decoded, tiny_model):
    run()
    decoded.clear()
    before = records(index)
    path = files_of(photos)[7]
    write_photo(path, 900)
    set_mtime(path, 5)
    assert counts(run()) == {"updated": 1, "decoded": 1, "unchanged": 39}
    assert decoded == [path]
    after = records(index)
    assert after[path].id == before[path].id
    assert after[path].code == tiny_model.encode(np.asarray(Image.open(path))[None]).tobytes() != before[path].code


def test_a_change_that_keeps_the_size_is_seen_by_its_time(photos, index, run):
    (photos / "a.bmp").parent.mkdir(exist_ok=True)
    path = write_photo(photos / "a.bmp", 50)
    set_mtime(path, 100)
    run()
    before = codes(index)[str(path)]
    write_photo(path, 51)
    set_mtime(path, 101)
    assert counts(run()) == {"updated": 1, "decoded": 1, "unchanged": 40}
    assert codes(index)[str(path)] != before


def test_new_files_are_added(photos, index, run, decoded):
    run()
    decoded.clear()
    new = [str(path) for path in write_photos(photos / "more", 40, 43)]
    assert counts(run()) == {"added": 3, "decoded": 3, "unchanged": 40}
    assert sorted(decoded) == sorted(new)
    assert sorted(ids(index)[path] for path in new) == [41, 42, 43]


def test_moved_files_keep_their_id_and_label(photos, index, run, decoded):
    run(annotate=folder_labels)
    decoded.clear()
    before = records(index)
    paths = files_of(photos)[:5]
    shutil.move(paths[0], photos / "renamed.png")
    (photos / "new").mkdir()
    for path in paths[1:]:
        shutil.move(path, photos / "new")
    assert counts(run()) == {"moved": 5, "unchanged": 35}
    assert decoded == []
    after = records(index)
    moved = [str(photos / "renamed.png"), *(str(photos / "new" / Path(path).name) for path in paths[1:])]
    for old, new in zip(paths, moved, strict=True):
        assert old not in after
        assert (after[new].id, after[new].code, after[new].label) == (
            before[old].id,
            before[old].code,
            before[old].label,
        )
    with Store.open(index) as store:
        assert store.verify() == []


def test_a_moved_folder_keeps_all_its_ids(photos, index, run, decoded, tmp_path):
    run()
    before = ids(index)
    photos.rename(tmp_path / "elsewhere")
    decoded.clear()
    report = run(tmp_path / "elsewhere")
    assert counts(report) == {"moved": 40}
    assert decoded == []
    assert ids(index) == {path.replace(str(photos), str(tmp_path / "elsewhere")): id for path, id in before.items()}


def test_a_file_that_moved_and_was_copied(photos, index, run, decoded):
    run()
    decoded.clear()
    path = files_of(photos)[0]
    id, code = ids(index)[path], codes(index)[path]
    shutil.copy(path, photos / "b.png")
    shutil.copy(path, photos / "c.png")
    Path(path).unlink()
    assert counts(run()) == {"moved": 1, "copies": 1, "unchanged": 39}
    assert decoded == []
    after = records(index)
    # The first in order takes the id.
    assert (after[str(photos / "b.png")].id, after[str(photos / "c.png")].id) == (id, 41)
    assert after[str(photos / "b.png")].code == after[str(photos / "c.png")].code == code


def test_two_copies_that_both_moved_keep_both_ids(photos, index, run, decoded):
    paths = [photos / "one.png", photos / "two.png"]
    for path in paths:
        write_photo(path, 77)
    run()
    before = {ids(index)[str(path)] for path in paths}
    decoded.clear()
    (photos / "moved").mkdir()
    for path in paths:
        shutil.move(path, photos / "moved")
    assert counts(run()) == {"moved": 2, "unchanged": 40}
    assert decoded == []
    assert {ids(index)[str(photos / "moved" / path.name)] for path in paths} == before


def test_copies_share_the_code_without_being_decoded(photos, index, run, decoded):
    run()
    decoded.clear()
    path = files_of(photos)[0]
    shutil.copy(path, photos / "copy.png")
    assert counts(run(annotate=folder_labels)) == {"copies": 1, "unchanged": 40}
    assert decoded == []
    after = records(index)
    copy, original = after[str(photos / "copy.png")], after[path]
    assert (copy.code, copy.content_hash, copy.width) == (original.code, original.content_hash, original.width)
    assert copy.id == 41
    # The copy has its own label.
    assert copy.label == "photos"


def test_copies_in_later_chunks_are_not_decoded(photos, index, run, decoded, monkeypatch):
    monkeypatch.setattr(deephash.sync, "_CHUNK", 10)
    write_photos(photos, 40, 140)
    # The first and the last in order, far enough apart for the first ones to be stored in between.
    copied = files_of(photos / "airplane")
    shutil.copytree(photos / "airplane", photos / "zebra")
    assert counts(run()) == {"added": 140, "copies": len(copied), "decoded": 140}
    assert len(decoded) == 140
    found = codes(index)
    assert [found[path.replace("airplane", "zebra")] for path in copied] == [found[path] for path in copied]


@pytest.mark.parametrize("chunk", [1, 1024])
def test_swapped_files_swap_their_codes(photos, index, run, decoded, monkeypatch, chunk):
    run()
    monkeypatch.setattr(deephash.sync, "_CHUNK", chunk)
    decoded.clear()
    before = records(index)
    a, b = files_of(photos)[:2]
    shutil.move(a, photos / "aside")
    shutil.move(b, a)
    shutil.move(photos / "aside", b)
    # Their sizes differ; where they do not, their times must.
    set_mtime(a, 1)
    set_mtime(b, 2)
    run()
    after = records(index)
    assert (after[a].code, after[b].code) == (before[b].code, before[a].code)
    assert (after[a].content_hash, after[b].content_hash) == (before[b].content_hash, before[a].content_hash)
    assert (after[a].id, after[b].id) == (before[a].id, before[b].id)
    assert len(decoded) <= (1 if chunk == 1 else 0)


def test_a_rename_chain_ends_with_the_right_codes(photos, index, run):
    run()
    before = codes(index)
    a, b, c = files_of(photos)[:3]
    new = str(photos / "new.png")
    for old, name in ((c, new), (b, c), (a, b)):
        shutil.move(old, name)
    run(prune=True)
    after = codes(index)
    assert a not in after
    assert (after[b], after[c], after[new]) == (before[a], before[b], before[c])


# --- What vanished ---


def test_vanished_files_are_counted_and_stay(photos, index, run):
    run()
    for path in files_of(photos)[:4]:
        Path(path).unlink()
    assert counts(run()) == {"vanished": 4, "unchanged": 36}
    assert len(records(index)) == 40


def test_prune_removes_what_is_gone_and_nothing_else(photos, index, run, tmp_path, tiny_file):
    write_photos(tmp_path / "others", 100, 105)
    run(photos, tmp_path / "others")
    before = ids(index)
    gone = files_of(photos)[:4]
    for path in [*gone, files_of(tmp_path / "others")[0]]:
        Path(path).unlink()
    report = run(prune=True)
    # The other folder was not asked about.
    assert counts(report) == {"removed": 4, "unchanged": 36}
    assert report.n_images == 41
    assert ids(index) == {path: id for path, id in before.items() if path not in gone}
    # Ids are not used again.
    write_photos(photos, 200, 201)
    run()
    assert max(ids(index).values()) == 46


def test_prune_refuses_an_empty_mount(photos, index, run, tmp_path):
    write_photos(tmp_path / "others", 100, 105)
    run(photos, tmp_path / "others")
    before = records(index)
    shutil.move(photos, tmp_path / "unmounted")
    photos.mkdir()
    with pytest.raises(CollectionError, match="no images were found under"):
        run(prune=True)
    Path(files_of(tmp_path / "others")[0]).unlink()
    write_photo(tmp_path / "others" / "new.png", 300)
    with pytest.raises(CollectionError, match=r"nothing was pruned: all 40 images indexed under .*photos are gone"):
        run(tmp_path / "others", photos, prune=True, annotate=folder_labels)
    # Nothing was removed from the other folder either; what is new and the labels are in.
    after = records(index)
    assert set(before) < set(after)
    assert after[str(tmp_path / "others" / "new.png")].label == "others"
    assert all(after[path].label for path in files_of(tmp_path / "others"))


def test_a_root_inside_another_counts_once(photos, index, run):
    inner = photos / "bird"
    report = run(photos, inner)
    assert (report.found, report.n_images) == (40, 40)
    Path(files_of(inner)[0]).unlink()
    Path(files_of(photos / "cat")[0]).unlink()
    assert counts(run(photos, inner)) == {"vanished": 2, "unchanged": 38}
    assert counts(run(inner, photos, prune=True)) == {"removed": 2, "unchanged": 38}


def test_folders_that_cannot_be_entered_are_not_taken_for_empty(public_folder, tiny_file):
    photos, index = public_folder / "photos", public_folder / "photos.dhx"
    write_photos(photos, 0, 20)
    index_images(photos, index, model=tiny_file)
    before = ids(index)
    locked = photos / "bird"
    inside = [path for path in before if path.startswith(f"{locked}/")]
    shutil.copytree(locked, photos / "copies")
    with as_owner_without_root(public_folder):
        locked.chmod(0)
        try:
            report = index_images(photos, index, prune=True)
            # Neither pruned, nor counted as vanished, nor taken for the place that their copies moved away from.
            assert counts(report) == {"copies": len(inside), "unchanged": 20 - len(inside)}
            assert skipped(report) == {"bird": "cannot be read: permission denied"}
            assert before.items() <= ids(index).items()
        finally:
            locked.chmod(0o755)
        assert counts(index_images(photos, index, prune=True)) == {"unchanged": 20 + len(inside)}


# --- What cannot be read ---


def test_skipped_files_are_reported_every_time_and_not_decoded_again(photos, run, decoded):
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("this is no picture")
    (photos / "broken.png").symlink_to(photos / "nowhere.png")
    reasons = {
        "empty.jpg": "is empty",
        "text.jpg": "is not an image, or of a kind that is not read",
        "broken.png": "is a broken symbolic link",
    }

    def check(report):
        assert report.n_images == 40
        assert {name: reason.partition(" (")[0] for name, reason in skipped(report).items()} == reasons
        assert [item.path for item in report.skipped] == sorted(item.path for item in report.skipped)

    report = run()
    check(report)
    assert counts(report) == {"added": 40, "decoded": 40}
    decoded.clear()
    for _ in range(2):
        report = run()
        check(report)
        assert counts(report) == {"unchanged": 40}
    assert decoded == []
    # Touched, and still bad: looked at once more.
    set_mtime(photos / "text.jpg", 7)
    check(run())
    assert decoded == [str(photos / "text.jpg")]
    decoded.clear()
    check(run())
    assert decoded == []


def test_a_mended_file_is_indexed(photos, index, run):
    path = photos / "half.png"
    whole = write_photo(path, 60).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert skipped(run()) == {"half.png": "is truncated"}
    path.write_bytes(whole)
    report = run()
    assert report.skipped == []
    assert counts(report) == {"added": 1, "decoded": 1, "unchanged": 40}
    assert counts(run()) == {"unchanged": 41}


def test_a_skipped_file_that_is_gone_is_forgotten(photos, index, run):
    (photos / "empty.jpg").touch()
    assert skipped(run()) == {"empty.jpg": "is empty"}
    (photos / "empty.jpg").unlink()
    assert run().skipped == []
    with Store.open(index) as store:
        assert store.skipped() == []


def test_an_indexed_file_that_breaks_stays_and_is_reported_until_it_is_restored(photos, index, run, decoded):
    run()
    path = files_of(photos)[0]
    before, good, status = records(index), Path(path).read_bytes(), os.stat(path)
    Path(path).write_bytes(good[:100])
    for _ in range(2):
        report = run()
        assert counts(report) == {"unchanged": 39}
        assert skipped(report) == {Path(path).name: "is truncated"}
        assert records(index) == before
    # From a backup: as it was, time included.
    Path(path).write_bytes(good)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    decoded.clear()
    report = run()
    assert (counts(report), report.skipped, decoded) == ({"unchanged": 40}, [], [])


def test_a_file_without_permission_is_tried_again_without_a_model(public_folder, tiny_file, tiny_model, monkeypatch):
    photos, index = public_folder / "photos", public_folder / "photos.dhx"
    write_photos(photos, 0, 9)
    index_images(photos, index, model=tiny_file)
    secret = write_photo(photos / "secret.png", 9)
    with as_owner_without_root(public_folder):
        secret.chmod(0)
        # Somebody else may not be able to read the package.
        monkeypatch.setattr(ImageSearch, "model", tiny_model)
        for _ in range(3):
            report = index_images(photos, index)
            assert skipped(report) == {"secret.png": "cannot be read: permission denied"}
            assert counts(report) == {"unchanged": 9}
            # The first time, the decoder finds the reason.
            monkeypatch.setattr(ImageSearch, "model", property(lambda self: pytest.fail("not needed")))
        monkeypatch.setattr(ImageSearch, "model", tiny_model)
        # Neither size nor time change.
        secret.chmod(0o644)
        report = index_images(photos, index)
        assert (counts(report), report.skipped) == ({"added": 1, "decoded": 1, "unchanged": 9}, [])


def test_a_heic_photo_is_tried_again_when_it_can_be_read(photos, index, run):
    run()
    path = photos / "phone.jpg"
    write_photo(photos / "phone.png", 70).rename(path)
    status = os.stat(path)
    with Store.open(index, writable=True) as store:
        # What an installation without pillow-heif has noted.
        file = deephash.sync.FileStat(str(path), status.st_size, status.st_mtime_ns)
        store.remember_skipped([(file, "is a HEIC photo: pip install 'deephash[heic]' to read it")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deephash.sync, "IMAGE_SUFFIXES", frozenset({".jpg"}))
        assert list(skipped(run())) == ["phone.jpg"]
        patch.setattr(deephash.sync, "IMAGE_SUFFIXES", frozenset({".jpg", ".heic"}))
        report = run()
    assert (counts(report), report.skipped) == ({"added": 1, "decoded": 1, "unchanged": 40}, [])


def test_whole_batches_of_bad_files_do_not_end_the_run(photos, index, run):
    for number in range(300):
        (photos / f"0-{number:03}.jpg").write_bytes(b"x" * (number % 7))
    report = run()
    assert (report.n_images, len(report.skipped)) == (40, 300)
    assert counts(run()) == {"unchanged": 40}


# --- Labels and metadata ---


def test_folder_labels(photos, index, run):
    run()
    report = run(annotate=folder_labels)
    assert counts(report) == {"unchanged": 40}
    for path, record in records(index).items():
        assert record.label == Path(path).parent.name
    # Without: labels stay, also on a file that changes.
    path = files_of(photos)[0]
    write_photo(path, 500)
    set_mtime(path, 1)
    run()
    assert records(index)[path].label == Path(path).parent.name


def test_one_transaction_sets_a_label_for_many(photos, index, run, monkeypatch):
    run()
    calls = []
    real = Store.annotate
    monkeypatch.setattr(Store, "annotate", lambda self, ids, **v: calls.append(list(ids)) or real(self, ids, **v))
    run(annotate=folder_labels)
    assert sum(map(len, calls)) == 40
    assert len(calls) == len({Path(path).parent for path in files_of(photos)})
    calls.clear()
    run(annotate=folder_labels)
    assert calls == []


def test_labels_and_metadata_from_a_csv_file(photos, index, run):
    a, b, c = files_of(photos)[:3]
    table = photos / "labels.csv"
    table.write_text(
        "path,label,year,place\n"
        f"{os.path.relpath(a, photos)},first,2024,Zürich\n"
        f'{b},,,"Bern, Switzerland"\n'
        "nowhere.png,lost,1,2\n",
        encoding="utf-8",
    )
    run(annotate=read_annotations(table))
    found = records(index)
    assert (found[a].label, dict(found[a].metadata)) == ("first", {"year": 2024, "place": "Zürich"})
    assert (found[b].label, dict(found[b].metadata)) == (None, {"place": "Bern, Switzerland"})
    assert (found[c].label, dict(found[c].metadata)) == (None, {})
    # JSON lines, on top: images that are not named stay as they are.
    lines = photos / "labels.jsonl"
    lines.write_text(json.dumps({"path": b, "label": "second", "year": 2025, "ok": True, "x": None}) + "\n\n")
    run(annotate=read_annotations(lines))
    found = records(index)
    assert (found[b].label, dict(found[b].metadata)) == ("second", {"year": 2025, "ok": True, "x": None})
    assert (found[a].label, dict(found[a].metadata)) == ("first", {"year": 2024, "place": "Zürich"})


# --- Roots ---


def test_several_roots_and_roots_that_are_files(photos, index, run, tmp_path, decoded):
    write_photos(tmp_path / "others", 100, 103)
    single = write_photo(tmp_path / "single.png", 110)
    inside = files_of(photos)[0]
    report = run(photos, tmp_path / "others", single, inside)
    assert counts(report) == {"added": 44, "decoded": 44}
    decoded.clear()
    assert counts(run(single, photos, prune=True)) == {"unchanged": 41}
    assert counts(run(single)) == {"unchanged": 1}
    assert decoded == []
    with Store.open(index) as store:
        assert store.roots() == sorted(map(str, [photos, tmp_path / "others", single, inside]))


def test_links_and_loops_are_walked_once(photos, index, run, tmp_path):
    (photos / "loop").symlink_to(photos)
    (photos / "a-link").symlink_to(photos / "frog")
    write_photos(tmp_path / "outside", 100, 103)
    (photos / "b-link").symlink_to(tmp_path / "outside")
    report = run()
    assert (report.n_images, report.skipped) == (43, [])
    assert counts(run()) == {"unchanged": 43}


def test_names_that_are_not_utf8(photos, index, run):
    odd = os.fsencode(photos) + b"/gr\xfcn.png"
    shutil.move(files_of(photos)[0], odd)
    report = run(annotate=folder_labels)
    assert counts(report) == {"added": 40, "decoded": 40}
    assert os.fsdecode(odd) in records(index)
    assert counts(run()) == {"unchanged": 40}


# --- Interruption ---


def test_ctrl_c_keeps_what_was_committed_and_the_next_run_goes_on(photos, index, run, decoded):
    write_photos(photos, 40, 140)

    def interrupt(progress):
        if progress.done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(SyncInterrupted, match="the index holds 64 images; the same call goes on from there") as caught:
        run(on_progress=interrupt)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert (caught.value.report.added, caught.value.report.n_images) == (64, 64)
    kept = ids(index)
    assert len(kept) == 64
    decoded.clear()
    assert counts(run()) == {"added": 76, "decoded": 76, "unchanged": 64}
    assert not set(decoded) & set(kept)
    assert kept.items() <= ids(index).items()


def test_ctrl_c_before_anything_is_indexed(photos, index, run, monkeypatch, tiny_file):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for target in ("_find", "_create", "_check_same_model"):
        with monkeypatch.context() as patch:
            patch.setattr(deephash.indexing, target, interrupt)
            with pytest.raises(SyncInterrupted, match="interrupted: nothing was changed; the same call goes on"):
                run(model=tiny_file)
    assert counts(run(model=tiny_file)) == {"added": 40, "decoded": 40}
