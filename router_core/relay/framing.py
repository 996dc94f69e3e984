"""Where a message's body ends. Sans I/O; the same code reads clients' bodies and workers' answers.

`feed(data)` returns the index in `data` just after the body's last byte, or -1 while the body goes on. Given a list as
`sink` it also puts the body's own bytes there, without framing. What is ambiguous raises `FramingError`: guessing where
a message ends is how requests are smuggled.
"""

from __future__ import annotations

import re

MAX_EXTENSION_BYTES = 4096
"""Chunk extensions accepted in one body, in all."""

MAX_TRAILER_BYTES = 16384

_CRLF = b"\r\n"
_MAX_FILLING_BYTES = 65536
# A chunk-size line: hex digits, then optional extensions without control characters other than tab.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_BARE_CONTROL = re.compile(rb"[\x00\r\n]")


class FramingError(Exception):
    """The body's framing is broken or ambiguous."""


class SizedBody:
    """A body of a known length (Content-Length).

    Attributes:
        left: Bytes of it still to come.
    """

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def feed(self, data: bytes, sink: list[bytes] | None = None) -> int:
        """Take the next bytes; see the module's docstring."""
        left = self.left
        if len(data) < left:
            self.left = left - len(data)
            if sink is not None:
                sink.append(data)
            return -1
        if sink is not None and left:
            sink.append(data if len(data) == left else data[:left])
        self.left = 0
        return left


class UntilCloseBody:
    """A body that ends with its connection."""

    __slots__ = ()

    def feed(self, data: bytes, sink: list[bytes] | None = None) -> int:
        """Take the next bytes; the end is never among them."""
        if sink is not None:
            sink.append(data)
        return -1


class ChunkedBody:
    """A body in chunked transfer coding (RFC 9112, section 7.1).

    Attributes:
        left: Bytes still to come of the chunk whose size was read last.
    """

    __slots__ = ("_extension_bytes", "_in_trailer", "left", "_line", "_size_known", "_trailer_bytes")

    def __init__(self) -> None:
        self.left = 0
        self._size_known = False  # inside a chunk: payload, then the CRLF that closes it
        self._line = b""  # a line cut off by the end of the last read
        self._in_trailer = False
        self._extension_bytes = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes, sink: list[bytes] | None = None) -> int:
        """Take the next bytes; see the module's docstring.

        Raises:
            FramingError: On a bad chunk size, a bare CR or LF, or too many extensions or trailers.
        """
        position, length = 0, len(data)
        while position < length:
            if self._size_known:
                end = position + self.left
                # 1. The chunk and its CRLF are all here.
                if end + 2 <= length and not self._line:
                    if data[end : end + 2] != _CRLF:
                        raise FramingError("a chunk does not end where its size says")
                    if sink is not None:
                        sink.append(data[position:end])
                    position = end + 2
                    self.left = 0
                    self._size_known = False
                    continue
                # 2. Some of the payload is still to come.
                if end >= length:
                    if sink is not None:
                        sink.append(data[position:])
                    self.left = end - length
                    return -1
                # 3. The payload is whole, its CRLF is cut in two.
                if sink is not None and self.left:
                    sink.append(data[position:end])
                self.left = 0
                crlf = self._line + data[end : end + 2 - len(self._line)]
                if not _CRLF.startswith(crlf):
                    raise FramingError("a chunk does not end where its size says")
                position = end + len(crlf) - len(self._line)
                self._line = crlf if crlf != _CRLF else b""
                self._size_known = crlf != _CRLF
                continue
            if self._line:
                # Join the line that the last read cut off; short, for lines are bounded.
                end = self._find_line_end(data)
                if end < 0:
                    self._keep_partial_line(data)
                    return -1
                line = self._line + data[:end]
                self._line = b""
                line, position = line[:-2], end
            else:
                end = data.find(_CRLF, position)
                if end < 0:
                    self._keep_partial_line(data[position:])
                    return -1
                line, position = data[position:end], end + 2
            if self._in_trailer:
                if not line:
                    return position
                self._take_trailer(line)
            else:
                self._take_size(line)
        return -1

    def closing(self, last: bytes) -> bytes | None:
        """Return the bytes that end the body where it is now, in good order, with `last` as the end of its content.

        The rest of a chunk that was cut off is filled with the beginning of `last`, and with line ends behind it.

        Returns:
            None if the body cannot be ended so: it was cut off in a chunk's size or behind its last chunk, or the chunk
            that was cut off is too large to be filled.
        """
        if self._in_trailer or (self._line and not self._size_known) or self.left > _MAX_FILLING_BYTES:
            return None
        rest = b""
        if self._size_known:
            rest = last[: self.left].ljust(self.left, b"\n") + _CRLF[len(self._line) :]
            last = last[self.left :]
        if last:
            rest += b"%x\r\n%b\r\n" % (len(last), last)
        return rest + b"0\r\n\r\n"

    def _find_line_end(self, data: bytes) -> int:
        """Return the index after the line's LF in `data`, or -1."""
        if self._line.endswith(b"\r") and data.startswith(b"\n"):
            return 1
        end = data.find(_CRLF)
        return end + 2 if end >= 0 else -1

    def _keep_partial_line(self, rest: bytes) -> None:
        self._line += rest
        if _BARE_CONTROL.search(self._line.removesuffix(b"\r")):
            raise FramingError("a bare CR or LF stands in a chunk's head")
        limit = MAX_TRAILER_BYTES if self._in_trailer else MAX_EXTENSION_BYTES + 16
        if len(self._line) > limit:
            raise FramingError("a chunk's head is too long")

    def _take_size(self, line: bytes) -> None:
        # int() alone would accept signs, underscores and 0x.
        if line.isalnum() and len(line) <= 16 and line[1:2] not in (b"x", b"X"):
            try:
                size = int(line, 16)
            except ValueError:
                raise FramingError("a chunk's size is not a hexadecimal number") from None
        else:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise FramingError("a chunk's size is not a hexadecimal number")
            self._extension_bytes += len(match[2] or b"")
            if self._extension_bytes > MAX_EXTENSION_BYTES:
                raise FramingError("chunk extensions are too long")
            size = int(match[1], 16)
        if size:
            self.left = size
            self._size_known = True
        else:
            self._in_trailer = True

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise FramingError("the trailer is too long")
        if _TRAILER_LINE.fullmatch(line) is None:
            raise FramingError("a trailer line is malformed")


Framing = SizedBody | ChunkedBody | UntilCloseBody
