"""Trains a linear layer with a loss, for the tests of losses."""

import copy

import torch
from torch import nn


def train(loss, *, sign=1.0, epochs=20, state=None, first=0, stop=None):
    """Adam, 10 steps an epoch, on a linear layer over features of classes that it can separate.

    Returns logits of all images, their classes, and the state to go on from.
    """
    generator = torch.Generator().manual_seed(1)
    classes = torch.arange(loss.n_train) % loss.n_classes
    means = torch.randn(loss.n_classes, 8, generator=generator)
    features = means[classes] + 0.3 * torch.randn(loss.n_train, 8, generator=generator)
    layer = nn.Linear(8, loss.n_bits)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(loss.n_bits, 8, generator=generator) / 8**0.5)
        layer.bias.zero_()
    optimizer = torch.optim.Adam([*layer.parameters(), *loss.parameters()], lr=0.02)
    if state is not None:
        for module, saved in zip((layer, optimizer, loss), state, strict=True):
            module.load_state_dict(saved)
    for epoch in range(first, epochs if stop is None else stop):
        loss.start_epoch(epoch, epochs)
        order = torch.randperm(loss.n_train, generator=torch.Generator().manual_seed(epoch))
        for step in range(10):
            indices = order[torch.arange(4 * step, 4 * step + 16) % loss.n_train]
            optimizer.zero_grad()
            (sign * loss(layer(features[indices]), classes[indices], indices)).backward()
            optimizer.step()
    return layer(features).detach(), classes, copy.deepcopy([m.state_dict() for m in (layer, optimizer, loss)])
