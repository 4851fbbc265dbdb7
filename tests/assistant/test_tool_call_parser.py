"""The tool parser: one result for every cutting, valid JSON or plain text, and nothing lost."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fireside.assistant.tool_calls.parser import ToolCallParser
from fireside.tokenizers.tool_call_format import HERMES, LLAMA3_JSON, ToolCallFormat, native_format
from tests.assistant.models import HERMES_TEMPLATE, LLAMA_TEMPLATE, call, pieces

NAMES = ("weather", "clock")
Calls = list[tuple[str, str]]


def parse(
    spelling: ToolCallFormat,
    parts: Sequence[str],
    *,
    enforced: bool = False,
    required: bool = False,
    max_calls: int | None = None,
    names: Sequence[str] = NAMES,
) -> tuple[str, Calls]:
    parser = ToolCallParser(spelling, names, enforced=enforced, required=required, max_calls=max_calls)
    results = [*(parser.push(part) for part in parts), parser.finish()]
    calls: Calls = []
    seen_ids = set()
    for delta in (delta for result in results for delta in result.tool_calls):
        if delta.name is not None:
            assert delta.index == len(calls) and delta.id not in seen_ids
            seen_ids.add(delta.id)
            calls.append((delta.name, delta.arguments))
        else:
            assert delta.id is None and delta.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + delta.arguments)
    assert len(calls) == parser.num_calls
    return "".join(result.text for result in results), calls


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just('"}<tool_call></tool_call>{\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(st.text(max_size=4), json_values, max_size=3)
names = st.sampled_from(NAMES)
# Whatever could confuse a parser, in any order.
fragments = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<tool_", "<|python_tag|>", call(city="B"), call("nothing")),
        *('{"name": "weather", "arguments": ', '{"name": "clock", "parameters": {}}', '{"a": "b\\"}'),
        *("\n", " ", "\u00a0", ";", "{", "}", '"', "\\", "[", "]", "Hello", "é"),
    ]
)
noise = st.lists(fragments, max_size=12).map("".join)
cuts = st.lists(st.integers(0, 400), max_size=12)


@given(noise, cuts, st.booleans(), st.sampled_from([HERMES, LLAMA3_JSON]))
@example('<tool_call>{"name": "weather", "arguments": {"a": "\n<tool_call>', [30, 52], False, HERMES)
def test_the_cutting_does_not_matter(text: str, cut: list[int], enforced: bool, spelling: ToolCallFormat) -> None:
    whole = parse(spelling, [text], enforced=enforced)
    assert parse(spelling, pieces(text, cut), enforced=enforced) == whole
    assert parse(spelling, list(text), enforced=enforced) == whole


@given(noise, cuts, st.booleans(), st.sampled_from([HERMES, LLAMA3_JSON]))
def test_without_a_call_of_a_known_tool_the_text_is_untouched(
    text: str, cut: list[int], enforced: bool, spelling: ToolCallFormat
) -> None:
    assert parse(spelling, pieces(text, cut), enforced=enforced, names=()) == (text, [])


@given(noise, st.sampled_from([HERMES, LLAMA3_JSON]))
def test_arguments_are_json_objects_and_text_is_never_made_up(text: str, spelling: ToolCallFormat) -> None:
    rest, calls = parse(spelling, [text])
    assert all(isinstance(json.loads(written), dict) for _, written in calls)
    characters = iter(text)
    assert all(character in characters for character in rest), "the text outside of calls, in its order"


@given(st.lists(st.tuples(names, arguments), min_size=1, max_size=3), st.booleans(), cuts, st.booleans())
def test_hermes_calls_come_out_as_they_went_in(
    written: list[tuple[str, dict[str, object]]], enforced: bool, cut: list[int], ascii_only: bool
) -> None:
    calls = [json.dumps({"name": name, "arguments": args}, ensure_ascii=ascii_only) for name, args in written]
    text = "Let me see.\n" + "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in calls) + "\n"
    rest, parsed = parse(HERMES, pieces(text, cut), enforced=enforced)
    assert rest == "Let me see."
    assert [(name, json.loads(args)) for name, args in parsed] == written


@given(
    st.lists(st.tuples(names, arguments), min_size=1, max_size=3),
    st.booleans(),
    cuts,
    st.sampled_from(["; ", ";", "\n"]),
    st.sampled_from(["", "\n", "<|python_tag|>"]),
)
def test_llama_calls_come_out_as_they_went_in(
    written: list[tuple[str, dict[str, object]]], enforced: bool, cut: list[int], separator: str, opening: str
) -> None:
    text = opening + separator.join(json.dumps({"name": name, "parameters": args}) for name, args in written)
    rest, parsed = parse(LLAMA3_JSON, pieces(text, cut), enforced=enforced)
    assert rest == ""
    assert [(name, json.loads(args)) for name, args in parsed] == written


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"x": NaN}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "name": "clock", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "rm -rf", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Be',
        "<tool_call>\nweather(city=Bern)\n</tool_call>",
        "<tool_call>\n" + "[" * 100_000,
        '<tool_call>{"name": "weather", "arguments": ' + '{"a":' * 20_000 + "1" + "}" * 20_000 + "}</tool_call>",
        "I would write <tool_call> and then </tool_call>.\n",
        "<tool_c",
    ],
)
def test_malformed_calls_are_text(text: str) -> None:
    assert parse(HERMES, [text]) == (text, [])


def test_a_good_call_after_a_bad_one_is_found() -> None:
    rest, calls = parse(HERMES, ['<tool_call>{"name": <tool_call>{"name": "clock", "arguments": {}}</tool_call> Done.'])
    assert rest == '<tool_call>{"name":  Done.'
    assert calls == [("clock", "{}")]


def test_what_models_get_slightly_wrong_is_understood() -> None:
    assert parse(HERMES, ['<tool_call>{"name": "clock"}'])[1] == [("clock", "{}")]
    assert parse(HERMES, ['<tool_call>{"name": "clock", "parameters": {"a": 1}}</tool_call>'])[1] == [
        ("clock", '{"a": 1}')
    ]
    assert parse(HERMES, [r'<tool_call>{"name": "clock", "arguments": "{\"a\": 1}"}</tool_call>'])[1] == [
        ("clock", '{"a": 1}')
    ]
    assert parse(LLAMA3_JSON, ['{"type": "function", "name": "clock", "parameters": {}}'])[1] == [("clock", "{}")]


def test_a_json_answer_in_llamas_format_is_not_held_back() -> None:
    parser = ToolCallParser(LLAMA3_JSON, NAMES)
    assert parser.push('{"answer"').text == '{"answer"'
    assert parser.push(": 1}").text == ": 1}"


def test_enforced_arguments_stream() -> None:
    parser = ToolCallParser(HERMES, NAMES, enforced=True, new_id=lambda: "call_1")
    assert parser.push('<tool_call>\n{"name": "weather", "arguments": ').tool_calls == ()
    (start, piece) = parser.push('{"city"').tool_calls
    assert (start.id, start.name, start.arguments, piece.arguments) == ("call_1", "weather", "", '{"city"')
    assert [d.arguments for d in parser.push(': "Ber').tool_calls] == [': "Ber']
    assert [d.arguments for d in parser.push('n"}}').tool_calls] == ['n"}']


@pytest.mark.parametrize("spelling", [HERMES, LLAMA3_JSON])
def test_required_calls_that_are_cut_off_leave_no_text(spelling: ToolCallFormat) -> None:
    one = f'{spelling.begin}\n{{"name": "clock", "{spelling.arguments_key}": {{}}}}\n{spelling.end}'
    text = f"\n{one}\n{one}"
    for length in range(len(text) + 1):
        for parts in ([text[:length]], list(text[:length])):
            rest, calls = parse(spelling, parts, enforced=True, required=True)
            assert (rest, [name for name, _ in calls]) == ("", ["clock"] * len(calls)), text[:length]
    assert len(calls) == 2


def test_calls_beyond_the_limit_are_dropped() -> None:
    text = call(city="A") + "\n" + call(city="B") + " and so on"
    assert parse(HERMES, [text], max_calls=1) == ("", [("weather", '{"city": "A"}')])


def test_time_is_linear_in_the_text() -> None:
    text = '<tool_call>{"name": ' * 20_000  # seconds, and not hours, whether in one piece or in many
    assert parse(HERMES, [text]) == (text, [])


def test_the_format_follows_the_template() -> None:
    assert native_format(HERMES_TEMPLATE, ()) is HERMES
    assert native_format(LLAMA_TEMPLATE, {"<|python_tag|>": True}) is LLAMA3_JSON
    assert native_format(LLAMA_TEMPLATE, ()) is None
    assert native_format("<tool_call>\n<function=f>", ()) is None  # Qwen3-Coder's XML
    assert native_format("[TOOL_CALLS]", ()) is None
