"""Several processes under the real torchrun, on this machine's CPUs, against one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deephash.distributed import Processes, present_processes
from tests.deephash import small_training
from tests.deephash.photos import ROOT
from tests.deephash.small_training import LOSSES, train_small
from tests.deephash.torchrun import torchrun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo on Windows is another")
SCRIPT = Path(small_training.__file__)


@pytest.fixture(scope="module")
def alone():
    return {loss: train_small(loss) for loss in LOSSES}


@pytest.fixture(scope="module", params=[2, 3])
def together(request, tmp_path_factory):
    """The folder of a run by several processes, and what each of them found."""
    folder = tmp_path_factory.mktemp("together")
    train_small("dsdh", stop_after=2, checkpoint=folder / "begun.pt")
    done = torchrun(request.param, SCRIPT, "train", folder, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def assert_same(found, expected, tolerance=1e-5):
    assert found["losses"] == pytest.approx(expected["losses"], rel=tolerance)
    for part in ("weights", "loss_state", "gradients"):
        for name, tensor in expected[part].items():
            assert torch.allclose(found[part][name].double(), tensor.double(), rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("loss", LOSSES)
def test_processes_together_train_as_one_does(alone, together, loss):
    first, *others = (found[loss] for found in together[1])
    assert len(first["losses"]) == small_training.CONFIG.epochs
    assert_same(first, alone[loss])
    for other in others:
        assert other["losses"] == first["losses"]
        assert all(torch.equal(tensor, other["weights"][name]) for name, tensor in first["weights"].items())


def test_batch_norm_is_that_of_the_whole_batch(together):
    for found in together[1]:
        assert set(found["norm errors"]) == {"2d", "1d", "plain", "cumulative"}
        assert max(found["norm errors"].values()) < 1e-10


def test_a_run_goes_on_with_another_number_of_processes(alone, together):
    folder, (first, *_) = together
    begun, goes_on = first["stopped"], train_small("dsdh", checkpoint=folder / "stopped.pt")
    assert len(begun["losses"]) == len(goes_on["losses"]) == 2
    assert_same(goes_on | {"losses": begun["losses"] + goes_on["losses"]}, alone["dsdh"])
    resumed = first["resumed"]
    assert len(resumed["losses"]) == 2
    assert_same(resumed | {"losses": alone["dsdh"]["losses"][:2] + resumed["losses"]}, alone["dsdh"])


def errors_of_two(scenario, folder):
    """Runs the script in two processes without torchrun, which may end the one left before it says why."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    group |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, scenario, folder],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True, cwd=folder,
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=300)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]


def test_what_one_process_raises_ends_all_and_the_others_know_that_it_was_first(tmp_path):
    (first_code, first), (second_code, second) = errors_of_two("raise", tmp_path)
    assert first_code == second_code == 1
    assert "ValueError: the second process has had enough" in second
    assert "deephash.distributed.AnotherProcessFailed: another process of the run failed" in first
    assert not list(tmp_path.glob("*.pt"))


def test_a_killed_process_ends_the_others_with_a_reason(tmp_path):
    (first_code, first), (second_code, _) = errors_of_two("kill", tmp_path)
    assert (first_code, second_code) == (1, -signal.SIGKILL)
    assert "TrainingError: another process of the run ended or is out of reach" in first


@pytest.mark.parametrize(("n", "size"), [(7, 3), (2, 3), (0, 2), (16, 4), (5, 1)])
def test_shares_cover_all_items_once_and_differ_by_one_at_most(n, size):
    shares = [range(n)[Processes(rank, size).share(n)] for rank in range(size)]
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_torchrun_there_is_one_process():
    assert present_processes() == Processes(0, 1)
