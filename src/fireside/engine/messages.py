"""What crosses the door between server and engine: token ids and plain values, as msgpack, never pickles.

Everything here is immutable, checked when decoded, and free of torch.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"  # a stop token was drawn, or the grammar can accept no more
    LENGTH = "length"  # max_tokens, or the context is full
    CANCELLED = "cancelled"  # its owner asked


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the next token is drawn. Ranges are checked at the HTTP border; these are the engine's own terms."""

    max_tokens: int
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and output, as in transformers
    frequency_penalty: float = 0.0  # over the output, as in OpenAI's API
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    stop_token_ids: tuple[int, ...] = ()  # every id that ends the answer, the model's own eos ids included
    min_tokens: int = 0  # stop tokens are masked before so many were drawn
    seed: int = 0  # the draw of token i depends on (seed, i) and the logits alone
    logprobs: int | None = None  # None: none; k: the drawn token's and the k likeliest
    prompt_logprobs: int | None = None  # the same, for the prompt's tokens


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One generation. `grammar` is an llguidance grammar in its serialised form."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    grammar: str | None = None
    priority: int = 0  # lower is sooner; first come first served within one priority
    preamble_tokens: int = 0  # leading tokens that hold nothing of a conversation; only they may outlive the process
    predicted_ids: tuple[int, ...] = ()  # what the answer may look like: guessed from, and nothing else


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of one token, and the likeliest at its place as (token id, log-probability), best first.

    Taken from the model's raw distribution (before temperature, penalties and masks), in nats.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class GenerationOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine step gave one request. The last one carries `finish_reason`.

    `token_ids` includes the stop token when `stopped_by` names it (it is then the last).
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None  # one per token, if asked for
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None  # one per prompt token, None for the first
    finish_reason: FinishReason | None = None
    stopped_by: int | None = None
    cached_tokens: int = 0  # prompt tokens whose keys and values came from the prefix cache
    accepted_prediction_tokens: int = 0  # so far: guesses from `predicted_ids` that were right
    rejected_prediction_tokens: int = 0


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the engine, sent with every heartbeat. Counters grow from the worker's start."""

    running: int = 0
    waiting: int = 0
    blocks_total: int = 0
    blocks_free: int = 0
    blocks_cached: int = 0  # hold a reusable prefix and can be evicted
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cache_hit_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    forced_tokens: int = 0  # tokens a grammar left no choice about, which skipped a forward pass
    # Guesses that a step checked, and those that were right, each a forward pass saved; by source (`Source`).
    drafted_tokens: dict[str, int] = {}
    accepted_tokens: dict[str, int] = {}


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker says of itself once it can serve."""

    model: str
    device: str
    dtype: str  # of the weights as they are computed with: "float32", "bfloat16", or a ggml type such as "Q4_1"
    backend: str  # "native" (kernels/cpu) or "torch"
    max_context: int  # tokens of prompt and answer together
    block_size: int
    num_blocks: int
    draft_model: str | None = None  # that guesses, if one does


# Server to worker.
class Submit(msgspec.Struct, frozen=True, tag="submit"):
    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    request_id: str


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """The worker saves its prefixes and exits, within `SHUTDOWN_SECONDS`."""


# For the step in progress, which may be stuck, and for saving. A container often gets ten seconds to stop in all.
SHUTDOWN_SECONDS = 5.0


# Worker to server.
class Ready(msgspec.Struct, frozen=True, tag="ready"):
    info: EngineInfo


class Outputs(msgspec.Struct, frozen=True, tag="outputs"):
    """Everything one step produced, in one frame."""

    outputs: tuple[GenerationOutput, ...]


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """A request that the engine cannot take. `kind`: queue_full, context_length, grammar, invalid."""

    request_id: str
    kind: str
    reason: str


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    stats: EngineStats


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """The worker cannot go on (a damaged model, no memory). It exits after this."""

    reason: str


ToWorker = Submit | Cancel | Shutdown
FromWorker = Ready | Outputs | Rejected | Heartbeat | Fatal


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a worker is told; its first frame. Meanings and defaults are those of `fireside.settings`."""

    model: str  # path of a GGUF file, a Hugging Face folder or an adapter
    name: str  # what the model is called in `EngineInfo`
    models_dir: str | None = None  # where an adapter's base is looked for by name
    device: str = "auto"
    dtype: str = "auto"
    max_context: int | None = None  # None: the model's own
    kv_cache_dtype: str = "auto"
    kv_cache_memory: int | None = None  # bytes; None: as fits
    max_batch_tokens: int = 512
    max_running: int = 64
    max_waiting: int = 256
    threads: int = 0  # 0: one per fast core within the container's quota
    speculative_tokens: int = 15  # most tokens guessed for one request in one step; 0: none
    speculative_recent: bool = True  # guess from recent answers too
    draft_model: str | None = None  # path of a smaller model that guesses
    grammar_timeout: float = 10.0  # seconds
    heartbeat_interval: float = 1.0  # seconds
    prefix_folder: str | None = None  # where preambles are saved for the next worker; None: nowhere
    saved_prefix_tokens: int = 4096  # most tokens of them; 0: none
