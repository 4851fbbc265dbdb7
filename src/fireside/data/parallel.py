"""Many processes over a stream, in order and in bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from fireside.data.documents import Conversation, DataError, Document
from fireside.data.tokenizing import Prepared, Preparer, WorkerSetup

TASK_CHARACTERS = 1 << 20  # that a process gets at once
TASK_ITEMS = 1000

Item = Document | Conversation

_preparer: Preparer | None = None  # of a worker's process; set once, when it starts


class Pool:
    """Prepares items in `processes` processes (0: one per core, 1: this one). Use as a context manager."""

    def __init__(self, setup: WorkerSetup, processes: int) -> None:
        self._setup = setup
        self._processes = processes or len(os.sched_getaffinity(0))
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        if self._processes > 1:
            self._executor = ProcessPoolExecutor(
                self._processes,
                mp_context=multiprocessing.get_context("spawn"),  # forked threads of Rust's would wait forever
                initializer=_start,
                initargs=(self._setup,),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def map(self, items: Iterable[Item]) -> Iterator[Prepared]:
        """One result for each item, in their order. Reads ahead by two tasks a process and no more.

        Raises `DataError` if a process dies, as one does that runs out of memory.
        """
        if self._executor is None:
            preparer = Preparer(self._setup)
            for task in _tasks(items):
                yield from preparer.prepare(task)
            return
        waiting: deque[Future[list[Prepared]]] = deque()
        try:
            for task in _tasks(items):
                waiting.append(self._executor.submit(_prepare, task))
                if len(waiting) >= 2 * self._processes:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that cleans and tokenises died; if memory ran out, lower processes or max_document_bytes"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _tasks(items: Iterable[Item]) -> Iterator[list[Item]]:
    task: list[Item] = []
    size = 0
    for item in items:
        task.append(item)
        size += _characters(item)
        if size >= TASK_CHARACTERS or len(task) >= TASK_ITEMS:
            yield task
            task, size = [], 0
    if task:
        yield task


def _characters(item: Item) -> int:
    if isinstance(item, Document):
        return len(item.text)
    calls = (str(message.get("tool_calls", "")) for message in item.messages)
    return sum(len(message["content"]) for message in item.messages) + sum(map(len, calls)) + len(str(item.tools))


def _start(setup: WorkerSetup) -> None:
    global _preparer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its processes in order
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _preparer = Preparer(setup)


def _end_with_parent() -> None:
    """A parent that is killed tells nobody, and its processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _prepare(items: list[Item]) -> list[Prepared]:
    assert _preparer is not None
    return _preparer.prepare(items)
