"""Which cluster and whose credentials: decided once; what is read again is the secret of the same user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.config import incluster_config

from adk_gke_sandbox.cluster.api import Cluster, connect
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.errors import ClusterError, ConfigError, Forbidden, Unauthorized
from adk_gke_sandbox.execution import Reason
from adk_gke_sandbox.sandbox import Sandbox
from tests.unit.loopback import Asked, Server, kubeconfig, serving, status


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a default kubeconfig, outside any pod."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    kubeconfig(tmp_path / ".kube" / "config", "home", home="http://home", home2="http://home2")
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


def token_of(cluster: Cluster) -> str:
    return str(cluster._client.configuration.auth_settings()["BearerToken"]["value"]).split(" ")[-1]


def test_in_a_pod_what_is_given_comes_before_its_own_cluster(in_a_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig(in_a_pod.parent / "env", "a", a="http://env-a", b="http://env-b"))
    given = kubeconfig(in_a_pod.parent / "given", "a", a="http://given-a", b="http://given-b")
    found = [connect(given, "b"), connect(given), connect(context="b"), connect()]
    hosts = ["http://given-b", "http://given-a", "http://env-b", "https://10.0.0.1:443"]
    assert [cluster.host for cluster in found] == hosts
    assert [token_of(cluster) for cluster in found] == ["token-of-b", "token-of-a", "token-of-b", "pods-own"]


def test_a_pod_without_a_token_uses_the_default_kubeconfig(in_a_pod: Path) -> None:
    in_a_pod.unlink()
    assert connect().host == "http://home"


def test_kubeconfig_of_the_environment_comes_before_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kubeconfig(home / "first", "a", a="http://first-a")
    second = kubeconfig(home / "second", "b", b="http://second-b")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    assert connect().host == "http://first-a"
    assert connect(context="b").host == "http://second-b"


@pytest.mark.parametrize("environment", [{}, {"KUBECONFIG": ""}], ids=["unset", "empty"])
def test_without_any_of_them_the_home_is_looked_at(
    home: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = connect()
    assert (found.host, token_of(found)) == ("http://home", "token-of-home")


def test_the_process_wide_configuration_is_left_alone(in_a_pod: Path) -> None:
    before = client.Configuration.get_default_copy().host
    connect()
    connect(context="home2")
    assert client.Configuration.get_default_copy().host == before


BROKEN: dict[str, Any] = {
    "no YAML": "{",
    "binary": b"\xff\xfe\x00",
    "a list": "[]",
    "no contexts": '{"current-context": "a"}',
    "contexts of the wrong kind": '{"current-context": "a", "contexts": 7, "clusters": [], "users": []}',
    "a cluster that is missing": {"clusters": []},
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_kubeconfig_is_an_outcome_that_names_the_file(home: Path, content: Any) -> None:
    path = home / "broken"
    if isinstance(content, dict):
        kubeconfig(path, "a", a="http://127.0.0.1:1")
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
        connect(path, context)
    assert str(raised.value).startswith(message)
    assert "Give kubeconfig_path and kubeconfig_context of a cluster you can reach" in str(raised.value)


def test_a_pods_token_that_cannot_be_read_is_said_to_be(in_a_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "_read_token_file", refuse)
    with pytest.raises(ConfigError, match=r"cannot use the token of this pod: .*Permission denied"):
        connect()


# Renewal


class Two:
    """Two clusters, A and B; A accepts one token."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.accepted = ""
        self.a: Server = stack.enter_context(serving(self._answer))
        self.b: Server = stack.enter_context(serving())
        self.folder = folder

    def _answer(self, asked: Asked) -> Any:
        accepted = not self.accepted or asked.headers.get("Authorization") == f"Bearer {self.accepted}"
        return (200, {}) if accepted else status(401, "Unauthorized", "Unauthorized")

    def write(self, current: str = "a", name: str = "kubeconfig", **users: Any) -> str:
        return kubeconfig(self.folder / name, current, users=users, a=self.a.url, b=self.b.url)

    def edit(self, **changed: Any) -> None:
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with ExitStack() as stack:
        yield Two(stack, tmp_path)


def call(cluster: Cluster) -> None:
    cluster.request("get", "/version/")


def context(cluster: str, user: str) -> list[Any]:
    return [{"name": "a", "context": {"cluster": cluster, "user": user}}]


def clusters(**servers: str) -> list[Any]:
    return [{"name": name, "cluster": {"server": server}} for name, server in servers.items()]


def users(**tokens: str) -> list[Any]:
    return [{"name": name, "user": {"token": token}} for name, token in tokens.items()]


