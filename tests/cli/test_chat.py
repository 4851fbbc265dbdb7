"""`fireside chat` over a scripted engine: what is typed, what is shown, what reaches the model."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from fireside.assistant.text_model import TextModel
from fireside.cli.chat_input import ChatInput
from fireside.cli.chatting import COMMANDS, HELP, Chat, is_command
from fireside.cli.conversation import Conversation
from fireside.engine.client import EngineUnavailable
from fireside.engine.scripted import ScriptedAnswer
from fireside.errors import FiresideError, ModelError
from fireside.models.local import GenerationDefaults
from fireside.tokenizers.chat_template import ChatTemplate
from tests.server.scripted_app import CHAT_TEMPLATE, IM_END, Scripted, byte_tokenizer, says


class Typed:
    """A person who types these lines. An exception is raised in place of a line; then the input ends."""

    def __init__(self, lines: Sequence[str | BaseException]) -> None:
        self._lines = list(lines)

    async def ask(self) -> str | None:
        line = self._lines.pop(0) if self._lines else None
        if isinstance(line, BaseException):
            raise line
        return line


class Talk:
    """A chat with a scripted model. `notes` is what was shown beside the answers."""

    def __init__(
        self,
        script: Scripted,
        system: str | None = None,
        *,
        is_terminal: bool = True,
        temperature: float | None = None,
    ) -> None:
        self._shown = io.StringIO()
        self.script = script
        self.opened: list[str] = []
        notes = Console(file=self._shown, force_terminal=is_terminal, color_system=None, width=200, highlight=False)
        self._temperature = temperature
        self.chat = Chat(self._model("tiny", script), Conversation(system), notes, self._open)

    @property
    def notes(self) -> str:
        return self._shown.getvalue()

    async def type(self, *lines: str | BaseException) -> None:
        await self.chat.model.engine.start()
        await self.chat.talk(Typed(lines))

    async def _open(self, name: str) -> TextModel:
        if name == "missing":
            raise ModelError("there is no model 'missing'")
        model = self._model(name, Scripted(says(f"I am {name}.")))
        await model.engine.start()
        self.opened.append(name)
        return model

    def _model(self, name: str, script: Scripted) -> TextModel:
        return TextModel(
            name=name,
            tokenizer=byte_tokenizer(),
            engine=script.client,
            chat_template=ChatTemplate(CHAT_TEMPLATE, bos_token=None, eos_token="<|im_end|>"),
            context_length=512,
            defaults=GenerationDefaults(eos_token_ids=(IM_END,), top_k=7, temperature=self._temperature),
        )


async def test_conversation_reaches_the_model_whole(capsys: pytest.CaptureFixture[str]) -> None:
    script = Scripted(says("Fine 🙂"))
    talk = Talk(script, system="Be brief.")
    await talk.type("How are you?", "  ", "Really?", "/quit", "never sent")
    assert capsys.readouterr().out == "Fine 🙂\nFine 🙂\n"
    assert script.prompt() == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n"
        "<|im_start|>assistant\nFine 🙂<|im_end|>\n<|im_start|>user\nReally?<|im_end|>\n<|im_start|>assistant\n"
    )
    sampling = script.client.requests[-1].sampling
    assert (sampling.top_k, sampling.temperature, sampling.top_p) == (7, 0.7, 0.95)  # the author's word, else ours
    assert sampling.seed != script.client.requests[0].sampling.seed


async def test_line_after_the_answer_has_speed_and_first_token() -> None:
    talk = Talk(Scripted(says("Hello", delay=0.002)))
    await talk.type("Hi")
    *_, line = talk.notes.strip().splitlines()
    counted, speed, first = line.split(", ")
    assert counted == "5 tokens"
    assert speed.endswith(" tokens/s") and float(speed.split()[0]) > 0
    assert first.startswith("the first after 0.")


async def test_nothing_but_the_answer_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk(Scripted(says("Hello")), is_terminal=False)
    await talk.chat.model.engine.start()
    await talk.chat.answer_once("Hi")
    assert (capsys.readouterr().out, talk.notes) == ("Hello\n", "")


async def test_system_new_and_regenerate() -> None:
    script = Scripted(lambda request: says(f"answer {len(script.client.requests)}"))
    talk = Talk(script)
    await talk.type("/regenerate", "one", "/system Rhyme.", "/regenerate")
    assert "there is no question yet" in talk.notes
    assert talk.chat.conversation.all_messages() == [
        {"role": "system", "content": "Rhyme."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "answer 1"},
    ]
    await talk.type("/new", "/system", "two")
    assert script.prompt() == "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(("default", "asked"), [(0.0, [0.0, 0.7, 0.0]), (0.3, [0.3, 0.3, 0.3])])
async def test_another_answer_is_drawn_even_from_a_greedy_model(default: float, asked: list[float]) -> None:
    script = Scripted(says("Fine."))
    await Talk(script, temperature=default).type("How are you?", "/regenerate", "And now?")
    assert [request.sampling.temperature for request in script.client.requests] == asked


async def test_other_model_takes_the_conversation_over(capsys: pytest.CaptureFixture[str]) -> None:
    first = Scripted(says("I am tiny."))
    talk = Talk(first)
    await talk.type("Who are you?", "/model missing", "/model", "/model other", "And now?")
    assert capsys.readouterr().out == "I am tiny.\nI am other.\n"
    assert "there is no model 'missing'. Still talking to tiny." in talk.notes
    assert (talk.opened, talk.chat.model.name) == (["other"], "other")
    assert first.client.state == "closed"
    assert len(talk.chat.conversation.messages) == 4


async def test_interrupt_stops_the_answer_and_not_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    def endless(request: object) -> ScriptedAnswer:
        if len(script.client.requests) == 0:
            asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
            return ScriptedAnswer(token_ids=itertools.cycle(b"la "), delay=0.005)
        return says("Done.")

    script = Scripted(endless)
    talk = Talk(script)
    before = signal.getsignal(signal.SIGINT)
    await talk.type("Sing!", "Enough?")
    sung, done = capsys.readouterr().out.splitlines()
    assert sung.startswith("la la") and done == "Done."
    assert talk.chat.conversation.messages[1] == {"role": "assistant", "content": sung}
    assert "(stopped)" in talk.notes
    assert len(script.client.cancelled) == 1 and script.client.in_flight == 0
    assert signal.getsignal(signal.SIGINT) is before


async def test_interrupt_at_the_prompt_says_how_to_leave() -> None:
    talk = Talk(Scripted())
    await talk.type(KeyboardInterrupt(), "/quit")
    assert "/quit leaves" in talk.notes


async def test_failed_answer_leaves_the_question_for_another_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [ScriptedAnswer(error=EngineUnavailable("the worker died")), says("Here I am.")]
    talk = Talk(Scripted(lambda request: answers.pop(0)))
    await talk.type("Are you there?", "/regenerate")
    assert "the worker died" in talk.notes
    assert capsys.readouterr().out == "Here I am.\n"
    assert [message["role"] for message in talk.chat.conversation.messages] == ["user", "assistant"]


async def test_full_context_is_said_with_both_numbers_and_the_next_question_replaces_it() -> None:
    talk = Talk(Scripted())
    await talk.type("x" * 600, "short")
    assert "context holds 512 tokens" in talk.notes
    assert talk.chat.conversation.messages[0] == {"role": "user", "content": "short"}


async def test_help_names_every_command_and_mistakes_name_the_nearest() -> None:
    talk = Talk(Scripted())
    await talk.type("/help", "/sytem x", "/xyzzy", "/save")
    assert all(line in talk.notes for line in HELP.splitlines())
    assert "there is no command /sytem; did you mean /system?" in talk.notes
    assert "there is no command /xyzzy; /help lists them" in talk.notes
    assert "/save needs the name of a file" in talk.notes
    assert talk.script.client.requests == []


def test_paths_are_no_commands() -> None:
    assert all(map(is_command, COMMANDS))
    assert not is_command("/etc/hosts") and not is_command("//") and not is_command("a/b")


async def test_save_writes_markdown_or_json_and_never_over_a_file(tmp_path: Path) -> None:
    talk = Talk(Scripted(says("Ja.")), system="Deutsch")
    markdown, data = tmp_path / "a talk.md", tmp_path / "talk.json"
    await talk.type("Gut?", f"/save {markdown}", f"/save {data}", f"/save {data}", f"/save {tmp_path}/no/where.md")
    assert markdown.read_text() == "## system\n\nDeutsch\n\n## user\n\nGut?\n\n## assistant\n\nJa.\n"
    assert json.loads(data.read_text())["messages"] == talk.chat.conversation.all_messages()
    assert "talk.json exists; choose another name" in talk.notes
    assert "where.md cannot be written: No such file or directory" in talk.notes


def test_unwritable_conversation_is_a_fireside_error(tmp_path: Path) -> None:
    with pytest.raises(FiresideError, match="cannot be written"):
        Conversation().save(str(tmp_path / "missing" / "file"))


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        ("hello\r", ["hello"]),
        ("one\\\rtwo\r", ["one\ntwo"]),  # a backslash at the end of the line
        ("one\x1b\rtwo\r", ["one\ntwo"]),  # Alt-Enter
        ("back\\slash\r", ["back\\slash"]),
        ("\x04", []),  # Ctrl-D
    ],
)
async def test_typing(keys: str, messages: list[str], tmp_path: Path) -> None:
    with create_pipe_input() as pipe:
        asker = ChatInput(tmp_path / "state" / "history", COMMANDS, input=pipe, output=DummyOutput())
        pipe.send_text(keys)
        assert [await asker.ask() for _ in messages] == messages
        pipe.send_text("\x04")
        assert await asker.ask() is None


async def test_history_is_kept_for_the_owner_alone(tmp_path: Path) -> None:
    history = tmp_path / "history"
    with create_pipe_input() as pipe:
        pipe.send_text("one\\\rtwo\rthree\r")
        asker = ChatInput(history, COMMANDS, input=pipe, output=DummyOutput())
        await asker.ask(), await asker.ask()
    assert [text async for text in FileHistory(history).load()] == ["three", "one\ntwo"]
    assert history.stat().st_mode & 0o077 == 0


async def test_interrupt_while_typing_is_passed_on(tmp_path: Path) -> None:
    with create_pipe_input() as pipe:
        pipe.send_text("half a thou\x03")
        with pytest.raises(KeyboardInterrupt):
            await ChatInput(tmp_path / "history", COMMANDS, input=pipe, output=DummyOutput()).ask()
