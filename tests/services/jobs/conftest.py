"""Counting jobs, in this process and in workers."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mdm_studio.services.jobs import kinds, worker

_COUNTING = Path(__file__).with_name("counting.py")


@pytest.fixture
def counting(monkeypatch):
    """The kind "count"; the workers of this test know it too."""
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    spec = importlib.util.spec_from_file_location("counting", _COUNTING)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "counting", module)
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, str(_COUNTING)))
    monkeypatch.setenv(worker.NICE_VARIABLE, "0")
    return module


@pytest.fixture
def no_workers(monkeypatch):
    """Workers are not started; the folders for which one was asked."""
    from mdm_studio.services.jobs import board

    started = []
    monkeypatch.setattr(board, "start_worker", lambda folder, hold: started.append(folder.root))
    return started
