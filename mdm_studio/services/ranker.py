"""Ranks the images of a workspace beside its session; see `mdm_studio.services.ranking` for what is found and in what order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mdm_studio.services.image_list import ImageEntry
from mdm_studio.services.keeper import Keeper
from mdm_studio.services.open_images import OpenImages
from mdm_studio.services.ranking import Basis, Ranked, in_order, is_other, rank_image, ranking
from mdm_studio.services.session import Session

if TYPE_CHECKING:
    from mdm_studio.services.classifier import Classifier

JOB = "ranking"
"""Name of the job beside the session."""
_TOLD_EVERY = 0.5  # seconds between two tellings that entries have changed


class Ranker:
    """Begins, goes on with and stops the ranking of a workspace.

    Parameters
    ----------
    session, keeper, files
        Of the workspace.
    problem : callable
        Told of an image that cannot be ranked, and why.
    ranked : callable
        Told how many images are ranked, and how many there are to rank.
    changed : callable
        Told, now and then, that entries have changed.
    """

    def __init__(
        self,
        session: Session,
        keeper: Keeper,
        files: OpenImages,
        *,
        problem: Callable[[str, str], None],
        ranked: Callable[[int, int], None],
        changed: Callable[[], None],
    ) -> None:
        self._session, self._keeper, self._files = session, keeper, files
        self._problem, self._ranked, self._changed = problem, ranked, changed
        self._basis = Basis.from_json(keeper.state.ranking)
        self._wanted = self._waits = False
        self._told_at = 0.0

    def begin(self, classifier: Classifier, entries: Sequence[ImageEntry]) -> None:
        """Rank what was not ranked by a classifier much like this one."""
        basis = Basis.of(classifier, self._basis.number + 1)
        if is_other(self._basis, basis):
            self._basis = basis
            self._keeper.change(lambda state: replace(state, ranking=basis.to_json()))
        self._wanted, self._waits = True, False
        self._session.run_job(JOB, self._steps(classifier, self._basis.number, in_order(entries)))

    def wait(self) -> None:
        """Begin as soon as there is a classifier that is trained to the end."""
        self._wanted = self._waits = True

    def begins_now(self, classifier: Classifier) -> bool:
        """Whether a ranking waits for this classifier, or one was asked for and the classifier has become another since."""
        return self._waits or (self._wanted and is_other(self._basis, Basis.of(classifier, self._basis.number)))

    def stop(self) -> None:
        """Stop after the tile that is being predicted."""
        self._wanted = self._waits = False

    def _steps(self, classifier: Classifier, number: int, entries: Sequence[ImageEntry]) -> Iterator[None]:
        from mdm_studio.services.live_work import leave_a_core

        bench = self._session.bench
        cache = bench.cache if bench else None
        images = self._keeper.state.images
        todo = [entry for entry in entries if entry.id in images and images[entry.id].ranked != number]
        done, total = len(entries) - len(todo), len(entries)
        self._ranked(done, total)

        def steps_of(entry: ImageEntry) -> Iterator[Ranked | None]:
            leave_a_core()
            with self._files.look_at(entry.id) as image:
                yield from rank_image(classifier, image, cache)

        def found(entry: ImageEntry, what: Ranked | str) -> None:
            nonlocal done
            done += 1
            if isinstance(what, Ranked):
                result = {"uncertainty": what.uncertainty, "shares": what.shares, "ranked": number}
                self._keeper.change_image(entry.id, **result)
                self._problem(entry.id, "")
            else:
                self._problem(entry.id, what)
            self._ranked(done, total)
            if done == total or time.monotonic() - self._told_at > _TOLD_EVERY:
                self._told_at = time.monotonic()
                self._changed()

        for _ in ranking(todo, steps_of, found):
            if not self._wanted or number != self._basis.number:
                return
            yield
        self._changed()
