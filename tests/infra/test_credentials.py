"""Kubeconfigs of ServiceAccounts: against a fake API server over real TLS with a real client certificate."""

from __future__ import annotations

import http.server
import json
import ssl
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local import pki
from infra.local.credentials import CredentialsError, service_account_kubeconfig
from infra.local.layout import Layout


@dataclass
class Server:
    """A fake API server: answers once what it is told to, and keeps what it was asked."""

    kubeconfig: Path
    answer: tuple[int, dict[str, Any]] = (201, {"status": {"token": "a-token"}})
    asked: list[tuple[str, Any, Any]] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    layout = Layout(name="fake")
    pki.create(layout)
    fake = Server(kubeconfig=layout.kubeconfig)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            peer = self.connection.getpeercert()  # type: ignore[attr-defined]
            fake.asked.append((self.path, body, peer["subject"][-1][0][1]))
            status, answer = fake.answer
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=layout.pki / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(layout.pki / "apiserver.crt", layout.pki / "apiserver.key")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"https://127.0.0.1:{listening.server_address[1]}"
        layout.kubeconfig.write_text(layout.kubeconfig.read_text().replace(layout.server, url))
        yield fake
        listening.shutdown()
        thread.join()


def refusal(admin: Path, tmp_path: Path) -> str:
    out = tmp_path / "out"
    with pytest.raises(CredentialsError) as raised:
        service_account_kubeconfig(admin, "agents", "agent", out)
    assert not out.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_admin_certificate_asks_for_the_token_of_that_service_account(server: Server, tmp_path: Path) -> None:
    service_account_kubeconfig(server.kubeconfig, "agents", "agent", tmp_path / "out", seconds=900)
    assert server.asked == [
        (
            "/api/v1/namespaces/agents/serviceaccounts/agent/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 900}},
            "kubernetes-admin",
        )
    ]


def test_written_kubeconfig_has_the_token_the_same_cluster_and_context_and_no_admin_key(
    server: Server, tmp_path: Path
) -> None:
    out = service_account_kubeconfig(server.kubeconfig, "agents", "agent", tmp_path / "new" / "out")
    written, admin = yaml.safe_load(out.read_text()), yaml.safe_load(server.kubeconfig.read_text())
    assert written["users"] == [{"name": "agents-agent", "user": {"token": "a-token"}}]
    assert written["clusters"] == admin["clusters"]
    context = admin["current-context"]
    assert written["current-context"] == context
    assert written["contexts"] == [
        {"name": context, "context": {"cluster": context, "user": "agents-agent", "namespace": "agents"}}
    ]


def test_written_kubeconfig_is_private(server: Server, tmp_path: Path) -> None:
    out = service_account_kubeconfig(server.kubeconfig, "agents", "agent", tmp_path / "out")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_proxy_of_the_environment_is_not_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    service_account_kubeconfig(server.kubeconfig, "agents", "agent", tmp_path / "out")
    assert len(server.asked) == 1


def test_absent_service_account(server: Server, tmp_path: Path) -> None:
    server.answer = (404, {"message": "not found"})
    assert refusal(server.kubeconfig, tmp_path) == (
        "no ServiceAccount agent in namespace agents. Create it with `python infra/local stack up`"
    )


def test_identity_that_may_not_create_tokens(server: Server, tmp_path: Path) -> None:
    server.answer = (403, {"message": "no way"})
    message = refusal(server.kubeconfig, tmp_path)
    assert "refused a token for agents/agent (403: no way). Use the admin kubeconfig of this cluster" in message


def test_broken_api_server(server: Server, tmp_path: Path) -> None:
    server.answer = (500, {"message": "etcd is gone"})
    message = refusal(server.kubeconfig, tmp_path)
    assert "(500: etcd is gone). Look at `python infra/local status`" in message


def test_api_server_that_does_not_answer(server: Server, tmp_path: Path) -> None:
    document = yaml.safe_load(server.kubeconfig.read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    server.kubeconfig.write_text(yaml.safe_dump(document))
    assert refusal(server.kubeconfig, tmp_path) == (
        "https://127.0.0.1:9 does not answer ([Errno 111] Connection refused). "
        "Start the cluster with `python infra/local up`"
    )


def test_missing_kubeconfig(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none", tmp_path) == (
        f"no file {tmp_path / 'none'}. Start the cluster with `python infra/local up`"
    )


def test_kubeconfig_without_a_client_certificate(server: Server, tmp_path: Path) -> None:
    document = yaml.safe_load(server.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": "x"}
    server.kubeconfig.write_text(yaml.safe_dump(document))
    assert refusal(server.kubeconfig, tmp_path) == (
        f"{server.kubeconfig}: context {document['current-context']!r} has no client certificate. "
        "Use an admin kubeconfig with one, or `kubectl create token`"
    )


@pytest.mark.parametrize("text", ["", "[]", "current-context: x", "{"])
def test_file_that_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    message = refusal(tmp_path / "bad", tmp_path)
    assert message.startswith(f"{tmp_path / 'bad'} is not a usable kubeconfig (")
    assert message.endswith("Write it again with `python infra/local kubeconfig`")
