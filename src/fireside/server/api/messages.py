"""From the wire's messages and tools to the assistant's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fireside.assistant.text import ChatPrompt, OutputConstraint, ToolChoiceMode
from fireside.server.api.schemas.chat import (
    AllowedToolsChoice,
    AssistantMessage,
    ChatCompletionRequest,
    Message,
    NamedToolChoice,
    Tool,
)
from fireside.server.errors import invalid

# Deltas' `index` comes back with the calls of clients that keep what was streamed.
_WIRE_ONLY: dict[str, Any] = {"refusal": True, "annotations": True, "tool_calls": {"__all__": {"index"}}}


def chat_prompt(body: ChatCompletionRequest, constraint: OutputConstraint | None, max_messages: int) -> ChatPrompt:
    """Raises `ApiError` 400 that names the message or tool at fault.

    Whether the messages make a conversation shows when `TextModel` encodes it.
    """
    if len(body.messages) > max_messages:
        raise invalid("messages", f"{len(body.messages)} messages, more than the {max_messages} that this server takes")
    tools, choice = _tools(body)
    return ChatPrompt(
        messages=[_plain(message, f"messages[{i}]") for i, message in enumerate(body.messages)],
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        constraint=constraint,
        continue_final_message=bool(body.continue_final_message),
        template_kwargs=body.chat_template_kwargs or {},
    )


def _plain(message: Message, place: str) -> dict[str, Any]:
    """Without what is the wire's alone. Order and content are the assistant's to judge (`assistant.messages`)."""
    plain = message.model_dump(exclude_none=True, exclude=_WIRE_ONLY)
    if isinstance(message, AssistantMessage):
        if message.content is None and message.refusal is None and not message.tool_calls:
            raise invalid(f"{place}.content", "an assistant message has content or tool_calls", "invalid_value")
        plain.setdefault("content", message.refusal)
    return plain


def _tools(body: ChatCompletionRequest) -> tuple[list[dict[str, Any]], ToolChoiceMode | str]:
    tools = body.tools or []
    names = [tool.function.name for tool in tools]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise invalid(f"tools[{i}].function.name", f"there is another tool called {name!r}")
    match body.tool_choice:
        case None:
            choice: ToolChoiceMode | str = ToolChoiceMode.AUTO
        case str(mode):
            choice = ToolChoiceMode(mode)
        case NamedToolChoice(function=function):
            choice = function.name
            _check_named("tool_choice.function.name", function.name, names)
        case AllowedToolsChoice(allowed_tools=allowed):
            choice = ToolChoiceMode(allowed.mode)
            for i, named in enumerate(allowed.tools):
                _check_named(f"tool_choice.allowed_tools.tools[{i}].function.name", named.function.name, names)
            allowed_names = {named.function.name for named in allowed.tools}
            tools = [tool for tool in tools if tool.function.name in allowed_names]
    if choice is ToolChoiceMode.REQUIRED and not tools:
        raise invalid("tool_choice", "a tool is required, but there are no tools")
    return [_plain_tool(tool) for tool in tools], choice


def _check_named(param: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise invalid(param, f"there is no tool called {name!r} in tools")


def _plain_tool(tool: Tool) -> dict[str, Any]:
    return tool.model_dump(exclude_none=True)
