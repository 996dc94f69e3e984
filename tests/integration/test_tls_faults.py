"""Handshakes that break off at every stage, with workers and with clients: an error each, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import Circuit
from router_core.testing.simulated_engine import SimulatedEngine

from .certificates import Authority
from .support import RawClient, Router, running_router, until

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
STAGES = {"before ServerHello": 0, "in ServerHello": 40, "after ServerHello": 200, "before Finished": -1}
"""How many bytes of its flight a worker sends before it goes."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def breaking_worker(port: int, tls: ssl.SSLContext, stage: int, *, resets: bool) -> AsyncIterator[list[int]]:
    """Serve handshakes that break off; yields the sizes of what was sent in each."""
    sent: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(await reader.read(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        flight = outgoing.read()
        writer.write(flight[: len(flight) - 1 if stage < 0 else stage])
        await writer.drain()
        sent.append(len(flight))
        if resets:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield sent
    finally:
        server.close()
        await server.wait_closed()


def left() -> tuple[int, int]:
    """Return how many descriptors and tasks there are."""
    return len(list(Path("/dev/fd").iterdir())), len(asyncio.all_tasks())


async def refused(router: Router) -> str:
    """Send a request that cannot be served and return the code of the error."""
    async with router.post() as response:
        assert response.status == 502
        return (await response.json())["error"]["code"]


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
async def test_a_handshake_that_a_worker_breaks_off_is_a_failed_connection(
    authority: Authority, stage: int, resets: bool, caplog
):
    tls = authority.server()
    async with (
        SimulatedEngine(name="a", tls=tls) as engine,
        running_router(
            [engine],
            worker_tls={"ca": str(authority.ca)},
            health={"failure_threshold": 1000},
            breaker={"failure_threshold": 21},
        ) as router,
    ):
        assert await router.ask() == "a"
        await engine.stop()
        async with breaking_worker(engine.port, tls, stage, resets=resets) as handshakes:
            assert await refused(router) == "upstream_connection_failed"
            await until(lambda: len(handshakes) >= 2, "the check that follows a failed connection")
            before = left()
            for _ in range(20):
                assert await refused(router) == "upstream_connection_failed"
            await until(lambda: left()[0] <= before[0] and left()[1] <= before[1], "all connections to be gone")
            assert len(handshakes) >= 21
        (worker,) = router.server.pool.workers
        assert worker.circuit is Circuit.OPEN
        reason = "Connection reset by peer" if resets else "the worker closed it in the TLS handshake"
        assert f"no connection to {engine.url}: {reason}" in caplog.text
        outcomes = await router.settled(22)
        assert {outcome.status for outcome in outcomes[1:]} == {OutcomeStatus.ERROR}


async def test_a_handshake_that_breaks_off_sends_the_request_elsewhere_and_fails_the_check(authority: Authority):
    tls = authority.server()
    settings = {"worker_tls": {"ca": str(authority.ca)}, "health": {"failure_threshold": 1}}
    async with (
        SimulatedEngine(name="a", tls=tls) as first,
        SimulatedEngine(name="b", tls=tls) as second,
        running_router([first, second], **settings) as router,
    ):
        await first.stop()
        async with breaking_worker(first.port, tls, 200, resets=True):
            assert {await router.ask() for _ in range(4)} == {"b"}
            await until(lambda: len(router.server.pool.candidates()) == 1, "the broken one to be unhealthy")


@pytest.mark.parametrize(
    ("hosts", "options", "sentence"),
    [
        ((), {"not_after": PAST}, "certificate has expired; renew it at the worker"),
        (
            ("elsewhere.internal",),
            {},
            "IP address mismatch, certificate is not valid for '127.0.0.1'; if it has another name on purpose, set "
            "worker_tls.server_name",
        ),
    ],
    ids=["expired", "another's"],
)
async def test_a_certificate_that_is_not_accepted_is_named_with_worker_and_remedy(
    authority: Authority, hosts, options, sentence: str, caplog
):
    settings = {"worker_tls": {"ca": str(authority.ca)}, "health": {"failure_threshold": 1}}
    async with SimulatedEngine(tls=authority.server()) as engine, running_router([engine], **settings) as router:
        await engine.stop()
        engine.tls = authority.server(*hosts, **options)
        await engine.start()
        assert await refused(router) == "upstream_connection_failed"
        assert f"no connection to {engine.url}: its certificate was not accepted: {sentence}" in caplog.text
        await until(lambda: not router.server.pool.candidates(), "the worker to be unhealthy")
        (outcome,) = await router.settled(1)
        assert outcome.status is OutcomeStatus.ERROR


async def test_a_certificate_of_an_unknown_authority_is_named_with_its_remedy(authority: Authority, tmp_path, caplog):
    stranger = Authority(tmp_path, "stranger")
    settings = {"worker_tls": {"ca": str(authority.ca)}, "expect_healthy": 0}
    async with SimulatedEngine(tls=stranger.server()) as engine, running_router([engine], **settings):
        await until(lambda: "its certificate was not accepted" in caplog.text, "the log to say why")
    assert "name the authority that signed it in worker_tls.ca" in caplog.text


async def test_clients_that_reset_in_the_handshake_leave_nothing(authority: Authority):
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], tls=authority.files("router"), client_tls=authority.client()) as router,
    ):
        assert await router.ask() == "a"
        before = left()
        for has_answer in (False, True) * 10:
            outgoing = ssl.MemoryBIO()
            tls = authority.client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            client = await RawClient.connect(router.url)
            client.writer.write(outgoing.read())
            if has_answer:
                assert await client.reader.read(100)  # of the router's ServerHello
            client.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.hang_up()
        await until(lambda: left()[0] <= before[0] and left()[1] <= before[1], "all connections to be gone")
        assert +Counter(router.server.relay.handshake_failures.counts) == {"closed": 20}
        assert await router.ask() == "a"
