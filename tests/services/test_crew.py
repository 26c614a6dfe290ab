import threading
import time

from mdm_studio.services.crew import Crew


def test_each_role_gets_its_jobs_and_waits_for_news():
    jobs, done = {"a": [], "b": []}, []
    asked = threading.Event()

    def ask(role):
        if jobs[role]:
            name = jobs[role].pop()
            return lambda: done.append((role, name, threading.current_thread().name))
        asked.set()
        return None

    crew = Crew(("a", "b"), ask)
    assert asked.wait(5)
    for number in range(50):
        jobs["a"].append(number)
        jobs["b"].append(-number)
        crew.wake()
        end = time.monotonic() + 5
        while len(done) < 2 * (number + 1):
            assert time.monotonic() < end, "a call to wake was missed"
            time.sleep(0.0005)
    assert {(role, thread) for role, _, thread in done} == {("a", "mdm-studio a"), ("b", "mdm-studio b")}
    assert crew.close(5)


def test_closing_waits_for_the_job_that_is_being_done_and_no_longer_than_told():
    going, finish = threading.Event(), threading.Event()

    def job():
        going.set()
        finish.wait(10)

    crew = Crew(("a",), lambda role: job)
    assert going.wait(5)
    assert not crew.close(0.05)
    finish.set()
    assert crew.close(5)
    assert not [thread for thread in threading.enumerate() if thread.name == "mdm-studio a"]
