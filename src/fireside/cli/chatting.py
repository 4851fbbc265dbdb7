"""What `fireside chat` does: the model in a worker process, the conversation in the terminal, no HTTP between."""

from __future__ import annotations

import asyncio
import difflib
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Protocol

from rich.console import Console

from fireside.assistant.text import TextChunk, TextOptions
from fireside.assistant.text_model import TextModel
from fireside.cli.conversation import Conversation
from fireside.cli.preparing import find_or_fetch, prepare_home
from fireside.engine.client import EngineError
from fireside.engine.messages import SamplingParams
from fireside.engine.supervisor import WorkerClient
from fireside.errors import FiresideError, ModelError
from fireside.settings import Settings

# Where the model's authors do not say, and where another answer is asked of a model whose default is the likeliest one.
# OpenAI's API has 1.0, which suits models far larger than those on a laptop.
_TEMPERATURE = 0.7
_TOP_P = 0.95

HELP = """\
/help             this list
/system TEXT      what the model is told first; without TEXT: nothing
/model NAME       go on with another model; without NAME: say which one it is
/regenerate       answer the last question again, in other words
/save FILE        keep the conversation: Markdown, or JSON if the name ends in .json
/new              forget the conversation and begin another
/quit             leave (so does Ctrl-D)
Enter sends; Alt-Enter, or a backslash at the end, begins a new line. Ctrl-C stops an answer."""
COMMANDS = tuple(line.split()[0] for line in HELP.splitlines() if line.startswith("/"))


class Asker(Protocol):
    async def ask(self) -> str | None: ...


OpenModel = Callable[[str], Awaitable[TextModel]]


def run_chat(settings: Settings, system: str | None) -> None:
    """Talks with a terminal, or answers what is piped in. Raises `FiresideError`."""
    try:
        asyncio.run(_run(settings, system))
    except KeyboardInterrupt:  # outside an answer: while the model loads
        sys.exit(130)


async def _run(settings: Settings, system: str | None) -> None:
    piped = None if sys.stdin.isatty() else sys.stdin.read()
    if piped is not None and not piped.strip():
        raise FiresideError("nothing came in to be answered: pipe a message in, or run fireside chat in a terminal")
    notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

    async def open_model(name: str) -> TextModel:
        local = await asyncio.to_thread(find_or_fetch, name, settings)  # the present model's heartbeats go on
        engine = WorkerClient.for_model(local, settings)
        await engine.start()
        try:
            with notes.status(f"loading {local.name} …"):
                model = await asyncio.to_thread(TextModel.from_local, local, engine, max_context=settings.max_context)
                await engine.wait_ready()
        except BaseException:
            await engine.close()
            raise
        return model

    prepare_home(settings)
    model = await open_model(settings.model)
    chat = Chat(model, Conversation(system), notes, open_model)
    try:
        if piped is not None:
            await chat.answer_once(piped.strip())
        else:
            from fireside.cli.chat_input import ChatInput  # not needed where nobody types

            await chat.talk(ChatInput(settings.home / "chat_history", COMMANDS))
    finally:
        await _close(chat.model)


async def _close(model: TextModel) -> None:
    model.close()
    await model.engine.close()


