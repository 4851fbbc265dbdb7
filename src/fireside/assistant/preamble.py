"""How much of a prompt is its preamble: what system messages, tools and the template put before the conversation.

The engine may keep a preamble's keys and values when it ends, so nothing of a conversation may count as one. It is
found by rendering another conversation, of one message that nobody wrote, after the same system messages and tools:
what the prompt has in common with that holds nothing else. Where a template treats the two differently (it puts the
system message into the last turn, say), they part sooner, and the preamble is shorter.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import takewhile
from typing import Any

from fireside.tokenizers.chat_template import TemplateError

Message = Mapping[str, Any]

_NOBODYS = {"role": "user", "content": "\ufffd"}
_LONGEST = 1 << 17  # characters of system messages and tools that are worth another rendering
_LONG = 20_000  # from here on, it is rendered in a thread, so that streams go on
_REMEMBERED = 16  # preambles, of at most `_LONGEST` characters


class Preambles:
    """Measures preambles, and remembers the last few, so that most requests pay no second rendering.

    render: token ids of a conversation with tools; raises `TemplateError`.
    """

    def __init__(self, render: Callable[[Sequence[Message], Sequence[Message]], Sequence[int]]) -> None:
        self._render = render
        self._known: OrderedDict[bytes, array[int]] = OrderedDict()

    async def measure(self, prompt_ids: Sequence[int], messages: Sequence[Message], tools: Sequence[Message]) -> int:
        """How many leading tokens of a prompt are its preamble. `messages` and `tools`: what it was rendered from."""
        leading = list(takewhile(lambda message: message["role"] in ("system", "developer"), messages))
        text = repr([date.today(), leading, tools])  # many templates write the date
        if len(text) > _LONGEST:
            return 0
        key = hashlib.sha256(text.encode()).digest()
        ids = self._known.get(key)
        if ids is None:
            other = [*leading, _NOBODYS]
            ids = await asyncio.to_thread(self._ids, other, tools) if len(text) > _LONG else self._ids(other, tools)
            self._known[key] = ids
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        both = enumerate(zip(ids, prompt_ids, strict=False))
        return next((index for index, (own, theirs) in both if own != theirs), min(len(ids), len(prompt_ids)))

    def _ids(self, messages: Sequence[Message], tools: Sequence[Message]) -> array[int]:
        try:
            return array("i", self._render(messages, tools))
        except TemplateError:
            return array("i")
