"""Grammars: the output follows them, forced tokens change nothing but the cost, and a bad one hurts nobody else."""

from __future__ import annotations

import json
import re
import threading
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from fireside.engine.client import RequestRejected
from fireside.engine.engine import Engine
from fireside.engine.grammar import GrammarCompiler, GrammarError, GrammarMatcher
from fireside.engine.messages import FinishReason
from fireside.errors import ModelError
from tests.engine.driving import Driver, Result, request, run
from tests.engine.fake_runner import FakeRunner, greedy_reference, reference_logits

EOS, END_OF_TURN = 0, 1
VOCAB = 330  # more than the tokenizer has, as with padded embeddings, and not a multiple of 32


@cache
def tokenizer() -> Tokenizer:
    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    one.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=310,
        special_tokens=["<eos>", "<end_of_turn>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    one.train_from_iterator(['{"name": "Ada", "kind": "quick brown fox", "age": 36} true false null'] * 20, trainer)
    return one


def vocabulary() -> tuple[str, list[int]]:
    return tokenizer().to_str(), [EOS, END_OF_TURN]


class OneByOne(GrammarCompiler):
    """Never skips a draw."""

    def compile(self, grammar: str, stop_token_ids: Any = ()) -> GrammarMatcher:
        matcher = super().compile(grammar, stop_token_ids)
        matcher.forced_tokens = lambda: []  # type: ignore[method-assign]
        return matcher


@pytest.fixture(scope="module")
def compiler():
    one = GrammarCompiler(VOCAB, vocabulary)
    yield one
    one.close()


@pytest.fixture(scope="module")
def one_by_one():
    one = OneByOne(VOCAB, vocabulary)
    yield one
    one.close()


def make(compiler: GrammarCompiler | None, runner: FakeRunner | None = None, **settings: Any) -> Engine:
    runner = runner or FakeRunner(num_blocks=400, vocab_size=VOCAB)
    settings = {"max_context": 400, "max_batch_tokens": 32, "max_running": 8, **settings}
    return Engine(runner, grammar_compiler=compiler, **settings)


def schema(**properties: Any) -> str:
    return LLMatcher.grammar_from_json_schema(
        {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
            "x-guidance": {"whitespace_flexible": False},
        }
    )


PERSON = schema(
    name={"type": "string", "maxLength": 6},
    kind={"const": "quick brown fox"},
    age={"type": "integer", "minimum": 0, "maximum": 99},
)


def text(result: Result) -> str:
    return tokenizer().decode(list(result.token_ids), skip_special_tokens=True)


def constrained(name: str, grammar: str, *, max_tokens: int = 200, **sampling: Any) -> Any:
    sampling = {"stop_token_ids": (EOS, END_OF_TURN), "temperature": 1.0, **sampling}
    return request(name, (9, 8, 7), grammar=grammar, max_tokens=max_tokens, **sampling)


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_follows_its_schema(compiler: GrammarCompiler, seed: int):
    result = run(make(compiler), constrained("a", PERSON, seed=seed))["a"]
    answer = json.loads(text(result))
    assert answer["kind"] == "quick brown fox"
    assert isinstance(answer["name"], str) and 0 <= answer["age"] <= 99
    assert result.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_follows_its_regex(compiler: GrammarCompiler, seed: int):
    pattern = r"(yes|no), [a-c]{2,4}\."
    result = run(make(compiler), constrained("a", LLMatcher.grammar_from_regex(pattern), seed=seed))["a"]
    assert re.fullmatch(pattern, text(result))


def test_forced_tokens_cost_one_pass(compiler: GrammarCompiler, one_by_one: GrammarCompiler):
    results = []
    for one in (compiler, one_by_one):
        runner = FakeRunner(num_blocks=400, vocab_size=VOCAB)
        engine = make(one, runner)
        results.append((run(engine, constrained("a", PERSON, seed=3))["a"], runner.num_passes, engine.stats))
    (fast, fast_passes, fast_stats), (slow, slow_passes, slow_stats) = results
    assert fast.token_ids == slow.token_ids
    assert slow_passes == len(slow.token_ids)
    assert fast_stats.forced_tokens > 10 and slow_stats.forced_tokens == 0
    assert fast_passes <= slow_passes - fast_stats.forced_tokens


@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(st.text('abcnek :"é', max_size=9), min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 99),
    max_tokens=st.integers(1, 40),
    max_batch_tokens=st.integers(2, 20),
    stop=st.sampled_from([(EOS,), (EOS, END_OF_TURN), (EOS, 66), ()]),
    min_tokens=st.sampled_from([0, 0, 6, 15]),
    logprobs=st.sampled_from([None, 0]),
)
def test_forced_tokens_change_nothing(
    compiler: GrammarCompiler,
    one_by_one: GrammarCompiler,
    words: list[str],
    seed: int,
    max_tokens: int,
    max_batch_tokens: int,
    stop: tuple[int, ...],
    min_tokens: int,
    logprobs: int | None,
):
    grammar = schema(**{word: {"enum": [*words, 1, 25]} for word in words})
    sampling = {"stop_token_ids": stop, "min_tokens": min_tokens, "logprobs": logprobs, "prompt_logprobs": logprobs}
    one = constrained("a", grammar, seed=seed, max_tokens=max_tokens, **sampling)
    engines = (make(compiler, max_batch_tokens=max_batch_tokens), make(one_by_one))
    fast, slow = (run(engine, one)["a"] for engine in engines)
    assert fast.token_ids == slow.token_ids
    assert fast.logprobs == slow.logprobs
    assert fast.prompt_logprobs == slow.prompt_logprobs
    assert (fast.finish_reason, fast.stopped_by) == (slow.finish_reason, slow.stopped_by)


