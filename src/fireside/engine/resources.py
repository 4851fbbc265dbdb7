"""What this machine, or the container around it, lets one process use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_PROCESSORS = Path("/sys/devices/system/cpu")
_MEMORY = Path("/proc/meminfo")

# A hybrid processor's efficient cores have 0.3 to 0.75 of the speed of the others, which differ by a few hundredths.
_FAST = 0.8


def available_cores() -> int:
    """Physical cores that this process may keep busy: its affinity, one thread per core, within the cgroups' quotas.

    Two hardware threads of one core share its vector units: the kernels gain nothing from the second. A hybrid
    processor's efficient cores are left to others, for all threads of a step wait for the slowest at every barrier.
    So is what a quota has beyond whole cores: a thread that is out of quota holds up all of them.
    """
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    speeds = {cpu: _speed(cpu) for cpu in cpus}
    fastest = max(speeds.values())
    cores = len({_siblings(cpu) for cpu, speed in speeds.items() if speed >= _FAST * fastest})
    return max(1, int(min([cores, *_quotas()])))


def available_memory() -> int:
    """Bytes that can be had without swapping, within the cgroups' limits; 4 GiB where neither can be read."""
    found = list(_memory_left())
    try:
        lines = _MEMORY.read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    return max(0, min(found, default=4 << 30))


def _siblings(cpu: int) -> str:
    return _read(_PROCESSORS / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu)


def _speed(cpu: int) -> int:
    """In the kernel's own measure, or in kHz; the same for all where it gives neither."""
    folder = _PROCESSORS / f"cpu{cpu}"
    return int(_read(folder / "cpu_capacity") or _read(folder / "cpufreq" / "base_frequency") or 1)


def _quotas() -> Iterator[float]:
    """In cores."""
    for group in _groups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # neither "max" nor -1, which mean none
            yield int(quota) / int(period)


def _memory_left() -> Iterator[int]:
    """In bytes. Files that were read and not lately used are dropped from memory as soon as it is wanted."""
    for group in _groups("memory"):
        limit, used, dropped = _read(group / "memory.max"), _read(group / "memory.current"), "inactive_file"
        if not limit:  # version 1 says "none" as 2^63 less a page
            limit, used = _read(group / "memory.limit_in_bytes"), _read(group / "memory.usage_in_bytes")
            dropped = "total_inactive_file"  # with what is below, as in version 2
        if limit.isdigit() and used.isdigit():
            yield int(limit) - int(used) + _statistic(group / "memory.stat", dropped)


def _statistic(path: Path, name: str) -> int:
    """Of a file with a name and a number a line; 0 if it has none of that name."""
    found = (line.split() for line in _read(path).splitlines())
    return next((int(number) for key, number in found if key == name), 0)


def _groups(controller: str) -> Iterator[Path]:
    """The cgroups of this process, of version 2 and of this controller of version 1, each with all above it.

    In a container the path may be the host's, of which the container sees only the end, as the root (cgroups(7)).
    """
    for line in _read(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controllers
        own = root / path.lstrip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(root))


def _read(path: Path) -> str:
    """Empty if it cannot be read: most of these files are on some systems only."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
