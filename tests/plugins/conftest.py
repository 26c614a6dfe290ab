"""A viewer in a real window, and a session that only writes down what it is asked."""

import gc

import pytest

from tests.plugins.gui import FakeSession, running_threads, settle


@pytest.fixture
def session():
    return FakeSession()


@pytest.fixture
def viewer():
    """A viewer in a real window; after the test it closes, and no thread and no window stays."""
    import napari
    from qtpy.QtCore import QThreadPool
    from qtpy.QtWidgets import QApplication

    from napari_mdm_studio._session_home import warm_up

    warm_up()  # so that images are chosen at once; test_opening.py looks at a cold start
    before = running_threads()
    made = napari.Viewer(show=True)
    made.window.resize(1600, 1000)
    settle(0.05)
    yield made
    made.close()
    del made
    settle(0.05)
    gc.collect()
    assert not [widget for widget in QApplication.topLevelWidgets() if widget.isVisible()]
    assert QThreadPool.globalInstance().activeThreadCount() == 0
    assert running_threads() == before


@pytest.fixture
def home(viewer, session):
    from napari_mdm_studio._session_home import home_of

    return home_of(viewer, session=lambda preferences: session)
