"""The kinds of jobs there are, and the lane each runs in."""

from __future__ import annotations

import functools
import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from mdm_studio.errors import JobError
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.jobs.states import JobReport

KINDS = {"pretrain": "mdm_studio.services.pretraining:run", "export": "mdm_studio.services.export:run"}
"""Name of a kind to ``module:function``; the module is loaded when a job of that kind has its turn."""
_OWN_LANES = ("export",)  # nobody's masks wait an hour for a pretraining


class Run(Protocol):
    """Runs or goes on with a job; looks at `stop` between its steps and then saves what it needs to go on.

    Raises
    ------
    MDMStudioError
        For failures, in words for the user.
    """

    def __call__(self, folder: JobFolder, *, stop: Callable[[], bool]) -> Iterator[JobReport]:
        """Steps of the job."""


def load_kind(settings: Mapping[str, Any]) -> Run:
    """The function that runs jobs of this kind.

    Raises
    ------
    JobError
        If this version knows no such kind.
    """
    check_kind(settings)
    module, _, name = KINDS[settings["kind"]].partition(":")
    run: Run = getattr(importlib.import_module(module), name)
    return run


def check_kind(settings: Mapping[str, Any]) -> None:
    """Complain about a kind that is not known, without loading anything.

    Raises
    ------
    JobError
        If this version knows no such kind.
    """
    kind = settings.get("kind")
    if kind not in KINDS:
        raise JobError(f"jobs of kind {kind!r} are unknown to this version; choose one of {', '.join(KINDS)}, or update")


def lane_of(settings: Mapping[str, Any]) -> str:
    """Lane of a job: its device, and ``export-DEVICE`` for exports."""
    device = asked_device(settings)
    device = {"auto": _guess_device(), "cuda:0": "cuda"}.get(device, device)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") if device.startswith("cuda") else ""
    kind = settings.get("kind")
    parts = (str(kind) if kind in _OWN_LANES else "", device, visible)
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(part for part in parts if part))


def asked_device(settings: Mapping[str, Any]) -> str:
    """Device that a job was asked to run on."""
    config = settings.get("config")
    return str(settings.get("device") or (config.get("device") if isinstance(config, Mapping) else "") or "auto")


@functools.cache
def _guess_device() -> str:
    """What ``auto`` will be, without loading PyTorch: all who ask get the same answer, which is all that lanes need."""
    if os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi"):
        return "cuda"
    return "mps" if sys.platform == "darwin" and platform.machine() == "arm64" else "cpu"
