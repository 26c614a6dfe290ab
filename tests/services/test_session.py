"""A live session as a front end sees it, on images of discs and a tiny network; no Qt."""

import json
import shutil
import threading
import time
import zipfile

import numpy as np
import pytest
import zarr

from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.errors import ClassifierError, UsageError
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.io.classifier_file import LabelClass
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.services import live_core, live_work
from mdm_studio.services.classifier import load_classifier
from mdm_studio.services.live_plan import Extract
from mdm_studio.services.session import LiveSettings, Session, View
from mdm_studio.testing import blobs

H, W = 150, 190
WHOLE = View(slice(0, H), slice(0, W))


class User:
    """Paints in an array as a viewer would, and waits as a user would."""

    def __init__(self, session):
        self.session = session
        self.said = []
        session.failed.connect(self.said.append)
        session.noticed.connect(self.said.append)
        self.arrays, self.truth = {}, {}

    def open(self, key="a", seed=0, labels=None, stack=()):
        image, mask = blobs(H, W, seed=seed)
        pixels = np.broadcast_to(image, (*stack, *image.shape))
        self.arrays[key] = np.zeros((*stack, H, W), np.uint8) if labels is None else labels
        self.truth[key] = mask
        self.session.open_image(key, ArrayImage(pixels, rgb=True, name=key), self.arrays[key])
        self.session.picture(key, "prediction")
        self.session.view_moved({(k, (0,) * len(stack)): WHOLE for k in self.arrays})
        return self.arrays[key]

    def paint(self, row=40, key="a", plane=(), height=3):
        """A broad stroke along a row, each pixel with its true class."""
        rows = slice(row, row + height)
        self.arrays[key][(*plane, rows)] = self.truth[key][rows]
        self.session.labels_changed(key, plane, rows, slice(0, W))

    def wait(self, kind="exact", seconds=60):
        """Wait until everything in view shows the newest strokes."""
        return self.until(lambda: self.session.up_to_date == kind, seconds)

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.session.status, self.said)
            time.sleep(0.01)


@pytest.fixture
def make(tiny_backbone):
    """Make sessions that are closed at the end."""
    made = []

    def build(cache=None, **options):
        settings = options.pop("settings", LiveSettings(backbone=str(tiny_backbone), filters=True, smooth=4))
        session = Session(cache, settings=settings, **options)
        made.append(session)
        return User(session)

    yield build
    for session in made:
        assert session.close(timeout=20)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("mdm-studio", "autosave"))]


def accuracy(user, key="a", plane=()):
    return float((user.session.picture(key, "prediction")[0][plane] == user.truth[key]).mean())


def test_the_mask_follows_the_strokes(make):
    user = make()
    user.open()
    user.paint(40)
    user.wait()
    first = accuracy(user)
    assert first > 0.9
    assert [each.name for each in user.session.classes] == ["class 1", "class 2"]
    status = user.session.status
    user.until(lambda: user.session.status.text.startswith("up to date"))
    assert status.painted == 3 * W
    user.arrays["a"][:] = 0
    user.session.labels_changed("a", (), slice(0, H), slice(0, W))
    user.until(lambda: user.session.painted == {})
    user.paint(100)
    user.wait()
    assert accuracy(user) > 0.9
    assert user.said == []


def test_the_noise_that_a_denoiser_sees_is_chosen_and_saved(make, tiny_backbone, tmp_path):
    folder = tmp_path / "denoiser"
    shutil.copytree(tiny_backbone, folder)
    card = json.loads((folder / "backbone.json").read_text())
    (folder / "backbone.json").write_text(json.dumps(card | {"recipe": {"name": "ddpm", "noise": "fixed"}}))
    user = make(settings=LiveSettings(backbone=str(folder), blocks=(3,), filters=False, smooth=0))
    user.open()
    user.until(lambda: user.session.bench)
    user.session.choose(noise="fresh")
    user.until(lambda: user.session.bench.backbone.recipe.noise == "fresh")
    user.paint(40)
    user.wait()
    user.session.save_classifier(tmp_path / "x.mdm")
    assert load_classifier(tmp_path / "x.mdm").info.noise == "fresh"
    user.session.choose(backbone=str(tiny_backbone))
    assert user.session.settings.noise == ""
    user.session.load_classifier(tmp_path / "x.mdm")
    user.until(lambda: getattr(user.session.bench.backbone.recipe, "noise", "") == "fresh")
    assert not user.said


