import shutil

import pytest

from tests.deephash.command_line import make_collection
from tests.deephash.server.servers import running


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_file):
    """31 photographs, indexed by 64 bits."""
    return make_collection(tmp_path_factory.mktemp("served"), tiny_file)


@pytest.fixture(scope="session")
def server(made, tmp_path_factory):
    """A server that nobody changes."""
    with running(made.index, tmp_path_factory.mktemp("log"), body_seconds=2.0, decode_seconds=3.0) as server:
        yield server


@pytest.fixture(scope="session")
def own(made, tmp_path_factory):
    """A server of a copy of the index that tests change, under ``folder``; images 1 to 4 stay."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(made.index, folder / "photos.dhx")
    (folder / "uploads").mkdir()
    with running(folder / "photos.dhx", folder, roots=[folder], uploads=folder / "uploads") as server:
        server.folder = folder
        yield server
