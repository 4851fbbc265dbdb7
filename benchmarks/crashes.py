"""kill -9 of browser, server and engine in mid-answer: is anything lost?

    .venv/bin/python -m benchmarks.crashes [--kills 100] [--seed 0] [--json FILE]

A real `fireside serve` with its worker process (whose model tells a story of numbered words), and a real Chromium in
which somebody asks. One of the three is killed at a random moment from the question on, and started again where nobody
else does. Then it is looked whether

- all that the person saw is in the answer, and the answer is the story's beginning: nothing lost, nothing twice;
- a cut answer says so, and goes on where it ended, to the story's end, in the same message;
- there is one question and one answer, in the database and on the page;
- no process is left over, and the database is whole (SQLite's integrity_check and foreign_key_check).

Ends with status 1 and what was wrong if anything is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from benchmarks.machine import Machine
from benchmarks.story_server import STORY
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
VICTIMS = ("server", "engine", "browser")
_LONGEST = 1.6  # seconds from the question to the kill; the story takes about two
_PATIENCE = 30.0
_ROOT = Path(__file__).parent.parent
_PASSWORD = "correct horse battery"


class Wrong(Exception):
    """Something was lost."""


@dataclass
class Tally:
    """By victim: kills, and what state they found. characters: that people had seen of the answers which were cut."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    cut: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    before_the_question: int = 0
    characters: int = 0
    wrong: list[str] = field(default_factory=list)
    back_seconds: dict[str, list[float]] = field(default_factory=lambda: {victim: [] for victim in VICTIMS})


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def until(holds: Callable[[], Any], what: str, seconds: float = _PATIENCE) -> Any:
    """What it gives once that is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.03)
    raise Wrong(f"waited in vain until {what}")


class Server:
    def __init__(self, home: Path) -> None:
        self._home = home
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.setup_link = ""
        self.start()

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FIRESIDE_")}
        environment |= {"FIRESIDE_HOME": str(self._home), "PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.story_server", "serve", "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=(self._home / "log.txt").open("a"),
            text=True,
            env=environment,
            cwd=_ROOT,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        check("is ready" in line, f"the server did not start: {(self._home / 'log.txt').read_text()[-2000:]}")
        self._process.stdout.readline()
        if not self.setup_link:
            self.setup_link = self._process.stdout.readline().split()[-1]

    @property
    def worker(self) -> psutil.Process | None:
        children = psutil.Process(self._process.pid).children()
        return next((child for child in children if "--fd" in _command(child)), None)

    def kill(self) -> None:
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        until(lambda: not any(map(_is_alive, children)), "the server's worker had ended", 5)

    def kill_engine(self) -> None:
        old = until(lambda: self.worker, "there was a worker")
        old.send_signal(signal.SIGKILL)
        until(lambda: (new := self.worker) is not None and new.pid != old.pid, "there was another worker")

    def check_database(self) -> None:
        connection = sqlite3.connect(self._home / "fireside.db")
        check(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the database is damaged")
        check(connection.execute("PRAGMA foreign_key_check").fetchall() == [], "a row points to nothing")
        connection.close()

    def stop(self) -> None:
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        self._process.wait(20)
        check(not any(map(_is_alive, children)), "a process of the server's is left over")


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # gone, or as good as
        return []


class Visitor:
    """Somebody with a browser, and their other device, which asks the server what it has."""

    def __init__(self, playwright: Playwright, server: Server) -> None:
        self._playwright = playwright
        self._server = server
        account = {"name": "Ada", "email": "ada@example.com", "password": _PASSWORD}
        self._http = httpx.Client(base_url=server.url, headers={"X-Fireside": "1"}, timeout=20)
        token = server.setup_link.partition("#")[2]
        self._http.post("/api/setup", json=account | {"token": token}).raise_for_status()
        cookies = [{"name": name, "value": value, "url": server.url} for name, value in self._http.cookies.items()]
        self._storage: Any = {"cookies": cookies, "origins": []}
        self.open()

    def open(self) -> None:
        before = set(psutil.Process().children(recursive=True))
        executable = next(path for path in CHROMIUM if Path(path).exists())
        self._browser: Browser = self._playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        self._processes = [p for p in psutil.Process().children(recursive=True) if p not in before]
        self.page: Page = self._browser.new_context(storage_state=self._storage).new_page()

    def kill(self) -> None:
        processes = {*self._processes}
        for process in self._processes:
            with suppress(psutil.Error):
                processes.update(process.children(recursive=True))
        for process in self._processes:
            if _is_alive(process) and "--type=" not in " ".join(_command(process)):
                process.send_signal(signal.SIGKILL)
        until(lambda: not any(map(_is_alive, processes)), "the browser's processes had ended", 10)

    def close(self) -> None:
        self._browser.close()

    def ask(self) -> None:
        self.page.goto(self._server.url)
        expect(self.page.get_by_label("Message", exact=True)).to_be_visible(timeout=1000 * _PATIENCE)
        self.page.get_by_label("Message", exact=True).fill("Tell me a story")
        self.page.keyboard.press("Enter")

    def sees(self) -> str:
        """Of the story, on the page as it is now."""
        texts = self.page.get_by_role("article").all_inner_texts()
        told = [match[0].strip() for text in texts if (match := re.search(r"0001[\d\s]*", text))]
        check(len(told) <= 1, f"the story is on the page {len(told)} times")
        return " ".join(told[0].split()) if told else ""

    def get(self, path: str) -> Any:
        return self._http.get(f"/api/{path}").raise_for_status().json()

    def newest(self) -> Any | None:
        """The newest conversation with its messages, if there is one that has not been looked at."""
        items = self.get("conversations?limit=1")["items"]
        return self.get(f"conversations/{items[0]['id']}") if items else None


def kill_once(victim: str, server: Server, visitor: Visitor, tally: Tally, pause: float) -> None:
    known = visitor.newest()
    visitor.ask()
    visitor.page.wait_for_timeout(1000 * pause)
    seen = visitor.sees() if victim == "browser" else ""
    begin = time.monotonic()
    if victim == "browser":
        visitor.kill()
        visitor.open()
        visitor.page.goto(server.url)
    elif victim == "server":
        server.kill()
        seen = visitor.sees()  # all that had been sent is there
        server.check_database()
        begin = time.monotonic()
        server.start()
    else:
        server.kill_engine()
        until(lambda: _ready(visitor), "the engine was ready again")
    tally.back_seconds[victim].append(time.monotonic() - begin)
    tally.kills[victim] += 1

    tree = until(visitor.newest, "there was a conversation") if seen else visitor.newest()
    if tree is None or (known is not None and tree["id"] == known["id"]) or not tree["messages"]:
        check(not seen, "an answer was seen of which there is nothing")
        tally.before_the_question += 1
        return
    path = f"conversations/{tree['id']}"
    question, answer = until(lambda: _written(visitor.get(path)), "the answer was written, or cut")
    check(question["content"] == "Tell me a story", "the question is another one")
    check(answer["content"].startswith(seen), f"lost: {seen!r} was seen, and {answer['content']!r} is there")
    check(STORY.startswith(answer["content"]), f"not the story: {answer['content']!r}")
    tally.characters += len(seen)
    if answer["status"] == "complete":
        check(answer["content"] == STORY, "a whole answer is not whole")
    else:
        expected = {"server": ("interrupted", "interrupted"), "engine": ("failed", "engine_unavailable")}
        found = answer["status"], answer["error"]["code"]
        check(victim in expected and found == expected[victim], f"killed was the {victim}, and it says {found}")
        tally.cut[victim] += 1
        until(lambda: _ready(visitor), "the engine was ready again")
        visitor.page.goto(f"{server.url}/c/{tree['id']}")
        visitor.page.get_by_role("button", name="Continue", exact=True).click(timeout=1000 * _PATIENCE)
        until(lambda: _again(visitor.get(path), answer), "it was begun to be continued")
        again, answer = until(lambda: _written(visitor.get(path)), "the answer was written to its end")
        check((again["id"], answer["status"]) == (question["id"], "complete"), "it was not continued in its place")
        check(answer["content"] == STORY, f"not the story: {answer['content']!r}")
    visitor.page.goto(f"{server.url}/c/{tree['id']}")
    expect(visitor.page.get_by_role("article").last).to_contain_text(STORY[-20:], timeout=1000 * _PATIENCE)
    check(visitor.page.get_by_role("article").count() == 2, "there are not two messages on the page")
    check(visitor.sees() == STORY, "the page does not show the whole story")


def _written(tree: Any) -> tuple[Any, Any] | None:
    roles = [message["role"] for message in tree["messages"]]
    check(roles == ["user", "assistant"], f"there are not one question and one answer, but {roles}")
    question, answer = tree["messages"]
    return None if answer["status"] == "running" else (question, answer)


def _again(tree: Any, cut: Any) -> bool:
    now = tree["messages"][-1]
    return (now["status"], now["content"]) != (cut["status"], cut["content"])


def _ready(visitor: Visitor) -> bool:
    return bool(visitor._http.get("/readyz").status_code == 200)


def run(kills: int, seed: int) -> Tally:
    tally = Tally()
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server = Server(Path(home))
        visitor = Visitor(playwright, server)
        try:
            for number in range(kills):
                victim = VICTIMS[number % len(VICTIMS)]
                pause = draw.uniform(0.05, _LONGEST)
                try:
                    kill_once(victim, server, visitor, tally, pause)
                except (Wrong, AssertionError, httpx.HTTPError) as error:
                    tally.wrong.append(f"kill {number + 1}, of the {victim} after {pause:.2f} s: {error}")
                    print(tally.wrong[-1], file=sys.stderr, flush=True)
        finally:
            visitor.close()
            server.stop()
        server.check_database()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    print(machine := Machine.here())
    tally = run(arguments.kills, arguments.seed)
    for victim in VICTIMS:
        back = sorted(tally.back_seconds[victim]) or [0.0]
        print(
            f"{victim}: killed {tally.kills[victim]} times, {tally.cut[victim]} answers cut and continued; back in "
            f"{back[len(back) // 2]:.1f} s (most {back[-1]:.1f})"
        )
    print(
        f"killed before the question had arrived: {tally.before_the_question}; characters seen before the kills: "
        f"{tally.characters:,}; wrong: {len(tally.wrong)}"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": asdict(machine), **asdict(tally)}, indent=2))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
