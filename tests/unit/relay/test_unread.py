import socket

import pytest

from router_core.relay.unread import Unread


class FullTransport:
    """A transport whose own buffer never moves, as a second one hides behind it over TLS."""

    def __init__(self, connection):
        self.connection = connection

    def get_write_buffer_size(self):
        return 70_000

    def get_extra_info(self, name):
        return self.connection


@pytest.fixture
def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as router:
        client, _ = listener.accept()
        with client:
            router.setblocking(False)
            try:
                while True:
                    router.send(b"x" * 65536)
            except BlockingIOError:
                yield router, client


def test_time_runs_while_nothing_moves_and_begins_anew_when_the_clients_machine_takes_something(connected):
    router, client = connected
    unread = Unread(FullTransport(router), 100.0)
    assert [unread.still_s(now) for now in (100.0, 130.0, 160.0)] == [0, 30, 60]
    while unread.still_s(161.0):
        client.recv(65536)
    assert unread.still_s(170.0) in (0, 9)  # what was read last may still be told
    assert unread.still_s(200.0) >= 30


def test_a_connection_that_is_closed_is_no_error(connected):
    router, _ = connected
    unread = Unread(FullTransport(router), 100.0)
    router.close()
    unread.still_s(101.0)
