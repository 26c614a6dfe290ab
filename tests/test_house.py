"""The rules of the house: the direction of imports, the pinned packages, what the wheel holds, how long a function may be."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LONGEST_FUNCTION = 60  # lines without the docstring
LARGEST_CLASS = 25  # methods


@pytest.fixture
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))


@pytest.fixture
def pins(repository):
    lines = (repository / "constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def sources(repository):
    return [path for folder in ("mdm_studio", "plugins") for path in sorted((repository / folder).rglob("*.py"))]


def test_imports_point_one_way(repository):
    """The contracts stand in pyproject.toml; `make lint` shows the same."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_constraints_are_exact_and_portable(pins):
    assert not [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin)], "NAME==VERSION only"
    names = [canonicalize_name(pin.split("==")[0]) for pin in pins]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-")) or name in {"triton", "pip"}]


def test_constraints_pin_and_satisfy_every_requirement(project, pins):
    versions = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)}
    wanted = [Requirement(line) for line in project["project"]["dependencies"]]
    wanted += [Requirement(item) for group in project["dependency-groups"].values() for item in group if isinstance(item, str)]
    wanted += [Requirement(line) for line in project["project"]["optional-dependencies"]["napari"]]
    for requirement in wanted:
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not pinned: run scripts/renew_constraints.sh"
        assert requirement.specifier.contains(version), f"{requirement.name} is pinned to {version}, wanted {requirement}"


def test_the_gui_group_is_the_napari_extra(project):
    assert sorted(project["dependency-groups"]["gui"]) == sorted(project["project"]["optional-dependencies"]["napari"])


def test_entry_points_can_be_imported(project):
    tables = [project["project"]["scripts"], *project["project"]["entry-points"].values()]
    for target in (target for table in tables for target in table.values()):
        module, _, attribute = target.partition(":")
        found = importlib.import_module(module)
        if not attribute.endswith(".yaml"):  # napari's manifest is a file of the package
            assert hasattr(found, attribute), f"{target} is not there"


def test_the_wheel_has_the_engine_the_plugin_and_the_resources(repository, tmp_path):
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=repository, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("mdm_studio-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {"mdm_studio/__init__.py", "mdm_studio/py.typed", "mdm_studio/io/__init__.py"} <= held
    assert {"napari_mdm_studio/__init__.py", "napari_mdm_studio/napari.yaml"} <= held
    bundled = {path.relative_to(repository).as_posix() for path in (repository / "resources").rglob("*") if path.is_file()}
    assert {f"mdm_studio/{name}" for name in bundled if "/." not in name} <= held
    assert not [name for name in held if name.startswith(("tests/", "benchmarks/", "scripts/"))]


def test_functions_and_classes_stay_small(repository):
    too_large = []
    for path in sources(repository):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            where = f"{path.relative_to(repository)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - body_start(node) + 1
                if lines > LONGEST_FUNCTION:
                    too_large.append(f"{where} {node.name}: {lines} lines")
            elif isinstance(node, ast.ClassDef):
                methods = sum(isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) for item in node.body)
                if methods > LARGEST_CLASS:
                    too_large.append(f"{where} {node.name}: {methods} methods")
    assert not too_large, f"more than {LONGEST_FUNCTION} lines or {LARGEST_CLASS} methods: split\n" + "\n".join(too_large)


def test_paths_of_users_are_resolved_in_one_place(repository):
    """`Path.resolve` and `Path.expanduser` end with a traceback where a link leads to itself or a home is not known."""
    found = []
    for path in sources(repository):
        if path.name == "config.py":  # of its own place
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
                if node.func.attr in ("resolve", "expanduser"):
                    found.append(f"{path.relative_to(repository)}:{node.lineno}")
    assert not found, "take real_path or user_path of mdm_studio.io.paths:\n" + "\n".join(found)


def body_start(function):
    """First line after the docstring."""
    body = function.body
    if ast.get_docstring(function) is not None and len(body) > 1:
        return body[1].lineno
    return body[0].lineno


def test_the_tests_mirror_the_tree(repository):
    """tests/io/test_images.py tests mdm_studio/io/images.py: a folder of tests has its package."""
    packages = {path.parent.relative_to(repository / "mdm_studio") for path in (repository / "mdm_studio").rglob("__init__.py")}
    folders = {path.parent.relative_to(repository / "tests") for path in (repository / "tests").rglob("test_*.py")}
    others = {str(folder) for folder in folders} - {str(package) for package in packages}
    assert others <= {"plugins", "benchmarks", "docs", "faults"}


def test_the_readme_begins_with_both_commands(repository):
    first_block = (repository / "README.md").read_text("utf-8").split("```")[1]
    assert re.findall(r"^make (\w+)", first_block, re.MULTILINE) == ["demo", "test"]
