"""`import mdm_studio` is light, and every public name is there when asked for."""

import ast
import importlib
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import mdm_studio

HEAVY = set("torch numpy scipy skimage zarr matplotlib PIL typer qtpy PySide6 PyQt6 napari vispy".split())
MEASURE = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import mdm_studio
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "loaded": sorted({name.split(".")[0] for name in set(sys.modules) - before})}))
"""


def in_a_new_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_import_is_light_and_quick():
    runs = [in_a_new_python(MEASURE) for _ in range(5)]
    assert not HEAVY & set(runs[0]["loaded"])
    assert statistics.median(run["seconds"] for run in runs) < 0.2


def test_asking_for_an_error_loads_nothing_heavy():
    code = MEASURE.replace("import mdm_studio\n", "from mdm_studio import MDMStudioError\n")
    assert not HEAVY & set(in_a_new_python(code)["loaded"])


@pytest.mark.parametrize("name", mdm_studio.__all__)
def test_public_names_are_there(name):
    value = getattr(mdm_studio, name)
    home = mdm_studio._HOMES.get(name)
    assert home is None or value is getattr(importlib.import_module(home), name)
    assert name in dir(mdm_studio)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mdm_studio.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        exec("from mdm_studio import nothing")


def test_the_lists_of_public_names_agree():
    tree = ast.parse(Path(mdm_studio.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == mdm_studio._HOMES
    assert sorted(mdm_studio.__all__) == sorted([*mdm_studio._HOMES, "__version__"])
