"""Tools for models whose chat template knows nothing of them: everything is said in Hermes' way, as plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_INSTRUCTIONS = """You can call functions. Each line between <tools> and </tools> describes one as JSON:
<tools>
{tools}
</tools>
To call a function, answer with its name and arguments as one JSON object between tags:
<tool_call>
{{"name": <function name>, "arguments": <arguments object>}}
</tool_call>
Its result comes back between <tool_response> and </tool_response>."""


def with_tools_as_text(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The conversation with the tools described in the system message and every call and result spelled out.

    messages: normalised, at most one system message and that first; arguments of calls as parsed JSON.
    Results of one turn become one user message, since templates often insist that turns alternate.
    """
    plain: list[dict[str, Any]] = []
    if tools:
        described = _INSTRUCTIONS.format(tools="\n".join(_dumps(tool) for tool in tools))
        if messages and messages[0]["role"] == "system":
            described = f"{messages[0]['content']}\n\n{described}"
            messages = messages[1:]
        plain.append({"role": "system", "content": described})
    after_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        if is_result:
            response = f"<tool_response>\n{message['content']}\n</tool_response>"
            if after_result:
                plain[-1]["content"] += f"\n{response}"
            else:
                plain.append({"role": "user", "content": response})
        elif message.get("tool_calls"):
            calls = "\n".join(_spell_call(call["function"]) for call in message["tool_calls"])
            content = f"{message['content']}\n{calls}" if message["content"] else calls
            plain.append({"role": "assistant", "content": content})
        else:
            plain.append(dict(message))
        after_result = is_result
    return plain


def _spell_call(function: Mapping[str, Any]) -> str:
    call = {"name": function["name"], "arguments": function["arguments"]}
    return f"<tool_call>\n{_dumps(call)}\n</tool_call>"


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
