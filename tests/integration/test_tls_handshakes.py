"""Handshakes that fail: counted, told in the log, and nothing of them stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from pathlib import Path

import pytest

from router_core.testing.simulated_engine import SimulatedEngine

from .certificates import Authority
from .support import RawClient, Router, running_router, until

FAILURES = "router_core_tls_handshake_failures_total"
SECRET = "correct-horse"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(autouse=True)
def _every_line(caplog):
    caplog.set_level(logging.DEBUG, "router_core.relay")


async def failures(router: Router) -> dict[str, float]:
    samples = (await router.metrics())[FAILURES]
    return {sample.labels["reason"]: sample.value for sample in samples if sample.value}


async def shake_hands(router: Router, context: ssl.SSLContext) -> None:
    """Do as a blocking client does: it says what it does not like, which the event loops' do not."""

    def blocking() -> None:
        host, _, port = router.url.removeprefix("https://").rpartition(":")
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, int(port))) as tcp,
            context.wrap_socket(tcp, server_hostname=host) as tls,
        ):
            tls.recv(1)

    await asyncio.to_thread(blocking)


async def speak(router: Router, *, says: bytes, resets: bool = False) -> None:
    async with await RawClient.connect(router.url) as client:
        client.writer.write(says)
        if resets:
            client.hang_up()
        elif says:
            await client.read_rest()


def client_hello() -> bytes:
    """Return the first bytes that a client of TLS 1.2 sends."""
    context, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="router")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def test_each_failed_handshake_is_counted_by_its_reason_and_told_once(authority: Authority, tmp_path, caplog):
    stranger = Authority(tmp_path, "stranger").client(with_certificate=True)
    stranger.load_verify_locations(authority.ca)
    half = client_hello()[:100]
    old = client_hello()[:9] + b"\x03\x02" + client_hello()[11:]  # TLS 1.1
    tls = {**authority.files("router"), "client_ca": str(authority.ca)}
    trust = authority.client(with_certificate=True)
    request = f"POST /{SECRET} HTTP/1.1\r\nhost: router\r\n\r\n".encode()
    async with SimulatedEngine(name="a") as engine, running_router([engine], tls=tls, client_tls=trust) as router:
        for failing, reason in (
            (speak(router, says=request), "no_tls"),
            (speak(router, says=f"SSH-2.0-{SECRET}\r\n".encode() * 10), "no_tls"),
            (speak(router, says=old), "version"),
            (shake_hands(router, authority.client()), "certificate_missing"),
            (shake_hands(router, stranger), "certificate_refused"),
            (shake_hands(router, ssl.create_default_context()), "certificate_distrusted"),
            (speak(router, says=client_hello()[:43] + b"\xff" * 300), "other"),
            (speak(router, says=b""), "closed"),
            (speak(router, says=half, resets=True), "closed"),
        ):
            expected = dict(router.server.relay.handshake_failures.counts)
            expected[reason] = expected.get(reason, 0) + 1
            await failing
            await until(lambda: router.server.relay.handshake_failures.counts == expected, reason)  # noqa: B023
        assert await router.ask() == "a"
        assert set(await failures(router)) == {
            "no_tls",
            "version",
            "certificate_missing",
            "certificate_refused",
            "certificate_distrusted",
            "other",
            "closed",
        }
        assert len(engine.requests) == 1
    lines = [record.getMessage() for record in caplog.records if record.name == "router_core.relay.handshakes"]
    assert len(lines) == 7
    assert lines[0].startswith("no TLS connection with 127.0.0.1:")
    assert "it does not speak TLS; give it an https:// address" in lines[0]
    assert any("the handshake failed: length mismatch" in line for line in lines)  # in OpenSSL's words
    assert SECRET not in caplog.text


async def test_a_client_that_never_shakes_hands_is_given_up(authority: Authority, monkeypatch):
    monkeypatch.setattr("router_core.relay.tls_listener.HANDSHAKE_S", 0.2)
    async with running_router([], tls=authority.files("router"), client_tls=authority.client()) as router:
        async with await RawClient.connect(router.url) as silent, await RawClient.connect(router.url) as slow:
            slow.writer.write(client_hello()[:50])
            assert await silent.read_rest() + await slow.read_rest() == b""
        assert (await failures(router))["timeout"] == 2


async def test_handshakes_count_as_connections(authority: Authority):
    async with (
        SimulatedEngine(name="a") as engine,
        running_router(
            [engine],
            tls=authority.files("router"),
            client_tls=authority.client(),
            limits={"max_connections": 1, "shutdown_grace_s": 0},
        ) as router,
        contextlib.AsyncExitStack() as stack,
    ):
        assert await router.ask() == "a"
        clients = [await stack.enter_async_context(await RawClient.connect(router.url)) for _ in range(400)]
        reading = [asyncio.ensure_future(client.read_rest()) for client in clients]
        await until(lambda: sum(task.done() for task in reading) >= 100, "those over the limit to be cut")
        assert await router.ask() == "a"  # on its kept connection
        assert sum(task.done() for task in reading) < 400
        for client in clients:
            client.hang_up()
        await asyncio.gather(*reading)


async def test_a_router_stops_although_clients_are_shaking_hands(authority: Authority):
    async with running_router([], tls=authority.files("router"), client_tls=authority.client()) as router:
        silent = await RawClient.connect(router.url)
        slow = await RawClient.connect(router.url)
        slow.writer.write(client_hello()[:50])
        async with router.get("/health"):
            pass
    for client in (silent, slow):
        assert await client.read_rest() == b""
        client.hang_up()
    with pytest.raises(ConnectionRefusedError):
        await RawClient.connect(router.url)


async def test_an_address_in_use_is_an_error_with_tls_too(authority: Authority):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1, port {port}: Address already in use"):
            async with running_router([], tls=authority.files("router"), port=port):
                pass
