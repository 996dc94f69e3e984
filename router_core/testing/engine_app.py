"""A simulated engine's HTTP side: one handler for all of its paths, written for `aiohttp.web.Server`."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, NoReturn

import orjson
from aiohttp import web
from aiohttp.http import HttpVersion11

from router_core.engine_model.prefix_cache import BLOCK_TOKENS, PrefixCache, block_hashes, token_count
from router_core.testing import engine_facts
from router_core.testing.engine_answers import JSON, Answers, forever
from router_core.testing.engine_leg import Leg
from router_core.testing.engine_management import Management
from router_core.testing.engine_pd import Disaggregation
from router_core.testing.engine_ranks import Ranks
from router_core.testing.engine_replies import REPLIES, ResponsesReply
from router_core.testing.engine_reply import Reply
from router_core.testing.engine_request import BadRequestError, read_ask, read_json
from router_core.testing.engine_side_channel import CLAIM_PATH
from router_core.testing.engine_state import EngineState, Fault, SeenRequest
from router_core.testing.engine_steps import Sequence, StepLoop
from router_core.testing.engine_stored import StoredResponses
from router_core.testing.engine_transfer import RefusedLegError, TransferLostError

TRANSCRIPTIONS = "/v1/audio/transcriptions"
INFERENCE_PATHS = frozenset({*REPLIES, *engine_facts.INFERENCE, TRANSCRIPTIONS})

_EVENTS = "text/event-stream; charset=utf-8"


class Visit:
    """One inference request's stay: how it counts when its handler is cancelled, which is when the connection goes."""

    __slots__ = ("counts_as", "fault", "request", "seen")

    def __init__(self, request: web.BaseRequest, seen: SeenRequest) -> None:
        self.request = request
        self.seen = seen
        self.fault: Fault | None = None
        self.counts_as = "aborted"

    @property
    def transport(self) -> asyncio.Transport:
        """The connection.

        Raises:
            ConnectionResetError: If it is gone.
        """
        transport = self.request.transport
        if transport is None:
            raise ConnectionResetError("the client went away")
        return transport

    async def hang_up(self, counts_as: str) -> NoReturn:
        """Close the connection, once what was written is out, and wait for the end."""
        self.counts_as = counts_as
        self.transport.close()
        await forever()


