"""Why clients get no TLS connection: counted under few fixed words, and told in the log now and then."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable

_log = logging.getLogger(__name__)

_TELL_EVERY_S = 10.0
_CAUSES = {
    "no_tls": "it does not speak TLS; give it an https:// address",
    "version": "it speaks no version of TLS from 1.2 on; have it allow one",
    "cipher": "it has no cipher in common with the router; have it allow those of TLS 1.2 or 1.3",
    "certificate_missing": "it shows no certificate; give it one that tls.client_ca has signed",
    "certificate_refused": "its certificate is not one that tls.client_ca has signed and that is valid now",
    "certificate_distrusted": "it does not trust the router's certificate; give it the authority that signed tls.cert",
    "timeout": "it did not finish the handshake in time",
    "closed": "it closed its connection before the handshake was over",
}
_REASONS = {
    "HTTP_REQUEST": "no_tls",
    "HTTPS_PROXY_REQUEST": "no_tls",
    "WRONG_VERSION_NUMBER": "no_tls",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate_missing",
    "CERTIFICATE_VERIFY_FAILED": "certificate_refused",
    "TLSV1_ALERT_UNKNOWN_CA": "certificate_distrusted",
    "SSLV3_ALERT_BAD_CERTIFICATE": "certificate_distrusted",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate_distrusted",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate_distrusted",
}


class HandshakeFailures:
    """What has gone wrong in clients' handshakes.

    The first failure of a kind is told at once, those of the next ten seconds with the one that follows them. Clients
    that just leave are told at level debug: balancers look so whether a port is open. Nothing that a client sent is.

    Attributes:
        counts: How many failed, by one of the words above.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin with none; `now` returns monotonic seconds."""
        self.counts = dict.fromkeys((*_CAUSES, "other"), 0)
        self._now = now
        self._told: dict[str, tuple[float, int]] = {}  # when last, and the count then

    def note(self, error: OSError, peer: str) -> None:
        """Take note of one.

        Args:
            error: How it ended.
            peer: The client's address.
        """
        reason = reason_of(error)
        count = self.counts[reason] = self.counts[reason] + 1
        now = self._now()
        told_at, told_count = self._told.get(reason, (-_TELL_EVERY_S, 0))
        if now - told_at < _TELL_EVERY_S:
            return
        self._told[reason] = now, count
        silent = count - told_count - 1
        _log.log(
            logging.DEBUG if reason == "closed" else logging.INFO,
            "no TLS connection with %s: %s%s",
            peer,
            _CAUSES.get(reason) or _in_openssls_words(error),
            f" (and {silent} more like it since the last that was told)" if silent else "",
        )


def _in_openssls_words(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return f"the handshake failed: {(reason or 'for no reason given').replace('_', ' ').lower()}"


def reason_of(error: OSError) -> str:
    """Return the word under which the end of a handshake is counted."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "closed"
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(error.reason or "", "other")
    # The loop aborts connections that take too long; all else is the client's doing.
    return "timeout" if isinstance(error, ConnectionAbortedError) else "closed"
