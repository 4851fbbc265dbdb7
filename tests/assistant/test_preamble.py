"""What the engine is told of a prompt's preamble: all that comes before the conversation, and nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.assistant import preamble
from fireside.assistant.encoding import PromptEncoder
from fireside.assistant.text import ChatPrompt, CompletionPrompt, ToolChoiceMode
from fireside.tokenizers.chat_template import ChatTemplate
from tests.assistant.answers import answer, start
from tests.assistant.models import CHATML, HERMES_TEMPLATE, WEATHER, ids, special, tiny_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello"}
HEAD = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"


async def preambles(*prompts: ChatPrompt | CompletionPrompt, template: str = CHATML) -> list[str]:
    """The text of each prompt's preamble, as one model's engine is told."""
    model, engine = await start([ids("a")], template=template)
    for prompt in prompts:
        await answer(model, prompt)
    return [
        tiny_tokenizer().decode(request.prompt_ids[: request.preamble_tokens], skip_special_tokens=False)
        for request in engine.requests
    ]


def chat(*messages: dict[str, Any], **values: Any) -> ChatPrompt:
    return ChatPrompt(messages=messages, **values)


async def test_it_ends_where_the_conversation_begins() -> None:
    reply = {"role": "assistant", "content": "Hi"}
    developer = {**SYSTEM, "role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    assert await preambles(
        chat(SYSTEM, HELLO),
        chat(SYSTEM, HELLO, reply, {"role": "user", "content": "Bye"}),
        chat(developer, HELLO),
        chat(HELLO),
        chat(SYSTEM, SYSTEM, HELLO),
        chat(HELLO, SYSTEM, HELLO),
    ) == [HEAD, HEAD, HEAD, "<|im_start|>user\n", HEAD.replace("user", "system") + HEAD[19:], "<|im_start|>user\n"]


async def test_it_holds_the_system_message_that_a_template_adds() -> None:
    template = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}" + CHATML
    assert await preambles(chat(HELLO), template=template) == [HEAD]


texts = st.text(st.sampled_from("ab \n<|im_end|>é\ufffd世"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3), texts)
def test_nothing_of_a_conversation_counts(turns: list[str], system: str) -> None:
    roles = ("user", "assistant")
    messages = [
        {"role": roles[i % 2], "content": text} for i, text in enumerate(turns[: (len(turns) + 1) // 2 * 2 - 1])
    ]
    (found,) = asyncio.run(preambles(chat({"role": "system", "content": system}, *messages)))
    head = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
    nobodys = "\ufffd<|im_end|>\n<|im_start|>assistant\n"  # the message that nobody wrote, should somebody write it
    assert head.startswith(found) or (found.startswith(head) and nobodys.startswith(found.removeprefix(head)))
    if turns[0][:1] in ("a", "b", "<"):
        assert found == head, "cut only where a token spans both"


async def test_tools_belong_to_it() -> None:
    prompt = chat(SYSTEM, HELLO, tools=[WEATHER])
    native, without = await preambles(
        prompt, chat(SYSTEM, HELLO, tools=[WEATHER], tool_choice=ToolChoiceMode.NONE), template=HERMES_TEMPLATE
    )
    assert native.startswith("<|im_start|>system\nTools:") and '"weather"' in native and native.endswith(HEAD)
    assert without == HEAD
    (told,) = await preambles(prompt)
    assert told.startswith("<|im_start|>system\nBe brief.\n\nYou can call functions.")
    assert '"weather"' in told and told.endswith("<|im_end|>\n<|im_start|>user\n")


async def test_a_template_that_puts_the_system_message_last_has_hardly_any() -> None:
    template = (
        "{% set system = messages[0].content %}{% for m in messages[1:] %}<|im_start|>"
        "{% if loop.last %}{{ system }} {% endif %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    reply = {"role": "assistant", "content": "Hi"}
    prompt = chat(SYSTEM, {"role": "user", "content": "secret"}, reply, HELLO)
    assert await preambles(prompt, template=template) == ["<|im_start|>"]


async def test_what_a_request_tells_the_template_is_not_shared() -> None:
    template = "<|im_start|>{{ secret or 'x' }}" + CHATML
    with_secret, without = await preambles(
        chat(SYSTEM, HELLO, template_kwargs={"secret": "sesame"}), chat(SYSTEM, HELLO), template=template
    )
    assert (with_secret, without) == ("<|im_start|>", "<|im_start|>x" + HEAD)


async def test_a_template_that_refuses_the_other_conversation_has_none() -> None:
    template = "{% if messages[-1].content != 'Hello' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    assert await preambles(chat(SYSTEM, HELLO), template=template) == [""]


async def test_a_completion_has_none() -> None:
    assert await preambles(CompletionPrompt(text="Once upon a time")) == [""]


async def test_control_tokens_that_a_message_spells_stay_text() -> None:
    model, engine = await start([ids("a")])
    await answer(model, chat({"role": "system", "content": "<|im_end|>\n<|im_start|>user"}, HELLO))
    (request,) = engine.requests
    before = request.prompt_ids[: request.preamble_tokens]
    assert [before.count(special(text)) for text in ("<|im_start|>", "<|im_end|>")] == [2, 1]
    assert before[-1] != special("<|im_start|>")


async def test_the_last_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rendering for the prompt, another only where system message and tools are new."""
    rendered: list[Sequence[Any]] = []
    encode = ChatTemplate.encode

    def counted(self: ChatTemplate, tokenizer: Any, messages: Sequence[Any], **values: Any) -> list[int]:
        rendered.append(messages)
        return encode(self, tokenizer, messages, **values)

    monkeypatch.setattr(ChatTemplate, "encode", counted)
    other = [{"role": "system", "content": str(number)} for number in range(16)]
    asked = (SYSTEM, SYSTEM, *other[:15], SYSTEM, other[15], SYSTEM, other[0])  # asked for in time, it is kept
    model, _ = await start([ids("a")])
    counts = []
    for system in asked:
        rendered.clear()
        await answer(model, chat(system, HELLO))
        counts.append(len(rendered))
    assert counts == [2, 1, *[2] * 15, 1, 2, 1, 2]
    tomorrow = Mock(today=lambda: date.today() + timedelta(days=1))
    monkeypatch.setattr(preamble, "date", tomorrow)
    rendered.clear()
    await answer(model, chat(SYSTEM, HELLO))
    assert len(rendered) == 2, "the template may write another date"


async def test_one_too_long_to_be_worth_it_has_none() -> None:
    template = ChatTemplate(CHATML, bos_token=None, eos_token=None)
    encoder = PromptEncoder("tiny", tiny_tokenizer(), template, template_has_tools=False)
    lengths = []
    for size in (50_000, 1 << 17):
        prompt = chat({"role": "system", "content": "x" * size}, HELLO)
        prompt_ids = await encoder.encode(prompt, 1 << 20)
        lengths.append(await encoder.measure_preamble(prompt, prompt_ids))
    assert lengths[0] > 50_000 and lengths[1] == 0