class Chat:
    """One person, one conversation, one model at a time. Answers go to stdout, everything else to `notes`."""

    def __init__(self, model: TextModel, conversation: Conversation, notes: Console, open_model: OpenModel) -> None:
        self.model = model
        self.conversation = conversation
        self._notes = notes
        self._open_model = open_model

    async def talk(self, asker: Asker) -> None:
        """Until /quit or the end of the input."""
        self._notes.print(f"{self.model.name} is listening. /help lists the commands.", style="dim")
        while True:
            try:
                text = await asker.ask()
            except KeyboardInterrupt:
                self._notes.print("Ctrl-D or /quit leaves.", style="dim")
                continue
            if text is None or text.strip() == "/quit":
                return
            try:
                await self._take(text.strip())
            except FiresideError as error:  # of this message or command; the conversation goes on
                self._notes.print(str(error), style="red")

    async def answer_once(self, text: str) -> None:
        """One question, one answer."""
        self.conversation.ask(text)
        await self._answer()

    async def _take(self, text: str) -> None:
        word, _, argument = text.partition(" ")
        if is_command(word):
            await self._command(word, argument.strip())
        elif text:
            await self.answer_once(text)

    async def _command(self, word: str, argument: str) -> None:
        match word:
            case "/help":
                self._notes.print(HELP)
            case "/system":
                self.conversation.system = argument or None
            case "/model" if argument:
                await self._change_model(argument)
            case "/model":
                self._notes.print(self.model.name)
            case "/regenerate":
                has_answer = not self.conversation.is_waiting
                if not self.conversation.take_back_answer():
                    raise FiresideError("there is no question yet to answer again")
                await self._answer(differently=has_answer)
            case "/save":
                if not argument:
                    raise FiresideError("/save needs the name of a file")
                self.conversation.save(argument)
            case "/new":
                self.conversation.messages.clear()
            case _:
                nearest = difflib.get_close_matches(word, COMMANDS, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else "/help lists them"
                raise FiresideError(f"there is no command {word}; {hint}")

    async def _change_model(self, name: str) -> None:
        """The old model stays until the new one can answer."""
        try:
            new = await self._open_model(name)
        except (ModelError, EngineError) as error:
            raise FiresideError(f"{error}. Still talking to {self.model.name}.") from error
        old, self.model = self.model, new
        await _close(old)
        self._notes.print(f"{new.name} is listening.", style="dim")

    async def _answer(self, *, differently: bool = False) -> None:
        """Streams the answer to the last question. After Ctrl-C what was written until then is the answer.

        differently: drawn at random even from a model whose default is its one likeliest answer.

        Raises what `TextModel.generate` raises; the question then waits for another attempt.
        """
        answer = _Answer()
        chunks = self.model.generate(self.conversation.prompt(), self._options(differently))
        writing = asyncio.ensure_future(answer.write(chunks))
        try:
            with _on_interrupt(writing.cancel):
                await asyncio.wait({writing})
        finally:
            writing.cancel()  # for when it is not Ctrl-C that ends us
            if answer.text:
                print(flush=True)
        if not writing.cancelled():
            writing.result()
        if answer.text:
            self.conversation.answer(answer.text)
        if self._notes.is_terminal:
            self._notes.print(answer.summary() + (" (stopped)" if writing.cancelled() else ""), style="dim")

    def _options(self, differently: bool) -> TextOptions:
        defaults = self.model.defaults
        temperature = _TEMPERATURE if defaults.temperature is None else defaults.temperature
        return TextOptions(
            sampling=SamplingParams(
                max_tokens=0,  # all the context that is left
                temperature=temperature or (_TEMPERATURE if differently else 0.0),
                top_p=_TOP_P if defaults.top_p is None else defaults.top_p,
                top_k=defaults.top_k or 0,
                min_p=defaults.min_p or 0.0,
                repetition_penalty=defaults.repetition_penalty or 1.0,
                seed=secrets.randbits(63),
            )
        )


class _Answer:
    """An answer as it is written to stdout, with the times that matter to who reads along."""

    def __init__(self) -> None:
        self.text = ""
        self._tokens = 0
        self._started = time.perf_counter()
        self._first_token: float | None = None
        self._last_token = self._started

    async def write(self, chunks: AsyncGenerator[TextChunk, None]) -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk.token_ids:
                    self._tokens += len(chunk.token_ids)
                    self._last_token = time.perf_counter()
                    self._first_token = self._first_token or self._last_token
                self.text += chunk.text
                print(chunk.text, end="", flush=True)

    def summary(self) -> str:
        """ "12 tokens, 61.3 tokens/s, the first after 0.12 s". The rate leaves the prompt's time out."""
        if self._first_token is None:
            return "no tokens"
        parts = [f"{self._tokens} token{'s' if self._tokens > 1 else ''}"]
        if self._last_token > self._first_token:
            parts.append(f"{(self._tokens - 1) / (self._last_token - self._first_token):.1f} tokens/s")
        return ", ".join([*parts, f"the first after {self._first_token - self._started:.2f} s"])


def is_command(word: str) -> bool:
    """/word, and not a path such as /etc/hosts."""
    return re.fullmatch(r"/[a-z]*", word) is not None


@contextmanager
def _on_interrupt(action: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C means `action`, and nothing else, within this block."""
    loop = asyncio.get_running_loop()
    previous = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(action))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
