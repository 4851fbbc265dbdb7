"""Constraints as grammars: what llguidance accepts under them, and that bad ones are refused in time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from fireside.assistant.errors import PromptError
from fireside.assistant.structured import MAX_GRAMMAR_BYTES, GrammarChecker, answer_part, json_schema_part
from fireside.assistant.text import OutputConstraint
from fireside.assistant.tool_calls.grammar import answer_or_calls, calls_grammar
from fireside.tokenizers.tool_call_format import HERMES, LLAMA3_JSON, ToolCallFormat
from tests.assistant.models import CLOCK, WEATHER, call, tiny_tokenizer

BYTES = LLTokenizer("byte")


@pytest.fixture(scope="module")
def checker() -> Iterator[GrammarChecker]:
    checker = GrammarChecker(timeout=30.0)
    yield checker
    checker.close()


async def serialised(checker: GrammarChecker, **constraint: Any) -> str:
    return await checker.check([answer_part(OutputConstraint(**constraint))], param="response_format")


def accepts(grammar: str, text: str) -> bool:
    """Whether `text` as a whole follows the grammar, by llguidance over bytes."""
    matcher = LLMatcher(BYTES, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


async def test_a_json_schema_is_followed(checker: GrammarChecker) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    grammar = await serialised(checker, kind="json_schema", schema=schema)
    assert accepts(grammar, '{"n": 12}')
    assert not any(accepts(grammar, text) for text in ('{"n": "x"}', "{}", "12", '{"n": 1, "m": 2}', '{"n": 1'))


async def test_json_stays_json_whatever_the_schema_says_of_separators(checker: GrammarChecker) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "x-guidance": {"item_separator": ";"}}
    grammar = await serialised(checker, kind="json_schema", schema=schema)
    assert accepts(grammar, json.dumps([1, 2]))
    assert not accepts(grammar, "[1;2]")


async def test_a_json_object_is_any_object(checker: GrammarChecker) -> None:
    grammar = await serialised(checker, kind="json_object")
    assert accepts(grammar, json.dumps({"a": [1, {"b": None}], "c": "d\n"}))
    assert not accepts(grammar, "[1]")
    assert not accepts(grammar, '{"a":\n\n\n1}')  # free whitespace is where small models lose themselves


async def test_a_regex_is_matched_whole(checker: GrammarChecker) -> None:
    grammar = await serialised(checker, kind="regex", pattern=r"\d{2}/\d{2}|never\n")
    assert accepts(grammar, "24/12") and accepts(grammar, "never\n")
    assert not accepts(grammar, "24/1") and not accepts(grammar, "x24/12")


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=4))
def test_every_choice_is_possible_and_nothing_else(choices: list[str]) -> None:
    grammar = json.dumps({"grammars": [answer_part(OutputConstraint(kind="choice", choices=tuple(choices)))]})
    assert all(accepts(grammar, choice) for choice in choices)
    other = "".join(choices) + "!"
    assert not accepts(grammar, other)


async def test_lark_goes_through(checker: GrammarChecker) -> None:
    grammar = await serialised(checker, kind="lark", source='start: "yes" | "no" /!+/')
    assert accepts(grammar, "no!!") and not accepts(grammar, "no")


@pytest.mark.parametrize(
    ("constraint", "reason"),
    [
        ({"kind": "json_schema", "schema": {"type": "strnig"}}, "strnig"),
        ({"kind": "json_schema", "schema": {"not": {"type": "string"}}}, "not"),
        ({"kind": "json_schema", "schema": {"$ref": "#/$defs/missing"}}, "missing"),
        ({"kind": "json_schema", "schema": {"$ref": "https://example.org/schema"}}, "example.org"),
        ({"kind": "json_schema", "schema": {"const": float("nan")}}, "JSON"),
        ({"kind": "json_schema", "schema": {"enum": ["x" * MAX_GRAMMAR_BYTES]}}, "large"),
        ({"kind": "json_schema"}, "schema"),
        ({"kind": "regex", "pattern": "(a"}, "unclosed group"),
        ({"kind": "regex", "pattern": "(?=a)b"}, "look-around"),
        ({"kind": "choice"}, "choice"),
        ({"kind": "choice", "choices": ("\ud800",)}, "escape"),
        ({"kind": "lark", "source": "start: missing"}, "missing"),
    ],
    ids=str,
)
async def test_what_cannot_be_used_is_refused_with_the_reason(
    checker: GrammarChecker, constraint: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PromptError, match=reason) as raised:
        await serialised(checker, **constraint)
    assert (raised.value.param, raised.value.code) == ("response_format", "invalid_value")
    assert len(str(raised.value)) < 500


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("depth", [200, 100_000])
async def test_deep_nesting_is_refused(checker: GrammarChecker, depth: int) -> None:
    with pytest.raises(PromptError):
        await serialised(checker, kind="json_schema", schema=deep(depth))


async def test_an_exploding_schema_is_refused_in_time_and_hurts_nobody() -> None:
    # 25 patterns to be matched at once: one kilobyte that keeps llguidance busy for minutes and fills gigabytes.
    exploding = {"allOf": [{"type": "string", "pattern": f"a.*b{i}.*c"} for i in range(25)]}
    checker = GrammarChecker(timeout=0.5)
    try:
        with pytest.raises(PromptError, match="too complex"):
            await serialised(checker, kind="json_schema", schema=exploding)
        checker._timeout = 30.0  # a busy machine may need long for a good one
        assert accepts(await serialised(checker, kind="json_object"), "{}")
    finally:
        checker.close()


async def test_a_checker_that_died_is_replaced(checker: GrammarChecker) -> None:
    await serialised(checker, kind="regex", pattern="first")
    checker._idle[-1]._process.kill()
    checker._idle[-1]._process.wait()
    with pytest.raises(PromptError, match="too complex"):
        await serialised(checker, kind="regex", pattern="second")
    assert accepts(await serialised(checker, kind="regex", pattern="third"), "third")


HERMES_CALLS = [call(city="Bern"), call("clock")]
LLAMA_CALLS = ['{"name": "weather", "parameters": {"city": "Bern"}}', '{"name": "clock", "parameters": {}}']


@pytest.mark.parametrize(
    ("spelling", "calls", "separator"), [(HERMES, HERMES_CALLS, "\n"), (LLAMA3_JSON, LLAMA_CALLS, "; ")]
)
async def test_required_calls(
    checker: GrammarChecker, spelling: ToolCallFormat, calls: Sequence[str], separator: str
) -> None:
    def grammar(*, parallel: bool) -> str:
        return json.dumps({"grammars": calls_grammar(spelling, [WEATHER, CLOCK], parallel=parallel, marker_ids={})})

    one, several = grammar(parallel=False), grammar(parallel=True)
    assert all(accepts(one, text) and accepts(several, text) for text in calls)
    assert accepts(several, separator.join(calls)) and not accepts(one, separator.join(calls))
    wrong = ["Hello", "", calls[0][:-1], calls[0].replace("city", "town"), calls[0].replace("weather", "climate")]
    assert not any(accepts(several, text) for text in wrong)


@pytest.mark.parametrize("text_ids", [None, []])
@pytest.mark.parametrize("markers_are_special", [False, True])
def test_calls_follow_the_grammar_as_the_models_own_tokens(
    text_ids: list[int] | None, markers_are_special: bool
) -> None:
    tokenizer = tiny_tokenizer(markers_are_special=markers_are_special)
    begin, end = (tokenizer.encode(text, allow_special=True) for text in ("<tool_call>", "</tool_call>"))
    assert len(begin) == len(end) == 1
    markers = {"<tool_call>": begin[0], "</tool_call>": end[0]}
    parts = calls_grammar(HERMES, [WEATHER, CLOCK], parallel=True, marker_ids=markers, text_ids=text_ids)
    written = tokenizer.encode(f"{call(city='Bern')}\n{call('clock')}", allow_special=True)
    vocabulary = LLTokenizer(tokenizer.to_json(), eos_token=tokenizer.eos_token_id)
    matcher = LLMatcher(vocabulary, json.dumps({"grammars": parts}), log_level=0)
    assert matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting(), matcher.get_error()
    if text_ids is not None:
        text = [*tokenizer.encode("I look.\n"), *written]
        matcher = LLMatcher(vocabulary, json.dumps({"grammars": parts}), log_level=0)
        assert matcher.try_consume_tokens(text) == len(text) and matcher.is_accepting()


def test_added_tokens_can_be_part_of_the_text() -> None:
    tokenizer = tiny_tokenizer()
    begin, other = (tokenizer.encode(text)[0] for text in ("<tool_call>", "</tool_call>"))
    parts = calls_grammar(HERMES, [CLOCK], parallel=False, marker_ids={"<tool_call>": begin}, text_ids=[other])
    vocabulary = LLTokenizer(tokenizer.to_json(), eos_token=tokenizer.eos_token_id)
    matcher = LLMatcher(vocabulary, json.dumps({"grammars": parts}), log_level=0)
    text = [*tokenizer.encode("so"), other, *tokenizer.encode("so"), other]
    assert matcher.try_consume_tokens(text) == len(text) and matcher.is_accepting()


async def test_strict_tools_leave_text_free_but_not_calls() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    parts = calls_grammar(HERMES, [strict], parallel=True, marker_ids={}, text_ids=[])
    grammar = json.dumps({"grammars": parts})
    good = ["", "Hello, <world>!\n", call(city="Bern"), f"I look.\n{call(city='A')}\n{call(city='B', days=2)}"]
    bad = ["I call <tool_call>now", call(town="Bern"), call(city="Bern") + " Done."]
    assert all(accepts(grammar, text) for text in good)
    assert not any(accepts(grammar, text) for text in bad)


async def test_an_answer_in_form_or_calls() -> None:
    answer = json_schema_part("answer", {"type": "array", "items": {"type": "integer"}})
    calls = calls_grammar(HERMES, [WEATHER], parallel=True, marker_ids={})
    grammar = json.dumps({"grammars": answer_or_calls(answer, calls)})
    assert accepts(grammar, "[1, 2]") and accepts(grammar, call(city="Bern"))
    assert not accepts(grammar, "Hello") and not accepts(grammar, "[1]" + call(city="Bern"))


def test_tools_whose_parameters_are_no_object_are_refused() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    with pytest.raises(PromptError) as raised:
        calls_grammar(HERMES, [CLOCK, tool], parallel=True, marker_ids={})
    assert raised.value.param == "tools[1].function.parameters"
