"""How long work tells what it has done: plain values, given to a callback; drawing them is the CLI's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["OnProgress", "Progress", "ignore_progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """So many of so many images are through a stage.

    ``fit``: features of the sample that the model is fitted on; ``encode``: new and changed files, decoded, encoded and
    stored, or found to be known; ``codes``: files encoded without an index; ``copies``: images of an older index that
    get copy codes; ``train``: images seen, over all epochs; ``apply``: copies of a plan, dropped or not.
    """

    stage: Literal["fit", "encode", "codes", "copies", "train", "apply"]
    done: int
    total: int


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The callback that does nothing."""
