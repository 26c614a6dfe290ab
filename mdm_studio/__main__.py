"""``python -m mdm_studio`` is the ``mdm-studio`` command."""

from __future__ import annotations

from mdm_studio.cli import main

if __name__ == "__main__":
    main()
