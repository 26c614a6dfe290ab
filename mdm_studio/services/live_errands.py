"""The errands of a live session: small jobs that come before all tasks."""

from __future__ import annotations

from dataclasses import replace

from mdm_studio.services.live_core import LiveCore, LiveImage
from mdm_studio.services.live_plan import PlaneKey, Window
from mdm_studio.services.strokes import BLOCK, block_window
from mdm_studio.services.suggestions import SIDE, suggest

_SCAN_ROWS = 16 * BLOCK  # rows of labels looked through at a time


class LiveErrands(LiveCore):
    """Loading a backbone, taking strokes over, suggesting where the next ones go."""

    def _load_backbone(self) -> None:
        settings = self.settings
        with self._lock:
            self._loading = f"loading the backbone {settings.backbone}"
        self._tell(always=True)
        from mdm_studio.services import live_work

        try:
            self._backbone = live_work.load(settings.backbone, settings.device, self._interrupt, settings.noise)
        finally:
            self._loading = ""
        self._new_bench()

    def _interrupt(self, *_: object) -> None:
        if self._closed or self._paused:  # a tile takes seconds: neither a closing window nor Cancel waits for it
            raise InterruptedError

    def _new_bench(self) -> None:
        backbone, settings = self._backbone, self.settings
        if backbone is None:
            return
        from mdm_studio.services import live_work

        chosen = {name: getattr(settings, name) for name in ("blocks", "timesteps", "scales", "filters")}
        bench = live_work.make_bench(backbone, chosen, settings.smooth, self, self._cache, self._memory)
        features = bench.settings
        with self._lock:
            if self.settings is not settings:
                return  # something else was chosen meanwhile: the errand of that choice follows, and nothing is written over
            if self.bench and self.bench.head:
                bench.first_number = self.bench.head.facts.number + 1
            self.bench = bench
            self._error = ""
            self.settings = replace(
                settings,
                blocks=features.blocks,
                timesteps=features.timesteps,
                scales=features.scales,
                filters=features.filters,
                n_blocks=backbone.n_blocks,
            )
        self.settings_changed.emit(self.settings)

    def _scan(self, key: str) -> None:
        """Take over all strokes of an image that was just opened."""
        image = self.images.get(key)
        if image is None:
            return
        self._bring_back(image)
        height, width = image.source.height, image.source.width
        for plane in range(image.source.planes):
            for top in range(0, height, _SCAN_ROWS):
                window = Window(top, min(top + _SCAN_ROWS, height), 0, width)
                self.strokes.update(PlaneKey(key, plane), window, image.read_labels(plane, window))
        self.strokes.mark_known(key)
        self._strokes_changed()
        for block, _ in self.strokes:
            if block.plane.image == key:  # they may have come with the array, and be on no disk yet
                around = block_window(*block.pixels, height, width)
                self.labels_absorbed.emit(key, block.plane.plane, around)

    def _absorb(self, image: LiveImage, plane: int, window: Window) -> None:
        """Take over the strokes of a region."""
        if self.images.get(image.key) is not image or window.empty:
            return
        if self.strokes.update(PlaneKey(image.key, plane), window, image.read_labels(plane, window)):
            self._paused = False
            self._strokes_changed()
            self.labels_absorbed.emit(image.key, plane, window)

    def _bring_back(self, image: LiveImage) -> None:
        """For subclasses: strokes of an earlier session, before those of the image are looked through."""

    def _strokes_changed(self) -> None:
        """For subclasses: there are other strokes now."""

    def _suggest(self) -> None:
        bench = self.bench
        painted = [(b.plane, float(p.rows.mean()), float(p.cols.mean())) for b, p in self.strokes]
        doubt = bench.doubt() if bench and bench.head else {}
        seen = {tile.plane.image for tile in doubt} | {plane.image for plane, _, _ in painted}
        unseen = [_middle(image) for key, image in self.images.items() if key not in seen]
        found = suggest(doubt, painted, self._earlier, unseen if doubt else ())
        if found is None:
            self.failed.emit("nothing to suggest yet: paint two classes and wait for the first picture")
            return
        self._earlier.append(found)
        self.suggested.emit(found)


def _middle(image: LiveImage) -> tuple[PlaneKey, Window]:
    """A window in the middle of an image, in the middle of its stack."""
    ends = [(max(size // 2 - SIDE, 0), min(size // 2 + SIDE, size)) for size in (image.source.height, image.source.width)]
    return PlaneKey(image.key, image.source.planes // 2), Window(*ends[0], *ends[1])
