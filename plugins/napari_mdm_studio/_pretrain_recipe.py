"""How a backbone is trained: the recipe, what it begins with, the size of its network, and the recipe's own settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from psygnal import Signal
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QFileDialog, QFormLayout, QLineEdit, QWidget

from mdm_studio.services.backbone_list import BackboneFacts
from mdm_studio.services.new_pretraining import Wanted
from mdm_studio.services.recipe_list import RANDOM_ENCODER, RecipeFacts, fitting_starts, may_be_second_stage, second_stage
from napari_mdm_studio._settings_form import SettingsForm
from napari_mdm_studio._widgets import button, combo, folded, label, note, row, show_row

_NOTHING = "nothing: random weights"
_START_TOOLTIP = "Its weights are where the training begins; that saves time on like images. Only what fits is listed."
_SIZE_TOOLTIP = "Larger ones learn more from many images, and take far longer."
_ENCODER_TOOLTIP = (
    "Name of a model on Hugging Face (microsoft/resnet-50, facebook/dinov2-small), or a folder that one was saved to. "
    "Return takes it."
)
_STAGE_TOOLTIP = "Go on with a first stage of MaskDM: nothing is hidden any more. Its other settings stay as they were."


class RecipeRows:
    """The rows of the form that depend on the recipe; `changed` after each choice of the user's.

    `crop_wanted` tells the crops that suit another recipe, or are all that the backbone to start from can be trained on. Until
    recipes and backbones are listed it answers what was put.
    """

    changed = Signal()
    crop_wanted = Signal(int)

    def __init__(self) -> None:
        self.recipes: dict[str, RecipeFacts] = {}
        self.backbones: tuple[BackboneFacts, ...] = ()
        self._put = Wanted()
        self._channels = 0
        self._sizes: dict[str, str] = {}  # chosen by the user, for each kind of network
        self._kept: dict[str, dict[str, object]] = {}  # settings of recipes that were left
        self._shown = ""  # the recipe whose settings are in the form
        self._staged = ""  # the first stage that the second was offered for
        self._make()

    def _make(self) -> None:
        self.recipe = combo("Recipe", "What is hidden from the network, and what it learns to restore.", {}, letters=12)
        self.about = note()
        self.about.setAccessibleName("What the recipe is and when to take it")
        self.start_from = combo("Start from", _START_TOOLTIP, {}, letters=12)
        self.stage_two = QCheckBox("&stage two (denoising fine-tuning)")
        self.stage_two.setToolTip(_STAGE_TOOLTIP)
        self.encoder = QLineEdit()
        self.encoder.setAccessibleName("Encoder")
        self.encoder.setPlaceholderText("microsoft/resnet-50, or a folder")
        self.encoder.setToolTip(_ENCODER_TOOLTIP)
        self.ask_encoder = button("Fo&lder...", "Choose the folder of a model.", self._ask_encoder, small=True)
        self._encoder_row = QWidget()
        self._encoder_row.setLayout(row(self.encoder, self.ask_encoder))
        self.network_size = combo("Size of the network", _SIZE_TOOLTIP, {}, letters=12)
        self.settings = SettingsForm()
        self.advanced = folded("Advanced", "The recipe's own settings; as they are they suit most images.", self.settings)
        self.recipe.activated.connect(lambda _: self._recipe_chosen())
        self.start_from.activated.connect(lambda _: self._start_chosen())
        self.network_size.activated.connect(lambda _: self._size_chosen())
        self.stage_two.clicked.connect(lambda _: self._staged_or_not())
        self.encoder.editingFinished.connect(self._encoder_typed)
        self.settings.changed.connect(self.changed.emit)

    def add_to(self, rows: QFormLayout) -> None:
        """Put the rows into a form; `advanced` goes where its owner wants it."""
        self._rows = rows
        rows.addRow("Re&cipe", self.recipe)
        rows.addRow(self.about)
        rows.addRow("Start &from", self.start_from)
        rows.addRow("", self.stage_two)
        rows.addRow(label("&Encoder", self.encoder), self._encoder_row)
        rows.addRow("Si&ze", self.network_size)
        self._show()

    # ---- what there is to choose from --------------------------------------------------------------------------------

    def offer_recipes(self, found: Sequence[RecipeFacts]) -> None:
        """List the recipes there are."""
        chosen = self.recipe.currentData() or self._put.recipe
        self.recipes = {facts.name: facts for facts in found}
        self.recipe.clear()
        for number, facts in enumerate(found):
            self.recipe.addItem(facts.label, facts.name)
            self.recipe.setItemData(number, f"<p>{facts.words or facts.label}</p>", Qt.ItemDataRole.ToolTipRole)
        self.recipe.setCurrentIndex(max(0, self.recipe.findData(chosen)))
        self._show()

    def offer_backbones(self, found: Sequence[BackboneFacts]) -> None:
        """List the backbones that a training may begin with."""
        self.backbones = tuple(found)
        self._show()

    def read_channels(self, channels: int) -> None:
        """The new network will read so many channels; 0 if that is not known."""
        if channels != self._channels:
            self._channels = channels
            self._show()

    def put(self, wanted: Wanted) -> None:
        """Show what was chosen the last time."""
        self._put, self._shown = wanted, ""
        self._kept = {wanted.recipe: dict(wanted.recipe_settings)}
        self.recipe.setCurrentIndex(max(0, self.recipe.findData(wanted.recipe)))
        self.encoder.setText(wanted.encoder)
        if self.facts is not None:
            self._sizes[self.facts.network] = wanted.size
        self._show()

    # ---- what is chosen ----------------------------------------------------------------------------------------------

    @property
    def facts(self) -> RecipeFacts | None:
        """The recipe that is chosen; None until they are listed."""
        return self.recipes.get(self.recipe.currentData() or "")

    @property
    def start(self) -> BackboneFacts | None:
        """The backbone to start from; None for random weights."""
        name = self.start_from.currentData()
        return next((facts for facts in self.backbones if facts.name == name), None)

    def fill_in(self, wanted: Wanted) -> Wanted:
        """`wanted` with what these rows say."""
        facts = self.facts
        if facts is None or not self.start_from.count():
            put = self._put
            return replace(
                wanted, recipe=put.recipe, start_from=put.start_from, size=put.size, encoder=put.encoder,
                recipe_settings=put.recipe_settings,
            )  # fmt: skip
        return replace(
            wanted,
            recipe=facts.name,
            start_from=self.start_from.currentData() or "",
            size=self.network_size.currentData() or "",
            encoder=self.encoder.text().strip() if facts.wants_encoder else "",
            recipe_settings=facts.own(self.settings.values()),
        )

    def take_typed(self) -> None:
        """Take over what was typed and not confirmed."""
        self.settings.take_typed()

    def _recipe_chosen(self) -> None:
        self._show()
        self._ask_crop()
        self.changed.emit()

    def _ask_crop(self) -> None:
        if self.facts is not None:
            self.crop_wanted.emit((self.start.crop if self.start else 0) or self.facts.crop)

    def _start_chosen(self) -> None:
        self._put = replace(self._put, start_from=self.start_from.currentData())
        self._show()
        if self.start is not None and self.start.crop:
            self._ask_crop()
        self.changed.emit()

    def _size_chosen(self) -> None:
        if self.facts is not None:
            self._sizes[self.facts.network] = self.network_size.currentData()
        self.changed.emit()

    def _staged_or_not(self) -> None:
        self._show_stage()
        if self.start is not None and not self.stage_two.isChecked():
            self.settings.put({name: value for name, value in self.start.recipe.items() if name != "name"})
        self.changed.emit()

    def _encoder_typed(self) -> None:
        if self.encoder.isModified():
            self.encoder.setModified(False)
            self._show_about()
            self.changed.emit()

    def _ask_encoder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self.encoder, "Folder of a model", self.encoder.text())
        if chosen:
            self.encoder.setText(chosen)
            self._show_about()
            self.changed.emit()

    # ---- showing -----------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        """Bring every row in step with the recipe."""
        facts = self.facts
        if facts is not None:
            self._show_settings(facts)
            self._show_starts(facts)
            self.network_size.clear()
            for size, words in facts.sizes.items():
                self.network_size.addItem(words, size)
            wanted = self._sizes.get(facts.network, self._put.size)
            self.network_size.setCurrentIndex(max(0, self.network_size.findData(wanted)))
        from_nothing = facts is None or not self.start_from.currentData()
        self.network_size.setEnabled(from_nothing)
        self.network_size.setToolTip(_SIZE_TOOLTIP if from_nothing else "That of the backbone to start from.")
        show_row(self._rows, self._encoder_row, bool(facts and facts.wants_encoder and from_nothing))
        self._show_stage()
        self._show_about()

    def _show_about(self) -> None:
        facts = self.facts
        random = facts is not None and facts.freezes_encoder and not self.start and not self.encoder.text().strip()
        self.about.setText(" ".join(filter(None, (facts.words, RANDOM_ENCODER if random else ""))) if facts else "")
        self.about.setVisible(bool(self.about.text()))

    def _show_settings(self, facts: RecipeFacts) -> None:
        if facts.name == self._shown:
            return
        if self._shown in self.recipes:
            self._kept[self._shown] = dict(self.settings.values())
        self._shown = facts.name
        self.settings.offer(facts.settings)
        self.settings.put(self._kept.get(facts.name, {}))
        self.advanced.setVisible(bool(facts.settings))
        QTimer.singleShot(0, self.advanced, self._fit_settings)  # once the new fields are shown

    def _fit_settings(self) -> None:
        """The part that folds away takes the height that it has now."""
        if self.advanced.isExpanded():
            self.advanced.expand(animate=False)

    def _show_starts(self, facts: RecipeFacts) -> None:
        self.start_from.clear()
        for backbone in fitting_starts(self.backbones, facts, self._channels):
            self.start_from.addItem(": ".join(filter(None, (backbone.name, backbone.good_at))), backbone.name)
        self.start_from.addItem(_NOTHING, "")
        index = self.start_from.findData(self._put.start_from)
        self.start_from.setCurrentIndex(index if index >= 0 else self.start_from.count() - 1)

    def _show_stage(self) -> None:
        """Offer the second stage after a first one; it has that one's settings."""
        facts, start = self.facts, self.start
        offered = facts is not None and start is not None and may_be_second_stage(facts, start)
        self.stage_two.setVisible(offered)
        if offered and start is not None and start.name != self._staged:
            self._staged = start.name
            self.stage_two.setChecked(True)  # what most want who begin with a first stage
        self._staged = self._staged if offered else ""
        second = offered and self.stage_two.isChecked()
        if second and start is not None:
            self.settings.put(second_stage(start))
        self.settings.setEnabled(not second)
