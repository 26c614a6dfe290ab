"""A short campaign of the same faults as the long one, which is ``scripts/fault_campaign.py``."""

import json
import os
import subprocess
import sys

import pytest

from tests.faults import kills, troubles
from tests.faults.kinds import KINDS, SHARES

INPUTS, KILLS, TROUBLES = 40, 7, 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_a_short_campaign(repository, tmp_path):
    """Each kind of file is spoilt, each kind of run is killed, each trouble but the slowest is made; nothing fails."""
    kinds = [*KINDS, *kills.SHARES, *(each for each in troubles.SHARES if each != "busy")]
    command = [
        sys.executable,
        repository / "scripts" / "fault_campaign.py",
        "--json",
        tmp_path / "found.json",
        "--kinds",
        ",".join(kinds),
    ]
    counts = ["--inputs", str(INPUTS), "--kills", str(KILLS), "--troubles", str(TROUBLES), "--minutes", "2.5", "--seed", "1"]
    outcome = subprocess.run([*command, *counts], capture_output=True, text=True, timeout=280, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["failures"] == []
    tried = {kind: each["tried"] for kind, each in found["kinds"].items()}
    assert sum(tried.values()) >= INPUTS + KILLS + TROUBLES or found["stopped"]  # on a very busy machine
    assert set(tried) == set(kinds) or found["stopped"]


def test_every_kind_has_a_share():
    assert set(SHARES) == set(KINDS)
    assert set(kills.SHARES) == {*kills.SCENARIOS, "kill autosave"}
    assert set(troubles.SHARES) == set(troubles.TROUBLES)
