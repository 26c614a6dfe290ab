"""What every test gets: one deterministic torch thread, user folders of its own, and a display for the GUI tests."""

import os

# before NumPy and torch start their thread pools: two pools on two cores slow each other ten-fold
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# programs under test inherit signals that whoever started the tests has switched off, as nohup and a shell's & do
for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
    if signal.getsignal(getattr(signal, _name, signal.SIGINT)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _usual)

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


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a backbone with random weights, small enough for tests: blocks 0 and 1 at stride 4 and 2."""
    import dataclasses

    from mdm_studio.engine.backbones import untrained_backbone
    from mdm_studio.io.backbone_files import write_backbone
    from mdm_studio.nn.unet import UNetConfig

    config = UNetConfig(model_channels=32, channel_mult=(1, 1), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8)
    net = untrained_backbone(config).net
    card = {
        "name": "tiny",
        "arch": {"kind": "unet", **dataclasses.asdict(config)},
        "recipe": {"name": "mdm"},
        "blocks": [1, 2, 3],
        "timesteps": [50],
        "tile": 64,
        "halo": 32,
    }
    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    write_backbone(folder, net.state_dict(), card, "# tiny\n")
    return folder


@pytest.fixture(scope="session")
def tokens_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a backbone with random weights that has no timesteps: a transformer of 13 blocks, all at stride 8."""
    import dataclasses

    from mdm_studio.io.backbone_files import write_backbone
    from mdm_studio.nn.mae import MAEConfig, MaskedAutoencoder

    config = MAEConfig(image_size=32, dim=16, depth=13, heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2)
    card = {
        "name": "tokens",
        "arch": {"kind": "mae", **dataclasses.asdict(config)},
        "recipe": {"name": "mae"},
        "blocks": [8, 12],
        "timesteps": [0],
        "tile": 64,
        "halo": 16,
    }
    folder = tmp_path_factory.mktemp("backbones") / "tokens"
    write_backbone(folder, MaskedAutoencoder(config).state_dict(), card, "# tokens\n")
    return folder


@pytest.fixture
def images_and_labels(tmp_path: Path) -> tuple[Path, Path]:
    """Three images of discs, 60 x 70, and label maps with strokes (1 = ground, 2 = disc) for two of them."""
    import numpy as np
    from PIL import Image

    from mdm_studio.testing import blobs

    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for number in range(3):
        image, mask = blobs(60, 70, seed=number)
        Image.fromarray(image).save(images / f"field{number}.png")
        strokes = np.where(np.arange(60)[:, None] % 6 == 0, mask, 0).astype(np.uint8)
        if number < 2:
            Image.fromarray(strokes).save(labels / f"field{number}.png")
    return images, labels
