"""Errands are done in order, failures are told, and rest comes once after the last news."""

import threading
import time

from mdm_studio.errors import InputError
from mdm_studio.services.clerk import Clerk


def test_errands_rest_and_the_end():
    done, told, rested = [], [], threading.Event()
    clerk = Clerk(rested.set, told.append, rest=0.2)

    def fail(error):
        raise error

    clerk.do(lambda: fail(InputError("in words")))
    clerk.do(lambda: fail(ZeroDivisionError("unforeseen")))
    clerk.do(lambda: done.append(threading.current_thread().name))
    begin = time.monotonic()
    for _ in range(3):
        clerk.stir()
        time.sleep(0.05)
    assert not rested.is_set()
    assert rested.wait(10)
    assert time.monotonic() - begin > 0.29
    assert (done, told) == (["mdm-studio clerk"], ["in words", "ZeroDivisionError: unforeseen"])
    clerk.do(clerk.close)  # even from its own thread
    clerk.close()
    assert clerk.closing
    assert "mdm-studio clerk" not in [thread.name for thread in threading.enumerate()]
