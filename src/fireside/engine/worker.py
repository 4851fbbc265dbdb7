"""The worker: a process that holds one model, spoken to over a socket. `python -m fireside.engine.worker --fd N`.

Its first frame is a `WorkerConfig`. It answers with `Ready` or `Fatal`, then takes `ToWorker` messages and sends
one `Outputs` per step, and a `Heartbeat` per second for as long as its steps come to an end. `Shutdown` and SIGTERM
let it save its prefixes. When the socket closes, its parent is gone, and it ends at once whatever it is doing.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

import msgspec

from fireside.engine.framing import FrameError, FrameSender, decode_payload, read_frames
from fireside.engine.loop import EngineLoop, Inbox, SteppedEngine
from fireside.engine.messages import (
    SHUTDOWN_SECONDS,
    EngineInfo,
    Fatal,
    FromWorker,
    Heartbeat,
    Ready,
    Shutdown,
    ToWorker,
    WorkerConfig,
)
from fireside.errors import FiresideError

EngineFactory = Callable[[WorkerConfig], tuple[SteppedEngine, EngineInfo]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fireside.engine.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket to the server process")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Not closed here but by the end of the process: the reader takes a closed socket for a dead parent.
    return run_worker(socket.socket(fileno=arguments.fd), _load_engine)


def run_worker(sock: socket.socket, factory: EngineFactory) -> int:
    """Serves until told to stop, and returns the exit status. Takes over the process: its signals, and its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    inbox = Inbox()
    serving = threading.Event()
    # Taken by a thread, not a handler, which could come in the middle of what it would have to call. Blocked here
    # before any other thread is there, each of which inherits it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_sigterm, args=(inbox, serving), name="sigterm", daemon=True).start()
    payloads = read_frames(sock)
    config = decode_payload(next(payloads), msgspec.msgpack.Decoder(WorkerConfig))
    threading.Thread(target=_read, args=(payloads, inbox), name="reader", daemon=True).start()
    sender = FrameSender(sock)

    def emit(message: FromWorker) -> None:
        try:
            sender.send(message)
        except OSError:
            _end_with_parent()

    try:
        engine, info = factory(config)
    except Exception as error:  # whatever it is, this model cannot be served, and a person must be told why
        if not isinstance(error, FiresideError):
            traceback.print_exc()
        emit(Fatal(str(error) if isinstance(error, FiresideError) else f"{type(error).__name__}: {error}"))
        return 1
    loop = EngineLoop(engine, inbox, emit)
    serving.set()
    emit(Ready(info))
    threading.Thread(target=_beat, args=(loop, emit, config.heartbeat_interval), name="heartbeat", daemon=True).start()
    loop.run()
    return 0


def _load_engine(config: WorkerConfig) -> tuple[SteppedEngine, EngineInfo]:
    # With torch come 170,000 objects that stay. To look through them again and again while they appear takes a tenth
    # of the start, and later on 75 ms in the middle of a step.
    gc.disable()
    try:
        from fireside.engine.loading import load_engine  # here and not above, because torch comes with it

        return load_engine(config)
    finally:
        gc.freeze()
        gc.enable()


def _read(payloads: Iterator[bytes], inbox: Inbox) -> None:
    decoder: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
    try:
        for payload in payloads:
            inbox.put(decode_payload(payload, decoder))
    except OSError:
        pass  # as good as closed
    except FrameError as error:
        print(f"fireside worker: the parent sent something else than frames: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    _end_with_parent()


def _await_sigterm(inbox: Inbox, serving: threading.Event) -> NoReturn:
    signal.sigwait({signal.SIGTERM})
    if serving.is_set():
        inbox.put(Shutdown())
        time.sleep(SHUTDOWN_SECONDS)
    os._exit(0)


def _beat(loop: EngineLoop, emit: Callable[[FromWorker], None], interval: float) -> NoReturn:
    while True:
        if loop.is_alive():
            emit(Heartbeat(loop.stats))
        time.sleep(interval)


def _end_with_parent() -> NoReturn:
    """There is nobody left to answer to, so that a step in progress is not waited for."""
    os._exit(0)


if __name__ == "__main__":
    exit_status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_status)  # nothing is left to save, and taking torch down in good order takes a second
