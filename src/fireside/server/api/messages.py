"""From the wire's messages and tools to the assistant's: checked for what a schema cannot say, and made plain."""

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
    RefusalPart,
    TextPart,
    Tool,
    ToolMessage,
)
from fireside.server.errors import invalid


def chat_prompt(body: ChatCompletionRequest, constraint: OutputConstraint | None, max_messages: int) -> ChatPrompt:
    """Raises `ApiError` 400 that names the message or tool at fault."""
    if len(body.messages) > max_messages:
        raise invalid("messages", f"{len(body.messages)} messages, more than the {max_messages} that this server takes")
    check_order(body.messages)
    if body.continue_final_message and not isinstance(body.messages[-1], AssistantMessage):
        raise invalid("continue_final_message", "the last message must be the assistant's to be continued")
    tools, choice = _tools(body)
    return ChatPrompt(
        messages=[_plain(message) for message in body.messages],
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        constraint=constraint,
        continue_final_message=bool(body.continue_final_message),
        template_kwargs=body.chat_template_kwargs or {},
    )


def check_order(messages: Sequence[Message]) -> None:
    """Every tool call is answered, right after it, and nothing else is. What roles may follow each other otherwise is
    for the model's own template to say."""
    unanswered: dict[str, None] = {}
    for i, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in unanswered:
                raise invalid(
                    f"messages[{i}].tool_call_id",
                    "answers no tool call: a tool message follows an assistant message whose tool_calls have its id",
                )
            del unanswered[message.tool_call_id]
            continue
        if unanswered:
            raise invalid(f"messages[{i}].role", f"a tool message for {next(iter(unanswered))!r} must come first")
        if isinstance(message, AssistantMessage):
            if message.content is None and message.refusal is None and not message.tool_calls:
                raise invalid(f"messages[{i}].content", "an assistant message has content or tool_calls")
            unanswered = dict.fromkeys(call.id for call in message.tool_calls or ())
    if unanswered:
        raise invalid("messages", f"the tool call {next(iter(unanswered))!r} must be answered by a tool message")


def _plain(message: Message) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role  # OpenAI's newer word for the same
    content = message.content
    if isinstance(content, list):
        content = "\n".join(_part_text(part) for part in content)
    plain: dict[str, Any] = {"role": role, "content": content}
    if message.name is not None:
        plain["name"] = message.name
    match message:
        case ToolMessage():
            plain["tool_call_id"] = message.tool_call_id
        case AssistantMessage():
            if content is None:
                plain["content"] = message.refusal
            if message.tool_calls:
                plain["tool_calls"] = [call.model_dump(exclude={"index"}) for call in message.tool_calls]
            if message.reasoning_content is not None:
                plain["reasoning_content"] = message.reasoning_content
    return plain


def _part_text(part: TextPart | RefusalPart) -> str:
    return part.text if isinstance(part, TextPart) else part.refusal


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
