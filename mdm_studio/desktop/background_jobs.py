"""Jobs that live on when the window closes."""

from __future__ import annotations

from PySide6.QtWidgets import QCheckBox, QMessageBox, QWidget

from mdm_studio.errors import MDMStudioError
from mdm_studio.services.jobs.states import JobView


def living() -> list[JobView]:
    """Jobs that run, or wait for their turn."""
    from mdm_studio.services.jobs.board import JobBoard

    return [job for job in JobBoard().jobs() if job.state in ("running", "queued")]


def revive() -> int:
    """Go on with the jobs that a power cut has ended; how many. Call it on a thread."""
    from mdm_studio.services.jobs.board import JobBoard

    return len(JobBoard().revive())


def in_words(jobs: list[JobView]) -> str:
    """What goes on, for the user."""
    shown = ", ".join(f"{job.name} ({job.done:.0%})" for job in jobs[:3])
    more = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
    return f"{shown}{more} {'goes' if len(jobs) == 1 else 'go'} on in the background while this window is closed."


def tell(parent: QWidget) -> bool:
    """Say that jobs go on when the window closes, and pause them if the user wants; True if not to be told again."""
    jobs = living()
    if not jobs:
        return False
    box = QMessageBox(QMessageBox.Icon.Information, "MDM Studio", in_words(jobs), parent=parent)
    box.setInformativeText("They are found again when the window opens, or with `mdm-studio jobs`.")
    keep = box.addButton("&Keep running", QMessageBox.ButtonRole.AcceptRole)
    pause = box.addButton("&Pause", QMessageBox.ButtonRole.DestructiveRole)
    box.setDefaultButton(keep)
    box.setEscapeButton(keep)
    once = QCheckBox("Do not tell me again")
    box.setCheckBox(once)
    box.exec()
    if box.clickedButton() is pause:
        _pause(parent, jobs)
    return once.isChecked()


def _pause(parent: QWidget, jobs: list[JobView]) -> None:
    from mdm_studio.services.jobs.board import JobBoard

    board, problems = JobBoard(), []
    for job in jobs:
        try:
            board.pause(job.id)
        except MDMStudioError as error:
            problems.append(str(error))
    if problems:
        QMessageBox.warning(parent, "MDM Studio", "\n".join(problems))
