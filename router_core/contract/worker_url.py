"""A worker's URL: what may stand there, in one spelling, so that two sources that name the same worker are seen to.

Everybody who takes a worker's URL (config, membership, administration) takes it through here. Addresses that no worker
has and that answer with credentials on cloud machines (link-local ones, metadata services) are refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from router_core.contract.errors import shown

_DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_BARE_IPV6 = re.compile(r"(https?)://[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/?")
# The C library reads such a last label as a number, and the whole as an IPv4 address: 2852039166 is 169.254.169.254.
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)\.?")
_METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})
_METADATA_ADDRESSES = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200")))

# IPv6 addresses whose last 32 bits are an IPv4 address, which a translator or the system connects to.
_HOLDING_IPV4 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "::/96",  # compatible, RFC 4291
            "::ffff:0:0/96",  # mapped, RFC 4291
            "::ffff:0:0:0/96",  # translated, RFC 7915
            "64:ff9b::/96",  # NAT64, RFC 6052
            "64:ff9b:1::/48",  # NAT64 of a site's own, RFC 8215
        ),
    )
)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def worker_url(text: str) -> str:
    """Return a worker's URL in its one spelling: scheme and host in lower case, IPv6 addresses as
    RFC 5952 writes them, no default port, no trailing slash.

    Raises:
        ValueError: If it is not `http://HOST[:PORT]` or `https://HOST[:PORT]`, or leads to a metadata service.
    """
    if "@" in text:  # first, so that no password gets into a message
        raise ValueError("a worker's URL holds no user, password or '@'; write http://HOST:PORT")
    if "://" not in text:
        raise ValueError(f"{shown(text)} lacks http:// or https://; write {shown('http://' + text)}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        if bare := _BARE_IPV6.fullmatch(text):
            raise ValueError(
                f"{shown(text)} has an IPv6 address without brackets; write {bare[1]}://[ADDRESS]:PORT"
            ) from error
        raise ValueError(f"{shown(text)} is not a URL ({error}); write http://HOST:PORT") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{shown(text)} is neither http nor https; write http://HOST:PORT")
    if not _is_host(host) or re.search(r"[\x00-\x20\x7f-\xa0\s]", text):
        raise ValueError(f"{shown(text)} names no valid host; write http://HOST:PORT")
    if _is_metadata(host):
        raise ValueError(f"{shown(text)} is a link-local or metadata address, which no worker has; name the worker's")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"{shown(text)} has no usable port; give the port the worker listens on")
    url = make_worker_url(host, port, scheme=parts.scheme)
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError(f"{shown(text)} has more than host and port; write {shown(url)}, the path is the client's")
    return url


def make_worker_url(host: str, port: int | None, *, scheme: str = "http") -> str:
    """Return the URL of a worker at `host`, a name or an IPv4 or IPv6 address."""
    authority = f"[{_address(host) or host}]" if ":" in host else host
    if port not in (None, _DEFAULT_PORTS[scheme]):
        authority = f"{authority}:{port}"
    return f"{scheme}://{authority}"


def distinct_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return workers' URLs if none of them stands there twice.

    Raises:
        ValueError: If one does.
    """
    if repeated := sorted({url for url in urls if urls.count(url) > 1}):
        raise ValueError(f"{', '.join(repeated)} stands there more than once; name each worker once")
    return urls


def _is_host(host: str) -> bool:
    if ":" in host:
        return "%" not in host and _address(host) is not None
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        return _address(host) is not None
    return _HOST_NAME.fullmatch(host) is not None


def _is_metadata(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host.removesuffix(".") in _METADATA_HOSTS
    if isinstance(address, ipaddress.IPv6Address):
        address = _ipv4_in(address) or address
    return address.is_link_local or address in _METADATA_ADDRESSES


def _ipv4_in(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for."""
    if any(address in network for network in _HOLDING_IPV4):
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.sixtofour


def _address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
