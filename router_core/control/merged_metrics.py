"""Several engines' Prometheus expositions as one, each sample labelled with the worker it comes from. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

LABEL = b"worker_addr"

_SAMPLE = re.compile(rb"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?([ \t]+\S.*)")
_COMMENT = re.compile(rb"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) ?(.*)")
_PARTS = (b"_bucket", b"_sum", b"_count", b"_total", b"_created", b"_info", b"_gcount", b"_gsum")


class _Family:
    """A metric with what is said of it, first come first served, and its samples."""

    __slots__ = ("comments", "samples")

    def __init__(self) -> None:
        self.comments: dict[bytes, bytes] = {}
        self.samples: list[bytes] = []


def merge_expositions(expositions: Iterable[tuple[str, bytes]]) -> bytes:
    """Return one exposition in which each metric stands once.

    A line that is neither a sample nor a comment is left out, and so is a label of a sample's own that has our label's
    name: a worker may itself be a router.

    Args:
        expositions: The address of each worker and what it exposes.
    """
    families: dict[bytes, _Family] = {}
    for worker, exposition in expositions:
        label = LABEL + b'="' + _escaped(worker) + b'"'
        current = b""
        for line in exposition.splitlines():
            if line.startswith(b"#"):
                comment = _COMMENT.fullmatch(line)
                if comment is not None:
                    current = comment[2]
                    families.setdefault(current, _Family()).comments.setdefault(comment[1], line)
                continue
            sample = _SAMPLE.fullmatch(line)
            if sample is not None:
                name = sample[1]
                family = current if _belongs(name, current) else name
                text = name + b"{" + _labels(label, sample[2]) + b"}" + sample[3]
                families.setdefault(family, _Family()).samples.append(text)
    lines = (line for family in families.values() for line in (*family.comments.values(), *family.samples))
    return b"".join(line + b"\n" for line in lines)


def _belongs(name: bytes, family: bytes) -> bool:
    return name == family or (name.startswith(family) and name[len(family) :] in _PARTS)


def _labels(label: bytes, others: bytes | None) -> bytes:
    inside = b"" if others is None else others[1:-1].strip().removesuffix(b",")
    if LABEL in inside:
        inside = _OWN.sub(b"", inside).strip(b", ")
    return label + b"," + inside if inside else label


_OWN = re.compile(rb"(?:^|(?<=,))\s*" + LABEL + rb'="(?:[^"\\]|\\.)*"\s*(?:,|$)')


def _escaped(text: str) -> bytes:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode()
