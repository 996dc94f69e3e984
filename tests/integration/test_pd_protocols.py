"""Protocols are plugins: the router takes one it has never heard of, and says what is wrong with one it cannot have."""

from __future__ import annotations

import pytest

from router_core.api import OutcomeStatus, PolicyConfig
from router_core.cli.router_server import RouterServer
from router_core.config import RouterConfig
from router_core.contract.errors import StartupError
from router_core.testing.simulated_engine import SimulatedEngine
from router_core.traffic.json_edit import append_members

from .pd_support import running_pair_router
from .support import chat, in_house


class AcmeProtocol:
    """Tells both engines a word, one after the other."""

    class Config(PolicyConfig):
        word: str = "please"

    linger_s = 1.0
    prefill_waits_for_fetch = False
    keeps_kv_cache = True

    def __init__(self, config: Config) -> None:
        self.word = config.word

    @property
    def local_prefill(self):
        return AloneByName()

    def converse(self, legs):
        return AcmeConversation(legs, self.word)


class AloneByName:
    needs = frozenset()

    def candidates(self, request, decodes):
        return decodes if "alone" in request.id else ()

    def placed(self, worker, request):
        """Nothing is remembered."""

    def forget(self, worker):
        """Nothing is remembered."""


class AcmeConversation:
    def __init__(self, legs, word):
        self.legs = legs
        self.body = append_members(legs.body, f'"acme":"{word}"'.encode())

    def begin(self):
        self.legs.send_prefill(self.body)

    def prefilled(self, answer):
        self.legs.send_decode(self.body)

    def decode_again(self):
        self.legs.send_decode(self.body)

    def failed(self):
        pass


async def test_a_protocol_of_a_strangers_needs_no_change_of_the_core():
    settings = {"protocol": in_house(AcmeProtocol), "options": {"word": "now"}}
    async with (
        SimulatedEngine(name="p") as prefill,
        SimulatedEngine(name="d") as decode,
        running_pair_router([prefill], [decode], **settings) as router,
    ):
        for stream in (False, True):
            assert await router.ask(body=chat(stream=stream)) == "d"
        legs = await router.legs(2)
        assert {outcome.status for found in legs.values() for outcome in found} == {OutcomeStatus.SUCCESS}
        assert all(b',"acme":"now"}' in engine.requests[-1].body for engine in (prefill, decode))
        async with router.post(headers={"x-request-id": "alone"}) as response:
            assert response.status == 200
        assert (prefill.accepted, decode.accepted) == (2, 3)


class BrokenProtocol(AcmeProtocol):
    """Raises at every turn, by the word."""

    def converse(self, legs):
        if self.word == "converse":
            raise ValueError(self.word)
        return BrokenConversation(legs, self.word)


class BrokenConversation(AcmeConversation):
    def begin(self):
        super().begin()
        if b'"acme":"begin"' in b"".join(self.body):
            raise ValueError("begin")

    def prefilled(self, answer):
        raise ValueError("prefilled")


@pytest.mark.parametrize("where", ["converse", "begin", "prefilled"])
async def test_a_protocol_that_raises_costs_its_request_and_nothing_else(where):
    settings = {"protocol": in_house(BrokenProtocol), "options": {"word": where}}
    async with (
        SimulatedEngine(name="p") as prefill,
        SimulatedEngine(name="d") as decode,
        running_pair_router([prefill], [decode], **settings) as router,
    ):
        for _ in range(2):
            async with router.post() as response:
                assert response.status == 500
                assert (await response.json())["error"]["code"] == "internal_error"
        await router.legs(2)


async def test_a_long_stream_arrives_whole():
    settings = {"protocol": in_house(AcmeProtocol)}
    async with (
        SimulatedEngine(name="p") as prefill,
        SimulatedEngine(name="d", tokens=5_000) as decode,
        running_pair_router([prefill], [decode], **settings) as router,
    ):
        async with router.post(body=chat(stream=True)) as response:
            text = await response.text()
        assert text.count("\ndata: ") > 5_000
        assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("pd", "problem"),
    [
        ({"protocol": "sglan"}, "protocol 'sglan' is not installed; did you mean 'sglang'? (installed: sglang, vllm)"),
        ({"protocol": "vllm", "options": {"conector": "p2p"}}, "pd.options.conector: unknown option; did you mean"),
        ({"protocol": "vllm", "options": {"connector": "x"}}, "pd.options.connector: "),
    ],
)
def test_a_protocol_that_cannot_be_had_is_a_sentence(pd, problem):
    workers = {"prefill": ["http://p:1"], "decode": ["http://d:1"]}
    with pytest.raises(StartupError) as caught:
        RouterServer(RouterConfig.model_validate({"pd": workers | pd, "policy": "random"}))
    assert problem in str(caught.value)
