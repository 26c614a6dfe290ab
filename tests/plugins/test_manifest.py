"""What napari.yaml offers: all of it is there, and the actions are the commands."""

import dataclasses

import numpy as np
import pytest
from PIL import Image as PILImage

from mdm_studio.errors import OutputError, UsageError
from mdm_studio.io.images import open_image
from tests.plugins.gui import FakeSession, settle

PLUGIN = "mdm-studio"


@pytest.fixture
def manifest():
    from npe2 import PluginManifest

    return PluginManifest.from_distribution(PLUGIN)


def test_every_command_can_be_imported_and_every_contribution_has_one(manifest):
    from napari_mdm_studio._preferences import DISPLAY_NAME

    manifest.validate_imports()
    offered = manifest.contributions
    commands = {command.id for command in offered.commands}
    used = [*offered.widgets, *offered.readers, *offered.writers, *offered.sample_data]
    used += [item for items in offered.menus.values() for item in items]
    assert {each.command for each in used} <= commands
    assert manifest.icon
    assert manifest.display_name == DISPLAY_NAME
    assert {str(category.value) for category in manifest.categories} == {"Segmentation", "Annotation"}


def test_every_action_is_a_command_with_the_same_words(manifest):
    from napari_mdm_studio._actions import ACTIONS

    titles = {command.id.removeprefix(f"{PLUGIN}."): command.title for command in manifest.contributions.commands}
    assert {each.name: each.title for each in ACTIONS}.items() <= titles.items()
    assert len({each.key for each in ACTIONS if each.key}) == sum(bool(each.key) for each in ACTIONS)


def test_the_preferences_declared_are_those_that_are_read(manifest):
    from napari_mdm_studio._preferences import Preferences

    declared = {name: item.default for name, item in manifest.contributions.configurations["live"].properties.items()}
    assert declared == dataclasses.asdict(Preferences())


def test_menus_are_those_that_napari_lets_plugins_fill(manifest):
    from napari._app_model.constants._menus import is_menu_contributable

    assert manifest.contributions.menus
    assert all(is_menu_contributable(menu) for menu in manifest.contributions.menus)


# ------------------------------------------------------------------------------------------------------------- readers


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        PILImage.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(tmp_path / f"img{number}.png")
    PILImage.fromarray(rng.integers(0, 255, (30, 20, 3), np.uint8)).save(tmp_path / "colour.png")
    return tmp_path


def test_a_folder_becomes_stacks_of_one_size(folder):
    from napari_mdm_studio._readers import reader

    read = reader(str(folder))
    (colour, colour_is, kind), (stack, stack_is, _) = read(str(folder))
    assert kind == "image"
    assert (colour.shape, colour_is["rgb"], colour_is["name"]) == ((30, 20, 3), True, "colour")
    assert stack.shape == (3, 40, 50)
    assert not isinstance(stack, np.ndarray)  # read when it is shown
    assert stack_is["metadata"]["names"] == ["img0", "img1", "img2"]
    assert stack_is["translate"] == (0, 0, 36)
    np.testing.assert_array_equal(stack[1].compute(scheduler="synchronous"), PILImage.open(folder / "img1.png"))


def test_a_folder_says_what_is_left_out_of_its_images(folder, monkeypatch):
    from napari.utils import notifications

    from napari_mdm_studio._readers import read_folder

    told = []
    monkeypatch.setattr(notifications, "show_info", told.append)
    read_folder(str(folder))
    assert told == []
    frames = [PILImage.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for number in range(6):
        frames[0].save(folder / f"m{number}.png", save_all=True, append_images=frames[1:])
    read_folder(str(folder))
    (text,) = told
    assert text.startswith("m0: left out: frame 2 of 2\nm1: ")
    assert text.endswith("(and of 1 other images)")


def test_other_things_are_left_to_other_readers(tmp_path, folder):
    from napari_mdm_studio._readers import reader

    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zarr").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a.zarr", tmp_path / "img0.png", "a.png", "https://a.b/c.zarr"):
        assert reader(str(path)) is None
    assert reader([str(folder)]) is None


