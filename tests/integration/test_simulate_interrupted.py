"""Ctrl-C in the middle of a simulation ends all its processes, without a word from any of them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

LONG = ["--workload", "bursts:{requests: 4000}", "--policy", "least_loaded", "--policy", "random", "--seeds", "99"]


def test_an_interrupt_ends_it_at_once_and_says_nothing():
    terminal, theirs = pty.openpty()
    command = [Path(sys.executable).with_name("router-core"), "simulate", *LONG, "--jobs", "2"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown = b""
        while not re.search(rb"[1-9]\d* %", shown):  # both children are at work
            shown += os.read(terminal, 65536)
        os.killpg(process.pid, 2)
        try:
            while more := os.read(terminal, 65536):
                shown += more
        except OSError:  # the terminal's other end is closed
            pass
        assert process.wait(timeout=30) == 130
    os.close(terminal)
    assert b"Traceback" not in shown
    assert b"KeyboardInterrupt" not in shown
    assert shown.rstrip().endswith(b"\x1b[K")  # the bar is wiped away