def test_the_exact_picture_is_what_the_saved_classifier_predicts(make, tmp_path):
    """Progressive pictures are for the eye; what they end in is what is exported, tile borders and smoothing included."""
    user = make()
    user.open()
    user.paint(40)
    user.wait()
    path = tmp_path / "live.mdm"
    user.session.save_classifier(path)
    classifier = load_classifier(path)
    plane = user.session.images["a"].source.plane(())
    source = PlaneFeatures(classifier.backbone, plane, classifier.settings, None)
    assert len(source.grid) > 4
    values = np.array([each.value for each in classifier.info.classes])
    exported = np.zeros((H, W), np.uint8)
    for rows, cols, found in predict_plane(classifier.ensemble, source, smooth=classifier.info.smooth):
        exported[rows, cols] = values[found.labels]
    np.testing.assert_array_equal(user.session.picture("a", "prediction")[0], exported)


def test_probabilities_of_many_classes_are_kept_within_bounds(make, monkeypatch):
    """What is not kept is smoothed tile by tile: nobody waits for its neighbours."""
    monkeypatch.setattr(live_work, "_EXACT_BYTES", 3 * 2 * 64 * 64 * 4)
    user = make()
    user.open()
    user.paint(40)
    user.wait()
    kept = user.session.bench._exact.values()
    assert 0 < len(kept) < len(user.session.bench._made)
    assert sum(each.found.probabilities.nbytes for each in kept) <= live_work._EXACT_BYTES
    assert accuracy(user) > 0.9
    assert not user.said


def test_a_preview_comes_before_the_exact_picture(make):
    user = make()
    kinds = []
    user.session.updated.connect(lambda kind, _: kinds.append(kind))
    user.open()
    user.paint(40)
    user.wait()
    user.paint(100)
    user.wait()
    assert kinds[-2:] == ["preview", "exact"]


def test_not_live_waits_to_be_asked(make):
    user = make(live=False)
    user.open()
    user.paint()
    user.until(lambda: "press Update once" in user.session.status.text)
    assert not user.session.picture("a", "prediction")[0].any()
    user.session.update_once()
    user.wait()
    shown = user.session.picture("a", "prediction")[0].copy()
    user.paint(100)
    user.until(lambda: "press Update once" in user.session.status.text)
    np.testing.assert_array_equal(user.session.picture("a", "prediction")[0], shown)
    user.session.set_live(True)
    user.wait()


def test_uncertainty_and_probabilities_are_drawn_when_asked_for(make):
    user = make()
    user.open()
    user.paint()
    user.wait()
    uncertainty = user.session.picture("a", "uncertainty")[0]
    probability = user.session.picture("a", "probability:2")[0]
    user.until(lambda: probability.max() > 0.5 and uncertainty.max() > 0)
    user.wait()
    assert ((probability > 0.5) == (user.session.picture("a", "prediction")[0] == 2)).mean() > 0.99


def test_a_stack_is_labelled_slice_by_slice(make):
    user = make()
    user.open(stack=(2,))
    user.paint(plane=(0,))
    user.wait()
    picture = user.session.picture("a", "prediction")[0]
    assert (picture[0] == user.truth["a"]).mean() > 0.9
    assert not picture[1].any()
    user.session.view_moved({("a", (1,)): WHOLE})
    user.until(lambda: picture[1].all())
    assert (picture[1] == user.truth["a"]).mean() > 0.9


def test_strokes_of_several_images_make_one_classifier_and_a_closed_image_leaves_it(make):
    user = make()
    user.open("a", 0)
    user.open("b", 1)
    user.paint(40, "a")
    user.paint(90, "b")
    user.wait()
    assert accuracy(user, "a") > 0.9
    assert accuracy(user, "b") > 0.9
    assert user.session.painted[1] + user.session.painted[2] == 6 * W
    user.session.close_image("b")
    user.until(lambda: sum(user.session.painted.values()) == 3 * W)
    with pytest.raises(KeyError):
        user.session.picture("b", "prediction")