def test_forced_tokens_have_logprobs_of_the_unconstrained_model(compiler: GrammarCompiler):
    engine = make(compiler)
    result = run(engine, constrained("a", PERSON, logprobs=2))["a"]
    assert engine.stats.forced_tokens > 10
    assert len(result.logprobs) == len(result.token_ids)
    tokens = (9, 8, 7, *result.token_ids)
    for index, scored in enumerate(result.logprobs, start=3):
        expected = torch.log_softmax(reference_logits(tokens[:index], VOCAB).double(), -1)
        assert scored.logprob == pytest.approx(expected[tokens[index]].item(), abs=1e-5)
        assert [token for token, _ in scored.top] == expected.topk(2).indices.tolist()


def test_an_answer_without_any_choice_needs_no_pass(compiler: GrammarCompiler):
    runner = FakeRunner(num_blocks=40, vocab_size=VOCAB)
    only = schema(kind={"const": "quick brown fox"})
    result = run(make(compiler, runner), constrained("a", only))["a"]
    assert json.loads(text(result)) == {"kind": "quick brown fox"}
    assert result.finish_reason is FinishReason.STOP
    assert runner.num_passes == 0


def test_forced_tokens_do_not_count_as_cached_prompt(compiler: GrammarCompiler):
    """The second request finds the first one's answer in the cache, further than its own prompt goes."""
    engine = make(compiler)
    run(engine, constrained("a", PERSON, seed=1))
    again = run(engine, constrained("b", PERSON, seed=1))["b"]
    assert again.cached_tokens == len(constrained("a", PERSON).prompt_ids)
    assert engine.stats.cache_hit_tokens <= engine.stats.prompt_tokens


def test_max_tokens_cuts_forced_tokens_too(compiler: GrammarCompiler):
    for max_tokens in (1, 2, 5):
        result = run(make(compiler), constrained("a", PERSON, max_tokens=max_tokens))["a"]
        assert len(result.token_ids) == max_tokens
        assert result.finish_reason is FinishReason.LENGTH


def test_a_full_context_cuts_forced_tokens_too(compiler: GrammarCompiler):
    result = run(make(compiler, max_context=6), constrained("a", PERSON))["a"]
    assert len(result.token_ids) == 3
    assert result.finish_reason is FinishReason.LENGTH


def test_stop_tokens_may_follow_only_where_the_grammar_accepts(compiler: GrammarCompiler):
    words = LLMatcher.grammar_from_regex(r"[ab]{3,}")
    own_stop = 300  # not one of the model's own ends
    sampling = {"logit_bias": {EOS: 50.0, own_stop: 100.0}, "stop_token_ids": (EOS, own_stop)}
    result = run(make(compiler), constrained("a", words, **sampling))["a"]
    assert re.fullmatch("[ab]{3}", tokenizer().decode(list(result.token_ids[:-1])))
    assert result.stopped_by == own_stop == result.token_ids[-1]


