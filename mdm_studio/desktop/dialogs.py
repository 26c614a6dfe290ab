"""Questions to the user and words for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QFontDatabase, QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from mdm_studio.desktop.icons import program_icon
from mdm_studio.desktop.recent import short
from mdm_studio.io.paths import user_path

if TYPE_CHECKING:
    from mdm_studio.desktop.crash import CrashReport

TITLE = "MDM Studio"


def warn(parent: QWidget, text: str) -> None:
    """Say what did not work."""
    box = QMessageBox(QMessageBox.Icon.Warning, TITLE, text[:1].upper() + text[1:], parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.exec()


def ask_folder(parent: QWidget, title: str, begin: str) -> Path | None:
    """Ask for a folder."""
    chosen = QFileDialog.getExistingDirectory(parent, title, begin)
    return Path(chosen) if chosen else None


def ask_images(parent: QWidget, begin: str) -> tuple[Path, ...]:
    """Ask for image files."""
    from mdm_studio.io.images import EXTENSIONS

    kinds = " ".join(f"*{suffix}" for suffix in EXTENSIONS if suffix != ".zarr")
    chosen, _ = QFileDialog.getOpenFileNames(parent, "Open image files", begin, f"Images ({kinds});;All files (*)")
    return tuple(Path(each) for each in chosen)


def ask_forget(parent: QWidget, folder: Path) -> bool:
    """Ask whether a project that is not there is to leave the list."""
    box = QMessageBox(QMessageBox.Icon.Question, TITLE, f"The project {folder.name} is not there.", parent=parent)
    box.setInformativeText(
        f"{folder} cannot be found. If it lies on a drive or a network share, connect it and try again. "
        "Remove the project from the list of recent projects?"
    )
    remove = box.addButton("&Remove", QMessageBox.ButtonRole.AcceptRole)
    keep = box.addButton("&Keep", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.exec()
    return box.clickedButton() is remove


def ask_new_project(parent: QWidget, images: Path, proposed: Path) -> Path | None:
    """Ask where the project of a folder of images goes."""
    dialog = NewProject(parent, images, proposed)
    return dialog.folder() if dialog.exec() else None


class NewProject(QDialog):
    """Name and place of a new project."""

    def __init__(self, parent: QWidget | None, images: Path, proposed: Path) -> None:
        super().__init__(parent)
        self.setWindowTitle("New project")
        self.setMinimumWidth(520)
        self.name = QLineEdit(proposed.name)
        self.name.setAccessibleName("Name of the project")
        self.name.setToolTip("The folder of the project gets this name.")
        self.place = QLineEdit(str(proposed.parent))
        self.place.setAccessibleName("Folder that the project is made in")
        self.place.setToolTip("Strokes, classes and the classifier are kept there; your images stay where they are.")
        browse = QPushButton("&Browse...")
        browse.setToolTip("Choose another place.")
        browse.clicked.connect(self._browse)
        beside = QHBoxLayout()
        beside.addWidget(self.place, 1)
        beside.addWidget(browse)
        form = QFormLayout()
        form.setVerticalSpacing(10)
        where = QLabel(short(images))
        where.setWordWrap(True)
        form.addRow("Images:", where)
        form.addRow("&Name:", self.name)
        form.addRow("&In:", beside)
        self._problem = QLabel()
        self._problem.setWordWrap(True)
        self._problem.setAccessibleName("Why the project cannot be made there")
        self._buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self._create = self._buttons.addButton("Create &project", QDialogButtonBox.ButtonRole.AcceptRole)
        self._create.setDefault(True)
        self._buttons.accepted.connect(self.accept)
        self._buttons.rejected.connect(self.reject)
        words = QLabel("The images stay where they are. What you paint is saved in the project as you go.")
        words.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(18, 16, 18, 14)
        column.setSpacing(12)
        column.addWidget(words)
        column.addLayout(form)
        column.addWidget(self._problem)
        column.addWidget(self._buttons)
        for field in (self.name, self.place):
            field.textChanged.connect(self._look)
        self._look()

    def folder(self) -> Path:
        """The folder of the project."""
        return user_path(self.place.text().strip()) / self.name.text().strip()

    def _look(self) -> None:
        problem = name_problem(self.name.text().strip(), self.folder())
        self._problem.setText(problem)
        self._create.setEnabled(not problem)

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder that the project is made in", self.place.text())
        if chosen:
            self.place.setText(chosen)


def name_problem(name: str, folder: Path) -> str:
    """Why a new project cannot be made in `folder`, in words; empty if it can."""
    if not name or name.strip(".") == "" or any(letter in name for letter in '/\\:*?"<>|'):
        return 'Give the project a name without / \\ : * ? " < > |'
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            return "There is something of this name already; choose another name."
    except OSError as error:
        return f"This place cannot be used: {error.strerror}."
    return ""


class TextDialog(QDialog):
    """A page of text: help, what is new, a report.

    Parameters
    ----------
    text : str
        Markdown, HTML that begins with a tag, or plain text in letters of one width.
    plain : bool
        Whether it is plain text, which can be copied by a button.
    folder : Path or None
        A folder that a button opens.
    """

    def __init__(
        self, parent: QWidget | None, title: str, text: str, *, head: str = "", plain: bool = False, folder: Path | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.resize(QSize(720, 560))
        self.view: QPlainTextEdit | QTextBrowser
        if plain:
            self.view = QPlainTextEdit(text)
            self.view.setReadOnly(True)
            self.view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
            self.view.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        else:
            self.view = QTextBrowser()
            self.view.setOpenExternalLinks(True)
            self.view.document().setDocumentMargin(14)
            self.view.setHtml(text) if text.startswith("<") else self.view.setMarkdown(text)
        self.view.setAccessibleName(title)
        column = QVBoxLayout(self)
        column.setContentsMargins(18, 16, 18, 14)
        column.setSpacing(12)
        if head:
            column.addLayout(_head(head))
        column.addWidget(self.view, 1)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self.buttons.rejected.connect(self.reject)
        role = QDialogButtonBox.ButtonRole.ActionRole
        if plain:
            self.buttons.addButton("&Copy", role).clicked.connect(lambda: QGuiApplication.clipboard().setText(text))
        if folder is not None:
            self.buttons.addButton("Open &folder", role).clicked.connect(lambda: open_folder(folder))
        column.addWidget(self.buttons)


def crash_dialog(parent: QWidget | None, report: CrashReport, folder: Path) -> TextDialog:
    """The dialog that shows a report."""
    kept = f"A report was written to {short(report.path)}." if report.path else "The report could not be written to the disk."
    head = (
        f"**Something failed that should not have.**\n\n{report.saved} You can go on; if anything looks odd, "
        f"close the window and start again.\n\n{kept}"
    )
    dialog = TextDialog(parent, "MDM Studio met an error", report.text, head=head, plain=True, folder=folder)
    dialog.buttons.button(QDialogButtonBox.StandardButton.Close).setText("&Go on")
    return dialog


def open_folder(folder: Path) -> None:
    """Show a folder in the system's file manager."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))


def _head(text: str) -> QHBoxLayout:
    picture, words = QLabel(), QLabel(text)
    picture.setPixmap(program_icon().pixmap(QSize(48, 48)))
    words.setTextFormat(Qt.TextFormat.MarkdownText)
    words.setWordWrap(True)
    row = QHBoxLayout()
    row.setSpacing(16)
    row.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
    row.addWidget(words, 1)
    return row
