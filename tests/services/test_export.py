"""Exports: every output, what is kept and what is not, stops and kills, the report, the job."""

import csv
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import tifffile
from PIL import Image

from mdm_studio.engine.objects import ObjectOptions
from mdm_studio.errors import InputError, JobError, OutputError, UsageError
from mdm_studio.io.folder_lock import FolderLock
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.export import export, preview, run
from mdm_studio.services.export_request import ExportRequest, FileResult, PredictOptions, TileProgress

EVERYTHING = {
    "probabilities": True,
    "uncertainty": True,
    "objects": ObjectOptions("watershed", min_size=5, fill_holes=True),
    "tables": ("csv", "parquet"),
}


def request(given, out, *, images=None, classifier=None, **options):
    return ExportRequest(classifier or given.classifier, tuple(images or given.images), PredictOptions(out, **options))


def states(wanted):
    """What an export makes of each image, by name; those that are skipped come first."""
    found = {event.image.name: event.state for event in export(wanted) if isinstance(event, FileResult)}
    return dict(sorted(found.items()))


def report(out):
    return json.loads((out / "export.json").read_text())


def visible(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_every_output_and_the_report(export_set, tmp_path):
    wanted = request(export_set, tmp_path, **EVERYTHING)
    events = list(export(wanted))
    assert sum(isinstance(event, FileResult) and event.state == "done" for event in events) == 3
    assert {event.pixels for event in events if isinstance(event, TileProgress)} == {100 * 150}
    kinds = {"probabilities": "tif", "uncertainty": "tif", "objects": "tif", "tables": "csv"}
    names = [f"field{number}.png" for number in range(3)]
    names += [f"{kind}/field{number}.{ending}" for kind, ending in kinds.items() for number in range(3)]
    names += [f"tables/field{number}.parquet" for number in range(3)]
    assert visible(tmp_path) == sorted([*names, "export.json", "measurements.csv", "measurements.parquet"])
    told = report(tmp_path)
    assert (told["state"], told["counts"], told["failures"]) == ("done", {"done": 3}, {})
    assert told["settings"]["objects"] == {
        "method": "watershed", "min_size": 5, "fill_holes": True, "background": None, "distance": 8
    }  # fmt: skip
    assert {"mdm-studio", "torch", "scikit-image"} <= set(told["program"])
    assert [each["name"] for each in told["classifier"]["classes"]] == ["ground", "disc"]
    assert all(len(told["classifier"][key]) > 30 for key in ("digest", "backbone_digest"))
    for each in told["images"]:
        assert sum(each["pixels"].values()) == 100 * 150
        assert each["objects"] == tifffile.imread(tmp_path / each["outputs"]["objects"]).max() > 0
    with (tmp_path / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(each["objects"] for each in told["images"])
    assert {row["image"] for row in rows} == {"field0", "field1", "field2"}
    assert {row["class name"] for row in rows} == {"disc"}


def test_what_is_up_to_date_is_kept(export_set, tmp_path):
    def again(**options):
        return states(request(export_set, tmp_path, images=export_set.images[:1], **options))["field0.png"]

    assert again() == "done"
    assert again() == "skipped"
    assert again(classifier=export_set.other) == "done"  # masks of an older classifier are written anew
    assert again(classifier=export_set.other, smooth=0) == "done"
    assert again(classifier=export_set.other, smooth=0, objects=ObjectOptions()) == "done"
    assert again(classifier=export_set.other, smooth=0, objects=ObjectOptions()) == "skipped"
    assert again(classifier=export_set.other, smooth=0, objects=ObjectOptions(min_size=9)) == "done"
    assert again(classifier=export_set.other, smooth=0) == "skipped"  # the masks themselves did not change
    assert again(classifier=export_set.other, smooth=0, overwrite=True) == "done"


def test_the_same_classifier_saved_twice_is_the_same(export_set, tmp_path):
    from mdm_studio.services.classifier import load_classifier

    load_classifier(export_set.classifier).save(tmp_path / "copy.mdm")
    states(request(export_set, tmp_path / "m"))
    assert set(states(request(export_set, tmp_path / "m", classifier=tmp_path / "copy.mdm")).values()) == {"skipped"}


def test_an_image_that_changed_is_predicted_again(export_set, tmp_path):
    images = [shutil.copy(path, tmp_path) for path in export_set.images]
    paths = [tmp_path / path.name for path in export_set.images]
    states(request(export_set, tmp_path / "m", images=paths))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(images[1])
    assert list(states(request(export_set, tmp_path / "m", images=paths)).values()) == ["skipped", "done", "skipped"]
    with Image.open(tmp_path / "m" / "field1.png") as mask:
        assert mask.size == (30, 20)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_mask_of_spoilt_bytes_is_no_correction_by_hand(export_set, tmp_path, kind):
    """It cannot be opened by anybody, so it is written anew."""
    wanted = request(export_set, tmp_path, images=export_set.images[:1], format=kind)
    states(wanted)
    mask = tmp_path / ("field0.png" if kind == "png" else "field0.tif")
    whole = mask.read_bytes()
    middle = len(whole) // 2
    mask.write_bytes(whole[:middle] + b"spoilt" + whole[middle + 6 :] if kind == "png" else whole[:99])
    assert list(states(wanted).values()) == ["done"]
    assert list(states(wanted).values()) == ["skipped"]


def test_an_image_that_is_a_link_to_itself_fails_alone(export_set, tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    found = states(request(export_set, tmp_path / "m", images=(tmp_path / "loop.png", export_set.images[0])))
    assert found == {"loop.png": "failed", "field0.png": "done"}


def test_what_somebody_else_made_is_not_replaced(export_set, tmp_path):
    """A mask that was there before, and one that was corrected by hand."""
    hand = np.full((100, 150), 2, np.uint8)
    Image.fromarray(hand).save(tmp_path / "field0.png")
    found = [event for event in export(request(export_set, tmp_path)) if isinstance(event, FileResult)]
    assert [result.state for result in found if result.image.stem == "field0"] == ["failed"]
    assert "was not written by an export" in report(tmp_path)["failures"][str(export_set.images[0])]
    assert (np.asarray(Image.open(tmp_path / "field0.png")) == 2).all()
    Image.fromarray(hand).save(tmp_path / "field1.png")
    assert states(request(export_set, tmp_path))["field1.png"] == "skipped"
    other = request(export_set, tmp_path, classifier=export_set.other)
    assert states(other) == {"field0.png": "failed", "field1.png": "failed", "field2.png": "done"}
    assert "was changed since" in report(tmp_path)["failures"][str(export_set.images[1])]
    assert set(states(request(export_set, tmp_path, overwrite=True)).values()) == {"done"}
    assert not (np.asarray(Image.open(tmp_path / "field1.png")) == 2).all()


@pytest.mark.parametrize("name", ["export.json", "measurements.csv"])
def test_files_of_the_folder_are_not_replaced_either(export_set, tmp_path, name):
    (tmp_path / name).write_text("[1]")
    wanted = {"objects": ObjectOptions(), "tables": ("csv",)}
    with pytest.raises(OutputError, match=f"{name} was not written by an export"):
        list(export(request(export_set, tmp_path, **wanted)))
    assert (tmp_path / name).read_text() == "[1]"


def test_images_are_never_replaced_by_their_masks(export_set, tmp_path):
    with pytest.raises(UsageError, match="is one of the images"):
        list(export(request(export_set, export_set.images[0].parent, overwrite=True)))


def test_every_image_is_accounted_for(export_set, tmp_path):
    """Unreadable, of another number of channels, a stack that PNG cannot hold: named, and the others are done."""
    np.save(tmp_path / "channels.npy", np.zeros((5, 20, 30), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no image")
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((2, 20, 30), np.uint8), metadata={"axes": "ZYX"})
    images = [*sorted(tmp_path.iterdir()), export_set.images[0]]
    wanted = request(export_set, tmp_path / "m", images=images)
    assert states(wanted) == {"broken.png": "failed", "channels.npy": "failed", "field0.png": "done", "stack.tif": "failed"}
    told = report(tmp_path / "m")
    assert told["counts"] == {"failed": 3, "done": 1}
    for path, words in zip(images, ("cannot read", "5 channels", "--format tiff"), strict=False):
        assert words in told["failures"][str(path)]
    with pytest.raises(InputError, match="same name"):
        list(export(request(export_set, tmp_path / "n", images=[images[0], tmp_path / "BROKEN.tif"])))
    assert not (tmp_path / "n").exists()


def test_a_stop_comes_between_tiles_and_leaves_nothing_unfinished(export_set, tmp_path):
    """The same by `stop` and by closing the generator; the next run goes on there."""
    asked = iter([False] * 3)
    wanted = request(export_set, tmp_path, format="ome-zarr", **EVERYTHING)
    events = list(export(wanted, stop=lambda: next(asked, True)))
    last = events[-1]
    assert isinstance(last, FileResult)
    assert (last.state, sum(isinstance(event, FileResult) for event in events)) == ("stopped", 1)
    assert report(tmp_path)["state"] == "stopped"
    assert [each["state"] for each in report(tmp_path)["images"]] == ["stopped", "not reached", "not reached"]
    with closing(export(wanted)) as running:
        for event in running:
            if isinstance(event, TileProgress) and event.image == export_set.images[1] and event.note == "objects":
                break
    assert report(tmp_path)["state"] == "stopped"
    assert not [name for name in visible(tmp_path) if "/." in name or name.startswith(".") or "field1" in name]
    assert list(states(wanted).values()) == ["skipped", "done", "done"]


def test_a_killed_run_is_taken_up(export_set, tmp_path):
    """Without a last word: what it finished is kept, what it left is swept, and what it began is its own."""
    code = (
        "import os, sys; from pathlib import Path; from mdm_studio.services.export import *\n"
        "out, mdm, *images = map(Path, sys.argv[1:])\n"
        "events = export(ExportRequest(mdm, tuple(images), PredictOptions(out, format='tiff', uncertainty=True)))\n"
        "done = 0\n"
        "for event in events:\n"
        "    done += isinstance(event, FileResult)\n"
        "    if done and isinstance(event, TileProgress): os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, tmp_path, export_set.classifier, *export_set.images]
    assert subprocess.run(command, timeout=100, env=os.environ, check=False).returncode == -9
    assert [path for path in tmp_path.iterdir() if ".part" in path.name]
    shutil.copy(tmp_path / "field0.tif", tmp_path / "field1.tif")  # killed between its two files
    wanted = request(export_set, tmp_path, format="tiff", uncertainty=True)
    assert list(states(wanted).values()) == ["skipped", "done", "done"]
    assert len(visible(tmp_path)) == 7


def test_one_export_at_a_time(export_set, tmp_path):
    lock = FolderLock(tmp_path)
    try:
        with pytest.raises(OutputError, match="another export is writing"):
            list(export(request(export_set, tmp_path)))
    finally:
        lock.release()
    assert visible(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="an open folder cannot be moved there")
@pytest.mark.parametrize("format_", ["png", "ome-zarr"])
def test_a_folder_that_goes_away_ends_the_export_and_is_not_made_again(export_set, tmp_path, format_):
    out = tmp_path / "out"
    wanted = request(export_set, out, format=format_, uncertainty=True)
    done = []

    def go_on():
        for event in export(wanted):
            done.append(event)
            if isinstance(event, FileResult) and out.exists():
                out.rename(tmp_path / "moved")

    with pytest.raises(OutputError, match=r"folder of the masks has gone: .*moved or removed"):
        go_on()
    assert sum(isinstance(event, FileResult) for event in done) == 1
    assert os.listdir(tmp_path) == ["moved"]


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_name_that_is_no_text_is_a_name_as_any_other(export_set, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    names = [b"caf\xe9.png", b"=1+2\n\x1b[31m.png", b"-rf.png", "\u202egnp.png".encode(), b"x" * 248 + b".png"]
    for name in names:
        shutil.copy(export_set.images[0], folder / os.fsdecode(name))
    paths = tuple(sorted(folder.iterdir()))
    wanted = request(export_set, tmp_path / "out", images=paths, objects=ObjectOptions(), tables=("csv", "parquet"))
    assert sorted(states(wanted).values()) == [*["done"] * 4, "failed"]  # there is no room for .parquet
    assert {os.fsencode(path.name) for path in (tmp_path / "out").glob("*.png")} >= set(names[:-1])
    told = report(tmp_path / "out")
    assert {each["image"] for each in told["images"]} == {str(path) for path in paths}
    assert set(states(wanted).values()) == {"skipped", "failed"}
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as file:
        found = {row["image"] for row in csv.DictReader(file)}
    assert {"caf\\xe9", "'=1+2\n\x1b[31m", "'-rf"} <= found
    import pyarrow.parquet

    names = set(pyarrow.parquet.read_table(tmp_path / "out" / "measurements.parquet")["image"].to_pylist())
    assert {"caf\\xe9", "=1+2\n\x1b[31m", "-rf"} <= names


def test_the_table_of_the_folder_has_earlier_images_too(export_set, tmp_path):
    wanted = {"objects": ObjectOptions(), "tables": ("csv",), "object_maps": False}
    for number in range(3):
        states(request(export_set, tmp_path, images=export_set.images[number : number + 1], **wanted))
    names = {line.partition(",")[0] for line in (tmp_path / "measurements.csv").read_text().splitlines()[1:]}
    assert names == {"field0", "field1", "field2"}
    assert not (tmp_path / "objects").exists()


def test_a_stack_has_objects_and_rows_of_each_plane(export_set, tmp_path):
    planes = np.stack([np.asarray(Image.open(path)) for path in export_set.images])
    options = {"photometric": "rgb", "resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "stack.tif", planes, metadata={"axes": "ZYXS"}, **options)
    wanted = {"objects": ObjectOptions(), "tables": ("csv",), "format": "tiff"}
    states(request(export_set, tmp_path / "s", images=[tmp_path / "stack.tif"], **wanted))
    states(request(export_set, tmp_path / "m", **wanted))
    stack = tifffile.imread(tmp_path / "s" / "objects" / "stack.tif")
    assert np.array_equal(stack[1], tifffile.imread(tmp_path / "m" / "objects" / "field1.tif"))
    with (tmp_path / "s" / "tables" / "stack.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["plane"] for row in rows} == {"0", "1", "2"}
    assert float(rows[0]["area_micrometer2"]) == pytest.approx(float(rows[0]["area"]))


def test_where_every_image_fails_the_report_alone_is_left(export_set, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((2, 20, 30), np.uint8))  # PNG holds none, which is known late
    out, images = tmp_path / "m", [tmp_path / "a.png", tmp_path / "stack.tif"]
    (out / "probabilities").mkdir(parents=True)
    assert set(states(request(export_set, out, images=images, **EVERYTHING)).values()) == {"failed"}
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "probabilities"]  # which was there


def test_a_table_of_earlier_images_stays_where_all_new_ones_fail(export_set, tmp_path):
    wanted = {"objects": ObjectOptions(), "tables": ("csv", "parquet")}
    states(request(export_set, tmp_path / "m", images=export_set.images[:1], **wanted))
    before = (tmp_path / "m" / "measurements.csv").read_bytes()
    (tmp_path / "a.png").write_bytes(b"no image")
    states(request(export_set, tmp_path / "m", images=[tmp_path / "a.png"], smooth=0, **wanted))
    assert (tmp_path / "m" / "measurements.csv").read_bytes() == before


def test_a_request_survives_json(export_set, tmp_path):
    wanted = request(export_set, tmp_path, **EVERYTHING).resolved()
    again = ExportRequest.from_json(json.loads(json.dumps(wanted.to_json() | {"name": "x", "created": 1.0})))
    assert again == wanted
    with pytest.raises(JobError, match="update MDM Studio"):
        ExportRequest.from_json(wanted.to_json() | {"version": 99})
    with pytest.raises(JobError, match="damaged"):
        ExportRequest.from_json({key: value for key, value in wanted.to_json().items() if key != "images"})
    with pytest.raises(UsageError, match="needs objects"):
        PredictOptions(tmp_path, tables=("csv",))


def test_the_job(export_set, tmp_path):
    """Stopped and taken up; an image that fails is told of at the end, and fails no job."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = (*export_set.images, tmp_path / "broken.png")
    folder = JobFolder(tmp_path / "job")
    folder.create(request(export_set, tmp_path / "m", images=images).to_json())
    asked = iter([False] * 8)
    reports = list(run(folder, stop=lambda: next(asked, True)))
    assert 0 < reports[-1].done < 1
    reports = list(run(folder, stop=lambda: False))
    assert [each.done for each in reports] == sorted(each.done for each in reports)
    last = reports[-1]
    assert (last.done, last.step, last.steps) == (1, 4, 4)
    assert "1 of 4 images failed" in last.note
    assert last.facts["result"] == str(tmp_path / "m")
    assert last.facts["failed"] == 1
    alone = JobFolder(tmp_path / "other")
    alone.create(request(export_set, tmp_path / "n", images=images[-1:]).to_json())
    with pytest.raises(InputError, match=r"1 of 1 images failed.*broken\.png"):
        list(run(alone, stop=lambda: False))


def test_a_preview_is_what_the_export_writes(export_set, tmp_path, monkeypatch):
    options = PredictOptions(tmp_path, objects=ObjectOptions("watershed", fill_holes=True))
    states(request(export_set, tmp_path, objects=options.objects))
    found = preview(export_set.classifier, export_set.images[0], options)
    assert np.array_equal(found["mask"], np.asarray(Image.open(tmp_path / "field0.png")))
    assert np.array_equal(found["objects"], tifffile.imread(tmp_path / "objects" / "field0.tif"))
    assert found["image"].shape == (3, 100, 150)
    assert found["probabilities"].shape == (2, 100, 150)
    monkeypatch.setattr("mdm_studio.services.export_preview.PREVIEW", 64)
    middle = preview(export_set.classifier, export_set.images[0], PredictOptions(tmp_path))
    assert middle["mask"].shape == (64, 64)
    assert np.array_equal(middle["image"], found["image"][:, 18:82, 43:107])
    assert (middle["mask"] == found["mask"][18:82, 43:107]).mean() > 0.9
    assert "objects" not in middle


def test_asking_for_an_export_loads_no_torch():
    code = "import sys, mdm_studio.services.export, mdm_studio.cli.predict; print(*sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "zarr", "pyarrow", "distributed"} & set(outcome.stdout.split())


def replaced_while_predicted(wanted, changes, change):
    """The results of an export during whose first tiles, `changes` times, `change` is called."""
    results, done, before = [], 0, 0
    for event in export(wanted):
        if isinstance(event, FileResult):
            results.append(event)
            continue
        if before == 0 < event.done and done < changes:  # a step may be of several tiles
            done += 1
            change()
        before = event.done
    return results


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("moved", [False, True])
def test_an_image_that_is_replaced_while_it_is_predicted(export_set, tmp_path, ending, moved):
    image = tmp_path / f"a.{ending}"
    first, second = (np.asarray(Image.open(path)) for path in export_set.images[:2])
    Image.fromarray(first).save(image)
    times = image.stat()

    def change():
        target = tmp_path / f"b.{ending}" if moved else image
        Image.fromarray(second).save(target)
        if moved:
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # copied with its time
            target.replace(image)

    wanted = request(export_set, tmp_path / "out", images=[image])
    (result,) = replaced_while_predicted(wanted, 1, change)
    assert result.state == "done"
    (fresh,) = replaced_while_predicted(request(export_set, tmp_path / "new", images=[image]), 0, change)
    masks = [np.asarray(Image.open(each.outputs["mask"])) for each in (result, fresh)]
    np.testing.assert_array_equal(*masks)
    assert states(wanted) == {image.name: "skipped"}


def test_an_image_that_does_not_come_to_rest_is_not_up_to_date(export_set, tmp_path):
    image = tmp_path / "a.png"
    shutil.copy(export_set.images[0], image)
    wanted = request(export_set, tmp_path / "out", images=[image])
    (result,) = replaced_while_predicted(wanted, 99, lambda: os.utime(image))
    assert result.state == "failed"
    assert "a.png changed each of the 3 times that it was predicted" in result.message
    assert visible(tmp_path / "out") == ["export.json"]
    assert states(wanted) == {"a.png": "done"}


def test_an_image_that_is_replaced_before_its_mask_is_noted_is_predicted_again(export_set, tmp_path, monkeypatch):
    """The state that a mask is of is that from before the image was opened, whenever the mask is noted."""
    from mdm_studio.services import batch

    image = tmp_path / "a.png"
    shutil.copy(export_set.images[0], image)
    look = batch.signature

    def replaced(path):  # the masks have just taken their names
        shutil.copy(export_set.images[1], image)
        return look(path)

    monkeypatch.setattr(batch, "signature", replaced)
    wanted = request(export_set, tmp_path / "out", images=[image])
    assert states(wanted) == {"a.png": "done"}
    monkeypatch.undo()
    assert states(wanted) == {"a.png": "done"}
    assert states(wanted) == {"a.png": "skipped"}


def test_a_zarr_whose_chunks_change_is_predicted_again(export_set, tmp_path):
    import zarr

    pixels = np.asarray(Image.open(export_set.images[0]))[..., 0]
    group = zarr.create_group(tmp_path / "a.zarr")
    scales = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0]}]}]
    axes = [{"name": name, "type": "space"} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": scales}]}
    array = group.create_array("0", shape=pixels.shape, dtype="uint8", chunks=(50, 50))
    array[:] = pixels
    wanted = request(export_set, tmp_path / "out", images=[tmp_path / "a.zarr"])
    assert states(wanted) == {"a.zarr": "done"}
    assert states(wanted) == {"a.zarr": "skipped"}
    array[:50, :50] = 255 - pixels[:50, :50]
    assert states(wanted) == {"a.zarr": "done"}


def test_an_image_of_which_another_file_changed_is_predicted_again(export_set, tmp_path):
    names, folder = ("a.ome.tif", "b.ome.tif"), tmp_path / "images"
    folder.mkdir()
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    pixels = 'DimensionOrder="XYZCT" Type="uint8" SizeX="64" SizeY="48" SizeZ="2" SizeC="1" SizeT="1"'
    image = f'<Image ID="Image:0"><Pixels ID="Pixels:0" {pixels}>{data}</Pixels></Image>'
    xml = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}">{}</OME>'
    noise = np.random.default_rng(0).integers(0, 255, (3, 48, 64), np.uint8)
    for z, name in enumerate(names):
        tifffile.imwrite(folder / name, noise[z], description=xml.format(z, image), metadata=None)
    wanted = request(export_set, tmp_path / "m", images=[folder / names[0]], format="tiff")
    assert [states(wanted)[names[0]] for _ in range(2)] == ["done", "skipped"]
    tifffile.imwrite(folder / names[1], noise[2], description=xml.format(1, image), metadata=None)
    assert [states(wanted)[names[0]] for _ in range(2)] == ["done", "skipped"]
    (folder / names[1]).unlink()
    assert states(wanted)[names[0]] == "failed"


def test_zarr_masks_of_earlier_runs_are_still_ours(export_set, tmp_path):
    """They were noted by the file that describes them; now all of their files count."""
    wanted = request(export_set, tmp_path, images=export_set.images[:1], format="ome-zarr")
    assert states(wanted) == {"field0.png": "done"}
    told = report(tmp_path)
    facts = (tmp_path / "field0.ome.zarr" / "zarr.json").stat()
    told["files"]["field0.ome.zarr"]["written"] = [facts.st_size, facts.st_mtime_ns]
    (tmp_path / "export.json").write_text(json.dumps(told))
    assert states(wanted) == {"field0.png": "skipped"}
    assert states(request(export_set, tmp_path, images=export_set.images[:1], format="ome-zarr", smooth=0)) == {
        "field0.png": "done"
    }


def test_a_classifier_that_is_replaced_while_an_export_begins(export_set, tmp_path, monkeypatch):
    from mdm_studio.errors import ClassifierError
    from mdm_studio.services import export as module

    path = tmp_path / "a.mdm"
    shutil.copy(export_set.classifier, path)
    load = module._load

    def swapped(wanted, digest):
        shutil.copy(export_set.other, path)
        return load(wanted, digest)

    monkeypatch.setattr(module, "_load", swapped)
    with pytest.raises(ClassifierError, match="another classifier than when this was begun"):
        list(export(request(export_set, tmp_path / "out", classifier=path)))
    assert not (tmp_path / "out").exists()


def test_what_differs_from_the_images_fitted_on_stands_in_the_report(export_set, tmp_path):
    for number, path in enumerate(export_set.images[:2]):
        grey = np.asarray(Image.open(path))[..., 0].astype(np.float32)
        tifffile.imwrite(tmp_path / f"a{number}.tif", grey)
    np.save(tmp_path / "two.npy", np.zeros((2, 40, 50), np.uint8))
    images = [tmp_path / "a0.tif", tmp_path / "a1.tif", tmp_path / "two.npy"]
    assert states(request(export_set, tmp_path / "out", images=images)) == {
        "a0.tif": "done",
        "a1.tif": "done",
        "two.npy": "failed",
    }
    told = report(tmp_path / "out")
    assert told["classifier"]["fitted_on"]["channels"] == [3]
    assert [each.get("differs") for each in told["images"]] == ["fractions (float32) where it was fitted on uint8"] * 2 + [""]
    assert "2 channels" in told["images"][2]["message"]


def test_a_preview_of_other_channels_is_refused(export_set, tmp_path):
    np.save(tmp_path / "two.npy", np.zeros((2, 40, 50), np.uint8))
    with pytest.raises(InputError, match=r"two\.npy has 2 channels, and the classifier was fitted on images of red"):
        preview(export_set.classifier, tmp_path / "two.npy", PredictOptions(tmp_path))
