"""Starts Python under the real torchrun, on this machine's CPUs and its loopback interface."""

import os
import subprocess
import sys

from tests.deephash.photos import ROOT


def start_torchrun(n_processes, *arguments, cwd, **environment):
    """Starts ``torchrun --nproc-per-node N ARGUMENTS``, hidden GPUs, one thread a process; returns the process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)} | environment,
    )


def torchrun(n_processes, *arguments, cwd, **environment):
    """Runs it to its end, in five minutes at most: a run that hangs fails here."""
    with start_torchrun(n_processes, *arguments, cwd=cwd, **environment) as process:
        try:
            stdout, stderr = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its processes
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
