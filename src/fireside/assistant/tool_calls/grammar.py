"""Grammars under which a model can write no malformed call, and no call of a tool that is not on offer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fireside.assistant.errors import PromptError
from fireside.assistant.structured import GrammarPart, json_schema_part, lark_text
from fireside.tokenizers.tool_call_format import ToolCallFormat

_MAX_PARALLEL_CALLS = 32  # small models repeat themselves for as long as they may

Tool = Mapping[str, Any]


def calls_grammar(
    spelling: ToolCallFormat,
    tools: Sequence[Tool],
    *,
    parallel: bool,
    marker_ids: Mapping[str, int],
    text_ids: Sequence[int] | None = None,
) -> list[GrammarPart]:
    """One call of one of `tools`, or several if `parallel`: grammar parts, of which the first is named "calls".

    marker_ids: those markers of `spelling` that are one token of the model's. llguidance sets added tokens apart from
    text, so under a grammar that has them as text, the model would have to spell them out as it never learned to.
    text_ids: if given, free text may stand before the first marker, or instead of any call, and these added tokens
    belong to it as well; for formats with markers.
    Raises PromptError naming a tool whose parameters are not those of an object.
    """
    assert tools and not (text_ids is not None and spelling.bare)
    begin, end = (
        f"<[{marker_ids[marker]}]>" if marker in marker_ids else lark_text(marker) if marker else ""
        for marker in ("" if spelling.bare else spelling.begin, spelling.end)
    )
    opening, closing = ("", "") if spelling.bare else ("\n", "\n")
    bodies, parts = [], []
    for index, tool in enumerate(tools):
        name, schema = _signature(tool, index)
        header = lark_text(f'{opening}{{"name": {json.dumps(name)}, "{spelling.arguments_key}": ')
        bodies.append(f"body_{index}: {header} @arguments_{index} {lark_text('}' + closing)} {end}")
        parts.append(json_schema_part(f"arguments_{index}", schema, lenient=not is_strict(tool)))
    separator = lark_text("; " if spelling.bare else "\n")
    more = f"({separator} {begin} body){{0,{_MAX_PARALLEL_CALLS - 1}}}" if parallel else ""
    start = [f"start: {begin} body {more}"]
    if text_ids is not None:
        free = "".join(f" | <[{token_id}]>" for token_id in text_ids)
        start = [f"start: free | free to_call body {more}", f"free: (TEXT{free})*", r"TEXT: /(.|\n)+/"]
        # As text, the marker is a lazy lexeme: it ends at the first marker, after which no other text can be.
        as_text = rf"to_call[lazy]: /(.|\n)*{re.escape(spelling.begin)}/"
        start.append(f"to_call: {begin}" if spelling.begin in marker_ids else as_text)
    body = f"body: {' | '.join(f'body_{index}' for index in range(len(tools)))}"
    return [{"name": "calls", "lark_grammar": "\n".join([*start, body, *bodies])}, *parts]


def answer_or_calls(answer: GrammarPart, calls: Sequence[GrammarPart]) -> list[GrammarPart]:
    """Either what `answer` allows, or calls."""
    return [{"name": "start", "lark_grammar": "start: @answer | @calls"}, answer, *calls]


def is_strict(tool: Tool) -> bool:
    """Whether the caller wants arguments to fit the tool's schema at any rate."""
    return tool["function"].get("strict") is True


def _signature(tool: Tool, index: int) -> tuple[str, Mapping[str, Any]]:
    """A tool's name and the schema of its arguments."""
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
    if schema.get("type", "object") != "object":
        raise PromptError(
            f"The parameters of the tool {function['name']!r} must be of the type object, not {schema['type']!r}.",
            param=f"tools[{index}].function.parameters",
        )
    return function["name"], {"type": "object", **schema}
