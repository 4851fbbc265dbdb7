"""Is the app light, and does it hold when many use it?

    .venv/bin/python -m benchmarks.app [--only page conversation crowd] [--rounds 5] [--json FILE]

page: requests, bytes and time until one can write, of a first visit with nothing cached, and what the server took to
start. conversation: nodes, memory and frames of a conversation with 1,000 messages while an answer streams below.
Both beside Open WebUI where `make peers` has installed it, taking turns, in headless Chromium; answers come from the
same scripted engine, some hundred tokens a second. crowd: see benchmarks/crowd.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import crowd
from benchmarks.browsing import FirstPage, LongConversation, chromium, first_page, long_conversation
from benchmarks.http import BenchmarkError
from benchmarks.machine import Machine
from benchmarks.served_apps import PEER, Served, Start, fireside, open_webui, scripted_fireside

from fireside.errors import FiresideError
from fireside.models.local import DEFAULT_ALIAS, resolve_model
from fireside.settings import load_settings

PARTS = ("page", "conversation", "crowd")
_MESSAGES = 1000


def browse(parts: Iterable[str], rounds: int) -> dict[str, Any]:
    """Every figure of every round, by app and part."""
    starts: dict[str, Start] = {}
    pages: dict[str, list[FirstPage]] = {}
    conversations: dict[str, list[LongConversation]] = {}
    with ExitStack() as stack:
        scripted = stack.enter_context(scripted_fireside(_MESSAGES))
        visited: list[tuple[Served, Served]] = []  # where the first page is, and the long conversation
        ours, start = stack.enter_context(fireside(resolve_model(DEFAULT_ALIAS, load_settings()).path))
        visited.append((ours, scripted))
        starts[ours.name] = start
        if PEER.exists():
            theirs, start = stack.enter_context(open_webui(scripted.url, _MESSAGES))
            visited.append((theirs, theirs))
            starts[theirs.name] = start
        else:
            print("Open WebUI is not installed: make peers")
        browser = stack.enter_context(chromium())
        for _ in range(rounds):
            for app, with_conversation in visited:
                if "page" in parts:
                    pages.setdefault(app.name, []).append(first_page(browser, app))
                if "conversation" in parts:
                    measured = long_conversation(browser, with_conversation)
                    conversations.setdefault(app.name, []).append(measured)
    return {
        name: {
            "start": asdict(start),
            "page": [asdict(page) for page in pages.get(name, [])],
            "conversation": [asdict(conversation) for conversation in conversations.get(name, [])],
        }
        for name, start in starts.items()
    }


def report(apps: dict[str, Any]) -> str:
    rows: list[tuple[str, str, str, float]] = [
        ("server ready, s", "start", "ready_seconds", 1),
        ("server ready, CPU-seconds", "start", "cpu_seconds", 1),
        ("server resident, MB", "start", "resident_bytes", 1e6),
        ("first page, requests", "page", "requests", 1),
        ("first page, kB received", "page", "received_bytes", 1e3),
        ("first page, ready to write, s", "page", "ready_seconds", 1),
        ("1,000 messages, DOM nodes", "conversation", "nodes", 1),
        ("1,000 messages, heap, MB", "conversation", "heap_bytes", 1e6),
        ("1,000 messages, median frame, ms", "conversation", "frame_ms", 1),
        ("1,000 messages, 95 % of frames, ms", "conversation", "frame_p95_ms", 1),
    ]
    lines = [f"{'median':36}" + "".join(f"{name:>14}" for name in apps)]
    for title, part, key, unit in rows:
        values = []
        for figures in apps.values():
            found = figures[part] if isinstance(figures[part], list) else [figures[part]]
            values.append(f"{median(one[key] for one in found) / unit:14,.2f}" if found else f"{'':>14}")
        lines.append(f"{title:36}" + "".join(values))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5, help="visits of each page")
    parser.add_argument("--people", type=int, default=200, help="in the crowd")
    parser.add_argument("--rate", type=float, default=30.0, help="tokens per second and person of the crowd")
    parser.add_argument("--seconds", type=float, default=20.0, help="that each of the crowd's answers takes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    facts: dict[str, Any] = {"machine": asdict(Machine.here())}
    print(Machine.here())
    if {"page", "conversation"} & set(options.only):
        facts["apps"] = browse(options.only, options.rounds)
        print(report(facts["apps"]))
    if "crowd" in options.only:
        result = crowd.measure(options.people, options.rate, options.seconds)
        facts["crowd"] = asdict(result)
        print(result)
    if options.json is not None:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (FiresideError, BenchmarkError, OSError) as error:
        raise SystemExit(f"benchmarks.app: {error}") from None
