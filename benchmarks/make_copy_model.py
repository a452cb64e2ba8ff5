"""Trains the model of copy codes that is shipped, on photographs without labels.

    python -m benchmarks.make_copy_model --photos DIR --distractors DIR          # a quarter of an hour on two cores

The first DIR holds natural photographs; every second one of them, by name, is trained on, the others are left to
``benchmarks.copies``. Two views of each, both changed at random as copies are (cut, turned, recoloured, recompressed,
blurred), must have codes that are nearer to each other than to those of any other picture (InfoNCE: van den Oord et
al., "Representation Learning with Contrastive Predictive Coding", 2018); bits that say the same cost
(Zbontar et al., "Barlow Twins", 2021, within one view). Then the radius up to which two pictures are called copies is
chosen on half of the other photographs (``benchmarks.copies``). Writes ``deephash/builtin/copies-256.safetensors``.
"""

import argparse
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from deephash.backbones import create_backbone
from deephash.copy_net import CopyNet
from deephash.images import load_image
from deephash.model import HashModel

OUTPUT = Path(__file__).parents[1] / "deephash" / "builtin" / "copies-256.safetensors"
N_BITS = 256
BATCH = 160
LEARNING_RATE = 2e-3
TEMPERATURE = 0.1
DECORRELATION = 0.05
_SIDE = 96  # of the pictures that views are cut from
_VIEW = 64


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--distractors", type=Path, required=True, help="photographs of other things; see copies")
    parser.add_argument("--steps", type=int, default=1_800)
    options = parser.parse_args()
    from benchmarks.copies import choose_radius, training_half

    paths = training_half(options.photos)
    started = time.monotonic()
    net = train(read(paths), options.steps)
    facts = {
        "fitted_to": f"{len(paths)} photographs and changed copies of them, without labels",
        "images": len(paths),
        "labels": "none",
        "steps": options.steps,
        "minutes": round((time.monotonic() - started) / 60),
    }
    model = as_model(net, facts)
    facts["radius"] = choose_radius(model, options.photos, options.distractors)
    as_model(net, facts).save(OUTPUT, half=True)
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1024:.0f} KiB, {facts}")


def as_model(net: CopyNet, facts: dict[str, object]) -> HashModel:
    """Returns the network as a model whose bits are the signs of its features."""
    backbone = create_backbone("copy_net", pretrained=False)
    backbone.module.load_state_dict(net.state_dict())
    weight, bias = np.eye(N_BITS, dtype=np.float32), np.zeros(N_BITS, np.float32)
    return HashModel(backbone, weight, bias, name="copies-256", method="copies", training=facts, licence="Apache-2.0")


def read(paths: Sequence[str]) -> Tensor:
    """Returns the pictures, and beside each its strongly compressed copy: (N, 2, 3, side, side) uint8."""
    pictures = [[_squashed(picture) for picture in (image, _compressed(image))] for image in map(load_image, paths)]
    return torch.from_numpy(np.array(pictures)).permute(0, 1, 4, 2, 3).contiguous()


def _squashed(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))


def _compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=25)
    return Image.open(stream).convert("RGB")


def train(pictures: Tensor, steps: int) -> CopyNet:
    """Returns a network trained on pictures (N, 2, 3, side, side) uint8."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = CopyNet(N_BITS).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=0.02)
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.randperm(len(pictures), generator=generator)[:BATCH]
        images = torch.cat([views(pictures[chosen], generator) for _ in range(2)])
        codes = torch.tanh(net(images.contiguous(memory_format=torch.channels_last)))
        contrast = contrastive_loss(codes)
        optimizer.zero_grad()
        (contrast + DECORRELATION * correlation(codes)).backward()
        optimizer.step()
        if step % 50 == 49:
            minutes = (time.monotonic() - started) / 60
            left = minutes / (step + 1) * (steps - step - 1)
            print(f"step {step + 1} of {steps}: loss {contrast.item():.4f}, {left:.0f} min left", flush=True)
    return net.eval()


def contrastive_loss(codes: Tensor) -> Tensor:
    """Returns InfoNCE of codes (2B, n_bits), where those of rows i and B + i are of one picture."""
    unit = nn.functional.normalize(codes)
    similarities = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-1e4)
    n = len(codes)
    return nn.functional.cross_entropy(similarities, torch.arange(n).roll(n // 2))


def correlation(codes: Tensor) -> Tensor:
    """Returns the mean over the bits of the sum of their squared covariances with the other bits."""
    centred = codes - codes.mean(0)
    covariance = centred.T @ centred / len(codes)
    return (covariance - covariance.diag().diag()).square().sum(1).mean()


def views(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Returns one changed view (B, 3, 64, 64) float32 in 0 ... 1 of each of the pictures (B, 2, 3, side, side)."""
    n = len(pictures)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    compressed = torch.randint(2, (n,), generator=generator)
    images = pictures[torch.arange(n), compressed].float() / 255
    border = "border" if torch.rand((), generator=generator) < 0.5 else "zeros"
    images = nn.functional.grid_sample(images, _grid(uniform), padding_mode=border, align_corners=False)
    images = images * uniform(0.8, 1.2, 3, 1, 1) * uniform(0.75, 1.25, 1, 1, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * uniform(0.6, 1.4, 1, 1, 1)
    grey = images.mean(1, keepdim=True)
    images = (grey + (images - grey) * uniform(0, 1.3, 1, 1, 1)).clamp(0, 1)
    if torch.rand((), generator=generator) < 0.4:
        side = (48, 32, 24)[int(torch.randint(3, (), generator=generator))]
        small = nn.functional.interpolate(images, size=side, mode="bilinear", antialias=True)
        images = nn.functional.interpolate(small, size=_VIEW, mode="bilinear")
    noise = torch.randn(images.shape, generator=generator)
    return images + noise * uniform(0, 0.02, 1, 1, 1)


def _grid(uniform) -> Tensor:  # type: ignore[no-untyped-def]
    """Returns where to sample: cut to 80 % of each side at least, turned by 8 degrees at most, half of the time."""
    angle = uniform(-0.14, 0.14) * (uniform(0, 1) < 0.6)
    scale = uniform(0.8, 1)
    across = scale * uniform(0.97, 1.03)
    rows = [
        torch.stack([across * angle.cos(), -scale * angle.sin(), uniform(-1, 1) * (1 - scale)], 1),
        torch.stack([across * angle.sin(), scale * angle.cos(), uniform(-1, 1) * (1 - scale)], 1),
    ]
    return nn.functional.affine_grid(torch.stack(rows, 1), [len(angle), 3, _VIEW, _VIEW], align_corners=False)


if __name__ == "__main__":
    main()
