"""A way around a fault of OpenGL in software, which ends the whole program."""

from __future__ import annotations

from typing import Any

_SOFTWARE = "llvmpipe"  # Mesa's: virtual machines, remote desktops, Xvfb


def keep_programs() -> None:
    """Delete no shader program where Mesa draws in software.

    When a program was deleted, Mesa 22.3 crashes in ``glDrawArrays`` with another one: napari alone does so when one of three
    layers goes and the lowest after it. A program that is kept costs a few kilobytes a layer.
    """
    from vispy.gloo import gl, glir  # type: ignore[import-untyped]

    program: Any = glir.GlirProgram
    delete = program.delete
    if getattr(delete, "spares", False):
        return

    def spare(self: Any) -> None:
        if _SOFTWARE not in str(gl.glGetParameter(gl.GL_RENDERER)):
            delete(self)

    spare.spares = True  # type: ignore[attr-defined]
    program.delete = spare
