from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.contract.worker_url import make_worker_url, worker_url


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("HTTP://A.example:80/", "http://a.example"),
        ("https://a:443", "https://a"),
        ("http://a:443", "http://a:443"),
        ("http://[FD00::1]:8000", "http://[fd00::1]:8000"),
        ("http://[0:0:0:0:0:0:0:1]:8000", "http://[::1]:8000"),
        ("http://[64:FF9B::10.0.0.7]:8000", "http://[64:ff9b::a00:7]:8000"),
        ("http://a_b:1/", "http://a_b:1"),
        ("http://10.0.0.7:8000", "http://10.0.0.7:8000"),
        ("http://worker-0.workers.default.svc.cluster.local.:80", "http://worker-0.workers.default.svc.cluster.local."),
    ],
)
def test_a_url_has_one_spelling(text: str, spelling: str):
    assert worker_url(text) == spelling
    assert worker_url(spelling) == spelling


def test_an_ipv6_address_without_brackets_gets_the_right_form():
    with pytest.raises(ValueError, match=r"without brackets; write http://\[ADDRESS\]:PORT"):
        worker_url("http://fd00::1:8000")


@pytest.mark.parametrize(
    "url", ["", "a", "a:1", "http://", "ftp://a", "file:///etc/passwd", "http://a:0", "http://a:", "http://a:99999",
            "http://a/v1", "http://a?", "http://a#", "http://a b", "http://a\t", "http://a\n", "\x00http://a", "http://u@a",
            "http://[::g]", "http://[fe80::1%eth0]", "//a", "http://1.2.3", "http://1.2.3.4.5", "http://0x7f.1",
            "http://127.1", "http://2130706433", "http://010.0.0.1"]
)  # fmt: skip
def test_what_is_no_workers_url_is_refused(url: str):
    with pytest.raises(ValueError):
        worker_url(url)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "169.254.0.1", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]",
             "metadata.google.internal", "METADATA.google.internal.", "metadata", "100.100.100.200",
             "[64:ff9b::a9fe:a9fe]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1:2::a9fe:a9fe]", "[::a9fe:a9fe]",
             "[::ffff:0:a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[64:ff9b::100.100.100.200]"]
)  # fmt: skip
def test_a_metadata_service_is_no_worker(host: str):
    with pytest.raises(ValueError, match="link-local or metadata address"):
        worker_url(f"http://{host}:80")


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.16689662"])
def test_no_other_spelling_of_an_address_gets_through(host: str):
    with pytest.raises(ValueError, match="names no valid host"):
        worker_url(f"http://{host}/")


@given(st.text(max_size=40).map("http://".__add__) | st.from_regex(r"https?://[^\s]{0,40}", fullmatch=True))
def test_whatever_is_taken_has_one_spelling_and_nothing_but_host_and_port(text: str):
    try:
        url = worker_url(text)
    except ValueError:
        return
    assert worker_url(url) == url
    assert url.isascii()
    assert url.count("/") == 2
    assert not set(url) & set("@?#\\ ")


def test_an_address_becomes_a_url():
    assert make_worker_url("fd00::1", 8000) == "http://[fd00::1]:8000"
    assert make_worker_url("a", 443, scheme="https") == "https://a"
