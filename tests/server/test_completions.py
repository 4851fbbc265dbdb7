"""Plain completions: prompts of every kind, echo with log-probabilities as lm-eval reads them, best_of."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from fireside.engine.messages import GenerationRequest, TokenLogprobs
from fireside.engine.scripted import ScriptedAnswer
from tests.server.scripted_app import Scripted, says


async def complete(http: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ab", [[97, 98]]),
        ([97, 98], [[97, 98]]),
        (["ab", "c"], [[97, 98], [99]]),
        ([[97, 98], [99]], [[97, 98], [99]]),
    ],
    ids=str,
)
async def test_prompts_of_every_kind(
    http: httpx.AsyncClient, script: Scripted, prompt: Any, expected: list[list[int]]
) -> None:
    answer = await complete(http, prompt=prompt, n=2)
    assert [list(request.prompt_ids) for request in script.client.requests] == [ids for ids in expected for _ in "12"]
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(expected)))
    assert answer["usage"]["prompt_tokens"] == sum(map(len, expected))
    assert answer["usage"]["completion_tokens"] == 2 * len(expected) * len("Hello there.\0")


async def test_sixteen_tokens_unless_told_otherwise(http: httpx.AsyncClient, script: Scripted) -> None:
    script.answer = says("x" * 100)
    (choice,) = (await complete(http, prompt="ab"))["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("x" * 16, "length")


async def test_lm_eval_scores_a_continuation(http: httpx.AsyncClient, script: Scripted) -> None:
    """The request of lm-eval's `local-completions`, and what it computes from the answer.

    https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/models/openai_completions.py
    """
    script.answer = says("x")
    contexts, continuations = [[65, 66, 67], [68]], [[68, 69], [70, 71]]
    answer = await complete(
        http,
        model="tiny",
        prompt=[a + b for a, b in zip(contexts, continuations, strict=True)],
        temperature=0,
        max_tokens=1,
        logprobs=1,
        seed=1234,
        echo=True,
    )
    for choice, context, continuation in zip(answer["choices"], contexts, continuations, strict=True):
        logprobs = choice["logprobs"]
        scores = logprobs["token_logprobs"][len(context) : -1]
        likeliest = logprobs["top_logprobs"][len(context) : -1]
        assert scores == [-0.125] * len(continuation)
        assert all(score == max(top.values()) for score, top in zip(scores, likeliest, strict=True))


async def test_scoring_alone_draws_no_token(http: httpx.AsyncClient, script: Scripted) -> None:
    answer = await complete(http, prompt="añb", max_tokens=0, echo=True, logprobs=2)
    (choice,) = answer["choices"]
    assert choice["text"] == "añb"
    assert script.client.requests[0].sampling.max_tokens == 0
    assert answer["usage"]["completion_tokens"] == 0
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == len("añb".encode()) == len(logprobs["text_offset"])
    assert logprobs["top_logprobs"][-1] == {"b": -0.125, "c": -1.0}


async def test_offsets_point_into_the_text(http: httpx.AsyncClient) -> None:
    (choice,) = (await complete(http, prompt="abc", max_tokens=3, echo=True, logprobs=0))["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"] == "abcHel"
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset : offset + len(token)] == token


async def test_echo_without_logprobs(http: httpx.AsyncClient) -> None:
    (choice,) = (await complete(http, prompt=[97, 98], max_tokens=2, echo=True))["choices"]
    assert (choice["text"], choice["logprobs"]) == ("abHe", None)


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("logprobs", [None, 2])
async def test_a_stream_joins_to_the_whole(base_url: str, echo: bool, logprobs: int | None) -> None:
    client = AsyncOpenAI(base_url=f"{base_url}/v1", api_key="x", max_retries=0)
    asked: dict[str, Any] = {"model": "tiny", "prompt": ["ab", "cde"], "echo": echo, "logprobs": logprobs, "n": 2}
    whole = await client.completions.create(**asked)
    choices: list[dict[str, Any]] = [{"text": "", "logprobs": None, "finish_reason": None} for _ in whole.choices]
    async for chunk in await client.completions.create(**asked, stream=True):
        (piece,) = chunk.choices
        choice = choices[piece.index]
        choice["text"] += piece.text
        choice["finish_reason"] = piece.finish_reason or choice["finish_reason"]
        if piece.logprobs is not None:
            fields = choice["logprobs"] = choice["logprobs"] or {}
            for name, values in piece.logprobs.model_dump().items():
                fields.setdefault(name, []).extend(values)
    for choice, expected in zip(choices, whole.choices, strict=True):
        assert choice["text"] == expected.text
        assert choice["finish_reason"] == expected.finish_reason
        assert choice["logprobs"] == (expected.logprobs and expected.logprobs.model_dump())


async def test_best_of_answers_with_the_likeliest(http: httpx.AsyncClient, script: Scripted) -> None:
    # Mean log-probability by seed: 10 → -3, 11 → -1, 12 → -2.
    means = {10: -3.0, 11: -1.0, 12: -2.0}

    def answer(request: GenerationRequest) -> ScriptedAnswer:
        text = f"{request.sampling.seed}"
        return says(text, logprobs=[TokenLogprobs(means[request.sampling.seed])] * 3)

    script.answer = answer
    result = await complete(http, prompt="a", seed=10, best_of=3, n=2)
    assert [choice["text"] for choice in result["choices"]] == ["11", "12"]
    assert [choice["index"] for choice in result["choices"]] == [0, 1]
    assert result["choices"][0]["logprobs"] is None
    assert result["usage"]["completion_tokens"] == 3 * 3


async def test_text_that_could_be_a_stop_string_is_held_back(http: httpx.AsyncClient, script: Scripted) -> None:
    script.answer = says("one two")
    (choice,) = (await complete(http, prompt="a", stop="two"))["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("one ", "stop", "two")
    (choice,) = (await complete(http, prompt="a", stop="two", include_stop_str_in_output=True))["choices"]
    assert choice["text"] == "one two"
