"""What keys and commands do, as data; `napari_mdm_studio._keys` takes the keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from napari_mdm_studio._pictures import UNCERTAINTY

if TYPE_CHECKING:
    from napari_mdm_studio._session_home import SessionHome

KEYS_OF_CLASSES = 9
CANVAS_KEYS = frozenset({"Tab"})
"""Keys that act in the canvas alone: elsewhere Tab moves the focus."""


@dataclass(frozen=True)
class Action:
    """One thing that a key and a command do.

    Attributes
    ----------
    name : str
        The command's name: ``mdm-studio.NAME`` in napari.yaml.
    title : str
        In words, as the palette shows it.
    key : str
        The key that does it wherever the focus is, except while text is typed; empty for none.
    run : callable
        Does it.
    """

    name: str
    title: str
    key: str
    run: Callable[[SessionHome], object]


def choose_class(number: int, home: SessionHome) -> None:
    """Paint with the class in row `number` of the table, counted from 1."""
    classes = home.session.classes
    if number <= len(classes):
        home.bridge.take_tool("paint", classes[number - 1].value)
    else:
        home.tell(f"There are {len(classes)} classes; add one to paint with number {number}.")


def toggle_prediction(home: SessionHome) -> None:
    """Hide the predictions, or show them; those that were deleted come back."""
    shown = any(bound.pictures.is_shown() for bound in home.bridge.images.values())
    home.bridge.set_look(replace(home.bridge.look, visible=not shown))


def _toggle_uncertainty(home: SessionHome) -> None:
    home.bridge.set_output(UNCERTAINTY, UNCERTAINTY not in home.bridge.outputs)


def _toggle_reviewed(home: SessionHome) -> None:
    if home.project is None:
        home.tell("No project is open: create or open one first.")
    else:
        home.project.toggle_reviewed()


ACTIONS: tuple[Action, ...] = (
    *(
        Action(f"choose_class_{number}", f"Paint with class {number}", str(number), partial(choose_class, number))
        for number in range(1, KEYS_OF_CLASSES + 1)
    ),
    Action("erase", "Erase strokes", "E", lambda home: home.bridge.take_tool("erase")),
    Action("toggle_prediction", "Show or hide the prediction", "Tab", toggle_prediction),
    Action("toggle_uncertainty", "Show or hide the uncertainty", "", _toggle_uncertainty),
    Action("suggest_next", "Suggest where to label next", "N", lambda home: home.session.suggest_next()),
    Action("next_image", "Show the next image of the project", "PageDown", lambda home: home.next_image(1)),
    Action("previous_image", "Show the image of the project before", "PageUp", lambda home: home.next_image(-1)),
    Action("toggle_reviewed", "Mark the image as reviewed, or not", "R", _toggle_reviewed),
    Action("toggle_live", "Learn while painting, or not", "L", lambda home: home.session.set_live(not home.session.live)),
    Action("update_once", "Update the prediction once", "", lambda home: home.session.update_once()),
    Action("cancel", "Cancel what is running", "", lambda home: home.session.cancel()),
    Action("add_class", "Add a class", "", lambda home: home.attempt(home.session.add_class)),
    Action("undo_class_change", "Undo the last change of classes", "", lambda home: home.history.undo_classes()),
)


def action(name: str) -> Action:
    """The action called `name`."""
    return next(each for each in ACTIONS if each.name == name)


def with_key(text: str, name: str) -> str:
    """A tooltip that names the key of an action."""
    key = action(name).key
    return f"{text} ({key}{' in the canvas' if key in CANVAS_KEYS else ''})" if key else text
