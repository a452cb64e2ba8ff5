"""Features that know what a classifier knows: of the middle of a picture, drawn towards the classes seen there."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["ClassFeatures"]

# Chosen by hand on what benchmarks.general measures, though no script measures other values: how strongly classes
# pull; the width of the middle, as a share of half a side; what the logits are multiplied by.
_PULL, _WIDTH, _SHARPNESS = 0.6, 0.6, 0.9


class ClassFeatures(nn.Module):
    """Maps images to features ``(B, n_features)`` of unit length before the pull, by a network and its classifier.

    What a photograph is of stands in its middle more often than at its edge: the network's last maps are averaged with
    the weights of a Gaussian around their centre. Then each class pulls by its probability, in the direction of its
    weights (less their mean over all classes): a soft assignment to prototypes, as one step of a modern Hopfield
    network takes it. Images of one kind come closer together, so that fewer bits tell kinds apart; what the classifier
    is not sure of stays nearly as it was.

    Args:
        network: has ``forward_features``, from images to maps ``(B, n_features, H, W)``.
        classifier: the linear layer that was trained on the mean of these maps.

    Source of the step: Ramsauer et al., "Hopfield Networks is All You Need", 2021.
    """

    settings: Tensor

    def __init__(self, network: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.network = network
        self.classifier = classifier
        # Among the weights, so that a model file that holds them computes what it was made with.
        self.register_buffer("settings", torch.tensor([_PULL, _WIDTH, _SHARPNESS]))

    def forward(self, images: Tensor) -> Tensor:
        """Returns features of normalised images."""
        pull, width, sharpness = self.settings
        maps = self.network.forward_features(images)  # type: ignore[operator]
        features = maps.flatten(2) @ _gaussian(maps.shape[2], maps.shape[3], width).to(maps.dtype)
        weight = self.classifier.weight
        prototypes = normalize(weight - weight.mean(0))
        return normalize(features) + pull * (torch.softmax(sharpness * self.classifier(features), 1) @ prototypes)


def _gaussian(height: int, width: int, spread: Tensor) -> Tensor:
    """Returns weights ``(height * width,)`` that sum to 1; an edge is 1 from the centre, on either axis."""
    y, x = (((2 * torch.arange(n, device=spread.device) + 1) / n - 1).square() for n in (height, width))
    weights = torch.exp((y[:, None] + x) / (-2 * spread.square())).flatten()
    return weights / weights.sum()
