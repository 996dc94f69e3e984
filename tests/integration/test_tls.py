"""TLS on both sides, with real certificates: what works over TCP works here."""

from __future__ import annotations

import asyncio
import datetime
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization

from router_core.cli.router_server import RouterServer
from router_core.config import RouterConfig
from router_core.contract.errors import StartupError
from router_core.contract.request import OutcomeStatus
from router_core.relay.tls import CertificateError, ServerTls, WorkerTls
from router_core.testing.scripted_server import Action, Close, Cut, Pause, Read, Reset, ScriptedServer, Send, answer
from router_core.testing.simulated_engine import SimulatedEngine

from .certificates import Authority
from .support import CHAT, RawClient, chat, running_router, until

HEALTHY = answer(b"ok")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


# --- clients ---


async def test_clients_are_served_over_tls(authority: Authority):
    tls = authority.files("router")
    async with (
        SimulatedEngine(name="a", tokens=5) as engine,
        running_router([engine], tls=tls, client_tls=authority.client()) as router,
    ):
        assert router.url.startswith("https://")
        assert await router.ask() == "a"
        async with router.post(body=chat(stream=True)) as response:
            text = (await response.read()).decode()
        assert text.count("data: ") > 5
        assert text.endswith("data: [DONE]\n\n")
        async with router.get("/readiness") as response:
            assert response.status == 200
        assert "router_core_requests_total" in await router.metrics()


async def test_a_client_without_tls_gets_nothing_and_harms_nobody(authority: Authority):
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], tls=authority.files("router"), client_tls=authority.client()) as router,
        await RawClient.connect(router.url) as plain,
    ):
        plain.send()
        assert b"HTTP" not in await plain.read_rest()
        assert await router.ask() == "a"


async def test_a_client_without_a_certificate_is_turned_away_where_one_is_wanted(authority: Authority, tmp_path: Path):
    tls = {**authority.files("router"), "client_ca": str(authority.ca)}
    stranger = Authority(tmp_path, "stranger").client(with_certificate=True)
    stranger.load_verify_locations(authority.ca)
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], tls=tls, client_tls=authority.client(with_certificate=True)) as router,
    ):
        assert await router.ask() == "a"
        for context in (authority.client(), stranger):
            with pytest.raises(aiohttp.ClientError):
                async with router.post(ssl=context) as response:
                    await response.read()
        assert len(engine.requests) == 1


async def test_a_renewed_certificate_is_shown_to_new_connections(authority: Authority, caplog):
    def serial(client: RawClient) -> str:
        return client.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]

    tls = authority.files("router")
    trust = authority.client()
    async with SimulatedEngine(name="a") as engine, running_router([engine], tls=tls, client_tls=trust) as router:
        async with await RawClient.connect(router.url, ssl=trust) as before:
            authority.files("router")
            router.server.certificates.look()
            async with await RawClient.connect(router.url, ssl=trust) as after:
                assert serial(before) != serial(after)
            before.send()
            assert (await before.read_answer())[0] == 200
        Path(tls["key"]).write_text("half a key")  # noqa: ASYNC240  # a local file, once
        with caplog.at_level(logging.ERROR):
            router.server.certificates.look()
        assert "holds no private key in PEM form; name the key's file; what was read before stays in use" in caplog.text
        assert await router.ask() == "a"


def test_a_file_that_holds_the_wrong_half_of_a_pair_is_told_by_what_it_holds(authority: Authority, tmp_path: Path):
    files = {name: Path(path) for name, path in authority.files("router").items()}
    cert, key = files["cert"], files["key"]

    def problem(cert: Path, key: Path) -> str:
        with pytest.raises(CertificateError) as caught:
            ServerTls(cert, key)
        return f"{caught.value.part}: {caught.value}"

    assert problem(cert, cert) == (
        f"key: {cert} holds a certificate but no private key in PEM form; name the key's file"
    )
    assert problem(key, key) == (
        f"cert: {key} holds a private key but no certificate in PEM form; name the certificate's file"
    )
    both = tmp_path / "both.pem"
    both.write_text(cert.read_text() + key.read_text())
    assert ServerTls(both, both).files == (both, both)


