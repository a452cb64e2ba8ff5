import pytest

from tests.deephash.photos import sample, write_photos

# Imports of torch stay inside: collecting these tests must not cost seconds.


@pytest.fixture(scope="session")
def tiny_model():
    """A HashModel of 64 bits on timm's smallest EfficientNet, 32 pixels, random but seeded weights, fitted by ITQ."""
    import torch

    from deephash.backbones import Backbone, create_backbone
    from deephash.fitting import fit_hash_layer
    from deephash.input_spec import InputSpec
    from deephash.model import HashModel

    torch.manual_seed(0)
    backbone = create_backbone("test_efficientnet", pretrained=False)
    # Fresh batch norms would let activations fade: give them the statistics of real pictures.
    backbone.module.train()
    pictures = torch.from_numpy(sample().database_images[:256]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        for _ in range(20):
            backbone.module(pictures)
    backbone.module.eval()
    spec = InputSpec(size=32, resize=32)
    backbone = Backbone(backbone.name, backbone.module, backbone.n_features, spec, "random")
    zeros = torch.zeros(8, backbone.n_features).numpy()
    blank = HashModel(backbone, zeros, zeros[:, 0], name="blank", method="none")
    features = blank.features(sample().database_images[:400])
    return fit_hash_layer(blank, features, 64, collection="tiny")


@pytest.fixture(scope="session")
def tiny_file(tiny_model, tmp_path_factory):
    """The tiny model as a file: indexing with it takes milliseconds."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    tiny_model.save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of 40 small photographs in a folder for each class."""
    folder = tmp_path / "photos"
    write_photos(folder, 0, 40)
    return folder
