"""What an export is asked for, and what it tells on the way. No PyTorch, so that a window may build one at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mdm_studio.engine.objects import ObjectOptions
from mdm_studio.errors import InputError, JobError, UsageError
from mdm_studio.io.file_signature import Signature
from mdm_studio.io.masks import MaskFormat, mask_path
from mdm_studio.io.paths import real_path, user_path
from mdm_studio.io.remarks import remarks

TableFormat = Literal["csv", "parquet"]

KIND = "export"
VERSION = 1  # of the settings in job.json


@dataclass(frozen=True)
class PredictOptions:
    """What to write, and where.

    Attributes
    ----------
    out : Path
        Folder of the masks; the other outputs go to folders of their names inside it.
    format : {"png", "tiff", "ome-zarr", "npy"}
        Of the masks. Probabilities, uncertainty and objects, which PNG cannot hold, then go to TIFF.
    objects : ObjectOptions or None
        How objects are found; None looks for none.
    object_maps : bool
        Write the numbered objects as images; False where only their tables are wanted.
    tables : tuple of {"csv", "parquet"}
        Measurements of the objects: a table of each image, and one of all images, in each of these formats.
    smooth : int or None
        Radius in pixels of the guided filter on the probabilities, 0 for none; None takes the classifier's.
    overwrite : bool
        Replace whatever is there; otherwise what is there and up to date is kept, see `mdm_studio.services.export_record`.

    Raises
    ------
    UsageError
        If tables are asked for without objects.
    """

    out: Path
    format: MaskFormat = "png"
    probabilities: bool = False
    uncertainty: bool = False
    objects: ObjectOptions | None = None
    object_maps: bool = True
    tables: tuple[TableFormat, ...] = ()
    smooth: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.tables and self.objects is None:
            raise UsageError("a table of measurements needs objects: say how they are found")

    @property
    def map_format(self) -> MaskFormat:
        """Format of probabilities, uncertainty and objects."""
        return "tiff" if self.format == "png" else self.format

    def paths(self, name: str) -> dict[str, Path]:
        """File of each output that is asked for: "mask", "probabilities", "uncertainty", "objects", "csv", "parquet"."""
        paths = {"mask": mask_path(self.out, name, self.format)}
        maps = {
            "probabilities": self.probabilities,
            "uncertainty": self.uncertainty,
            "objects": self.objects is not None and self.object_maps,
        }
        paths |= {kind: mask_path(self.out / kind, name, self.map_format) for kind, wanted in maps.items() if wanted}
        return paths | {kind: self.out / "tables" / f"{name}.{kind}" for kind in self.tables}


@dataclass(frozen=True)
class TlsFiles:
    """Certificates for a scheduler that stands elsewhere, as PEM files; what is None is that of dask's configuration.

    Attributes
    ----------
    ca_file : Path or None
        Certificate of the authority that signed those of the cluster.
    cert, key : Path or None
        Our certificate, and its key unless that stands in the same file.
    """

    ca_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return any(vars(self).values())

    def absolute(self) -> TlsFiles:
        """The same as another process needs them."""
        return TlsFiles(*(path and user_path(path).absolute() for path in vars(self).values()))

    def security(self) -> dict[str, str]:
        """Arguments of `distributed.Security`."""
        names = {"tls_ca_file": self.ca_file, "tls_client_cert": self.cert, "tls_client_key": self.key}
        return {name: str(path) for name, path in names.items() if path is not None}

    def to_json(self) -> dict[str, str]:
        """Name -> path of those that there are."""
        return {name: str(path) for name, path in vars(self).items() if path is not None}


@dataclass(frozen=True)
class ExportRequest:
    """Everything an export needs, on whichever machine and process it runs.

    Attributes
    ----------
    classifier : Path
        FILE.mdm.
    images : tuple of Path
        The images, each named by a file.
    options : PredictOptions
        What is written.
    backbone : str or None
        Where the classifier's backbone is looked for besides its usual places.
    device : str
        "auto", "cpu", "cuda", ...
    cache : Path or None
        Folder of the feature cache; None keeps no features.
    workers : int
        Processes of this machine that share the images; 0 runs in this one.
    scheduler : str
        Address of a dask scheduler whose workers share the images; empty for none.
    tls : TlsFiles
        Certificates for that scheduler, if its address is tls://.
    """

    classifier: Path
    images: tuple[Path, ...]
    options: PredictOptions
    backbone: str | None = None
    device: str = "auto"
    cache: Path | None = None
    workers: int = 0
    scheduler: str = ""
    tls: TlsFiles = TlsFiles()

    def __post_init__(self) -> None:
        if self.workers and self.scheduler:
            raise UsageError("--workers and --scheduler contradict each other: give one of them")
        if self.tls and not self.encrypted:
            raise UsageError("--tls-ca-file, --tls-cert and --tls-key are for a --scheduler whose address is tls://HOST:PORT")

    @property
    def encrypted(self) -> bool:
        """Whether a scheduler that stands elsewhere is reached by TLS."""
        return self.scheduler.startswith("tls://")

    def resolved(self) -> ExportRequest:
        """The same with absolute paths, as another process needs them."""
        return replace(
            self,
            classifier=real_path(user_path(self.classifier)),
            images=tuple(user_path(path).absolute() for path in self.images),  # a link keeps its own name
            options=replace(self.options, out=real_path(user_path(self.options.out))),
            cache=real_path(user_path(self.cache)) if self.cache else None,
            tls=self.tls.absolute(),
        )

    def to_json(self) -> dict[str, Any]:
        """The job.json of such an export."""
        resolved = self.resolved()
        facts = asdict(resolved)
        facts["classifier"], facts["cache"] = str(resolved.classifier), str(resolved.cache) if resolved.cache else None
        facts["images"] = [str(path) for path in resolved.images]
        facts["options"]["out"] = str(resolved.options.out)
        facts["options"]["tables"] = list(resolved.options.tables)
        facts["tls"] = resolved.tls.to_json()
        return {"kind": KIND, "version": VERSION, **facts}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> ExportRequest:
        """What `to_json` gave; entries that the jobs add for themselves are passed over.

        Raises
        ------
        JobError
            If it is none, or of a newer version.
        """
        if facts.get("kind") != KIND or facts.get("version", 0) > VERSION:
            raise JobError(
                f"this is no export that can be run here (kind {facts.get('kind')!r}, version {facts.get('version')}): "
                "start it again, or update MDM Studio"
            )
        try:
            options = dict(facts["options"])
            objects = options.pop("objects")
            options |= {"out": Path(options["out"]), "tables": tuple(options["tables"])}
            return cls(
                Path(facts["classifier"]),
                tuple(Path(path) for path in facts["images"]),
                PredictOptions(**options, objects=None if objects is None else ObjectOptions(**objects)),
                facts["backbone"],
                facts["device"],
                Path(facts["cache"]) if facts["cache"] else None,
                facts["workers"],
                facts["scheduler"],
                TlsFiles(**{name: Path(path) for name, path in facts.get("tls", {}).items()}),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise JobError(f"the settings of this export are damaged ({error}): start it again") from error


@dataclass(frozen=True)
class FileResult:
    """What became of one image.

    Attributes
    ----------
    image : Path
        The file.
    state : {"done", "skipped", "failed", "stopped"}
        "skipped": its outputs are there and up to date.
    outputs : dict
        Kind -> file written.
    seconds : float
        That it took.
    pixels : dict
        Pixels of each class value.
    message : str
        Why it failed or was skipped; of an image that is done what should be known of it.
    objects : int
        Objects found.
    differs : str
        What differs from the images that the classifier was fitted on, in words that do not name the image.
    source, written : (int, int), mapping
        Signatures of the image, taken before it was opened, and of each output, when it was written.
    left_out, notes : tuple of str
        Parts of the image's file that were not read, and what else should be known of it; see `ImageFile`.
    """

    image: Path
    state: Literal["done", "skipped", "failed", "stopped"]
    outputs: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    pixels: dict[int, int] = field(default_factory=dict)
    message: str = ""
    objects: int = 0
    differs: str = ""
    source: Signature = (0, 0)
    written: Mapping[str, Signature] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """The message of one that failed, with the name of its file."""
        return self.message if str(self.image) in self.message else f"{self.image}: {self.message}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """Both, in words."""
        return remarks(self.left_out, self.notes)


@dataclass(frozen=True)
class TileProgress:
    """Steps done of an image: its tiles, then its objects; `pixels` counts all of its pixels, `note` says what is done."""

    image: Path
    done: int
    total: int
    pixels: int = 0
    note: str = ""


def raise_failures(results: Sequence[FileResult]) -> None:
    """Raise an `InputError` that counts the images that failed and repeats the first reason; nothing if none failed."""
    failed = [result for result in results if result.state == "failed"]
    if failed:
        raise InputError(f"{len(failed)} of {len(results)} images failed, the first: {failed[0].failure}")
