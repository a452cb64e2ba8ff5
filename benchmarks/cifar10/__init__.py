"""Hashing methods on CIFAR-10 in a common frame: the same frozen features, the same small head, the same budget.

``__main__`` runs what is missing, ``methods`` lists the contestants, ``frame`` holds what they share, ``tuning``
chooses their options on validation images, ``results`` keeps the raw numbers, ``markdown`` makes tables of them.
"""

from pathlib import Path

__all__ = ["CACHE"]

CACHE = Path(__file__).parents[1] / "cache"
