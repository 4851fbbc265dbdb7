"""Any sequence of asking, asking again, editing and going on, against a tree that is kept by hand."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.chat.people import Person, person
from tests.server.scripted_app import Scripted, says, scripted_app

KINDS = ("ask", "regenerate", "edit", "edit silently", "continue", "turn")
operations = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 30)), max_size=8)


class Model:
    """What the conversation should be: messages by id as (parent, role, content), in order, and the leaf."""

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[str | None, str, str]] = {}
        self.leaf: str | None = None

    def path(self, leaf: str | None) -> list[tuple[str, str]]:
        path = []
        while leaf is not None:
            parent, role, content = self.nodes[leaf]
            path.append((role, content))
            leaf = parent
        return path[::-1]

    def pick(self, number: int, role: str | None = None) -> str | None:
        ids = [i for i, (_, its, _) in self.nodes.items() if role in (None, its)]
        return ids[number % len(ids)] if ids else None

    def last_below(self, top: str) -> str:
        parents = {parent for parent, _, _ in self.nodes.values()}
        below = [i for i in self.nodes if i not in parents and self._is_below(i, top)]
        return max(below)

    def _is_below(self, leaf: str | None, top: str) -> bool:
        while leaf is not None and leaf != top:
            leaf = self.nodes[leaf][0]
        return leaf is not None


async def carry_out(ada: Person, script: Scripted, steps: list[tuple[str, int]]) -> None:
    conversation = await ada.converse(title="t")
    model = Model()
    for step, (kind, number) in enumerate([("ask", 0), *steps]):
        script.answer = says(f"answer {step};")
        words, seen = f"words {step}", len(script.client.requests)
        expected: list[tuple[str, str]] = []
        answer = None
        if kind == "ask":
            answers = [None, *(i for i, node in model.nodes.items() if node[1] == "assistant")]
            parent = answers[number % len(answers)]
            started = await ada.ask(conversation, words, parent)
            model.nodes[started["message"]["id"]] = (parent, "user", words)
            expected = model.path(started["message"]["id"])
            answer = (started, started["message"]["id"])
        elif kind == "regenerate" and (old := model.pick(number, "assistant")):
            started = await ada.post(f"messages/{old}/regenerate")
            expected = model.path(model.nodes[old][0])
            answer = (started, model.nodes[old][0])
        elif kind.startswith("edit") and (old := model.pick(number)):
            parent, role, _ = model.nodes[old]
            started = await ada.post(f"messages/{old}/edit", {"content": words, "run": kind == "edit"})
            new = started["message"]["id"]
            model.nodes[new] = (parent, role, words)
            model.leaf = new
            if role == "user" and kind == "edit":
                expected = model.path(new)
                answer = (started, new)
            assert (started["run"] is None) == (answer is None)
        elif kind == "continue" and (old := model.pick(number, "assistant")):
            started = await ada.post(f"messages/{old}/continue")
            expected = model.path(old)
            await ada.events(started["run"]["id"])
            parent, role, content = model.nodes[old]
            model.nodes[old] = (parent, role, content + f"answer {step};")
        elif kind == "turn" and (top := model.pick(number)):
            model.leaf = model.last_below(top)
            await ada.patch(f"conversations/{conversation}", {"current_leaf_id": top})
        if answer is not None:
            await ada.events(answer[0]["run"]["id"])
            model.leaf = answer[0]["answer"]["id"]
            model.nodes[model.leaf] = (answer[1], "assistant", f"answer {step};")
        tree = await ada.get(f"conversations/{conversation}")
        assert {m["id"]: (m["parent_id"], m["role"], m["content"]) for m in tree["messages"]} == model.nodes
        assert all(m["status"] == "complete" for m in tree["messages"])
        assert tree["current_leaf_id"] == model.leaf
        assert len(script.client.requests) - seen == bool(expected)
        if expected:
            _check_prompt(script.prompt(), expected)


def _check_prompt(prompt: str, turns: list[tuple[str, str]]) -> None:
    """Two questions in a row, where the answer between them was left out, cannot be here."""
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    is_open = turns[-1][0] == "assistant"
    assert prompt == (text.removesuffix("<|im_end|>\n") if is_open else text + "<|im_start|>assistant\n")


@settings(max_examples=6, deadline=None)
@given(sequences=st.lists(operations, min_size=1, max_size=2))
def test_any_sequence(sequences: list[list[tuple[str, int]]]) -> None:
    async def run() -> None:
        script = Scripted()
        app: Any = scripted_app(script)
        async with app.router.lifespan_context(app), person(app, "ada") as ada:
            for steps in sequences:
                await carry_out(ada, script, steps)

    asyncio.run(run())