async def test_other_authorities_of_clients_are_taken_over_and_the_old_let_nobody_in(authority: Authority, tmp_path):
    other = Authority(tmp_path, "other")
    tls = authority.files("router")
    ours, theirs = authority.client(with_certificate=True), other.client(with_certificate=True)
    theirs.load_verify_locations(authority.ca)

    async def is_served(router: Any, context: ssl.SSLContext) -> bool:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.post(router.url + CHAT, json=chat(), ssl=context) as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], tls={**tls, "client_ca": str(authority.ca)}, client_tls=ours) as router,
    ):
        before = router.server.config

        def with_tls(**settings: str) -> Callable[[], RouterConfig]:
            given = before.model_dump(exclude_unset=True)
            return lambda: RouterConfig.model_validate(given | {"tls": {**tls, **settings}})

        assert [await is_served(router, context) for context in (ours, theirs)] == [True, False]
        await router.server.reloading.reload(with_tls(client_ca=str(other.ca)))
        assert [await is_served(router, context) for context in (ours, theirs)] == [False, True]
        with pytest.raises(StartupError, match=r"tls\.client_ca: .*gone.* cannot be read"):
            await router.server.reloading.reload(with_tls(client_ca=str(tmp_path / "gone")))
        assert await is_served(router, theirs)
        await router.server.reloading.reload(with_tls())
        assert await is_served(router, authority.client())


async def test_a_hang_up_over_tls_ends_the_workers_work(authority: Authority):
    async with (
        SimulatedEngine(name="a", ttft_s=3600.0) as engine,
        running_router([engine], tls=authority.files("router"), client_tls=authority.client()) as router,
    ):
        for polite in (True, False):
            client = await RawClient.connect(router.url, ssl=authority.client())
            client.send()
            await until(lambda: engine.running, "the request at the engine")
            client.writer.close() if polite else client.hang_up()
            await until(lambda: not engine.running, "the engine to stop")
        outcomes = await router.settled(2)
        assert {outcome.status for outcome in outcomes} == {OutcomeStatus.CANCELLED}


async def test_a_client_that_reads_slowly_holds_back_its_worker_alone(authority: Authority):
    size = 16 * 1024 * 1024
    begun = asyncio.Event()
    script = [Read(), HEALTHY]
    flood = [
        Read(),
        Send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size),
        Pause(event=begun),
        Send(b"x" * size, piece=65536),
    ]
    tls = authority.server()
    async with (
        ScriptedServer(lambda index: script if index == 0 else flood, tls=tls) as worker,
        running_router(
            [worker],
            tls=authority.files("router"),
            worker_tls={"ca": str(authority.ca)},
            client_tls=authority.client(),
        ) as router,
        await RawClient.connect(router.url, ssl=authority.client(), limit=65536) as slow,
    ):
        slow.send()
        await slow.read_head()
        begun.set()
        (connection,) = (c for c in router.server.relay.connections if c._exchange is not None)
        await until(lambda: connection._is_clogged, "the client to be seen as slow")
        assert connection._transport.get_write_buffer_size() < size // 8
        async with router.get("/health") as response:
            assert response.status == 200
        received = 0
        while received < size:
            received += len(await slow.reader.read(1 << 20))
        assert received == size


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_client_that_takes_nothing_is_given_up_and_its_worker_freed(authority: Authority, is_tls: bool, caplog):
    endless = [Read(), Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"), Send(b"x" * 2**26)]
    caplog.set_level("INFO", "router_core.access")
    context = authority.client() if is_tls else None
    async with (
        ScriptedServer(lambda index: [Read(), HEALTHY] if index == 0 else endless) as worker,
        running_router(
            [worker],
            tls=authority.files("router") if is_tls else {},
            limits={"client_stall_timeout_s": 0.2},
            access_log="errors",
            client_tls=context or True,
        ) as router,
        await RawClient.connect(router.url, ssl=context, limit=1024) as slow,
    ):
        slow.writer.transport.pause_reading()
        slow.send()
        outcomes = await router.settled(1)
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.CANCELLED]
        await worker.wait_closed()
        metrics = await router.metrics()
        (stalls,) = metrics["router_core_client_stalls_total"]
        assert stalls.value == 1
        (line,) = (record.fields for record in caplog.records if hasattr(record, "fields"))
        assert (line["ending"], line["code"]) == ("client_gone", "client_stalled")


