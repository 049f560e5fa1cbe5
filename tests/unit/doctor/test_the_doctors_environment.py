"""What of an environment is wrong is told, with what to do; limits of the host are read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from stackwise.memory import limits
from stackwise.memory.room import machine_bytes
from stackwise.planner.doctor import environment

GIB = 1 << 30
GOOD = {
    "torch": "2.13.0+cu130",
    "device": "cuda",
    "device_name": "H200",
    "driver": "580.65.06",
    "threads": 8,
    "processors": 16,
    "load": 0.5,
    "bitsandbytes": "0.50.2",
    "bitsandbytes_problem": None,
    "gflops": {"float32": 50_000.0, "bfloat16": 700_000.0},
    "errors": {"float32": 1e-7, "bfloat16": 3e-3},
    "allowed": {"float32": 2e-6, "bfloat16": 2**-7},
    "hidden_card": False,
    "free_memory_bytes": 100 * GIB,
    "free_disk_bytes": 100 * GIB,
    "memory_limit_bytes": None,
    "cpu_limit": None,
}
BAD = {
    "an old torch": ({"torch": "2.9.1"}, "torch 2.9.1 is older than 2.13", "pip install 'torch>="),
    "an old bitsandbytes": (
        {"bitsandbytes_problem": "needs 0.50"},
        "needs 0.50",
        "stackwise[quant]",
    ),
    "a wrong product": (
        {"errors": {"float32": 1e-7, "bfloat16": 0.1}},
        "a product in bfloat16 is off by 1.0e-01 of its size",
        "do not compute in bfloat16 on this device",
    ),
    "a product that is no number": (
        {"errors": {"float32": float("nan"), "bfloat16": 0.0}},
        "a product in float32 is off by nan",
        "do not compute in float32",
    ),
    "a hidden card": ({"hidden_card": True}, "NVIDIA card that torch does not see", "--device cpu"),
    "little memory": ({"free_memory_bytes": GIB // 2}, "512.0 MiB of memory", "close other"),
    "little disk": ({"free_disk_bytes": GIB}, "1.0 GiB of disk", "--folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_with_the_way_out(case) -> None:
    change, problem, way_out = BAD[case]
    found = environment.judged({**GOOD, **change})
    assert found.state == "failed"
    assert problem in found.measured and way_out in found.to_do


def test_what_is_good_says_which_dtype_is_faster() -> None:
    found = environment.judged(GOOD)
    assert found.state == "ok"
    assert found.means == "precision.compute=bfloat16 is the faster here, 14.0 times"
    slow = environment.judged({**GOOD, "gflops": {"float32": 60.0, "bfloat16": 40.0}})
    assert slow.means.startswith("precision.compute=float32 is the faster here, 1.5 times")


def test_what_is_not_known_is_no_problem() -> None:
    found = environment.judged({**GOOD, "free_memory_bytes": None, "driver": None})
    assert found.state == "ok" and "- of card free" in found.measured


def test_a_missing_package_is_a_note() -> None:
    found = environment.judged({**GOOD, "bitsandbytes": None})
    assert found.state == "ok" and "need bitsandbytes and are not looked at" in found.means


def test_a_busy_machine_is_told() -> None:
    busy = environment.judged({**GOOD, "load": 13.0})
    assert busy.state == "ok" and busy.means.endswith("(load 13.0), so times will be off")
    assert "load" not in environment.judged({**GOOD, "load": None}).means


def test_limits_are_told() -> None:
    found = environment.judged({**GOOD, "memory_limit_bytes": 4 * GIB, "cpu_limit": 1.5})
    assert found.measured.endswith("memory limited to 4.0 GiB, limited to 1.5 processors' time")


def test_this_machine_is_seen(visit, monkeypatch) -> None:
    monkeypatch.setitem(environment.SIZES, "cpu", 128)
    here = visit()
    found = environment.environment(here)
    assert found.state == "ok", found.measured
    seen = here.results["environment"]
    assert 0 < seen["errors"]["float32"] <= seen["allowed"]["float32"] / 4
    assert seen["allowed"]["bfloat16"] / 8 < seen["errors"]["bfloat16"]
    assert min(seen["gflops"].values()) > 0 and seen["free_disk_bytes"] > 0


def test_a_product_that_is_off_is_seen(monkeypatch) -> None:
    import torch

    right = torch.Tensor.__matmul__

    def off(a, b):
        return right(a, b) * (1 if a.dtype == torch.float64 else 1 + 1e-4)

    monkeypatch.setattr(torch.Tensor, "__matmul__", off)
    assert environment.product_error("cpu", "float32") == pytest.approx(1e-4, rel=0.01)


def test_the_oldest_torch_is_that_of_the_project() -> None:
    project = tomllib.loads(Path(__file__).parents[3].joinpath("pyproject.toml").read_text())
    oldest = ".".join(map(str, environment.OLDEST_TORCH))
    assert f"torch>={oldest}" in project["project"]["dependencies"]


def test_a_hidden_card_may_be_meant(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment.card_is_hidden()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not environment.card_is_hidden()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Stands in for /proc and /sys/fs/cgroup; gives what writes a file of them."""
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(limits, "OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "groups")

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def test_where_nothing_is_told_nothing_is_known(host) -> None:
    assert limits.free_memory() is limits.memory_limit() is limits.cpu_limit() is None


def test_the_machine_says_what_it_has_free(host) -> None:
    host("meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n")
    assert limits.free_memory() == 4000 * 1024


def test_a_container_leaves_what_it_does_not_use_and_can_give_way(host) -> None:
    host("meminfo", f"MemAvailable: {64 << 20} kB\n")
    host("cgroup", "0::/pods/mine\n")
    host("groups/pods/mine/memory.max", f"{8 * GIB}\n")
    host("groups/pods/mine/memory.current", f"{5 * GIB}\n")
    host("groups/pods/mine/memory.stat", f"anon 1\ninactive_file {2 * GIB}\n")
    host("groups/pods/mine/cpu.max", "max 100000\n")
    assert limits.memory_limit() == 8 * GIB
    assert limits.free_memory() == 5 * GIB
    assert limits.cpu_limit() is None


def test_a_limit_above_it_counts_too(host) -> None:
    host("cgroup", "0::/pods/mine\n")
    host("groups/pods/memory.max", f"{4 * GIB}\n")
    host("groups/pods/memory.current", f"{3 * GIB}\n")
    host("groups/pods/cpu.max", "150000 100000\n")
    host("groups/pods/mine/memory.max", "max\n")
    host("groups/pods/mine/cpu.max", "200000 100000\n")
    assert limits.memory_limit() == 4 * GIB
    assert limits.free_memory() == GIB
    assert limits.cpu_limit() == 1.5


def test_the_first_version_of_control_groups_is_read(host) -> None:
    host("cgroup", "5:cpu:/x\n3:memory:/x\n")
    host("groups/memory/x/memory.limit_in_bytes", f"{2 * GIB}\n")
    host("groups/memory/x/memory.usage_in_bytes", f"{GIB}\n")
    host("groups/memory/memory.limit_in_bytes", "9223372036854771712\n")  # none
    assert limits.memory_limit() == machine_bytes() == 2 * GIB
    assert limits.free_memory() == GIB
