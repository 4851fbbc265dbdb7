"""Takes what a model thinks apart from what it answers: `<think>…</think>` at the beginning of an answer."""

from __future__ import annotations

from fireside.server.chat.runs.live import Event

BEGIN, END = "<think>", "</think>"
_SPACE = {"opened": "inside", "closed": "after"}  # states that skip white space, and what comes next


class Thinking:
    """Feeds on an answer's text as it comes; gives events of the types `reasoning` and `text`, and holds back no more
    than might be a marker."""

    def __init__(self) -> None:
        self._held = ""
        # "before" anything, "opened" (space before the thoughts), "inside", "closed" (space before the answer), "after"
        self._state = "before"

    def push(self, text: str) -> list[Event]:
        self._held += text
        events: list[Event] = []
        while (event := self._next()) is not None:
            if event:
                events.append(event)
        return events

    def finish(self) -> list[Event]:
        """What was held back after all."""
        held, self._held = self._held, ""
        kind = "reasoning" if self._state == "inside" else "text"
        return [{"type": kind, kind: held}] if held and self._state not in _SPACE else []

    def _next(self) -> Event | None:
        """One step: an event, an empty one, or None when more text is needed."""
        held = self._held
        match self._state:
            case "before":
                start = held.lstrip()
                if start.startswith(BEGIN):
                    self._turn("opened", start[len(BEGIN) :])
                    return {}
                if BEGIN.startswith(start):
                    return None
                self._state = "after"
                return {}
            case "inside":
                reasoning, marker, rest = held.partition(END)
                if marker:
                    self._turn("closed", rest)
                    reasoning = reasoning.rstrip()
                else:
                    reasoning = held[: len(held) - _undecided(held)]
                    self._held = held[len(reasoning) :]
                if reasoning:
                    return {"type": "reasoning", "reasoning": reasoning}
                return {} if marker else None
            case "opened" | "closed":
                if not held.lstrip():
                    return None
                self._turn(_SPACE[self._state], held.lstrip())
                return {}
        self._held = ""
        return {"type": "text", "text": held} if held else None

    def _turn(self, state: str, rest: str) -> None:
        self._state, self._held = state, rest


def _undecided(text: str) -> int:
    """How many characters at the end might belong to a marker, or be the space before one."""
    length = next((n for n in range(len(END) - 1, 0, -1) if text.endswith(END[:n])), 0)
    before = text[: len(text) - length]
    return length + len(before) - len(before.rstrip())
