"""The fronts of the two packages: complete, importable, and light."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import deephash
import index
from tests.deephash.photos import python

HEAVY = {"torch", "torchvision", "timm", "faiss", "numpy", "PIL", "typer", "rich"}


def loaded_by(statement):
    done = python(f"import sys\n{statement}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("package", [deephash, index])
def test_every_public_name_can_be_imported(package):
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))


def test_star_import_gives_all_of_deephash():
    names = {}
    exec("from deephash import *", names)
    assert set(deephash.__all__) <= set(names)


def test_the_lazy_table_and_the_types_say_the_same_as_all():
    assert sorted(deephash._HOME_OF) == sorted(deephash.__all__)
    tree = ast.parse(Path(deephash.__file__).read_text("utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.name: f"deephash.{node.module}" if node.level else node.module
        for node in typed.body for alias in node.names
    }  # fmt: skip
    assert told == deephash._HOME_OF


def test_every_public_name_is_public_where_it_lives():
    for name, home in deephash._HOME_OF.items():
        assert name in importlib.import_module(home).__all__, (name, home)


def test_all_of_index_is_what_its_front_imports():
    tree = ast.parse(Path(index.__file__).read_text("utf-8"))
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(index.__all__)


def test_every_module_with_a_list_of_names_has_them():
    for package in (deephash, index):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            loaded = importlib.import_module(module.name)
            for name in getattr(loaded, "__all__", []):
                assert hasattr(loaded, name), (module.name, name)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'deephash' has no attribute 'nothing'"):
        deephash.nothing  # noqa: B018
    assert not hasattr(deephash, "_HOMES_OF")


def test_import_deephash_loads_nothing_heavy():
    assert loaded_by("import deephash") & (HEAVY | {"index"}) == set()


def test_the_command_line_loads_typer_alone():
    assert loaded_by("import deephash.cli") & HEAVY <= {"typer", "rich"}


def test_import_index_knows_neither_torch_nor_deephash():
    loaded = loaded_by("import index")
    assert loaded & {"torch", "timm", "deephash", "typer", "rich"} == set()


def test_one_name_loads_only_its_home():
    assert loaded_by("from deephash import InputSpec, Progress, DeepHashError") & {"torch", "timm", "PIL"} == set()
    assert loaded_by("from deephash import load_image, find_images") & {"torch", "timm"} == set()