async def test_a_refused_request_is_told_why_over_tls(authority: Authority):
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], tls=authority.files("router"), client_tls=authority.client()) as router,
        await RawClient.connect(router.url, ssl=authority.client()) as client,
    ):
        client.writer.write(b"POST / HTTP/1.1\r\nhost: r\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n")
        status, body = await client.read_answer()
        assert (status, b"bad_request" in body) == (400, True)


async def test_a_refusal_over_tls_ends_with_the_leave_that_tls_takes(authority: Authority):
    def refused() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port)) as tcp,
            authority.client().wrap_socket(tcp, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as tls,
        ):
            tls.sendall(b"GET / HTTP/1.9\r\n\r\n" + b"x" * 100_000)
            received = b""
            while data := tls.recv(65536):
                received += data
            return received

    async with running_router([], tls=authority.files("router"), client_tls=authority.client()) as router:
        port = int(router.url.rpartition(":")[2])
        assert (await asyncio.to_thread(refused)).startswith(b"HTTP/1.1 505 ")


# --- workers ---


async def test_a_worker_is_reached_over_mutual_tls_by_everybody(authority: Authority):
    worker_tls = {"ca": str(authority.ca), **authority.files("client", "router")}
    tls = authority.server(wants_client=True)
    async with (
        SimulatedEngine(name="a", tls=tls, dp_size=2) as engine,
        running_router(
            [engine], worker_tls=worker_tls, dp_aware=True, policy="power_of_two", expect_healthy=2
        ) as router,
    ):
        assert engine.url.startswith("https://")
        assert await router.ask() == "a"
        for path in ("/v1/models", "/get_model_info", "/engine_metrics", "/get_loads", "/health_generate"):
            async with router.get(path) as response:
                assert response.status == 200, path
        async with router.post("/flush_cache") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("hosts", "settings", "is_healthy"),
    [
        (("127.0.0.1",), {}, True),
        (("worker.internal",), {}, False),
        (("worker.internal",), {"server_name": "worker.internal"}, True),
        (("127.0.0.1",), {"server_name": "worker.internal"}, False),
        (("worker.internal",), {"verify": False, "ca": []}, True),
        (("127.0.0.1",), {"ca": []}, False),
    ],
)
async def test_a_workers_certificate_has_to_be_its_own(authority: Authority, hosts, settings, is_healthy, caplog):
    async with (
        SimulatedEngine(name="a", tls=authority.server(*hosts)) as engine,
        running_router(
            [engine], worker_tls={"ca": str(authority.ca), **settings}, expect_healthy=int(is_healthy)
        ) as router,
    ):
        if is_healthy:
            assert await router.ask() == "a"
            return
        await until(lambda: "its certificate was not accepted" in caplog.text, "the log to say why")
        async with router.post() as response:
            assert response.status == 503
        assert not engine.requests


async def test_an_expired_certificate_is_refused_and_named(authority: Authority, caplog):
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    async with (
        SimulatedEngine(tls=authority.server(not_after=past)) as engine,
        running_router([engine], worker_tls={"ca": str(authority.ca)}, expect_healthy=0),
    ):
        await until(lambda: "certificate has expired" in caplog.text, "the log to say why")


