"""The line that a person types into `fireside chat`: several lines, editing, history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output

_PROMPT = "> "


class ChatInput:
    """Asks for messages. Enter sends; Alt-Enter, or a backslash at the end of the line, begins a new line."""

    def __init__(
        self, history: Path, commands: Sequence[str], *, input: Input | None = None, output: Output | None = None
    ) -> None:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        self._session: PromptSession[str] = PromptSession(
            _PROMPT,
            multiline=True,
            history=FileHistory(history),
            key_bindings=_key_bindings(),
            prompt_continuation=" " * len(_PROMPT),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            enable_history_search=True,
            input=input,
            output=output,
        )

    async def ask(self) -> str | None:
        """The next message; None once Ctrl-D ended the input. Raises `KeyboardInterrupt` for Ctrl-C."""
        try:
            return await self._session.prompt_async()
        except EOFError:
            return None


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline()
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline()

    return bindings
