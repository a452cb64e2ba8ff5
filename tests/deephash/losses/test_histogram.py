"""MIHash: what its histograms tell apart, the bits tell apart too."""

import torch

from deephash.losses import MIHash


def test_classes_that_look_alike_get_different_bits():
    # With a soft sigmoid (sharpness 1) alike classes differ in the size of their logits, not in a single sign.
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 16, generator=generator).repeat_interleave(2, 0)
    centers += 0.35 * torch.randn(10, 16, generator=generator)
    labels = torch.arange(10).repeat(8)
    weights = (0.1 * torch.randn(16, 48, generator=generator)).requires_grad_()
    loss = MIHash(48, 10, len(labels))
    optimizer = torch.optim.Adam([weights], lr=0.02)
    for _ in range(150):
        features = centers[labels] + 0.05 * torch.randn(len(labels), 16, generator=generator)
        value = loss(features @ weights, labels, torch.arange(len(labels)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    bits = centers @ weights > 0
    distances = (bits.unsqueeze(1) ^ bits).sum(2)
    assert distances[~torch.eye(10, dtype=torch.bool)].min() >= 3
