"""A server of `deephash` processes: `python -m tests.deephash.forks`.

It imports torch once and forks for every command, so that a test can start and kill dozens of real processes. For each
line of JSON on its standard input, {"arguments", "pause", "file_limit", "out", "err"}, it prints the process id, and
the exit code once the process has ended. The process prints `committed N` to `out` when N images are safe, and then
stops for `pause` seconds, as a slow machine would, so that kills fall everywhere.
"""

import json
import os
import resource
import signal
import sys
import time

from deephash import fitting, indexing
from deephash.cli import main
from deephash.torchvision_import import import_timm
from index import Store


def run(task):
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(task[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.close(0)
    if task["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["file_limit"], task["file_limit"]))
    put, committed = Store.put, 0

    def telling_put(store, *arguments):
        nonlocal committed
        ids = put(store, *arguments)
        committed += len(ids)
        print("committed", committed, flush=True)
        time.sleep(task["pause"])
        return ids

    Store.put = telling_put
    sys.argv = ["deephash", *task["arguments"]]
    print("started", flush=True)
    # From here on; what Python says of an interrupt before main() is not ours.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        # Python would take seconds to clear away torch's modules, which are shared with the server.
        os._exit(end.code or 0)


if __name__ == "__main__":
    # What the processes would import one by one.
    assert fitting, indexing
    import_timm()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
            sys.exit("main() has returned")
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
