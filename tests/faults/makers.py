"""Sound inputs of every kind, small, for the faults to be put in."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from mdm_studio.testing import blobs

HEIGHT, WIDTH = 48, 56


@dataclasses.dataclass(frozen=True)
class Kit:
    """Where what is."""

    root: Path

    @property
    def images(self) -> Path:
        """Three images of discs."""
        return self.root / "images"

    @property
    def labels(self) -> Path:
        """Strokes for two of them."""
        return self.root / "labels"

    @property
    def odd(self) -> Path:
        """One image in many formats."""
        return self.root / "odd"

    @property
    def classifier(self) -> Path:
        """Fitted on the strokes."""
        return self.root / "a.mdm"

    @property
    def backbone(self) -> Path:
        """Tiny, with random weights."""
        return self.root / "tiny"

    @property
    def checkpoint(self) -> Path:
        """The same weights as somebody publishes them."""
        return self.root / "tiny.pt"

    @property
    def project(self) -> Path:
        """Three images, two with strokes."""
        return self.root / "project"

    @property
    def home(self) -> Path:
        """A data folder with a job that is done, one that is paused, and settings."""
        return self.root / "home"


def make_kit(root: Path) -> Kit:
    """Everything, in a new folder."""
    kit = Kit(root)
    for folder in (kit.images, kit.labels, kit.odd, kit.home):
        folder.mkdir(parents=True)
    for number in range(3):
        image, mask = blobs(HEIGHT, WIDTH, seed=number)
        Image.fromarray(image).save(kit.images / f"f{number}.png")
        strokes = np.where(np.arange(HEIGHT)[:, None] % 6 == 0, mask, 0).astype(np.uint8)
        if number < 2:
            Image.fromarray(strokes).save(kit.labels / f"f{number}.png")
    make_odd_images(kit.odd)
    make_backbone(kit)
    make_classifier(kit)
    make_project(kit)
    make_home(kit)
    return kit


def make_odd_images(folder: Path) -> None:
    """One image in every format that is read."""
    rgb = blobs(HEIGHT, WIDTH, seed=5)[0]
    grey, wide = rgb[..., 0], rgb[..., 0].astype(np.uint16) * 200
    stack = np.stack([grey, 255 - grey, grey // 2])
    for name in ("rgb.png", "rgb.bmp", "rgb.webp", "rgb.gif"):
        Image.fromarray(rgb).save(folder / name)
    Image.fromarray(rgb).save(
        folder / "rgb.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
    )
    Image.fromarray(wide).save(folder / "wide.png")
    Image.fromarray(rgb).quantize(9).save(folder / "palette.png")
    Image.fromarray(np.dstack([rgb, grey])).save(folder / "alpha.png")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    frames = [Image.fromarray(each) for each in stack]
    frames[0].save(folder / "frames.gif", save_all=True, append_images=frames[1:])
    tifffile.imwrite(folder / "rgb.tif", rgb, photometric="rgb", compression="zlib")
    tifffile.imwrite(folder / "tiled.tif", np.tile(wide, (3, 3)), tile=(32, 32), compression="lzw")
    tifffile.imwrite(folder / "float.tif", grey.astype(np.float32) / 7)
    tifffile.imwrite(folder / "pages.tif", stack, photometric="minisblack")
    tifffile.imwrite(folder / "big.tif", stack, photometric="minisblack", bigtiff=True)
    resolution = {"resolution": (2.0, 2.0), "metadata": {"axes": "ZYX", "unit": "um", "spacing": 2.0}}
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True, **resolution)
    facts = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(folder / "stack.ome.tif", stack, photometric="minisblack", metadata=facts)
    np.save(folder / "grey.npy", grey)
    np.save(folder / "two.npy", stack[:2].astype(np.float32))
    make_zarr(folder / "plate.ome.zarr", stack)


def make_zarr(folder: Path, stack: np.ndarray) -> None:
    """An OME-Zarr 0.5 image of three channels."""
    import zarr

    axes = [{"name": "c", "type": "channel"}] + [{"name": each, "type": "space", "unit": "micrometer"} for each in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    scales = {"version": "0.5", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "name": "a"}
    group = zarr.open_group(folder, mode="w", attributes={"ome": {"version": "0.5", "multiscales": [scales]}})
    group.create_array("0", data=stack, chunks=(1, 32, 32))


def make_backbone(kit: Kit) -> None:
    """The backbone's folder, and its weights as a checkpoint."""
    import torch

    from mdm_studio.engine.backbones import untrained_backbone
    from mdm_studio.io.backbone_files import write_backbone
    from mdm_studio.nn.unet import UNetConfig

    torch.manual_seed(0)
    config = UNetConfig(**TINY)
    net = untrained_backbone(config).net
    arch = {"kind": "unet", **dataclasses.asdict(config)}
    card = {
        "name": "tiny",
        "arch": arch,
        "recipe": {"name": "mdm"},
        "blocks": [1, 2, 3],
        "timesteps": [50],
        "tile": 64,
        "halo": 32,
    }
    write_backbone(kit.backbone, net.state_dict(), card, "# tiny\n")
    torch.save(net.state_dict(), kit.checkpoint)


