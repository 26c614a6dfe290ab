"""The desktop program: a window of our own around napari's viewer and our docks.

The only package that names PySide6. Nothing heavy is imported before the window is on the screen; see `main` and `loading`.
"""
