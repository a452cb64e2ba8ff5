"""Indexing from the page: progress, uploads, folders, cancelling."""

import shutil

from playwright.sync_api import expect

from tests.deephash.photos import write_photos
from tests.deephash.server.servers import start


def test_a_sync_shows_its_progress_and_what_came_of_it(visit, changing):
    here = visit(changing, "?page=index")
    facts = here.page.locator(".index-facts dd")
    expect(facts.first).to_have_text(str(changing.client.stats().n_images))
    n_images = changing.client.stats().n_images + 188
    write_photos(changing.folder / "photos", 12, 200)
    (changing.folder / "photos" / "broken.png").write_bytes(b"not an image")
    here.page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const bar = document.querySelector('.job progress');
                if (bar && !bar.hidden && bar.hasAttribute('value')) window.seen.push([bar.value, bar.max]);
            }).observe(document.querySelector('.jobs'), {childList: true, subtree: true, attributes: true});
        }"""
    )
    here.page.get_by_role("button", name="Sync now").click()
    expect(here.page.locator(".job strong").first).to_have_text("Done", timeout=60_000)
    seen = here.page.evaluate("() => window.seen")
    assert seen == sorted(seen)
    assert any(0 < done <= total for done, total in seen)
    assert any(url.endswith("/events") for url in here.requests)
    expect(here.page.locator(".job").first).to_contain_text("188 added")
    here.page.get_by_text("1 file skipped").click()
    expect(here.page.locator(".job details")).to_contain_text("broken.png")
    expect(facts.first).to_have_text(str(n_images))
    expect(here.page.locator("#working")).to_be_hidden()
    here.shot("index-done")
    # The list knows of them without a reload.
    here.page.get_by_role("link", name="Search").click()
    expect(here.page.locator("#summary")).to_have_text(f"{n_images} images")


def test_a_job_is_cancelled_and_what_was_done_stays(visit, changing):
    write_photos(changing.folder / "photos", 200, 1_100)
    before = changing.client.stats().n_images
    here = visit(changing, "?page=index")
    here.page.get_by_role("button", name="Sync now").click()
    here.page.get_by_role("button", name="Cancel").click()
    expect(here.page.locator(".job strong").first).to_have_text("Cancelled", timeout=60_000)
    n_images = changing.client.stats().n_images
    assert before <= n_images < before + 900
    shutil.rmtree(changing.folder / "photos")
    write_photos(changing.folder / "photos", 0, 12)
    expect(here.page.locator(".index-facts dd").first).to_have_text(str(n_images))
    expect(here.page.get_by_role("button", name="Sync now")).to_be_enabled()


def test_a_folder_is_added_and_one_elsewhere_refused(visit, changing, tmp_path_factory):
    write_photos(changing.folder / "more", 1_150, 1_153)
    here = visit(changing, "?page=index")
    here.page.get_by_label("Folder on the server").fill(str(tmp_path_factory.mktemp("elsewhere")))
    here.page.get_by_role("button", name="Add folder").click()
    expect(here.page.get_by_role("alert")).to_contain_text("start it with --root DIR")
    here.page.get_by_label("Folder on the server").fill(str(changing.folder / "more"))
    here.page.get_by_role("button", name="Add folder").click()
    expect(here.page.locator(".job").first).to_contain_text("3 added", timeout=30_000)
    expect(here.page.locator(".index-facts")).to_contain_text(str(changing.folder / "more"))


def test_images_are_uploaded(visit, changing, cat_and_dog):
    before, n_jobs = changing.client.stats().n_images, len(changing.client.jobs())
    here = visit(changing, "?page=index")
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Choose images to add").click()
    chooser.value.set_files(cat_and_dog[0])
    expect(here.page.locator(".job").first).to_contain_text("1 added", timeout=30_000)
    here.drop(".upload-zone", cat_and_dog[1])
    expect(here.page.locator(".job")).to_have_count(n_jobs + 2)
    expect(here.page.locator(".job").first).to_contain_text("1 added", timeout=30_000)
    assert changing.client.stats().n_images == before + 2
    # They were added, not searched by.
    assert "page=index" in here.page.url


def test_changes_need_the_token_and_the_page_asks_for_it(visit, changing):
    here = visit(changing, "?page=index", token=None)
    here.page.get_by_role("button", name="Sync now").click()
    dialog = here.page.get_by_role("dialog")
    expect(dialog).to_contain_text("The server asks for its token")
    dialog.get_by_label("Token").fill("token-of-the-tests")
    dialog.get_by_role("button", name="Use it").click()
    expect(here.page.locator(".job strong").first).to_have_text("Done", timeout=30_000)
    assert "token" not in here.page.url


def test_a_server_that_others_can_reach_is_read_with_the_token_only(visit, changing, tmp_path):
    server = start(changing.index, tmp_path, host="0.0.0.0", ready=False)
    server.url = server.url.replace("0.0.0.0", "127.0.0.1")
    n_images = changing.client.stats().n_images
    try:
        here = visit(server)
        expect(here.page.locator("#summary")).to_have_text(f"{n_images} images")
        assert "#" not in here.page.url
        here.page.wait_for_function("() => document.querySelectorAll('img.loaded').length > 10")
        stranger = visit(server, token=None, ready=False)
        expect(stranger.page.get_by_role("dialog")).to_contain_text("asks for its token")
        assert stranger.tiles() == []
    finally:
        server.stop()


def test_a_server_that_is_gone_is_told(visit, made, tmp_path):
    server = start(made.index, tmp_path, ready=False)
    here = visit(server)
    here.page.wait_for_function("n => document.querySelectorAll('img.loaded').length === n", arg=made.n_images)
    server.stop()
    here.tile("0003.png").click()
    expect(here.page.locator("#scroller .message")).to_contain_text("Is deephash serve still running?")
