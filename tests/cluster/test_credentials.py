"""Executors outlive their tokens: each kind of credentials is read again once the API server refuses the old ones.

The tokens are real, bound to a Secret, and revoked by deleting it
(https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens).
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.config import incluster_config

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import EXECUTOR_RULES
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.sandbox import Sandbox
from infra.local.layout import Layout
from tests.cluster.identities import namespace, service_account, wait_for

pytestmark = pytest.mark.cluster

AGENT = "agent"

PLUGIN = """\
import json, pathlib, sys
here = pathlib.Path(__file__).parent
credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
print(json.dumps({**credential, "status": {"token": (here / "token").read_text()}}))
"""


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Gives an agent tokens, and takes them back."""

    namespace: str
    core: client.CoreV1Api
    cluster: dict[str, Any]
    folder: Path

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    @property
    def authority_file(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str) -> str:
        """Write a new token to the agent's file and return it."""
        secret = self.core.create_namespaced_secret(self.namespace, {"metadata": {"name": name}})
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret.metadata.uid}
        asked = {"spec": {"audiences": [], "expirationSeconds": 600, "boundObjectRef": bound}}
        token = self.core.create_namespaced_service_account_token(AGENT, self.namespace, asked).status.token
        self.token_file.write_text(token)
        return str(token)

    def revoke(self, name: str, token: str) -> None:
        """Return once the API server refuses the token; it remembers a good one for some seconds."""
        self.core.delete_namespaced_secret(name, self.namespace)
        wait_for(lambda: self._status(token) == 401)

    def _status(self, token: str) -> int:
        url = f"{self.cluster['server']}/api/v1/namespaces/{self.namespace}/pods"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        tls = ssl.create_default_context(cafile=str(self.authority_file))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
        try:
            with opener.open(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def kubeconfig(self, user: dict[str, Any]) -> str:
        path = self.folder / "kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "own",
            "clusters": [{"name": "own", "cluster": self.cluster}],
            "users": [{"name": "own", "user": user}],
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
        }
        path.write_text(json.dumps(document))
        return str(path)

    def plugin(self) -> str:
        """Return a kubeconfig whose plugin hands out what is in the file."""
        script = self.folder / "plugin.py"
        script.write_text(PLUGIN)
        arguments = ["-I", "-S", str(script)]
        version = "client.authentication.k8s.io/v1"
        return self.kubeconfig(
            {"exec": {"apiVersion": version, "command": sys.executable, "args": arguments, "interactiveMode": "Never"}}
        )

    def sandbox(self, kubeconfig: str | None) -> Sandbox:
        return Sandbox(
            ExecutorConfig(
                namespace=self.namespace,
                kubeconfig_path=kubeconfig,
                cpu_requested="50m",
                timeout_seconds=60,
                schedule_timeout_seconds=60,
            )
        )


@pytest.fixture
def issuer(layout: Layout, admin: client.ApiClient, tmp_path: Path) -> Iterator[Issuer]:
    document = yaml.safe_load(layout.kubeconfig.read_text())
    found = document["clusters"][0]["cluster"]
    with namespace(admin, "credentials") as name:
        service_account(admin, name, AGENT, EXECUTOR_RULES)
        made = Issuer(namespace=name, core=client.CoreV1Api(admin), cluster=found, folder=tmp_path)
        authority = found.get("certificate-authority-data")
        made.authority_file.write_bytes(
            base64.b64decode(authority) if authority else Path(found["certificate-authority"]).read_bytes()
        )
        yield made
        batch = client.BatchV1Api(admin)
        wait_for(lambda: not batch.list_namespaced_job(name).items)


def plugin(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> str | None:
    return issuer.plugin()


def token_file(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> str | None:
    return issuer.kubeconfig({"tokenFile": str(issuer.token_file)})


def mounted_token(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """As in a pod: no kubeconfig, but addresses in the environment and files of the ServiceAccount."""
    host, _, port = issuer.cluster["server"].rpartition("//")[2].rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(issuer.token_file))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(issuer.authority_file))
    return None


@pytest.mark.parametrize("source", [plugin, token_file, mounted_token], ids=lambda source: source.__name__)
def test_an_executor_outlives_its_token(issuer: Issuer, monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    first = issuer.issue("first")
    sandbox = issuer.sandbox(source(issuer, monkeypatch))
    assert sandbox.run("print(1)").stdout == b"1\n"
    issuer.issue("second")
    issuer.revoke("first", first)
    outcome = sandbox.run("print(2)")
    assert (outcome.reason, outcome.stdout, outcome.message) == (Reason.COMPLETED, b"2\n", "")
    sandbox.close()


def test_an_execution_outlives_its_token_and_deletes_its_job(issuer: Issuer, admin: client.ApiClient) -> None:
    first = issuer.issue("first")
    sandbox = issuer.sandbox(issuer.plugin())
    outcomes: list[Outcome] = []
    code = "import sys, time\nprint('before', flush=True)\ntime.sleep(25)\nprint('after')"
    thread = threading.Thread(target=lambda: outcomes.append(sandbox.run(code)))
    thread.start()
    wait_for(
        lambda: [
            pod for pod in issuer.core.list_namespaced_pod(issuer.namespace).items if pod.status.phase == "Running"
        ]
    )
    issuer.issue("second")
    issuer.revoke("first", first)
    assert thread.is_alive(), "the token was revoked while the program ran"
    thread.join()
    assert [(outcome.reason, outcome.stdout) for outcome in outcomes] == [(Reason.COMPLETED, b"before\nafter\n")]
    left = client.BatchV1Api(admin).list_namespaced_job(issuer.namespace).items
    assert all(job.metadata.deletion_timestamp for job in left)
    sandbox.close()
