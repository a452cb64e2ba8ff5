"""Fits the general models that are shipped: the default backbone, and ITQ on the features of a folder of photographs.

    python -m benchmarks.make_general_models --photos DIR

DIR holds 1,000 natural photographs, one of each class of ImageNet; no label is used. Writes
``deephash/builtin/general-{64,128,256,512}.safetensors`` in float16; each is the beginning of the next. The same
photographs give the same files.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from deephash.backbones import create_backbone
from deephash.encoders import VARIABLE
from deephash.fitting import fit_hash_layer, sample_features
from deephash.image_files import find_images
from deephash.model import HashModel, untrained_model
from deephash.progress import ignore_progress

LENGTHS = (64, 128, 256, 512)
OUTPUT = Path(__file__).parents[1] / "deephash" / "builtin"


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
    options = parser.parse_args()
    os.environ[VARIABLE] = "torch"  # whatever the processor
    files = list(find_images([options.photos]))
    base = general_base()
    sample = sample_features(base, files, on_progress=ignore_progress)
    OUTPUT.mkdir(exist_ok=True)
    longest = fit_hash_layer(base, sample.features, LENGTHS[-1], collection="general", blocks="following")
    for n_bits in LENGTHS:
        # Not fitted anew: on some processors the last digits of that would differ.
        model = longest.prefix(n_bits)
        model.name = f"general-{n_bits}"
        model.training_facts = {
            "fitted_to": f"{len(sample.images)} photographs, one of each ImageNet class",
            "images": len(sample.images),
            "labels": "none",
            "base": "EfficientNet-Lite0, ImageNet weights, of the middle, drawn towards its classes",
        }
        path = OUTPUT / f"general-{n_bits}.safetensors"
        model.save(path, half=True)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, fitted to {len(sample.images)} images")


if __name__ == "__main__":
    main()