async def test_a_worker_whose_certificate_turns_bad_is_502_and_then_unhealthy(authority: Authority, caplog):
    async with (
        SimulatedEngine(name="a", tls=authority.server()) as engine,
        running_router([engine], worker_tls={"ca": str(authority.ca)}, health={"failure_threshold": 1}) as router,
    ):
        assert await router.ask() == "a"
        await engine.stop()
        engine.tls = authority.server("elsewhere.internal")
        await engine.start()
        async with router.post() as response:
            assert response.status == 502
            assert (await response.json())["error"]["code"] == "upstream_connection_failed"
        assert "IP address mismatch" in caplog.text
        await until(lambda: not router.server.pool.candidates(), "the worker to be unhealthy")


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01", b""])
async def test_a_worker_that_speaks_no_tls_is_unhealthy(greeting: bytes, authority: Authority, caplog):
    async with (
        ScriptedServer([Send(greeting)]) as worker,
        running_router(
            [worker.url.replace("http:", "https:")], worker_tls={"ca": str(authority.ca)}, expect_healthy=0
        ) as router,
    ):
        await until(lambda: "GET /health failed: " in caplog.text, "the log to say so")
        async with router.post() as response:
            assert response.status == 503


async def test_a_worker_that_never_shakes_hands_is_given_up(authority: Authority, caplog):
    silent = [Pause(event=asyncio.Event())]
    tls = authority.server()
    async with (
        SimulatedEngine(name="a", tls=tls) as engine,
        running_router([engine], worker_tls={"ca": str(authority.ca)}, limits={"connect_timeout_s": 0.2}) as router,
    ):
        port = engine.port
        await engine.stop()
        async with ScriptedServer(silent, port=port), router.post() as response:
            assert response.status == 502
            assert "within 0.2 s" in caplog.text


async def test_a_worker_that_wants_a_certificate_which_we_lack_is_502(authority: Authority, caplog):
    first = authority.server()
    async with (
        SimulatedEngine(name="a", tls=first) as engine,
        running_router([engine], worker_tls={"ca": str(authority.ca)}) as router,
    ):
        await engine.stop()
        engine.tls = authority.server(wants_client=True)
        await engine.start()
        async with router.post() as response:
            assert response.status == 502
        # With TLS 1.3 a worker looks at our certificate after the handshake, so it is an answer that does not come.
        assert "the worker's connection was lost before it answered" in caplog.text


async def test_a_renewed_client_certificate_is_shown_to_workers(authority: Authority, tmp_path: Path):
    other = Authority(tmp_path, "other")
    worker_tls = {"ca": str(authority.ca), **other.files("client", "router")}
    async with (
        SimulatedEngine(name="a", tls=authority.server(wants_client=True)) as engine,
        running_router([engine], worker_tls=worker_tls, expect_healthy=0) as router,
    ):
        authority.files("client", "router")
        router.server.certificates.look()
        await until(router.server.pool.candidates, "the worker to be healthy")
        assert await router.ask() == "a"


async def test_an_abort_in_mid_stream_reaches_a_tls_worker(authority: Authority):
    async with (
        SimulatedEngine(name="a", tls=authority.server(), tokens=1000, token_interval_s=3600.0) as engine,
        running_router([engine], worker_tls={"ca": str(authority.ca)}) as router,
    ):
        client = await RawClient.connect(router.url)
        client.send(chat(stream=True))
        await client.read_until(b"data: ")
        client.hang_up()
        await until(lambda: not engine.running, "the engine to stop")
        (outcome,) = await router.settled(1)
        assert outcome.status is OutcomeStatus.CANCELLED


async def test_a_tls_connection_is_kept_and_its_loss_noticed(authority: Authority):
    async with (
        SimulatedEngine(name="a", tls=authority.server()) as engine,
        running_router([engine], worker_tls={"ca": str(authority.ca)}) as router,
    ):
        await router.ask()
        connections = engine.connections
        await router.ask()
        assert engine.connections == connections
        engine.cut_connections()
        await router.ask()
        assert engine.connections == connections + 1


