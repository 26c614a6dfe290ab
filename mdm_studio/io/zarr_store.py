"""A folder of zarr's that is never made anew: zarr's own store makes missing parents at every write.

Chunks appear whole or not at all, and flushed to the disk where that is wanted, as files of `mdm_studio.io.atomic` are.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path
from typing import Self

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

PARTIAL = ".partial"
"""What a file is called that is being written, as zarr has it."""


class FolderStore(LocalStore):
    """A store in a folder that is there.

    Parameters
    ----------
    root : Path
        The folder. When it has gone, writing raises FileNotFoundError, and nothing takes its place.
    read_only : bool
        Refuse to write.
    durable : bool
        Flush each file to the disk before it takes its name, so that a power cut leaves the old one or the new one.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False, durable: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._durable = durable

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same, to be read only or not."""
        return type(self)(self.root, read_only=read_only, durable=self._durable)

    async def _open(self, *, mode: object = None) -> None:
        self._ensure_open_sync()

    def _ensure_open_sync(self) -> None:
        if not self._is_open:
            os.stat(self.root)
            self._is_open = True

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write `value` under `key`."""
        self._ensure_open_sync()
        self._check_writable()
        self._put(key, value)

    async def set(self, key: str, value: Buffer) -> None:
        """Write `value` under `key`, on a thread."""
        self._check_writable()
        await asyncio.to_thread(self._put, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write `value` under `key` if there is nothing."""
        if not await self.exists(key):
            await self.set(key, value)

    def _put(self, key: str, value: Buffer) -> None:
        path = self.root / key
        for parent in reversed(path.relative_to(self.root).parents[:-1]):
            (self.root / parent).mkdir(exist_ok=True)  # one step only: a root that has gone stays gone
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            with unfinished.open("wb") as file:
                file.write(value.as_buffer_like())
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
