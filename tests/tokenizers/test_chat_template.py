"""Rendered conversations, against transformers' `apply_chat_template` with the same template and vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from fireside.tokenizers.chat_template import ChatTemplate, TemplateError
from fireside.tokenizers.rendering import ConversationRenderer
from fireside.tokenizers.tokenizer import Tokenizer
from tests.tokenizers import templates
from tests.tokenizers.vocabularies import Pair, texts

CONVERSATION = [
    {"role": "system", "content": "Be brief.  "},
    {"role": "user", "content": "  Hello, wörld! 🤗 \n"},
    {"role": "assistant", "content": "Hi!\n\n```py\nprint(1)\n```"},
    {"role": "user", "content": "再见 <b>&amp;</b> 'quoted' \"too\""},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather in a place: <sunny> & so on — é",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = {
    "type": "function",
    "id": "call12345",
    "function": {"name": "weather", "arguments": {"city": "Łódź", "n": [1.5, None]}},
}
TOOL_CONVERSATION = [
    {"role": "user", "content": "Weather in Łódź?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call12345", "content": "12 °C"},
    {"role": "tool", "tool_call_id": "call12346", "content": "rain"},
]


@dataclass
class Family:
    template: ChatTemplate
    ours: Tokenizer
    theirs: PreTrainedTokenizerFast
    tools: bool


FAMILIES = {  # family: template, vocabulary, bos, eos, reads tools
    "chatml": (templates.CHATML, "smollm", "<|im_start|>", "<|im_end|>", False),
    "hermes": (templates.HERMES, "qwen2", None, "<|im_end|>", True),
    "llama3": (templates.LLAMA3, "llama-bpe", "<|endoftext|>", "<|im_end|>", True),
    "mistral": (templates.MISTRAL, "sentencepiece", "<s>", "</s>", False),
}


@pytest.fixture(params=FAMILIES, scope="module")
def family(
    request: pytest.FixtureRequest, make_pair: Callable[[str], Pair], make_tokenizer: Callable[[str], Tokenizer]
) -> Family:
    source, kind, bos, eos, tools = FAMILIES[request.param]
    backend = type(make_pair(kind).reference).from_str(make_pair(kind).reference.to_str())
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, chat_template=source)
    return Family(ChatTemplate(source, bos_token=bos, eos_token=eos), make_tokenizer(kind), theirs, tools)


def check(
    family: Family, messages: list[dict[str, Any]], *, variables: dict[str, Any] | None = None, **options: Any
) -> None:
    theirs = family.theirs.apply_chat_template(messages, tokenize=False, **options, **(variables or {}))
    assert family.template.render(messages, variables=variables, **options) == theirs
    ids = family.theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **options, **(variables or {}))
    assert family.template.encode(family.ours, messages, variables=variables, **options) == ids


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:], CONVERSATION[1:2]])
def test_conversations(family: Family, messages: list[dict[str, Any]], add_generation_prompt: bool) -> None:
    check(family, messages, add_generation_prompt=add_generation_prompt)


def test_tools(family: Family) -> None:
    assert family.template.supports_tools == family.tools
    if family.tools:
        check(family, TOOL_CONVERSATION, tools=TOOLS, add_generation_prompt=True)
        check(family, TOOL_CONVERSATION[:2], tools=TOOLS, add_generation_prompt=False)
        check(family, TOOL_CONVERSATION[:1], tools=TOOLS, add_generation_prompt=True)


def test_extra_variables(family: Family) -> None:
    variables = {"enable_thinking": False, "date_string": "1 Jan 1970"}
    check(family, CONVERSATION, add_generation_prompt=True, variables=variables)


@pytest.mark.parametrize("ending", ["So, the", "So, the ", "So, \n"])
def test_continue_final_message(family: Family, ending: str) -> None:
    messages = [*CONVERSATION[1:2], {"role": "assistant", "content": ending}]
    check(family, messages, continue_final_message=True, add_generation_prompt=False)
    rendered = family.template.render(messages, continue_final_message=True)
    assert rendered.rstrip().endswith(ending.rstrip())


innocent = st.text(st.characters(exclude_characters="<>|[]", exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(words=st.lists(innocent, min_size=1, max_size=5))
def test_innocent_text_is_encoded_as_the_rendered_whole(family: Family, words: list[str]) -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": word} for n, word in enumerate(words)]
    rendered = family.template.render(messages)
    ids = family.template.encode(family.ours, messages)
    assert ids == family.ours.encode(rendered, allow_special=True, add_bos=False)
    assert ids == family.theirs.encode(rendered, add_special_tokens=False)


def request(strings: Sequence[str], *, tools: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """A conversation that holds twelve strings, in every place where a request has any."""
    it = iter(strings)
    messages: list[dict[str, Any]] = [
        {"role": role, "content": next(it)} for role in ("system", "user", "assistant", "user", "assistant", "user")
    ]
    if not tools:
        return messages, None
    function = {"name": next(it), "arguments": {next(it): [next(it)]}}
    messages[-2]["tool_calls"] = [{"type": "function", "function": function}]
    messages.insert(-1, {"role": "tool", "content": next(it)})
    return messages, [{"type": "function", "function": {"name": next(it), next(it): 1}}]


@settings(max_examples=60, deadline=None)
@given(
    strings=st.lists(texts.map("x".__add__) | st.sampled_from(["<", "<|im_", "|>", "end|>"]), min_size=12, max_size=12)
)
def test_no_message_makes_a_control_token(family: Family, strings: list[str]) -> None:
    """Every string of a request is hostile: the control tokens stay those of the same innocent request."""
    messages, tools = request(strings, tools=family.tools)
    ids = family.template.encode(family.ours, messages, tools=tools)
    innocent_messages, innocent_tools = request(["x"] * 12, tools=family.tools)
    special = family.ours.special_token_ids
    expected = family.template.encode(family.ours, innocent_messages, tools=innocent_tools)
    assert [i for i in ids if i in special] == [i for i in expected if i in special]
    rendered = family.template.render(messages, tools=tools)
    if family.theirs.backend_tokenizer.normalizer is not None:
        rendered = family.theirs.backend_tokenizer.normalizer.normalize_str(rendered)
    spelled = rendered.replace("▁", " ") if family.ours.strips_leading_space else rendered
    assert family.ours.decode(ids, skip_special_tokens=False) == spelled


def test_what_the_template_writes_is_a_control_token(make_tokenizer: Callable[[str], Tokenizer]) -> None:
    """`<tool_call>` is not special, but only the template (and the assistant, whose token it is) may write it."""
    tokenizer = make_tokenizer("qwen2")
    template = ChatTemplate(templates.HERMES, bos_token=None, eos_token="<|im_end|>")
    (call,) = (i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"<tool_call>")
    (think,) = (i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"<think>")

    def count(token: int, role: str, text: str) -> int:
        return template.encode(tokenizer, [{"role": role, "content": text}], add_generation_prompt=False).count(token)

    assert count(call, "user", "<tool_call>") == 0 == count(call, "tool", "a <tool_call>")
    assert count(call, "assistant", "<tool_call>") == 1
    assert count(think, "assistant", "<think>") == 1
    spaces = ChatTemplate("{{ messages[0].content }}", bos_token=None, eos_token=None)
    assert spaces.encode(tokenizer, [{"role": "user", "content": "<tool_call>"}]) == [call]  # an ordinary added token


def test_halves_do_not_join(make_tokenizer: Callable[[str], Tokenizer]) -> None:
    tokenizer = make_tokenizer("smollm")
    template = ChatTemplate(
        "{{ messages[0].content + messages[1].content }}|im_end|>{{ eos_token }}",
        bos_token=None,
        eos_token="<|im_end|>",
    )
    for first, second in (
        ("<|im_", "end|>"),
        ("<", "|im_end|>"),
        ("x<|im_end|", ">"),
        ("a", "<"),
        ("<|im_end|>", "<|im_e"),
    ):
        ids = template.encode(tokenizer, [{"role": "user", "content": first}, {"role": "user", "content": second}])
        assert [i for i in ids if i in tokenizer.special_token_ids] == [tokenizer.eos_token_id]
        assert tokenizer.decode(ids) == first + second + "|im_end|>"


def test_messages_do_not_complete_what_the_template_writes(make_tokenizer: Callable[[str], Tokenizer]) -> None:
    tokenizer = make_tokenizer("smollm")
    template = ChatTemplate("<{{ messages[0].content }}", bos_token=None, eos_token=None)
    ids = template.encode(tokenizer, [{"role": "user", "content": "|im_end|>"}])
    assert tokenizer.special_token_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == "<|im_end|>"


def test_overlapping_and_single_character_tokens(make_pair: Callable[[str], Pair], tmp_path: Any) -> None:
    backend = type(make_pair("gpt-2").reference).from_str(make_pair("gpt-2").reference.to_str())
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("☃", "##")])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    template = ChatTemplate("{{ messages[0].content }}☃##", bos_token=None, eos_token=None)
    expected = [i for i in template.encode(tokenizer, [{"role": "user", "content": ""}])]
    assert len(expected) == 2
    for text in ("☃", "###", "a☃#", "#", "##☃##"):
        ids = template.encode(tokenizer, [{"role": "user", "content": text}])
        assert [i for i in ids if i in tokenizer.special_token_ids] == expected
        assert tokenizer.decode(ids, skip_special_tokens=False) == text + "☃##"


def test_private_use_characters_in_messages_survive(make_tokenizer: Callable[[str], Tokenizer]) -> None:
    tokenizer = make_tokenizer("smollm")
    template = ChatTemplate(templates.CHATML, bos_token=None, eos_token=None)
    text = "".join(map(chr, range(0xE000, 0xE100))) + "\\ue100 <|im_end|> \\ue101"
    ids = template.encode(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=False)
    assert text in tokenizer.decode(ids)
    assert ids.count(tokenizer.eos_token_id or 0) == 2


def test_ascii_json_hides_no_mark(make_tokenizer: Callable[[str], Tokenizer]) -> None:
    tokenizer = make_tokenizer("smollm")
    template = ChatTemplate("{{ messages | tojson(ensure_ascii=True) }}<|im_end|>", bos_token=None, eos_token=None)
    messages = [{"role": "user", "content": "é<|im_end|>"}]
    ids = template.encode(tokenizer, messages)
    assert tokenizer.decode(ids) == json.dumps(messages)
    assert ids.count(tokenizer.eos_token_id or 0) == 1


def test_messages_are_adapted() -> None:
    """OpenAI's shapes render like the shapes that templates expect."""
    hermes = ChatTemplate(templates.HERMES, bos_token=None, eos_token=None)
    llama = ChatTemplate(templates.LLAMA3, bos_token=None, eos_token=None)
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Łódź", "n": [1.5, null]}'},
    }
    openai = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Weather"}, {"type": "text", "text": "in Łódź?"}],
            "name": None,
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "12 °C"}]},
        {"role": "assistant", "content": "Cold.", "tool_calls": None},
        {"role": "user", "content": "Thanks", "tool_calls": []},
    ]
    plain = [
        {"role": "user", "content": "Weather\nin Łódź?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "12 °C"},
        {"role": "assistant", "content": "Cold."},
        {"role": "user", "content": "Thanks"},
    ]
    for template in (hermes, llama):
        assert template.render(openai, tools=[]) == template.render(plain)
    assert openai[1]["content"] is None and openai[1]["tool_calls"] == [call]  # the caller's messages are untouched


@pytest.mark.parametrize(
    ("messages", "options", "error"),
    [
        ([{"role": "assistant", "content": "hi"}], {}, "refuses this conversation: Roles must alternate"),
        ([], {}, "cannot render this conversation"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], {}, "reads text only"),
        ([{"role": "user", "content": ""}], {"continue_final_message": True}, "no final message with text"),
        ([], {"continue_final_message": True}, "no final message with text"),
    ],
)
def test_errors_are_sentences(messages: list[dict[str, Any]], options: dict[str, Any], error: str) -> None:
    with pytest.raises(TemplateError, match=error):
        ChatTemplate(templates.MISTRAL, bos_token="<s>", eos_token="</s>").render(messages, **options)


def test_a_message_left_out_cannot_be_continued() -> None:
    template = ChatTemplate("{{ messages[0].content }}", bos_token=None, eos_token=None)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(TemplateError, match="leaves its text out"):
        template.render(messages, continue_final_message=True)


def test_a_template_that_does_not_compile() -> None:
    with pytest.raises(TemplateError, match=r"cannot be compiled \(line 2\)"):
        ChatTemplate("a\n{% if %}", bos_token=None, eos_token=None)


def test_what_is_trained_on_is_what_is_rendered(family: Family) -> None:
    """Also where the tokenizer normalises text, or spells spaces otherwise."""
    messages = CONVERSATION[1:3]
    rendered = ConversationRenderer(family.ours, family.template).render(messages)
    assert rendered.ids == family.template.encode(family.ours, messages, add_generation_prompt=False)
    learned = family.ours.decode([i for i, target in zip(rendered.ids, rendered.targets, strict=True) if target])
    assert learned.strip().removesuffix("<|eot_id|>") == messages[1]["content"]  # not special in this vocabulary
