from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from router_core.observability.logs import OneLineFormatter, configure_logging, log_level, set_log_level


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    names = ("", "aiohttp.access", "asyncio")
    handlers, levels = list(root.handlers), [logging.getLogger(name).level for name in names]
    yield
    root.handlers[:] = handlers
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def test_an_unknown_level_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'loud' is unknown; use one of critical, error, warning, info, debug"):
        configure_logging("loud")


def test_a_record_is_one_line_with_an_iso_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    logging.getLogger("router_core.test").info("model %s", "x\n2026-01-01 ERROR forged")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d INFO router_core.test: model x \| 2026", line)


def test_a_traceback_stays_on_its_records_line() -> None:
    try:
        raise ValueError("bad\nthing")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", None, (type(error), error, None))
    assert OneLineFormatter("%(message)s").format(record) == "failed | ValueError: bad | thing"


def test_configuring_twice_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    configure_logging("WARNING")
    logging.getLogger("router_core.test").info("quiet")
    logging.getLogger("router_core.test").warning("once")
    assert capsys.readouterr().err.count("\n") == 1


def test_the_access_log_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("debug")
    logging.getLogger("aiohttp.access").info("GET /health")
    assert capsys.readouterr().err == ""


def test_a_json_record_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logger = logging.getLogger("router_core.test")
    logger.info("model %s", "x\ny \u2028 \ud800", extra={"fields": {"status": 200, "worker": None}})
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logger.exception("failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == (
        "info",
        "router_core.test",
        "model x\ny \u2028 \ud800",
    )
    assert (first["status"], first["worker"]) == (200, None)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d$", first["time"])
    assert second["exception"].endswith("ValueError: bad\nthing")


def test_the_level_changes_at_any_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    logger = logging.getLogger("router_core.test")
    logger.info("before")
    set_log_level("Debug")
    logger.debug("after")
    with pytest.raises(ValueError, match="unknown"):
        set_log_level("loud")
    assert log_level() == "debug"
    assert "after" in (written := capsys.readouterr().err)
    assert "before" not in written
