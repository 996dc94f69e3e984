"""Certificates made for one test: an authority, and what it signs, as contexts and as files."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme


class Authority:
    """A certificate authority that nobody else trusts.

    Attributes:
        ca: Its certificate, as a file.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def files(self, name: str, *hosts: str, **options: Any) -> dict[str, str]:
        """Return `cert` and `key` of a certificate for these hosts, written to files of that name."""
        signed = self._ca.issue_cert(*(hosts or ("127.0.0.1", "localhost")), **options)
        cert, key = self._folder / f"{name}.cert", self._folder / f"{name}.key"
        key.write_bytes(signed.private_key_pem.bytes())
        cert.write_bytes(b"".join(blob.bytes() for blob in signed.cert_chain_pems))
        return {"cert": str(cert), "key": str(key)}

    def server(self, *hosts: str, wants_client: bool = False, **options: Any) -> ssl.SSLContext:
        """Return what a server for these hosts listens with."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*(hosts or ("127.0.0.1", "localhost")), **options).configure_cert(context)
        if wants_client:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        """Return what a client that trusts this authority connects with."""
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        if with_certificate:
            self._ca.issue_cert("client").configure_cert(context)
        return context
