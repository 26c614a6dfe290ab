"""What every test gets: one deterministic torch thread, user folders of its own, and a display for the GUI tests."""

import os

# before NumPy and torch start their thread pools: two pools on two cores slow each other ten-fold
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_QT_STARTS = "from qtpy.QtWidgets import QApplication; QApplication([])"
_HOME_NUMBER = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _napari_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Napari reads this when it is first imported, so it is set once, for the whole run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_CONFIG", str(tmp_path_factory.mktemp("napari") / "settings.yaml"))
        yield


@pytest.fixture(autouse=True)
def _user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the real home; the folders are not there until something makes them."""
    home = tmp_path_factory.getbasetemp() / f"home-{next(_HOME_NUMBER)}"
    monkeypatch.setenv("MDM_STUDIO_DATA", str(home / "data"))
    monkeypatch.setenv("MDM_STUDIO_CACHE", str(home / "cache"))


@pytest.fixture(autouse=True)
def _deterministic_torch() -> None:
    torch = sys.modules.get("torch")  # a test that does not use torch does not wait for it either
    if torch is not None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def display() -> None:
    """Fail in words where Qt cannot start; Qt itself would abort and take the other tests with it."""
    try:
        trial = subprocess.run([sys.executable, "-c", _QT_STARTS], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail("Qt did not start within a minute; run the tests with `make test`, which gives them a virtual display")
    if trial.returncode:
        pytest.fail(f"Qt does not start here; `make test` gives it a display and names missing packages:\n{trial.stderr}")


@pytest.fixture(autouse=True)
def _display_for_gui_tests(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gui"):
        request.getfixturevalue("display")


@pytest.fixture
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parent.parent
