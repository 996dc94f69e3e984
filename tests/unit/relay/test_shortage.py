import errno
import logging
import socket
import ssl

import pytest

from router_core.relay.shortage import Shortages, shortage_of


def error(number):
    return OSError(number, "what the kernel says")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, "files"),
        (errno.ENFILE, "files_of_machine"),
        (errno.EADDRNOTAVAIL, "ports"),
        (errno.ENOBUFS, "memory"),
        (errno.ECONNREFUSED, None),
        (errno.EHOSTUNREACH, None),
        (errno.ENETUNREACH, None),
    ],
)
def test_what_the_router_lacks_is_told_from_what_is_wrong_with_a_worker(number, kind):
    assert shortage_of(error(number), "127.0.0.1", 8000) == kind


@pytest.mark.parametrize(
    "other",
    [TimeoutError(), ssl.SSLError(1, "handshake"), socket.gaierror(socket.EAI_NONAME, "no such name"), OSError()],
)
def test_what_has_nothing_to_do_with_it_is_the_workers(other):
    assert shortage_of(other, "worker", 8000) is None


def test_an_address_that_this_machine_cannot_reach_at_all_is_no_want_of_ports(monkeypatch):
    """As `::1` where IPv6 is off."""

    class Unreachable(socket.socket):
        def connect(self, address):
            raise error(errno.EADDRNOTAVAIL)

    monkeypatch.setattr(socket, "socket", Unreachable)
    assert shortage_of(error(errno.EADDRNOTAVAIL), "127.0.0.1", 8000) is None
    assert shortage_of(error(errno.EADDRNOTAVAIL), "worker", 8000) == "ports"


def test_it_is_told_at_once_and_then_every_ten_seconds_with_the_number_in_between(caplog):
    caplog.set_level(logging.ERROR)
    now = 100.0
    shortages = Shortages(lambda: now)
    for _ in range(5):
        shortages.note("ports", "http://worker:8000")
    now += 10
    shortages.note("ports", "http://worker:8000")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("no connection to http://worker:8000: no local port is left to connect from; widen")
    assert second.endswith("(4 more requests since this was last said)")
    assert {kind: times for kind, times in shortages.counts.items() if times} == {"ports": 6}
