"""Retrieval quality of codes and of float features: tie-aware metrics, the `legacy` rules, and the health of codes.

NumPy, and faiss for distances: codes or features and labels go in, numbers come out. Nothing here encodes, plots or
prints.
"""

from .code_health import CodeHealth, code_health
from .evaluate import evaluate_codes, evaluate_features
from .legacy import LEGACY_RULES, legacy_average_precision
from .rankings import (
    TieAwareAP,
    acg_at_k,
    average_precision,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    weighted_average_precision,
)
from .report import RadiusPoint, RetrievalReport

__all__ = [
    "LEGACY_RULES",
    "CodeHealth",
    "RadiusPoint",
    "RetrievalReport",
    "TieAwareAP",
    "acg_at_k",
    "average_precision",
    "code_health",
    "evaluate_codes",
    "evaluate_features",
    "legacy_average_precision",
    "ndcg_at_k",
    "precision_at_k",
    "recall_at_k",
    "weighted_average_precision",
]
