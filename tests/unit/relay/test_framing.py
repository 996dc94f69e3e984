"""Where a body ends, however it arrives; and which bodies have no clear end."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.relay.framing import MAX_EXTENSION_BYTES, ChunkedBody, FramingError, SizedBody, UntilCloseBody

from .fakes import split_at

CUTS = st.lists(st.integers(0, 2000), max_size=12)
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b';a="x y"'])
TRAILERS = st.lists(st.sampled_from([b"X-Sum: 1\r\n", b"X-Empty:\r\n", b"x: \xff\r\n"]), max_size=2)


@st.composite
def chunked_bodies(draw):
    """A valid chunked body and what it holds."""
    wire, payload = b"", b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=300), max_size=5)):
        size = b"%x" % len(data)
        size = draw(st.sampled_from([size, size.upper(), b"000" + size]))
        wire += size + draw(EXTENSIONS) + b"\r\n" + data + b"\r\n"
        payload += data
    return wire + b"0" + draw(EXTENSIONS) + b"\r\n" + b"".join(draw(TRAILERS)) + b"\r\n", payload


def read(framing, pieces):
    """Return the body and the index of its end in all bytes, -1 if it does not end there."""
    sink, before = [], 0
    for piece in pieces:
        end = framing.feed(piece, sink)
        if end >= 0:
            return b"".join(sink), before + end
        before += len(piece)
    return b"".join(sink), -1


def llhttp_reads(wire):
    """Return the body as httptools' own parser reads it, and whether it ended."""

    class Callbacks:
        def __init__(self):
            self.body, self.is_whole = b"", False

        def on_body(self, body):
            self.body += body

        def on_message_complete(self):
            self.is_whole = True

    callbacks = Callbacks()
    parser = httptools.HttpRequestParser(callbacks)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    return callbacks.body, callbacks.is_whole


@given(chunked_bodies(), CUTS, st.binary(max_size=20))
def test_a_chunked_body_is_read_as_llhttp_reads_it_however_it_is_cut(body, cuts, following):
    wire, payload = body

    found = read(ChunkedBody(), split_at(wire + following, cuts))

    assert found == (payload, len(wire))
    assert llhttp_reads(wire) == (payload, True)


@given(chunked_bodies(), CUTS)
def test_the_end_of_a_chunked_body_is_found_without_a_sink_too(body, cuts):
    wire, _ = body
    framing = ChunkedBody()
    ends = [framing.feed(piece) for piece in split_at(wire, cuts)]

    assert ends[-1] >= 0
    assert all(end == -1 for end in ends[:-1])


@given(chunked_bodies(), st.data())
def test_a_chunked_body_cut_short_never_ends(body, data):
    wire, _ = body
    kept = data.draw(st.integers(0, len(wire) - 1))
    assert read(ChunkedBody(), [wire[:kept]])[1] == -1


@given(chunked_bodies(), st.data())
def test_one_changed_byte_never_makes_a_body_that_llhttp_refuses(body, data):
    wire, _ = body
    place = data.draw(st.integers(0, len(wire) - 1))
    changed = wire[:place] + data.draw(st.binary(min_size=1, max_size=1)) + wire[place + 1 :]
    try:
        payload, end = read(ChunkedBody(), [changed])
    except FramingError:
        return
    if end >= 0 and b";" not in changed:  # of extensions we take more, for they are dropped or passed on as they are
        assert llhttp_reads(changed[:end]) == (payload, True)


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"0", b"1", b"a", b";", b" ", b":", b"\x00"]), max_size=14), CUTS
)
def test_how_the_bytes_are_cut_changes_nothing(tokens, cuts):
    wire = b"".join(tokens)

    def outcome(pieces):
        try:
            return read(ChunkedBody(), pieces)
        except FramingError:
            return "refused"

    whole, cut = outcome([wire]), outcome(split_at(wire, cuts))
    # A broken line is refused once it is whole, or as soon as it is seen to be broken.
    assert cut == whole


BAD_SIZES = [
    b"+5",
    b"-5",
    b"0x5",
    b"0X5",
    b"5_0",
    b" 5",
    b"5 ",
    b"",
    b"g",
    b"5g",
    b"5\t",
    b"\xb25",
    b"1" * 17,
    b"0" * 17,
]


@pytest.mark.parametrize(
    "size", [*BAD_SIZES, b"5\x00", b"5;a\x00", b"5;a\x01", b"5\x0b;a", b";a", b"5,5", b"5.0", b"\xef\xbc\x95"]
)
@pytest.mark.parametrize("is_trickled", [False, True])
def test_a_chunk_size_that_is_not_plain_hexadecimal_is_refused(size, is_trickled):
    wire = size + b"\r\nhello\r\n0\r\n\r\n"
    with pytest.raises(FramingError):
        read(ChunkedBody(), [bytes([byte]) for byte in wire] if is_trickled else [wire])


BROKEN = {
    "a bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "a bare LF after the chunk": b"5\r\nhello\n0\r\n\r\n",
    "a bare CR after the chunk": b"5\r\nhello\r0\r\n\r\n",
    "more than its size": b"5\r\nhello!\r\n0\r\n\r\n",
    "less than its size": b"5\r\nhell\r\n0\r\n\r\n",
    "a bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a bare LF at the end": b"0\n\n",
    "a bare LF in the trailer": b"0\r\nX: a\nY: b\r\n\r\n",
    "a folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "NUL in the trailer": b"0\r\nX: \x00\r\n\r\n",
    "a trailer that is a request": b"0\r\nGET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("is_trickled", [False, True])
def test_a_chunked_body_without_a_clear_end_is_refused(wire, is_trickled):
    with pytest.raises(FramingError):
        read(ChunkedBody(), [bytes([byte]) for byte in wire] if is_trickled else [wire])


def test_extensions_are_bounded_over_the_whole_body():
    chunk = b"1;" + b"x" * 1000 + b"\r\n.\r\n"
    framing = ChunkedBody()
    for _ in range(MAX_EXTENSION_BYTES // 1001):
        framing.feed(chunk)
    with pytest.raises(FramingError, match="extensions"):
        framing.feed(chunk)


def test_an_extension_that_never_ends_is_refused_before_its_line_is_whole():
    with pytest.raises(FramingError, match="too long"):
        read(ChunkedBody(), [b"1;", *[b"xx"] * MAX_EXTENSION_BYTES])


def test_a_trailer_that_never_ends_is_refused():
    with pytest.raises(FramingError, match="too long"):
        read(ChunkedBody(), [b"0\r\n", *[b"X-Filler: y\r\n"] * 10_000])


@given(st.binary(max_size=300), CUTS, st.binary(max_size=20))
def test_a_sized_body_ends_after_its_size_however_it_is_cut(body, cuts, following):
    framing = SizedBody(len(body))
    if not body:
        assert framing.feed(following) == 0
        return
    assert read(framing, split_at(body + following, cuts)) == (body, len(body))


def test_a_body_until_close_never_ends_by_itself():
    assert read(UntilCloseBody(), [b"a", b"\r\n0\r\n\r\n", b"b"]) == (b"a\r\n0\r\n\r\nb", -1)
