"""Queries, filters and the way back, in a real browser against a real server."""

import re

import pytest
from playwright.sync_api import expect

from tests.deephash.server.page.visits import matches


def test_choosing_an_image_searches_by_it(visit, server, cat_and_dog):
    here = visit(server, "?k=10")
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Choose images").click()
    chooser.value.set_files(cat_and_dog[0])
    here.shows(matches(server, [cat_and_dog[0]], k=10)[0])
    assert list(here.address()) == ["code", "k"]
    expect(here.page.get_by_role("img", name="Query: your image")).to_be_visible()
    here.shot("search-chosen")


def test_dropping_an_image_searches_by_it(visit, server, cat_and_dog):
    here = visit(server, "?k=10")
    here.drop("#scroller", cat_and_dog[0])
    here.shows(matches(server, [cat_and_dog[0]], k=10)[0])
    # Once there is a query, what is dropped takes its place or joins it.
    here.drop(".drop-target[data-drop=add]", cat_and_dog[1])
    here.shows([match for found in matches(server, cat_and_dog, k=10) for match in found])
    here.drop(".drop-target[data-drop=search]", cat_and_dog[1])
    here.shows(matches(server, [cat_and_dog[1]], k=10)[0])
    assert here.page.locator("#drop-zone").is_hidden()


def test_pasting_an_image_searches_by_it(visit, server, cat_and_dog):
    here = visit(server, "?k=10")
    here.paste(cat_and_dog[1])
    here.shows(matches(server, [cat_and_dog[1]], k=10)[0])


def test_clicking_a_result_searches_by_it(visit, server):
    here = visit(server, "?k=10")
    here.tile("0003.png").click()
    id = int(here.address()["id"][0])
    assert server.client.records([id])[0].path.endswith("0003.png")
    first = matches(server, id=id, k=10)[0]
    here.shows(first)
    here.tile(first[2][0]).click()
    here.page.wait_for_url(lambda url: f"id={id}&" not in url)
    here.shows(matches(server, id=int(here.address()["id"][0]), k=10)[0])


def test_several_query_images_at_once(visit, server, cat_and_dog):
    here = visit(server, "?k=8")
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Choose images").click()
    chooser.value.set_files(cat_and_dog)
    here.shows([match for found in matches(server, cat_and_dog, k=8) for match in found])
    expect(here.page.locator("#summary")).to_have_text("16 images for 2 queries")
    # A result joins by its plus, without a mouse by the key.
    here.tile("0003.png").hover()
    here.page.get_by_role("button", name="Add 0003.png to the query").first.click()
    id = int(here.address()["id"][0])
    expected = matches(server, cat_and_dog, id=id, k=8)
    here.shows([match for found in expected for match in found])
    here.shot("search-three-queries")
    here.page.get_by_label("As one query").check()
    here.shows(matches(server, cat_and_dog, id=id, k=8, combine=True)[0])
    here.page.get_by_role("button", name="Remove your image from the query").first.click()
    here.shows(matches(server, cat_and_dog[1:], id=id, k=8, combine=True)[0])
    here.page.get_by_role("button", name="Clear").click()
    expect(here.page.locator("#summary")).to_have_text("31 images")


def test_distance_slider_and_k(visit, server):
    here = visit(server, "?id=4")
    whole = matches(server, id=4, k=200)[0]
    here.shows(whole)
    radius = whole[7][1]
    slider = here.page.get_by_role("slider", name="Distance")
    assert slider.get_attribute("max") == "64"
    slider.focus()
    here.page.keyboard.press("Home")
    for _ in range(radius):
        here.page.keyboard.press("ArrowRight")
    here.shows([match for match in whole if match[1] <= radius])
    expect(here.page.locator("#distance-text")).to_have_text(f"≤ {radius}")
    assert here.address()["radius"] == [str(radius)]
    here.page.get_by_role("spinbutton", name="At most").fill("3")
    here.shows(whole[:3])
    here.page.get_by_role("spinbutton", name="At most").fill("200")
    slider.focus()
    here.page.keyboard.press("End")
    here.shows(whole)
    assert "radius" not in here.address()


def test_filters_by_path_label_and_metadata(visit, annotated):
    here = visit(annotated)
    listed = annotated.http.get("/v1/images", params={"limit": 100}).json()["images"]

    def shown(condition):
        here.shows([(image["path"], None) for image in listed if condition(image)])

    here.page.get_by_role("textbox", name="Path").fill("*/000?.png")
    shown(lambda image: re.search(r"/000.\.png$", image["path"]))
    here.page.get_by_role("textbox", name="Path").fill("COPY OF")
    expect(here.page.get_by_role("heading", name="Nothing found")).to_be_visible()
    here.page.get_by_role("button", name="Clear the filters").click()
    here.page.get_by_role("textbox", name="Path").fill("copy of")
    shown(lambda image: "copy of" in image["path"])
    here.page.get_by_role("textbox", name="Path").fill("")
    label = listed[0]["label"]
    here.page.get_by_role("combobox", name="Label").fill(label)
    shown(lambda image: image["label"] == label)
    here.page.get_by_role("textbox", name="Metadata").fill("year=2024")
    here.page.keyboard.press("Enter")
    shown(lambda image: image["label"] == label and image["metadata"] == {"year": 2024})
    here.shot("search-filters")
    here.page.get_by_role("combobox", name="Label").fill("")
    shown(lambda image: image["metadata"] == {"year": 2024})
    # Filters hold for searches as well.
    here.tile(listed[4]["path"]).click()
    here.shows(matches(annotated, id=listed[4]["id"], k=200, where="year=2024")[0])
    here.page.get_by_role("button", name="Remove year=2024").click()
    here.shows(matches(annotated, id=listed[4]["id"], k=200)[0])


