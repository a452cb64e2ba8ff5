"""What the machine has, as the system says it; torch agrees."""

import os

import pytest
import torch

from deephash import machine
from tests.deephash.photos import python

INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
cpu MHz\t\t: {mhz}
flags\t\t: fpu avx2 avx512f {more}

processor\t: 1
vendor_id\t: GenuineIntel
"""


@pytest.fixture
def cpu_info(tmp_path, monkeypatch):
    """A function that sets what Linux says of its processors."""
    if os.name != "posix":
        pytest.skip("needs paths as Linux has them")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")

    def say(text):
        (tmp_path / "cpuinfo").write_text(text)
        machine._cpu_info.cache_clear()

    yield say
    machine._cpu_info.cache_clear()


@pytest.mark.parametrize(("more", "has"), [("avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx512_vnni", False)])
def test_bf16_is_a_flag_of_the_processor(cpu_info, more, has):
    cpu_info(INTEL.format(mhz=2400, more=more))
    assert machine.has_bf16_instructions() == has


def test_torch_says_the_same_of_this_processor():
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    assert machine.has_bf16_instructions() == any(map(capabilities.get, ("avx512_bf16", "amx_bf16")))


def test_a_processor_is_known_by_its_kind_and_not_by_its_clock(cpu_info):
    seen = []
    for mhz, more in ((2400, "sse"), (3100, "sse"), (2400, "sse amx_bf16")):
        cpu_info(INTEL.format(mhz=mhz, more=more))
        seen.append(machine.processor())
    assert seen[0] == seen[1] != seen[2]
    assert "8488C" in seen[0]
    cpu_info("")
    assert machine.processor()


@pytest.mark.parametrize("device", ["nvidiactl", "nvidia0", "dxg", "kfd"])
def test_a_gpu_is_there_where_its_driver_has_made_a_device(tmp_path, monkeypatch, device):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(
        machine, "_GPU_DEVICES", tuple(str(tmp_path / os.path.basename(path)) for path in machine._GPU_DEVICES)
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not machine.may_have_gpu()
    (tmp_path / device).touch()
    assert machine.may_have_gpu()
    for hidden in ("", " ", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not machine.may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert machine.may_have_gpu()


def test_on_other_systems_nobody_knows_of_gpus_without_torch(monkeypatch):
    for system in ("darwin", "win32"):
        monkeypatch.setattr("sys.platform", system)
        assert machine.may_have_gpu()


@pytest.mark.parametrize("wish", ["", "1", "2", "1,1"])
def test_cores_are_counted_as_torch_counts_them(wish):
    code = "import torch; from deephash.machine import count_cores; print(count_cores(), torch.get_num_threads())"
    ours, theirs = python(code, OMP_NUM_THREADS=wish).stdout.split()
    assert ours == theirs


def test_two_processors_of_one_core_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "_TOPOLOGY", f"{tmp_path}/{{}}")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for number in range(4):
        (tmp_path / str(number)).write_text(f"{number % 2},{number % 2 + 2}\n")
    assert machine.count_cores() == 2
    (tmp_path / "3").unlink()
    assert machine.count_cores() == 4
