"""The code of the router's own errors in a header, for those who come from gateways that tell it there."""

from __future__ import annotations

import pytest

from .support import CHAT, RawClient, chat, running_router

NOBODY = "http://127.0.0.1:9"
SMG = {"error_code_header": "x-smg-error-code"}

TOO_LONG = b"GET / HTTP/1.1\r\nhost: r\r\nx: " + b"x" * 2000 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", CHAT, "no_available_workers"),
        ("GET", "/v1/models", "no_available_workers"),
        ("GET", "/nowhere", "not_found"),
        ("GET", CHAT, "method_not_allowed"),
        ("GET", "/v1/responses/resp_1", "response_not_found"),
        ("GET", "/get_model_info", "no_workers"),
    ],
)
async def test_an_error_tells_its_code_in_the_header_too(method, path, code):
    async with (
        running_router([NOBODY], expect_healthy=0, **SMG) as router,
        router.session.request(method, router.url + path, json=chat()) as response,
    ):
        assert response.headers.getall("x-smg-error-code") == [code]
        assert (await response.json())["error"]["code"] == code


async def test_a_request_refused_for_its_head_or_its_key_does_too():
    settings = {**SMG, "auth": {"api_key": "sk-1"}, "limits": {"max_head_bytes": 1024}}
    async with running_router([NOBODY], expect_healthy=0, **settings) as router:
        for data, code in (
            (TOO_LONG, "request_header_fields_too_large"),
            (b"POST /generate HTTP/1.1\r\nhost: r\r\ncontent-length: 5\r\n\r\n", "invalid_api_key"),
        ):
            async with await RawClient.connect(router.url) as client:
                client.writer.write(data)
                assert (await client.read_head())[1]["x-smg-error-code"] == code
        async with router.post() as response:
            assert response.headers["x-smg-error-code"] == "invalid_api_key"


async def test_the_address_of_administration_does_too():
    async with (
        running_router([NOBODY], expect_healthy=0, admin_port=0, **SMG) as router,
        router.session.get(f"{router.server.admin_url}/nowhere") as response,
    ):
        assert response.headers["x-smg-error-code"] == "not_found"


async def test_answers_and_routers_that_were_not_asked_to_tell_none(simulated_engine):
    async with simulated_engine() as engine:
        async with running_router([engine], **SMG) as router, router.post() as response:
            assert (response.status, response.headers.get("x-smg-error-code")) == (200, None)
        async with running_router([engine]) as router, router.get("/nowhere") as response:
            assert (response.status, response.headers.get("x-smg-error-code")) == (404, None)