def test_min_tokens_keeps_a_grammar_going_as_long_as_it_can(compiler: GrammarCompiler):
    sampling: dict[str, Any] = {"logit_bias": {EOS: 100.0}, "stop_token_ids": (EOS, END_OF_TURN), "min_tokens": 6}
    longer = run(make(compiler), constrained("a", LLMatcher.grammar_from_regex("[ab]+"), **sampling))["a"]
    assert len(longer.token_ids) == 7 and longer.stopped_by == EOS
    short = run(make(compiler), constrained("a", LLMatcher.grammar_from_regex("[ab]{2}"), **sampling))["a"]
    assert len(text(short)) == 2 and short.finish_reason is FinishReason.STOP


@pytest.mark.parametrize(("min_tokens", "length", "stopped"), [(0, 2, True), (2, 1, False)])
def test_a_stop_token_that_is_forced(
    compiler: GrammarCompiler, one_by_one: GrammarCompiler, min_tokens: int, length: int, stopped: bool
):
    forced = tokenizer().token_to_id("x")
    grammar = LLMatcher.grammar_from_regex("[ab]x[ab]")
    for one in (compiler, one_by_one):
        asked = constrained("a", grammar, stop_token_ids=(forced,), min_tokens=min_tokens)
        result = run(make(one), asked)["a"]
        assert result.finish_reason is FinishReason.STOP
        assert len(result.token_ids) == length, "it ends with the stop token, or before it where that is too early"
        assert result.stopped_by == (forced if stopped else None)


def test_the_end_of_the_grammar_ends_an_answer_without_stop_tokens(compiler: GrammarCompiler):
    result = run(make(compiler), constrained("a", PERSON, stop_token_ids=()))["a"]
    assert json.loads(text(result))["kind"] == "quick brown fox"
    assert (result.finish_reason, result.stopped_by) == (FinishReason.STOP, None)


def test_constrained_answers_are_the_same_in_a_crowd_and_after_preemption(compiler: GrammarCompiler):
    asked = [constrained(f"c{i}", PERSON, seed=i, logprobs=1 if i % 2 else None) for i in range(6)]
    asked += [request(f"free{i}", (9, 8, 7, i), max_tokens=30, temperature=1.0, seed=i) for i in range(4)]
    alone = {one.id: run(make(compiler), one)[one.id] for one in asked}
    engine = make(compiler, FakeRunner(num_blocks=30, vocab_size=VOCAB), max_context=120)
    crowd = run(engine, *asked)
    assert engine.stats.preemptions > 0
    for name, result in crowd.items():
        assert (result.token_ids, result.logprobs) == (alone[name].token_ids, alone[name].logprobs), name


@pytest.mark.parametrize(
    "grammar",
    ["rubbish", '{"grammars": 3}', LLMatcher.grammar_from_json_schema({"type": "objekt"})],
)
def test_a_bad_grammar_is_rejected_with_its_reason_and_hurts_nobody(compiler: GrammarCompiler, grammar: str):
    results = run(make(compiler), constrained("bad", grammar), request("good", (1, 2), max_tokens=5))
    rejected = results["bad"].rejected
    assert rejected is not None and rejected.kind == "grammar"
    assert rejected.reason.startswith("The grammar cannot be used: ") and "\n" not in rejected.reason
    assert results["good"].token_ids == greedy_reference((1, 2), 5, VOCAB)


def test_a_grammar_that_fails_on_the_way_is_rejected_alone(compiler: GrammarCompiler):
    class Failing(GrammarMatcher):
        def consume(self, token_id: int) -> None:
            self.matcher.consume_token(END_OF_TURN)  # which may not follow here: the matcher is in error from now on
            super().consume(token_id)

    class FailingCompiler(GrammarCompiler):
        def compile(self, grammar: str, stop_token_ids: Any = ()) -> GrammarMatcher:
            one = super().compile(grammar, stop_token_ids)
            return Failing(one.matcher, one.eos_token_ids, torch.zeros(11, dtype=torch.int32))

    failing = FailingCompiler(VOCAB, lambda: (tokenizer().to_str(), [EOS]))
    driver = Driver(make(failing))
    driver.submit(constrained("bad", LLMatcher.grammar_from_regex("[ab]+")), request("good", (1, 2), max_tokens=5))
    results = driver.drain()
    failing.close()
    assert results["bad"].rejected is not None and results["bad"].rejected.kind == "grammar"
    assert results["good"].token_ids == greedy_reference((1, 2), 5, VOCAB)


