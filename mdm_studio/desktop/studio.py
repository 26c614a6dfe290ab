"""What the program does: the one that the menus, the start page and the arguments turn to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PySide6.QtCore import QObject, QStandardPaths, QTimer, Signal
from PySide6.QtWidgets import QApplication

from mdm_studio.config import resource, user_data_dir
from mdm_studio.desktop import background_jobs, dialogs, theme
from mdm_studio.desktop.arguments import Wanted, place_for, sort_out
from mdm_studio.desktop.desk import Desk, dock_plan, set_viewer_theme
from mdm_studio.desktop.recent import is_project, look_up, with_project, without
from mdm_studio.desktop.settings import SettingsFile, Theme
from mdm_studio.desktop.window import MainWindow
from mdm_studio.errors import MDMStudioError

if TYPE_CHECKING:
    from napari_mdm_studio._worker import Runner

Open = Literal["nothing", "images", "project"]
_BEGIN = {"images": ("segment",), "project": ("images", "segment", "pretrain", "export")}
"""Docks that are open at first, by what is open."""


class Studio(QObject):
    """The program.

    Parameters
    ----------
    window : MainWindow
        Its window.
    settings : SettingsFile
        What it remembers.

    Attributes
    ----------
    changed : Signal
        What is open has changed; menus look again.
    usable : Signal
        The viewer is there for the first time.
    desk : Desk or None
        The viewer in use, or the one made in advance for what is opened next.
    open : str
        "nothing", "images" or "project".
    project : Path or None
        The folder of the project that is open.
    recent : RecentProjects
        The list on the start page.
    """

    changed = Signal()
    usable = Signal()

    def __init__(self, window: MainWindow, settings: SettingsFile) -> None:
        super().__init__(window)
        self.window, self.settings = window, settings
        self.desk: Desk | None = None
        self.open: Open = "nothing"
        self.project: Path | None = None
        self._loaded = False
        self._waiting: list[Callable[[], object]] = []
        self._runners: tuple[Runner, ...] = ()
        page = window.start_page
        page.new_project.connect(lambda: self.new_project())
        page.open_project.connect(lambda: self.open_project())
        page.open_images.connect(lambda: self.open_images())
        page.open_samples.connect(self.open_samples)
        self.recent = RecentProjects(self)
        window.dropped.connect(self.open_paths)
        window.may_close = self.may_quit

    # ---- the start ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Import what the viewer needs, on a thread, then make the viewer; called when the window is on the screen."""
        from mdm_studio.desktop.loading import load_session, load_viewer
        from napari_mdm_studio._worker import Runner

        self._runner, self._looker = self._runners = Runner(self), Runner(self)
        self.recent.show(self._looker)
        self.window.start_page.say("Preparing the viewer...")

        def revived(count: int) -> None:
            if count:
                jobs = "A job that was interrupted goes" if count == 1 else f"{count} jobs that were interrupted go"
                self.window.banner.say(f"{jobs} on.")

        def viewer_loaded(_: None) -> None:
            self._loaded = True
            self._prepare()
            self.usable.emit()
            # not earlier: two threads that import hold each other up, and the viewer with them
            self._runner.start(load_session, done=lambda _: self.window.start_page.say(""), failed=self.warn)
            self._looker.start(background_jobs.revive, done=revived, failed=self.warn)
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()

        self._runner.start(load_viewer, done=viewer_loaded, failed=self.warn)

    def _prepare(self) -> Desk:
        """The viewer for what is opened next, made if need be."""
        if self.desk is None:
            set_viewer_theme(self.settings.value.theme)
            self.desk = Desk()
            self.window.add_page(self.desk.page)
        return self.desk

    def _when_loaded(self, callback: Callable[[], object]) -> None:
        """Call `callback` after the page has been painted, or once the viewer can be made."""
        if self._loaded:
            QTimer.singleShot(0, self, callback)
        else:
            self._waiting.append(callback)

    # ---- opening -----------------------------------------------------------------------------------------------------

    def open_paths(self, paths: Sequence[Path]) -> None:
        """Open whatever these are."""
        try:
            self.open_wanted(sort_out(paths))
        except MDMStudioError as error:
            self.warn(str(error))

    def open_wanted(self, wanted: Wanted) -> None:
        """Open what `sort_out` made of the user's arguments."""
        if wanted.project is not None:
            self.open_project(wanted.project, wanted.classifier)
        elif wanted.folder is not None:
            self.new_project(wanted.folder)
        elif wanted.images or (wanted.classifier and self.open == "nothing"):
            self.open_images(wanted.images, wanted.classifier)
        elif wanted.classifier:
            self._load_classifier(wanted.classifier)

    def new_project(self, images: Path | None = None) -> None:
        """Make a project of a folder of images; asks for what is not given."""
        images = images or self._ask_folder("New project: the folder with your images")
        if images is None:
            return
        if is_project(images):
            self.open_project(images)
            return
        documents = Path(QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation))
        folder = dialogs.ask_new_project(self.window, images, place_for(images, documents))
        if folder is not None:
            self._make_project(folder, images)

    def open_project(self, folder: Path | None = None, classifier: Path | None = None) -> None:
        """Open a project; asks which unless it is given."""
        chosen = folder or self._ask_folder("Open project")
        if chosen is None:
            return
        chosen = chosen.absolute()
        if self.project == chosen:
            self.window.show_page(self._prepare().page)
            return

        def opened(desk: Desk) -> None:
            from napari_mdm_studio._project import open_project

            desk.home = open_project(desk.viewer, chosen)
            self.project = chosen
            self._load_classifier(classifier)

        self._replace("project", chosen.name, opened)

    def open_images(self, paths: Sequence[Path] = (), classifier: Path | None = None) -> None:
        """Open image files without a project, beside those that are open; asks which unless something is given."""
        if not paths and classifier is None:
            paths = dialogs.ask_images(self.window, self.settings.value.folder)
            if not paths:
                return
            self.settings.change(folder=str(paths[0].parent))

        def opened(desk: Desk) -> None:
            from napari_mdm_studio._session_home import home_of

            desk.home = home_of(desk.viewer)
            if paths:
                desk.open_files(paths)
            self._load_classifier(classifier)

        if self.open == "images" and self.desk is not None:
            opened(self.desk)
        else:
            self._replace("images", paths[0].name if len(paths) == 1 else "Images", opened)

    def open_dock(self, name: str) -> None:
        """Open a dock, or bring it to the front; where nothing is open yet, in an empty viewer."""

        def opened(desk: Desk) -> None:
            from napari_mdm_studio._session_home import home_of

            desk.home = home_of(desk.viewer)

        if self.open == "nothing":
            self._replace("images", dock_plan(name).title, opened)
        self._when_loaded(lambda: self.desk.open_dock(name) if self.desk is not None and self.open != "nothing" else None)

    def open_samples(self) -> None:
        """Open the bundled images as a project of the user's own, made the first time."""
        folder = user_data_dir() / "samples" / "Nuclei samples"
        if is_project(folder):
            self.open_project(folder)
        else:
            self._make_project(folder, resource("samples/nuclei/images"))

    def close_project(self) -> None:
        """Close what is open and go back to the start page."""
        if self._let_go():
            self.recent.show(self._looker)
            self.window.show_start()
            self._when_loaded(self._prepare)

    def _make_project(self, folder: Path, images: Path) -> None:
        """Make a project of the images of a folder and open it."""
        from mdm_studio.io.images import find_images

        def found(files: list[Path]) -> None:
            def opened(desk: Desk) -> None:
                from napari_mdm_studio._project import create_project

                desk.home = create_project(desk.viewer, folder, files)
                self.project = folder

            self._replace("project", folder.name, opened)

        self._looker.start(find_images, [images], done=found, failed=self.warn)

    def _replace(self, what: Open, name: str, opened: Callable[[Desk], object]) -> None:
        """Close what is open and open something else in a viewer of its own; say so if that fails."""
        if not self._let_go():
            return
        self.window.show_busy(f"Opening {name}...")

        def proceed() -> None:
            desk = self._prepare()
            try:
                opened(desk)
                desk.arrange(_BEGIN[what], self.settings.value.docks if what == "project" else "")
            except MDMStudioError as error:
                self._give_up()
                self.warn(str(error))
                return
            except Exception:
                self._give_up()
                raise
            self._show(desk, what, name)

        self._when_loaded(proceed)

    def _give_up(self) -> None:
        """What was to be opened cannot be: back to the start page, with a new viewer."""
        desk, self.desk, self.project = self.desk, None, None
        self.window.show_start()
        if desk is not None:
            self.window.drop_page(desk.page)
            desk.close()
        self._when_loaded(self._prepare)

    def _show(self, desk: Desk, what: Open, name: str) -> None:
        self.open = what
        self.window.set_name(name)
        self.window.show_page(desk.page)
        if not (what == "project" and self.settings.value.docks):
            QTimer.singleShot(0, self, desk.fit)  # sizes are those of the window by then
        if desk.home is not None:
            desk.home.relay(desk.home.project_asked, self.open_project)  # the list of images has such buttons, too
        if self.project is not None and desk.home is not None:
            self.settings.change(recent=with_project(self.settings.value.recent, self.project))
            desk.home.relay(desk.home.session.noticed, lambda _: self._follow(desk))
        self.changed.emit()

    def _follow(self, desk: Desk) -> None:
        """The project may have been saved under another name: it is that one from now on."""
        workspace = desk.home.workspace if desk.home is not None else None
        if workspace is not None and desk is self.desk and workspace.folder != self.project:
            self.project = workspace.folder
            self.window.set_name(self.project.name)
            self.settings.change(recent=with_project(self.settings.value.recent, self.project))
            self.changed.emit()

    def _load_classifier(self, path: Path | None) -> None:
        if path is not None and self.desk is not None and self.desk.home is not None:
            self.desk.home.session.load_classifier(path)

    def _let_go(self) -> bool:
        """End the viewer that is in use; False if the user wants to keep it."""
        desk = self.desk
        if desk is None or (self.open == "nothing" and desk.home is None):
            return True
        if self.open == "project":
            self.settings.change(docks=desk.dock_state())
        if not desk.close():
            return False
        self.window.drop_page(desk.page)
        self.desk, self.project, self.open = None, None, "nothing"
        self.changed.emit()
        return True

    # ---- talking to the user -----------------------------------------------------------------------------------------

    def warn(self, text: str) -> None:
        """Say what did not work."""
        dialogs.warn(self.window, text)

    def set_theme(self, name: Theme) -> None:
        """Choose the colours."""
        self.settings.change(theme=name)
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        self.window.wear(theme.wear(application, name))
        if self._loaded:
            set_viewer_theme(name)
        self.changed.emit()

    def save_work(self) -> str:
        """Save what is not on disk yet and say what became of it; for those who met an error."""
        home = self.desk.home if self.desk is not None else None
        if home is None or self.open == "nothing":
            return "No work was open."
        unsaved = home.session.unsaved()
        return unsaved or "Your work is saved."

    def _ask_folder(self, title: str) -> Path | None:
        chosen = dialogs.ask_folder(self.window, title, self.settings.value.folder)
        if chosen is not None:
            self.settings.change(folder=str(chosen.parent))
        return chosen

    # ---- the end -----------------------------------------------------------------------------------------------------

    def may_quit(self) -> bool:
        """Ask about what is not saved and about jobs, and end the viewer; False if the user wants to stay."""
        self.settings.change(geometry=self.window.geometry_text())
        if not self._loaded:
            self._waiting.clear()
            return True
        if not self._let_go():
            return False
        if not self.settings.value.told_of_jobs:
            self.settings.change(told_of_jobs=background_jobs.tell(self.window))
        return True

    def close(self) -> None:
        """End every thread; the window is closed by now."""
        if self.desk is not None:
            self.desk.close()
            self.desk = None
        for runner in self._runners:
            runner.close()


class RecentProjects:
    """The recent projects on the start page: shows, opens and forgets them."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        page = studio.window.start_page
        page.recent_chosen.connect(self.open)
        page.recent_removed.connect(self.forget)

    def show(self, runner: Runner) -> None:
        """Show them, once it is known on the runner's thread which of them are there."""
        self._runner = runner
        studio = self._studio
        runner.start(look_up, studio.settings.value.recent, done=studio.window.start_page.show_recent, failed=studio.warn)

    def forget(self, folder: Path) -> None:
        """Take a project out of the list; its files stay."""
        self._studio.settings.change(recent=without(self._studio.settings.value.recent, folder))
        self.show(self._runner)
        self._studio.changed.emit()

    def open(self, folder: Path) -> None:
        """Open one, or ask whether to forget it if it is not there."""
        if is_project(folder):
            self._studio.open_project(folder)
        elif dialogs.ask_forget(self._studio.window, folder):
            self.forget(folder)
