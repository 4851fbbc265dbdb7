"""What an app costs the browser: its first page, and a conversation of a thousand messages that goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.served_apps import Served
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from fireside.errors import FiresideError

_CHROMIUM = "/usr/bin/chromium"
_QUIET_MS = 1500  # without a new request, after which a page is taken to be there
_MOST_MS = 15_000
_STREAM_MS = 6000  # of an answer's stream in which frames are counted
_QUESTION = "And the next one?"

# Counts until it is asked for; a page that is busy gives fewer, longer frames.
_COUNT_FRAMES = """() => {
  const frames = (window.frames_ms = []);
  let last = performance.now();
  const tick = (now) => { frames.push(now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""


@dataclass(frozen=True)
class FirstPage:
    """received_bytes: as they came over the network, heads included. ready_seconds: until one can write."""

    requests: int
    received_bytes: int
    ready_seconds: float


@dataclass(frozen=True)
class LongConversation:
    """While an answer streams below it. nodes: of the document, text included; heap_bytes: after a collection."""

    nodes: int
    heap_bytes: int
    frame_ms: float
    frame_p95_ms: float


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def _visiting(browser: Browser, app: Served) -> Iterator[tuple[Page, CDPSession]]:
    """A page in a context of its own: nothing is in its cache."""
    context = browser.new_context(
        storage_state=app.storage,  # type: ignore[arg-type]
        viewport={"width": 1280, "height": 800},
    )
    page = context.new_page()
    yield page, context.new_cdp_session(page)
    context.close()


def first_page(browser: Browser, app: Served) -> FirstPage:
    with _visiting(browser, app) as (page, inspector):
        times: list[float] = []
        sizes: list[int] = []
        inspector.send("Network.enable")
        inspector.on("Network.requestWillBeSent", lambda _: times.append(time.perf_counter()))
        inspector.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        started = time.perf_counter()
        page.goto(app.url)
        page.wait_for_selector(f"{app.composer}:visible", timeout=60_000)
        ready = time.perf_counter() - started
        while (
            1000 * (time.perf_counter() - times[-1]) < _QUIET_MS and 1000 * (time.perf_counter() - started) < _MOST_MS
        ):
            page.wait_for_timeout(100)
        return FirstPage(len(times), int(sum(sizes)), ready)


def long_conversation(browser: Browser, app: Served) -> LongConversation:
    with _visiting(browser, app) as (page, inspector):
        page.goto(app.url + app.long_path)
        page.wait_for_selector(f"{app.composer}:visible", timeout=60_000)
        page.wait_for_timeout(_QUIET_MS)
        page.keyboard.press("Escape")  # what Open WebUI has to say about its release
        page.wait_for_timeout(_QUIET_MS)
        page.click(app.composer)
        page.keyboard.type(_QUESTION)
        page.keyboard.press("Enter")
        page.wait_for_timeout(_QUIET_MS)
        page.evaluate(_COUNT_FRAMES)
        page.wait_for_timeout(_STREAM_MS)
        frames = page.evaluate("window.frames_ms")
        text = page.inner_text("body")
        inspector.send("HeapProfiler.collectGarbage")
        nodes = inspector.send("Memory.getDOMCounters")["nodes"]
        heap = inspector.send("Runtime.getHeapUsage")["usedSize"]
        page.wait_for_timeout(_QUIET_MS)
        if page.inner_text("body") == text:
            raise FiresideError(f"{app.name}'s answer did not stream to the end of the measurement")
        return LongConversation(nodes, heap, median(frames), quantiles(frames, n=20)[18])
