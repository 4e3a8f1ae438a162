from __future__ import annotations

import copy
import os
import pickle
import sys
from copy import deepcopy
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from adk_gke_sandbox.cluster import manifests
from adk_gke_sandbox.config import ExecutorConfig, context_of
from adk_gke_sandbox.contract import Ceilings, Cluster, Contract, Resources
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import JOB_REPLY_BYTES, File, Limits
from adk_gke_sandbox.pod import supervisor  # noqa: F401 - imports processes as the pod does
from adk_gke_sandbox.values import RUNNERS_OWN_ENV, SecretKey, check_env, check_name, quantity

CONTRACT = Contract(stack="test", image="registry/python@sha256:" + "0" * 64)
ROOMY = CONTRACT.model_copy(update={"resources": Resources(mem_requested="2Gi", mem_limit="4Gi")})
STAGING = CONTRACT.model_copy(update={"cluster": Cluster(context="staging")})
OPEN = CONTRACT.model_copy(update={"secret_env": True})
TOKEN = SecretKey(secret="api", key="token")


def refusal(call: Any, *arguments: Any, **settings: Any) -> str:
    """Return the one sentence, or two, by which a call is refused."""
    with pytest.raises(ConfigError) as raised:
        call(*arguments, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_nine_parameters_have_adks_names_and_defaults() -> None:
    assert [(name, field.default) for name, field in ExecutorConfig.model_fields.items()][:9] == [
        ("namespace", "default"),
        ("image", "python:3.11-slim"),
        ("timeout_seconds", 300),
        ("cpu_requested", "200m"),
        ("mem_requested", "256Mi"),
        ("cpu_limit", "500m"),
        ("mem_limit", "512Mi"),
        ("kubeconfig_path", None),
        ("kubeconfig_context", None),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("1.", "1"),
        ("+1", "1"),
        ("007", "7"),
        ("512Mi", 512 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("1G", 10**9),
        ("1k", 1000),
        ("3n", "3e-9"),
        ("250u", "0.00025"),
        ("1e9", 10**9),
        ("1E9", 10**9),
        ("1e+3", 1000),
        ("1e-3", "0.001"),
        ("12E-0003", "0.012"),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("9E", 9 * 10**18),
        ("1e30", 2**63 - 1),
    ],
)
def test_quantities_are_read_as_the_api_server_reads_them(text: str, value: Any) -> None:
    assert quantity(text, setting="x") == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "e3",
            "1K",
            "1ki",
            "1mi",
            "1\n",
            "1_000",
            "1e",
            "1E+",
            "1e1.5",
            "1e3Ki",
            "NaN",
            "\u0661",
        ),
        *("0", "0Mi", "-1", "+-1"),
        *(1, 0.5, None),
    ],
)
def test_what_is_no_positive_quantity_to_the_api_server_is_refused(text: Any) -> None:
    assert refusal(quantity, text, setting="x").startswith(f"x={text!r} is not a Kubernetes quantity")


suffixes = st.sampled_from(["", *"numkMGTPE", *(f"{unit}i" for unit in "KMGTPE"), "e3", "E-3", "e+2"])


