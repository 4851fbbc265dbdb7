"""Adapters against PEFT: forward, gradients, merge, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from fireside.errors import ModelError, RecipeError
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import Decoder, load_decoder
from fireside.training.lora import LoraLinear, add_lora, load_adapter, merge_lora, save_adapter
from fireside.training.objectives import next_token
from fireside.training.recipe import LoraConfig
from tests.models.families import ours, random_ids, reference
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


@pytest.mark.parametrize("family", CASES)
def test_an_adapter_of_peft_gives_its_logits_here(tmp_path: Path, family: str) -> None:
    model = reference(family)
    decoder = ours(model, tmp_path / "base")
    peft = adapted_by_peft(tmp_path / "base", CASES[family], family)
    peft.save_pretrained(tmp_path / "adapter")
    plain = decoder(random_ids())
    load_adapter(decoder, tmp_path / "adapter")
    expected = peft(random_ids()).logits
    torch.testing.assert_close(decoder(random_ids()), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, plain, atol=0.1)
    merge_lora(decoder)
    assert not any(isinstance(module, LoraLinear) for module in decoder.modules())
    torch.testing.assert_close(
        decoder(random_ids()), peft.merge_and_unload()(random_ids()).logits, rtol=1e-4, atol=1e-4
    )


def test_gradients_are_those_of_peft(tmp_path: Path) -> None:
    family = "llama3"
    decoder = ours(reference(family), tmp_path / "base")
    peft = adapted_by_peft(tmp_path / "base", CASES[family], family)
    peft.save_pretrained(tmp_path / "adapter")
    load_adapter(decoder, tmp_path / "adapter")
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
    for name, parameter in before.items():
        assert torch.equal(parameter, model.get_parameter(name)), name
    model.eval()
    assert not torch.allclose(model(random_ids() % runs.VOCAB), plain, atol=1e-3)


def test_resuming_with_dropout_gives_the_same_bits(tmp_path: Path) -> None:
    def adapted(seed: int) -> Decoder:
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
    for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found), name
    with torch.no_grad():  # the dropout was there
        batch = runs.random_batch()
        assert float(next_token(whole, batch)) != float(next_token(whole.eval(), batch))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no layer 'c_attn'; it has down_proj, gate_proj"):
        add_lora(runs.decoder(), LoraConfig(targets=("c_attn",)))
    model, config = runs.decoder(), LoraConfig(rank=2)
    add_lora(model, config)
    save_adapter(model, config, tmp_path, "base")
    with pytest.raises(ModelError, match="belongs to another model"):
        load_adapter(runs.decoder(num_hidden_layers=1), tmp_path)
    with pytest.raises(ModelError, match="belongs to another model"):
        load_adapter(runs.decoder(hidden_size=64, head_dim=16), tmp_path)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(values | {"use_dora": True}))
    with pytest.raises(ModelError, match="use_dora"):
        load_adapter(runs.decoder(), tmp_path)
    with pytest.raises(ModelError, match="does not hold an adapter"):
        load_adapter(runs.decoder(), tmp_path / "nothing")


def test_a_merged_model_is_saved_like_any_other(tmp_path: Path) -> None:
    from fireside.models.saving import save_pretrained

    model, config = runs.decoder(), LoraConfig(rank=2)
    add_lora(model, config)
    runs.loop(model, tmp_path / "run").run()
    expected = model(random_ids() % runs.VOCAB)
    merge_lora(model)
    save_pretrained(model, tmp_path / "merged")
    found = load_decoder(open_checkpoint(tmp_path / "merged"))(random_ids() % runs.VOCAB)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
