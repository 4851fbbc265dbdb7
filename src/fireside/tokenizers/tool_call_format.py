"""How models spell tool calls, and which spelling a model was taught."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ToolCallFormat:
    """A spelling of tool calls as text.

    begin, end: the markers around a call's JSON object; `end` may be empty. arguments_key: what the object calls the
    arguments beside "name". bare: an answer that begins with `{` may be a call without `begin`.
    """

    begin: str
    end: str
    arguments_key: str
    bare: bool


# https://github.com/NousResearch/Hermes-Function-Calling; Qwen2.5 and Qwen3 were taught the same.
HERMES = ToolCallFormat(begin="<tool_call>", end="</tool_call>", arguments_key="arguments", bare=False)

# https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/#json-based-tool-calling
LLAMA3_JSON = ToolCallFormat(begin="<|python_tag|>", end="", arguments_key="parameters", bare=True)


def native_format(template: str, added_tokens: Container[str]) -> ToolCallFormat | None:
    """The format that a chat template with tool support teaches by its source, None if it is not one of ours.

    added_tokens: the spellings of the tokenizer's added tokens.
    """
    if "<tool_call>" in template:
        # Qwen3-Coder fills the same markers with XML instead of JSON.
        return None if "<function=" in template else HERMES
    if LLAMA3_JSON.begin in added_tokens and '"parameters"' in template:
        return LLAMA3_JSON
    return None
