"""Tests that run in Triton's interpreter: those marked `interpreted`.

Whether a kernel is interpreted is settled when Triton is imported, so a process of their own runs them, with this plugin. It
runs one at a time, when its turn has come here, and its report appears among the others.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PIPES = "STAA_INTERPRETER_PIPES"
"""Environment variable of the other process: where it reads which test to run, and where it writes its reports."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if INTERPRETED or item.get_closest_marker("interpreted") is None:
        return None
    if _Interpreter.running is None:
        chosen = {str(other.path) for other in item.session.items if other.get_closest_marker("interpreted")}
        _Interpreter.running = _Interpreter(chosen)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _Interpreter.running.run(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem)  # what is left of the test before
    return True


def pytest_sessionfinish():
    if _Interpreter.running is not None:
        _Interpreter.running.end()


class _Interpreter:
    running = None

    def __init__(self, files):
        (asked, ask), (reading, writing) = os.pipe(), os.pipe()  # pytest shuts stdin
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sorted(files)]
        environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", PIPES: f"{asked} {writing}"}
        for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
            environment.pop(name, None)
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(command, env=environment, cwd=HERE.parent, pass_fds=[asked, writing], **quiet)
        for end in (asked, writing):
            os.close(end)
        self.questions, self.reports = os.fdopen(ask, "w"), os.fdopen(reading)

    def end(self):
        _Interpreter.running = None
        with suppress(OSError):  # it has ended by itself
            self.questions.close()
        self.reports.close()
        return self.process.wait(30)

    def run(self, item):
        try:
            print(item.nodeid, file=self.questions, flush=True)
            line = self.reports.readline()
        except OSError:
            line = ""
        if not line:
            died = f"the process of Triton's interpreter ended with {self.end()}"
            return [pytest.TestReport(item.nodeid, item.location, {}, "failed", died, "call")]
        back = item.config.hook.pytest_report_from_serializable
        return [back(config=item.config, data=data) for data in json.loads(line)]


class _Listener:
    def pytest_runtest_logreport(self, report):
        self.reports.append(report)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """In the other process: run what is asked for."""
    if PIPES not in os.environ:
        return None
    asked, writing = map(int, os.environ[PIPES].split())
    items = {item.nodeid: item for item in session.items}
    there = session.config.hook.pytest_report_to_serializable
    listener = _Listener()
    session.config.pluginmanager.register(listener)
    with os.fdopen(asked) as questions, os.fdopen(writing, "w") as answers:
        for line in questions:
            item = items[line.removesuffix("\n")]
            listener.reports = []
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            print(json.dumps([there(config=session.config, report=r) for r in listener.reports]), file=answers, flush=True)
    return True
