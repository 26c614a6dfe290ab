"""Clusters of a folder: label maps of the image's size, panels, tiles, what is there already."""

import numpy as np
import pytest
from PIL import Image

from mdm_studio.engine.clusters import Window, cluster_maps
from mdm_studio.engine.features import BlockMap, PlaneFeatures
from mdm_studio.errors import UsageError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.io.images import open_image
from mdm_studio.services.batch import FileResult
from mdm_studio.services.clustering import ClusterOptions, _fit_windows, cluster_files
from mdm_studio.services.extraction import load_for_features
from mdm_studio.testing import blobs


@pytest.fixture(scope="module")
def source(tiny_backbone):
    return load_for_features(str(tiny_backbone), blocks=(1, 3), timesteps=(50, 250), filters=False)


def _results(*args, **options):
    events = list(cluster_files(*args, **options))
    return [event for event in events if isinstance(event, FileResult)], [e for e in events if not isinstance(e, FileResult)]


def _read(path):
    return np.asarray(Image.open(path))


def test_label_maps_are_the_clusters_of_the_cell(source, images_and_labels, tmp_path):
    path = images_and_labels[0] / "field0.png"
    (result,), progress = _results(source, [path], ClusterOptions(tmp_path / "o", k=3), None)
    assert result.state == "done"
    shares = [step.done for step in progress]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    with open_image(path) as image:
        features = PlaneFeatures(source.backbone, image.plane(), source.settings)
        maps = dict(zip(features.specs, features.maps(0, 0), strict=True))
    for spec, feature_map in maps.items():
        assert isinstance(spec, BlockMap)
        labels = _read(tmp_path / "o" / "field0" / f"{spec.name}.png")
        assert labels.shape == (60, 70)
        (wanted,) = cluster_maps([Window([feature_map], slice(0, 60), slice(0, 70))], 3)[1]
        assert set(np.unique(labels)) == {1, 2, 3}
        pairs = np.unique(np.stack([labels.ravel(), wanted.ravel()]), axis=1)
        assert pairs.shape[1] == 3  # the same parts, other numbers
    panel = _read(tmp_path / "o" / "field0.png")
    assert panel.ndim == 3
    assert not (tmp_path / "o" / "field0-pca.png").exists()


def test_tiles_are_labelled_without_seams_and_thumbnails_fit(source, tmp_path):
    """Many tiles, thinned thumbnails, components: every pixel gets a label."""
    Image.fromarray(blobs(300, 450, seed=1)[0]).save(tmp_path / "large.png")
    options = ClusterOptions(tmp_path / "o", k=4, components=True)
    (result,), progress = _results(source, [tmp_path / "large.png"], options, FeatureCache(tmp_path / "c"))
    assert result.state == "done"
    assert len(progress) == 4 + 5 * 8
    for name in ("b01-t0050", "b03-t0250"):
        labels = _read(tmp_path / "o" / "large" / f"{name}.png")
        assert labels.shape == (300, 450)
        assert labels.min() == 1
        # labels change at the borders of tiles about as often as elsewhere
        changes = (labels[:, 1:] != labels[:, :-1]).mean(0)
        assert changes[63::64].mean() < 2 * changes.mean() + 0.02
    assert (tmp_path / "o" / "large-pca.png").exists()


def test_windows_of_many_tiles_are_few_and_own_their_cells(source, tmp_path, monkeypatch):
    Image.fromarray(blobs(300, 450, seed=1)[0]).save(tmp_path / "large.png")
    monkeypatch.setattr("mdm_studio.services.clustering._FIT_BYTES", 8 * 4 * 24 * 24 * 100)
    with open_image(tmp_path / "large.png") as image:
        features = PlaneFeatures(source.backbone, image.plane(), source.settings)
        windows = _fit_windows(features, features.specs)
    for spec, parts in windows.items():
        assert len(parts) == 8
        for part in parts:
            (feature_map,) = part.maps
            assert max(part.shape) <= 64
            assert feature_map.values.untyped_storage().nbytes() == 4 * feature_map.values.numel()
            assert feature_map.stride == spec.stride


def test_one_pixel_and_more_clusters_than_pixels(source, tmp_path):
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(tmp_path / "one.png")
    (result,), _ = _results(source, [tmp_path / "one.png"], ClusterOptions(tmp_path / "o", components=True), None)
    assert result.state == "done"
    assert _read(tmp_path / "o" / "one" / "b01-t0050.png").shape == (1, 1)


def test_what_is_there_is_skipped_unless_told_otherwise(source, images_and_labels, tmp_path):
    paths = [images_and_labels[0] / "field0.png"]
    options = ClusterOptions(tmp_path / "o", k=2)
    _results(source, paths, options, None)
    assert _results(source, paths, options, None)[0][0].state == "skipped"
    (tmp_path / "o" / "field0" / "b03-t0050.png").unlink()
    assert _results(source, paths, options, None)[0][0].state == "done"
    again = ClusterOptions(tmp_path / "o", k=3, overwrite=True)
    assert _results(source, paths, again, None)[0][0].state == "done"
    assert _read(tmp_path / "o" / "field0" / "b03-t0050.png").max() == 3


def test_planes_of_a_stack_are_numbered(source, tmp_path):
    import tifffile

    stack = np.stack([blobs(40, 50, seed=i, rgb=False)[0] for i in range(2)])
    tifffile.imwrite(tmp_path / "s.tif", stack, metadata={"axes": "ZYX"}, imagej=True)
    (result,), _ = _results(source, [tmp_path / "s.tif"], ClusterOptions(tmp_path / "o", k=2), None)
    assert result.state == "done"
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["s-000", "s-000.png", "s-001", "s-001.png"]


def test_a_failure_leaves_nothing_half_written(source, images_and_labels, tmp_path):
    broken = images_and_labels[0] / "broken.png"
    broken.write_bytes(b"no image")
    results, _ = _results(source, [broken, images_and_labels[0] / "field1.png"], ClusterOptions(tmp_path / "o", k=2), None)
    assert [result.state for result in results] == ["failed", "done"]
    assert "broken.png" in results[0].message
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["field1", "field1.png"]


@pytest.mark.parametrize("k", [0, 256])
def test_number_of_clusters(source, tmp_path, k):
    with pytest.raises(UsageError, match="1 to 255"):
        list(cluster_files(source, [], ClusterOptions(tmp_path, k=k), None))
