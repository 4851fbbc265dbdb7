"""What cannot be served is refused in OpenAI's envelope, with the parameter's name and in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fireside.assistant.errors import PromptError
from fireside.assistant.messages import normalised
from fireside.assistant.text_model import TextModel
from fireside.server.body import parse_json
from fireside.tokenizers.tokenizer import SLICE, Tokenizer
from tests.server.scripted_app import Scripted, says, scripted_app

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 1.5}, "n"),
        ({"stop": 4}, "stop"),
        ({"stop": ["a", 4]}, "stop[1]"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"logit_bias": {"65": 101}}, "logit_bias.65"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"258": 1}}, "logit_bias"),
        ({"logit_bias": {"²": 1}}, "logit_bias"),
        ({"stop_token_ids": [258]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"priority": 2**63}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include": True}}, "stream_options.include"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": {"type": "nothing"}}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a"], "guided_regex": "a"}, "guided_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/no"}}}},
            "response_format",
        ),
        ({"temprature": 1}, "temprature"),
        ({"model": "gpt-4"}, "model"),
        ({"model": 4}, "model"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_bad_value_is_named(http: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str) -> None:
    base = {"messages": [USER]} if path == CHAT else {"prompt": "Hi"}
    error = error_of(await http.post(path, json=base | fields), 404 if fields == {"model": "gpt-4"} else 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [USER, {"role": "robot", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [USER], "chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"messages": [USER], "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"messages": [USER, {"role": "system", "content": "x"}]}, "messages[1].role"),  # the template's own rule
        ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[1].role"),
        ({"messages": [USER, CALLING, USER]}, "messages[2].role"),
        ({"messages": [USER, CALLING]}, "messages[1].tool_calls"),
        ({"messages": [USER], "continue_final_message": True}, "messages[0].role"),
        ({"messages": [USER], "top_logprobs": 2}, "top_logprobs"),
        ({"messages": [USER], "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": [USER], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [USER], "tool_choice": "sometimes"}, "tool_choice"),
        (
            {"messages": [USER], "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice.function.name",
        ),
        ({"messages": [USER], "tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"messages": [USER], "tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"messages": [USER], "modalities": ["audio"]}, "modalities[0]"),
        ({"messages": [USER], "functions": [{"name": "f"}]}, "functions"),
    ],
    ids=str,
)
async def test_a_bad_conversation_is_named(http: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    assert error_of(await http.post(CHAT, json=body), 400)["param"] == param


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 2}], ids=str)
async def test_the_assistants_rules_of_a_conversation_are_the_servers(
    http: httpx.AsyncClient, script: Scripted, more: dict[str, Any]
) -> None:
    messages = [USER, CALLING, USER]
    with pytest.raises(PromptError) as raised:
        normalised(messages)
    error = error_of(await http.post(CHAT, json={"messages": messages} | more), 400)
    assert (error["message"], error["param"]) == (str(raised.value), raised.value.param)
    assert error["code"] == "invalid_value"
    tokens = await http.post("/tokenize", json={"messages": messages})
    assert error_of(tokens, 400) == error
    assert not script.client.requests


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [258]}, "prompt"),
        ({"prompt": [[1], [-1]]}, "prompt[1][0]"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "n": 2, "best_of": 1}, "best_of"),
        ({"prompt": "x", "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": ["x"] * 500}, "prompt"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_completion_is_named(http: httpx.AsyncClient, fields: dict[str, Any], param: str) -> None:
    assert error_of(await http.post(COMPLETIONS, json=fields), 400)["param"] == param


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_longer_than_the_context(http: httpx.AsyncClient, script: Scripted, stream: bool) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 3000}], "stream": stream}
    error = error_of(await http.post(CHAT, json=body), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "2,048" in error["message"] and "3,0" in error["message"]
    assert not script.client.requests


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"null",
        b"[]",
        b'{"messages": \xff}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "x"}], "guided_json": {"minimum": 1e999}}',
        b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 5000 + b"}",
        b'{"messages": ' + b"[" * 100_000,
        b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"messages": ' + b'{"a":' * 100_000,
    ],
    ids=lambda body: body[:60] + b"..." if len(body) > 60 else body,
)
async def test_what_is_not_json(http: httpx.AsyncClient, body: bytes) -> None:
    error_of(await http.post(CHAT, content=body, headers={"Content-Type": "application/json"}), 400)


async def test_json_must_say_that_it_is(http: httpx.AsyncClient) -> None:
    """A web page of another site can send text/plain without asking; never application/json."""
    body = json.dumps({"messages": [USER]}).encode()
    error = error_of(await http.post(CHAT, content=body, headers={"Content-Type": "text/plain"}), 400)
    assert "application/json" in error["message"]


async def test_ten_thousand_messages(http: httpx.AsyncClient, script: Scripted) -> None:
    error = error_of(await http.post(CHAT, json={"messages": [USER] * 10_000}), 400)
    assert error["param"] == "messages" and "2048" in error["message"]
    assert not script.client.requests


async def test_a_declared_size_is_believed_and_an_undeclared_one_counted() -> None:
    app = scripted_app(Scripted(), max_body_bytes=1024)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 512
            yield b" " * 512

    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        headers = {"Content-Type": "application/json"}
        declared = await http.post(CHAT, content=b" " * 2000, headers=headers)
        assert error_of(declared, 413)["code"] == "request_too_large"
        assert declared.headers["connection"] == "close"
        error_of(await http.post(CHAT, content=endless(), headers=headers), 413)
        assert sent < 4096


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x" * (7 << 20)}]}, ("messages", "2,048")),
        (
            CHAT,
            {"messages": [USER], "tools": [TOOL | {"function": {"name": "f", "description": "x" * (7 << 20)}}]},
            ("messages", "2,048"),
        ),
        (COMPLETIONS, {"prompt": "x" * (7 << 20)}, ("prompt", "2,048")),
        ("/tokenize", {"prompt": "x" * (7 << 20)}, ("prompt", "500,000")),
    ],
    ids=["message", "tool", "prompt", "tokenize"],
)
async def test_a_prompt_far_too_long_is_not_encoded_whole(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], error: tuple[str, str]
) -> None:
    longest = 0
    encode = Tokenizer._rust_ids

    def watched(tokenizer: Tokenizer, text: str) -> list[int]:
        nonlocal longest
        longest = max(longest, len(text))
        assert threading.current_thread() is not threading.main_thread()  # where streams go on meanwhile
        return encode(tokenizer, text)

    monkeypatch.setattr(Tokenizer, "_rust_ids", watched)
    param, number = error
    refused = error_of(await http.post(path, json=body), 400)
    assert refused["param"] == param and number in refused["message"]
    assert 0 < longest <= SLICE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"response_format": {"type": "xml"}}, "must be one of 'text', 'json_object', 'json_schema', not 'xml'"),
        ({"response_format": {}}, "response_format.type: is required"),
    ],
    ids=str,
)
async def test_a_choice_of_kinds_is_told_in_plain_words(
    http: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    assert message in error_of(await http.post(CHAT, json={"messages": [USER]} | fields), 400)["message"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_prompt_is_encoded_once_for_all_its_answers(
    http: httpx.AsyncClient, script: Scripted, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    encoded = 0
    encode = TextModel.encode

    async def counted(model: TextModel, *args: Any, **options: Any) -> tuple[int, ...]:
        nonlocal encoded
        encoded += 1
        return await encode(model, *args, **options)

    monkeypatch.setattr(TextModel, "encode", counted)
    body = {"messages": [USER]} if path == CHAT else {"prompt": "Hi"}
    assert len((await http.post(path, json=body | {"n": 5})).json()["choices"]) == 5
    assert (encoded, len(script.client.requests)) == (1, 5)


async def test_the_template_sees_further_values_and_no_others(http: httpx.AsyncClient, script: Scripted) -> None:
    """Names of our own parameters among them."""
    values = {"self": 1, "tokenizer": 2, "limit": 3, "variables": 4, "enable_thinking": False}
    response = await http.post(CHAT, json={"messages": [USER], "chat_template_kwargs": values})
    assert response.status_code == 200, response.text
    assert "Hi" in script.prompt()


def test_a_long_list_of_token_ids_is_taken() -> None:
    ids = list(range(200_000))
    assert parse_json(json.dumps({"prompt": ids}).encode()) == {"prompt": ids}


def test_memory_is_bounded_whatever_the_body_holds() -> None:
    """The worst bodies of up to 8 MiB: very many small values, most of them wrong for their place."""
    program = """
