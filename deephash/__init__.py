"""deephash: finds similar images by short binary codes.

    from deephash import ImageSearch, index_images

    report = index_images("photos/", "photos.dhx")
    with ImageSearch.open("photos.dhx") as search:
        for match in search.query("cat.jpg", k=5)[0]:
            print(match.distance, match.path)

Names are imported when they are first used: ``import deephash`` alone loads neither torch nor faiss.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index import DuplicateCluster, Filter, Match, Record, Store

    from .applying import ApplyReport, apply_plan, undo_plan
    from .backbones import create_backbone
    from .client import Client
    from .engine import ImageSearch
    from .errors import BackboneError, CollectionError, DeepHashError, ModelError, PlanError, ServerError
    from .evaluation import evaluate_codes, evaluate_features
    from .image_errors import ImageError
    from .image_files import find_images
    from .images import load_image
    from .indexing import index_images
    from .input_spec import InputSpec
    from .model import HashModel, load_model
    from .model_file import ModelCard, builtin_models, read_card
    from .plans import Plan, make_plan, read_plan, write_plan
    from .progress import Progress
    from .sync import SyncReport

__version__ = "0.1.0"

_HOMES = {
    "index": ("DuplicateCluster", "Filter", "Match", "Record", "Store"),
    "deephash.applying": ("ApplyReport", "apply_plan", "undo_plan"),
    "deephash.backbones": ("create_backbone",),
    "deephash.client": ("Client",),
    "deephash.engine": ("ImageSearch",),
    "deephash.errors": ("BackboneError", "CollectionError", "DeepHashError", "ModelError", "PlanError", "ServerError"),
    "deephash.evaluation": ("evaluate_codes", "evaluate_features"),
    "deephash.image_errors": ("ImageError",),
    "deephash.image_files": ("find_images",),
    "deephash.images": ("load_image",),
    "deephash.indexing": ("index_images",),
    "deephash.input_spec": ("InputSpec",),
    "deephash.model": ("HashModel", "load_model"),
    "deephash.model_file": ("ModelCard", "builtin_models", "read_card"),
    "deephash.plans": ("Plan", "make_plan", "read_plan", "write_plan"),
    "deephash.progress": ("Progress",),
    "deephash.sync": ("SyncReport",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ApplyReport",
    "BackboneError",
    "Client",
    "CollectionError",
    "DeepHashError",
    "DuplicateCluster",
    "Filter",
    "HashModel",
    "ImageError",
    "ImageSearch",
    "InputSpec",
    "Match",
    "ModelCard",
    "ModelError",
    "Plan",
    "PlanError",
    "Progress",
    "Record",
    "ServerError",
    "Store",
    "SyncReport",
    "apply_plan",
    "builtin_models",
    "create_backbone",
    "evaluate_codes",
    "evaluate_features",
    "find_images",
    "index_images",
    "load_image",
    "load_model",
    "make_plan",
    "read_card",
    "read_plan",
    "undo_plan",
    "write_plan",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'deephash' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
