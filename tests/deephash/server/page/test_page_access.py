"""The page for everybody: dark and light, keyboard alone, screen readers, phones; and nothing from elsewhere."""

import re
from importlib.resources import files

import httpx
import pytest
from playwright.sync_api import expect

from index import Store
from tests.deephash.server.page.visits import PHONE, matches
from tests.deephash.server.servers import running

VIEWS = {
    "search": "?id=4&k=12",
    "two-queries": "?id=4&id=5&k=6&where=year%3D2024",
    "large-view": "?id=4&view=6&k=12",
    "identical": "?page=duplicates",
    "near": "?page=duplicates&kind=near&near=14",
    "index": "?page=index",
    "nothing": "?path=no+such+place",
    "refused": "?id=999",
}
# Of WCAG 2.2, levels A and AA, and what axe calls best practices.
_AXE = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map(
    ({id, help, nodes}) => [id, help, nodes.map(node => node.html.slice(0, 160) + ' ' + node.failureSummary)])"""


def _calm(here):
    """Waits until the view has what it shows."""
    here.page.wait_for_function(
        """() => {
            const inSight = [...document.querySelectorAll('main .view:not([hidden]) img, dialog[open] img')].filter(
                img => { const box = img.getBoundingClientRect(); return box.height && box.top < innerHeight; });
            return inSight.every(img => img.complete && img.src);
        }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", VIEWS)
def test_axe_finds_nothing_to_object_to(visit, annotated, name, scheme):
    here = visit(annotated, VIEWS[name], color_scheme=scheme, reduced_motion="reduce")
    _calm(here)
    here.shot(f"{name}-{scheme}")
    here.page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    assert here.page.evaluate(_AXE) == []


def test_dark_and_light_follow_the_system_or_the_switch(visit, server):
    here = visit(server, color_scheme="light")

    def is_dark(wanted):
        here.page.wait_for_function(
            "dark => (parseInt(getComputedStyle(document.body).backgroundColor.slice(4)) < 50) === dark", arg=wanted
        )

    switch = here.page.get_by_role("switch", name="Dark theme")
    is_dark(False)
    expect(switch).not_to_be_checked()
    here.page.emulate_media(color_scheme="dark")
    is_dark(True)
    expect(switch).to_be_checked()
    switch.click()
    is_dark(False)
    here.page.reload()
    here.settle()
    is_dark(False)
    expect(switch).not_to_be_checked()
    switch.click()  # as the system again
    is_dark(True)
    here.page.emulate_media(color_scheme="light")
    is_dark(False)


def test_a_search_from_start_to_end_without_a_mouse(visit, server):
    here = visit(server, "?k=10")
    press = here.page.keyboard.press
    press("Tab")
    expect(here.page.get_by_role("link", name="Skip to the images")).to_be_focused()
    press("Enter")
    for key in ("ArrowRight", "ArrowRight"):
        press(key)
    path = here.page.evaluate("() => document.activeElement.title")
    outline = here.page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    press("Space")
    dialog = here.page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    press("Escape")
    expect(dialog).to_be_hidden()
    here.page.wait_for_function("path => document.activeElement.title === path", arg=path)
    press("Enter")
    here.page.wait_for_url(re.compile(r"id=\d+"))
    id = int(here.address()["id"][0])
    assert server.client.records([id])[0].path == path
    found = matches(server, id=id, k=10)[0]
    here.shows(found)
    press("Tab")  # from the list that is new into its first tile
    here.page.wait_for_function("path => document.activeElement.title === path", arg=found[0][0])
    press("+")
    here.page.wait_for_url(lambda url: url.count("id=") == 2)
    press("/")
    expect(here.page.get_by_role("textbox", name="Path")).to_be_focused()


def test_what_a_screen_reader_is_told(visit, server):
    here = visit(server, "?id=4&k=3")
    (path, distance), *_ = matches(server, id=4, k=3)[0]
    expect(here.page.locator("body")).to_match_aria_snapshot(
        f"""
        - banner:
          - link "deephash"
          - navigation "Views":
            - link "Search"
            - link "Duplicates"
            - link "Index"
          - switch "Dark theme"
        - search "Images":
          - list "Query images":
            - listitem:
              - 'img "Query: image 4"'
              - button "Remove image 4 from the query"
          - button "Add images"
          - button "Clear"
          - slider "Distance"
          - spinbutton "At most"
          - textbox "Path"
          - combobox "Label"
          - textbox "Metadata"
        - main:
          - region "Images":
            - status: /3 images, distance {distance} to \\d+/
            - grid "Images":
              - row:
                - gridcell:
                  - button /{path.rsplit("/", 1)[1]}, \\w+, distance {distance}/
        """
    )
    assert here.page.locator("html").get_attribute("lang") == "en"
    assert here.page.get_by_role("slider", name="Distance").get_attribute("aria-valuetext") == "any distance"
    # Lines are in the page in the order in which they are read, also after scrolling.
    here = visit(server, size=(700, 500))
    here.page.mouse.move(300, 400)
    for distance in (700, -300, 900):
        here.page.mouse.wheel(0, distance)
        here.page.wait_for_timeout(150)
    here.page.wait_for_function(
        """() => {
            const numbers = [...document.querySelectorAll('.line')].filter(line => !line.hidden)
                .map(line => Number(line.getAttribute('aria-rowindex')));
            return numbers.length > 2 && numbers.every((number, place) => !place || numbers[place - 1] < number);
        }"""
    )


