"""What an evaluation reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .code_health import CodeHealth

__all__ = ["RadiusPoint", "RetrievalReport"]


@dataclass(frozen=True, kw_only=True)
class RadiusPoint:
    """One point of the precision-recall curve: all pairs of a query and an item at a distance of at most `radius`.

    Pooled over the queries (micro average): precision = relevant pairs inside / pairs inside, 0 when there are none;
    recall = relevant pairs inside / relevant pairs.

    Source: the curve that hashing papers draw since Weiss et al., "Spectral hashing", NIPS 2008, whose evaluation code
    counts retrieved good pairs over retrieved pairs for each radius.
    """

    radius: int
    precision: float
    recall: float


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """Retrieval quality over a set of queries.

    Every value is the expectation over all orders of the items at equal distance, unless it says otherwise.

    - `map`, `map_optimistic`, `map_pessimistic`: mAP@all, expected, best and worst over the orders of tied items.
    - `map_at`, `map_at_optimistic`, `map_at_pessimistic`: mAP@k for each k. AP@k sums P@i over the relevant positions
      i <= k and divides by min(R, k), R the relevant items of the database: the best ranking has 1 at every k.
    - `precision_at`, `recall_at`: relevant among the first k, over k and over R. A database of fewer than k items is
      filled up with irrelevant ones.
    - `chance`: mean over queries of R/N: the precision that a random order has at any k. The expected AP of a random
      order is the same but for a term below (1 + ln N)/N (N = 1,000, R = 100: .106 for .100).
    - `precision_within`, `empty_within`: by radius, for codes. P@H<=r: mean over queries of the share of relevant items
      at distance <= r, where a query without any item there counts 0; and the share of such queries.
    - `pr_by_radius`: for codes, one `RadiusPoint` for each radius 0 ... n_bits.
    - `ndcg_at`, `acg_at`, `wap`, `wap_at`: for multi-hot labels. The graded relevance r of an item is the number of
      labels it shares with the query. NDCG@k has gain 2^r - 1 and discount 1/log2(1 + i); ACG@k is the mean r of the
      first k; WAP is AP with ACG@i in the place of P@i, `wap` over the whole ranking.
    - `legacy_rule`, `legacy_map`, `legacy_map_at`: mAP@all and mAP@k as published code computes them, where asked for;
      see `LEGACY_RULES`. Not tie-aware: the order of the database decides inside ties.
    - `health`: of the database codes.

    Queries without any relevant item have no AP: they are counted in `queries_without_relevant` and in `n_queries`, and
    left out of every mean (the legacy rules have their own custom). `n_bits` is None for float features.

    Source: mAP@k: Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, eq. 2; trec_eval divides by R, which no
    ranking can reach when k < R, and common hashing code by the relevant items found, which rewards finding few. NDCG:
    Jarvelin & Kekalainen 2002, with the gain of Burges et al. 2005. ACG, WAP: Zhao et al., "Deep semantic ranking based
    hashing for multi-label image retrieval", CVPR 2015; its WAP@k divides by the relevant items found, ours by
    min(R, k) as AP@k does; over the whole ranking the two are one.
    """

    n_bits: int | None
    n_queries: int
    n_database: int
    map: float
    map_optimistic: float
    map_pessimistic: float
    precision_at: dict[int, float]
    chance: float
    queries_without_relevant: int
    recall_at: dict[int, float] = dataclasses.field(default_factory=dict)
    map_at: dict[int, float] = dataclasses.field(default_factory=dict)
    map_at_optimistic: dict[int, float] = dataclasses.field(default_factory=dict)
    map_at_pessimistic: dict[int, float] = dataclasses.field(default_factory=dict)
    precision_within: dict[int, float] | None = None
    empty_within: dict[int, float] | None = None
    pr_by_radius: list[RadiusPoint] | None = None
    ndcg_at: dict[int, float] | None = None
    acg_at: dict[int, float] | None = None
    wap: float | None = None
    wap_at: dict[int, float] | None = None
    legacy_rule: str | None = None
    legacy_map: float | None = None
    legacy_map_at: dict[int, float] | None = None
    health: CodeHealth | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain dictionary that `json.dumps` takes."""
        return dataclasses.asdict(self)
