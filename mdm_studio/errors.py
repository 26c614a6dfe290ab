"""Everything MDM Studio raises on purpose.

Each message says three things: what was met, what was wanted, and what to do. The command line prints it as one line.

::

    MDMStudioError
    ├── UsageError                a wrong option or a combination that cannot work (exit code 2)
    ├── InputError                an image, a label map or a folder that cannot be used
    │   ├── NoImagesError         nothing readable where images were expected
    │   ├── UnreadableImageError  one file that cannot be decoded
    │   ├── ChannelsError         an image with channels the backbone cannot take
    │   └── LabelsError           label maps that do not fit their images or hold nothing to learn from
    ├── BackboneError             a backbone that is missing, damaged or of another shape
    │   └── CheckpointError       weights that do not match the network or cannot be read safely
    ├── ClassifierError           a FILE.mdm that is damaged or needs another backbone
    ├── CacheError                a feature cache that cannot be used
    ├── JobError                  a job folder that cannot be started, resumed or read
    ├── ProjectError              a project that is damaged, newer than the program, or open elsewhere
    │   └── FolderLostError       a folder that was moved, removed or replaced while it was open
    └── OutputError               something that could not be written (disk full, read-only folder, exists already)
"""

from __future__ import annotations


class MDMStudioError(Exception):
    """Root of all errors raised on purpose; catching it catches every expected failure."""

    exit_code = 1


class UsageError(MDMStudioError):
    """A wrong option or a combination of options that cannot work."""

    exit_code = 2


class InputError(MDMStudioError):
    """Input data that cannot be used."""


class NoImagesError(InputError):
    """No readable image where images were expected."""


class UnreadableImageError(InputError):
    """One file that cannot be decoded as an image."""


class ChannelsError(InputError):
    """An image whose channels the backbone cannot take."""


class LabelsError(InputError):
    """Label maps that do not fit their images or hold nothing to learn from."""


class BackboneError(MDMStudioError):
    """A backbone that is missing, damaged or of another shape."""


class CheckpointError(BackboneError):
    """Weights that do not match the network, are truncated, or cannot be read safely."""


class ClassifierError(MDMStudioError):
    """A classifier file that is damaged, too new, or needs a backbone that is not here."""


class CacheError(MDMStudioError):
    """A feature cache that cannot be used."""


class JobError(MDMStudioError):
    """A job folder that cannot be started, resumed or read."""


class ProjectError(MDMStudioError):
    """A project that is damaged, newer than the program, or open elsewhere."""


class FolderLostError(ProjectError):
    """A folder that was moved, removed or replaced while it was open; nothing is written to what is in its place."""


class OutputError(MDMStudioError):
    """Something that could not be written."""
