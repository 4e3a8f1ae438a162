"""Which cluster and whose credentials: where they are read, and when they are read again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.config import incluster_config

from adk_gke_sandbox.cluster import api as kube
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.errors import ClusterError, ConfigError
from adk_gke_sandbox.execution import Reason
from adk_gke_sandbox.sandbox import Sandbox
from tests.unit.fake_api import FakeApi, Fault, run


def write(path: Path, current: str, user: dict[str, Any] | None = None, **servers: str) -> str:
    """Write a kubeconfig with a context, a cluster and a user for each server; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in servers.items()],
        "users": [{"name": name, "user": user or {"token": f"token-of-{name}"}} for name in servers],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in servers],
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a default kubeconfig, outside any pod."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    write(tmp_path / ".kube" / "config", "home", home="http://home", home2="http://home2")
    return tmp_path


@pytest.fixture
def in_a_pod(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, in a pod; returns the file of its token."""
    token, authority = home / "token", home / "ca.crt"
    token.write_text("pods-own")
    authority.write_text("certificate")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    return token


def token_of(cluster: kube.Cluster) -> str:
    given = cluster._client.configuration.get_api_key_with_prefix("BearerToken") or ""
    return given.split(" ")[-1]


def test_a_path_with_a_context_is_used_before_all_else(in_a_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", write(in_a_pod.parent / "env", "b", a="http://env-a", b="http://env-b"))
    given = write(in_a_pod.parent / "given", "a", a="http://given-a", b="http://given-b")
    found = kube.connect(given, "b")
    assert (found.host, token_of(found)) == ("http://given-b", "token-of-b")


def test_a_path_alone_means_its_current_context(in_a_pod: Path) -> None:
    given = write(in_a_pod.parent / "given", "b", a="http://given-a", b="http://given-b")
    assert kube.connect(given).host == "http://given-b"


def test_a_context_alone_is_one_of_the_default_kubeconfig_even_in_a_pod(in_a_pod: Path) -> None:
    assert kube.connect(context="home2").host == "http://home2"


def test_a_pod_with_a_token_is_its_own_cluster(in_a_pod: Path) -> None:
    found = kube.connect()
    assert (found.host, token_of(found)) == ("https://10.0.0.1:443", "pods-own")


def test_a_pod_without_a_token_uses_the_default_kubeconfig(in_a_pod: Path) -> None:
    in_a_pod.unlink()
    assert kube.connect().host == "http://home"


def test_kubeconfig_of_the_environment_comes_before_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(home / "first", "a", a="http://first-a")
    second = write(home / "second", "b", b="http://second-b")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    assert kube.connect().host == "http://first-a"
    assert kube.connect(context="b").host == "http://second-b"


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_without_any_of_them_the_home_is_looked_at(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("KUBECONFIG", value)
    found = kube.connect()
    assert (found.host, token_of(found)) == ("http://home", "token-of-home")


def test_the_process_wide_configuration_is_left_alone(in_a_pod: Path) -> None:
    before = vars(client.Configuration.get_default_copy())["_base_path"]
    kube.connect()
    kube.connect(context="home2")
    assert vars(client.Configuration.get_default_copy())["_base_path"] == before


BROKEN: dict[str, Any] = {
    "no YAML": "{",
    "binary": b"\xff\xfe\x00",
    "empty": "",
    "a list": "[]",
    "a word": "kubeconfig",
    "no contexts": '{"current-context": "a"}',
    "contexts of the wrong kind": '{"current-context": "a", "contexts": 7, "clusters": [], "users": []}',
    "a cluster that is missing": {"clusters": []},
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_kubeconfig_is_an_outcome_that_names_the_file(home: Path, content: Any) -> None:
    path = home / "broken"
    if isinstance(content, dict):
        write(path, "a", a="http://127.0.0.1:1")
        content = json.dumps({**json.loads(path.read_text()), **content})
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = ExecutorConfig(kubeconfig_path=str(path), schedule_timeout_seconds=0.2)
    outcome = Sandbox(settings).run("print(1)")
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert outcome.message.startswith(f"cannot use kubeconfig {path}: ")
    assert outcome.message.endswith(". Give kubeconfig_path and kubeconfig_context of a cluster you can reach")
    assert "\n" not in outcome.message


@pytest.mark.parametrize(
    ("path", "context", "message"),
    [
        ("/nonexistent", None, "cannot use kubeconfig /nonexistent: "),
        ("/nonexistent", "x", "cannot use kubeconfig /nonexistent, context 'x': "),
        (None, "absent", "cannot use the default kubeconfig, context 'absent': "),
    ],
)
def test_what_is_not_there_is_named(home: Path, path: str | None, context: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        kube.connect(path, context)
    assert str(raised.value).startswith(message)
    assert "Give kubeconfig_path and kubeconfig_context of a cluster you can reach" in str(raised.value)


def test_a_pods_token_that_cannot_be_read_is_said_to_be(in_a_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "_read_token_file", refuse)
    with pytest.raises(ConfigError, match=r"cannot use the token of this pod: .*Permission denied"):
        kube.connect()


PLUGIN = """\
import json, pathlib, sys, time
calls = pathlib.Path(__file__).with_suffix(".calls")
number = len(calls.read_text().splitlines()) + 1 if calls.exists() else 1
with calls.open("a") as file:
    file.write("called\\n")
{act}
status = {{"token": f"token-{{number}}", "expirationTimestamp": {expires!r}}}
credential = {{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}
print(json.dumps(credential))
"""


class Plugin:
    """A credential plugin as a kubeconfig names it; its n-th token is ``token-n``."""

    def __init__(self, folder: Path, server: str) -> None:
        self.script = folder / "plugin.py"
        self.user = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": ["-I", "-S", str(self.script)],
                "interactiveMode": "Never",
            }
        }
        self.kubeconfig = write(folder / "plugin.kubeconfig", "a", self.user, a=server)
        self.does()

    def does(self, act: str = "", expires: str = "2100-01-01T00:00:00Z") -> None:
        self.script.write_text(PLUGIN.format(act=act, expires=expires))

    @contextmanager
    def hanging(self) -> Iterator[None]:
        waits = self.script.with_suffix(".wait")
        waits.touch()
        self.does(act=f"while pathlib.Path({str(waits)!r}).exists(): time.sleep(0.02)")
        try:
            yield
        finally:
            waits.unlink()

    @property
    def calls(self) -> int:
        path = self.script.with_suffix(".calls")
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def plugin(api: FakeApi, tmp_path: Path) -> Plugin:
    made = Plugin(tmp_path, api.url)
    api.kubeconfig = made.kubeconfig
    return made


def test_a_plugins_token_is_used_until_it_is_refused(api: FakeApi, plugin: Plugin) -> None:
    sandbox = Sandbox(ExecutorConfig(namespace="box", kubeconfig_path=api.kubeconfig))
    used: list[list[str]] = []
    for accepted in ("token-1", "token-1", "token-2", "token-2"):
        api.accepted = accepted
        assert sandbox.run("print('hello')").reason is Reason.COMPLETED
        used.append([token for token, _ in groupby(api.tokens)])
        for memory in (api.count, api.config_maps, api.tokens):
            memory.clear()
    assert used == [["token-1"], ["token-1"], ["token-1", "token-2"], ["token-2"]]
    assert plugin.calls == 2
    sandbox.close()


def test_a_token_near_its_end_is_not_renewed_before_each_call(api: FakeApi, plugin: Plugin) -> None:
    plugin.does(expires=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60)))
    assert run(api).reason is Reason.COMPLETED
    assert plugin.calls == 1


def test_a_token_that_is_refused_in_the_middle_of_an_execution_is_renewed_there(api: FakeApi, plugin: Plugin) -> None:
    api.on_log = lambda: setattr(api, "accepted", "token-2")
    assert run(api, schedule_timeout_seconds=5).reason is Reason.COMPLETED
    assert api.jobs == {}
    assert (api.verbs("jobs"), plugin.calls) == (["create", "delete", "delete"], 2)


def test_many_calls_that_are_refused_at_once_renew_the_token_once(api: FakeApi, plugin: Plugin) -> None:
    cluster = kube.connect(api.kubeconfig)
    api.accepted = "token-2"
    plugin.does(act="time.sleep(0.5)")
    with ThreadPoolExecutor(8) as pool:
        names = [f"job-{number}" for number in range(8)]
        list(pool.map(lambda name: cluster.create_job({"metadata": {"name": name, "namespace": "box"}}), names))
    assert sorted(api.jobs) == names
    assert api.tokens.count("token-1") > 1, "several were refused"
    assert plugin.calls == 2


def test_a_plugin_that_failed_at_first_is_asked_again(
    api: FakeApi, plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin.does(act="sys.exit('log in first')")
    api.faults["create", "jobs", 0] = Fault(
        status=403, reason="Forbidden", message='User "system:anonymous" cannot create resource "jobs"'
    )
    sandbox = Sandbox(ExecutorConfig(namespace="box", kubeconfig_path=api.kubeconfig, schedule_timeout_seconds=1))
    outcome = sandbox.run("print('hello')")
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert "No credentials reached the API server: check that the plugin that the kubeconfig names" in outcome.message
    assert "log in first" in caplog.text
    # Somebody logs in; the executor lives on.
    plugin.does()
    failed = plugin.calls
    del api.faults["create", "jobs", 0]
    api.faults["create", "jobs", api.count["create", "jobs"] + 1] = Fault(
        status=403, reason="Forbidden", message='User "system:anonymous" cannot create resource "jobs"'
    )
    assert sandbox.run("print('hello')").reason is Reason.COMPLETED
    assert plugin.calls == failed + 1
    assert api.tokens[-1] == f"token-{plugin.calls}"
    sandbox.close()


def test_a_permission_that_is_missing_does_not_run_the_plugin_again(api: FakeApi, plugin: Plugin) -> None:
    api.faults["create", "jobs", 0] = Fault(status=403, reason="Forbidden", message='User "x" cannot create')
    assert run(api).reason is Reason.FORBIDDEN
    assert (api.verbs("jobs"), plugin.calls) == (["create"], 1)


def test_credentials_that_cannot_be_read_again_are_logged_and_the_refusal_is_the_outcome(
    api: FakeApi, plugin: Plugin, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = Sandbox(ExecutorConfig(namespace="box", kubeconfig_path=api.kubeconfig))
    sandbox._connected()
    api.accepted = "token-2"
    Path(plugin.kubeconfig).unlink()
    outcome = sandbox.run("print('hello')")
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert "the API server does not accept the credentials (401)" in outcome.message
    assert f"the credentials could not be read again: cannot use kubeconfig {plugin.kubeconfig}" in caplog.text
    sandbox.close()


def test_a_pod_reads_its_own_token_again_and_nothing_else(in_a_pod: Path) -> None:
    found = kube.connect()
    in_a_pod.write_text("renewed")
    assert token_of(found) == "pods-own"
    found._renew()
    assert (found.host, token_of(found)) == ("https://10.0.0.1:443", "renewed")
    # The kubeconfig of the home may be another cluster's.
    in_a_pod.write_text("")
    with pytest.raises(ConfigError, match="cannot use the token of this pod: Token file exists but empty"):
        found._renew()
    assert (found.host, token_of(found)) == ("https://10.0.0.1:443", "renewed")


def test_a_plugin_that_hangs_is_given_up_at_the_schedule_deadline(api: FakeApi, plugin: Plugin) -> None:
    with plugin.hanging():
        outcome = run(api, schedule_timeout_seconds=0.5)
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert outcome.message == (
        "reading the kubeconfig, or the plugin that it names, took longer than schedule_timeout_seconds=0.5. "
        "Run its command in a shell to see what it waits for"
    )
    assert api.calls == []


def test_an_abort_does_not_wait_for_a_plugin_that_hangs(api: FakeApi, plugin: Plugin) -> None:
    with plugin.hanging():
        outcome = run(api, aborted=lambda: plugin.calls > 0, schedule_timeout_seconds=300)
    assert outcome.reason is Reason.ABORTED
    assert api.calls == []


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_wait_that_makes_no_sense_is_not_waited(api: FakeApi, value: str) -> None:
    api.faults["create", "jobs", 0] = Fault(status=429, message="slow down", headers={"Retry-After": value})
    with pytest.raises(ClusterError) as raised:
        kube.connect(api.kubeconfig).create_job({"metadata": {"name": "a", "namespace": "box"}})
    assert raised.value.retry_after_seconds is None
