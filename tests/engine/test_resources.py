"""Cores and memory as Linux tells of them, in folders that stand for machines and containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fireside.engine import resources
from fireside.engine.resources import available_cores, available_memory

Machine = Callable[[Mapping[str, str], int], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a machine of these files below /, where a process may run on so many CPUs."""
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path / "sys/fs/cgroup")
    monkeypatch.setattr(resources, "_MEMBERSHIP", tmp_path / "proc/self/cgroup")
    monkeypatch.setattr(resources, "_PROCESSORS", tmp_path / "sys/devices/system/cpu")
    monkeypatch.setattr(resources, "_MEMORY", tmp_path / "proc/meminfo")

    def make(files: Mapping[str, str], cpus: int) -> None:
        monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")

    return make


def processors(name: str, *values: str) -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{cpu}/{name}": value for cpu, value in enumerate(values)}


@pytest.mark.parametrize(
    ("files", "cpus", "expected"),
    [
        pytest.param({}, 6, 6, id="nothing is known"),
        pytest.param(processors("topology/thread_siblings_list", "0,2", "1,3", "0,2", "1,3"), 4, 2, id="two threads"),
        pytest.param(processors("cpu_capacity", "1024", "980", "414", "414"), 4, 2, id="big and little"),
        pytest.param(
            processors("cpufreq/base_frequency", "3200000", "3200000", "2400000"), 3, 2, id="efficient by frequency"
        ),
        pytest.param({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 4, 4, id="no quota"),
        pytest.param({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "250000 100000"}, 4, 2, id="a fraction"),
        pytest.param({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 4, 1, id="half a core"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/user.slice/app.service",
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000",
                "sys/fs/cgroup/user.slice/app.service/cpu.max": "300000 100000",
            },
            8, 2, id="the slice has less than the service",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/box\n4:memory:/box\n0::/",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            8, 3, id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:cpu:/docker/0a1b",  # the host's path, and the container's own group as the root
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8, 2, id="version 1 from inside",
        ),
    ],
)  # fmt: skip
def test_cores(files: Mapping[str, str], cpus: int, expected: int, machine: Machine) -> None:
    machine(files, cpus)
    assert available_cores() == expected


def test_memory(machine: Machine) -> None:
    machine({}, 1)
    assert available_memory() == 4 << 30
    machine({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 5000 kB"}, 1)
    assert available_memory() == 5000 * 1024
    old = "sys/fs/cgroup/memory/box/memory"
    machine({"proc/self/cgroup": "4:memory:/box\n0::/", f"{old}.limit_in_bytes": str((1 << 63) - 4096)}, 1)
    machine({f"{old}.usage_in_bytes": "1000"}, 1)
    assert available_memory() == 5000 * 1024
    machine({f"{old}.limit_in_bytes": "4000000"}, 1)
    assert available_memory() == 3_999_000
    statistics = "cache 900\ninactive_file 5\ntotal_inactive_file 600\ntotal_active_file 300"
    machine({f"{old}.stat": statistics}, 1)
    assert available_memory() == 3_999_600
    machine({"sys/fs/cgroup/memory.max": "3000000", "sys/fs/cgroup/memory.current": "1000000"}, 1)
    assert available_memory() == 2_000_000
    machine({"sys/fs/cgroup/memory.stat": "anon 200000\nfile 800000\ninactive_file 700000\nactive_file 100000"}, 1)
    assert available_memory() == 2_700_000
    machine({"sys/fs/cgroup/memory.stat": "anon 1000000"}, 1)
    assert available_memory() == 2_000_000
    machine({"sys/fs/cgroup/memory.current": "4000000"}, 1)  # over its limit for a moment
    assert available_memory() == 0