def test_labels_in_a_zarr_array(make):
    user = make()
    user.open(labels=zarr.create_array({}, shape=(H, W), chunks=(64, 64), dtype="uint8"))
    user.paint()
    user.wait()
    assert accuracy(user) > 0.9


def test_merge_remove_and_undo_rewrite_the_strokes(make):
    user = make()
    labels = user.open()
    rewritten = []
    user.session.labels_rewritten.connect(rewritten.append)
    user.paint()
    user.wait()
    painted = labels.copy()
    third = user.session.add_class("edge", "#123456")
    assert third == LabelClass(3, "edge", "#123456")
    user.session.merge_classes(2, 3)
    user.wait_for_labels = user.until(lambda: user.session.painted.get(3) == (painted == 2).sum())
    assert not (labels == 2).any()
    assert [each.value for each in user.session.classes] == [1, 3]
    assert user.session.undo_class_change() == "merge of 'class 2' into 'edge'"
    user.until(lambda: np.array_equal(labels, painted))
    user.session.remove_class(1)
    user.until(lambda: 1 not in user.session.painted)
    assert not (labels == 1).any()
    assert [each.value for each in user.session.classes] == [2, 3]
    assert user.session.undo_class_change() == "removal of 'class 1'"
    user.until(lambda: np.array_equal(labels, painted))
    assert user.session.undo_class_change() is None
    assert set(rewritten) == {"a"}


def test_a_class_removed_while_an_undo_is_under_way_stays_away(make):
    user = make()
    labels = user.open()
    user.paint()
    user.wait()
    user.session.add_class("edge")
    user.session.merge_classes(2, 3)
    user.until(lambda: 3 in user.session.painted)
    assert user.session.undo_class_change() is not None
    user.session.remove_class(1)  # its strokes are still there when those of the merge come back
    user.until(lambda: 2 in user.session.painted and 1 not in user.session.painted)
    assert [each.value for each in user.session.classes] == [2, 3]
    assert set(np.unique(labels)) == {0, 2}


def test_class_names_are_unique_and_told_from_numbers(make):
    user = make()
    session = user.session
    session.add_class("ground")
    with pytest.raises(UsageError, match="already"):
        session.add_class(" Ground ")
    with pytest.raises(UsageError, match="needs a name"):
        session.add_class(" ")
    with pytest.raises(UsageError, match="no class with the value 9"):
        session.rename_class(9, "x")
    with pytest.raises(UsageError, match="with itself"):
        session.merge_classes(1, 1)
    session.rename_class(1, "soil")
    session.recolor_class(1, "#00ff00")
    assert session.classes == (LabelClass(1, "soil", "#00ff00"),)


def test_a_value_painted_without_a_class_gets_one(make):
    user = make()
    labels = user.open()
    labels[5, 5] = 7
    user.session.labels_changed("a", (), slice(5, 6), slice(5, 6))
    user.until(lambda: [each.value for each in user.session.classes] == [7])
    assert user.session.classes[0].name == "class 7"


def test_strokes_that_are_there_when_an_image_is_opened_are_learnt(make):
    user = make()
    labels = np.zeros((H, W), np.uint8)
    _, mask = blobs(H, W)
    labels[40:43] = mask[40:43]
    user.open(labels=labels)
    user.wait()
    assert accuracy(user) > 0.9


def test_other_features_replace_the_picture(make):
    user = make()
    user.open()
    user.paint()
    user.wait()
    before = user.session.bench
    user.session.choose(blocks=(), filters=True, smooth=0)
    user.until(lambda: user.session.bench is not before)
    user.wait()
    assert user.session.settings.blocks == ()
    assert accuracy(user) > 0.9
    with pytest.raises(UsageError, match="nothing called"):
        user.session.choose(colour="red")
    user.session.choose(blocks=(99,))
    user.until(lambda: "99" in (user.session.status.error or ""))
    assert user.said
    assert accuracy(user) > 0.9  # what was there is still shown


