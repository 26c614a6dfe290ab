"""The classifier of a session in its project: saved by itself whenever a new one has come to rest."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mdm_studio.services.keeper import Keeper
from mdm_studio.services.session import Session

if TYPE_CHECKING:
    from mdm_studio.services.classifier import Classifier


class KeptClassifier:
    """``classifier.mdm`` of a project; any thread may save it."""

    def __init__(self, session: Session, keeper: Keeper) -> None:
        self._session, self._keeper = session, keeper
        self._saving = threading.Lock()
        self._saved: object = None  # what is on disk, as `_known_by` tells it

    def present(self) -> Classifier | None:
        """The classifier that the exact picture shows; None if nothing is trained to the end."""
        session = self._session
        try:
            return session.bench.classifier(session.class_table(), session.settings.backbone, None) if session.bench else None
        except KeyError:  # one of its classes was removed just now
            return None

    def save(self) -> None:
        """Write it, if it is other than the one on disk.

        Raises
        ------
        FolderLostError
            If the folder is the project no longer.
        OutputError
            If it cannot be written.
        """
        with self._saving:
            known = self._known_by()
            if known is not None and known != self._saved:
                self._keeper.project.check()
                self._session.save_classifier(self._keeper.project.classifier)
                self._saved = known

    def path(self) -> Path:
        """Save it and tell where it is; one of an earlier session will do as long as this one has none.

        Raises
        ------
        ClassifierError
            If there is none at all.
        OutputError
            If it cannot be written.
        """
        path = self._keeper.project.classifier
        if self.present() is None and path.exists():
            return path
        if self.present() is None:
            self._session.save_classifier(path)  # which says in words what is wanted
        self.save()
        return path

    def _known_by(self) -> object:
        bench = self._session.bench
        if bench is None or bench.head is None or self.present() is None:
            return None
        return id(bench), bench.head.facts.number, self._session.classes, self._keeper.folder
