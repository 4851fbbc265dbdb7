"""Messages as a chat template wants them: checked for what no template can check, and spelled the way templates read.

What else a template demands (alternating turns, a system message only at the start) it says itself, when it renders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fireside.assistant.errors import PromptError
from fireside.tokenizers.chat_template import TemplateError

_ROLES = ("system", "developer", "user", "assistant", "tool")

Message = Mapping[str, Any]


def normalised(messages: Sequence[Message], *, continue_final_message: bool = False) -> list[dict[str, Any]]:
    """The messages with "developer" as "system", content as one text, and arguments of tool calls parsed.

    Raises PromptError naming the message that is wrong or out of order.
    """
    if not messages:
        raise PromptError("There must be at least one message.", param="messages", code="empty_array")
    unanswered: dict[str, None] = {}
    result = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        role = message.get("role")
        if role not in _ROLES:
            raise PromptError(f"{role!r} is not a role; the roles are {', '.join(_ROLES)}.", param=f"{place}.role")
        if role == "tool":
            _check_result(message, unanswered, place)
        elif unanswered:
            raise PromptError(
                f"The assistant's tool call {next(iter(unanswered))!r} must be followed by a message with the role "
                f"'tool' that answers it, not by one with the role {role!r}.",
                param=f"{place}.role",
            )
        calls = [_call(call, f"{place}.tool_calls[{n}]") for n, call in enumerate(message.get("tool_calls") or ())]
        if calls and role != "assistant":
            raise PromptError("Only a message of the assistant can have tool_calls.", param=f"{place}.tool_calls")
        unanswered |= dict.fromkeys(call["id"] for call in calls if "id" in call)
        plain = {key: value for key, value in message.items() if key != "tool_calls" and value is not None}
        plain |= {"role": "system" if role == "developer" else role, "content": _text(message, place)}
        if calls:
            plain["tool_calls"] = calls
        result.append(plain)
    _check_last(result, unanswered, continue_final_message)
    return result


def find_refused(messages: Sequence[Message], render: Callable[[Sequence[Message]], object]) -> int:
    """Index of the message at which `render`, which refuses all of `messages`, begins to refuse.

    `render` raises TemplateError for a conversation it refuses. A conversation with a user's message that is refused
    stays so, whatever follows; so about log2(len(messages)) attempts are enough.
    """

    def refuses(length: int) -> bool:
        try:
            render(messages[:length])
        except TemplateError:
            return True
        return False

    good, bad = 0, len(messages)
    first_turn = next((index + 1 for index, message in enumerate(messages) if message["role"] == "user"), 0)
    if 0 < first_turn < bad:  # some templates refuse a system message alone
        good, bad = (good, first_turn) if refuses(first_turn) else (first_turn, bad)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if refuses(middle) else (middle, bad)
    return bad - 1


def _check_result(message: Message, unanswered: dict[str, None], place: str) -> None:
    call_id = message.get("tool_call_id")
    if not unanswered:
        raise PromptError(
            "A message with the role 'tool' must follow a message of the assistant with 'tool_calls'.",
            param=f"{place}.role",
        )
    if call_id not in unanswered:
        raise PromptError(
            f"{call_id!r} is none of the tool calls that wait for an answer here: {', '.join(unanswered)}.",
            param=f"{place}.tool_call_id",
        )
    del unanswered[call_id]


def _check_last(messages: Sequence[Message], unanswered: Mapping[str, None], continue_final_message: bool) -> None:
    place = f"messages[{len(messages) - 1}]"
    is_assistant = messages[-1]["role"] == "assistant"
    if unanswered:
        raise PromptError(
            f"The tool calls {', '.join(unanswered)} must each be answered by a message with the role 'tool'.",
            param=f"{place}.tool_calls" if is_assistant else "messages",
        )
    if continue_final_message and not is_assistant:
        raise PromptError(
            "continue_final_message needs a last message of the assistant's to continue.", param=f"{place}.role"
        )
    if is_assistant and not continue_final_message:
        raise PromptError(
            "The last message must not be the assistant's, whose turn it is; set continue_final_message to have it "
            "continued.",
            param=f"{place}.role",
        )


def _call(call: Message, place: str) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PromptError("A tool call needs a function with a name.", param=f"{place}.function.name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            raise PromptError(f"The arguments are not JSON: {error}.", param=f"{place}.function.arguments") from error
    return {**call, "type": "function", "function": {**function, "arguments": {} if arguments is None else arguments}}


def _text(message: Message, place: str) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, part in enumerate(content):
        text = part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            raise PromptError(
                f"This model reads text only, not {part.get('type')!r}.", param=f"{place}.content[{index}].type"
            )
        texts.append(text)
    return "\n".join(texts)