def test_a_backbone_that_is_missing_is_told_and_another_one_puts_it_right(make, tiny_backbone):
    user = make(settings=LiveSettings(backbone="nowhere"))
    user.open()
    user.until(lambda: "nowhere" in (user.session.status.error or ""))
    user.session.choose(backbone=str(tiny_backbone))
    user.paint()
    user.wait()
    assert user.session.status.error is None


def test_what_fails_is_told_left_alone_and_tried_again_when_asked(make, monkeypatch):
    user = make()
    user.open()
    user.paint(40)
    user.wait()
    good = user.session.picture("a", "prediction")[0].copy()
    broken = threading.Event()
    broken.set()
    learn = type(user.session.bench)._learn

    def failing(self, *args):
        if broken.is_set():
            raise MemoryError("no memory for this")
        learn(self, *args)

    monkeypatch.setattr(type(user.session.bench), "_learn", failing)
    user.paint(100)
    user.until(lambda: "no memory" in (user.session.status.error or ""))
    np.testing.assert_array_equal(user.session.picture("a", "prediction")[0], good)
    said = len(user.said)
    time.sleep(0.3)
    assert len(user.said) == said  # not again and again
    broken.clear()
    user.session.retry()
    user.wait()
    user.until(lambda: user.session.status.error is None)


def test_cancel_stops_and_the_next_stroke_goes_on(make):
    user = make()
    user.open()
    user.paint(40)
    user.session.cancel()
    user.until(lambda: not user.session.status.busy)
    user.paint(100)
    user.wait()


def test_features_are_found_again_by_the_next_session(make, tmp_path, monkeypatch):
    first = make(FeatureCache(tmp_path / "cache"))
    first.open()
    first.paint()
    first.wait()
    first.until(lambda: not first.session.status.busy)
    first.session.close()
    computed = []
    extract = PlaneFeatures._extract_tile
    monkeypatch.setattr(PlaneFeatures, "_extract_tile", lambda self, *a: computed.append(a) or extract(self, *a))
    second = make(FeatureCache(tmp_path / "cache"))
    second.open()
    second.paint()
    second.wait()
    assert computed == []


def test_a_small_memory_only_costs_time(make, tmp_path):
    user = make(FeatureCache(tmp_path / "cache"), memory=4 << 20)
    user.open()
    user.paint(40)
    user.wait()
    user.paint(100)
    user.wait()
    assert accuracy(user) > 0.9


def test_a_stroke_far_from_the_view_pulls_its_tile_to_the_front(make, monkeypatch):
    order = []
    do = live_core.LiveCore._do

    def noted(self, role, bench, task):
        order.append(task)
        do(self, role, bench, task)

    monkeypatch.setattr(live_core.LiveCore, "_do", noted)
    user = make(live=False)
    user.open()
    user.session.view_moved({("a", ()): View(slice(0, 60), slice(0, 60))})
    user.paint(140)
    user.until(lambda: len([t for t in order if isinstance(t, Extract)]) > 12)
    network = [task.tile.row for task in order if isinstance(task, Extract) and task.stage == 2]
    assert 2 in network[:2]


def test_a_classifier_from_a_file_predicts_until_the_next_stroke(make, tmp_path):
    user = make()
    user.session.failed.connect(user.said.append)
    with pytest.raises(ClassifierError, match="no classifier to save yet"):
        user.session.save_classifier(tmp_path / "x.mdm")
    user.open()
    user.paint()
    user.wait()
    user.session.rename_class(2, "disc")
    user.session.save_classifier(tmp_path / "x.mdm")
    other = make(settings=LiveSettings(backbone=user.session.settings.backbone, blocks=(1,), filters=False))
    other.open("a", seed=3)
    other.session.load_classifier(tmp_path / "x.mdm")
    other.until(lambda: accuracy(other) > 0.9)
    assert [each.name for each in other.session.classes] == ["class 1", "disc"]
    other.until(lambda: "loaded" in other.session.status.text)
    other.session.load_classifier(tmp_path / "nothing.mdm")
    other.until(lambda: "nothing.mdm" in (other.session.status.error or ""))


