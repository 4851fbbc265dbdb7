"""Structured output: an `OutputConstraint` becomes a grammar that llguidance follows, tried out before admission.

A grammar is built of named parts, llguidance's "grammars" list; the first is where the answer starts.
https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from fireside.assistant.errors import PromptError
from fireside.assistant.text import OutputConstraint

GrammarPart: TypeAlias = dict[str, Any]

MAX_GRAMMAR_BYTES = 256 * 1024
_CHECKED_GRAMMARS = 256
_CHECKERS = 2  # so that one slow schema does not hold up everybody's

# JSON as Python's json.dumps writes it, which is also how chat models are taught to write calls. A schema's own
# "x-guidance" could name other separators and so give something that is not JSON. Free whitespace would be legal, but
# small models get caught in writing nothing else.
_JSON_STYLE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


def json_schema_part(name: str, schema: Mapping[str, Any], *, lenient: bool = False) -> GrammarPart:
    """JSON that fits `schema`. `lenient` passes over keywords that llguidance does not know."""
    return {"name": name, "json_schema": {**schema, "x-guidance": {**_JSON_STYLE, "lenient": lenient}}}


def lark_text(text: str) -> str:
    """A Lark literal."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")  # the one that JSON leaves as it is


def answer_part(constraint: OutputConstraint) -> GrammarPart:
    """The grammar part "answer". Raises PromptError if the constraint lacks what its kind needs."""
    match constraint.kind:
        case "json_object":
            return json_schema_part("answer", {"type": "object"})
        case "json_schema" if constraint.schema is not None:
            return json_schema_part("answer", constraint.schema)
        case "regex" if constraint.pattern is not None:
            return {"name": "answer", "regex": constraint.pattern}
        case "choice" if constraint.choices:
            choices = dict.fromkeys(constraint.choices)
            return {"name": "answer", "lark_grammar": f"start: {' | '.join(map(lark_text, choices))}"}
        case "lark" if constraint.source is not None:
            return {"name": "answer", "lark_grammar": constraint.source}
    missing = {"json_schema": "a schema", "regex": "a pattern", "choice": "at least one choice", "lark": "a grammar"}
    raise PromptError(f"Output of the kind {constraint.kind} needs {missing[constraint.kind]}.", param=constraint.param)


class GrammarChecker:
    """Turns grammar parts into the serialised form that the engine takes, refusing those that cannot be used.

    timeout: seconds that one grammar may take. The work is done by up to two processes of their own, started when they
    are first needed; one that takes too long is ended. Grammars found good lately are remembered.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._known: OrderedDict[str, str] = OrderedDict()
        self._idle: list[_CheckerProcess] = []
        self._threads = ThreadPoolExecutor(_CHECKERS, thread_name_prefix="grammar-check")

    async def check(self, parts: Sequence[GrammarPart], *, param: str) -> str:
        """The serialised grammar. Raises PromptError naming `param` if it is invalid, unsupported or too complex."""
        try:
            request = json.dumps({"grammars": parts}, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise PromptError(f"{param} is not JSON that can be used: {error}", param=param) from error
        if len(request) > MAX_GRAMMAR_BYTES:
            raise PromptError(
                f"{param} is too large: {len(request):,} bytes as a grammar, of {MAX_GRAMMAR_BYTES:,} at most.",
                param=param,
            )
        grammar = self._known.get(request)
        if grammar is None:
            reply = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, request)
            if "grammar" not in reply:
                raise PromptError(f"{param} cannot be used: {_summary(reply['error'])}", param=param)
            grammar = self._known[request] = reply["grammar"]
            while len(self._known) > _CHECKED_GRAMMARS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(request)
        return grammar

    def close(self) -> None:
        """Ends the processes; they start again when needed."""
        while self._idle:
            self._idle.pop().kill()

    def _ask(self, request: str) -> dict[str, str]:
        try:
            process = self._idle.pop()
        except IndexError:
            process = _CheckerProcess()
        reply = process.ask(request, self._timeout)
        if reply is None:
            return {"error": f"it is too complex (over {self._timeout:g} s or too much memory to compile)"}
        self._idle.append(process)
        return reply


class _CheckerProcess:
    """One `grammar_check` program. Not thread-safe."""

    _START_TIMEOUT = 60.0  # a busy machine may take long to start it, which says nothing about a grammar

    def __init__(self) -> None:
        program = Path(__file__).with_name("grammar_check.py")
        self._process = subprocess.Popen(  # noqa: S603 - our own file, no shell
            [sys.executable, "-P", str(program)],  # -P: this folder's modules are not for import by their bare names
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a panic in Rust; what it means for the grammar is said in the reply
            text=True,
            encoding="ascii",
        )
        self._ready = False

    def ask(self, request: str, timeout: float) -> dict[str, str] | None:
        """The reply, or None if there was none within `timeout` seconds or the process died. It is then gone."""
        stdin = self._process.stdin
        assert stdin is not None
        if not self._ready:
            self._ready = self._read(self._START_TIMEOUT) is not None
        reply = None
        if self._ready:
            try:
                print(request, file=stdin, flush=True)
            except BrokenPipeError:
                self._ready = False
            else:
                reply = self._read(timeout)
        if reply is None:
            self.kill()
        return reply

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self, timeout: float) -> dict[str, str] | None:
        stdout = self._process.stdout
        assert stdout is not None
        timer = threading.Timer(timeout, self._process.kill)
        timer.start()
        try:
            line = stdout.readline()
        finally:
            timer.cancel()
        reply: dict[str, str] | None = json.loads(line) if line.endswith("\n") else None
        return reply


def _summary(message: str) -> str:
    """What matters of llguidance's error: the last "error:" where it shows the place of one, else the first line."""
    lines = message.strip().splitlines() or ["unknown error"]
    line = next((line for line in reversed(lines) if line.startswith("error: ")), lines[0])
    return line if len(line) <= 300 else f"{line[:300]} ..."
