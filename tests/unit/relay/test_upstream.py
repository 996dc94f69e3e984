"""Connections to workers, as far as no socket can be made to show it reliably."""

import asyncio

import pytest

from router_core.relay.exchange import Exchange
from router_core.relay.origin import Origin, UpstreamLimits
from router_core.relay.parties import Ending
from router_core.relay.request_head import RequestHead
from router_core.relay.upstream import Upstream

from .fakes import FakeReceiver, FakeTransport, Recorder

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class WorkerTransport(FakeTransport):
    """A transport to a worker; `unsent` bytes wait in its buffer."""

    unsent = 0

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def get_write_buffer_size(self):
        return self.unsent


class ConnectingLoop:
    """A loop on which every connection is made, as `prepare` left its transport."""

    def __init__(self, prepare=lambda transport: None):
        self.transports = []
        self.protocols = []
        self.now = 0.0
        self._prepare = prepare

    def time(self):
        return self.now

    def create_task(self, coroutine):
        return asyncio.get_running_loop().create_task(coroutine)

    async def create_connection(self, make_protocol, host, port, **_tls):
        transport, protocol = WorkerTransport(), make_protocol()
        protocol.connection_made(transport)
        self._prepare(transport)
        self.transports.append(transport)
        self.protocols.append(protocol)
        return transport, protocol


async def forwarded(origin, body=b""):
    """Send a request to the origin; returns it and its listener, once there is a connection or none to be had."""
    exchange = Exchange(FakeReceiver(), RequestHead(b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n"), body)
    listener = Recorder()
    exchange.forward(origin, listener)
    for _ in range(4):
        await asyncio.sleep(0)
    assert isinstance(exchange._source, Upstream) or listener.endings
    return exchange, listener


def origin_on(loop, url="http://worker:8000"):
    return Origin(url, loop=loop, limits=UpstreamLimits())


async def test_a_connection_that_is_closing_when_it_is_made_is_none():
    loop = ConnectingLoop(WorkerTransport.close)
    exchange, listener = await forwarded(origin_on(loop))
    assert listener.endings == [Ending.CONNECT_FAILED]
    assert "closed as soon as it was made" in exchange.error
    assert loop.transports[0].written == b""


async def test_a_connection_lost_to_an_error_without_words_is_lost_all_the_same():
    loop = ConnectingLoop()
    exchange, listener = await forwarded(origin_on(loop))
    exchange.feed(b"HTTP/1.1 200 OK\r\n\r\nhalf")
    loop.protocols[0].connection_lost(ConnectionResetError())
    assert listener.endings == [Ending.CONNECTION_LOST]
    assert "ConnectionResetError" in exchange.error


@pytest.mark.parametrize("line", [b"", b"Connection: close\r\n"])
async def test_a_connection_with_unsent_bytes_is_dropped_rather_than_waited_for(line):
    loop = ConnectingLoop()
    origin = origin_on(loop)
    _, listener = await forwarded(origin, b"x" * 1_000_000)
    loop.transports[0].unsent = 500_000
    loop.protocols[0].data_received(ANSWER.replace(b"Content", line + b"Content", 1))
    assert listener.endings == [Ending.COMPLETE]
    assert loop.transports[0].is_aborted
    await forwarded(origin)
    assert len(loop.transports) == 2


async def test_a_large_body_follows_its_head_exactly():
    loop = ConnectingLoop()
    body = bytes(range(256)) * 1000
    await forwarded(origin_on(loop), body)
    assert loop.transports[0].written.partition(b"\r\n\r\n")[2] == body


async def test_a_connection_paused_at_its_answers_end_reads_again_when_it_is_kept():
    loop = ConnectingLoop()
    origin = origin_on(loop)
    exchange, _ = await forwarded(origin)
    exchange.pause()
    assert not loop.transports[0].is_reading
    loop.protocols[0].data_received(ANSWER)
    assert loop.transports[0].is_reading
    await forwarded(origin)
    assert len(loop.transports) == 1


async def test_a_kept_connection_that_is_closing_is_not_used_and_its_elders_are_closed():
    loop = ConnectingLoop()
    origin = origin_on(loop)
    await forwarded(origin)
    await forwarded(origin)
    for protocol in loop.protocols:
        protocol.data_received(ANSWER)
    loop.transports[1].close()
    await forwarded(origin)
    assert len(loop.transports) == 3
    assert loop.transports[0].is_closed


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://worker:8000", b"worker:8000"),
        ("http://user:secret@worker", b"worker"),
        ("http://[::1]:8000/", b"[::1]:8000"),
    ],
)
async def test_the_host_header_names_the_worker_without_credentials(url, host):
    loop = ConnectingLoop()
    await forwarded(origin_on(loop, url))
    assert b"\r\nHost: " + host + b"\r\n" in loop.transports[0].written


def test_an_address_without_a_host_is_refused():
    with pytest.raises(ValueError, match="names no host"):
        origin_on(ConnectingLoop(), "worker:8000")
