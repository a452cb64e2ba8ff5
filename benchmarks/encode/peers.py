"""Encodes photographs with another program, in that program's environment: ``python peers.py NAME PHOTOS``.

Their own weights are downloaded and may not be at hand: the network has random ones, which takes as long. imagededup
and DeepImageSearch run our network, EfficientNet-Lite0; CLIP is ViT-B/32, as in sentence-transformers and
clip-retrieval.
"""

import json
import os
import sys
import time
from pathlib import Path

# A folder of this name stands beside this file's; nothing here is meant by `import ...`.
sys.path.pop(0)


def main() -> None:
    """Prints images and seconds, the time of loading left out."""
    name, photos = sys.argv[1], Path(sys.argv[2])
    run = {"imagededup": imagededup, "DeepImageSearch": deep_image_search, "CLIP": clip}[name](photos)
    started = time.perf_counter()
    n_images = run()
    print(json.dumps({"images": n_images, "process_seconds": time.perf_counter() - started}))


def imagededup(photos):
    """Its CNN with a model of one's own, as its documentation shows it; a worker process for each core."""
    import_torchvision()
    import timm
    from imagededup.methods import CNN
    from imagededup.utils.models import CustomModel

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    encoder = CNN(verbose=False, model_config=CustomModel(model=network, transform=transform, name="lite0"))
    return lambda: len(encoder.encode_images(photos, recursive=True, num_enc_workers=os.cpu_count()))


def deep_image_search(photos):
    """Its indexer over its embedding of timm's networks."""
    import_torchvision()
    from DeepImageSearch.core.embeddings import TimmEmbedding

    return _indexer(TimmEmbedding("tf_efficientnet_lite0", pretrained=False), photos)


def clip(photos):
    """Its indexer over CLIP, its default."""
    import_torchvision()
    from DeepImageSearch.core.embeddings import CLIPEmbedding

    return _indexer(CLIPEmbedding("ViT-B-32", pretrained=None), photos)


def _indexer(embedding, photos):
    from DeepImageSearch.core.indexer import Indexer
    from DeepImageSearch.vectorstores.faiss_store import FAISSStore

    store = FAISSStore(dimension=embedding.dimension)
    paths = sorted(map(str, photos.rglob("*.jpg")))
    return lambda: Indexer(embedding, store).index(paths)


def import_torchvision():
    """Imports torchvision where its operators do not match torch's build, as deephash does."""
    from deephash.torchvision_import import import_torchvision

    import_torchvision()


if __name__ == "__main__":
    main()