from pydantic import ValidationError
from fireside.server.api.schemas.chat import ChatCompletionRequest
from fireside.server.body import MAX_JSON_SEPARATORS, parse_json
from fireside.server.errors import ApiError
from tests.server.peak_memory import peak_mib
before = peak_mib()
for item in (b"[]", b"{}", b'{"a":1}', b"1.5", b'"a"'):
    for count in ((8 << 20) // (len(item) + 1), MAX_JSON_SEPARATORS // (1 + item.count(b"{") + item.count(b"[")) - 9):
        body = b'{"messages":[' + item + (b"," + item) * count + b"]}"
        try:
            ChatCompletionRequest.model_validate(parse_json(body))
        except ApiError as error:
            assert error.status_code == 400
        except ValidationError as error:
            assert error.error_count() < 10
        else:
            raise AssertionError("accepted")
print(peak_mib() - before)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 120  # MiB; without the bound more than 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405), ("GET", "/v1/models/none", 404)],
)
async def test_routing_errors_have_the_envelope(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    error_of(await http.request(method, path), status)


async def test_a_fault_of_ours_tells_nothing_of_the_inside(http: httpx.AsyncClient, script: Scripted) -> None:
    def broken(_: object) -> None:
        raise KeyError("secret detail")

    script.answer = broken
    error = error_of(await http.post(CHAT, json={"messages": [USER]}), 500)
    assert error["type"] == "server_error"
    assert "secret" not in str(error)
    stream = await http.post(CHAT, json={"messages": [USER], "stream": True})
    assert "secret" not in error_of(stream, 500)["message"]


async def test_what_openais_own_service_takes_besides_is_taken(http: httpx.AsyncClient, script: Scripted) -> None:
    script.answer = says("ok")
    extras = {
        "store": True,
        "metadata": {"a": "b"},
        "user": "u",
        "service_tier": "auto",
        "reasoning_effort": "low",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "logit_bias": {"foo": 0},
    }
    response = await http.post(CHAT, json={"messages": [{"role": "developer", "content": "x"}], **extras})
    assert response.status_code == 200
    assert script.prompt().startswith("<|im_start|>system\nx")
