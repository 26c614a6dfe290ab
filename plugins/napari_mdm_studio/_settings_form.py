"""A form for the settings of a recipe, made of what is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psygnal import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QSpinBox, QVBoxLayout, QWidget

from mdm_studio.services.recipe_list import SettingFacts
from napari_mdm_studio._widgets import combo, form, quietly

_MOST, _DIGITS, _STEP = 1_000_000, 4, 0.05


class SettingsForm(QWidget):
    """A field for each setting; `changed` after each change of the user's."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, QWidget] = {}
        self._settings: tuple[SettingFacts, ...] = ()
        self._inside: QWidget | None = None
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)

    def offer(self, settings: Sequence[SettingFacts]) -> None:
        """Make the fields of other settings; each shows its default."""
        if self._inside is not None:
            self._layout.removeWidget(self._inside)
            self._inside.hide()
            self._inside.deleteLater()
        self._settings = tuple(settings)
        self._inside = QWidget()
        rows = form()
        self._inside.setLayout(rows)
        self.fields = {}
        for setting in settings:
            made = self.fields[setting.name] = self._field(setting)
            made.setAccessibleName(setting.title)
            made.setToolTip(_wrapped(setting.words) or setting.title)
            rows.addRow("" if setting.kind == "bool" else setting.title, made)
        self._layout.addWidget(self._inside)

    def _field(self, setting: SettingFacts) -> QWidget:
        """A field that shows the default; what it holds is read by `values`."""
        made: Any
        if setting.kind == "choice":
            made = combo(setting.title, setting.words, {choice: choice for choice in setting.choices})
            made.activated.connect(lambda _: self.changed.emit())
        elif setting.kind == "bool":
            made = QCheckBox(setting.title)
            made.clicked.connect(lambda _: self.changed.emit())
        elif setting.kind == "text":
            made = QLineEdit()
            made.editingFinished.connect(self.changed.emit)
        else:
            made = QDoubleSpinBox() if setting.kind == "float" else QSpinBox()
            made.setRange(0 if setting.default >= 0 else -_MOST, _MOST)
            made.setKeyboardTracking(False)
            if setting.kind == "float":
                made.setDecimals(max(_DIGITS, _digits(setting.default)))
                made.setSingleStep(_STEP)
            made.valueChanged.connect(lambda _: self.changed.emit())
        _put(made, setting.default)
        return made  # type: ignore[no-any-return]

    def values(self) -> dict[str, Any]:
        """What the fields hold, by the settings' names."""
        return {setting.name: _value(self.fields[setting.name]) for setting in self._settings}

    def put(self, values: Mapping[str, Any]) -> None:
        """Show other values; those of settings that it does not have are left out."""
        for setting in self._settings:
            _put(self.fields[setting.name], values.get(setting.name, setting.default))

    def take_typed(self) -> None:
        """Take over numbers that were typed and not confirmed."""
        for each in self.fields.values():
            if isinstance(each, QSpinBox | QDoubleSpinBox):
                each.interpretText()


def _digits(value: float) -> int:
    """Digits behind the point that a number needs: what a field cannot show it would change."""
    return len(f"{value:.10f}".rstrip("0").partition(".")[2])


def _put(part: QWidget, value: Any) -> None:
    if isinstance(part, QComboBox):
        part.setCurrentIndex(max(0, part.findData(value)))
    elif isinstance(part, QCheckBox):
        part.setChecked(bool(value))
    else:
        quietly(part, "setText" if isinstance(part, QLineEdit) else "setValue", value)


def _value(part: Any) -> Any:
    if isinstance(part, QComboBox):
        return part.currentData()
    if isinstance(part, QCheckBox):
        return part.isChecked()
    return part.text() if isinstance(part, QLineEdit) else part.value()


def _wrapped(words: str) -> str:
    """A tooltip that wraps: Qt breaks lines of rich text alone."""
    from html import escape

    return f"<p>{escape(words)}</p>" if words else ""
