"""TLS contexts from certificate files: one for the listening side, one for the way to workers, both renewable."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path


class CertificateError(Exception):
    """A certificate, a key or an authority cannot be used.

    Attributes:
        part: Which of them: `cert`, `key`, `ca` or `client_ca`.
    """

    def __init__(self, part: str, reason: str) -> None:
        self.part = part
        super().__init__(part, reason)

    def __str__(self) -> str:
        return str(self.args[1])


class ServerTls:
    """What the router shows to clients.

    Attributes:
        context: For handshakes that begin now.
        files: What it was made from.
    """

    def __init__(self, cert: Path, key: Path, *, client_ca: Path | None = None) -> None:
        """Read the files.

        Args:
            cert: The certificate and its chain, PEM.
            key: Its private key, PEM, not encrypted.
            client_ca: Authorities; given, only clients with a certificate of theirs are served.

        Raises:
            CertificateError: If one of them cannot be used.
        """
        self.files = tuple(filter(None, (cert, key, client_ca)))
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self.context = self._make()

    def renew(self) -> None:
        """Read the files again; connections made from now on see what they hold.

        Raises:
            CertificateError: If one of them cannot be used; nothing has changed then.
        """
        self.context = self._make()

    def take(self, other: ServerTls) -> None:
        """Show from now on what another one shows."""
        self.files, self.context = other.files, other.context
        self._cert, self._key, self._client_ca = other._cert, other._key, other._client_ca

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        _load_pair(context, self._cert, self._key)
        if self._client_ca is not None:
            _load_authority(context, self._client_ca, "client_ca")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class WorkerTls:
    """How workers at `https://` are spoken to. Without such a worker it costs nothing: the context is made when needed.

    Attributes:
        server_name: The name their certificates are checked against; None takes each one's host.
        files: What the context is made from.
    """

    def __init__(
        self,
        *,
        ca: Sequence[Path] = (),
        cert: Path | None = None,
        key: Path | None = None,
        verify: bool = True,
        server_name: str | None = None,
    ) -> None:
        """Make ready; nothing is read yet.

        Args:
            ca: Authorities that sign workers' certificates, PEM; empty trusts the system's.
            cert: The certificate shown to workers that ask for one, PEM.
            key: Its private key, PEM, not encrypted.
            verify: Whether a worker's certificate has to be valid.
            server_name: See the class.
        """
        self.server_name = server_name
        self.files = (*ca, *filter(None, (cert, key)))
        self._ca, self._cert, self._key, self._verify = tuple(ca), cert, key, verify
        self._context: ssl.SSLContext | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """For connections made from now on.

        Raises:
            CertificateError: If a file cannot be used.
        """
        if self._context is None:
            self._context = self._make()
        return self._context

    def renew(self) -> None:
        """Read the files again.

        Raises:
            CertificateError: If one of them cannot be used; nothing has changed then.
        """
        self._context = self._make()

    def take(self, other: WorkerTls) -> None:
        """Speak to workers from now on as another one does."""
        self.server_name, self.files, self._context = other.server_name, other.files, other._context
        self._ca, self._cert, self._key, self._verify = other._ca, other._cert, other._key, other._verify

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if self._ca else ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        for path in self._ca:
            _load_authority(context, path, "ca")
        if self._cert is not None and self._key is not None:
            _load_pair(context, self._cert, self._key)
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def describe_tls_error(error: ssl.SSLError) -> str:
    """Return why a worker and we could not agree, for a log line, and what to do about it where that is plain."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _REMEDIES.get(error.verify_code, "")
        return f"its certificate was not accepted: {error.verify_message.rstrip('.')}{remedy}"
    reason = error.reason or error.strerror or str(error) or type(error).__name__
    return f"the TLS handshake failed: {str(reason).replace('_', ' ').lower()}"


_NAME_IT = "; name the authority that signed it in worker_tls.ca"
_OTHER_NAME = "; if it has another name on purpose, set worker_tls.server_name"
# OpenSSL's numbers (X509_V_ERR_...), which Python does not name.
_REMEDIES = {
    9: "; set the clocks of router and worker right",  # not valid yet
    10: "; renew it at the worker",  # expired
    18: _NAME_IT,  # signed by itself
    19: _NAME_IT,  # a chain that ends in such a one
    20: _NAME_IT,  # of an unknown authority
    21: _NAME_IT,  # alone, and of an unknown authority
    62: _OTHER_NAME,  # host
    64: _OTHER_NAME,  # IP address
}


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    _check_readable(cert, "cert")
    _check_readable(key, "key")
    try:
        context.load_cert_chain(cert, key, password=_refuse_encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(
                "key", f"{key} is not the key of the certificate in {cert}; name the two that belong together"
            ) from error
        raise _what_is_missing(cert, key) from error
    except ValueError as error:
        raise CertificateError("key", f"{key} is encrypted; give the key without a passphrase") from error


def _what_is_missing(cert: Path, key: Path) -> CertificateError:
    """Return what keeps a pair, which OpenSSL refuses, from being one."""
    in_cert, in_key = cert.read_bytes(), key.read_bytes()
    if _CERTIFICATE not in in_cert:
        found = "a private key but no certificate" if _KEY in in_cert else "no certificate"
        return CertificateError("cert", f"{cert} holds {found} in PEM form; name the certificate's file")
    if _KEY not in in_key:
        found = "a certificate but no private key" if _CERTIFICATE in in_key else "no private key"
        return CertificateError("key", f"{key} holds {found} in PEM form; name the key's file")
    return CertificateError("cert", f"{cert} and {key} hold a damaged certificate or key; write the files anew")


_CERTIFICATE, _KEY = b"CERTIFICATE-----", b"PRIVATE KEY-----"


def _load_authority(context: ssl.SSLContext, path: Path, part: str) -> None:
    _check_readable(path, part)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise CertificateError(part, f"{path} holds no certificates in PEM form; name a file that does") from error


def _check_readable(path: Path, part: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise CertificateError(part, f"{path} cannot be read ({error.strerror}); name a readable file") from error


def _refuse_encrypted() -> str:
    raise ValueError("a key that wants a passphrase")  # OpenSSL would ask for it on the terminal, and wait