@given(st.from_regex(r"\+?[0-9]{1,9}(\.[0-9]{1,9})?", fullmatch=True), suffixes)
def test_a_quantity_is_the_number_that_the_kubernetes_client_reads(number: str, suffix: str) -> None:
    known = min(parse_quantity(number + suffix), Decimal(2**63 - 1))
    assume(known > 0)
    assert quantity(number + suffix, setting="x") == known


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpu_limits": "1"}, "ExecutorConfig has no parameter 'cpu_limits'. Did you mean 'cpu_limit'?"),
        ({"executor_type": "job", "image": 5}, "has no parameter 'executor_type'. Parameters: cpu_limit, "),
        ({"cpu_limit": "banana"}, "cpu_limit='banana' is not a Kubernetes quantity. Write for example \"500m\""),
        ({"mem_limit": "64Mi", "mem_requested": "64Mi"}, "mem_limit='64Mi' is too small for Python under gVisor"),
        ({"cpu_requested": "2"}, "cpu_requested='2' is above cpu_limit='500m'. Lower the request or raise the limit"),
        ({"scratch_limit": "1Gi"}, "scratch_limit='1Gi' is above mem_limit='512Mi'. These directories are in memory"),
        ({"namespace": ""}, "namespace='' is not a Kubernetes name. Use 1 to 63 lower-case letters"),
        ({"service_account": None}, "service_account=None is not a Kubernetes name"),
        ({"image": ""}, "image='' is not an image reference"),
        ({"timeout_seconds": 0}, "timeout_seconds=0: Input should be greater than 0. Correct the value"),
        ({"timeout_seconds": True}, "timeout_seconds=True: Input should be a valid number"),
        ({"schedule_timeout_seconds": -1}, "schedule_timeout_seconds=-1: Input should be greater than 0"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy='Sometimes': Input should be 'IfNotPresent', 'Always'"),
        ({"image_pull_secrets": "one"}, "image_pull_secrets='one': Input should be a valid tuple. Correct the value"),
        ({"node_selector": {"pool": "a b"}}, "node_selector has 'pool'='a b', which is not a Kubernetes label"),
        ({"labels": ["team"]}, 'labels does not map names to values. Write for example labels={"name": "value"}'),
        ({"limits": {"open_files": 0}}, "limits.open_files=0 is out of range"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_what_to_write(settings: dict[str, Any], message: str) -> None:
    assert message in refusal(ExecutorConfig, **settings)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"open_files": 0}, "limits.open_files=0 is out of range. Give 16 to 1048576"),
        ({"stdout_bytes": -5}, "limits.stdout_bytes=-5 is out of range. Give 0 to "),
        ({"processes": True}, "limits.processes=True is out of range"),
        ({"file_bytes": JOB_REPLY_BYTES + 1}, "limits.file_bytes=8388609 is out of range. Give 0 to 8388608"),
        ({"stdout_bytes": 5 * 2**20}, "limits.stdout_bytes and limits.stderr_bytes together are 5505024. Keep them"),
    ],
)
def test_a_limit_that_cannot_work_is_refused(limits: dict[str, Any], message: str) -> None:
    assert message in refusal(Limits, **limits)


def test_limits_that_say_unset_or_nothing_are_taken() -> None:
    assert Limits(processes=0, written_file_bytes=0, file_count=0, file_bytes=0, stdout_bytes=0, stderr_bytes=0)


def test_assignment_is_refused_with_what_to_do_instead() -> None:
    assert "ExecutorConfig.image cannot be assigned" in refusal(setattr, ExecutorConfig(), "image", "x")


def test_a_copy_with_other_values_has_them_and_is_checked() -> None:
    config = ExecutorConfig(namespace="box")
    copied = config.model_copy(update={"timeout_seconds": 5})
    assert (copied.namespace, copied.request("").timeout_seconds, config.timeout_seconds) == ("box", 5, 300)
    assert "timeout_seconds=0: Input" in refusal(config.model_copy, update={"timeout_seconds": 0})
    assert "no parameter 'timeout'" in refusal(config.model_copy, update={"timeout": 1})


@pytest.mark.parametrize("duplicate", [deepcopy, lambda it: pickle.loads(pickle.dumps(it)), ExecutorConfig.model_copy])
def test_copies_and_pickles_are_equal(duplicate: Any) -> None:
    config = ExecutorConfig.from_contract(OPEN, env={"A": "x", "B": TOKEN}, limits=Limits(file_count=1))
    assert duplicate(config) == config
    assert duplicate(config).model_copy(update={"timeout_seconds": 5}).env == config.env


# One execution


@pytest.mark.parametrize(("limit", "address_space"), [("512Mi", 362), ("128Mi", 64), ("300Mi", 150)])
def test_the_address_space_stays_below_the_memory_limit(limit: str, address_space: int) -> None:
    assert ExecutorConfig(mem_limit=limit, mem_requested="100Mi").request("").memory_bytes == address_space * 2**20


