"""Which images are copies of one, by their codes. Chooses and groups; deletes nothing, knows no files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from index.codes import Codes, check_codes
from index.copy_codes import mirrored as mirrored_codes
from index.groups import Ids
from index.search import HammingIndex, check_radius

_BLOCK_ENTRIES = 1 << 21  # neighbours held at once


def near_clusters(
    codes: Codes, ids: Ids, radius: int, preference: npt.ArrayLike, *, n_bits: int, mirrored: bool = False
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Return (kept id, [(id, distance), ...]) for every image that has copies within the radius.

    Leader clustering: images are taken by preference (N,), smallest first, then by id. One that belongs to no cluster
    yet is kept, and takes all others within the radius of itself that belong to none. So every image that could be
    dropped lies within the radius (inclusive) of the one kept in its place; similarity is not passed along chains.
    Clusters come in the order of preference, their members by (distance, id). With `mirrored`, codes are copy codes,
    and the distance is the smaller of those to an image and to its mirror image.

    Raises:
        ValueError: wrong codes, a negative radius, or lengths that differ.
    """
    codes, radius = check_codes(codes, n_bits), check_radius(radius)
    ids, wanted = np.asarray(ids, dtype=np.int64), np.asarray(preference)
    if not len(codes) == len(ids) == len(wanted):
        lengths = f"{len(codes)} codes, {len(ids)} ids and {len(wanted)} preferences"
        raise ValueError(f"{lengths}: pass one of each for each image")
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.lexsort((ids, wanted))] = np.arange(len(ids))
    # Equal codes share all their neighbours: cluster the distinct codes, each standing for its best image.
    distinct, offsets, members = _grouped(codes, n_bits)
    best = np.minimum.reduceat(rank[members], offsets[:-1]) if len(distinct) else np.empty(0, np.int64)
    order = np.argsort(best)
    index = HammingIndex(n_bits)
    index.add(distinct)

    taken = np.zeros(len(distinct), dtype=np.bool_)
    clusters = []
    start, step = 0, 64
    while start < len(order):
        block = order[start : start + step]
        block = block[~taken[block]]
        limits, distances, neighbours = _neighbours(index, distinct[block], radius, mirrored)
        for row, leader in enumerate(block.tolist()):
            if taken[leader]:
                continue
            near = neighbours[limits[row] : limits[row + 1]]
            free = ~taken[near]
            near, apart = near[free], distances[limits[row] : limits[row + 1]][free]
            taken[near] = True
            if len(near) > 1 or offsets[leader + 1] - offsets[leader] > 1:
                clusters.append(_cluster(near, apart, offsets, members, ids, rank))
        start += step
        per_query = max(1, len(neighbours) // max(1, len(block)))
        step = max(1, min(4 * step, 4096, _BLOCK_ENTRIES // per_query))
    return clusters


def _neighbours(
    index: HammingIndex, codes: Codes, radius: int, mirrored: bool
) -> tuple[Ids, npt.NDArray[np.int32], Ids]:
    """Return what is within the radius of each code, as `HammingIndex.range_search`, in any order."""
    found = index.range_search(codes, radius)
    if not mirrored:
        return found
    also = index.range_search(mirrored_codes(codes), radius)
    rows = np.concatenate([np.repeat(np.arange(len(codes)), np.diff(limits)) for limits, _, _ in (found, also)])
    distances = np.concatenate((found[1], also[1]))
    ids = np.concatenate((found[2], also[2]))
    order = np.lexsort((distances, ids, rows))
    rows, distances, ids = rows[order], distances[order], ids[order]
    first = np.ones(len(rows), np.bool_)
    first[1:] = (rows[1:] != rows[:-1]) | (ids[1:] != ids[:-1])
    return np.searchsorted(rows[first], np.arange(len(codes) + 1)), distances[first], ids[first]


def _cluster(
    near: Ids, apart: npt.NDArray[np.int32], offsets: Ids, members: Ids, ids: Ids, rank: Ids
) -> tuple[int, list[tuple[int, int]]]:
    rows = np.concatenate([members[offsets[group] : offsets[group + 1]] for group in near])
    distances = np.repeat(apart, (offsets[1:] - offsets[:-1])[near])
    kept = int(np.argmin(np.where(distances == 0, rank[rows], len(rank))))
    pairs = sorted(
        (int(distance), int(id))
        for place, (distance, id) in enumerate(zip(distances, ids[rows], strict=True))
        if place != kept
    )
    return int(ids[rows[kept]]), [(id, distance) for distance, id in pairs]


def _grouped(codes: Codes, n_bits: int) -> tuple[Codes, Ids, Ids]:
    index = HammingIndex(n_bits)
    index.add(codes)
    return index.groups()


def exact_groups(copies: list[tuple[bytes, int]]) -> list[list[int]]:
    """Return the ids of each group of equal content, from (content hash, id) pairs sorted by both; by smallest id."""
    groups: dict[bytes, list[int]] = {}
    for content_hash, id in copies:
        groups.setdefault(content_hash, []).append(id)
    return sorted(group for group in groups.values() if len(group) > 1)
