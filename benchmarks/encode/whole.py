"""Whole runs, each in a process of its own: ``deephash index``, and encoders of other programs on the same files."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["copies_of", "index_run", "peer_run"]

PEERS = {
    "imagededup": "imagededup, our network",
    "DeepImageSearch": "DeepImageSearch, our network",
    "CLIP": "DeepImageSearch, CLIP ViT-B/32",
}


# A process is said to have needed as much as the one that started it had: so a small one starts it.
_WATCHED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([json.loads(done.stdout), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def index_run(photos: Path, folder: Path, model: str) -> dict[str, Any]:
    """Returns what ``deephash index`` reported, with the seconds of its process, CPU seconds and peak memory in MiB."""
    command = [sys.executable, "-m", "deephash", "index", str(photos), "-i", "e.dhx", "--model", model, "--json"]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _WATCHED, *command], cwd=folder, stdout=subprocess.PIPE, check=True)
    report, cpu_seconds, peak_mib = json.loads(done.stdout)
    return {
        "images": report["n_images"], "decoded": report["decoded"], "seconds": report["seconds"],
        "process_seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib,
    }  # fmt: skip


def peer_run(name: str, python: str, photos: Path) -> dict[str, Any]:
    """Returns images and seconds of another program's encoder, started with that Python."""
    worker = Path(__file__).with_name("peers.py")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [python, str(worker), name, str(photos)], env=environment, capture_output=True, text=True, check=True
    )
    return {"name": PEERS[name]} | json.loads(done.stdout.splitlines()[-1])


def copies_of(photos: Path, n: int, folder: Path) -> Path:
    """Writes n JPEG files that differ in a comment: real pictures to decode and encode, no two files identical."""
    sources = [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))]
    for number in range(n):
        comment = f"{number:012d}".encode()
        place = folder / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        data = sources[number % len(sources)]
        # A comment segment right behind the start of the image.
        (place / f"{number:06d}.jpg").write_bytes(data[:2] + b"\xff\xfe\x00\x0e" + comment + data[2:])
    return folder
