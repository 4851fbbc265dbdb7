"""A real worker process around an engine without a model: `python fake_worker.py [--mode MODE] --fd N`.

It counts up from the last token of the prompt, one token per step. Some first tokens make it misbehave.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time

from fireside.engine import worker
from fireside.engine.client import EngineBusy, RequestRejected
from fireside.engine.messages import (
    EngineInfo,
    EngineStats,
    FinishReason,
    GenerationOutput,
    GenerationRequest,
    Rejected,
    WorkerConfig,
)
from fireside.errors import ModelError

EXIT, HANG, RAISE, REJECT_LATER = 9001, 9002, 9003, 9004

INFO = EngineInfo(
    model="fake", device="cpu", dtype="float32", backend="fake", max_context=128, block_size=16, num_blocks=8
)


class CountingEngine:
    """Implements `loop.SteppedEngine`. `stats.preemptions` counts cancels, for lack of a better place."""

    def __init__(self, max_waiting: int = 1000, step_seconds: float = 0.001, close_seconds: float = 0.0) -> None:
        self._requests: dict[str, GenerationRequest] = {}
        self._given: dict[str, int] = {}
        self._reports: list[GenerationOutput | Rejected] = []
        self._max_waiting = max_waiting
        self._step_seconds = step_seconds
        self._close_seconds = close_seconds
        self._steps = 0
        self._cancels = 0
        self.is_closed = False

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._reports)

    @property
    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._requests), steps=self._steps, preemptions=self._cancels)

    def submit(self, request: GenerationRequest) -> None:
        if len(request.prompt_ids) > INFO.max_context:
            raise RequestRejected("too long", "context_length")
        if len(self._requests) >= self._max_waiting:
            raise EngineBusy("full")
        self._requests[request.id] = request
        self._given[request.id] = 0

    def cancel(self, request_id: str) -> None:
        if self._requests.pop(request_id, None) is not None:
            self._cancels += 1
            self._reports.append(GenerationOutput(request_id=request_id, finish_reason=FinishReason.CANCELLED))

    def step(self) -> list[GenerationOutput | Rejected]:
        time.sleep(self._step_seconds)
        self._steps += 1
        results, self._reports = self._reports, []
        for request in list(self._requests.values()):
            given = self._given[request.id] = self._given[request.id] + 1
            if given > 2:
                self._misbehave(request.prompt_ids[0])
            if request.prompt_ids[0] == REJECT_LATER:
                results.append(Rejected(request.id, "grammar", "no such grammar"))
                del self._requests[request.id]
                continue
            last = given == request.sampling.max_tokens
            if last:
                del self._requests[request.id]
            results.append(
                GenerationOutput(
                    request_id=request.id,
                    token_ids=(request.prompt_ids[-1] + given,),
                    finish_reason=FinishReason.LENGTH if last else None,
                )
            )
        return results

    def close(self) -> None:
        time.sleep(self._close_seconds)
        self.is_closed = True
        print("closed", file=sys.stderr, flush=True)

    @staticmethod
    def _misbehave(token_id: int) -> None:
        if token_id == EXIT:
            os.kill(os.getpid(), signal.SIGKILL)
        if token_id == HANG:
            time.sleep(3600)
        if token_id == RAISE:
            raise RuntimeError("a step failed")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--mode", default="serve")
    arguments = parser.parse_args()

    def factory(config: WorkerConfig) -> tuple[CountingEngine, EngineInfo]:
        if arguments.mode == "fatal":
            raise ModelError("the weights are damaged; fetch them again")
        if arguments.mode == "bug":
            raise RuntimeError("out of luck")
        if arguments.mode == "die":
            sys.exit(3)
        if arguments.mode == "hang":
            print("loading", file=sys.stderr, flush=True)
            time.sleep(3600)
        print(f"serving {config.name}", file=sys.stderr)
        return CountingEngine(config.max_waiting, close_seconds=2.0 if arguments.mode == "save" else 0.0), INFO

    if arguments.mode == "impatient":
        worker.SHUTDOWN_SECONDS = 0.2
    sock = socket.socket(fileno=arguments.fd)
    if arguments.mode == "garbage":
        sock.sendall(b"\xff" * 64)
    return worker.run_worker(sock, factory)


if __name__ == "__main__":
    sys.exit(main())
