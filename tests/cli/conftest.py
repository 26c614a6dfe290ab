"""The command line as a user calls it, in this process."""

from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from mdm_studio.cli.app import app
from mdm_studio.errors import MDMStudioError


@dataclass(frozen=True)
class Outcome:
    """Exit code, what came on stdout, and the error that the program would print as one line."""

    code: int
    stdout: str
    stderr: str
    error: str


@pytest.fixture
def run():
    """Call `mdm-studio` with arguments; what is no error of ours is raised."""

    def call(*args) -> Outcome:
        result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "250"})
        error = result.exception
        if error is not None and not isinstance(error, MDMStudioError | SystemExit):
            raise error
        code = error.exit_code if isinstance(error, MDMStudioError) else result.exit_code
        return Outcome(code, result.stdout, result.stderr, str(error) if isinstance(error, MDMStudioError) else "")

    return call


@pytest.fixture
def fitted(run, tiny_backbone, images_and_labels, tmp_path):
    """A classifier fitted on the strokes of two images."""
    images, labels = images_and_labels
    outcome = run("fit", images, labels, "--out", tmp_path / "a.mdm", "--backbone", tiny_backbone, "--members", 3)
    assert outcome.code == 0
    return tmp_path / "a.mdm"
