"""The worker process, spoken to by hand: how it starts, beats and ends. The rest is in `test_supervisor`."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest

from fireside.engine.framing import FrameSender, decode_payload, read_frames
from fireside.engine.messages import (
    Cancel,
    Fatal,
    FinishReason,
    FromWorker,
    GenerationOutput,
    GenerationRequest,
    Heartbeat,
    Outputs,
    Ready,
    Rejected,
    SamplingParams,
    Shutdown,
    Submit,
    WorkerConfig,
)
from tests.engine.fake_worker import HANG, INFO
from tests.engine.tiny_model import write_tiny_model

SOON = 60.0
CONFIG = WorkerConfig(model="m", name="fake", heartbeat_interval=0.02)
FAKE = (str(Path(__file__).with_name("fake_worker.py")),)
REAL = ("-m", "fireside.engine.worker")


class Worker:
    """A worker process and our end of its socket."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.socket = sock
        self.process = process
        self.send = FrameSender(sock).send
        self._payloads = read_frames(sock)
        self._decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)

    def receive(self) -> FromWorker:
        return decode_payload(next(self._payloads), self._decoder)

    def expect(self, kind: type) -> FromWorker:
        """The next message that is no heartbeat, unless heartbeats are wanted."""
        message = self.receive()
        while isinstance(message, Heartbeat) and kind is not Heartbeat:
            message = self.receive()
        assert isinstance(message, kind), message
        return message

    def exit_status(self) -> int:
        return self.process.wait(SOON)


@contextmanager
def started(*command: str, config: WorkerConfig = CONFIG) -> Iterator[Worker]:
    ours, theirs = socket.socketpair()
    ours.settimeout(SOON)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, *command, "--fd", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.PIPE,
        )
        theirs.close()
        worker = Worker(ours, process)
        worker.send(config)
        try:
            yield worker
        finally:
            process.kill()
            process.communicate()


def submit(id: str, *prompt: int, max_tokens: int = 3) -> Submit:
    sampling = SamplingParams(max_tokens=max_tokens)
    return Submit(GenerationRequest(id=id, prompt_ids=prompt, sampling=sampling))


def test_ready_then_one_frame_of_outputs_per_step() -> None:
    with started(*FAKE) as worker:
        assert worker.receive() == Ready(INFO)
        worker.send(submit("a", 10))
        frames = [worker.expect(Outputs) for _ in range(3)]
        assert [[output.token_ids for output in frame.outputs] for frame in frames] == [[(11,)], [(12,)], [(13,)]]
        assert frames[-1].outputs[0].finish_reason is FinishReason.LENGTH


def test_an_idle_worker_beats_and_a_stuck_one_does_not() -> None:
    with started(*FAKE) as worker:
        worker.expect(Ready)
        for _ in range(3):
            assert worker.expect(Heartbeat).stats.running == 0
        worker.send(submit("stuck", HANG, max_tokens=9))
        worker.expect(Outputs)
        worker.expect(Outputs)
        worker.socket.settimeout(1.0)  # fifty beats
        beats = 0
        with pytest.raises(TimeoutError):
            while True:
                worker.expect(Heartbeat)
                beats += 1
        assert beats <= 2, "it may still report the steps that ended"


def test_the_worker_ends_with_its_parent_though_a_step_is_stuck() -> None:
    with started(*FAKE) as worker:
        worker.expect(Ready)
        worker.send(submit("stuck", HANG, max_tokens=9))
        worker.expect(Outputs)
        worker.expect(Outputs)
        worker.socket.close()
        assert worker.exit_status() == 0


def test_the_worker_ends_with_its_parent_while_loading() -> None:
    with started(*FAKE, "--mode", "hang") as worker:
        worker.socket.close()
        assert worker.exit_status() == 0


def test_shutdown_and_sigterm_end_it_cleanly_and_sigint_does_not() -> None:
    with started(*FAKE) as worker:
        worker.expect(Ready)
        worker.process.send_signal(signal.SIGINT)
        worker.send(submit("a", 10, max_tokens=1))
        worker.expect(Outputs)
        worker.send(Shutdown())
        assert worker.exit_status() == 0
    with started(*FAKE) as worker:
        worker.expect(Ready)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.exit_status() == 0


def test_sigterm_ends_a_worker_that_loads_or_is_stuck() -> None:
    with started(*FAKE, "--mode", "hang") as worker:
        assert worker.process.stderr is not None
        assert worker.process.stderr.readline() == b"loading\n"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.exit_status() == 0
    with started(*FAKE, "--mode", "impatient") as worker:
        worker.expect(Ready)
        worker.send(submit("stuck", HANG, max_tokens=9))
        worker.expect(Outputs)
        worker.expect(Outputs)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.exit_status() == 0


@pytest.mark.parametrize("ending", ["shutdown", "sigterm"])
def test_a_restarted_worker_starts_warm(ending: str, tmp_path: Path) -> None:
    model, folder = write_tiny_model(tmp_path / "model"), tmp_path / "home" / "prefixes"
    config = WorkerConfig(model=str(model), name="tiny", device="cpu", max_context=256, prefix_folder=str(folder))
    sampling = SamplingParams(max_tokens=8)
    asked = GenerationRequest(id="r", prompt_ids=tuple(range(80)), sampling=sampling, preamble_tokens=70)
    answers, cached = [], []
    for _ in range(2):
        with started(*REAL, config=config) as worker:
            worker.expect(Ready)
            worker.send(Submit(asked))
            outputs: list[GenerationOutput] = []
            while not outputs or outputs[-1].finish_reason is None:
                outputs += cast(Outputs, worker.expect(Outputs)).outputs
            answers.append([token for output in outputs for token in output.token_ids])
            cached.append(outputs[-1].cached_tokens)
            if ending == "shutdown":
                worker.send(Shutdown())
            else:
                worker.process.send_signal(signal.SIGTERM)
            assert worker.exit_status() == 0
    assert cached == [0, 64]
    assert answers[0] == answers[1]
    assert len(list(folder.glob("*.safetensors"))) == 1


def test_noise_from_the_parent_ends_it_with_the_reason() -> None:
    with started(*FAKE) as worker:
        worker.expect(Ready)
        worker.socket.sendall(b"\xff" * 64)
        assert worker.exit_status() == 1
        assert worker.process.stderr is not None
        assert b"something else than frames" in worker.process.stderr.read()


def test_a_cancel_of_an_unknown_id_is_no_trouble() -> None:
    with started(*FAKE) as worker:
        worker.expect(Ready)
        worker.send(Cancel("never heard of"))
        worker.send(submit("long", *range(200)))
        assert worker.expect(Rejected) == Rejected("long", "context_length", "too long")


def test_the_real_worker_says_why_it_cannot_serve_a_model(tmp_path: Path) -> None:
    missing = tmp_path / "missing.gguf"
    with started(*REAL, config=WorkerConfig(model=str(missing), name="missing")) as worker:
        assert "missing.gguf" in worker.expect(Fatal).reason
        assert worker.exit_status() == 1


def test_the_worker_module_imports_without_torch() -> None:
    script = "import sys, fireside.engine.worker, fireside.engine.supervisor; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
