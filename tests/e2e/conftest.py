"""A real server with a scripted engine, and a real Chromium that walks through the app."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from fireside.engine.messages import GenerationRequest
from fireside.engine.scripted import ScriptedAnswer
from tests.server.accounts.people import context_of
from tests.server.scripted_app import Scripted, byte_tokenizer, running, says, scripted_app

NAMES = ("chromium", "chromium-browser", "google-chrome")
PASSWORD = "correct horse battery"

expect.set_options(timeout=15_000)  # milliseconds: machines that run tests are busy


def slowly(text: str) -> ScriptedAnswer:
    """Slow enough to be met in the middle: about 300 characters a second."""
    return says(text, delay=0.02, tokens_per_output=6)


@dataclass
class Model:
    """Answers by what the question contains. Titles are the last thing that it was told to call something."""

    answers: dict[str, ScriptedAnswer | Callable[[str], ScriptedAnswer]] = field(default_factory=dict)
    title: str = "A conversation"
    questions: list[str] = field(default_factory=list)

    def __call__(self, request: GenerationRequest) -> ScriptedAnswer:
        prompt = byte_tokenizer().decode(request.prompt_ids, skip_special_tokens=False)
        question = prompt.rsplit("<|im_start|>user\n", 1)[-1].split("<|im_end|>")[0]
        if question.startswith("Write a short title"):
            return says(self.title)
        self.questions.append(question)
        answer = next((answer for words, answer in self.answers.items() if words in question), says("Hello there."))
        return answer(prompt) if callable(answer) else answer


@dataclass
class Site:
    """A server without people. setup_link: makes the administrator, once."""

    url: str
    setup_link: str
    model: Model


@pytest.fixture(scope="package")  # Playwright's event loop runs as long, and no asynchronous test can beside it
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"the app is walked through in a browser, and none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def serving(**others: Scripted) -> Iterator[Site]:
    """others: more models, by name. "second" is on the machine and can be loaded."""
    model = Model()
    app = scripted_app(
        Scripted(answer=model), others=others, library={"second": Scripted(answer=says("I am the second."))}
    )
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def with_link(app: FastAPI) -> AsyncIterator[object]:
        async with lifespan(app) as state:
            app.state.setup_token = await context_of(app).accounts.new_setup_token()
            yield state

    app.router.lifespan_context = with_link
    with running(app) as url:
        yield Site(url, f"{url}/setup#{app.state.setup_token}", model)


@pytest.fixture
def empty_site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def signed_in(site: Site) -> dict[str, Any]:
    """What a browser keeps that Ada has signed in with."""
    token = site.setup_link.partition("#")[2]
    account = {"token": token, "name": "Ada Lovelace", "email": "ada@example.com", "password": PASSWORD}
    with httpx.Client(base_url=site.url, headers={"X-Fireside": "1"}) as client:
        client.post("/api/setup", json=account).raise_for_status()
        cookies = [{"name": name, "value": value, "url": site.url} for name, value in client.cookies.items()]
    return {"cookies": cookies, "origins": []}


@dataclass
class Complaints:
    """What a browser reported that no page of ours may cause."""

    said: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.said.append(f"exception: {error}"))
        page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self._check_address(request.url))

    def _note(self, text: str) -> None:
        # A wrong password is answered with 401, a question that came too late with 409, and tests cut connections:
        # browsers report all of it by themselves.
        if not re.search("status of (401|409)|ERR_(CONNECTION_RESET|INTERNET_DISCONNECTED)", text):
            self.said.append(text)

    def _check_address(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.said.append(f"a request to {url}")


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    complaints = Complaints()
    yield complaints
    assert complaints.said == []


@pytest.fixture
def new_page(browser: Browser, complaints: Complaints) -> Iterator[Callable[..., Page]]:
    contexts: list[BrowserContext] = []

    def new(**options: Any) -> Page:
        # What a service worker fetches passes by the routes that tests put up.
        usual = {"locale": "en-GB", "viewport": {"width": 1100, "height": 760}, "service_workers": "block"}
        context = browser.new_context(**{**usual, **options})
        contexts.append(context)
        page = context.new_page()
        complaints.watch(page)
        return page

    yield new
    for context in contexts:
        context.close()


@pytest.fixture
def page(site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page]) -> Page:
    """Ada's, at a new conversation."""
    site.model.answers.clear()
    page = new_page(storage_state=signed_in)
    page.goto(site.url)
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    return page
