"""A whole server in front of an engine that says what a test tells it to: every byte is a token."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from fastapi import FastAPI

from fireside.assistant.text_model import TextModel
from fireside.engine.memory import MemoryNeed
from fireside.engine.messages import EngineInfo, GenerationRequest
from fireside.engine.scripted import ScriptedAnswer, ScriptedClient
from fireside.models.config import config_from_hf
from fireside.models.local import DamagedModel, GenerationDefaults, LocalModel
from fireside.server.app import create_app
from fireside.server.registry import ModelRegistry
from fireside.server.serving.library import Library
from fireside.settings import Settings
from fireside.tokenizers.chat_template import ChatTemplate
from fireside.tokenizers.tokenizer import Tokenizer
from tests.server.databases import migrated_sqlite

IM_START, IM_END = 256, 257
MODEL = "tiny"

CHAT_TEMPLATE = """\
{%- if tools %}<|im_start|>system
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools> call as <tool_call></tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'system' and not loop.first %}{{ raise_exception('system must come first') }}{% endif %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


@cache
def byte_tokenizer() -> Tokenizer:
    """256 bytes and two control tokens, so that a token id in a test is a byte that a reader knows."""
    # GPT-2's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    vocab = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    control = [
        {
            "id": i,
            "content": text,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, text in ((IM_START, "<|im_start|>"), (IM_END, "<|im_end|>"))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    described = {
        "version": "1.0",
        "added_tokens": control,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(described), encoding="utf-8")
        return Tokenizer.from_file(path, {"eos_token": "<|im_end|>"})


def says(text: str, **how: object) -> ScriptedAnswer:
    """An answer of these bytes, one token each, ended by the model itself."""
    return ScriptedAnswer(token_ids=(*text.encode(), IM_END), **how)  # type: ignore[arg-type]


@dataclass
class Scripted:
    """What the engine does. Tests set `answer`, and read what reached the engine in `client`.

    Greedy by nature: choices of one request all get the same answer, unless `answer` is a function.
    """

    answer: object = field(default_factory=lambda: says("Hello there."))
    max_requests: int | None = None
    client: ScriptedClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = ScriptedClient(self._next, max_requests=self.max_requests)

    def _next(self, request: GenerationRequest) -> ScriptedAnswer:
        answer = self.answer(request) if callable(self.answer) else self.answer
        assert isinstance(answer, ScriptedAnswer)
        return answer

    def prompt(self, index: int = -1) -> str:
        """The text of the prompt that reached the engine."""
        return byte_tokenizer().decode(self.client.requests[index].prompt_ids, skip_special_tokens=False)


def scripted_model(name: str, client: ScriptedClient, context_length: int = 2048) -> TextModel:
    return TextModel(
        name=name,
        tokenizer=byte_tokenizer(),
        engine=client,
        chat_template=ChatTemplate(CHAT_TEMPLATE, bos_token=None, eos_token="<|im_end|>"),
        context_length=context_length,
        defaults=GenerationDefaults(eos_token_ids=(IM_END,)),
        version=f"weights of {name}",
    )


class ScriptedLibrary(Library):
    """Models that answer as `scripts` say. free: bytes of memory; each model takes `NEED`."""

    NEED = MemoryNeed(weights=1_000_000_000, per_token=10_000, context=2048)

    def __init__(self, settings: Settings, scripts: dict[str, Scripted], *, free: int = 100_000_000_000) -> None:
        super().__init__(settings)
        self.scripts = scripts
        self.free = free
        self.caches: dict[str, int | None] = {}
        self.opened: dict[str, ScriptedClient] = {}

    def models(self) -> dict[str, LocalModel | DamagedModel]:
        return super().models() | {name: _on_disk(name) for name in self.scripts}

    def need(self, model: LocalModel, like: EngineInfo | None) -> MemoryNeed:
        return self.NEED

    def free_memory(self) -> int:
        return self.free

    def open(self, model: LocalModel, cache: int | None) -> TextModel:
        self.caches[model.name] = cache
        script = self.scripts[model.name]
        self.opened[model.name] = client = ScriptedClient(script._next)
        return scripted_model(model.name, client)


def _on_disk(name: str) -> LocalModel:
    config = config_from_hf(
        {
            "model_type": "llama", "vocab_size": 258, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 2048,
        },
        name,
    )  # fmt: skip
    return LocalModel(
        name=name, path=Path(name), format="gguf", config=config, generation=GenerationDefaults(eos_token_ids=()),
        chat_template=None, weight_type="Q4_0", size_bytes=1_000_000, license="apache-2.0",
    )  # fmt: skip


def scripted_app(
    script: Scripted,
    *,
    others: Mapping[str, Scripted] | None = None,
    library: dict[str, Scripted] | None = None,
    context_length: int = 2048,
    **settings: object,
) -> FastAPI:
    """In a home of its own, which lasts as long as the app, unless `home` says otherwise.

    others: more models. library: those that can be loaded as well.
    """
    folder = None
    if "home" not in settings:
        folder = TemporaryDirectory(prefix="fireside-test-")
        settings["home"] = Path(folder.name)
        (Path(folder.name) / "fireside.db").write_bytes(migrated_sqlite())
    made = Settings(**settings)  # type: ignore[arg-type]
    served = {MODEL: script, **(others or {})}
    models = [scripted_model(name, one.client, context_length) for name, one in served.items()]
    registry = ModelRegistry(models, map_unknown=made.map_unknown_models)
    app = create_app(made, registry=registry, library=ScriptedLibrary(made, library or {}))
    app.state.folder = folder
    return app


@contextlib.contextmanager
def running(app: FastAPI, **config: Any) -> Iterator[str]:
    """Serves `app` with uvicorn in a thread, on a free loopback port. Gives the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=2, **config)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    started = threading.Event()
    startup = server.startup

    async def announced(*args: object, **kwargs: object) -> None:
        await startup(*args, **kwargs)  # type: ignore[arg-type]
        started.set()

    server.startup = announced  # type: ignore[method-assign]
    thread.start()
    try:
        assert started.wait(30), "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
