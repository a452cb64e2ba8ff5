"""What bugs in image libraries do to their process; apart, because the process that runs them imports this module."""

import gc
import os
import socket
import subprocess

from deephash.server.decode_tasks import HEAD


def hang():
    while True:
        pass


def crash():
    os.abort()


def eat_memory():
    return len(bytearray(1 << 40))


def leave():
    os._exit(0)


def fail():
    raise ValueError("a bug")


class Order:
    """What runs a command in whoever unpickles it carelessly."""

    def __reduce__(self):
        return subprocess.check_call, (["touch", "/nowhere/at/all"],)


def take_over():
    return Order()


def _channel():
    return next(found for found in gc.get_objects() if isinstance(found, socket.socket) and found.fileno() >= 0)


def write_much():
    _channel().sendall(HEAD.pack(1 << 40) + bytes(1000))
    hang()


def speak_unasked():
    channel = _channel()
    channel.sendall(HEAD.pack(0) * 2)
    hang()


def answer():
    return 42
