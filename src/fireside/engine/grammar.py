"""`GrammarCompiler` and `GrammarMatcher`: output that follows a grammar, by llguidance.

A grammar (JSON schema, regex, Lark) comes in llguidance's serialised form. Its matcher says before each draw which
tokens may follow, as a bitmask, and which tokens must follow: these are appended without a draw. The mask leaves no
other choice than the first of the forced tokens, so that skipping the draws changes nothing.
https://github.com/guidance-ai/llguidance
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from fireside.errors import FiresideError, ModelError

_CACHED_GRAMMARS = 64


class GrammarError(FiresideError):
    """The grammar is invalid, unsupported or too complex, or cannot be followed to its end."""


class GrammarMatcher:
    """Where one request stands in its grammar.

    stop_bits: a mask row with the request's own stop tokens, which may follow wherever the grammar accepts.
    """

    def __init__(self, matcher: LLMatcher, eos_token_ids: frozenset[int], stop_bits: Tensor) -> None:
        self.matcher = matcher
        self.eos_token_ids = eos_token_ids
        self._stop_bits = stop_bits

    @property
    def is_stopped(self) -> bool:
        """Nothing more can follow. Raises GrammarError if that is because of an error."""
        stopped: bool = self.matcher.is_stopped()
        if stopped:
            self._raise_error()
        return stopped

    def consume(self, token_id: int) -> None:
        """Moves on by one token. Raises GrammarError if it may not follow, or the grammar is too complex to go on."""
        if not self.matcher.consume_token(token_id):
            self._raise_error()

    def forced_tokens(self) -> list[int]:
        """The tokens that must follow, none if there is a choice. Does not move on. Raises GrammarError."""
        tokens: list[int] = self.matcher.compute_ff_tokens()
        self._raise_error()
        return tokens

    def settle(self, mask: Tensor, may_stop: bool) -> bool:
        """Adds the stop tokens to a filled mask row, if they may follow. False if nothing may. Raises GrammarError."""
        if self.is_stopped:
            return False
        if not may_stop:  # the sampler will take the stop tokens away: is anything left without them?
            return bool((mask & ~self._stop_bits).any())
        if self.matcher.is_accepting():
            mask |= self._stop_bits
        return True

    def _raise_error(self) -> None:
        if self.matcher.is_error():
            raise GrammarError(f"The answer cannot follow the grammar any further: {_reason(self.matcher)}")


class GrammarCompiler:
    """Turns grammars into matchers, in threads of its own: compiling can take long, and llguidance drops the GIL.

    vocab_size: width of the logits, which may exceed the tokenizer's. load_vocabulary: gives a Hugging Face
    `tokenizer.json`, and the tokens that may follow whenever the grammar accepts. It is called with the first grammar:
    a large vocabulary takes a moment, and many engines never need it.
    """

    def __init__(self, vocab_size: int, load_vocabulary: Callable[[], tuple[str, Sequence[int]]]) -> None:
        self.vocab_size = vocab_size
        self._load_vocabulary = load_vocabulary
        self._vocabulary: tuple[LLTokenizer, frozenset[int]] | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="grammar")
        self._executor: LLExecutor | None = None

    def submit(self, grammar: str, stop_token_ids: Sequence[int] = ()) -> Future[GrammarMatcher]:
        """Begins `compile` in another thread."""
        return self._threads.submit(self.compile, grammar, stop_token_ids)

    def compile(self, grammar: str, stop_token_ids: Sequence[int] = ()) -> GrammarMatcher:
        """A matcher at the start of the grammar. Grammars used lately are kept. Raises GrammarError."""
        with self._lock:
            compiled = self._compiled.get(grammar)
            tokenizer, eos_token_ids = self._tokenizer()
        if compiled is None:
            compiled = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))
            if compiled.is_error():
                raise GrammarError(f"The grammar cannot be used: {_reason(compiled)}")
        with self._lock:
            self._compiled[grammar] = compiled
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > _CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
            return GrammarMatcher(compiled.deep_copy(), eos_token_ids, self._bits(stop_token_ids))

    def fill_masks(self, matchers: Sequence[GrammarMatcher], masks: Tensor) -> None:
        """Writes which tokens may follow, for each matcher into its row of `masks` [n, ceil(vocab_size / 32)], int32.

        Bit j of word i stands for token 32 i + j. `GrammarMatcher.settle` completes a row, or raises if it failed.
        """
        assert masks.dtype == torch.int32 and masks.is_contiguous() and masks.shape[0] >= len(matchers)
        if self._executor is None:
            self._executor = LLExecutor()
        rows = [(matcher.matcher, row) for row, matcher in enumerate(matchers)]
        self._executor.unsafe_compute_mask_ptr(rows, masks.data_ptr(), masks.shape[1] * 4, masks.shape[0])

    def close(self) -> None:
        """Begins no further compilation."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _tokenizer(self) -> tuple[LLTokenizer, frozenset[int]]:
        if self._vocabulary is None:
            try:
                tokenizer_json, ids = self._load_vocabulary()
                tokenizer = LLTokenizer(tokenizer_json, n_vocab=self.vocab_size, eos_token=sorted(set(ids)))
            except (ValueError, ModelError) as error:
                raise GrammarError(f"Grammars cannot be used with this model's tokenizer: {error}") from error
            self._vocabulary = tokenizer, frozenset(ids)
        return self._vocabulary

    def _bits(self, token_ids: Sequence[int]) -> Tensor:
        words = [0] * -(-self.vocab_size // 32)
        for token_id in token_ids:
            words[token_id // 32] |= 1 << token_id % 32
        return torch.tensor(words, dtype=torch.int64).to(torch.int32)  # bit 31 is the sign; the cast wraps


def _reason(matcher: LLMatcher) -> str:
    # Further lines are the parser's state, of no use to the person who wrote the grammar.
    first_line: str = matcher.get_error().strip().partition("\n")[0]
    return first_line
