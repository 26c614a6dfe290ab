"""A project of many images and the session on it: what is learnt, kept, found again and ranked; no Qt."""

import json
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import zarr
from PIL import Image

from mdm_studio.errors import ClassifierError, InputError, ProjectError, UsageError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.services import clerk
from mdm_studio.services.classifier import load_classifier
from mdm_studio.services.image_list import select
from mdm_studio.services.session import LiveSettings, Session, View
from mdm_studio.services.workspace import Workspace
from mdm_studio.testing import blobs

H, W = 70, 90
COUNT = 5
OPEN = """
import sys, time
from mdm_studio.services.project import Project
project = Project.open(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""


class User:
    """Has a workspace open, paints in it, and waits."""

    def __init__(self, folder, backbone, cache):
        settings = LiveSettings(backbone=str(backbone), filters=True, smooth=0)
        self.session = Session(cache, settings=settings, keep=folder)
        self.said, self.ranked = [], []
        self.session.failed.connect(self.said.append)
        self.session.noticed.connect(self.said.append)
        try:
            self.workspace = Workspace(folder, self.session)
        except BaseException:
            self.session.close()
            raise
        self.workspace.ranked.connect(lambda *counts: self.ranked.append(counts))
        self.workspace.open()

    @property
    def ids(self):
        return [entry.id for entry in self.workspace.entries]

    def show(self, number):
        image = self.workspace.load(self.ids[number])
        self.session.view_moved({(image.id, ()): View(slice(0, H), slice(0, W))})
        self.session.picture(image.id, "prediction")
        return image

    def paint(self, number, row=37):
        image = self.show(number)
        image.labels[row : row + 3] = blobs(H, W, seed=number)[1][row : row + 3]
        self.session.labels_changed(image.id, (), slice(row, row + 3), slice(0, W))
        return image

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.session.status, self.said, self.ranked)
            time.sleep(0.01)

    def wait(self):
        self.until(lambda: self.session.up_to_date == "exact")

    def labelled(self):
        return [entry.painted for entry in self.workspace.entries]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "data" / "images"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        Image.fromarray(blobs(H, W, seed=number)[0]).save(folder / f"field {number}.png")
    return folder


@pytest.fixture
def begin(tmp_path, images, tiny_backbone, monkeypatch):
    """Open the project in a folder, which is made of the images if it is not there; closed at the end."""
    from mdm_studio.services import live_work

    monkeypatch.setattr(clerk.Clerk.__init__, "__defaults__", (0.1,))
    monkeypatch.setattr(live_work, "MEMBERS", 2)  # as many as there are sources: quicker to train
    monkeypatch.setattr(live_work, "HIDDEN", (16, 8))
    made = []

    def open_project(folder=tmp_path / "data" / "project", paths=None):
        if not folder.exists():
            Workspace.create(folder, sorted(images.iterdir()) if paths is None else paths)
        made.append(User(folder, tiny_backbone, FeatureCache(tmp_path / "cache")))
        return made[-1]

    yield open_project
    for user in made:
        assert user.workspace.close(timeout=20)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("mdm-studio", "autosave"))]


def test_several_images_make_one_classifier_that_is_saved_by_itself(begin):
    user = begin()
    assert user.labelled() == [0] * COUNT
    with pytest.raises(ClassifierError, match="no classifier"):
        user.workspace.classifier_path()
    user.session.add_class("ground")
    user.paint(0)
    user.wait()
    user.workspace.release(user.ids[0])
    user.paint(1)
    user.wait()
    assert user.labelled() == [3 * W, 3 * W, 0, 0, 0]
    assert {tile.plane.image for tile in user.session.bench.head.facts.tiles} == set(user.ids[:2])
    path = user.workspace.folder / "classifier.mdm"
    user.until(path.exists)
    user.until(lambda: load_classifier(path).info.training["images"] == 2)
    assert [each.name for each in load_classifier(path).info.classes] == ["ground", "class 2"]
    assert user.workspace.classifier_path() == path
    user.workspace.release(user.ids[2])  # was never shown
    user.show(3)
    user.workspace.release(user.ids[3])
    user.until(lambda: set(user.session.images) == set(user.ids[:2]))
    assert user.said == []


def test_a_reopened_project_learns_from_images_that_are_not_shown(begin):
    first = begin()
    for number in (0, 1):
        image = first.paint(number)
        first.wait()
    labels = image.labels.copy()
    first.session.rename_class(2, "disc")
    first.workspace.set_reviewed(first.ids[3], True)
    first.workspace.close()
    second = begin()
    assert [each.name for each in second.session.classes] == ["class 1", "disc"]
    assert second.labelled() == [3 * W, 3 * W, 0, 0, 0]
    assert [entry.reviewed for entry in second.workspace.entries] == [False, False, False, True, False]
    # nothing is in view: the features of the strokes are computed all the same
    second.until(lambda: second.session.bench and second.session.bench.head and second.session.bench.head.facts.converged)
    second.until(lambda: {tile.plane.image for tile in second.session.bench.head.facts.tiles} == set(second.ids[:2]))
    second.show(2)
    second.wait()
    assert (second.session.picture(second.ids[2], "prediction")[0] == blobs(H, W, seed=2)[1]).mean() > 0.9
    generation = second.session.strokes.generation
    again = second.show(1)
    np.testing.assert_array_equal(again.labels, labels)
    assert again.labels is second.session.images[again.id].labels
    assert second.session.strokes.generation == generation  # nothing is learnt anew only because it is shown
    assert second.said == []


def test_erased_strokes_make_an_image_unlabelled_again(begin):
    user = begin()
    told = []
    user.workspace.entries_changed.connect(lambda: told.append(user.labelled()))
    image = user.paint(0)
    user.until(lambda: told and told[-1][0] == 3 * W)
    image.labels[:] = 0
    user.session.labels_changed(image.id, (), slice(0, H), slice(0, W))
    user.until(lambda: told[-1][0] == 0)
    user.workspace.release(image.id)
    user.until(lambda: image.id not in user.session.images)
    user.workspace.close()
    assert begin().labelled() == [0] * COUNT


def test_ranking_looks_at_every_image_and_is_begun_anew_for_another_classifier(begin):
    user = begin()
    with pytest.raises(ClassifierError, match="paint two classes"):
        user.workspace.rank()
    assert user.workspace.suggest() == user.ids[0]
    user.paint(0)
    user.until(lambda: user.session.bench and user.session.bench.head)  # a preview is enough to ask
    (user.workspace.folder.parent / "images" / "field 4.png").write_bytes(b"broken")
    user.workspace.rank()
    user.until(lambda: user.ranked and user.ranked[-1] == (COUNT, COUNT))
    entries = user.workspace.entries
    assert [entry.uncertainty is None for entry in entries] == [False] * 4 + [True]
    assert "field 4.png" in entries[4].problem
    assert all(abs(sum(entry.shares.values()) - 1) < 1e-6 and entry.shares.keys() == {1, 2} for entry in entries[:4])
    unlabelled = entries[1:4]
    assert user.workspace.suggest() == max(unlabelled, key=lambda entry: entry.uncertainty).id
    assert {entry.id for entry in select(entries, state="predicted")} == set(user.ids[:4])
    user.ranked.clear()
    user.workspace.rank()
    user.until(lambda: user.ranked)
    assert user.ranked[0] == (4, COUNT)  # but for the broken one, nothing is predicted again by the same classifier
    user.until(lambda: "ranking" not in user.session._jobs)
    user.ranked.clear()
    user.paint(1)
    user.until(lambda: user.ranked and user.ranked[0] == (0, COUNT))  # by itself: there is twice as much to learn from
    user.workspace.stop_ranking()
    user.until(lambda: "ranking" not in user.session._jobs)
    user.workspace.close()
    again = begin()
    assert [entry.uncertainty is None for entry in again.workspace.entries] == [False] * 4 + [True]


def test_what_was_ranked_is_opened_and_exported_without_computing_it_again(begin, monkeypatch):
    from mdm_studio.engine.features import PlaneFeatures
    from mdm_studio.services.batch import PredictOptions, predict_files

    user = begin()
    user.paint(0)
    user.wait()
    user.workspace.rank()
    user.until(lambda: user.ranked and user.ranked[-1] == (COUNT, COUNT))
    computed = []
    extract = PlaneFeatures._extract_tile
    monkeypatch.setattr(PlaneFeatures, "_extract_tile", lambda self, *a: computed.append(a) or extract(self, *a))
    user.show(2)
    user.wait()
    classifier = load_classifier(user.workspace.classifier_path())
    options = PredictOptions(user.workspace.folder.parent / "masks")
    list(predict_files(classifier, [user.workspace.entries[3].path], options, FeatureCache(user.session.bench.cache.root)))
    assert computed == []


def test_project_and_images_may_move_together_or_apart(begin, tmp_path, images):
    first = begin()
    first.paint(1)
    first.until(lambda: first.session.painted)
    first.workspace.close()
    moved = tmp_path / "elsewhere" / "data"
    shutil.move(tmp_path / "data", moved)
    together = begin(moved / "project")
    assert together.workspace.missing() == ()
    together.until(lambda: together.session.painted)
    together.workspace.close()
    shutil.move(moved / "project", tmp_path / "project")
    apart = begin(tmp_path / "project")
    assert apart.workspace.missing() == ()
    apart.until(lambda: apart.session.painted)
    apart.workspace.close()
    shutil.move(moved / "images", tmp_path / "pictures")
    (tmp_path / "pictures" / "field 2.png").unlink()
    lost = begin(tmp_path / "project")
    missing = lost.workspace.missing()
    assert len(missing) == COUNT
    assert "where it is now" in missing[0].problem
    with pytest.raises(InputError, match="field 1"):
        lost.workspace.load(lost.ids[1])
    assert lost.workspace.relocate(missing[0].path.parent, tmp_path) == 0
    assert lost.workspace.relocate(missing[0].path.parent, tmp_path / "pictures") == COUNT - 1
    lost.until(lambda: lost.session.painted)
    assert [entry.path.name for entry in lost.workspace.missing()] == ["field 2.png"]
    lost.workspace.close()
    assert len(begin(tmp_path / "project").workspace.missing()) == 1


def test_who_moved_a_folder_of_folders_is_asked_once(begin, tmp_path, images):
    shutil.copytree(images, images.parent / "more")
    paths = sorted((tmp_path / "data").glob("*/*.png"))
    user = begin(tmp_path / "project", paths)
    assert len(set(user.ids)) == 2 * COUNT  # files of the same name
    shutil.move(tmp_path / "data", tmp_path / "moved" / "data")
    user.workspace.missing()
    assert user.workspace.relocate(tmp_path / "data" / "more", tmp_path / "moved" / "data" / "more") == 2 * COUNT


def test_images_are_added_and_removed_and_their_strokes_come_back(begin, images):
    user = begin()
    image = user.paint(0)
    user.until(lambda: user.session.painted)
    user.workspace.remove_images([image.id])
    user.until(lambda: len(user.workspace.entries) == COUNT - 1 and not user.session.images)
    path = images / "field 0.png"
    assert user.workspace.add_images([path, user.workspace.entries[0].path]) == (image.id,)
    user.until(lambda: user.labelled()[-1] == 3 * W)
    with pytest.raises(InputError, match="no image"):
        user.workspace.load("nothing")


def test_a_project_that_is_saved_elsewhere_goes_on_there(begin, tmp_path):
    user = begin()
    user.paint(0)
    user.until(lambda: user.session.painted)
    user.session.save_project_as(tmp_path / "copy")
    user.until(lambda: user.workspace.folder == tmp_path / "copy")
    user.workspace.set_reviewed(user.ids[1], True)
    user.workspace.close()
    stored = json.loads((tmp_path / "copy" / "project.json").read_text())["images"][user.ids[1]]
    assert (stored["path"], stored["reviewed"]) == ("../data/images/field 1.png", True)
    assert begin(tmp_path / "copy").labelled()[0] == 3 * W


def test_a_lost_project_file_costs_no_strokes(begin, tmp_path, images):
    first = begin()
    first.paint(2)
    first.until(lambda: first.session.painted)
    first.workspace.close()
    folder = first.workspace.folder
    (folder / "project.json").unlink()
    Workspace.create(folder, sorted(images.iterdir()))
    second = begin(folder)
    second.until(lambda: second.labelled() == [0, 0, 3 * W, 0, 0])


def test_an_image_that_was_replaced_by_one_of_another_size_is_told(begin, images):
    first = begin()
    first.paint(0)
    first.until(lambda: first.session.painted)
    first.workspace.close()
    Image.fromarray(blobs(H + 1, W)[0]).save(images / "field 0.png")
    second = begin()
    with pytest.raises(ProjectError, match="if the image was replaced"):
        second.workspace.load(second.ids[0])
    assert "replaced" in second.workspace.entry(second.ids[0]).problem
    second.until(lambda: second.session.bench)
    assert second.session.images == {}


def test_stacks_pyramids_and_images_larger_than_memory_should_hold(begin, tmp_path, monkeypatch):
    import tifffile

    from mdm_studio.io import image_levels
    from mdm_studio.io.masks import open_mask

    monkeypatch.setattr(image_levels, "WHOLE", 10_000)
    folder = tmp_path / "large"
    folder.mkdir()
    grey = blobs(H, W, rgb=False)[0]
    tifffile.imwrite(folder / "stack.ome.tif", np.stack([grey, grey, grey]), metadata={"axes": "ZYX"}, tile=(16, 16))
    tifffile.imwrite(folder / "colour.tif", blobs(H, W)[0], photometric="rgb", tile=(16, 16))
    size = {"pixel_size": (0.5, 0.5), "unit": "micrometer"}
    with open_mask(folder / "pyramid", (600, 700), np.uint8, format="ome-zarr", axes="YX", **size) as writer:
        writer.write(0, 0, blobs(600, 700, rgb=False)[0])
    user = begin(tmp_path / "project", [folder / name for name in ("stack.ome.tif", "colour.tif", "pyramid.ome.zarr")])
    stack, colour, pyramid = (user.workspace.load(image_id) for image_id in user.ids)
    assert (stack.labels.shape, stack.levels[0].shape, stack.scale) == ((3, H, W), (3, H, W), (1, 1, 1))
    np.testing.assert_array_equal(np.asarray(stack.levels[0][1]), grey)
    assert (colour.rgb, colour.labels.shape) == (True, (H, W))
    np.testing.assert_array_equal(np.asarray(colour.levels[0]), blobs(H, W)[0])
    assert [level.shape for level in pyramid.levels] == [(600, 700), (300, 350)]
    assert isinstance(pyramid.levels[0], zarr.Array)
    assert (pyramid.scale, pyramid.units) == ((0.5, 0.5), "micrometer")
    stack.labels[1, 37:40] = blobs(H, W)[1][37:40]
    user.session.labels_changed(stack.id, (1,), slice(37, 40), slice(0, W))
    user.session.view_moved({(colour.id, ()): View(slice(0, H), slice(0, W))})
    user.wait()
    assert [user.workspace.thumbnail(image_id).shape for image_id in user.ids] == [(H, W, 3), (H, W, 3), (110, 128, 3)]
    user.workspace.rank()
    user.until(lambda: user.ranked and user.ranked[-1] == (3, 3))
    assert {entry.problem for entry in user.workspace.entries} == {""}


def test_channels_that_were_chosen_are_read_again_and_of_other_images_too(begin, tmp_path):
    import tifffile

    folder = tmp_path / "channels"
    folder.mkdir()
    grey = blobs(H, W, rgb=False)[0]
    for number in range(3):
        tifffile.imwrite(folder / f"{number}.ome.tif", np.stack([grey + c for c in range(5)]), metadata={"axes": "CYX"})
    first = begin(tmp_path / "project", sorted(folder.iterdir()))
    image = first.workspace.load(first.ids[0])
    assert (image.channel_axis, image.channels, first.session.images[image.id].source.chosen) == (0, None, (0, 1, 2))
    first.session.open_image(image.id, first.session.images[image.id].source.reading((4, 2, 0)), image.labels)
    image.labels[0:9, 0:9] = 1
    first.session.labels_changed(image.id, (), slice(0, 9), slice(0, 9))
    first.until(lambda: first.labelled()[0] == 81)
    first.workspace.load(first.ids[1])
    assert first.session.images[first.ids[1]].source.chosen == (4, 2, 0)
    first.workspace.close()
    second = begin(tmp_path / "project")
    assert second.workspace.load(second.ids[0]).channels == (4, 2, 0)
    second.workspace.load(second.ids[2])
    assert second.session.images[second.ids[2]].source.chosen == (4, 2, 0)


def test_an_image_that_is_open_as_a_layer_is_not_opened_twice(begin, images):
    from mdm_studio.io.array_planes import ArrayImage

    user = begin()
    pixels = np.asarray(Image.open(images / "field 0.png"))
    layer = ArrayImage(pixels, rgb=True, name="dropped", source=images / "field 0.png")
    user.session.open_image("dropped", layer, np.zeros((H, W), np.uint8))
    user.until(lambda: user.session.keeper.opened_as(user.ids[0]))
    with pytest.raises(InputError, match="'dropped'"):
        user.workspace.load(user.ids[0])
    user.workspace.load(user.ids[1])
    again = ArrayImage(pixels, rgb=True, name="again", source=images / "field 1.png")
    user.session.open_image("again", again, np.zeros((H, W), np.uint8))
    user.until(lambda: user.said)
    assert "not kept" in user.said[0]
    assert len(user.workspace.entries) == COUNT


def test_thumbnails_are_kept_until_the_image_changes(begin, images, monkeypatch):
    from mdm_studio.config import default_cache_dir
    from mdm_studio.io import thumbnails

    user = begin()
    first = user.workspace.thumbnail(user.ids[0], 32)
    assert (first.shape, first.dtype, first.min() < 50, first.max() > 200) == ((25, 32, 3), np.uint8, True, True)
    assert len(list((default_cache_dir() / "thumbnails").glob("*/*.png"))) == 1
    made = []
    make = thumbnails.make_thumbnail
    monkeypatch.setattr(thumbnails, "make_thumbnail", lambda *a: made.append(a) or make(*a))
    np.testing.assert_array_equal(user.workspace.thumbnail(user.ids[0], 32), first)
    assert made == []
    (kept,) = (default_cache_dir() / "thumbnails").glob("*/*.png")
    kept.write_bytes(b"broken")
    np.testing.assert_array_equal(user.workspace.thumbnail(user.ids[0], 32), first)
    Image.fromarray(blobs(H, W, seed=9)[0]).save(images / "field 0.png")
    assert not np.array_equal(user.workspace.thumbnail(user.ids[0], 32), first)
    assert len(made) == 2
    (images / "field 0.png").unlink()
    with pytest.raises(InputError, match="field 0"):
        user.workspace.thumbnail(user.ids[0], 32)
    assert user.workspace.entry(user.ids[0]).problem


def test_before_any_ranking_the_image_that_looks_least_like_the_labelled_ones_is_suggested(begin, images):
    Image.fromarray(255 - blobs(H, W, seed=3)[0] // 3).save(images / "field 3.png")
    user = begin()
    user.paint(0)
    user.until(lambda: user.session.painted)
    for image_id in user.ids:
        user.workspace.thumbnail(image_id)
    user.until(lambda: user.labelled()[0])
    pixels = user.workspace.suggest()
    assert pixels == user.ids[3]
    user.workspace.set_reviewed(user.ids[3], True)
    assert user.workspace.suggest() in (user.ids[1], user.ids[2], user.ids[4])


def test_a_project_that_is_open_in_another_window_is_told_and_left_alone(begin, tiny_backbone):
    folder = begin().workspace.folder
    with subprocess.Popen([sys.executable, "-c", OPEN, str(folder.parent / "b")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(ProjectError, match=f"process {process.pid}\\b"):
            User(folder.parent / "b", tiny_backbone, None)
        process.kill()
    with pytest.raises(ProjectError, match="already"):
        Workspace.create(folder, [])
    session = Session()
    with pytest.raises(UsageError, match="keep="):
        Workspace(folder, session)
    session.close()


def test_hundreds_of_images_open_at_once_and_none_is_read(begin, tmp_path, images, monkeypatch):
    many = [tmp_path / "many" / f"{number}.png" for number in range(400)]
    (tmp_path / "many").mkdir()
    for path in many:
        path.write_bytes(b"no image")
    Workspace.create(tmp_path / "project", [images / "field 0.png", *many])
    start = time.thread_time()  # of the thread that a window would wait for, whatever else the machine does
    user = begin(tmp_path / "project")
    assert len(user.workspace.entries) == 401
    user.show(0)
    assert time.thread_time() - start < 0.5
    user.until(lambda: user.session.images)
    assert {entry.problem for entry in user.workspace.entries} == {""}  # of files that were read there would be some
    user.workspace.close()
    stored = json.loads((tmp_path / "project" / "project.json").read_text())
    assert stored["images"][user.ids[1]]["path"] == "../many/0.png"


def test_no_torch_is_loaded():
    code = "import sys, mdm_studio.services.workspace; sys.exit('torch' in sys.modules or 'zarr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_strokes_whose_file_was_removed_are_told_and_the_count_is_kept(begin):
    first = begin()
    image = first.paint(0)
    first.until(lambda: first.labelled()[0] == 3 * W)
    first.workspace.close()
    (chunk,) = (first.workspace.folder / "labels").glob(f"*-{image.id}.ome.zarr/0/c/*/*")
    chunk.unlink()
    second = begin()
    assert len(second.said) == 1
    assert f"the strokes of field 0: {3 * W} pixels were painted and none are there" in second.said[0]
    second.show(0)
    second.until(lambda: second.session.strokes.knows(image.id))
    second.workspace.close()
    assert len(second.said) == 1
    third = begin()
    assert third.said == second.said
    assert third.labelled()[0] == 3 * W
    painted = third.show(0)
    painted.labels[37:38] = 1
    third.session.labels_changed(image.id, (), slice(37, 38), slice(0, W))
    third.until(lambda: third.labelled()[0] == W)  # painted anew
    third.workspace.close()
    assert begin().said == []


def test_strokes_that_were_found_damaged_when_their_image_was_opened_are_told(begin):
    first = begin()
    image = first.paint(0)
    first.until(lambda: first.labelled()[0] == 3 * W)
    first.workspace.close()
    (chunk,) = (first.workspace.folder / "labels").glob(f"*-{image.id}.ome.zarr/0/c/*/*")
    chunk.write_bytes(b"damaged")
    second = begin()
    second.until(lambda: second.said)
    assert str(chunk) in second.said[0]
