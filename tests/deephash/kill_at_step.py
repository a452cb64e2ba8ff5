"""Carries plans out in forks that are killed just before the n-th thing they do to files; started as a process.

Each line of its input is JSON: [n, "apply" or "undo", plan, folder]. The answer is a line, too: the exit code of the
fork, negative for a signal. Python starts once for all of them.
"""

import json
import os
import signal
import sys
import traceback

from deephash import apply_plan, undo_plan

_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.copyfile")


def kill_before(n, folders):
    """Has this process killed before the n-th write beneath one of the folders."""
    count = 0

    def hook(event, args):
        nonlocal count
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in _EVENTS) and any(str(arg).startswith(folders) for arg in args[:2]):
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main():
    for line in sys.stdin:
        n, call, plan, folder = json.loads(line)
        process = os.fork()
        if process == 0:
            try:
                kill_before(n, (os.path.dirname(plan), folder))
                if call == "apply":
                    apply_plan(plan, move_to=folder)
                else:
                    undo_plan(plan)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