def test_motion_is_left_out_where_it_is_not_wanted(visit, server):
    script = "() => getComputedStyle(document.querySelector('.picture img')).transitionDuration"
    assert visit(server, reduced_motion="reduce").page.evaluate(script) == "0s"
    assert visit(server, reduced_motion="no-preference").page.evaluate(script) != "0s"


@pytest.mark.parametrize("name", VIEWS)
def test_on_a_phone_everything_is_in_reach(visit, annotated, name):
    here = visit(annotated, VIEWS[name], size=PHONE)
    _calm(here)
    here.shot(f"{name}-phone")
    assert here.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    beside = here.page.evaluate(
        """() => [...document.querySelectorAll('button, a, input, summary')].filter(one => one.checkVisibility())
            .map(one => [one.getBoundingClientRect(), one])
            .filter(([box, one]) => box.width > 1 && !one.closest('.skip') && !one.closest('.queries')
                && (box.left < -1 || box.right > innerWidth + 1 || (box.width < 24 || box.height < 24)
                    && !one.matches('[type=checkbox]')))
            .map(([box, one]) => `${one.outerHTML.slice(0, 120)} ${JSON.stringify(box)}`)"""
    )
    assert beside == []


def test_on_a_phone_fingers_search_filter_and_look(visit, annotated):
    here = visit(annotated, size=PHONE)
    here.tile("0003.png").tap()
    here.page.wait_for_url(re.compile(r"id=\d+"))
    id = int(here.address()["id"][0])
    here.settle()
    assert here.tiles()[0] == matches(annotated, id=id, k=200)[0][0]
    conditions = here.page.locator("#conditions")
    expect(conditions).to_be_hidden()
    here.page.get_by_role("button", name="Filters").tap()
    here.page.get_by_role("textbox", name="Metadata").fill("year=2024")
    here.page.keyboard.press("Enter")
    here.page.wait_for_url(re.compile("where"))
    here.shot("filters-phone")
    here.page.get_by_role("button", name=re.compile("Filters")).tap()
    expect(conditions).to_be_hidden()
    expected = matches(annotated, id=id, k=200, where="year=2024")[0]
    here.shows(expected)
    here.page.get_by_role("button", name=re.compile("Large view")).first.tap()
    expect(here.page.get_by_role("dialog").get_by_text(expected[0][0], exact=True)).to_be_visible()
    here.page.get_by_role("button", name="Close").tap()
    here.page.get_by_role("link", name="Duplicates").tap()
    expect(here.page.get_by_role("heading", name="Set 1 of 1")).to_be_visible()


def test_an_empty_index_says_what_to_do(visit, tmp_path, made):
    with Store.open(made.index) as store:
        n_bits, fingerprint = store.n_bits, store.fingerprint
    model = {"model.safetensors": made.index / "model.safetensors"}
    Store.create(tmp_path / "empty.dhx", n_bits=n_bits, fingerprint=fingerprint, files=model).close()
    with running(tmp_path / "empty.dhx", tmp_path, roots=[tmp_path]) as server:
        here = visit(server)
        expect(here.page.get_by_role("heading", name="No images yet")).to_be_visible()
        here.shot("empty")
        here.page.get_by_role("link", name="Add images").click()
        expect(here.page.get_by_role("heading", name="Add a folder")).to_be_visible()


def test_files_of_the_page_have_their_types_and_are_asked_for_once(server):
    with httpx.Client(base_url=server.url) as http:
        kinds = {"/": "text/html", "/page/app.js": "text/javascript", "/page/base.css": "text/css"}
        for path, kind in (kinds | {"/page/icon.svg": "image/svg+xml"}).items():
            first = http.get(path)
            assert first.headers["content-type"].split(";")[0] == kind
            assert first.headers["x-content-type-options"] == "nosniff"
            assert "unsafe" not in first.headers["content-security-policy"]
            again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert "<script>" not in http.get("/").text
        assert " style=" not in http.get("/").text
        assert http.get("/page/../app.py").status_code == 404
        assert http.get("/page/%2e%2e/app.py").status_code == 404
