"""Losses against PyTorch's own, and what a token can see in a packed row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fireside.data.batch import IGNORED, Batch
from fireside.training import cross_entropy
from fireside.training.attention import RowAttention
from fireside.training.cross_entropy import summed_cross_entropy
from fireside.training.objectives import next_token, next_token_within_documents
from tests.training import runs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_cross_entropy_in_chunks_is_the_whole_one(
    monkeypatch: pytest.MonkeyPatch, chunk_rows: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(cross_entropy.CHUNK_BYTES, "cpu", 4 * 50 * chunk_rows)
    hidden = torch.randn(11, 16).to(dtype).requires_grad_()
    head = torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(0, 50, (11,))
    labels[[2, 7]] = IGNORED
    ours = summed_cross_entropy(hidden, head, labels)
    (0.25 * ours).backward()
    expected_hidden, expected_head = (t.detach().clone().requires_grad_() for t in (hidden, head))
    logits = F.linear(expected_hidden.float(), expected_head.to(dtype).float())
    theirs = F.cross_entropy(logits, labels, reduction="sum")
    (0.25 * theirs).backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.05}
    torch.testing.assert_close(ours, theirs, **tolerance)
    torch.testing.assert_close(hidden.grad, expected_hidden.grad, **tolerance)
    torch.testing.assert_close(head.grad, expected_head.grad, **tolerance)


def test_a_scale_is_not_rounded_to_bf16() -> None:
    torch.manual_seed(0)
    hidden, labels = torch.randn(11, 16).bfloat16().requires_grad_(), torch.randint(0, 50, (11,))
    head, scale = torch.randn(50, 16), 1 / 1021
    (whole,) = torch.autograd.grad(summed_cross_entropy(hidden, head, labels), hidden)
    (scaled,) = torch.autograd.grad(summed_cross_entropy(hidden, head, labels) * scale, hidden)
    assert torch.equal(scaled, (whole.float() * scale).bfloat16())


def test_no_targets_no_loss_and_no_gradient() -> None:
    hidden, head = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    loss = summed_cross_entropy(hidden, head, torch.full((3,), IGNORED))
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad is not None and not hidden.grad.any()


def test_documents_in_one_row_are_documents_in_rows_of_their_own() -> None:
    decoder, batch = runs.decoder(), runs.random_batch()
    apart = 0.0
    for row in range(batch.input_ids.shape[0]):
        for document in range(int(batch.document_ids[row].max()) + 1):
            inside = batch.document_ids[row] == document
            ids, labels = batch.input_ids[row, inside][None], batch.labels[row, inside]
            apart += F.cross_entropy(decoder(ids)[0], labels, reduction="sum", ignore_index=IGNORED).item()
    assert next_token_within_documents(decoder, batch).item() == pytest.approx(apart, rel=1e-5)
    assert next_token(decoder, batch).item() != pytest.approx(apart, rel=1e-3)


@pytest.mark.parametrize("objective", [next_token, next_token_within_documents])
@pytest.mark.parametrize("window", [None, 4])
def test_no_loss_before_a_token_depends_on_it(objective: type, window: int | None) -> None:
    """Causality, with and without masks: the loss up to position t, when the token at t + 1 changes."""
    decoder = runs.decoder(sliding_window=window, architecture="MistralForCausalLM")
    batch = runs.random_batch()
    for at in range(1, 11):
        changed = batch.input_ids.clone()
        changed[:, at] = (changed[:, at] + 1) % runs.VOCAB
        until = batch.labels.clone()
        until[:, at:] = IGNORED
        before, after = (
            objective(decoder, Batch(ids, until, batch.document_ids, batch.positions))
            for ids in (batch.input_ids, changed)
        )
        assert torch.equal(before, after)
        assert not torch.equal(objective(decoder, batch), objective(decoder, replace(batch, input_ids=changed)))


def test_a_token_of_another_document_is_not_seen() -> None:
    decoder, batch = runs.decoder(), runs.random_batch(rows=1)
    first = batch.document_ids[0] == 0
    changed = torch.where(first, (batch.input_ids + 1) % runs.VOCAB, batch.input_ids)

    def states(ids: torch.Tensor) -> torch.Tensor:
        return decoder.hidden_states(
            ids, batch.positions, RowAttention(ids.shape[1], ids.device, document_ids=batch.document_ids)
        )

    unchanged = (states(batch.input_ids) == states(changed)).all(-1)[0]
    assert torch.equal(unchanged, ~first) and first.any() and not first.all()
