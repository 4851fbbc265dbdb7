"""Tool calls and structured answers through `TextModel`, over a scripted engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fireside.assistant.errors import PromptError
from fireside.assistant.text import (
    ChatPrompt,
    CompletionPrompt,
    OutputConstraint,
    ToolChoiceMode,
)
from tests.assistant.answers import HELLO, answer, calls, options, start
from tests.assistant.models import (
    CLOCK,
    HERMES_TEMPLATE,
    LLAMA_TEMPLATE,
    WEATHER,
    call,
    ids,
    tiny_tokenizer,
)


def with_tools(tools: Sequence[Any] = (WEATHER, CLOCK), **kwargs: Any) -> ChatPrompt:
    return replace(HELLO, tools=tools, **kwargs)


@pytest.mark.parametrize("template", [HERMES_TEMPLATE, None])
@pytest.mark.parametrize("markers_are_special", [False, True])
async def test_hermes_calls_are_parsed(template: str | None, markers_are_special: bool) -> None:
    tokenizer = tiny_tokenizer(markers_are_special=markers_are_special)
    text = f"Let me see.\n{call(city='Zürich')}\n{call('clock')}"
    kwargs = {"template": template} if template else {}
    model, engine = await start([ids(text, tokenizer=tokenizer)], tokenizer=tokenizer, **kwargs)
    chunk = await answer(model, with_tools())
    assert chunk.text == "Let me see."
    assert calls(chunk) == [("weather", {"city": "Zürich"}), ("clock", {})]
    assert chunk.finish_reason == "tool_calls"
    assert engine.requests[0].grammar is None
    assert '"weather"' in tokenizer.decode(engine.requests[0].prompt_ids)


async def test_llama_calls_are_parsed() -> None:
    text = '<|python_tag|>{"name": "weather", "parameters": {"city": "Bern"}}'
    model, _ = await start([ids(text)], template=LLAMA_TEMPLATE)
    chunk = await answer(model, with_tools())
    assert (chunk.text, calls(chunk), chunk.finish_reason) == ("", [("weather", {"city": "Bern"})], "tool_calls")


async def test_tool_choice_none_withholds_tools_and_parses_nothing() -> None:
    model, engine = await start([ids(call(city="Bern"))], template=HERMES_TEMPLATE)
    chunk = await answer(model, with_tools(tool_choice=ToolChoiceMode.NONE))
    assert (chunk.text, chunk.tool_calls, chunk.finish_reason) == (call(city="Bern"), (), "stop")
    assert "weather" not in tiny_tokenizer().decode(engine.requests[0].prompt_ids)


async def test_a_truncated_call_is_text() -> None:
    text = '<tool_call>\n{"name": "clock", "arg'
    model, _ = await start([ids(text, end=False)])
    chunk = await answer(model, with_tools(), options(max_tokens=len(ids(text, end=False))))
    assert (chunk.text, chunk.tool_calls, chunk.finish_reason) == (text, (), "length")


@pytest.mark.parametrize("cut", ["\n<tool", f"{call(city='A')}\n<tool"])
async def test_a_required_call_cut_off_within_its_marker_leaves_no_text(cut: str) -> None:
    model, _ = await start([ids(cut, end=False)])
    limit = options(max_tokens=len(ids(cut, end=False)))
    chunk = await answer(model, with_tools(tool_choice=ToolChoiceMode.REQUIRED), limit)
    assert (chunk.text, len(calls(chunk)), chunk.finish_reason) == ("", cut.count("}}"), "length")


async def test_required_and_named_calls_are_enforced_and_stream() -> None:
    model, engine = await start([ids(call(city="Bern"))])
    for choice in (ToolChoiceMode.REQUIRED, "weather"):
        chunk = await answer(model, with_tools(tool_choice=choice))
        assert calls(chunk) == [("weather", {"city": "Bern"})] and chunk.finish_reason == "tool_calls"
        assert len(chunk.tool_calls) > 3  # in pieces
    required, named = (json.loads(request.grammar or "") for request in engine.requests)
    assert len(required["grammars"]) == 3 and "clock" in required["grammars"][0]["lark_grammar"]
    assert len(named["grammars"]) == 2 and "clock" not in named["grammars"][0]["lark_grammar"]


@pytest.mark.parametrize(("tools", "choice"), [((), ToolChoiceMode.REQUIRED), ((), "f"), ((CLOCK,), "weather")])
async def test_a_call_of_no_tool_cannot_be_required(tools: Sequence[Any], choice: ToolChoiceMode | str) -> None:
    model, _ = await start([ids("a")])
    with pytest.raises(PromptError) as raised:
        await answer(model, with_tools(tools, tool_choice=choice))
    assert raised.value.param == "tool_choice"


async def test_one_call_at_a_time_ends_the_answer() -> None:
    model, engine = await start([ids(f"{call(city='A')}\n{call(city='B')}")])
    chunk = await answer(model, with_tools(parallel_tool_calls=False))
    assert calls(chunk) == [("weather", {"city": "A"})] and chunk.finish_reason == "tool_calls"
    assert len(engine.cancelled) == 1


async def test_strict_tools_and_forms_beside_tools_have_a_grammar() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    model, engine = await start([ids("Hello")])
    chunk = await answer(model, with_tools([strict]))
    assert chunk.text == "Hello" and "to_call" in (engine.requests[0].grammar or "")
    await answer(model, with_tools(constraint=OutputConstraint(kind="json_object")))
    assert "@answer | @calls" in (engine.requests[1].grammar or "")


async def test_a_grammar_that_cannot_be_is_refused_before_the_engine_hears_of_it() -> None:
    model, engine = await start([ids("a")])
    constraint = OutputConstraint(kind="regex", pattern="(", param="guided_regex")
    for prompt in (replace(HELLO, constraint=constraint), CompletionPrompt(text="a", constraint=constraint)):
        with pytest.raises(PromptError) as raised:
            await answer(model, prompt)
        assert raised.value.param == "guided_regex"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "$ref": "#/no"}}}
    with pytest.raises(PromptError) as raised:
        await answer(model, with_tools([tool], tool_choice=ToolChoiceMode.REQUIRED))
    assert raised.value.param == "tools"
    assert engine.requests == []


async def test_a_constraint_reaches_the_engine() -> None:
    model, engine = await start([ids("yes")])
    await answer(model, replace(HELLO, constraint=OutputConstraint(kind="choice", choices=("yes", "no"))))
    assert '\\"yes\\" | \\"no\\"' in (engine.requests[0].grammar or "")


async def test_history_with_calls_renders_for_every_template() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"B"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    for template in (HERMES_TEMPLATE, "x" + HERMES_TEMPLATE.replace("tool_call", "t"), LLAMA_TEMPLATE):
        model, engine = await start([ids("Sunny.")], template=template)
        assert (await answer(model, ChatPrompt(messages=messages, tools=[WEATHER]))).text == "Sunny."
        assert "sunny" in tiny_tokenizer().decode(engine.requests[0].prompt_ids)
