"""`Streams`: the outputs of requests in flight, from where they arrive to the iterators that await them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from fireside.engine.client import EngineBusy, EngineError, EngineUnavailable, RequestRejected
from fireside.engine.messages import (
    Cancel,
    FromWorker,
    GenerationOutput,
    GenerationRequest,
    Outputs,
    Rejected,
    Submit,
    ToWorker,
)


class Streams:
    """One queue per request, so that a slow reader delays nobody. `max_tokens` bounds what a queue can hold.

    Belongs to one event loop; nothing here may be called from another thread.
    """

    def __init__(self) -> None:
        # None: cancelled, but its last output has not come yet. Until then its id is taken, or outputs that were on
        # their way would reach a new request of the same id.
        self._queues: dict[str, asyncio.Queue[GenerationOutput | EngineError] | None] = {}

    async def run(
        self, request: GenerationRequest, send: Callable[[ToWorker], None]
    ) -> AsyncGenerator[GenerationOutput, None]:
        """Submits the request and yields its outputs. Closed before the last one, it sends `Cancel`.

        What `send` raises for the submission is raised here.
        """
        if request.id in self._queues:
            raise RequestRejected(f"a request with the id {request.id!r} is in flight already", "invalid")
        send(Submit(request))
        queue = self._queues[request.id] = asyncio.Queue()
        try:
            while True:
                item = await queue.get()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            # Gone already if the engine ended the request, or died; and a new one may bear the same id by then.
            if self._queues.get(request.id) is queue:
                self._queues[request.id] = None
                send(Cancel(request.id))

    def receive(self, message: FromWorker) -> None:
        """Hands outputs and rejections to whom they concern. What nobody awaits any more was cancelled."""
        if isinstance(message, Outputs):
            for output in message.outputs:
                self._deliver(output.request_id, output, last=output.finish_reason is not None)
        elif isinstance(message, Rejected):
            self._deliver(message.request_id, _rejection(message), last=True)

    def fail_all(self, reason: str) -> None:
        """Ends every request with `EngineUnavailable`."""
        for request_id in list(self._queues):
            self._deliver(request_id, EngineUnavailable(reason), last=True)

    def _deliver(self, request_id: str, item: GenerationOutput | EngineError, *, last: bool) -> None:
        queue = self._queues.pop(request_id, None) if last else self._queues.get(request_id)
        if queue is not None:
            queue.put_nowait(item)


def _rejection(message: Rejected) -> EngineError:
    if message.kind == "queue_full":
        return EngineBusy(message.reason)
    return RequestRejected(message.reason, message.kind)
