"""A quality classifier that a user trains on two small folders: hashed words and pairs, logistic regression."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fireside.data.cleaning.outcome import Block, Outcome, Reason, dropped
from fireside.data.cleaning.words import run_hashes, word_hashes
from fireside.data.documents import DataError, Document

BUCKETS = 1 << 18
KIND = "fireside-quality-classifier-1"
MAX_CHARACTERS = 50_000  # of a document that are looked at


@dataclass(frozen=True)
class QualityClassifier:
    """weights: float32 [BUCKETS], one for each hashed word or pair of words. bias: of the log-odds of being good."""

    weights: NDArray[np.float32]
    bias: float

    def probability(self, text: str) -> float:
        """That `text` is of the good kind."""
        buckets, values = features(text)
        score = float(self.weights[buckets] @ values) + self.bias
        return float(1 / (1 + np.exp(-np.clip(score, -60, 60))))

    def save(self, path: Path) -> None:
        bias = np.array([self.bias], np.float32)
        save_file({"weights": self.weights, "bias": bias}, path, metadata={"kind": KIND})

    @classmethod
    def load(cls, path: Path) -> QualityClassifier:
        """Raises `DataError`."""
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("kind") != KIND:
                    raise DataError(f"{path} is not a quality classifier of this version")
                weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
        except (OSError, SafetensorError) as error:
            raise DataError(f"the classifier {path} cannot be read: {error}") from error
        if weights.shape != (BUCKETS,) or bias.shape != (1,):
            raise DataError(f"the classifier {path} is damaged: its weights have the shape {weights.shape}")
        return cls(weights, float(bias[0]))


def train_classifier(good: Iterable[str], bad: Iterable[str]) -> tuple[QualityClassifier, float]:
    """A classifier of texts like `good`, and the share it gets right of a tenth that it was not trained on.

    Raises `DataError` for fewer than ten texts of a kind.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    texts = [(text, 1) for text in good] + [(text, 0) for text in bad]
    labels = np.array([label for _, label in texts])
    for label, name in ((1, "good"), (0, "bad")):
        if (count := int((labels == label).sum())) < 10:
            raise DataError(f"there are {count} {name} texts; ten are the least to learn from, hundreds are better")
    rows = [features(text) for text, _ in texts]
    edges = np.cumsum([0, *(len(buckets) for buckets, _ in rows)])
    used, columns = np.unique(np.concatenate([buckets for buckets, _ in rows]), return_inverse=True)
    matrix = csr_matrix((np.concatenate([values for _, values in rows]), columns, edges), (len(rows), len(used)))

    def fit(chosen: Any) -> Any:
        return LogisticRegression(C=10, class_weight="balanced", max_iter=200).fit(matrix[chosen], labels[chosen])

    train, held_out = train_test_split(np.arange(len(rows)), test_size=0.1, random_state=0, stratify=labels)
    accuracy = float(fit(train).score(matrix[held_out], labels[held_out]))
    final = fit(np.arange(len(rows)))
    weights = np.zeros(BUCKETS, np.float32)
    weights[used] = final.coef_[0]
    return QualityClassifier(weights, float(final.intercept_[0])), accuracy


def judge_by(classifier: QualityClassifier, threshold: float) -> Block:
    """A block that drops documents whose probability of being good is under `threshold`."""

    def judge(document: Document) -> Outcome:
        good = classifier.probability(document.text) >= threshold
        return Outcome(document) if good else dropped(Reason.CLASSIFIER)

    return judge


def features(text: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The buckets of a text's words and pairs of words, and their weights: of length one together."""
    words = word_hashes(text[:MAX_CHARACTERS])
    hashes = np.concatenate([words, run_hashes(words, 2)])
    buckets, counts = np.unique(hashes % np.uint64(BUCKETS), return_counts=True)
    values = np.log1p(counts.astype(np.float32))
    return buckets.astype(np.int64), (values / max(float(np.linalg.norm(values)), 1e-9)).astype(np.float32)
