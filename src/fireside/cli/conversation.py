"""A conversation in the terminal: what was said, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from fireside.assistant.text import ChatPrompt
from fireside.errors import FiresideError


@dataclass
class Conversation:
    """`messages` alternate between user and assistant; the last may be a question without its answer."""

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, text: str) -> None:
        """Adds a question; one that got no answer is replaced."""
        if self.is_waiting:
            self.messages.pop()
        self.messages.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def take_back_answer(self) -> bool:
        """Removes the last answer, so that its question waits again. False: there is no question."""
        if self.messages and not self.is_waiting:
            self.messages.pop()
        return self.is_waiting

    @property
    def is_waiting(self) -> bool:
        return bool(self.messages) and self.messages[-1]["role"] == "user"

    def all_messages(self) -> list[dict[str, str]]:
        """In OpenAI's form, the system message first."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.messages]

    def prompt(self) -> ChatPrompt:
        return ChatPrompt(messages=self.all_messages())

    def save(self, file_name: str) -> None:
        """Writes a new file: OpenAI's messages if its name ends in .json, else Markdown. Raises `FiresideError`."""
        path = Path(file_name).expanduser()
        if path.suffix.lower() == ".json":
            text = json.dumps({"messages": self.all_messages()}, ensure_ascii=False, indent=2) + "\n"
        else:
            text = "\n".join(f"## {message['role']}\n\n{message['content']}\n" for message in self.all_messages())
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            raise FiresideError(f"{path} exists; choose another name") from error
        except OSError as error:
            raise FiresideError(f"{path} cannot be written: {error.strerror or error}") from error