def test_what_one_execution_asks_for_replaces_its_own_part_of_the_settings_only() -> None:
    config = ExecutorConfig(env={"A": "a", "B": "b"}, labels={"team": "x", "tier": "1"}, timeout_seconds=5)
    request = config.request("1", env={"B": "c"}, limits=Limits(file_count=10))
    assert (request.env, request.limits) == ({"A": "a", "B": "c"}, Limits(file_count=10))
    assert (request.timeout_seconds, request.memory_bytes) == (5, config.request("").memory_bytes)
    assert config.labels_with({"team": "y"}) == {"team": "y", "tier": "1"}


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A\ud800": "x"}, {1: "x"}, ["A"]])
def test_a_name_that_no_variable_can_have_is_refused(env: Any) -> None:
    assert "env " in refusal(check_env, env)
    assert refusal(ExecutorConfig, env=env) == refusal(ExecutorConfig().request, "", env=env)


@pytest.mark.parametrize("value", [5, b"hush", "hush\0", "hush\ud800"])
def test_a_value_that_no_variable_can_have_is_refused_and_not_shown(value: Any) -> None:
    assert refusal(check_env, {"A": value}) == "env has no text for 'A'. Give a string without NUL characters"


@pytest.mark.parametrize("name", ["", "x,app!=y/../z", "Sandbox", "-a", "a.b", "x" * 61, None])
def test_a_name_that_a_job_and_its_objects_cannot_have_is_refused(name: Any) -> None:
    assert f"name={name!r} is not a Kubernetes name. Use 1 to 60" in refusal(check_name, name)


def test_the_longest_name_leaves_room_for_the_number_of_a_config_map() -> None:
    assert len(manifests.config_map_name(check_name("x" * 60), manifests.CONFIG_MAPS_MAX - 1)) == 63


@pytest.mark.parametrize("labels", [{"a b": "x"}, {"team": "x" * 64}, {"team": 5}, {"/team": "x"}])
def test_labels_that_kubernetes_does_not_take_are_refused(labels: Any) -> None:
    assert "which is not a Kubernetes label" in refusal(ExecutorConfig().labels_with, labels)


@pytest.mark.parametrize("name", manifests.labels("x", manifests.NO_TAGS))
def test_labels_by_which_executions_are_found_cannot_be_replaced(name: str) -> None:
    assert "by which executions are found" in refusal(ExecutorConfig, labels={name: "x"})


# Input files


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["/etc/x"], "the input file '/etc/x' cannot be written: the name is not a relative path inside the working"),
        (["a/../x"], "the input file 'a/../x' cannot be written: the name is not a relative path"),
        (["a//x"], "the input file 'a//x' cannot be written: the name is not a relative path"),
        (["./x"], "the input file './x' cannot be written: the name is not a relative path"),
        (["a/"], "the input file 'a/' cannot be written: the name is not a relative path"),
        ([""], "the input file '' cannot be written: the name is not a relative path"),
        (["a\0b"], "the input file 'a\\x00b' cannot be written: the name has control characters"),
        (["a\ud800"], "the input file 'a\\ud800' cannot be written: the name has control characters"),
        (["x" * 256], "cannot be written: the name is too long. Give it another name"),
        (["ü" * 128], "cannot be written: the name is too long. Give it another name"),
        (["x/" * 2047 + "xy"], "cannot be written: the name is too long. Give it another name"),
        (["main.py"], "the input file 'main.py' cannot be written: the program has this name. Give it another name"),
        (["main.py/x"], "'main.py' is a file, and the folder of the input file 'main.py/x'. Rename one of them"),
        (["a", "a"], "the input file 'a' cannot be written: another input file has this name"),
        (["data", "data/x.csv"], "'data' is a file, and the folder of the input file 'data/x.csv'. Rename one of them"),
        (["data/a/x.csv", "data"], "'data' is a file, and the folder of the input file 'data/a/x.csv'. Rename one of"),
    ],
)
def test_input_files_that_cannot_lie_beside_each_other_and_the_program_are_refused(
    names: list[str], message: str
) -> None:
    files = [File(name=name, content=b"") for name in names]
    assert message in refusal(ExecutorConfig().request, "", files=files)


@pytest.mark.parametrize(
    "names",
    [
        ["-rf.csv", ".hidden", "100%20.txt", "it's a \u2013 \u202f.js", "a\\b:c", "\u0130"],
        ["data/a/x.csv", "data/a.csv", "data.csv", "folder/main.py", "main.py.csv"],
        ["Umsätze.csv", normalize("NFD", "Umsätze.csv"), "UMSÄTZE.csv"],
        ["x" * 255, "ü" * 127, "x/" * 2047 + "x"],
    ],
)
def test_whatever_linux_can_write_is_taken(names: list[str]) -> None:
    files = tuple(File(name=name, content=b"") for name in names)
    assert ExecutorConfig().request("", files=files).files == files