@pytest.mark.gui
def test_a_classifier_goes_to_the_dock(viewer, tmp_path, monkeypatch):
    from napari_mdm_studio import _session_home

    session = FakeSession()
    monkeypatch.setattr(_session_home, "new_session", lambda chosen: session)
    path = tmp_path / "a.mdm"
    path.write_bytes(b"")
    assert viewer.open(str(path), plugin=PLUGIN) == []
    settle()
    assert session.named("load_classifier") == [(path,)]
    viewer.open(str(path), plugin=PLUGIN)
    assert len(viewer.window.dock_widgets) == 1  # the dock is opened once


@pytest.mark.gui
def test_the_palette_has_the_actions_and_they_act(viewer, monkeypatch):
    from napari._app_model import get_app_model

    from napari_mdm_studio import _session_home

    session = FakeSession()
    monkeypatch.setattr(_session_home, "new_session", lambda chosen: session)
    image = viewer.add_image(np.zeros((40, 50), np.uint8), name="a")
    app = get_app_model()
    viewer.layers.selection.active = image
    app.commands.execute_command(f"{PLUGIN}.add_strokes")
    settle()
    assert list(session.images) == ["a"]
    app.commands.execute_command(f"{PLUGIN}.choose_class_2")
    assert viewer.layers["a strokes"].selected_label == 2
    app.commands.execute_command(f"{PLUGIN}.toggle_live")
    assert not session.live
    (dock,) = viewer.window.dock_widgets.values()
    app.commands.execute_command(f"{PLUGIN}.segment")  # the menu's own way
    assert len(viewer.window.dock_widgets) == 1
    assert not dock.isVisible()
    titles = {command.title for _, command in app.commands}
    assert "Suggest where to label next (MDM Studio)" in titles


# ------------------------------------------------------------------------------------------------------------- writers


def labels(data, **options):
    from napari.layers import Labels

    return Labels(data, **options).as_layer_data_tuple()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a"])
def test_masks_hold_the_class_values(tmp_path, name):
    from napari.utils.colormaps import DirectLabelColormap

    from napari_mdm_studio._writers import write_mask

    mask = np.zeros((700, 40), np.int32)
    mask[600:, 5:9] = 2
    colormap = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 2: "#102030"})
    data, attributes, _ = labels(mask, scale=(0.5, 0.5), units=("micrometer",) * 2, colormap=colormap)
    (path,) = write_mask(str(tmp_path / name), data, attributes)
    with open_image(path, values=True) as file:
        np.testing.assert_array_equal(file.plane().read(slice(None), slice(None))[0], mask)
        assert file.dtype == np.uint8
        assert file.pixel_size == pytest.approx((0.5, 0.5), rel=1e-3) or path.endswith(".png")
    if path.endswith(".png"):
        assert PILImage.open(path).getpalette()[6:9] == [16, 32, 48]


def test_stacks_and_what_does_not_fit(tmp_path):
    from napari_mdm_studio._writers import write_mask, write_masks

    stack = np.zeros((3, 40, 50), np.uint16)
    stack[1, 5:9] = 300
    data, attributes, kind = labels(stack, name="s")
    (path,) = write_mask(str(tmp_path / "s.tif"), data, attributes)
    with open_image(path, values=True) as file:
        np.testing.assert_array_equal(file.plane(1).read(slice(None), slice(None))[0], stack[1])
    with pytest.raises(UsageError, match="PNG"):
        write_mask(str(tmp_path / "s.png"), data, attributes)
    with pytest.raises(OutputError, match="0 to 65535"):
        write_mask(str(tmp_path / "n.png"), *labels(np.full((4, 5), -1), name="n")[:2])
    flat = labels(np.ones((4, 5), np.uint8), name="a/b")
    written = write_masks(str(tmp_path / "masks"), [(data, attributes, kind), flat])
    assert [each.removeprefix(str(tmp_path)) for each in written] == ["/masks/s.tif", "/masks/a_b.png"]


@pytest.mark.gui
def test_napari_saves_through_the_writers(viewer, tmp_path):
    viewer.add_labels(np.ones((40, 50), np.uint8), name="one")
    viewer.add_labels(np.ones((40, 50), np.uint8), name="two")
    assert viewer.layers.save(str(tmp_path / "m.png"), plugin=PLUGIN, selected=False)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["one.png", "two.png"]
