"""What a request must be for the engine to take it; the last line of defence behind the HTTP border."""

from __future__ import annotations

import math

from fireside.engine.client import RequestRejected
from fireside.engine.messages import GenerationRequest, SamplingParams


def check_request(request: GenerationRequest, *, vocab_size: int, max_context: int) -> None:
    """Raises RequestRejected, kind "context_length" or "invalid", for what can never be served."""
    params = request.sampling
    needed = len(request.prompt_ids) + min(params.max_tokens, 1)
    if needed > max_context:
        raise RequestRejected(
            f"The prompt has {len(request.prompt_ids)} tokens, but the context holds {max_context} tokens of prompt "
            "and answer together; shorten the prompt.",
            "context_length",
        )
    problem = _find_problem(request, params, vocab_size)
    if problem is not None:
        raise RequestRejected(problem, "invalid")


def _find_problem(request: GenerationRequest, params: SamplingParams, vocab_size: int) -> str | None:
    if not request.prompt_ids:
        return "The prompt is empty; it needs at least one token."
    for ids in (request.prompt_ids, params.stop_token_ids, params.logit_bias):
        if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            return f"The token id {wrong} is not one of the model's, which are 0 to {vocab_size - 1}."
    if not 0 <= request.preamble_tokens <= len(request.prompt_ids):
        return f"preamble_tokens is {request.preamble_tokens}; the prompt has {len(request.prompt_ids)} tokens."
    values = (
        ("max_tokens", params.max_tokens, params.max_tokens >= 0, "0 or more"),
        ("min_tokens", params.min_tokens, params.min_tokens >= 0, "0 or more"),
        ("temperature", params.temperature, params.temperature >= 0, "0 or more"),
        ("top_p", params.top_p, 0 < params.top_p <= 1, "above 0 and at most 1"),
        ("top_k", params.top_k, params.top_k >= 0, "0 or more"),
        ("min_p", params.min_p, 0 <= params.min_p <= 1, "between 0 and 1"),
        ("repetition_penalty", params.repetition_penalty, params.repetition_penalty > 0, "above 0"),
        ("frequency_penalty", params.frequency_penalty, True, "finite"),
        ("presence_penalty", params.presence_penalty, True, "finite"),
        ("logprobs", params.logprobs or 0, (params.logprobs or 0) >= 0, "0 or more"),
        ("prompt_logprobs", params.prompt_logprobs or 0, (params.prompt_logprobs or 0) >= 0, "0 or more"),
    )
    for name, value, valid, expected in values:
        if not (valid and math.isfinite(value)):
            return f"{name} is {value}; it must be {expected}."
    if any(math.isnan(bias) for bias in params.logit_bias.values()):
        return "logit_bias holds NaN; it must hold numbers."
    return None
