"""How far an export is, and how long it will take: judged by pixels, because images differ in size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mdm_studio.services.export_request import FileResult, TileProgress


class Pace:
    """Share done and seconds left of an export, from its events and a clock.

    Parameters
    ----------
    sizes : mapping
        Bytes of the file of each image: those that nobody has opened yet are taken to have as many pixels a byte as the others.
    """

    def __init__(self, sizes: Mapping[Path, int]) -> None:
        self._bytes = {path: max(size, 1) for path, size in sizes.items()}
        self._pixels: dict[Path, int] = {}
        self._done: dict[Path, float] = {}
        self._over: set[Path] = set()  # nothing more to do, and it tells nothing of the speed

    def see(self, event: TileProgress | FileResult) -> None:
        """Take an event into account."""
        path = event.image
        if isinstance(event, TileProgress):
            self._pixels[path] = event.pixels
            self._done[path] = event.pixels * event.done / max(event.total, 1)
        elif event.state == "done":
            self._pixels[path] = sum(event.pixels.values())
            self._done[path] = float(self._pixels[path])
        else:
            self._over.add(path)

    @property
    def pixels(self) -> float:
        """Pixels done."""
        return sum(done for path, done in self._done.items() if path not in self._over)

    def share(self) -> float:
        """Share of the work that is done, 0 to 1."""
        left = self._left()
        done = self.pixels
        if done + left > 0:
            return done / (done + left)
        return len(self._over) / len(self._bytes) if self._bytes else 1.0

    def seconds_left(self, elapsed: float) -> float | None:
        """Seconds left if it goes on as in the `elapsed` seconds so far; None while nothing is done."""
        return elapsed * self._left() / self.pixels if self.pixels > 0 and elapsed > 0 else None

    def _left(self) -> float:
        known = sum(self._pixels.values())
        of_known = sum(self._bytes.get(path, 1) for path in self._pixels)
        per_byte = known / of_known if of_known and known else 1.0
        left = 0.0
        for path, size in self._bytes.items():
            if path not in self._over:
                left += self._pixels.get(path, size * per_byte) - self._done.get(path, 0.0)
        return left
