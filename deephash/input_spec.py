"""What a model wants to see of an image: plain numbers, written into the header of its file. No pixels here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "INTERPOLATIONS", "InputSpec"]

INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model wants to see: ``size`` x ``size`` pixels from the centre of an image of short side ``resize``.

    ``squash``: the whole image instead, both sides scaled to ``size``, which is ``resize`` then.
    ``mean`` and ``std`` are per channel (RGB) for pixels in 0 … 1; `preprocess` leaves them to the model.

    Raises:
        ValueError: A value is out of its range; the text names it.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    squash: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise ValueError(f"{name} of an InputSpec must be an integer from 1 to 4096, not {value!r}")
        if self.resize < self.size:
            raise ValueError(f"resize ({self.resize}) must not be smaller than size ({self.size})")
        if not isinstance(self.squash, bool) or (self.squash and self.resize != self.size):
            raise ValueError(f"squash of an InputSpec must be a bool, and resize equal size with it: {self.squash!r}")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if (
                not isinstance(numbers, tuple)
                or len(numbers) != 3
                or not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)
            ):
                raise ValueError(f"{name} of an InputSpec must be a tuple of three numbers, not {numbers!r}")
        if min(self.std) <= 0:
            raise ValueError(f"std of an InputSpec must be above 0, not {self.std!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, lists and strings, for JSON; `from_dict` is the way back."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        # Model files from before it was there lack it, and are known by a hash over these values.
        return values if self.squash else {name: value for name, value in values.items() if name != "squash"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """Returns the spec that `to_dict` described; every field must be there, but squash may be missing.

        Raises:
            ValueError: A field is missing, unknown or out of its range.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"an input spec must be a mapping, not {type(values).__name__}")
        names = {field.name for field in fields(cls)}
        if missing := names - values.keys() - {"squash"}:
            raise ValueError(f"input spec lacks {', '.join(sorted(missing))}")
        if unknown := values.keys() - names:
            raise ValueError(f"input spec has unknown fields: {', '.join(sorted(map(str, unknown)))}")
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)