@pytest.mark.parametrize("file", ["a.csv", File(name="a.csv", content="text"), File(name=5, content=b"")])  # type: ignore[arg-type]
def test_what_is_no_file_is_refused(file: Any) -> None:
    assert "files has an entry that is not a name with bytes" in refusal(ExecutorConfig().request, "", files=[file])


def test_files_that_the_working_directory_has_no_room_for_are_refused() -> None:
    files = [File(name=name, content=bytes(2**19)) for name in ("a", "b")]
    config = ExecutorConfig(scratch_limit="1Mi")
    assert config.request("", files=files)
    files.append(File(name="c", content=b"1"))
    message = "the input files are 1048577 bytes, and the working directory has room for 1048576. Send less, or raise"
    assert message in refusal(config.request, "", files=files)


@pytest.mark.parametrize("given", [{"code": b""}, {"code": "", "argv": "--fast"}, {"code": "", "argv": [3]}])
def test_a_program_and_its_arguments_are_text(given: dict[str, Any]) -> None:
    assert "the program or an argument of it is no text" in refusal(ExecutorConfig().request, **given)


# gVisor


@pytest.mark.parametrize(("runtime_class", "gvisor"), [("kata", True), (None, False)])
def test_any_runtime_class_means_that_gvisor_is_expected_and_none_is_warned_of(
    runtime_class: str | None, gvisor: bool
) -> None:
    config = ExecutorConfig(runtime_class=runtime_class)
    warned = ["the program shared the kernel of its node" in text for text in config.warnings]
    assert (config.request("").gvisor, warned) == (gvisor, [] if gvisor else [True])


# Secrets


def test_values_of_the_environment_are_shown_nowhere() -> None:
    config = ExecutorConfig(env={"PASSWORD": "hush"})
    shown = [repr(config), str(config), repr(config.request("")), refusal(config.model_copy, update={"image": ""})]
    assert "hush" not in str(shown)
    assert "PASSWORD" in repr(config)


def test_a_secret_is_taken_where_the_contract_allows_it_but_not_for_one_execution() -> None:
    config = ExecutorConfig.from_contract(OPEN, env={"A": "x", "B": TOKEN})
    assert config.request("").env == {"A": "x"}, "the container has the other"
    assert "Give it to the executor" in refusal(config.request, "", env={"B": TOKEN})


@pytest.mark.parametrize("make", [ExecutorConfig, partial(ExecutorConfig.from_contract, CONTRACT)])
def test_a_secret_is_refused_where_no_contract_allows_it(make: Any) -> None:
    message = "env takes B from a Secret, which only a stack's contract can allow. Have the platform team set secretEnv"
    assert message in refusal(make, env={"A": "x", "B": TOKEN})


@pytest.mark.parametrize("name", ["1A", "a b", "KUBERNETES_X", "HOME"])
def test_a_secret_under_a_name_that_would_not_reach_the_program_is_refused(name: str) -> None:
    assert f"env has {name!r}, which cannot come from a Secret" in refusal(check_env, {name: TOKEN})


def test_the_runners_own_variables_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = sys.modules["processes"].environment()
    changed = [name for name, value in made.items() if name != "LANG" and os.environ.get(name) != value]
    assert [name for name in changed if not RUNNERS_OWN_ENV.fullmatch(name)] == []


@pytest.mark.parametrize(("secret", "key"), [("A", "k"), ("a", "k/"), ("", "k")])
def test_a_secret_without_a_kubernetes_name_is_refused(secret: str, key: str) -> None:
    assert 'Write SecretKey(secret="NAME", key="KEY")' in refusal(SecretKey, secret=secret, key=key)


# From a contract


