"""A head is recalled only where parsing it would give the same."""

from __future__ import annotations

import pytest

from router_core.relay.head_memory import HeadMemory
from router_core.relay.request_head import BadRequestError, RequestHead

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\nX-Tag: 1\r\n\r\n"


def taught(data: bytes) -> tuple[HeadMemory[RequestHead], RequestHead]:
    memory: HeadMemory[RequestHead] = HeadMemory()
    head = RequestHead(data)
    memory.learn(data, head)
    return memory, head


def test_nothing_is_recalled_before_something_was_taught() -> None:
    assert HeadMemory[RequestHead]().recall(HEAD % b"5") is None


def test_a_head_with_another_length_is_recalled_with_its_own_length() -> None:
    memory, head = taught(HEAD % b"5")
    data = HEAD % b"123456"
    assert memory.recall(data + b"body") == (head, 123456, len(data))


def test_a_head_without_a_length_is_recalled_whole() -> None:
    data = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    memory, head = taught(data)
    assert memory.recall(data + data) == (head, None, len(data))
    assert memory.recall(data[:-1]) is None


@pytest.mark.parametrize(
    "length",
    [b"", b" 5", b"5 ", b"+5", b"-5", b"5_0", b"0x5", b"5, 5", b"5\r\nContent-Length: 6", b"5\n", b"\xb2", b"9" * 16],
)
def test_a_length_that_is_not_plain_digits_is_left_to_the_parser(length: bytes) -> None:
    memory, _ = taught(HEAD % b"5")
    assert memory.recall(HEAD % length) is None


@pytest.mark.parametrize(
    "data",
    [
        (HEAD % b"5").replace(b"X-Tag: 1", b"X-Tag: 2"),
        (HEAD % b"5").replace(b"Host: a", b"Host: b"),
        (HEAD % b"5").replace(b"X-Tag: 1", b"X-Tag: 1\r\nTransfer-Encoding: chunked"),
        (HEAD % b"5")[:-2],
        (HEAD % b"5").replace(b"POST", b"GET"),
    ],
)
def test_a_head_that_differs_elsewhere_is_left_to_the_parser(data: bytes) -> None:
    memory, _ = taught(HEAD % b"5")
    assert memory.recall(data) is None


def test_a_length_in_another_headers_value_is_not_taken_for_the_length() -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nX-Note: Content-Length: 3\r\nContent-Length: 5\r\n\r\n"
    memory, _ = taught(data)
    assert memory.recall(data.replace(b": 3", b": 4")) is None
    recalled = memory.recall(data.replace(b"Content-Length: 5", b"Content-Length: 7"))
    assert recalled is not None
    assert recalled[1] == 7


def test_what_the_parser_refuses_is_never_taught() -> None:
    with pytest.raises(BadRequestError):
        RequestHead(HEAD % b"5, 5")
