"""The endless grid over 100,000 images."""

import json
import re

from tests.deephash.server.page.conftest import N_MANY

_NUMBERS = "async () => ({...(await import('/page/thumbnails.js')).numbers})"
_WATCH = """() => {
    window.made = 0;
    new MutationObserver(records => records.forEach(record => record.addedNodes.forEach(node => {
        if (node.nodeType === 1 && (node.matches('.tile') || node.querySelector('.tile')) && !node.seen) {
            node.seen = true;
            window.made += 1;
        }
    }))).observe(document.querySelector('.layer'), {childList: true, subtree: true});
    document.querySelectorAll('.line, .tile').forEach(node => { node.seen = true; });
    window.frames_ms = [];
    let last = performance.now();
    const tick = now => { window.frames_ms.push(now - last); last = now; requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
}"""


def _settled(here):
    """Waits until every tile in sight has its thumbnail."""
    here.page.wait_for_function(
        """() => {
            const box = document.querySelector('#scroller').getBoundingClientRect();
            const tiles = [...document.querySelectorAll('.tile')].filter(tile => {
                const own = tile.getBoundingClientRect();
                return own.height && own.bottom > box.top && own.top < box.bottom;
            });
            return tiles.length && tiles.every(tile => tile.querySelector('img.loaded'));
        }"""
    )


def test_it_scrolls_through_100_000_images_with_few_tiles_that_are_used_again(visit, many):
    here = visit(many)
    here.page.wait_for_function("() => document.querySelector('#summary').textContent === '100,000 images'")
    _settled(here)
    here.shot("grid-top")
    here.page.mouse.move(700, 500)
    for _ in range(4):  # as many lines as are ever needed
        here.page.mouse.wheel(0, 500)
        here.page.wait_for_timeout(30)
    here.page.evaluate(_WATCH)
    most = 0
    for distance in (400, 900, 2_000, 9_000, 60_000, 400_000, -300, -5_000, 100_000) * 2:
        here.page.mouse.wheel(0, distance)
        here.page.wait_for_timeout(20)
        most = max(most, here.page.locator(".tile").count())
    height = here.page.evaluate("() => document.querySelector('#scroller').scrollHeight")
    columns = int(here.page.locator(".grid").get_attribute("aria-colcount"))
    assert height > N_MANY / columns * 150  # every image has its place
    assert most <= 16 * columns
    assert here.page.evaluate("() => window.made") <= 3 * columns, "tiles are made while scrolling, not used again"
    frames = here.page.evaluate("() => window.frames_ms")
    (here.artefacts / "grid-frames.json").write_text(json.dumps({"frames_ms": frames}))
    here.page.evaluate("() => { document.querySelector('#scroller').scrollTop = 1e9; }")
    last = many.http.get("/v1/images", params={"offset": N_MANY - 1, "limit": 1}).json()["images"][0]["path"]
    here.page.wait_for_function(
        "path => [...document.querySelectorAll('.picture')].some(one => one.title === path)", arg=last
    )
    assert here.tiles()[-1] == (last, None)
    _settled(here)
    here.shot("grid-end")


def test_thumbnails_are_loaded_lazily_and_given_up_when_scrolled_past(visit, many):
    here = visit(many)
    _settled(here)
    first = here.page.evaluate(_NUMBERS)["started"]
    assert first < 150
    before = len([url for url in here.requests if "/thumbnail" in url])
    here.page.mouse.move(700, 500)
    given_up = []
    here.page.on("requestfailed", lambda request: given_up.append(request.failure))
    for _ in range(12):  # each step is out of sight of the last before its thumbnails can come
        here.page.mouse.wheel(0, 3_000)
        here.page.wait_for_timeout(120)
    _settled(here)
    numbers = here.page.evaluate(_NUMBERS)
    assert numbers["cancelled"] > 0
    asked = len([url for url in here.requests if "/thumbnail" in url]) - before
    passed = 12 * 3_000 / 170 * int(here.page.locator(".grid").get_attribute("aria-colcount"))
    assert asked < passed / 2, "what was scrolled past was loaded all the same"
    # A throw of the scrollbar through all of them asks for next to nothing.
    before = len([url for url in here.requests if "/thumbnail" in url or "/v1/images?" in url])
    here.page.evaluate(
        """async () => {
            const scroller = document.querySelector('#scroller');
            for (let step = 1; step <= 60; step++) {
                scroller.scrollTop = scroller.scrollHeight * step / 60;
                await new Promise(requestAnimationFrame);
            }
        }"""
    )
    _settled(here)
    assert len([url for url in here.requests if "/thumbnail" in url or "/v1/images?" in url]) - before < 400


def test_back_finds_the_place_where_the_list_was_left(visit, many):
    here = visit(many)
    here.page.mouse.move(700, 500)
    here.page.mouse.wheel(0, 700_000)
    here.page.wait_for_function("() => history.state?.scroll > 600000")
    _settled(here)
    before, top = here.tiles(), here.page.evaluate("() => document.querySelector('#scroller').scrollTop")
    path = here.page.evaluate(
        "() => document.elementFromPoint(700, 500).closest('.tile').querySelector('.picture').title"
    )
    here.page.mouse.click(700, 500)
    here.page.wait_for_url(re.compile(r"id=\d+"))
    assert many.client.records([int(here.address()["id"][0])])[0].path == path
    here.settle()
    here.page.go_back()
    here.page.wait_for_function("top => document.querySelector('#scroller').scrollTop === top", arg=top)
    here.shows(before)


def test_the_keyboard_walks_from_end_to_end(visit, many):
    here = visit(many)
    columns = int(here.page.locator(".grid").get_attribute("aria-colcount"))
    here.page.keyboard.press("Tab")
    here.page.keyboard.press("Enter")  # skips to the images
    listed = many.http.get("/v1/images", params={"limit": 1000}).json()["images"]

    def at(index):
        here.page.wait_for_function("path => document.activeElement.title === path", arg=listed[index]["path"])

    at(0)
    for key, index in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("End", 2 * columns - 1),
        ("ArrowRight", 2 * columns),
    ):
        here.page.keyboard.press(key)
        at(index)
    for _ in range(40):
        here.page.keyboard.press("ArrowDown")
    at(42 * columns)
    here.page.keyboard.press("ArrowLeft")
    at(42 * columns - 1)
    cell = here.page.locator(":focus").locator("xpath=..")
    assert cell.get_attribute("aria-colindex") == str(columns)
    assert cell.locator("xpath=..").get_attribute("aria-rowindex") == "42"
    assert here.page.locator(".grid").get_attribute("aria-rowcount") == str(-(-N_MANY // columns))
    tabbable = here.page.locator(".picture[tabindex='0']")
    assert tabbable.count() == 1