def test_a_contract_gives_every_setting() -> None:
    config = ExecutorConfig.from_contract(CONTRACT)
    found = (config.namespace, config.image, config.service_account)
    assert found == ("agent-sandbox", CONTRACT.image, "sandbox-runner")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"cpu_limit": "5"}, "cpu_limit='5' is above the stack's ceiling '4'"),
        ({"mem_limit": "9Gi"}, "mem_limit='9Gi' is above the stack's ceiling '8Gi'"),
        ({"timeout_seconds": 3601}, "timeout_seconds=3601.0 is above the stack's ceiling 3600"),
        ({"mem_requested": "1Gi"}, "mem_requested='1Gi' is above mem_limit='512Mi'"),
    ],
)
def test_an_override_above_a_ceiling_or_its_limit_is_refused(override: dict[str, Any], message: str) -> None:
    assert message in refusal(ExecutorConfig.from_contract, CONTRACT, **override)


@pytest.mark.parametrize(
    ("override", "requested"),
    [
        ({"mem_requested": "3Gi"}, "3Gi"),
        ({"mem_limit": "1Gi"}, "1Gi"),
        ({"mem_limit": "3Gi"}, "2Gi"),
    ],
)
def test_an_override_is_judged_beside_the_contracts_values(override: Any, requested: str) -> None:
    assert ExecutorConfig.from_contract(ROOMY, **override).mem_requested == requested


def test_a_lowered_limit_lowers_the_request_that_nobody_gave() -> None:
    config = ExecutorConfig(cpu_limit="100m")
    assert (config.cpu_requested, config.model_copy(update={"cpu_limit": "50m"}).cpu_requested) == ("100m", "50m")


def test_a_ceiling_itself_is_allowed() -> None:
    contract = CONTRACT.model_copy(update={"ceilings": Ceilings(cpu="1", memory="1Gi", timeout_seconds=60)})
    assert ExecutorConfig.from_contract(contract, cpu_limit="1000m", mem_limit="1024Mi", timeout_seconds=60)


@pytest.mark.parametrize(("egress", "policy"), [("none", "None"), ("fqdn", "ClusterFirst")])
def test_names_resolve_where_the_contract_lets_sandboxes_out(egress: Any, policy: str) -> None:
    contract = CONTRACT.model_copy(update={"egress": egress})
    pod = manifests.job(ExecutorConfig.from_contract(contract), "x", [{}])["spec"]["template"]["spec"]
    assert pod["dnsPolicy"] == policy
    assert ("dnsConfig" in pod) == (policy == "None")


@pytest.mark.parametrize(
    ("variable", "token", "context"),
    [("KUBERNETES_SERVICE_HOST", "", None), ("ANOTHER", "", "staging"), ("KUBERNETES_SERVICE_HOST", "no", "staging")],
)
def test_a_pod_with_a_token_uses_its_own_account_and_all_others_the_contracts_context(
    variable: str, token: str, context: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv(variable, "10.0.0.1")
    assert context_of(STAGING, token=tmp_path / token) == context


def test_a_context_that_is_given_wins_over_the_contracts() -> None:
    contexts = [{"kubeconfig_context": "mine"}, {"kubeconfig_path": "/file", "kubeconfig_context": None}]
    found = [ExecutorConfig.from_contract(STAGING, **given).kubeconfig_context for given in contexts]
    assert found == ["mine", "staging"]


@pytest.mark.parametrize("setting", ["env", "labels", "node_selector"])
def test_a_mapping_of_the_settings_stays_as_it_was_checked(setting: str) -> None:
    config = ExecutorConfig(**{setting: {"a": "b"}})
    found = getattr(config, setting)
    for change in (lambda: found.update(a="c"), lambda: found.pop("a"), lambda: found.__setitem__("a", "c")):
        with pytest.raises(ConfigError, match="settings are checked once and then fixed"):
            change()
    assert getattr(pickle.loads(pickle.dumps(copy.deepcopy(config))), setting) == {"a": "b"}


def test_a_copy_stays_under_the_contracts_ceilings() -> None:
    config = ExecutorConfig.from_contract(CONTRACT)
    assert "is above the stack's ceiling" in refusal(config.model_copy, update={"mem_limit": "64Gi"})


@pytest.mark.parametrize("setting", ["runtime_class", "service_account"])
def test_names_of_these_objects_may_have_dots(setting: str) -> None:
    assert getattr(ExecutorConfig(**{setting: "a.b"}), setting) == "a.b"
    assert "is not a Kubernetes name" in refusal(ExecutorConfig, **{setting: "a..b"})