@pytest.mark.parametrize("end", [Close(), Cut(), Reset()], ids=["closed", "cut below TLS", "reset"])
@pytest.mark.parametrize("status", [200, 400], ids=["answer", "error"])
async def test_an_answer_that_ends_by_close_is_whole_only_if_tls_ended_too(authority: Authority, end, status: int):
    seen = asyncio.Event()
    begun = [Read(), Send(b"HTTP/1.1 %d Scripted\r\n\r\nhalf" % status), Pause(event=seen), end]
    async with (
        ScriptedServer(lambda index: begun if index > 1 else [Read(), HEALTHY], tls=authority.server()) as worker,
        running_router([worker], worker_tls={"ca": str(authority.ca)}) as router,
        await RawClient.connect(router.url) as client,
    ):
        await worker.wait_requests(2)  # for its health, for its models
        client.send()
        await client.read_until(b"half")
        seen.set()
        if isinstance(end, Close):
            assert await client.reader.read() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        (outcome,) = await router.settled(1)
        assert (outcome.status is OutcomeStatus.ERROR) is not isinstance(end, Close)


async def test_a_slow_client_gets_the_whole_of_an_answer_whose_worker_has_left(authority: Authority):
    last = b"y" * 100_000

    def is_clogged() -> bool:
        return any(connection._is_clogged for connection in router.server.relay.connections)

    def flood() -> Iterator[Action]:
        yield Read()
        yield Send(b"HTTP/1.1 200 OK\r\n\r\n")
        turns = 0  # of the loop, for which the router has been stuck; it never lags by much
        while turns < 100:
            turns = turns + 1 if is_clogged() else 0
            if not turns:
                yield Send(b"x" * 16384)
            yield Pause()
        yield Send(last)
        yield Close()

    async with (
        ScriptedServer(lambda index: flood() if index > 1 else [Read(), HEALTHY], tls=authority.server()) as worker,
        running_router([worker], worker_tls={"ca": str(authority.ca)}) as router,
        await RawClient.connect(router.url, limit=65536) as slow,
    ):
        await worker.wait_requests(2)
        slow.send()
        await slow.read_head()
        await worker.wait_closed(3)
        for _ in range(3):
            async with router.get("/health"):
                pass
        assert (await slow.read_rest()).endswith(last)


# --- settings ---


def test_certificates_that_cannot_be_used_are_told_at_startup(authority: Authority, tmp_path: Path):
    mine, other = authority.files("mine"), authority.files("other")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    key = serialization.load_pem_private_key(Path(mine["key"]).read_bytes(), None)
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a passphrase"),
        )
    )
    cases = {
        f"tls.key: {other['key']} is not the key of the certificate in {mine['cert']}": {
            "tls": {"cert": mine["cert"], "key": other["key"]}
        },
        f"tls.cert: {tmp_path}/gone cannot be read (No such file": {
            "tls": {"cert": f"{tmp_path}/gone", "key": mine["key"]}
        },
        "tls.cert: ": {"tls": {"cert": str(empty), "key": mine["key"]}},
        f"tls.client_ca: {empty} holds no certificates": {"tls": {**mine, "client_ca": str(empty)}},
        f"worker_tls.ca: {empty} holds no certificates": {"worker_tls": {"ca": str(empty)}},
        f"tls.key: {tmp_path}/locked.key is encrypted": {
            "tls": {"cert": mine["cert"], "key": f"{tmp_path}/locked.key"}
        },
    }
    for sentence, settings in cases.items():
        config = RouterConfig.model_validate({"worker_urls": ["http://a"], "policy": "random", **settings})
        with pytest.raises(StartupError) as caught:
            RouterServer(config)
        assert str(caught.value).startswith(sentence), settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tls": {"cert": "a"}}, "cert stands without key"),
        ({"tls": {"key": "a"}}, "key stands without cert"),
        ({"tls": {"client_ca": "a"}}, "client_ca stands without cert and key"),
        ({"worker_tls": {"cert": "a"}}, "cert stands without key"),
        ({"worker_tls": {"ca": "a", "verify": False}}, "ca stands beside verify: false"),
    ],
)
def test_half_a_setting_is_refused(settings, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        RouterConfig.model_validate(settings)


def test_only_tls_of_this_decade_is_spoken(authority: Authority):
    files = authority.files("router")
    for context in (ServerTls(Path(files["cert"]), Path(files["key"])).context, WorkerTls(ca=[authority.ca]).context):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
