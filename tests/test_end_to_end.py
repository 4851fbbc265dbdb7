"""The whole of it: `fireside serve` on a tiny model with its real engine, and the official client talking to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.engine.tiny_model import write_tiny_model

WAIT = 120  # seconds: a first start compiles the kernels


class Server:
    def __init__(self, model: Path, home: Path, **more: str) -> None:
        settings = {"MODEL": str(model), "HOME": str(home), "PORT": "0", "DEVICE": "cpu", **more}
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FIRESIDE_")}
        environment = clean | {f"FIRESIDE_{key}": value for key, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fireside.cli.main", "serve"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            if found := re.search(r"ready on (http://\S+)", line):
                self.url = found[1]
                return
        raise AssertionError(f"the server ended before it was ready: {seen}")

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=WAIT)

    def worker_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = [
            int(child) for child in children if b"fireside.engine.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        return pid

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(write_tiny_model(tmp_path_factory.mktemp("tiny")), tmp_path_factory.mktemp("home"))
    yield server
    assert server.stop() == 0


def ask(client: OpenAI, text: str, **values: object) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(  # type: ignore[call-overload,no-any-return]
        model="default", messages=[{"role": "user", "content": text}], **{"max_tokens": 40, **values}
    )


def test_an_answer_is_the_same_alone_in_a_crowd_and_streamed(server: Server) -> None:
    client = server.client()
    seeded = {"seed": 7, "temperature": 0.9, "extra_body": {"ignore_eos": True}}
    alone = ask(client, "Hello", **seeded).choices[0].message.content
    with ThreadPoolExecutor(17) as pool:
        crowd = [pool.submit(ask, client, f"Question {i}", temperature=1.0, seed=i) for i in range(16)]
        again = ask(client, "Hello", **seeded)
        for other in crowd:
            other.result()
    assert again.choices[0].message.content == alone
    assert again.usage is not None and again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    events = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "Hello"}], max_tokens=40, stream=True, **seeded
    )
    assert "".join(event.choices[0].delta.content or "" for event in events) == alone


def test_a_schema_is_kept_by_a_model_that_knows_nothing(server: Server) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "maximum": 99, "minimum": 0}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
    answer = ask(server.client(), "A thing?", response_format=shape, max_tokens=100).choices[0]
    assert answer.finish_reason == "stop"
    assert re.fullmatch(r'\{"colour": "(red|green)", "count": \d{1,2}\}', answer.message.content or "")


def test_a_client_that_hangs_up_stops_the_engine(server: Server) -> None:
    endless = {"max_tokens": 400, "extra_body": {"ignore_eos": True}, "stream": True}
    with ask(server.client(), "Count", **endless) as events:  # type: ignore[attr-defined]
        next(iter(events))
    deadline = time.monotonic() + WAIT
    while "fireside_engine_running{model" in (metrics := httpx.get(f"{server.url}/metrics").text):
        (running,) = re.findall(r"^fireside_engine_running\{[^}]*\} (\S+)", metrics, re.MULTILINE)
        if float(running) == 0:
            return
        assert time.monotonic() < deadline
        time.sleep(0.2)
    raise AssertionError("no gauge of running requests")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the worker's process through /proc")
def test_a_killed_worker_comes_back_and_the_server_stays(server: Server) -> None:
    client = server.client()
    events = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Count"}],
        max_tokens=450,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    stream = iter(events)
    next(stream)
    os.kill(server.worker_pid(), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="may be sent again"):
        for _ in stream:
            pass
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    deadline = time.monotonic() + WAIT
    while httpx.get(f"{server.url}/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert ask(client, "Hello").choices[0].finish_reason in ("stop", "length")


def test_after_a_restart_the_system_prompt_is_not_computed_again(tmp_path: Path) -> None:
    model, home = write_tiny_model(tmp_path / "model"), tmp_path / "home"
    answers, cached = [], []
    for tokens in ("4096", "4096", "0"):
        server = Server(model, home, SAVED_PREFIX_TOKENS=tokens)
        completion = server.client().chat.completions.create(
            model="default",
            messages=[
                {"role": "system", "content": "You are a helpful assistant. " * 5},
                {"role": "user", "content": "Hello"},
            ],
            max_tokens=20,
            temperature=0,
        )
        assert server.stop() == 0
        assert completion.usage is not None and completion.usage.prompt_tokens_details is not None
        answers.append(completion.choices[0].message.content)
        cached.append(completion.usage.prompt_tokens_details.cached_tokens)
    assert answers[0] == answers[1] == answers[2]
    assert cached[0] == cached[2] == 0 and cached[1] >= 144
