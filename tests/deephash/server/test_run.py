"""The command ``deephash serve`` as a process: what it prints, how it ends, what it refuses."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.deephash.photos import ROOT, deephash, python

CLEAN = {name: value for name, value in os.environ.items() if name != "DEEPHASH_TOKEN"}


def serve(index, *options):
    process = subprocess.Popen(
        [sys.executable, "-m", "deephash", "serve", str(index), "--port", "0", *map(str, options)], cwd=ROOT, env=CLEAN,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)#token=([\w-]{20,})\n", line)
    assert found, line + process.stderr.read()
    return process, found[1], found[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_address_and_token_and_ends_well(made, number):
    process, url, token = serve(made.index)
    assert httpx.get(url + "healthz").json() == {"status": "alive"}
    headers = {"Authorization": f"Bearer {token}", "X-DeepHash": "1"}
    assert httpx.delete(url + "v1/images/999", headers=headers).status_code == 404
    process.send_signal(number)
    output, errors = process.communicate(timeout=40)
    assert (process.returncode, output) == (0, "")
    assert errors == f"serving {made.index}; Ctrl-C stops\n"


def test_an_answer_under_way_is_finished(made):
    process, url, _ = serve(made.index)
    until = time.monotonic() + 60
    while httpx.get(url + "readyz").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.05)

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        yield made.cat.read_bytes()
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = httpx.post(url + "v1/search?k=2", content=body(), headers=headers, timeout=30)
    assert len(answer.json()["results"][0]["matches"]) == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "healthz")
    assert process.wait(timeout=40) == 0


def sentence(done):
    assert done.returncode == 1
    assert done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith("deephash: ")
    assert "Traceback" not in done.stderr
    return line


def test_what_cannot_be_served_is_one_sentence(made, tmp_path):
    assert "DEEPHASH_TOKEN" in sentence(deephash("serve", made.index, "--host", "0.0.0.0", env=CLEAN))
    assert "at least 16" in sentence(deephash("serve", made.index, env=CLEAN | {"DEEPHASH_TOKEN": "short"}))
    assert "does not exist" in sentence(deephash("serve", tmp_path / "none.dhx", "--port", "0", env=CLEAN))
    assert "no folder" in sentence(deephash("serve", made.index, "--uploads", tmp_path / "none", env=CLEAN))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = sentence(deephash("serve", made.index, "--port", port, env=CLEAN))
    assert f"port {port}" in said
    assert "--port" in said


@pytest.mark.parametrize(
    ("missing", "code", "word"),
    [
        ("fastapi", "sys.argv = ['deephash', 'serve', 'x.dhx']; from deephash.cli import main; main()", "serve"),
        ("httpx", "import deephash; deephash.Client", "client"),
    ],
)  # fmt: skip
def test_an_extra_that_is_missing_is_named(missing, code, word):
    done = python(f"import sys; sys.modules[{missing!r}] = None\n{code}")
    assert done.returncode != 0
    assert f"pip install 'deephash[{word}]'" in done.stderr


def test_the_client_needs_neither_torch_nor_the_server():
    done = python("import sys, deephash; deephash.Client('http://127.0.0.1:1')\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert {"torch", "timm", "faiss", "fastapi", "uvicorn"} & set(done.stdout.split()) == set()
    done = python("import deephash; deephash.Client('http://127.0.0.1:1').stats()")
    assert "does deephash serve run there?" in done.stderr
