"""What a run is to do, and the prompt it makes of a path through the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fireside.assistant.errors import ContextLengthExceeded
from fireside.assistant.text import ChatPrompt
from fireside.assistant.text_model import TextModel
from fireside.server.chat.schemas import Parameters
from fireside.server.chat.tables import Role

_ROOM_SHARE = 4  # an answer without a limit gets at least a quarter of the context
# Turns are left out by so many, and not one by one: as long as the prompt begins as the one before, most of it is in
# the engine's cache.
_TURNS_AT_ONCE = 4


@dataclass(frozen=True)
class Turn:
    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """turns: from the first message to the one to answer, or to the answer to go on with (`continues`).

    content, reasoning: what its message holds already.
    question: what a title is to be written for; None: it has one. is_blind: nothing may tell which model answers.
    left_out: how many messages the beginning of an answer to go on with was given without; None: not known.
    """

    run_id: str
    user_id: str
    model: TextModel
    turns: Sequence[Turn]
    system: str = ""
    parameters: Parameters
    conversation_id: str | None = None
    message_id: str | None = None
    content: str = ""
    reasoning: str = ""
    question: str | None = None
    is_blind: bool = False
    left_out: int | None = None

    @property
    def continues(self) -> bool:
        return bool(self.content)


@dataclass(frozen=True)
class FittedPrompt:
    """max_tokens: of the answer; 0 means all that is left. left_out: how many messages the model does not see."""

    prompt: ChatPrompt
    prompt_ids: tuple[int, ...]
    max_tokens: int
    left_out: int


async def fitted_prompt(plan: Plan) -> FittedPrompt:
    """The prompt of a run, without the oldest turns if there is no room for them.

    The system message and the last turn are never left out. Raises PromptError (ContextLengthExceeded if they alone
    do not fit).
    """
    starts = _turn_starts(plan.turns)
    limit = plan.model.context_length
    wanted = plan.parameters.max_tokens or 0
    room = limit - min(wanted or limit // _ROOM_SHARE, limit // 2)

    async def encoded(skipped: int) -> tuple[ChatPrompt, tuple[int, ...]]:
        prompt = _prompt(plan, plan.turns[starts[skipped] :])
        try:
            return prompt, await plan.model.encode(prompt)
        except ContextLengthExceeded:
            if skipped == len(starts) - 1:
                raise
            return prompt, (0,) * (2 * limit)  # too many to be counted

    skipped = 0
    prompt, ids = await encoded(0)
    if len(ids) > room and len(starts) > 1:
        too_few, enough = 0, len(starts) - 1  # the fewest turns to leave out lie between
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if len((await encoded(middle))[1]) > room:
                too_few = middle
            else:
                enough = middle
        skipped = min(-(-enough // _TURNS_AT_ONCE) * _TURNS_AT_ONCE, len(starts) - 1)
        prompt, ids = await encoded(skipped)
    # What is asked for beyond the context is no error here: nobody who chats counts tokens.
    return FittedPrompt(prompt, ids, min(wanted, max(limit - len(ids), 1)) if wanted else 0, starts[skipped])


def _turn_starts(turns: Sequence[Turn]) -> list[int]:
    """Where in `turns` each question stands; what is before one can be left out."""
    return [0, *(i for i, turn in enumerate(turns) if i and turn.role == Role.USER)]


def _prompt(plan: Plan, turns: Sequence[Turn]) -> ChatPrompt:
    return ChatPrompt(messages=as_messages(plan.system, turns), continue_final_message=plan.continues)


def as_messages(system: str, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """As a model's template takes them."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        if not turn.content:  # an answer that failed before its first word
            continue
        if messages and messages[-1]["role"] == turn.role:  # and so two questions in a row, which templates refuse
            messages[-1] = {"role": turn.role, "content": f"{messages[-1]['content']}\n\n{turn.content}"}
        else:
            messages.append({"role": turn.role, "content": turn.content})
    return messages
