"""Speeds are measured, kept, and said in words."""

import io
import json
import subprocess
import sys
import time

import pytest

from mdm_studio.config import user_data_dir
from mdm_studio.errors import JobError
from mdm_studio.services import estimates
from mdm_studio.services.estimates import Speed, SpeedRequest, as_duration, as_rate, known_speed, measure_speed


@pytest.fixture
def images(images_and_labels):
    return tuple(str(path) for path in sorted(images_and_labels[0].iterdir()))


def process(monkeypatch, code):
    monkeypatch.setattr(estimates, "_COMMAND", (sys.executable, "-c", code))


def test_a_speed_is_measured_once_and_kept(monkeypatch, images):
    code = "import json, sys\nn = len(json.load(sys.stdin)['images'])\n"
    code += "print(f'{{\"images_per_s\": {n}, \"device\": \"this CPU\"}}')"
    process(monkeypatch, code)
    request = SpeedRequest(images, crop=16, batch=2, device="cpu")
    assert known_speed(request) is None
    speed = measure_speed(request)
    assert speed.words() == "3.0 images/s on this CPU, measured just now"
    assert known_speed(request) == speed
    assert known_speed(SpeedRequest(images, crop=32, batch=2, device="cpu")) is None
    estimates.keep_speed(request, 7.0, "cuda:0")
    assert known_speed(request).words() == "7.0 images/s on this GPU, measured just now"
    (user_data_dir() / "speeds.json").write_text("{")
    assert known_speed(request) is None


def test_real_steps_are_timed(images):
    rate, device = estimates.time_steps(SpeedRequest(images, crop=16, batch=2, device="cpu"))
    assert 0.01 < rate < 10_000
    assert device == "this CPU"


def test_a_measurement_can_be_stopped_at_once_and_ends_by_itself(monkeypatch, images):
    process(monkeypatch, "import time; time.sleep(60)")
    begin = time.monotonic()
    assert measure_speed(SpeedRequest(images), lambda: time.monotonic() > begin + 0.2) is None
    monkeypatch.setattr(estimates, "_LONGEST", 0.2)
    with pytest.raises(JobError, match="the computer is busy"):
        measure_speed(SpeedRequest(images))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("output", "errors", "words"),
    [('{"error": "too large"}', "", "too large"), ("", "Traceback\nValueError: odd", "Error: odd"), ("", "", "said nothing")],
)
def test_what_went_wrong_is_told(output, errors, words):
    with pytest.raises(JobError, match=words):
        estimates._answer(subprocess.CompletedProcess([], 0, output, errors))


def test_the_process_answers_in_words_when_it_cannot(monkeypatch, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setattr(estimates, "_give_way", lambda: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"images": [str(tmp_path / "a.png")]})))
    monkeypatch.setattr(sys, "stdout", said := io.StringIO())
    estimates.main()
    assert "none of 1 images can be read" in json.loads(said.getvalue())["error"]


def test_a_network_that_does_not_fit_is_refused_before_it_is_made(monkeypatch, images):
    monkeypatch.setattr(estimates, "_free_memory", lambda: 1e9)
    with pytest.raises(JobError, match="more than 11 GB of memory and 1 GB are free"):
        estimates.time_steps(SpeedRequest(images, size="adm-256", device="cpu", crop=32))


def test_a_whole_batch_is_timed_only_where_it_is_quick(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: clock[0])
    sizes = []

    def steps(batches, each):
        for batch in batches:
            sizes.append(len(batch))
            clock[0] += each * len(batch) + 0.1
            yield None

    batches = [[0] * 16] * 20
    assert estimates._timed(lambda given: steps(given, 0.1), iter(batches), 16) == pytest.approx(16 / 1.7)
    assert sizes[:3] == [1, 1, 16]
    sizes.clear()
    assert estimates._timed(lambda given: steps(given, 9.9), iter(batches), 16) == pytest.approx(0.1)
    assert sizes == [1, 1]


def test_budgets_in_words():
    speed = Speed(8.0, "this CPU", time.time() - 3 * 86400)
    assert speed.usual_minutes() == 90
    assert speed.describe(30, 16) == (
        "30 min is about 900 steps; a useful run (2,000 steps) takes about 1 h 7 min "
        "(8.0 images/s on this CPU, measured 3 days ago)."
    )
    assert Speed(500.0, "a GPU", 0).usual_minutes() == 10
    assert Speed(0.1, "this CPU", 0).usual_minutes() == 480
    assert [as_duration(s) for s in (0.2, 75, 600, 3600, 4810, 40_000, 300_000)] == [
        "1 s", "75 s", "10 min", "1 h", "1 h 20 min", "11 h", "3 days",
    ]  # fmt: skip
    assert [as_rate(value) for value in (0.0312, 3.14, 240.4)] == ["0.031", "3.1", "240"]