def test_suggestions(make):
    user = make()
    found = []
    user.session.suggested.connect(found.append)
    user.open()
    user.session.suggest_next()
    user.until(lambda: any("nothing to suggest yet" in each for each in user.said))
    user.paint()
    user.wait()
    user.session.suggest_next()
    user.session.suggest_next()
    user.until(lambda: len(found) == 2)
    assert found[0].window != found[1].window
    assert found[0].why


def test_labels_of_another_shape_are_refused(make):
    user = make()
    image, _ = blobs(H, W)
    with pytest.raises(UsageError, match=r"\(3, 3\)"):
        user.session.open_image("a", ArrayImage(image, rgb=True, name="a"), np.zeros((3, 3), np.uint8))


def test_strokes_classes_and_settings_come_back(make, tmp_path):
    first = make(keep="automatic")
    labels = first.open()
    first.session.add_class("ground")
    first.session.add_class("disc", "#abcdef")
    first.session.choose(smooth=2)
    first.paint()
    first.wait()
    assert first.session.unsaved() is None
    first.session.close()
    second = make(keep="automatic")
    again = second.open()
    second.wait()
    np.testing.assert_array_equal(again, labels)
    assert [(each.name, each.color) for each in second.session.classes][1] == ("disc", "#abcdef")
    second.until(lambda: second.session.settings.smooth == 2)
    assert any("restored" in each for each in second.said)
    assert accuracy(second) > 0.9
    other = tmp_path / "named"
    second.session.save_project_as(other)
    second.until(lambda: any("from now on" in each for each in second.said))
    second.paint(100)
    second.wait()
    assert second.session.unsaved() is None
    second.session.close()
    third = make(keep=other)
    np.testing.assert_array_equal(third.open() * 0, 0 * again)
    third.until(lambda: np.array_equal(third.arrays["a"], again))


def test_a_folder_that_cannot_be_written_is_told_and_nothing_else_stops(make, tmp_path):
    place = tmp_path / "file"
    place.write_text("not a folder")
    user = make(keep=place)
    user.open()
    user.paint()
    user.wait()
    assert user.said
    assert str(place) in user.said[0]


def test_importing_the_session_loads_no_torch():
    import subprocess
    import sys

    code = "import sys; import mdm_studio.services.session; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_verbs_return_at_once(make):
    user = make()
    user.open()
    slow = []
    for call in (
        lambda: user.paint(40),
        lambda: user.session.view_moved({("a", ()): WHOLE}),
        lambda: user.session.picture("a", "uncertainty"),
    ):
        for _ in range(20):
            begin = time.perf_counter()
            call()
            slow.append(time.perf_counter() - begin)
    assert np.median(slow) < 0.005
    user.wait()


def test_the_session_frees_what_it_held(make, tiny_backbone):
    import gc
    import weakref

    user = make()
    user.open()
    user.paint()
    user.wait()
    kept = weakref.ref(user.session.bench)
    user.session.choose(smooth=1)
    user.until(lambda: user.session.bench is not kept())
    user.wait()
    user.until(lambda: gc.collect() >= 0 and kept() is None)


PAINTER = """
import sys, time
import numpy as np
from mdm_studio.io.array_planes import ArrayImage
from mdm_studio.services.session import LiveSettings, Session
from mdm_studio.testing import blobs

image, mask = blobs(150, 190)
labels = np.zeros((150, 190), np.uint8)
session = Session(keep="automatic", settings=LiveSettings(backbone=sys.argv[1]))
session.open_image("a", ArrayImage(image, rgb=True, name="a"), labels)
session.add_class("ground")
for row in range(0, 150, 2):
    labels[row] = mask[row]
    session.labels_changed("a", (), slice(row, row + 1), slice(0, 190))
    print(row, time.time(), flush=True)
    time.sleep(0.05)
time.sleep(60)
"""


