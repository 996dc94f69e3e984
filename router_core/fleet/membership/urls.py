"""A worker's URL in its one spelling, so that two sources that name the same worker are seen to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_REMEDY = "write http://HOST:PORT"


def normalize_worker_url(text: str) -> str:
    """Return a worker's URL with scheme and host in lower case, without default port and trailing slash.

    It is spelled as `worker_urls` in the router's config spells it.

    Raises:
        ValueError: If it is not `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    """
    if "@" in text:  # first, so that no password gets into a message
        raise ValueError(f"a worker's URL holds no user, password or '@'; {_REMEDY}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not a URL ({error}); {_REMEDY}") from error
    if "://" not in text or parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{text!r} is neither http:// nor https://; {_REMEDY}")
    if not _is_host(host) or re.search(r"\s", text):
        raise ValueError(f"{text!r} names no valid host; {_REMEDY}")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{text!r} has no usable port; {_REMEDY}")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError(f"{text!r} has more than host and port; {_REMEDY}")
    return make_worker_url(host, port, scheme=parts.scheme)


def make_worker_url(host: str, port: int | None, *, scheme: str = "http") -> str:
    """Return the URL of a worker at `host`, a name or an IPv4 or IPv6 address."""
    authority = f"[{host}]" if ":" in host else host
    if port not in (None, _DEFAULT_PORTS[scheme]):
        authority = f"{authority}:{port}"
    return f"{scheme}://{authority}"


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _HOST_NAME.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
