"""Messages: order and shape are refused by name, and come out as templates read them."""

from __future__ import annotations

from typing import Any

import pytest

from fireside.assistant.errors import PromptError
from fireside.assistant.messages import find_refused, normalised
from fireside.tokenizers.chat_template import TemplateError
from fireside.tokenizers.tools_as_text import with_tools_as_text
from tests.assistant.models import CLOCK

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Hello"}


def asking(*call_ids: str) -> dict[str, Any]:
    calls = [
        {"id": i, "type": "function", "function": {"name": "clock", "arguments": '{"zone": "é"}'}} for i in call_ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(call_id: str, content: str = "12:00") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "narrator", "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([USER, result("a")], "messages[1].role"),
        ([USER, asking("a"), result("b")], "messages[2].tool_call_id"),
        ([USER, asking("a"), result("a"), result("a")], "messages[3].role"),
        ([USER, asking("a", "b"), result("a"), USER], "messages[3].role"),
        ([USER, asking("a", "b"), result("a")], "messages"),
        ([USER, asking("a")], "messages[1].tool_calls"),
        ([USER, ANSWER], "messages[1].role"),
        ([{**USER, "tool_calls": asking("a")["tool_calls"]}], "messages[0].tool_calls"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0].type"),
        ([USER, {"role": "assistant", "tool_calls": [{"id": "a"}]}], "messages[1].tool_calls[0].function.name"),
        (
            [USER, {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}],
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_is_out_of_order_is_named(messages: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(PromptError) as raised:
        normalised(messages)
    assert raised.value.param == param


def test_messages_come_out_as_templates_read_them() -> None:
    messages = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief"}],
            "name": None,
        },
        USER,
        asking("a", "b"),
        result("b"),
        result("a"),
    ]
    system, user, asked, *results = normalised(messages)
    assert system == {"role": "system", "content": "Be\nbrief"}
    assert user == USER
    assert asked["content"] == "" and [c["function"]["arguments"] for c in asked["tool_calls"]] == [{"zone": "é"}] * 2
    assert [r["tool_call_id"] for r in results] == ["b", "a"]


def test_only_an_assistants_message_can_be_continued() -> None:
    assert normalised([USER, ANSWER], continue_final_message=True)[-1] == ANSWER
    with pytest.raises(PromptError) as raised:
        normalised([USER], continue_final_message=True)
    assert raised.value.param == "messages[0].role"


@pytest.mark.parametrize("bad", [2, 7, 40])
def test_the_refused_message_is_found_in_few_attempts(bad: int) -> None:
    messages = [{"role": "system", "content": ""}, *[{"role": "user", "content": ""}] * 40]
    attempts = []

    def render(part: Any) -> None:
        attempts.append(len(part))
        if len(part) > bad or len(part) == 1:  # like templates that refuse a system message alone
            raise TemplateError("no")

    assert find_refused(messages, render) == bad
    assert len(attempts) < 8


def test_tools_as_text() -> None:
    conversation = normalised([USER, asking("a", "b"), result("a", "1"), result("b", "2"), USER])
    system, user, asked, results, last = with_tools_as_text(conversation, [CLOCK])
    assert '"name": "clock"' in system["content"] and "<tool_call>" in system["content"]
    assert user == last == USER
    spelled = '<tool_call>\n{"name": "clock", "arguments": {"zone": "é"}}\n</tool_call>'
    assert asked == {"role": "assistant", "content": "\n".join([spelled] * 2)}
    assert results == {
        "role": "user",
        "content": "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>",
    }


def test_tools_as_text_join_the_system_message() -> None:
    system, user = with_tools_as_text([{"role": "system", "content": "Be brief."}, USER], [CLOCK])
    assert system["content"].startswith("Be brief.\n\n") and user == USER
    assert with_tools_as_text([USER], []) == [USER]
