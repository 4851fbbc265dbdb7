"""How much memory this process has had at most, for tests that measure a fresh one."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_mib() -> int:
    """In MiB. Linux's ru_maxrss will not do: a new program inherits there what its parent had when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
