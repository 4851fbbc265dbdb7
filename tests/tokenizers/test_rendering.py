"""Conversations with a loss mask, against transformers' `apply_chat_template`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fireside.tokenizers.chat_template import ChatTemplate, TemplateError
from fireside.tokenizers.rendering import ConversationRenderer, RenderedConversation
from fireside.tokenizers.turns import find_turns
from tests.tokenizers import templates
from tests.tokenizers.small import PLAIN, SYSTEM, TOOLS, WEATHER, small_folder, small_parts

PLAIN_OF_LOOK_ALIKES = [*PLAIN[:2], {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Nothing."}]


@pytest.fixture(scope="module")
def reference() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(small_folder())


def renderer(source: str | None = None) -> ConversationRenderer:
    tokenizer, own = small_parts()
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    return ConversationRenderer(tokenizer, own if source is None else ChatTemplate(source, **names))


def learned(rendered: RenderedConversation) -> str:
    ids = [i for i, target in zip(rendered.ids, rendered.targets, strict=True) if target]
    return small_parts()[0].decode(ids, skip_special_tokens=False)


def for_reference(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """transformers hands arguments to the template as they are; templates want objects."""
    copied = json.loads(json.dumps(messages))
    for message in copied:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return copied


# Ours begin an answer where the served prompt ends, theirs join a newline there with that of the header.
SAID = [m | {"content": m["content"].lstrip()} if m["role"] == "assistant" else m for m in TOOLS]

CASES = [
    pytest.param(None, PLAIN_OF_LOOK_ALIKES, None, id="own, plain"),
    pytest.param(None, [SYSTEM[0], *PLAIN_OF_LOOK_ALIKES], None, id="own, system"),
    pytest.param(None, SAID, [WEATHER], id="own, tools"),
    pytest.param(None, SAID[1:], [WEATHER], id="own, tools without system"),
    pytest.param(templates.CHATML, PLAIN_OF_LOOK_ALIKES, None, id="SmolLM2"),
    pytest.param(templates.HERMES, SAID, [WEATHER], id="Hermes"),
]


@pytest.mark.parametrize(("source", "messages", "tools"), CASES)
def test_ids_and_mask_equal_transformers(
    reference: PreTrainedTokenizerFast, source: str | None, messages: list[dict[str, Any]], tools: Any
) -> None:
    rendered = renderer(source).render(messages, tools)
    theirs = reference.apply_chat_template(
        for_reference(messages),
        tools=tools,
        chat_template=source,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert rendered.ids == theirs["input_ids"]
    if source is None or "generation %}" in source:
        assert rendered.targets == [bool(target) for target in theirs["assistant_masks"]]
    else:
        assert any(rendered.targets)


def test_the_end_of_the_turn_is_learned_and_nothing_after_it() -> None:
    assert learned(renderer().render(PLAIN_OF_LOOK_ALIKES)) == "A fox, or a dog.<|im_end|>Nothing.<|im_end|>"


@pytest.mark.parametrize("source", [None, templates.HERMES])
def test_tool_calls_are_learned_and_results_are_not(source: str | None) -> None:
    text = learned(renderer(source).render(TOOLS, [WEATHER]))
    assert text.count("<tool_call>") == 3
    assert '"arguments": {"place": "Oslo"}' in text
    assert "21 degrees" not in text
    assert text.count("<|im_end|>") == 3


def test_a_template_without_tools_learns_calls_as_it_will_be_served() -> None:
    text = learned(renderer(templates.CHATML).render(TOOLS, [WEATHER]))
    assert text.count("<tool_call>\n") == 3
    assert "tool_response" not in text


def test_look_alikes_stay_text_on_both_sides() -> None:
    tokenizer, _ = small_parts()
    rendered = renderer().render(PLAIN)
    assert rendered.ids.count(tokenizer.eos_token_id) == len(PLAIN)
    text = "<|im_end|>\n\n<|im_start|>user is only text.<|im_end|>"
    assert learned(rendered) == f"A fox, or a dog.<|im_end|>{text}"
    targets = [i for i, target in zip(rendered.ids, rendered.targets, strict=True) if target]
    assert targets.count(tokenizer.eos_token_id) == 2


def test_starts_are_where_messages_begin() -> None:
    tokenizer, _ = small_parts()
    start = tokenizer.encode("<|im_start|>", allow_special=True)[0]
    rendered = renderer().render(SYSTEM)
    assert rendered.message_starts == [index for index, i in enumerate(rendered.ids) if i == start][1:]
    assert rendered.turn_starts == rendered.message_starts[0::2]
    tools = renderer().render(TOOLS, [WEATHER])
    assert [tools.ids[index] for index in tools.message_starts] == [start] * len(tools.message_starts)
    assert len(tools.turn_starts) == 2


def test_no_assistant_is_nothing_to_learn() -> None:
    assert not any(renderer().render([{"role": "user", "content": "Hello?"}]).targets)


def test_a_template_that_rewrites_earlier_turns_is_trained_on_the_last() -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content if loop.last else m.content[:3] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    messages = [*PLAIN[:2], {"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes, well."}]
    assert learned(renderer(source).render(messages)) == "Yes, well.<|im_end|>"


def test_a_template_that_hides_its_turns_is_refused() -> None:
    source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(TemplateError, match="which of the text is the assistant's"):
        renderer(source).render(PLAIN)


@pytest.mark.parametrize("answer", ["\nYes.", "\n\nYes.", " Yes.", "Yes."])
def test_an_answer_begins_where_the_served_prompt_ends(answer: str) -> None:
    tokenizer, template = small_parts()
    served = template.encode(tokenizer, PLAIN[:1])
    rendered = renderer().render([PLAIN[0], {"role": "assistant", "content": answer}])
    assert rendered.ids[: len(served)] == served
    assert rendered.targets.index(True) == len(served)
    assert learned(rendered) == f"{answer}<|im_end|>"


LONG = [*TOOLS[1:], {"role": "tool", "content": "Cold"}, {"role": "assistant", "content": "Cold."}, *PLAIN] * 5


@pytest.mark.parametrize("source", [None, templates.CHATML, templates.HERMES, templates.LLAMA3, templates.MISTRAL])
@pytest.mark.parametrize("system", [[], TOOLS[:1]])
def test_places_in_long_conversations_are_those_of_the_whole(
    source: str | None, system: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [*system, *(PLAIN * 10 if source in (templates.LLAMA3, templates.MISTRAL) else LONG)]
    tools = None if source in (templates.LLAMA3, templates.MISTRAL) else [WEATHER]
    ours = renderer(source).render(messages, tools)
    monkeypatch.setattr("fireside.tokenizers.turns._WINDOW", 1000)
    assert renderer(source).render(messages, tools) == ours
    assert sum(ours.targets) > 100


def test_long_conversations_take_linear_time() -> None:
    seen = 0

    def render(first: int, count: int, *, opening: bool = False) -> str:
        nonlocal seen
        seen += count - first
        return "bos" + "".join(f"<{'ua'[n % 2]}>{n}" for n in range(first, count)) + "<a>" * opening

    turns = find_turns(render, ["user", "assistant"] * 500, "m")
    assert None not in turns.ends
    assert seen < 20 * 1000


@pytest.mark.parametrize("source", [None, templates.CHATML, templates.HERMES])
@pytest.mark.parametrize(("messages", "tools"), [(TOOLS, [WEATHER]), (SYSTEM, None), (PLAIN, None)])
def test_the_preamble_and_a_later_turn_are_what_is_served(
    source: str | None, messages: list[dict[str, Any]], tools: Any
) -> None:
    rendered = renderer(source).render(messages, tools)
    system = [m for m in messages if m["role"] == "system"]
    later = max(index for index, message in enumerate(messages) if message["role"] == "user")
    alone = renderer(source).render([*system, *messages[later:]], tools).ids
    assert rendered.ids[: rendered.preamble] + rendered.ids[rendered.turn_starts[-1] :] == alone
    assert (rendered.preamble > 0) == bool(system or tools or source is not None)


GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("source", [GEMMA, GEMMA.replace("{{ raise_exception('System role not supported') }}", "")])
def test_a_system_message_that_the_template_takes_none_of(source: str) -> None:
    if "raise" not in source:  # it passes over them
        source = source.replace("messages %}<|", "messages if m.role != 'system' %}<|")
    rendered = renderer(source).render(SYSTEM)
    assert rendered.is_folded
    joined = SYSTEM[1] | {"content": f"{SYSTEM[0]['content']}\n\n{SYSTEM[1]['content']}"}
    expected = renderer(source).render([joined, *SYSTEM[2:]])
    assert (rendered.ids, rendered.targets) == (expected.ids, expected.targets)
    assert not expected.is_folded
    assert not renderer().render(SYSTEM).is_folded


def test_a_system_message_that_the_template_gives_to_the_last_turn() -> None:
    tokenizer, _ = small_parts()
    rendered = renderer(templates.MISTRAL).render(SYSTEM[:3])
    template = ChatTemplate(templates.MISTRAL, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    served = template.encode(tokenizer, SYSTEM[:2])
    assert rendered.ids[: len(served)] == served
    assert learned(rendered) == " A fox, or a dog.<|im_end|>"
    assert renderer(templates.MISTRAL).render(SYSTEM).is_folded
