"""Whose a folder is: what is read back from one must not be what another user put there."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def others_can_write(folder: Path) -> bool:
    """Whether another user than root could replace what lies in it."""
    info = folder.stat()
    return info.st_uid != os.getuid() or bool(info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
