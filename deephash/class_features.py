"""Features that know what a classifier knows: a network's own, drawn towards the classes that it sees in an image."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["ClassFeatures"]

# Tried by hand, no script measures it: objects that the classifier knows want more, CIFAR-10 wants less.
_PULL = 0.6


class ClassFeatures(nn.Module):
    """Maps images to features ``(B, n_features)`` of unit length before the pull, by a network and its classifier.

    Each class pulls by its probability, in the direction of its weights (less their mean over all classes): a soft
    assignment to prototypes, as one step of a modern Hopfield network takes it. Images of one kind come closer
    together, so that fewer bits tell kinds apart; what the classifier is not sure of stays nearly as it was.

    Args:
        network: gives features ``(B, n_features)``.
        classifier: the linear layer that was trained on them.

    Source of the step: Ramsauer et al., "Hopfield Networks is All You Need", 2021.
    """

    def __init__(self, network: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.network = network
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Returns features of normalised images."""
        features = self.network(images)
        weight = self.classifier.weight
        prototypes = normalize(weight - weight.mean(0))
        return normalize(features) + _PULL * (torch.softmax(self.classifier(features), 1) @ prototypes)