TINY = {
    "model_channels": 32,
    "channel_mult": (1, 1),
    "num_res_blocks": 1,
    "middle_attention": False,
    "stem": 2,
    "norm_groups": 8,
}


def make_classifier(kit: Kit) -> None:
    """The classifier of the strokes, named so that a spreadsheet would calculate one of its classes."""
    from mdm_studio.engine.heads import EnsembleConfig
    from mdm_studio.engine.objects import finished
    from mdm_studio.services.fitting import FitRequest, fit_classifier

    ensemble, names = EnsembleConfig(members=2), ("ground", "disc")
    request = FitRequest((str(kit.images),), kit.labels, str(kit.backbone), class_names=names, ensemble=ensemble)
    finished(fit_classifier(request, None)).save(kit.classifier)


def make_project(kit: Kit) -> None:
    """A project of the images, the strokes of two of them on disk, and the classifier."""
    from mdm_studio.services.project import Project
    from mdm_studio.services.workspace import Workspace

    Workspace.create(kit.project, sorted(kit.images.iterdir()))
    with Project.open(kit.project) as project:
        images = dict(project.state.images)
        for key, facts in list(images.items())[:2]:
            strokes = np.asarray(Image.open(kit.labels / f"{Path(facts.source).stem}.png"))
            images[key] = dataclasses.replace(facts, shape=strokes.shape, dtype="uint8", channels=(0, 1, 2))
            labels = project.open_labels(key, images[key])
            labels.write((), slice(0, HEIGHT), slice(0, WIDTH), strokes)
        project.save_state(dataclasses.replace(project.state, images=images))
    shutil.copy(kit.classifier, kit.project / "classifier.mdm")


def make_job(kit: Kit, folder: Path, *, steps: int = 6, every: int = 2) -> None:
    """A pretraining of the tiny network that waits to be run."""
    from mdm_studio.engine.pretrain import PretrainConfig
    from mdm_studio.io.images import find_images
    from mdm_studio.io.job_folder import JobFolder
    from mdm_studio.nn.unet import UNetConfig
    from mdm_studio.services.pretraining import plan

    config = PretrainConfig(crop=32, batch=2, warmup=3, precision="fp32", device="cpu")
    job, _ = plan(find_images([str(kit.images)]), name="tiny", config=config, steps=steps, checkpoint_every=every)
    JobFolder(folder).create(dataclasses.replace(job, network=UNetConfig(**TINY, in_channels=3)).to_json() | {"created": 1.0})


def make_home(kit: Kit) -> None:
    """Settings, a job of the user's own and a note of one elsewhere; both were run for some steps."""
    import dataclasses as _dataclasses

    from mdm_studio.desktop.settings import Settings
    from mdm_studio.io.job_folder import JobFolder
    from mdm_studio.services.pretraining import run

    jobs = kit.home / "jobs"
    make_job(kit, jobs / "mine-1234")
    make_job(kit, kit.root / "elsewhere")
    for folder in (jobs / "mine-1234", kit.root / "elsewhere"):
        for _ in run(JobFolder(folder)):
            pass
        JobFolder(folder).write_status(version=1, state="done", step=6, steps=6, message="", heartbeat=1.0, restarts=0)
    (jobs / "elsewhere-abcd.json").write_text(json.dumps({"folder": str(kit.root / "elsewhere")}))
    (kit.home / "settings.json").write_text(
        json.dumps({"version": 1, **_dataclasses.asdict(Settings(folder="/", recent=("/a",)))})
    )
    shutil.copytree(kit.backbone, kit.home / "backbones" / "mine")


def png(array: np.ndarray) -> bytes:
    """Bytes of a PNG."""
    held = io.BytesIO()
    Image.fromarray(array).save(held, "PNG")
    return held.getvalue()
