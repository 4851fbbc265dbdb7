"""Adapters in training, against PEFT: forward, gradients, files; over quantised weights, against their floats."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from fireside.errors import RecipeError
from fireside.models.adapter import read_adapter
from fireside.models.checkpoint import AdaptedCheckpoint, open_checkpoint
from fireside.models.decoder import Decoder, load_decoder
from fireside.models.quantized_layers import QuantizedLinear
from fireside.training.lora import add_lora, save_adapter
from fireside.training.objectives import next_token
from fireside.training.recipe import LoraConfig
from tests.models.families import ours, random_ids, reference
from tests.models.gguf_files import write_gguf
from tests.training import runs


def fresh_reference(folder: Path, family: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def adapted_by_peft(folder: Path, config: LoraConfig, family: str) -> PeftModel:
    """With random B, so that the update does something."""
    peft = get_peft_model(
        fresh_reference(folder, family),
        PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=list(config.targets),
            use_rslora=config.rank_stabilized,
            lora_dropout=config.dropout,
            task_type="CAUSAL_LM",
        ),
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return peft.eval()


CASES = {
    "llama3": LoraConfig(rank=4, alpha=6.0),
    "qwen2": LoraConfig(rank=8, alpha=4.0, rank_stabilized=True, targets=("q_proj", "v_proj")),
}


def take_over(peft: PeftModel, decoder: Decoder) -> None:
    """Gives the decoder's updates the numbers of PEFT's."""
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if parameter.requires_grad:
                own = name.removeprefix("base_model.model.").replace(".default.weight", "")
                decoder.get_parameter(own).copy_(parameter)


@pytest.mark.parametrize("family", CASES)
def test_logits_are_those_of_peft(tmp_path: Path, family: str) -> None:
    decoder = ours(reference(family), tmp_path / "base")
    peft = adapted_by_peft(tmp_path / "base", CASES[family], family)
    plain = decoder(random_ids())
    add_lora(decoder, CASES[family])
    take_over(peft, decoder)
    expected = peft(random_ids()).logits
    torch.testing.assert_close(decoder(random_ids()), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, plain, atol=0.1)


def test_gradients_are_those_of_peft(tmp_path: Path) -> None:
    family = "llama3"
    decoder = ours(reference(family), tmp_path / "base")
    peft = adapted_by_peft(tmp_path / "base", CASES[family], family)
    add_lora(decoder, CASES[family])
    take_over(peft, decoder)
    decoder(random_ids()).square().mean().backward()
    peft(random_ids()).logits.square().mean().backward()
    theirs = {
        name.removeprefix("base_model.model.").replace(".default.weight", ""): parameter.grad
        for name, parameter in peft.named_parameters()
        if parameter.requires_grad
    }
    trained = {name: parameter.grad for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert trained.keys() == theirs.keys() and len(trained) == 2 * 7 * 2
    for name, gradient in trained.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", CASES)
def test_peft_reads_what_is_saved_here(tmp_path: Path, family: str) -> None:
    decoder = ours(reference(family), tmp_path / "base")
    add_lora(decoder, CASES[family])
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.2)
    save_adapter(decoder, CASES[family], tmp_path / "adapter", "base")
    peft = PeftModel.from_pretrained(fresh_reference(tmp_path / "base", family), tmp_path / "adapter").eval()
    torch.testing.assert_close(peft(random_ids()).logits, decoder(random_ids()), rtol=1e-4, atol=1e-4)


def test_at_first_it_is_the_model_itself_and_only_the_update_trains(tmp_path: Path) -> None:
    model = runs.decoder()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    plain = model(random_ids() % runs.VOCAB)
    config = LoraConfig(rank=2, dropout=0.3)
    add_lora(model, config)
    model.eval()
    assert torch.equal(model(random_ids() % runs.VOCAB), plain)
    model.train()
    runs.loop(model, tmp_path).run()
    frozen = {name.replace(".base.", "."): p for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen.keys() == before.keys()
    for name, parameter in before.items():
        assert torch.equal(parameter, frozen[name]), name
    model.eval()
    assert not torch.allclose(model(random_ids() % runs.VOCAB), plain, atol=1e-3)


@pytest.mark.parametrize("is_quantized", [False, True])
def test_resuming_with_dropout_gives_the_same_bits(tmp_path: Path, is_quantized: bool) -> None:
    if is_quantized:
        write_gguf(deepcopy(reference("llama3", vocab_size=runs.VOCAB)), tmp_path / "base.gguf", "Q4_1")

    def adapted(seed: int) -> Decoder:
        if is_quantized:
            model = load_decoder(open_checkpoint(tmp_path / "base.gguf"), keep_quantized=True)
        else:
            model = runs.decoder()
        torch.manual_seed(seed)
        add_lora(model, LoraConfig(rank=2, dropout=0.3))
        return model.train()

    whole, begun, resumed = adapted(1), adapted(1), adapted(2)
    runs.loop(whole, tmp_path / "whole").run()
    runs.loop(begun, tmp_path / "parts", stop=runs.stop_after(4)).run()
    second = runs.loop(resumed, tmp_path / "parts")
    second.resume()
    second.run()
    assert any(isinstance(module, QuantizedLinear) for module in whole.modules()) == is_quantized
    for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found), name
    with torch.no_grad():  # the dropout was there
        batch = runs.random_batch()
        assert float(next_token(whole, batch)) != float(next_token(whole.eval(), batch))


def test_a_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no layer 'c_attn'; it has down_proj, gate_proj"):
        add_lora(runs.decoder(), LoraConfig(targets=("c_attn",)))


def test_steps_over_a_quantized_base_are_those_over_its_unfolded_weights(tmp_path: Path) -> None:
    """And what is saved adds up with the base to what was trained."""
    write_gguf(deepcopy(reference("qwen2", vocab_size=runs.VOCAB)), tmp_path / "base.gguf", "Q5_1", arch="qwen2")
    checkpoint, config = open_checkpoint(tmp_path / "base.gguf"), LoraConfig(rank=2)
    decoders = []
    for keep_quantized in (True, False):
        decoder = load_decoder(checkpoint, keep_quantized=keep_quantized)
        torch.manual_seed(0)
        add_lora(decoder, config)
        runs.loop(decoder, tmp_path / str(keep_quantized)).run()
        decoders.append(decoder)
    trained = [{n: p for n, p in decoder.named_parameters() if p.requires_grad} for decoder in decoders]
    assert trained[0].keys() == trained[1].keys() and len(trained[0]) == 2 * 7 * 2
    for name, parameter in trained[0].items():
        assert torch.equal(parameter, trained[1][name]), name
    save_adapter(decoders[0], config, tmp_path / "adapter", "base")
    merged = load_decoder(AdaptedCheckpoint(read_adapter(tmp_path / "adapter"), checkpoint, torch.float32))
    expected = decoders[0](random_ids() % runs.VOCAB)
    torch.testing.assert_close(merged(random_ids() % runs.VOCAB), expected, rtol=1e-4, atol=1e-4)
    plain = load_decoder(checkpoint)(random_ids() % runs.VOCAB)
    assert not torch.allclose(plain, expected, atol=1e-2)