Change = Callable[[Two], None]
ELSEWHERE: dict[str, Change] = {
    "nothing": lambda two: two.edit(),
    "use-context": lambda two: two.edit(**{"current-context": "b"}),
    "the context is another cluster's": lambda two: two.edit(contexts=context("b", "b")),
    "the cluster is another one": lambda two: two.edit(clusters=clusters(a=two.b.url), contexts=[]),
    "cluster and context are gone": lambda two: two.edit(clusters=[], contexts=[]),
}


@pytest.mark.parametrize("change", ELSEWHERE.values(), ids=ELSEWHERE)
def test_renewal_reads_the_new_token_of_the_same_user_and_nothing_else(
    two: Two, home: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    two.write()
    monkeypatch.chdir(two.folder)
    monkeypatch.setenv("KUBECONFIG", "kubeconfig")
    cluster = connect()
    call(cluster)
    change(two)
    two.edit(users=users(b="token-of-b", a="renewed"))
    monkeypatch.setenv("KUBECONFIG", two.write("b", "other", a={"token": "token-of-b"}))
    monkeypatch.chdir("/")
    two.accepted = "renewed"
    call(cluster)
    assert two.a.tokens == ["Bearer token-of-a", "Bearer token-of-a", "Bearer renewed"]
    assert two.b.asked == []


def test_a_token_is_sent_without_the_newline_behind_it(two: Two) -> None:
    call(connect(two.write(a={"token": "secret\n"})))
    assert two.a.tokens == ["Bearer secret"]


@pytest.mark.parametrize("token", ["sec\nret", "sécret"])
def test_a_token_that_cannot_be_sent_is_never_quoted(two: Two, token: str) -> None:
    with pytest.raises(ClusterError, match="the token has characters that cannot be sent") as raised:
        call(connect(two.write(a={"token": token})))
    assert "cret" not in str(raised.value)
    assert two.a.asked == []


def test_a_closed_sandbox_goes_on_with_the_same_server_and_user(two: Two) -> None:
    sandbox = Sandbox(ExecutorConfig(kubeconfig_path=two.write()))
    two.accepted = "no other"
    sandbox.run("pass")
    sandbox.close()
    two.edit(**{"current-context": "b"})
    assert sandbox.run("pass").reason is Reason.API_UNAVAILABLE
    assert set(two.a.tokens) == {"Bearer token-of-a"}
    assert two.b.asked == []


TAKEN: dict[str, tuple[Change, str]] = {
    "the user is gone": (lambda two: two.edit(users=users(b="token-of-b")), "has no user 'a' any more"),
    "all users are gone": (lambda two: two.edit(users=None), "has no user 'a' any more"),
    "the user is for another cluster": (
        lambda two: two.edit(contexts=context("b", "a"), users=users(a="token-of-b")),
        "has user 'a' for another server now",
    ),
    "the file is another cluster's": (
        lambda two: two.edit(clusters=clusters(a=two.b.url), users=users(a="token-of-b")),
        "has user 'a' for another server now",
    ),
    "the file is gone": (lambda two: (two.folder / "kubeconfig").unlink(), "has no user 'a' any more"),
    "the file is broken": (lambda two: two.edit(users=7), "'int' object is not iterable"),
}


@pytest.mark.parametrize(("change", "why"), TAKEN.values(), ids=TAKEN)
def test_credentials_that_cannot_be_read_again_are_kept_and_that_is_logged(
    two: Two, caplog: pytest.LogCaptureFixture, change: Change, why: str
) -> None:
    # Another file of the same kubeconfig has a user of the same name.
    both = f"{two.write()}:{two.write('b', 'other', a={'token': 'token-of-b'})}"
    cluster, two.accepted = connect(both), "renewed"
    change(two)
    with pytest.raises(Unauthorized):
        call(cluster)
    assert two.a.tokens == ["Bearer token-of-a"] * 2
    assert two.b.asked == []
    assert f"the credentials could not be read again: cannot use kubeconfig {both}: " in caplog.text
    assert why in caplog.text


@pytest.mark.parametrize(("user", "header"), [({"username": "u", "password": "p"}, "Basic dTpw"), ({}, "")])
def test_a_user_may_have_a_password_or_nothing(two: Two, user: dict[str, str], header: str) -> None:
    call(connect(two.write(a=user)))
    assert two.a.tokens == [header]


def test_a_token_file_beside_the_kubeconfig_is_read_again(two: Two) -> None:
    (two.folder / "token").write_text("one")
    cluster = connect(two.write(a={"tokenFile": "token"}))
    (two.folder / "token").write_text("two")
    two.accepted = "two"
    call(cluster)
    assert two.a.tokens == ["Bearer one", "Bearer two"]


def test_a_kubeconfig_that_is_mended_after_a_refusal_is_used_at_the_next_call(two: Two) -> None:
    cluster, two.accepted = connect(two.write(a={"token": "wrong"})), "right"
    with pytest.raises(Unauthorized):
        call(cluster)
    two.edit(users=users(a="right"))
    call(cluster)


def test_a_pod_reads_its_own_token_again_and_nothing_else(in_a_pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = connect()
    in_a_pod.write_text("renewed")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.2")
    assert token_of(found) == "pods-own"
    found._renew()
    assert (found.host, token_of(found)) == ("https://10.0.0.1:443", "renewed")
    # The kubeconfig of the home may be another cluster's.
    in_a_pod.write_text("")
    with pytest.raises(ConfigError, match="cannot use the token of this pod: Token file exists but empty"):
        found._renew()
    assert (found.host, token_of(found)) == ("https://10.0.0.1:443", "renewed")


# Plugins

PLUGIN = """\
import json, pathlib, sys, time
calls = pathlib.Path(__file__).with_suffix(".calls")
number = len(calls.read_text().splitlines()) + 1 if calls.exists() else 1
with calls.open("a") as file:
    file.write("called\\n")
{act}
status = {{"token": f"token-{{number}}", "expirationTimestamp": "2001-01-01T00:00:00Z"}}
credential = {{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}
print(json.dumps(credential))
"""


class Plugin:
    """A credential plugin as a kubeconfig names it; its n-th token is ``token-n``, and has run out."""

    def __init__(self, two: Two) -> None:
        self.script = two.folder / "plugin.py"
        self.user = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": ["-I", "-S", str(self.script)],
                "interactiveMode": "Never",
            }
        }
        self.kubeconfig = two.write(a=self.user)
        self.does()

    def does(self, act: str = "") -> None:
        self.script.write_text(PLUGIN.format(act=act))

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
def plugin(two: Two) -> Plugin:
    return Plugin(two)