def test_after_kill_9_what_was_painted_two_seconds_before_is_there(make, tiny_backbone):
    import subprocess
    import sys

    painter = subprocess.Popen([sys.executable, "-c", PAINTER, str(tiny_backbone)], stdout=subprocess.PIPE, text=True)
    rows = []
    while not rows or (rows[-1][1] - rows[0][1] < 3):
        row, moment = painter.stdout.readline().split()
        rows.append((int(row), float(moment)))
    painter.kill()
    killed = time.time()
    painter.wait()
    painter.stdout.close()
    user = make(keep="automatic")
    labels = user.open()
    user.until(lambda: any("restored" in each for each in user.said))
    saved = [row for row, moment in rows if moment < killed - 2]
    assert saved
    for row in saved:
        np.testing.assert_array_equal(labels[row], user.truth["a"][row])
    assert user.session.classes[0].name == "ground"


def test_update_once_with_nothing_to_learn_is_not_a_promise(make):
    user = make(live=False)
    user.open()
    user.session.update_once()
    user.until(lambda: user.session.status.text.startswith("ready"))
    user.until(lambda: not user.session._once)
    user.paint()
    user.until(lambda: "press Update once" in user.session.status.text)
    assert not user.session.picture("a", "prediction")[0].any()


def test_closing_images_in_the_middle_of_the_work_is_no_failure(make):
    user = make()
    for number in range(6):
        user.open("a", number)
        user.paint(40)
        time.sleep(0.15 * number)
        user.session.close_image("a")
    user.until(lambda: not user.session.status.busy)
    assert user.said == []
    assert user.session.status.error is None


def test_other_channels_of_an_image_keep_its_strokes(make):
    user = make(keep="automatic")
    labels = user.open()
    user.paint()
    image, _ = blobs(H, W)
    user.session.open_image("a", ArrayImage(image, channel_axis=2, channels=(1,), name="a"), labels)
    user.session.view_moved({("a", ()): WHOLE})
    user.wait()
    assert accuracy(user) > 0.9
    assert sum(user.session.painted.values()) == 3 * W
    assert user.said == []


def test_without_strokes_there_is_no_picture(make):
    user = make()
    labels = user.open()
    user.paint()
    user.wait()
    picture = user.session.picture("a", "prediction")[0]
    assert picture.all()
    labels[:] = 0
    user.session.labels_changed("a", (), slice(0, H), slice(0, W))
    user.until(lambda: not picture.any())
    user.until(lambda: user.session.status.text.startswith("ready"))


def test_channels_that_the_backbone_cannot_read_are_told_and_others_put_it_right(make):
    user = make(keep="automatic")
    labels = user.open()
    user.paint()
    user.wait()
    image, _ = blobs(H, W)
    five = ArrayImage(np.concatenate([image, image], axis=2), channel_axis=2, channels=(0, 1, 2, 3), name="a")
    user.session.open_image("a", five, labels)
    user.until(lambda: any("reads 3" in each for each in user.said))
    assert "list of images" in user.session.status.error
    user.session.open_image("a", five.reading((3, 4, 5)), labels)
    user.wait()
    assert user.session.status.error is None
    assert accuracy(user) > 0.9
    assert sum(user.session.painted.values()) == 3 * W


def test_an_image_is_known_again_whatever_channels_were_chosen(make):
    first = make(keep="automatic")
    image, _ = blobs(H, W)
    five = ArrayImage(np.concatenate([image, image], axis=2), channel_axis=2, name="a")
    labels = np.zeros((H, W), np.uint8)
    first.session.open_image("a", five.reading((4,)), labels)
    labels[5:8, 5:9] = 2
    first.session.labels_changed("a", (), slice(5, 8), slice(5, 9))
    first.until(lambda: first.session.painted)
    first.session.close()
    second = make(keep="automatic")
    again = np.zeros((H, W), np.uint8)
    second.session.open_image("a", five.reading((0, 1, 2)), again)
    second.until(lambda: again.any())
    np.testing.assert_array_equal(again, labels)


