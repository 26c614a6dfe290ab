"""A job that only counts: what the driver, the board and a worker process are tested with, without PyTorch.

Run as a program it is the worker of such jobs.
"""

import sys
import time

from mdm_studio.io.job_folder import MetricsLog
from mdm_studio.services.jobs import kinds
from mdm_studio.services.jobs.states import JobReport


def run(folder, *, stop):
    asked = folder.settings()
    first = len(folder.read_metrics())
    with MetricsLog(folder.metrics) as log:
        for step in range(first + 1, asked["steps"] + 1):
            if stop():
                return
            time.sleep(asked.get("step_s", 0))
            log.write(step=step)
            facts = {"device": "cpu", "result": str(folder.backbone)}
            yield JobReport(step / asked["steps"], step, asked["steps"], 1.0, 2.0, "steps/s", "", facts)


kinds.KINDS["count"] = "counting:run"

if __name__ == "__main__":
    from mdm_studio.services.jobs import worker

    sys.modules["counting"] = sys.modules["__main__"]
    sys.exit(worker.main(sys.argv[1:]))
