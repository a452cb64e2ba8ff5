"""Shallow hashing on features that somebody else computed: one class for each published method, one registry.

``SHALLOW["itq"](48, seed=0).fit(features, targets).bits(features)`` works for every entry: the methods that are not
``supervised`` do without the targets. The features come from a backbone, L2-normalised or not as its owner wishes; no
pixels here. NumPy only, but for one step of SDH that is shared with a deep loss and imports torch when it is fitted. A
new method is one class, one line in ``SHALLOW``, one reference test.
"""

from .base import ShallowHash
from .flyhash import FlyHash
from .itq import ITQ
from .ksh import KSH
from .lsh import LSH
from .sdh import SDH
from .spectral import SpectralHashing

__all__ = ["ITQ", "KSH", "LSH", "SDH", "SHALLOW", "FlyHash", "ShallowHash", "SpectralHashing"]

SHALLOW: dict[str, type[ShallowHash]] = {
    "lsh": LSH,
    "itq": ITQ,
    "sh": SpectralHashing,
    "sdh": SDH,
    "ksh": KSH,
    "flyhash": FlyHash,
}
