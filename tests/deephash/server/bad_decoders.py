"""What bugs in image libraries do to their process; apart, because the process that runs them imports this module."""

import os

from deephash.server.decode_tasks import Refused


def hang():
    while True:
        pass


def crash():
    os.abort()


def eat_memory():
    try:
        return len(bytearray(1 << 40))
    except MemoryError:
        return Refused("needs more memory than there is")


def leave():
    os._exit(0)


def answer():
    return 42
