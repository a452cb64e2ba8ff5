"""Starts real servers as processes of their own, on a free port of this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from deephash import Client
from tests.deephash.photos import ROOT

TOKEN = "token-of-the-tests"
CHANGE = {"Authorization": f"Bearer {TOKEN}", "X-DeepHash": "1"}
_SCRIPT = """
import json, sys
from pathlib import Path
from deephash.server import ServerSettings, serve
given = json.loads(sys.argv[1])
for name in ("index", "uploads"):
    given[name] = Path(given[name]) if given.get(name) else None
given["roots"] = [Path(root) for root in given.get("roots", [])]
serve(ServerSettings(**given), on_start=lambda url: print(url, flush=True))
"""


@dataclass
class Server:
    """A running server; ``http`` talks to it without a token, ``client`` with it."""

    process: subprocess.Popen
    url: str
    errors: Path

    def __post_init__(self):
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.client = Client(self.url, token=TOKEN)

    def wait_until_ready(self):
        until = time.monotonic() + 60
        while self.http.get("/readyz").status_code != 200:
            assert time.monotonic() < until, self.errors.read_text()
            time.sleep(0.05)
        return self

    def stop(self, number=signal.SIGTERM):
        """Ends the server; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.http.close()
        self.client.close()
        return code


def start(index, folder, *, ready=True, **settings):
    """Starts a server of an index with these settings; its errors go into the folder."""
    given = {"index": str(index), "token": TOKEN, "port": 0, "decode_workers": 2} | settings
    errors = Path(folder) / f"server-{time.monotonic_ns()}.log"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, json.dumps(given, default=str)], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=log, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
    url = process.stdout.readline().strip()
    assert url, errors.read_text()
    server = Server(process, url, errors)
    return server.wait_until_ready() if ready else server


@contextlib.contextmanager
def running(index, folder, **settings):
    server = start(index, folder, **settings)
    try:
        yield server
    finally:
        server.stop()


def error_of(answer):
    """Returns status, code and sentence of a refusal, whose shape is checked."""
    body = answer.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message"]
    assert body["error"]["message"]
    assert "Traceback" not in body["error"]["message"]
    return answer.status_code, body["error"]["code"], body["error"]["message"]


@contextlib.contextmanager
def in_background(work):
    """Calls something again and again in a thread; yields the list of what it returned or raised."""
    found, stopping = [], threading.Event()

    def loop():
        while not stopping.is_set():
            try:
                found.append(work())
            except Exception as error:
                found.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield found
    finally:
        stopping.set()
        thread.join()