def test_the_same_strokes_give_the_same_classifier_in_whatever_order(make):
    weights = []
    for rows in ((40, 100), (100, 40)):
        user = make()
        user.open()
        for row in rows:
            user.paint(row)
            user.wait()
        head = user.session.bench.head
        weights.append({name: value.numpy() for name, value in head.ensemble.state_dict().items()})
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_the_head_computes_on_one_core_and_the_features_on_the_others(make, monkeypatch):
    """Two pools of threads on the same cores take ten times as long."""
    import torch

    from mdm_studio.services import live_work

    monkeypatch.setattr(live_work, "_THREADS", 4)
    seen = {}
    do = live_work.Bench._learn

    def learn(self, *args):
        seen[threading.current_thread().name] = torch.get_num_threads()
        do(self, *args)

    extract = live_work.Bench._extract

    def extracting(self, tile, stage):
        if stage == 2:
            seen[threading.current_thread().name] = torch.get_num_threads()
        extract(self, tile, stage)

    monkeypatch.setattr(live_work.Bench, "_learn", learn)
    monkeypatch.setattr(live_work.Bench, "_extract", extracting)
    user = make()
    user.open()
    user.paint()
    user.wait()
    assert seen == {"mdm-studio head": 1, "mdm-studio features": 3}
    torch.set_num_threads(1)


def test_undoing_a_change_of_classes_keeps_what_was_painted_and_added_since(make):
    user = make(live=False)
    labels = user.open()
    user.paint(40)
    user.until(lambda: set(user.session.painted) == {1, 2})
    before = labels.copy()
    user.session.remove_class(1)
    user.until(lambda: set(user.session.painted) == {2})
    added = user.session.add_class("new")
    assert added.value == 1  # the lowest free one
    user.session.add_class("other")
    labels[41, 3:9] = 3
    user.session.labels_changed("a", (), slice(41, 42), slice(3, 9))
    user.until(lambda: 3 in user.session.painted)
    user.session.undo_class_change()
    user.until(lambda: 1 in user.session.painted)
    before[41, 3:9] = 3
    np.testing.assert_array_equal(labels, before)
    assert [each.name for each in user.session.classes] == ["class 1", "class 2", "other"]


def test_a_stroke_just_before_the_end_is_kept(make):
    first = make(keep="automatic")
    labels = first.open()
    first.until(lambda: first.session.bench is not None)
    first.paint(40)
    first.wait()
    first.paint(100)
    first.session.close()  # before anybody has looked at it
    second = make(keep="automatic")
    again = second.open()
    second.until(lambda: np.array_equal(again, labels))


def test_a_classifier_says_which_channels_only_where_a_part_was_chosen(make):
    from mdm_studio.services.session import _channels

    user = make()
    image, _ = blobs(H, W)
    grey = ArrayImage(image[..., 0], name="grey")
    part = ArrayImage(image, channel_axis=2, channels=(1,), name="part")
    colour = ArrayImage(image, rgb=True, name="colour")
    for sources, wanted in (
        ([grey], None),
        ([colour, grey], None),
        ([part], (1,)),
        ([part, colour], None),
        ([part, part], (1,)),
    ):
        for number, source in enumerate(sources):
            user.session.open_image(str(number), source, np.zeros((H, W), np.uint8))
        assert _channels(user.session.images) == wanted
        for number in range(len(sources)):
            user.session.close_image(str(number))


def open_channels(user, key, number):
    """Open the discs as an image of so many separate channels."""
    image, mask = blobs(H, W, seed=len(user.arrays))
    user.arrays[key], user.truth[key] = np.zeros((H, W), np.uint8), mask
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[:number])
    user.session.open_image(key, ArrayImage(pixels, channel_axis=0, name=key), user.arrays[key])
    user.session.picture(key, "prediction")
    user.session.view_moved({(each, ()): WHOLE for each in user.arrays})


