"""The model in a process of its own, which yields the processors to whoever answers queries: for jobs."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..input_spec import InputSpec
from .decode_tasks import BACKGROUND, attach_process

__all__ = ["BackgroundModel"]


class BackgroundModel:
    """Encodes as ``HashModel`` does, for one thread.

    In the server's own process a thread of low priority may hold Python's lock when the processors are taken from it,
    and everybody waits until it gets them back.

    Args:
        path: the model file.
        input_spec: of the model.
    """

    def __init__(self, path: Path, input_spec: InputSpec) -> None:
        self.input_spec = input_spec
        # Not fork: a copy of a process with threads, torch among them, can hang.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_encode, args=(theirs, path), name="deephash-background", daemon=True)
        self._process.start()
        theirs.close()

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns codes (B, ceil(n_bits / 8)) uint8 of (B, size, size, 3) uint8 pixels.

        Raises:
            ModelError: the model cannot be loaded, or its process was killed.
        """
        try:
            self._connection.send(len(pixels))
            self._connection.send_bytes(np.ascontiguousarray(pixels).reshape(-1).data)
            found = self._connection.recv()
        except (EOFError, OSError):
            raise ModelError("the process that encodes was killed: free memory and start the job again") from None
        if isinstance(found, Exception):
            raise found
        codes: NDArray[np.uint8] = found
        return codes

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.kill()
        self._process.join()


def _encode(connection: Connection, path: Path) -> None:
    attach_process(BACKGROUND)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..model import load_model

    model = None
    while True:
        try:
            n = connection.recv()
            data = connection.recv_bytes()
        except (EOFError, OSError):
            return
        found: object
        try:
            model = model or load_model(path)
            size = model.input_spec.size
            found = model.encode(np.frombuffer(data, np.uint8).reshape(n, size, size, 3))
        except Exception as error:
            found = ModelError(str(error))
        connection.send(found)
