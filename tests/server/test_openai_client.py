"""The official client against a real server on a real socket: it says what OpenAI's wire format is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionPredictionContentParam, ChatCompletionToolParam
from pydantic import BaseModel

from fireside.engine.client import EngineBusy, EngineUnavailable, RequestRejected
from fireside.engine.scripted import ScriptedAnswer
from tests.server.scripted_app import IM_END, Scripted, running, says, scripted_app

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Turku"}}\n</tool_call>'
USER = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
def client(base_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0, _strict_response_validation=True) as client:
        yield client


def test_chat(client: OpenAI, script: Scripted) -> None:
    script.answer = says("Grüß dich 👋", cached_tokens=16)
    completion = client.chat.completions.create(model="tiny", messages=USER, seed=7, temperature=0.5, top_p=0.9)
    (choice,) = completion.choices
    assert choice.message.content == "Grüß dich 👋"
    assert choice.message.role == "assistant"
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    assert script.prompt() == "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    assert completion.usage is not None
    prompt_tokens = len(script.client.requests[0].prompt_ids)
    answer_tokens = len("Grüß dich 👋".encode()) + 1  # and the token that ended it
    assert completion.usage.prompt_tokens == prompt_tokens
    assert completion.usage.completion_tokens == answer_tokens
    assert completion.usage.total_tokens == prompt_tokens + answer_tokens
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 16
    sampling = script.client.requests[0].sampling
    assert (sampling.seed, sampling.temperature, sampling.top_p) == (7, 0.5, 0.9)


@pytest.mark.parametrize(
    "content", ["Hello you.", [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you."}]]
)
def test_a_prediction(client: OpenAI, script: Scripted, content: Any) -> None:
    script.answer = says("Hello there.", accepted_prediction_tokens=6, rejected_prediction_tokens=4)
    prediction: ChatCompletionPredictionContentParam = {"type": "content", "content": content}
    completion = client.chat.completions.create(model="tiny", messages=USER, prediction=prediction, n=2)
    assert {choice.message.content for choice in completion.choices} == {"Hello there."}
    assert [bytes(request.predicted_ids) for request in script.client.requests] == [b"Hello you."] * 2
    assert completion.usage is not None and completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.accepted_prediction_tokens == 12
    assert completion.usage.completion_tokens_details.rejected_prediction_tokens == 8
    stream = client.chat.completions.create(
        model="tiny",
        messages=USER,
        prediction=prediction,
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
    )
    *_, last = stream
    assert last.usage is not None and last.usage.completion_tokens_details is not None
    assert last.usage.completion_tokens_details.accepted_prediction_tokens == 6
    assert bytes(script.client.requests[-1].predicted_ids) == b"Hello"  # no more than the answer may have
    assert client.chat.completions.create(model="tiny", messages=USER).usage.completion_tokens_details is None


def test_a_prediction_longer_than_any_answer_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="prediction has over") as refused:
        client.chat.completions.create(
            model="tiny", messages=USER, prediction={"type": "content", "content": "Hello there. " * 10_000}
        )
    assert refused.value.param == "prediction"


def test_chat_stream_joins_to_the_whole_answer(client: OpenAI, script: Scripted) -> None:
    script.answer = says("Grüß dich 👋")
    stream = client.chat.completions.create(
        model="default", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Grüß dich 👋"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_clients_own_accumulator_reads_the_stream(client: OpenAI, script: Scripted) -> None:
    script.answer = says(CALL)
    with client.chat.completions.stream(model="tiny", messages=USER, tools=[WEATHER]) as stream:
        kinds = {event.type for event in stream}
        completion = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    (call,) = completion.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"place": "Turku"}
    assert completion.choices[0].finish_reason == "tool_calls"


def test_n_choices_have_seeds_of_their_own(client: OpenAI, script: Scripted) -> None:
    script.answer = lambda request: says(f"seed {request.sampling.seed}")
    alone = client.chat.completions.create(model="tiny", messages=USER, seed=41)
    three = client.chat.completions.create(model="tiny", messages=USER, seed=41, n=3)
    assert three.choices[0].message.content == alone.choices[0].message.content == "seed 41"
    assert len({choice.message.content for choice in three.choices}) == 3
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert three.usage is not None and alone.usage is not None
    assert three.usage.prompt_tokens == alone.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * alone.usage.completion_tokens


def test_n_choices_streamed_are_told_apart_by_index(client: OpenAI, script: Scripted) -> None:
    script.answer = lambda request: says(f"seed {request.sampling.seed}")
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(model="tiny", messages=USER, seed=5, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["seed 5", "seed 6", "seed 7"]


def test_logprobs(client: OpenAI, script: Scripted) -> None:
    script.answer = says("ab")
    completion = client.chat.completions.create(model="tiny", messages=USER, logprobs=True, top_logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    first, second = logprobs.content[:2]
    assert (first.token, first.bytes, first.logprob) == ("a", [97], -0.125)
    assert [(top.token, top.logprob) for top in second.top_logprobs] == [("b", -0.125), ("c", -1.0)]


def test_stop_strings_and_token_limits(client: OpenAI, script: Scripted) -> None:
    script.answer = says("one two three")
    stopped = client.chat.completions.create(model="tiny", messages=USER, stop=[" two"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one", "stop")
    for limit in ({"max_tokens": 3}, {"max_completion_tokens": 3}, {"max_tokens": 9, "max_completion_tokens": 3}):
        cut = client.chat.completions.create(model="tiny", messages=USER, **limit)  # type: ignore[call-overload]
        assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one", "length")
    none = client.chat.completions.create(model="tiny", messages=USER, max_completion_tokens=0)
    assert (none.choices[0].message.content, none.choices[0].finish_reason) == ("", "length")


def test_vllm_extensions_reach_the_engine(client: OpenAI, script: Scripted) -> None:
    client.chat.completions.create(
        model="tiny",
        messages=USER,
        logit_bias={"65": 5, "66": -100},
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        extra_body={
            "top_k": 5,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "min_tokens": 2,
            "stop_token_ids": [46],
            "ignore_eos": True,
        },
    )
    sampling = script.client.requests[0].sampling
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty, sampling.min_tokens) == (5, 0.1, 1.1, 2)
    assert sampling.stop_token_ids == (46,)  # and not the model's own, which are ignored
    assert sampling.logit_bias == {65: 5.0, 66: -100.0}
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -0.5)


@pytest.mark.parametrize(
    ("given", "reached"), [(None, 0), (-3, -3), (7, 7), (-(2**63), -100), (1_790_000_000, 100)], ids=str
)
def test_priority_reaches_the_engine_within_its_bounds(
    client: OpenAI, script: Scripted, given: int | None, reached: int
) -> None:
    extra = {} if given is None else {"priority": given}
    client.chat.completions.create(model="tiny", messages=USER, extra_body=extra)
    client.completions.create(model="tiny", prompt="Hi", extra_body=extra)
    assert [request.priority for request in script.client.requests] == [reached, reached]


def test_tool_call_and_its_answer_make_a_round_trip(client: OpenAI, script: Scripted) -> None:
    script.answer = says(CALL)
    first = client.chat.completions.create(model="tiny", messages=USER, tools=[WEATHER])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    (call,) = message.tool_calls or []
    script.answer = says("It rains.")
    second = client.chat.completions.create(
        model="tiny",
        messages=[*USER, message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}],  # type: ignore[list-item]
        tools=[WEATHER],
    )
    assert second.choices[0].message.content == "It rains."
    assert "Turku" in script.prompt() and "rain" in script.prompt()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_required_call_is_enforced_by_a_grammar(client: OpenAI, script: Scripted, choice: object) -> None:
    script.answer = says(CALL)
    completion = client.chat.completions.create(
        model="tiny",
        messages=USER,
        tools=[WEATHER],
        tool_choice=choice,  # type: ignore[arg-type]
    )
    assert completion.choices[0].message.tool_calls
    grammar = script.client.requests[0].grammar
    assert grammar is not None and "get_weather" in grammar


def test_tool_choice_none_keeps_tools_out(client: OpenAI, script: Scripted) -> None:
    client.chat.completions.create(model="tiny", messages=USER, tools=[WEATHER], tool_choice="none")
    assert "get_weather" not in script.prompt()
    assert script.client.requests[0].grammar is None


class Person(BaseModel):
    name: str
    age: int


def test_structured_output_is_parsed(client: OpenAI, script: Scripted) -> None:
    script.answer = says('{"name": "Ada", "age": 36}')
    completion = client.chat.completions.parse(model="tiny", messages=USER, response_format=Person)
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36)
    grammar = json.loads(script.client.requests[0].grammar or "")
    schema = grammar["grammars"][0]["json_schema"]
    assert schema["properties"].keys() == {"name", "age"}


@pytest.mark.parametrize(
    "extra",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_json": {"type": "object"}},
        {"guided_json": '{"type": "object"}'},
        {"guided_regex": r"\d+"},
        {"guided_choice": ["yes", "no"]},
        {"structured_outputs": {"choice": ["yes", "no"]}},
    ],
    ids=str,
)
def test_every_form_of_constraint_becomes_a_grammar(client: OpenAI, script: Scripted, extra: dict[str, object]) -> None:
    client.chat.completions.create(model="tiny", messages=USER, extra_body=extra)
    client.completions.create(model="tiny", prompt="Yes or no?", extra_body=extra)
    assert all(request.grammar for request in script.client.requests)


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("default").id == client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("owner/other")


@pytest.mark.parametrize(
    ("failure", "expected", "code"),
    [
        (EngineBusy("the queue is full", retry_after=2.2), openai.RateLimitError, "queue_full"),
        (EngineUnavailable("the engine is restarting"), openai.InternalServerError, "engine_unavailable"),
        (RequestRejected("too long", "context_length"), openai.BadRequestError, "context_length_exceeded"),
        (RequestRejected("no", "grammar"), openai.BadRequestError, "invalid_grammar"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_engines_failure_is_a_status(
    client: OpenAI, script: Scripted, stream: bool, failure: Exception, expected: type[openai.APIStatusError], code: str
) -> None:
    script.answer = ScriptedAnswer(error=failure)  # type: ignore[arg-type]
    with pytest.raises(expected) as caught:
        client.chat.completions.create(model="tiny", messages=USER, stream=stream)
    assert caught.value.code == code
    assert caught.value.type in ("rate_limit_error", "server_error", "invalid_request_error")
    retry_after = caught.value.response.headers.get("retry-after")
    if isinstance(failure, EngineBusy):
        assert retry_after == "3"
    else:
        assert (retry_after is not None) == isinstance(failure, EngineUnavailable)


def test_an_engine_that_dies_mid_stream_is_an_error_event(client: OpenAI, script: Scripted) -> None:
    script.answer = says("Hello there.", crash_after=5)
    text = ""
    with pytest.raises(openai.APIError, match="restarted"):
        for chunk in client.chat.completions.create(model="tiny", messages=USER, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text == "Hello"


def test_a_queue_that_is_full_of_others() -> None:
    script = Scripted(answer=says("slow" * 50, delay=0.05), max_requests=1)
    with running(scripted_app(script)) as url, OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        with client.chat.completions.create(model="tiny", messages=USER, stream=True) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(model="tiny", messages=USER)
        assert script.client.in_flight <= 1


def test_unknown_models_mean_the_default_where_the_settings_say_so(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=USER)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with running(scripted_app(Scripted(), map_unknown_models=True)) as url:
        lenient = OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        assert lenient.chat.completions.create(model="gpt-4o", messages=USER).model == "tiny"
        assert lenient.completions.create(model="code-1", prompt="a", suffix="b").model == "tiny"
        with pytest.raises(openai.BadRequestError):  # asked of this model by its name, it would be a lie
            lenient.completions.create(model="tiny", prompt="a", suffix="b")


def test_a_request_without_a_seed_gets_one_of_its_own(client: OpenAI, script: Scripted) -> None:
    for _ in range(2):
        client.chat.completions.create(model="tiny", messages=USER)
    first, second = (request.sampling.seed for request in script.client.requests)
    assert first != second


def test_continue_final_message(client: OpenAI, script: Scripted) -> None:
    conversation = [*USER, {"role": "assistant", "content": "Once upon"}]
    client.chat.completions.create(
        model="tiny",
        messages=conversation,  # type: ignore[arg-type]
        extra_body={"continue_final_message": True},
    )
    assert script.prompt().endswith("<|im_start|>assistant\nOnce upon")


def test_prompt_logprobs(client: OpenAI, script: Scripted) -> None:
    answer = client.completions.create(model="tiny", prompt="ab", extra_body={"prompt_logprobs": 2})
    (choice,) = answer.model_dump()["choices"]
    assert choice["prompt_logprobs"] == [
        None,
        {
            "98": {"logprob": -0.125, "rank": 1, "decoded_token": "b"},
            "99": {"logprob": -1.0, "rank": 2, "decoded_token": "c"},
        },
    ]
    chat = client.chat.completions.create(model="tiny", messages=USER, extra_body={"prompt_logprobs": 0})
    listed = chat.model_dump()["prompt_logprobs"]
    assert len(listed) == len(script.client.requests[-1].prompt_ids)
    assert listed[0] is None


def test_user_text_never_becomes_a_control_token(client: OpenAI, script: Scripted) -> None:
    client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "<|im_end|>"}])
    assert script.client.requests[0].prompt_ids.count(IM_END) == 1


def test_requests_have_ids_of_their_own(client: OpenAI, script: Scripted) -> None:
    client.chat.completions.create(model="tiny", messages=USER, n=2)
    client.chat.completions.create(model="tiny", messages=USER)
    ids: list[str] = [request.id for request in script.client.requests]
    assert len(set(ids)) == 3
