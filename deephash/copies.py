"""Copy codes: by which copies of a picture are told from pictures of similar things, whatever the index's own model.

The shipped model ``copies-256`` makes them of the whole picture at 64 x 64 pixels (``copy_net``); ``benchmarks.copies``
measures it. Images within ``radius`` of each other are called copies.
"""

import functools

from index import Store

from .input_spec import InputSpec
from .model_file import ModelCard, find_model, read_card

__all__ = ["COPY_MODEL", "copy_card", "copy_spec", "use_copy_codes"]

COPY_MODEL = "copies-256"


@functools.cache
def copy_card() -> ModelCard:
    """Returns the card of the model of copy codes."""
    return read_card(find_model(COPY_MODEL))


def copy_spec() -> InputSpec:
    """Returns what that model wants to see of an image."""
    return copy_card().input_spec


def use_copy_codes(store: Store) -> None:
    """Has the store keep codes of that model; those of an earlier one are dropped."""
    card = copy_card()
    store.use_copy_codes(card.n_bits, card.fingerprint, int(card.training["radius"]))