class SlowCompiler(GrammarCompiler):
    """Compiles when told to."""

    def __init__(self) -> None:
        super().__init__(VOCAB, lambda: (tokenizer().to_str(), [EOS]))
        self.go = threading.Event()

    def compile(self, grammar: str, stop_token_ids: Any = ()) -> GrammarMatcher:
        self.go.wait(30)
        return super().compile(grammar, stop_token_ids)


@pytest.fixture
def slow():
    one = SlowCompiler()
    yield one
    one.go.set()
    one.close()


def test_others_go_on_while_a_grammar_compiles(slow: SlowCompiler):
    driver = Driver(make(slow))
    driver.submit(constrained("slow", PERSON), request("quick", (1, 2), max_tokens=5))
    while not driver.results["quick"].ended:
        driver.step()
    assert driver.engine.stats.waiting == 1 and driver.engine.has_work
    assert driver.engine.step() == []
    slow.go.set()
    assert json.loads(text(driver.drain()["slow"]))["kind"] == "quick brown fox"


def test_a_grammar_that_compiles_too_long_is_rejected(slow: SlowCompiler):
    result = run(make(slow, grammar_timeout=0.02), constrained("a", PERSON))["a"]
    assert result.rejected is not None and result.rejected.kind == "grammar"
    assert "0.02 s" in result.rejected.reason


def test_cancel_while_compiling(slow: SlowCompiler):
    driver = Driver(make(slow))
    driver.submit(constrained("a", PERSON))
    driver.step()
    driver.engine.cancel("a")
    assert driver.drain()["a"].finish_reason is FinishReason.CANCELLED


def test_an_engine_without_grammars_says_so():
    with pytest.raises(RequestRejected) as raised:
        make(None).submit(constrained("a", PERSON))
    assert raised.value.kind == "grammar"


def test_compiled_grammars_are_kept_and_do_not_share_state(compiler: GrammarCompiler):
    first = compiler.compile(PERSON)
    first.consume(tokenizer().token_to_id('{"'))
    second = compiler.compile(PERSON)
    assert second.forced_tokens() != first.forced_tokens()
    assert second.forced_tokens()[0] == tokenizer().token_to_id('{"')


def test_grammars_for_another_vocabulary_are_refused(compiler: GrammarCompiler):
    with pytest.raises(ValueError, match="330 tokens, logits for 48"):
        make(compiler, FakeRunner(vocab_size=48))


def test_a_tokenizer_that_cannot_be_read_is_a_grammar_error():
    def gone() -> tuple[str, list[int]]:
        raise ModelError("the file is gone")

    for load in (lambda: ("{}", [EOS]), gone):
        broken = GrammarCompiler(VOCAB, load)
        with pytest.raises(GrammarError, match="this model's tokenizer"):
            broken.compile(PERSON)
        broken.close()


def test_masks_name_the_tokens_that_may_follow(compiler: GrammarCompiler):
    masks = torch.zeros(3, 11, dtype=torch.int32)
    patterns = ["a", "[ab]c", "\x7f?"]
    matchers = [compiler.compile(LLMatcher.grammar_from_regex(pattern), (31, 329)) for pattern in patterns]
    compiler.fill_masks(matchers, masks)
    for matcher, mask in zip(matchers, masks, strict=True):
        matcher.settle(mask, may_stop=True)

    def allowed(row: int) -> set[int]:
        return {i for i in range(VOCAB) if int(masks[row, i // 32]) >> (i % 32) & 1}

    token = tokenizer().token_to_id
    assert allowed(0) == {token("a")}
    assert allowed(1) == {token("a"), token("b")}
    assert allowed(2) >= {EOS, END_OF_TURN, 31, 329}, "accepts from the start: its stop tokens may follow"
