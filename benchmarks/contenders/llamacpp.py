"""llama.cpp through llama-cpp-python's low-level interface, which alone decodes several sequences at once."""

from __future__ import annotations

import ctypes
from importlib.metadata import version

import llama_cpp  # type: ignore[import-not-found]
import numpy as np
from benchmarks.contenders.protocol import Generation, Options, serve

_BATCH = 2048  # tokens that one llama_decode may take; llama.cpp's own default, cut into 512 inside


class LlamaCpp:
    """One context per number of streams, whose sequences share no cache (`kv_unified` off, as llama-batched-bench)."""

    def __init__(self, options: Options) -> None:
        llama_cpp.llama_log_set(_keep_quiet, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        self._threads = options.threads
        self._model = llama_cpp.llama_model_load_from_file(
            options.model.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {options.model}")
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._contexts: dict[int, tuple[int, llama_cpp.llama_context_p]] = {}  # by streams: tokens of each, context
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self.about = {
            "version": f"llama-cpp-python {version('llama-cpp-python')}",
            "cache": "float16",
            "built_with": llama_cpp.llama_print_system_info().decode().strip(" |"),
        }

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generation:
        context = self._context(len(prompts), len(prompts[0]) + max_tokens)
        streams = range(len(prompts))
        generation = Generation.of(len(prompts))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
        # Whole prompts in as few calls as there is room for.
        length = len(prompts[0])
        per_call = max(1, _BATCH // length)
        for first in streams[::per_call]:
            group = streams[first : first + per_call]
            self._decode(context, [(s, i, prompts[s][i]) for s in group for i in range(length)], length)
            for row, stream in enumerate(group, 1):
                generation.add(stream, [self._likeliest(context, row * length - 1)])
        for position in range(length, length + max_tokens - 1):
            self._decode(context, [(s, position, generation.token_ids[s][-1]) for s in streams], 1)
            for stream in streams:
                generation.add(stream, [self._likeliest(context, stream)])
        return generation

    def _context(self, streams: int, tokens: int) -> llama_cpp.llama_context_p:
        """Made on first use, which the warm-up is."""
        size, context = self._contexts.get(streams, (0, None))
        if size >= tokens:
            return context
        if context is not None:
            llama_cpp.llama_free(context)
        params = llama_cpp.llama_context_default_params()
        params.n_seq_max = streams
        params.n_ctx = streams * tokens
        params.n_batch = _BATCH
        params.n_threads = params.n_threads_batch = self._threads
        context = llama_cpp.llama_init_from_model(self._model, params)
        if not context:
            raise RuntimeError(f"llama.cpp cannot make a context of {streams} sequences of {tokens} tokens")
        self._contexts[streams] = tokens, context
        return context

    def _decode(self, context: llama_cpp.llama_context_p, tokens: list[tuple[int, int, int]], last_of: int) -> None:
        """`tokens`: (stream, position, id). Logits are made for every `last_of`-th of them."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, (stream, position, token_id) in enumerate(tokens):
            batch.token[i], batch.pos[i] = token_id, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, stream
            batch.logits[i] = (i + 1) % last_of == 0
        status = llama_cpp.llama_decode(context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status} for {len(tokens)} tokens")

    def _likeliest(self, context: llama_cpp.llama_context_p, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(context, index)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_quiet(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Errors come back as return values too; the rest is pages of metadata."""


if __name__ == "__main__":
    serve(LlamaCpp)
