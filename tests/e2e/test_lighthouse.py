"""Lighthouse's budgets for the first page of somebody who is signed in, and that a slow build does not keep them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fireside.server import page as served
from tests.e2e.conftest import NAMES, Site

FOLDER = Path(__file__).with_name("lighthouse")
NODE = shutil.which("node")
CHROME = next(filter(None, map(shutil.which, NAMES)), None)

REQUESTS, BYTES = 12, 160_000
LCP, TBT = 2_500, 600  # milliseconds; generous, since machines that run tests are busy
BUSY = 3_500  # milliseconds that the slowed build computes before it shows anything

pytestmark = pytest.mark.skipif(
    NODE is None or CHROME is None or not (FOLDER / "node_modules").exists(),
    reason="needs Node, a Chromium and Lighthouse: cd tests/e2e/lighthouse && npm ci",
)


def over_budget(report: dict[str, Any]) -> list[str]:
    """What the page takes too much of, or lacks."""
    audits = report["audits"]
    requests = [
        item
        for item in audits["network-requests"]["details"]["items"]
        # Not what a browser looks at of its own accord: whether the page could be installed.
        if item.get("sessionTargetType") == "page" and item["resourceType"] != "Manifest"
    ]
    assert requests and report["runtimeError" if "runtimeError" in report else "fetchTime"], report
    score = {name: category["score"] for name, category in report["categories"].items()}
    failed = {
        name: [ref["id"] for ref in category["auditRefs"] if (audits[ref["id"]]["score"] or 0) < 1 and ref["weight"]]
        for name, category in report["categories"].items()
    }
    limits: list[tuple[str, float, bool]] = [
        ("requests", count := len({item["url"] for item in requests}), count <= REQUESTS),
        ("bytes", size := sum(item["transferSize"] for item in requests), size <= BYTES),
        ("LCP", lcp := audits["largest-contentful-paint"]["numericValue"], lcp <= LCP),
        ("TBT", tbt := audits["total-blocking-time"]["numericValue"], tbt <= TBT),
        ("performance", score["performance"], score["performance"] >= 0.9),
        (f"accessibility {failed['accessibility']}", score["accessibility"], score["accessibility"] == 1),
        (f"best practices {failed['best-practices']}", score["best-practices"], score["best-practices"] >= 0.95),
    ]
    print(*(f"{name} {value:g}" for name, value, _ in limits), sep=", ")
    return [name for name, _, holds in limits if not holds]


@pytest.fixture
def measure(site: Site, signed_in: dict[str, Any]) -> Callable[[], list[str]]:
    cookie = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in signed_in["cookies"])

    def run() -> list[str]:
        done = subprocess.run(
            [str(NODE), "run.js", site.url],
            cwd=FOLDER,
            env=os.environ | {"COOKIE": cookie, "CHROME_PATH": str(CHROME)},
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return over_budget(json.loads(done.stdout))

    return run


def test_the_first_page_keeps_its_budgets(measure: Callable[[], list[str]]) -> None:
    assert measure() == []


def test_a_slow_build_does_not(measure: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    build = served._file

    def slowed(path: Path) -> Any:
        file = build(path)
        if not (path.name.startswith("index-") and path.suffix == ".js"):
            return file
        busy = f"for (const end = performance.now() + {BUSY}; performance.now() < end;);\n".encode()
        return served._File(busy + file.content, None, file.media_type, 'W/"slow"')

    monkeypatch.setattr(served, "_file", slowed)
    assert {"LCP", "performance"} <= set(measure())
