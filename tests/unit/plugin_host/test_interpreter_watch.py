"""C code that keeps the interpreter lock is seen from outside Python; in a process of its own, for it may be ended."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, logging, sys, time
from router_core.plugin_host.interpreter_watch import InterpreterWatch

logging.basicConfig(format="%(message)s")
keeping_the_lock = ctypes.PyDLL(None)

def stuck():
    keeping_the_lock.usleep({held_us})

with InterpreterWatch(ends_process=lambda: {ends}, limit_s=0.4, every_s=0.05):
    stuck()
    time.sleep(0.5)
print("went on")
"""


def run(**values):
    script = SCRIPT.format(**values)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(("ends", "code", "out"), [(False, 0, "went on\n"), (True, 1, "")])
def test_code_that_keeps_the_interpreter_shows_its_stack_and_ends_the_process_where_configured(ends, code, out):
    done = run(held_us=900_000, ends=ends)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.count("Timeout (0:00:00.4") == 1
    assert "in stuck" in done.stderr
    assert ("C code kept the interpreter lock" in done.stderr) is not ends


def test_python_code_that_is_stuck_is_none_of_its_business():
    done = run(held_us=0, ends=True)
    assert (done.returncode, done.stderr) == (0, "")
