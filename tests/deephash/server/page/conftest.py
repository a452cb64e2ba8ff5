import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from deephash.samples import load_cifar10_sample
from index import Entry, Store
from tests.deephash.command_line import make_collection, run
from tests.deephash.photos import write_photos
from tests.deephash.server.page.visits import Visit
from tests.deephash.server.servers import running

N_MANY = 100_000


def _chromium():
    names = [os.environ.get("DEEPHASH_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    return next(filter(None, map(shutil.which, filter(None, names))), None)


@pytest.fixture(scope="module")
def browser():
    """Chromium, for one module: while it is there, nothing else of the process can use asyncio."""
    path = _chromium()
    if path is None:
        pytest.skip("no Chromium for the tests of the page: apt-get install chromium, or name one in DEEPHASH_CHROMIUM")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory):
    """Where screenshots are kept: DEEPHASH_SCREENSHOTS names a folder, else a temporary one."""
    named = os.environ.get("DEEPHASH_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def visit(browser, artefacts):
    """Opens pages in contexts of their own; none may have failed, broken the policy or called elsewhere."""
    visits = []

    def open_page(server, path="", **options):
        visits.append(Visit.open(browser, server, artefacts, path, **options))
        return visits[-1]

    yield open_page
    for one in visits:
        one.close()


@pytest.fixture(scope="session")
def cat_and_dog(tmp_path_factory):
    """Two files of images that no index has."""
    folder = tmp_path_factory.mktemp("queries")
    pictures = load_cifar10_sample().query_images
    for name, number in (("cat", 0), ("dog", 1)):
        Image.fromarray(pictures[number]).save(folder / f"{name}.png")
    return folder / "cat.png", folder / "dog.png"


@pytest.fixture(scope="session")
def annotated(tmp_path_factory, tiny_file):
    """A server of 31 labelled photographs, ten with the year 2024, two of which are copies."""
    made = make_collection(tmp_path_factory.mktemp("annotated"), tiny_file)
    with Store.open(made.index, writable=True) as store:
        store.annotate(range(1, 11), metadata={"year": 2024})
    with running(made.index, made.folder) as server:
        yield server


@pytest.fixture(scope="session")
def many(tmp_path_factory, made):
    """A server of 100,000 images: thousands of links to one folder of 30 photographs."""
    folder = tmp_path_factory.mktemp("many")
    shutil.copytree(made.index, folder / "many.dhx")
    paths = sorted(made.photos.glob("*/*.png"))
    with Store.open(folder / "many.dhx", writable=True) as store:
        known = {record.path: record for record in store.iterate()}
        entries, codes = [], []
        for copy in range(-(-(N_MANY - len(known)) // len(paths))):
            (made.photos / f"again-{copy:04}").symlink_to(made.photos, target_is_directory=True)
            for path in paths:
                of = known[str(path)]
                again = str(made.photos / f"again-{copy:04}" / path.relative_to(made.photos))
                entries.append(Entry(again, of.n_bytes, of.mtime_ns, of.content_hash, of.width, of.height, of.label))
                codes.append(of.code)
        n_wanted = N_MANY - len(known)
        rows = np.frombuffer(b"".join(codes[:n_wanted]), np.uint8).reshape(n_wanted, -1)
        store.put(entries[:n_wanted], rows)
    with running(folder / "many.dhx", folder) as server:
        yield server
    for link in made.photos.glob("again-*"):
        link.unlink()


@pytest.fixture(scope="module")
def changing(tmp_path_factory, tiny_file):
    """A server of photographs in ``photos``, for a module to change; it takes uploads, and folders below its own."""
    folder = tmp_path_factory.mktemp("changing")
    write_photos(folder / "photos", 0, 12)
    index = folder / "photos.dhx"
    assert run("index", folder / "photos", "--index", index, "--model", tiny_file).exit_code == 0
    (folder / "uploads").mkdir()
    with running(index, folder, roots=[folder], uploads=folder / "uploads") as server:
        server.folder, server.index = folder, index
        yield server