def test_no_prediction_is_shown_of_an_image_of_other_channels(make, tmp_path):
    """A classifier of two channels would call all of a grey image one class."""
    user = make()
    open_channels(user, "two", 2)
    user.paint(key="two")
    user.wait()
    assert accuracy(user, "two") > 0.9
    user.session.save_classifier(tmp_path / "x.mdm")
    seen = load_classifier(tmp_path / "x.mdm").info.images
    assert (seen.channels, seen.rgb, seen.dtypes) == ((2,), False, ("uint8",))
    open_channels(user, "grey", 1)
    user.wait()
    user.until(lambda: user.said)
    assert not user.session.picture("grey", "prediction")[0].any()
    assert accuracy(user, "two") > 0.9
    assert len(user.said) == 1
    words = "no prediction is shown: grey has 1 channel, and the classifier was fitted on images of 2 channels: "
    assert user.said[0].startswith(words)
    user.paint(key="grey")
    user.wait()
    user.until(lambda: user.session.picture("grey", "prediction")[0].any())
    assert user.said[1:] == ["two has 2 channels and grey 1 channel: strokes on both teach the classifier little"]


def test_a_classifier_from_a_file_says_of_which_images_it_is(make, tmp_path):
    user = make()
    user.open()
    user.paint()
    user.wait()
    user.session.save_classifier(tmp_path / "x.mdm")
    other = make(settings=user.session.settings)
    open_channels(other, "two", 2)
    other.session.load_classifier(tmp_path / "x.mdm")
    other.until(lambda: other.said)
    assert "two has 2 channels, and the classifier was fitted on images of red, green and blue" in other.said[0]
    assert not other.session.picture("two", "prediction")[0].any()
    other.session.save_classifier(tmp_path / "y.mdm")
    assert load_classifier(tmp_path / "y.mdm").info.images == load_classifier(tmp_path / "x.mdm").info.images


def test_a_classifier_from_a_file_finds_its_backbone_by_its_weights(make, tiny_backbone, tmp_path, monkeypatch):
    """Another backbone of the same name would give other features."""
    user = make()
    user.open()
    user.paint()
    user.wait()
    user.session.save_classifier(tmp_path / "x.mdm")
    with zipfile.ZipFile(tmp_path / "x.mdm") as old, zipfile.ZipFile(tmp_path / "y.mdm", "w") as new:
        facts = json.loads(old.read("classifier.json"))
        new.writestr("classifier.json", json.dumps(facts | {"backbone": "mdm-nuclei"}))
        new.writestr("ensemble.safetensors", old.read("ensemble.safetensors"))
    monkeypatch.setenv("MDM_STUDIO_DATA", str(tmp_path / "home"))
    shutil.copytree(tiny_backbone, tmp_path / "home" / "backbones" / "mine")
    other = make(settings=user.session.settings)
    other.open(seed=3)
    other.session.load_classifier(tmp_path / "y.mdm")
    other.until(lambda: accuracy(other) > 0.9)
    assert other.session.settings.backbone == str(tmp_path / "home" / "backbones" / "mine")


def test_classes_that_no_window_can_paint_are_said(make, tmp_path):
    user = make()
    user.open()
    user.paint()
    user.wait()
    user.session.save_classifier(tmp_path / "x.mdm")
    with zipfile.ZipFile(tmp_path / "x.mdm") as old, zipfile.ZipFile(tmp_path / "y.mdm", "w") as new:
        facts = json.loads(old.read("classifier.json"))
        facts["classes"][1]["value"] = 300
        new.writestr("classifier.json", json.dumps(facts))
        new.writestr("ensemble.safetensors", old.read("ensemble.safetensors"))
    user.session.load_classifier(tmp_path / "y.mdm")
    user.until(lambda: user.said)
    assert "y.mdm has classes of values beyond 255, which cannot be painted" in user.said[0]


def test_a_classifier_of_some_channels_says_so(make, tmp_path):
    user = make()
    open_channels(user, "a", 3)
    user.session.open_image("a", user.session.images["a"].source.reading((0,)), user.arrays["a"])
    user.session.picture("a", "prediction")
    user.paint()
    user.wait()
    user.session.save_classifier(tmp_path / "x.mdm")
    info = load_classifier(tmp_path / "x.mdm").info
    assert (info.channels, info.images.channels) == ((0,), (1,))
    other = make(settings=user.session.settings)
    other.open()
    other.session.load_classifier(tmp_path / "x.mdm")
    other.until(lambda: other.said)
    assert other.said == ["the classifier was fitted on the channels 0, and others are read of a"]
