"""Trains the general models that are shipped: the default backbone, and a hash layer made from a folder of photographs.

    python -m benchmarks.make_general_models --photos DIR            # a quarter of an hour on two cores

DIR holds 1,000 natural photographs, one of each class of ImageNet; no label is used. The hash layer begins as ITQ on
their features (blocks of components that follow one another). Then it is trained so that codes of changed pictures
(cut, mirrored, recoloured, half of them coarse) have the neighbours that the features of the whole photographs have
(``SimilarityDistillation``), for all lengths at once, each from where the shorter one ends (``NestedLoss``). What is
shipped lies between the two, three quarters of the way to the trained layer (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022). Writes ``deephash/builtin/general-{64,128,256,512}.safetensors`` in float16; each is the
beginning of the next. ``benchmarks.general`` measures them.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deephash.augmentation import Augmentation, augment
from deephash.backbones import create_backbone
from deephash.image_files import find_images
from deephash.images import load_image, preprocess
from deephash.losses import NestedLoss, SimilarityDistillation
from deephash.model import HashModel, untrained_model
from deephash.shallow import ITQ

LENGTHS = (64, 128, 256, 512)
OUTPUT = Path(__file__).parents[1] / "deephash" / "builtin"
VIEWS = 48  # of each photograph
WHOLE = 0.1  # the share of the batch that is photographs as they are
AUGMENTATION = Augmentation(min_area=0.25, flip=True, colour=0.3)
_CHUNK = 8  # views made at a time
COARSEST = 24  # pixels a side of the coarsest views
BATCH = 500
STEPS = 700
LEARNING_RATE = 4.5e-3
SPREAD = 1.5  # mean size of the logits at first, in tanh(logit)
TRAINED = 0.75  # the way from ITQ to the trained layer
# Of 0 to 5 the one with the best codes, on the collections of benchmarks.general.
SEED = 3

_Features = NDArray[np.float32]


def general_base() -> HashModel:
    """Returns the default backbone, with its classifier's knowledge, and the preprocessing of the general models.

    The whole picture is squeezed into the square, where timm takes the centre of it: what people search for often
    reaches to the edge (``benchmarks.general`` measures both).
    """
    spec = create_backbone(pretrained=False).input_spec
    return untrained_model(
        "efficientnet_lite0+classes",
        input_spec=replace(spec, resize=spec.size, squash=True),
        licence="Apache-2.0",
    )


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--features", type=Path, help="file that keeps the features, to train again from (.npy)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the models (default: the package's)")
    options = parser.parse_args()
    started = time.monotonic()
    base = general_base()
    if options.features is not None and options.features.exists():
        features = np.load(options.features)
    else:
        features = view_features(base, [file.path for file in find_images([options.photos])])
        if options.features is not None:
            np.save(options.features, features)
    layer = train(features, options.seed)
    n_photos, n_copies = len(features), features.shape[1] - 1
    facts = {
        "fitted_to": f"{n_photos:,} photographs, one of each ImageNet class, and {n_copies} changed copies of each",
        "images": n_photos,
        "labels": "none",
        "base": "EfficientNet-Lite0, ImageNet weights, of the middle, drawn towards its classes",
        "steps": STEPS,
        "seed": options.seed,
    }
    write(base, layer, facts, options.output)
    print(f"{(time.monotonic() - started) / 60:.0f} minutes")


def view_features(base: HashModel, paths: Sequence[str]) -> _Features:
    """Returns features (N, 1 + VIEWS, D) float32, unit length: of each whole photograph, then of its changed copies."""
    spec = base.input_spec
    larger = replace(spec, size=spec.size * 10 // 7, resize=spec.size * 10 // 7)  # views are cut from it
    generator = torch.Generator().manual_seed(0)
    features = np.empty((len(paths), 1 + VIEWS, base.n_features), np.float32)
    for row, path in enumerate(paths):
        image = load_image(path)
        pixels = torch.from_numpy(preprocess(image, larger)).expand(_CHUNK, -1, -1, -1)
        pictures = [preprocess(image, spec)[None]]
        for _ in range(VIEWS // _CHUNK):
            views = _made_coarse(augment(pixels, spec.size, AUGMENTATION, generator), generator)
            pictures.append((views * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
        features[row] = base.features(np.concatenate(pictures))
        if (row + 1) % 50 == 0:
            print(f"{row + 1} of {len(paths)} photographs encoded", flush=True)
    return features


def _made_coarse(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns (B, 3, size, size) images, every second one with no more detail than a smaller picture has."""
    size = images.shape[-1]
    for i in range(0, len(images), 2):
        share = float(torch.rand((), generator=generator))
        small = round(COARSEST * (size / COARSEST) ** share)
        reduced = nn.functional.interpolate(images[i : i + 1], (small, small), mode="area")
        images[i] = nn.functional.interpolate(reduced, (size, size), mode="bilinear")[0]
    return images


def train(features: _Features, seed: int) -> nn.Linear:
    """Returns the hash layer (D, LENGTHS[-1]) for features as ``view_features`` gives them."""
    torch.manual_seed(seed)
    whole = features[:, 0]
    itq = ITQ(LENGTHS[-1], blocks="following", seed=seed).fit(whole)
    mean = torch.from_numpy(itq.mean)
    views, n_views = torch.from_numpy(features), features.shape[1]
    weight = torch.from_numpy(itq.projection.T.copy())
    for start, end in zip((0, *LENGTHS), LENGTHS, strict=False):
        weight[start:end] *= SPREAD / ((views[:, 0] - mean) @ weight[start:end].T).abs().mean()
    layer = nn.Linear(features.shape[2], LENGTHS[-1])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    loss = NestedLoss([SimilarityDistillation(length, whole - itq.mean) for length in LENGTHS], given=1.0)
    optimizer = torch.optim.Adam(layer.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        rows = torch.randperm(len(views))[:BATCH]
        view = torch.randint(n_views, (len(rows),)).masked_fill_(torch.rand(len(rows)) < WHOLE, 0)
        value = loss(layer(views[rows, view] - mean), None, rows)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {STEPS}: loss {value.item():.3f}", flush=True)
    with torch.no_grad():
        layer.weight.lerp_(weight, 1 - TRAINED)
        layer.bias.mul_(TRAINED).sub_(layer.weight @ mean)
    return layer


def write(base: HashModel, layer: nn.Linear, facts: dict[str, object], folder: Path) -> None:
    """Writes the models of all lengths."""
    folder.mkdir(exist_ok=True)
    longest = base.with_hash_layer(
        layer.weight.detach().numpy(), layer.bias.detach().numpy(),
        name="general", method="similarity-distillation", training=facts, licence=base.licence,
    )  # fmt: skip
    for n_bits in LENGTHS:
        model = longest.prefix(n_bits)  # which is called general-N
        path = folder / f"{model.name}.safetensors"
        model.save(path, half=True)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
