"""Server, engine and browser are killed in mid-answer, twice each; `benchmarks.crashes` does it a hundred times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.crashes import CHROMIUM, VICTIMS

from tests.cli.programs import ROOT, environment


def test_nothing_is_lost_when_something_is_killed(tmp_path: Path) -> None:
    if not any(Path(path).exists() for path in CHROMIUM):
        pytest.skip(f"a browser is killed, and none of {', '.join(CHROMIUM)} is there")
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crashes", "--kills", "6", "--json", str(result)],
        capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert found["kills"] == dict.fromkeys(VICTIMS, 2) and found["wrong"] == []
    assert sum(found["cut"].values()) >= 2 and found["characters"] > 100
