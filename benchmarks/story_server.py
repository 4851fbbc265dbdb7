"""`fireside serve` with a storyteller for a model, in a worker process of its own: `benchmarks.crashes` kills both.

    python -m benchmarks.story_server serve --port PORT     the server, in FIRESIDE_HOME
    python -m benchmarks.story_server --fd N                its worker, which the server starts

Every answer is the same story, of numbered words, so that a word that was lost or told twice is seen. Whoever has the
model go on with an answer gets what comes next.
"""

from __future__ import annotations

import socket
import sys
import time
from types import SimpleNamespace
from typing import Any

STORY = " ".join(f"{number:04}" for number in range(1, 151))
IM_END = 257  # of the tests' tokenizer, whose other tokens are bytes
_STEP_SECONDS, _TOKENS_A_STEP = 0.01, 4
_CONTEXT = 8192


def _worker() -> int:
    from fireside.engine.messages import (
        EngineInfo,
        EngineStats,
        FinishReason,
        GenerationOutput,
        GenerationRequest,
        Rejected,
        WorkerConfig,
    )
    from fireside.engine.worker import run_worker

    class Storyteller:
        """Implements `loop.SteppedEngine`."""

        def __init__(self) -> None:
            self._left: dict[str, list[int]] = {}
            self._pace: dict[str, int] = {}

        @property
        def has_work(self) -> bool:
            return bool(self._left)

        @property
        def stats(self) -> EngineStats:
            return EngineStats(running=len(self._left))

        def submit(self, request: GenerationRequest) -> None:
            prompt = bytes(token for token in request.prompt_ids if token < 256).decode()
            told = len(prompt.rpartition("assistant\n")[2])
            text = "A story" if "Write a short title" in prompt else STORY[told:]
            self._left[request.id] = [*text.encode(), IM_END][: request.sampling.max_tokens]
            self._pace[request.id] = _TOKENS_A_STEP if told == 0 else 10 * _TOKENS_A_STEP  # the rest is not waited for

        def cancel(self, request_id: str) -> None:
            self._left.pop(request_id, None)

        def step(self) -> list[GenerationOutput | Rejected]:
            time.sleep(_STEP_SECONDS)
            outputs: list[GenerationOutput | Rejected] = []
            for request_id, left in list(self._left.items()):
                pace = self._pace[request_id]
                now, self._left[request_id] = left[:pace], left[pace:]
                is_over = not self._left[request_id]
                is_told = now[-1:] == [IM_END]
                reason = (FinishReason.STOP if is_told else FinishReason.LENGTH) if is_over else None
                outputs.append(
                    GenerationOutput(
                        request_id=request_id,
                        token_ids=tuple(now),
                        finish_reason=reason,
                        stopped_by=IM_END if is_over and is_told else None,
                    )
                )
                if is_over:
                    del self._left[request_id]
            return outputs

        def close(self) -> None:
            pass

    def factory(config: WorkerConfig) -> tuple[Any, EngineInfo]:
        info = EngineInfo(
            model=config.name, device="cpu", dtype="float32", backend="story", max_context=_CONTEXT, block_size=16,
            num_blocks=_CONTEXT // 16,
        )  # fmt: skip
        return Storyteller(), info

    return run_worker(socket.socket(fileno=int(sys.argv[2])), factory)


def _serve() -> None:
    from tests.server.scripted_app import CHAT_TEMPLATE, byte_tokenizer

    from fireside.assistant.text_model import TextModel
    from fireside.cli import main, serving, web_server
    from fireside.engine.client import EngineClient
    from fireside.engine.messages import WorkerConfig
    from fireside.engine.supervisor import RestartPolicy, WorkerClient
    from fireside.models.local import GenerationDefaults
    from fireside.server.registry import ModelRegistry
    from fireside.tokenizers.chat_template import ChatTemplate

    # However often it is killed, it is started again, which is otherwise given up after five quick deaths.
    policy = RestartPolicy(first_delay=0.1, stable_after=0.0)
    command = (sys.executable, "-m", "benchmarks.story_server")
    engine = WorkerClient(WorkerConfig(model="story", name="story"), restart_policy=policy, command=command)

    def registry_of(_: object, engine: EngineClient, __: object) -> ModelRegistry:
        model = TextModel(
            name="story",
            tokenizer=byte_tokenizer(),
            engine=engine,
            chat_template=ChatTemplate(CHAT_TEMPLATE, bos_token=None, eos_token="<|im_end|>"),
            context_length=_CONTEXT,
            defaults=GenerationDefaults(eos_token_ids=(IM_END,)),
        )
        return ModelRegistry([model])

    story: Any = SimpleNamespace(name="story")
    serving.find_or_fetch = lambda name, settings: story
    serving.WorkerClient = SimpleNamespace(for_model=lambda model, settings: engine)  # type: ignore[assignment,misc]
    web_server.registry_of = registry_of  # type: ignore[assignment]
    main.main()


if __name__ == "__main__":
    if sys.argv[1] == "--fd":
        sys.exit(_worker())
    _serve()
