"""One process at a time in a folder.

The lock is the operating system's own (``flock``; on Windows a locked byte), which ends with its process however that ends,
so that a killed program leaves nothing to clean up. The file says who holds it, for the message to the second comer.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path
from typing import Literal

from mdm_studio.errors import FolderLostError, ProjectError
from mdm_studio.io.atomic import output_error

LOCK_FILE = ".lock"
_LOCKED_BYTE = 1 << 20  # Windows lets nobody read a locked byte: this one lies behind the text


class FolderLock:
    """Holds a folder for this process until `release`.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    inherited : int or None
        File descriptor of the lock that the parent process took and handed down (`hand_down`). The lock is taken as usual if
        it is none of this folder.

    Attributes
    ----------
    supported : bool
        False on the rare file systems (some network shares) that know no locks; then nobody is kept out.

    Raises
    ------
    ProjectError
        If another process holds it, or this one does already, naming the process.
    OutputError
        If nothing can be written there.
    """

    def __init__(self, folder: Path, *, inherited: int | None = None) -> None:
        self._path = folder / LOCK_FILE
        self.supported = True
        try:
            if inherited is not None and self._adopt(inherited):
                self._file = inherited
            else:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = self._open()
            self._folder = os.stat(folder)
            self._sign()
        except OSError as error:
            raise output_error(folder, error) from error

    def hand_down(self) -> int | None:
        """File descriptor for a child process, which holds the folder from its first moment; None where there is none to give.

        The child gives it to its own `FolderLock`; `forget` ends the holding of this process alone.
        """
        return self._file if self.supported and _INHERITED and self._file >= 0 else None

    def forget(self) -> None:
        """Leave the folder to the child process that the lock was handed down to."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        if self._file >= 0:
            with contextlib.suppress(OSError):  # Windows removes no open file; it stays then, and nobody holds it
                if self.holds(self._path.parent):  # and not the lock of what is in its place now
                    self._path.unlink()
            os.close(self._file)
            self._file = -1

    def _adopt(self, file: int) -> bool:
        """Whether `file` is the lock of this folder and held; it is then kept from what this process starts."""
        try:
            ours = os.path.samestat(os.fstat(file), os.stat(self._path))
            if ours:
                _lock(file)  # held already, unless it was handed down from nobody
                os.set_inheritable(file, False)
        except OSError:
            return False
        return ours

    def holds(self, folder: Path) -> bool:
        """Whether `folder` is the one that is held, whatever its name was."""
        try:
            return self._file >= 0 and os.path.samestat(os.fstat(self._file), os.stat(folder / LOCK_FILE))
        except OSError:
            return False

    def check(self) -> None:
        """Make sure that the folder is still there and the one that was locked; a lock file that was removed is made anew.

        Raises
        ------
        FolderLostError
            If the folder was moved, removed or replaced, its drive is gone, or another process has taken it meanwhile.
        """
        folder = self._path.parent
        if self.holds(folder):
            return
        try:
            same = os.path.samestat(os.stat(folder), self._folder)
        except OSError as error:
            raise FolderLostError(f"{folder} was moved or removed, or its drive is gone") from error
        if not same:
            raise FolderLostError(f"{folder} is not the folder any more that was opened: another one is in its place")
        try:
            file = self._open()
        except (OSError, ProjectError) as error:
            raise FolderLostError(str(error)) from error
        os.close(self._file)
        self._file = file
        self._sign()

    def place(self) -> Path | None:
        """Where the folder is now that was locked, if the system tells; it does on Linux and macOS."""
        try:
            folder = Path(_name_of(self._file)).parent
        except OSError:
            return None
        return folder if self.holds(folder) else None

    def follow(self, folder: Path) -> None:
        """Take over a new name of the folder, for which `holds` is true."""
        self._path, self._folder = folder / LOCK_FILE, os.stat(folder)

    def _sign(self) -> None:
        with contextlib.suppress(OSError):  # it is for people: a full disk has no room for it
            os.lseek(self._file, 0, os.SEEK_SET)
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()} {platform.node()}\n".encode(errors="replace"))

    def _open(self) -> int:
        """A file descriptor that holds the lock."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take(file)
                if os.path.samestat(os.fstat(file), os.stat(self._path)):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # its last owner removed it between our opening and locking it: what we hold has no name now

    def _take(self, file: int) -> None:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:  # PermissionError is how Windows says it
            raise ProjectError(
                f"{self._path.parent} is open in another window or program (process {self._holder()}): close it there, or open "
                "another project"
            ) from error
        except OSError:
            self.supported = False

    def _holder(self) -> str:
        try:
            pid, _, host = self._path.read_text("utf-8", errors="replace").strip().partition(" ")
        except OSError:
            pid = host = ""
        return (f"{pid} on {host}" if host not in ("", platform.node()) else pid) or "unknown"


def lock_state(folder: Path) -> Literal["free", "held", "unknown"]:
    """Whether some process (this one too) holds `folder`; `unknown` where the file system knows no locks.

    Asking takes a shared lock for a moment, so whoever takes the folder at that very time should try twice.
    """
    try:
        # not blocking: a named pipe in its place would be waited for for ever
        flags = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY | os.O_NONBLOCK
        file = os.open(folder / LOCK_FILE, flags)
    except OSError:
        return "free"  # no file, no holder
    try:
        _lock_shared(file)
    except (BlockingIOError, PermissionError):
        return "held"
    except OSError:
        return "unknown"
    finally:
        os.close(file)  # lets go of the lock too
    return "free"


def _name_of(file: int) -> str:
    """Present name of an open file; OSError where the system does not tell."""
    if sys.platform == "darwin":
        return os.fsdecode(fcntl.fcntl(file, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{file}")


if sys.platform == "win32":
    import msvcrt

    _INHERITED = False  # a lock is its process's own

    def _lock(file: int) -> None:
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)

    _lock_shared = _lock  # Windows' C library has exclusive ones only

else:
    import fcntl

    _INHERITED = True  # a lock is the open file's, which a child shares

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lock_shared(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
