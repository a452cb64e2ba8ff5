"""Clustered features to fit to, and what a method's codes are worth on them."""

import numpy as np

from deephash.evaluation import evaluate_codes
from index.codes import pack_bits


def clusters(n=600, dims=48, n_classes=10, seed=0):
    """Clustered features off the origin, as a network with ReLU gives them, and their labels."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_classes, dims))
    labels = np.arange(n) % n_classes
    features = centres[labels] + rng.standard_normal((n, dims)) * 0.8 + 3
    return features.astype(np.float32), labels


def hidden_clusters(n=400, seed=0):
    """Clusters in 8 of 32 dimensions, the others louder and without meaning: hard without labels."""
    rng = np.random.default_rng(seed)
    features, labels = clusters(n, 8, n_classes=6, seed=seed)
    return np.concatenate([features, 3 + 2 * rng.standard_normal((n, 24))], axis=1).astype(np.float32), labels


def expected_map(method, features, labels, *, n_queries=100):
    """Fits to all but the first n_queries, and returns mAP and chance; labels may be multi-hot."""
    q = n_queries
    codes = pack_bits(method.fit(features[q:], labels[q:]).bits(features))
    report = evaluate_codes(
        codes[:q], codes[q:], n_bits=method.n_bits, query_labels=labels[:q], database_labels=labels[q:]
    )
    return report.map, report.chance
