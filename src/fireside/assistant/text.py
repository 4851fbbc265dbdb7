"""The nouns of text generation: what `assistant.TextModel` takes and gives. Free of torch and of HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from fireside.engine.messages import SamplingParams


class ToolChoiceMode(StrEnum):
    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, kw_only=True)
class OutputConstraint:
    """What the answer must look like. `schema`, `pattern`, `choices` or `source` as its `kind` needs.

    `param` is the part of the request that asked for it, for errors.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice", "lark"]
    schema: Mapping[str, Any] | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    source: str | None = None
    param: str = "response_format"


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """A conversation to answer, in OpenAI's terms (messages and tools as plain JSON values, already checked)."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: ToolChoiceMode | str = ToolChoiceMode.AUTO  # a plain string names the one tool to call
    parallel_tool_calls: bool = True  # False: the answer ends with its first call
    constraint: OutputConstraint | None = None
    continue_final_message: bool = False  # the last assistant message is left open, to be continued
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CompletionPrompt:
    """Plain text or token ids to continue."""

    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    constraint: OutputConstraint | None = None


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How to answer. `sampling.stop_token_ids` holds only what the caller added: eos ids are added here
    unless `ignore_eos`. `sampling.max_tokens` 0 or less means all the context that is left,
    unless `score_only` (completions' `max_tokens: 0` with `echo`)."""

    sampling: SamplingParams
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    priority: int = 0
    score_only: bool = False
    prediction: str = ""  # what the answer may look like: it may come sooner for it, and is the same


@dataclass(frozen=True, kw_only=True)
class ToolCallDelta:
    """A piece of a tool call. `id` and `name` come with the first piece; `arguments` pieces join to valid JSON."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenText:
    """One token as people see it, with its log-probability in nats."""

    id: int
    text: str
    bytes: tuple[int, ...]
    logprob: float
    top: tuple[TokenText, ...] = ()  # those carry no `top` of their own


@dataclass(frozen=True, kw_only=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    prediction: tuple[int, int] | None = None  # tokens guessed from it that were right, and that were wrong


@dataclass(frozen=True, kw_only=True)
class TextChunk:
    """A step of an answer. The last one carries `finish_reason` and `usage`. Text never ends in half a character."""

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenText, ...] | None = None
    prompt_logprobs: tuple[TokenText | None, ...] | None = None
    finish_reason: Literal["stop", "length", "tool_calls"] | None = None
    stop_reason: str | int | None = None  # the stop string or token id that ended it, if one did
    usage: Usage | None = None
