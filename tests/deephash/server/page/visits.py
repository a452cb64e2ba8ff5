"""A person at the page: a browser's tab on a real server, what it shows, and what must never happen in it."""

import base64
import mimetypes
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import TimeoutError

from tests.deephash.server.servers import TOKEN

_TILES = """() => [...document.querySelectorAll('#scroller .line')].filter(line => !line.hidden)
    .sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex'))
    .flatMap(line => [...line.querySelectorAll('.tile')].filter(tile => !tile.hidden))
    .map(tile => [tile.querySelector('.picture').title, tile.querySelector('.distance').textContent])"""
_TRANSFER = """async files => {
    const transfer = new DataTransfer();
    for (const {name, type, data} of files) {
        const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
        transfer.items.add(new File([bytes], name, {type}));
    }
    return transfer;
}"""
DESKTOP, PHONE = (1440, 900), (390, 844)


class Visit:
    """One tab. ``page`` is playwright's."""

    def __init__(self, context, page, server, artefacts):
        self.context, self.page, self.server, self.artefacts = context, page, server, artefacts
        self.requests, self.failures = [], []
        page.on("pageerror", lambda error: self.failures.append(f"error: {error}"))
        page.on("console", self._note)
        page.on("request", lambda request: self.requests.append(request.url))

    @classmethod
    def open(cls, browser, server, artefacts, path="", *, size=DESKTOP, token=TOKEN, ready=True, **options):
        if size == PHONE:
            options |= {"has_touch": True, "is_mobile": True}
        context = browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True)), **options)
        context.set_default_timeout(30_000)
        self = cls(context, context.new_page(), server, artefacts)
        self.page.goto(server.url + path + (f"#token={token}" if token else ""))
        if ready:
            self.settle()
        return self

    def _note(self, message):
        # What the server refuses is in the console as well; the page has to say it.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.failures.append(message.text)

    def close(self):
        self.context.close()
        assert self.failures == []
        elsewhere = [url for url in self.requests if not url.startswith((self.server.url, "blob:", "data:"))]
        assert elsewhere == []

    def settle(self):
        """Waits until the list is there."""
        self.page.wait_for_function(
            "() => document.querySelector('#search-view').hidden"
            " || document.querySelector('.grid')?.getAttribute('aria-busy') === 'false'"
        )
        return self

    def tiles(self):
        """Returns (path, distance or None) of the tiles in the grid, in reading order."""
        return [(path, int(apart) if apart else None) for path, apart in self.page.evaluate(_TILES)]

    def shows(self, expected):
        """Waits until the grid shows these (path, distance)."""
        expected = list(expected)
        wanted = [[path, "" if apart is None else str(apart)] for path, apart in expected]
        try:
            self.page.wait_for_function(
                f"wanted => JSON.stringify(({_TILES})()) === JSON.stringify(wanted)", arg=wanted
            )
        except TimeoutError as error:
            raise AssertionError(f"{self.page.url} shows {self.tiles()}, not {expected}") from error

    def tile(self, name, nth=0):
        """Returns the button that shows a file of this name."""
        return self.page.locator(f"#scroller .picture[title$='{name}']").nth(nth)

    def address(self):
        """Returns the parameters in the address."""
        return parse_qs(urlsplit(self.page.url).query)

    def drop(self, selector, *paths):
        """Drags files from the desktop over the page and drops them on an element."""
        page, transfer = self.page, self.page.evaluate_handle(_TRANSFER, [_file(path) for path in paths])
        page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
        page.dispatch_event(selector, "dragover", {"dataTransfer": transfer})
        page.dispatch_event(selector, "drop", {"dataTransfer": transfer})

    def paste(self, path):
        """Pastes a file."""
        script = f"""async files => {{
            const clipboardData = await ({_TRANSFER})(files);
            document.activeElement.dispatchEvent(
                new ClipboardEvent('paste', {{clipboardData, bubbles: true, cancelable: true}}));
        }}"""
        self.page.evaluate(script, [_file(path)])

    def shot(self, name):
        """Keeps a screenshot."""
        self.page.screenshot(path=self.artefacts / f"{name}.png")


def _file(path):
    type_ = mimetypes.guess_type(path.name)[0] or ""
    return {"name": path.name, "type": type_, "data": base64.b64encode(path.read_bytes()).decode()}


def matches(server, files=(), **parameters):
    """Returns (path, distance) of what the API finds, a list for each query."""
    if files:
        images = [("image", path.read_bytes()) for path in files]
        answer = server.http.post("/v1/search", params=parameters, files=images)
    else:
        answer = server.http.get("/v1/search", params=parameters)
    assert answer.status_code == 200, answer.text
    return [[(match["path"], match["distance"]) for match in one["matches"]] for one in answer.json()["results"]]
