"""Which images a live classifier may say something of, and what the user should know of the others, once each."""

from __future__ import annotations

from collections.abc import Iterable

from mdm_studio.arrays import IntensityLaw
from mdm_studio.errors import ChannelsError
from mdm_studio.io.classifier_file import SeenImages
from mdm_studio.io.images import Plane
from mdm_studio.services.image_kinds import ImageKind, clashing, differences_of, seen_images


class LiveKinds:
    """Compares planes with those that a head has learnt from.

    Attributes
    ----------
    words : list of str
        What is to be told; whoever tells it takes it out.
    """

    def __init__(self, intensity: IntensityLaw) -> None:
        self._intensity = intensity
        self._said: set[str] = set()
        self.words: list[str] = []

    def seen(self, planes: Iterable[Plane]) -> SeenImages | None:
        """What a classifier notes of the planes that it has learnt from; says so if their channels differ."""
        kinds = {plane.name: ImageKind.of(plane) for plane in planes}
        if clash := clashing(kinds):
            (one, first), (other, second) = clash
            self._say(f"{one} has {first.words()} and {other} {second.words()}: strokes on both teach the classifier little")
        return seen_images(kinds.values(), self._intensity)

    def fits(self, plane: Plane, seen: SeenImages | None) -> bool:
        """Whether a head that has learnt from `seen` may say something of a plane; what differs is told."""
        try:
            words = differences_of(seen, ImageKind.of(plane), plane.name)
        except ChannelsError as error:
            self._say(f"no prediction is shown: {error}")
            return False
        if seen is not None and seen.intensity != self._intensity:
            self._say(
                f"the classifier was fitted with intensities by {seen.intensity}, and this backbone's card says "
                f"{self._intensity}: the command line follows the classifier"
            )
        if words:
            self._say(f"{plane.name} differs from the images that the classifier was fitted on: {words}")
        return True

    def _say(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            self.words.append(words)
