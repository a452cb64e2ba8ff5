"""The errors of the package: one tree, so that one ``except DeepHashError`` catches what a user can mend.

DeepHashError (defined in ``index.errors``, the lower package)
├── StoreError …           what an index folder can be wrong with: see ``index.errors``
├── ModelError             a model file is missing, damaged, or does not fit
├── BackboneError          a backbone's name is unknown or its weights are out of reach
├── CollectionError        a collection cannot be indexed as asked (nothing readable, too small to fit)
├── PlanError              a plan cannot be carried out, or cannot be trusted
├── ServerError            a server (deephash serve) refused, or cannot be reached
├── TrainingError          training cannot go on (loss not finite, another run's checkpoint, a process lost)
└── image_errors.ImageError  one image cannot be read (also a ValueError)
"""

from index.errors import DeepHashError

__all__ = [
    "BackboneError",
    "CollectionError",
    "DeepHashError",
    "ModelError",
    "PlanError",
    "ServerError",
    "TrainingError",
]


class ModelError(DeepHashError):
    """A model file is missing, damaged, newer than the program, or does not fit its backbone."""


class BackboneError(DeepHashError):
    """A backbone's name is unknown, or its pretrained weights cannot be had."""


class CollectionError(DeepHashError):
    """A collection cannot be indexed as asked: nothing readable in it, or too few images to fit a model."""


class PlanError(DeepHashError):
    """A plan (which copies to drop) is damaged, contradicts itself, or cannot be carried out as asked."""


class TrainingError(DeepHashError):
    """Training cannot go on: the loss is not finite, the checkpoint is another run's, or the data make no task."""


class ServerError(DeepHashError):
    """A server refused a call, in its own sentence, or cannot be reached.

    ``status`` and ``code`` are those of its answer, None where there was none; ``retry_after``: seconds to wait.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: int | None = None
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
