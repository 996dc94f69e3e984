"""The settings of TLS: towards clients and towards workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from router_core.config.section import Section, Word
from router_core.config.values import split_words

CertificateFile = Annotated[Path, WithJsonSchema({"type": "string", "format": "file-path"})]


class TlsConfig(Section):
    """TLS towards clients: it is on as soon as a certificate is named."""

    cert: CertificateFile | None = None
    """Certificate shown to clients with its chain, PEM. A renewed file is noticed within ten seconds."""

    key: CertificateFile | None = None
    """Private key of `tls.cert`, PEM, without a passphrase."""

    client_ca: CertificateFile | None = None
    """Authorities, PEM: only clients that show a certificate of theirs are served (mTLS)."""

    @model_validator(mode="after")
    def _is_whole(self) -> TlsConfig:
        _pair(self.cert, self.key)
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca stands without cert and key; name the router's own certificate too")
        return self


class WorkerTlsConfig(Section):
    """TLS towards workers at `https://`: for requests, health checks, telemetry and administration alike."""

    ca: Annotated[tuple[CertificateFile, ...], BeforeValidator(split_words)] = ()
    """Authorities that sign workers' certificates, PEM; empty trusts the system's."""

    cert: CertificateFile | None = None
    """Certificate shown to workers that ask for one (mTLS), PEM. A renewed file is noticed within ten seconds."""

    key: CertificateFile | None = None
    """Private key of `worker_tls.cert`, PEM, without a passphrase."""

    verify: bool = True
    """Whether a worker's certificate has to be valid; false trusts whoever answers at its address."""

    server_name: Word | None = None
    """Name that workers' certificates are checked against; unset takes the host in each worker's URL."""

    @model_validator(mode="after")
    def _is_whole(self) -> WorkerTlsConfig:
        _pair(self.cert, self.key)
        if self.ca and not self.verify:
            raise ValueError("ca stands beside verify: false, which looks at no authority; leave one of them out")
        return self


def _pair(cert: Path | None, key: Path | None) -> None:
    if (cert is None) != (key is None):
        given, missing = ("cert", "key") if key is None else ("key", "cert")
        raise ValueError(f"{given} stands without {missing}; give both")