def test_large_view_with_path_size_distance_and_bits(visit, server):
    here = visit(server, "?id=4&k=12")
    path, distance = matches(server, id=4, k=12)[0][5]
    here.tile(path).hover()
    here.tile(path).locator("xpath=..").get_by_role("button", name=re.compile("^Large view")).click()
    viewer = here.page.get_by_role("dialog")
    expect(viewer.get_by_text(path, exact=True)).to_be_visible()
    expect(viewer.get_by_text("32 × 32 pixels", exact=False)).to_be_visible()
    expect(viewer.locator("p.apart")).to_have_text(f"{distance} of 64 bits differ from the query")
    id = int(here.address()["view"][0])
    query, shown = server.client.records([4, id])
    assert shown.path == path
    apart = int.from_bytes(query.code) ^ int.from_bytes(shown.code)
    expected = [bit for bit in range(64) if apart >> (63 - bit) & 1]
    assert len(expected) == distance
    drawn = viewer.locator(".bit").evaluate_all("bits => bits.map(bit => bit.classList.contains('apart'))")
    assert [place for place, is_apart in enumerate(drawn) if is_apart] == expected
    ones = viewer.locator(".bit").evaluate_all("bits => bits.map(bit => bit.classList.contains('one'))")
    assert ones == [bool(int.from_bytes(shown.code) >> (63 - bit) & 1) for bit in range(64)]
    named = ", ".join(str(bit + 1) for bit in expected)
    expect(viewer.get_by_role("img", name=f"The codes differ in {distance} of 64 bits: {named}")).to_be_visible()
    here.page.wait_for_function("() => document.querySelector('.stage img').naturalWidth > 0")
    here.shot("large-view")
    # On to the next, and from there to a search by it.
    here.page.keyboard.press("ArrowRight")
    beside, _ = matches(server, id=4, k=12)[0][6]
    expect(viewer.get_by_text(beside, exact=True)).to_be_visible()
    viewer.get_by_role("button", name="Search by it").click()
    expect(viewer).to_be_hidden()
    here.shows(matches(server, id=int(here.address()["id"][0]), k=12)[0])


def test_back_leads_back_step_by_step(visit, server):
    here = visit(server, "?k=10")
    everything = here.tiles()
    here.tile("0003.png").click()
    first = matches(server, id=int(here.address()["id"][0]), k=10)[0]
    here.shows(first)
    here.tile(first[1][0]).click()
    here.page.wait_for_url(lambda url: url.count("id=") == 1 and "view" not in url)
    second = matches(server, id=int(here.address()["id"][0]), k=10)[0]
    here.shows(second)
    here.tile(second[0][0]).focus()
    here.page.keyboard.press("Space")
    expect(here.page.get_by_role("dialog")).to_be_visible()
    here.page.go_back()
    expect(here.page.get_by_role("dialog")).to_be_hidden()
    here.shows(second)
    here.page.go_back()
    here.shows(first)
    here.page.go_back()
    here.shows(everything)
    here.page.go_forward()
    here.shows(first)


@pytest.mark.parametrize("what", ["code", "together", "view"])
def test_an_address_can_be_shared(visit, server, cat_and_dog, what):
    """Someone else opens it and sees the same, even of files that only the first one had."""
    here = visit(server, "?k=9&radius=40")
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Choose images").click()
    chooser.value.set_files(cat_and_dog if what == "together" else cat_and_dog[:1])
    here.page.wait_for_url(lambda url: "code=" in url)
    if what == "together":
        here.page.get_by_label("As one query").check()
        here.page.wait_for_url(lambda url: "together=" in url)
    here.settle()
    if what == "view":
        here.tile(here.tiles()[2][0]).focus()
        here.page.keyboard.press("Space")
        expect(here.page.get_by_role("dialog")).to_be_visible()
    there = visit(server, "?" + here.page.url.split("?")[1])
    there.shows(here.tiles())
    assert len(there.tiles()) > 2
    if what == "view":
        expect(there.page.locator("p.apart")).to_have_text(here.page.locator("p.apart").inner_text())
        there.page.keyboard.press("Escape")
        expect(there.page.get_by_role("dialog")).to_be_hidden()
        # The browser goes back when it gets to it.
        there.page.wait_for_url(lambda url: "view=" not in url)


def test_what_the_server_refuses_is_said_in_its_words(visit, server, tmp_path):
    bad = tmp_path / "not an image.png"
    bad.write_bytes(b"no picture at all")
    here = visit(server)
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Choose images").click()
    chooser.value.set_files(bad)
    answer = server.http.post("/v1/encode", files=[("image", bad.read_bytes())]).json()["error"]["message"]
    expect(here.page.get_by_role("alert")).to_contain_text(f"not an image.png: {answer[0].upper()}{answer[1:]}")
    expect(here.page.locator("#summary")).to_have_text("31 images")

    gone = visit(server, "?id=999")
    message = server.http.get("/v1/search", params={"id": 999}).json()["error"]["message"]
    expect(gone.page.locator("#scroller .message")).to_contain_text(message[1:])
    expect(gone.page.get_by_role("button", name="Try again")).to_be_visible()
    lost = visit(server, "?view=999")
    expect(lost.page.get_by_role("dialog")).to_contain_text(message[1:])
    gone.shot("search-refused")