class EngineApp:
    """Answers requests for an `EngineState`.

    Attributes:
        steps: The sequences inside.
        cache: Their prefix cache.
        side_channel: Where other engines ask for KV caches.
        is_stopping: Set by the engine when it cuts its connections itself.
    """

    def __init__(self, state: EngineState) -> None:
        tokens = state.constants.cache_tokens if state.cache_tokens is None else state.cache_tokens
        self.cache = PrefixCache(tokens // BLOCK_TOKENS)
        self.steps = StepLoop(state, self.cache)
        self.is_stopping = False
        self._state = state
        self._ranks = Ranks(state.dp_size)
        self._disaggregation = Disaggregation(state)
        self.side_channel = self._disaggregation.side_channel
        self._responses = StoredResponses()
        self._finished = {"stop": 0, "length": 0, "abort": 0}
        self._answers = Answers(state)
        self._management = Management(state, self._answers, self.steps, self.cache, self._ranks, self._finished)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        path = request.rel_url.raw_path
        if request.method == "POST" and path in INFERENCE_PATHS:
            return await self._serve(request)
        if path == CLAIM_PATH:
            return await self.side_channel.handle(request)
        await request.read()
        if path == "/health":
            return await self._management.health()
        if path.startswith("/v1/responses/"):
            status, answer = self._responses.answer(request.method, path.split("/")[3:])
            return (
                self._answers.error(status, answer) if isinstance(answer, str) else self._answers.json(answer, status)
            )
        return self._management.answer(request.method, path)

    async def close(self) -> None:
        """Let go of everything, as when the process is killed."""
        await self._disaggregation.close()

    # --- inference ---

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        state = self._state
        # A client that reset its connection at once has left no address.
        peer = (request.transport.get_extra_info("peername") if request.transport else None) or ("", 0)
        headers = request.headers
        body = await request.read()
        seen = SeenRequest(request.method, request.raw_path, headers, tuple(request.raw_headers), body, tuple(peer[:2]))
        state.requests.append(seen)
        state.accepted += 1
        state.running += 1
        state.peak_running = max(state.peak_running, state.running)
        state.changed()
        visit = Visit(request, seen)
        try:
            response = await self._infer(visit)
            visit.counts_as = "completed"
        except asyncio.CancelledError:
            if self.is_stopping:
                visit.counts_as = "failed"
            raise
        except ConnectionResetError:
            if request.transport is not None and not request.transport.is_closing():
                raise  # somebody else's connection
            return web.Response()  # the client left just as the answer began
        finally:
            setattr(state, visit.counts_as, getattr(state, visit.counts_as) + 1)
            state.running -= 1
            state.changed()
        return response

    async def _infer(self, visit: Visit) -> web.StreamResponse:
        state = self._state
        status, visit.fault = state.take_fault()
        if visit.fault is Fault.HANG:
            await forever()
        if visit.fault is Fault.CLOSE_BEFORE_HEAD:
            await visit.hang_up("failed")
        if state.interim_status is not None:
            visit.transport.write(b"HTTP/1.1 %d Interim\r\nx-interim: yes\r\n\r\n" % state.interim_status)
        if status != 200:
            retry_after = {} if state.retry_after_s is None else {"retry-after": str(state.retry_after_s)}
            return self._answers.error(status, f"engine {state.name} was told to answer {status}", retry_after)
        try:
            return await self._compute(visit)
        except BadRequestError as error:
            state.refused += isinstance(error, RefusedLegError)
            return self._answers.error(400, str(error))
        except TransferLostError as error:
            return self._answers.error(500, str(error))

    async def _compute(self, visit: Visit) -> web.StreamResponse:
        path, state = visit.seen.path, self._state
        if path == TRANSCRIPTIONS:
            transcript = engine_facts.transcribe(visit.seen.headers.get("content-type", ""), visit.seen.body)
            await self._run((), token_count(""), 1)
            return await self._send(visit, transcript)
        body = read_json(visit.seen.body)
        if state.is_strict_about_models and body.get("model") not in (*state.models, *state.adapters):
            return self._answers.error(404, f"The model `{body.get('model')}` does not exist.")
        if path in engine_facts.INFERENCE:
            document = engine_facts.INFERENCE[path](body, str(body.get("model") or state.models[0]))
            text = visit.seen.body.decode(errors="replace")
            await self._run(self._blocks((text,), ""), token_count(text), 1)
            return await self._send(visit, document)
        request_id = visit.seen.headers.get("x-request-id") or uuid.uuid4().hex
        leg = self._disaggregation.admit(visit.seen, body, read_ask(path, body, state.tokens), request_id)
        try:
            with self._ranks.occupied(visit.seen.headers.get("x-data-parallel-rank"), body):
                await leg.receive()
                return await self._generate(visit, leg, request_id)
        finally:
            leg.close()

    async def _generate(self, visit: Visit, leg: Leg, request_id: str) -> web.StreamResponse:
        ask = leg.ask
        prompt_tokens = sum(map(token_count, ask.prompts))
        reply = REPLIES[visit.seen.path](
            ask, request_id, engine=self._state.name, model=self._state.models[0], prompt_tokens=prompt_tokens
        )
        reply.knows_prompt = not leg.is_received
        if isinstance(reply, ResponsesReply):
            self._responses.store(reply.state("in_progress"))
        is_whole = leg.is_prefill or self._state.drip_bytes or self._state.reads_until_close
        if ask.stream and not is_whole:
            response = await self._stream(visit, leg, reply)
        else:
            blocks = self._blocks(ask.prompts, ask.namespace)
            sequence = await self._run(blocks, prompt_tokens, ask.tokens, is_received=leg.is_received)
            reply.cached_tokens = sequence.cached_tokens
            await leg.hand_over(reply)
            response = await self._send(visit, _all_events(reply) if ask.stream else reply.document())
        if isinstance(reply, ResponsesReply):
            self._responses.store(reply.document())
        self._finished[ask.finish] += 1
        return response

    async def _run(
        self, blocks: tuple[int, ...], prompt_tokens: int, total: int, *, is_received: bool = False
    ) -> Sequence:
        sequence = self.steps.submit(prompt_tokens, blocks, total, _ignore, is_received=is_received)
        try:
            await sequence.done
        finally:
            self.steps.abandon(sequence)
        return sequence

    def _blocks(self, prompts: tuple[str, ...], namespace: str) -> tuple[int, ...]:
        if not self.cache.capacity_blocks:  # most of a long prompt's cost; load tests go without
            return ()
        return tuple(block for prompt in prompts for block in block_hashes(prompt, namespace=namespace))

    async def _stream(self, visit: Visit, leg: Leg, reply: Reply) -> web.StreamResponse:
        """Send the head at once and each token in the step that makes it, without waking this task."""
        ask = leg.ask
        response = web.StreamResponse(headers=self._answers.headers(_EVENTS))
        is_chunked = visit.request.version >= HttpVersion11
        if is_chunked:
            response.enable_chunked_encoding()
        if self._state.closes_connections:
            response.force_close()
        await response.prepare(visit.request)
        transport = visit.transport
        breaks_after = self._state.close_after_tokens if visit.fault is Fault.CLOSE_MID_STREAM else None

        def write(payload: bytes) -> None:
            if payload and not transport.is_closing():
                transport.write(b"%x\r\n%b\r\n" % (len(payload), payload) if is_chunked else payload)

        def on_token(position: int) -> None:
            if position == 0:
                reply.cached_tokens = sequence.cached_tokens
                write(reply.opening())
            if position == breaks_after:
                visit.counts_as = "failed"
                transport.close()
            write(reply.delta(position))
            if position == ask.tokens - 1:
                write(reply.closing())

        blocks = self._blocks(ask.prompts, ask.namespace)
        sequence = self.steps.submit(reply.prompt_tokens, blocks, ask.tokens, on_token, is_received=leg.is_received)
        try:
            await sequence.done
        finally:
            self.steps.abandon(sequence)
        if breaks_after is not None:
            await visit.hang_up("failed")
        await response.write_eof()
        return response

    # --- sending ---

    async def _send(self, visit: Visit, answer: dict[str, Any] | bytes) -> web.StreamResponse:
        """Send a whole answer, in the way the knobs ask for."""
        state = self._state
        body, content_type = (answer, _EVENTS) if isinstance(answer, bytes) else (orjson.dumps(answer), JSON)
        headers = self._answers.headers(content_type)
        if state.reads_until_close:
            visit.transport.write(_raw_head(headers | {"connection": "close"}) + body)
            await visit.hang_up("completed")
        if visit.fault in (Fault.SHORT_BODY, Fault.CLOSE_MID_STREAM):
            visit.transport.write(_raw_head(headers | {"content-length": str(len(body) + 100)}) + body)
            await visit.hang_up("failed")
        if state.drip_bytes:
            return await self._drip(visit, headers, body)
        response = web.Response(body=body, headers=headers)
        if state.closes_connections:
            response.force_close()
        return response

    async def _drip(self, visit: Visit, headers: dict[str, str], body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        if headers["content-type"] == JSON:
            response.content_length = len(body)
        await response.prepare(visit.request)
        for start in range(0, len(body), self._state.drip_bytes):
            await response.write(body[start : start + self._state.drip_bytes])
            await asyncio.sleep(self._state.drip_interval_s)
        await response.write_eof()
        return response


def _all_events(reply: Reply) -> bytes:
    deltas = (reply.delta(position) for position in range(reply.tokens))
    return b"".join((reply.opening(), *deltas, reply.closing()))


def _raw_head(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()


def _ignore(_position: int) -> None:
    """Take no notice of a token."""
