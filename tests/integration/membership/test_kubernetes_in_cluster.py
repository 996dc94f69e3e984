"""The way in from a pod: TLS, the service account's token, and its rotation."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from .fake_kubernetes import TOKEN, FakeKubernetes
from .following import following_cluster
from .objects import pod

pytestmark = pytest.mark.usefixtures("kubernetes_library")

A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    """Return a certificate authority's server context; the authority is `ca.crt` in the test's folder."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: it makes the API server's certificate")
    certificate, key = tmp_path / "ca.crt", tmp_path / "ca.key"
    arguments = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    arguments += ["-days", "2", "-subj", "/CN=fake"]
    for extension in ("subjectAltName=IP:127.0.0.1", "keyUsage=critical,keyCertSign,digitalSignature"):
        arguments += ["-addext", extension]
    subprocess.run(
        [openssl, *arguments, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def test_the_service_account_is_used_and_its_new_token_taken_up(
    tmp_path: Path, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    async with FakeKubernetes(server_tls) as cluster:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
        place = "kubernetes_asyncio.config.incluster_config."
        monkeypatch.setattr(f"{place}SERVICE_TOKEN_FILENAME", str(token))
        monkeypatch.setattr(f"{place}SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
        cluster.put("pods", pod("a", "10.0.0.1"))
        cluster.put("pods", pod("b", "10.0.0.2"))
        async with following_cluster(cluster, tmp_path, kubeconfig=None) as found:
            await found.until_urls(A, B)
            await cluster.until(lambda: cluster.watching() == 1)
            token.write_text("a-rotated-token")
            cluster.token = "a-rotated-token"
            cluster.drop_watches()
            cluster.delete("pods", "a")
            await found.until_urls(B)
