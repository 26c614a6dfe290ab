"""Signals and functions between threads and the GUI, without a window."""

import itertools
import threading
import time

import pytest
from psygnal import Signal

from mdm_studio.errors import InputError
from tests.plugins.gui import settle, wait_until


class Source:
    said = Signal(int)
    named = Signal(str, int)


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


@pytest.fixture
def runner(app):
    from napari_mdm_studio._worker import Runner

    made = Runner()
    yield made
    made.close()


@pytest.mark.gui
def test_emissions_of_any_thread_arrive_in_order_on_the_gui_thread(app):
    from napari_mdm_studio._worker import Relay

    source, got = Source(), []
    relay = Relay(source.said, lambda value: got.append((value, threading.current_thread())))
    source.said.emit(-1)
    assert got == []  # never from within the emission
    thread = threading.Thread(target=lambda: [source.said.emit(value) for value in range(1000)])
    thread.start()
    wait_until(lambda: len(got) == 1001)
    thread.join()
    assert [value for value, _ in got] == list(range(-1, 1000))
    assert {where for _, where in got} == {threading.main_thread()}
    relay.close()
    source.said.emit(5)
    settle(0.05)
    assert len(got) == 1001


@pytest.mark.gui
def test_a_throttled_relay_keeps_the_latest_of_each_key(app):
    from napari_mdm_studio._worker import Relay

    source, got = Source(), []
    relay = Relay(source.named, lambda *values: got.append((*values, time.monotonic())), every=0.1, key=lambda name, _: name)
    for number in range(50):
        source.named.emit("a", number)
        source.named.emit("b", number)
        settle(0.004)
    wait_until(lambda: len(got) >= 2 and {(name, number) for name, number, _ in got} >= {("a", 49), ("b", 49)})
    times = sorted({round(when, 3) for _, _, when in got})
    assert len(got) <= 14  # 0.25 s and more at 10 a second, two keys
    assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(times) if later - earlier > 0.01)
    relay.close()


@pytest.mark.gui
def test_nothing_waits_in_a_closed_relay(app):
    from napari_mdm_studio._worker import Relay

    source, got = Source(), []
    relay = Relay(source.said, got.append)
    source.said.emit(1)
    relay.close()
    settle(0.05)
    assert got == []


@pytest.mark.gui
def test_a_function_runs_elsewhere_and_answers_here(runner):
    got = []
    runner.start(lambda a: (a, threading.current_thread()), 3, done=got.append, failed=got.append)
    wait_until(lambda: got)
    (value, where) = got[0]
    assert value == 3
    assert where is not threading.main_thread()


@pytest.mark.gui
def test_expected_errors_come_back_in_words(runner):
    def fail():
        raise InputError("no such thing")

    got = []
    runner.start(fail, done=lambda _: got.append("done"), failed=got.append)
    wait_until(lambda: got)
    assert got == ["no such thing"]


@pytest.mark.gui
def test_a_closed_runner_leaves_no_thread_and_no_answer(runner):
    got = []
    runner.start(time.sleep, 0.05, done=got.append, failed=got.append)
    runner.close()
    settle(0.05)
    assert got == []
    assert not [thread for thread in threading.enumerate() if "gui-helper" in thread.name]