def test_a_plugins_token_is_used_until_it_is_refused_however_old_it_is(two: Two, plugin: Plugin) -> None:
    cluster = connect(plugin.kubeconfig)
    for accepted in ("token-1", "token-1", "token-2", "token-2"):
        two.accepted = accepted
        call(cluster)
    assert [token[-1] for token in two.a.tokens] == ["1", "1", "1", "2", "2"]
    assert plugin.calls == 2


def test_many_calls_that_are_refused_at_once_renew_the_token_once(two: Two, plugin: Plugin) -> None:
    cluster, two.accepted = connect(plugin.kubeconfig), "token-2"
    plugin.does(act="time.sleep(0.5)")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(cluster), range(8)))
    assert two.a.tokens.count("Bearer token-1") > 1, "several were refused"
    assert plugin.calls == 2


def test_a_plugin_that_failed_is_asked_again(two: Two, plugin: Plugin) -> None:
    plugin.does(act="sys.exit('log in first')")
    anonymous = status(403, "Forbidden", 'User "system:anonymous" cannot get')
    two.a.answer = lambda asked: (200, {}) if "Authorization" in asked.headers else anonymous
    cluster = connect(plugin.kubeconfig)
    with pytest.raises(Forbidden):
        call(cluster)
    assert plugin.calls == 2
    # Somebody logs in; the connection lives on.
    plugin.does()
    call(cluster)
    assert two.a.tokens == ["", "", "", "Bearer token-3"]


def test_a_plugin_that_fails_later_leaves_the_old_token(two: Two, plugin: Plugin) -> None:
    cluster, two.accepted = connect(plugin.kubeconfig), "token-2"
    plugin.does(act="sys.exit('log in again')")
    with pytest.raises(Unauthorized):
        call(cluster)
    assert two.a.tokens == ["Bearer token-1"] * 2


def test_a_permission_that_is_missing_does_not_run_the_plugin_again(two: Two, plugin: Plugin) -> None:
    two.a.answer = lambda _: status(403, "Forbidden", 'User "x" cannot get')
    with pytest.raises(Forbidden):
        call(connect(plugin.kubeconfig))
    assert (len(two.a.asked), plugin.calls) == (1, 1)


def test_a_plugin_that_hangs_is_given_up_at_the_schedule_deadline(two: Two, plugin: Plugin) -> None:
    with plugin.hanging():
        outcome = Sandbox(ExecutorConfig(kubeconfig_path=plugin.kubeconfig, schedule_timeout_seconds=0.5)).run("1")
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert outcome.message == (
        "reading the kubeconfig, or the plugin that it names, took longer than schedule_timeout_seconds=0.5. "
        "Run its command in a shell to see what it waits for"
    )
    assert two.a.asked == []


def test_an_abort_does_not_wait_for_a_plugin_that_hangs(two: Two, plugin: Plugin) -> None:
    with plugin.hanging():
        sandbox = Sandbox(ExecutorConfig(kubeconfig_path=plugin.kubeconfig))
        assert sandbox.run("1", aborted=lambda: plugin.calls > 0).reason is Reason.ABORTED
    assert two.a.asked == []
