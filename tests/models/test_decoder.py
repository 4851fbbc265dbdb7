"""Logits against transformers, and the properties a decoder has whatever its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fireside.models.checkpoint import expected_shapes, open_checkpoint
from fireside.models.config import Architecture, ModelConfig
from fireside.models.decoder import Decoder, load_decoder
from tests.models.families import FAMILIES, ours, random_ids, reference, reference_logits

TINY = ModelConfig(
    architecture=Architecture.MISTRAL,
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model = reference(family)
    input_ids = random_ids()
    torch.testing.assert_close(
        ours(model, tmp_path)(input_ids), reference_logits(model, input_ids), rtol=1e-4, atol=1e-4
    )


def test_gradients_are_those_of_transformers(tmp_path: Path) -> None:
    model = reference("qwen3")
    decoder = ours(model, tmp_path)
    input_ids = random_ids()
    targets = random_ids(seed=1).flatten()
    losses = [
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets)
        for logits in (decoder(input_ids), model(input_ids).logits)
    ]
    torch.testing.assert_close(losses[0], losses[1])
    losses[0].backward()
    theirs = dict(model.named_parameters())
    expected = torch.autograd.grad(losses[1], list(theirs.values()))
    for (name, _), gradient in zip(theirs.items(), expected, strict=True):
        torch.testing.assert_close(decoder.get_parameter(name).grad, gradient, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_bfloat16_stays_close_to_float32(tmp_path: Path) -> None:
    model = reference("llama3")
    model.save_pretrained(tmp_path)
    input_ids = random_ids()
    logits = load_decoder(open_checkpoint(tmp_path), torch.bfloat16)(input_ids)
    assert logits.dtype == torch.bfloat16
    # As close to float32 as transformers' own bfloat16 is, give or take a half.
    exact = reference_logits(model, input_ids)
    theirs = (type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)(input_ids).logits.float() - exact).square()
    assert (logits.float() - exact).square().mean() < 1.5 * theirs.mean()


@pytest.mark.parametrize("window", [None, 5])
@torch.no_grad()
def test_a_token_changes_nothing_before_it(window: int | None) -> None:
    torch.manual_seed(0)
    decoder = Decoder(ModelConfig(**{**vars(TINY), "sliding_window": window}))
    decoder.reset_parameters(std=0.5)
    input_ids = torch.arange(20)[None]
    changed = input_ids.clone()
    changed[0, 12] = 49
    before, after = decoder(input_ids), decoder(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.isclose(before[:, 12:], after[:, 12:]).all(-1).any()


def test_state_dict_has_the_canonical_names_and_shapes(tmp_path: Path) -> None:
    for family in FAMILIES:
        model = reference(family)
        decoder = Decoder(ours(model, tmp_path / family).config)
        shapes = {name: tuple(weights.shape) for name, weights in decoder.state_dict().items()}
        assert shapes == expected_shapes(decoder.config)
        assert shapes.keys() == dict(model.named_parameters()).keys()


def test_new_weights_are_fit_to_train_from() -> None:
    """Cross-entropy of an untrained model is that of guessing: log of the vocabulary."""
    torch.manual_seed(0)
    input_ids = torch.randint(0, 50, (4, 32))
    logits = Decoder(TINY)(input_ids)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(0, 50, (128,)))
    assert loss.item() == pytest.approx(torch.tensor(50.0).log().item(), rel=0.01)


@torch.no_grad()
def test_rope_frequencies_survive_a_cast() -> None:
    decoder = Decoder(TINY)
    frequencies = decoder.model.frequencies.clone()
    decoder.to(torch.bfloat16)
    assert torch.equal(decoder.model.frequencies, frequencies)
