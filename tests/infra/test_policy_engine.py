"""The policy pack as users run it: `pulumi preview --policy-pack` with the real engine, on a stack not made yet.

Google Cloud is played by the stand-in in `standin`; a preview asks it for nothing and needs no cluster.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from standin import cloud

from infra.local import stack
from infra.local.layout import Layout
from infra.policy import exceptions, pack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
STANDIN = Path(cloud.__file__).parent
PACK = Path(pack.__file__)
IMAGE = f"europe-west4-docker.pkg.dev/a-project/sandbox-images/data@sha256:{'a' * 64}"

ADVISED = {("advisory", "google-groups", "sandbox-cluster"), ("advisory", "binary-authorization", "sandbox-cluster")}
UNENCRYPTED = {("mandatory", "boot-disk-key", f"sandbox-{pool}-pool") for pool in ("system", "gvisor")}

Judgement = tuple[str, str, str]
"""Level, rule and logical name of the resource."""


@pytest.fixture
def staging(tmp_path: Path) -> stack.Stack:
    """The staging stack, before anything of it was ever made."""
    return dataclasses.replace(
        stack.Stack.of(Layout(name="local"), lambda _: None),
        name="staging",
        folder=tmp_path / "pulumi",
        kubeconfig=None,
        providers={"gcp": STANDIN / "plugin"},
        environment={cloud.FOLDER: str(tmp_path / "cloud"), "PULUMI_CONFIG_PASSPHRASE": "of a test"},
    )


def preview(where: stack.Stack, **settings: stack.Setting) -> str:
    """Return what the engine prints of a preview with the policy pack, whether it fails or not."""
    given = {"gcp:project": "a-project", "image": IMAGE, **settings}
    stack.preview(where, settings=given, policy_pack=PACK, report=lambda _: None)
    return where.log("preview").read_text()


def refused(where: stack.Stack, *, rule: str, **settings: stack.Setting) -> str:
    """Return what the engine prints of a preview that a rule stops."""
    with pytest.raises(stack.StackError, match=rf"pulumi preview of stack staging failed: {rule} \("):
        preview(where, **settings)
    return where.log("preview").read_text()


def judgements(text: str) -> set[Judgement]:
    pattern = re.compile(r"\[(mandatory|advisory)\].*? ([\w-]+)  \(.*: ([\w()-]+)\)$", re.M)
    return set(pattern.findall(text))


def exempting(where: stack.Stack, folder: Path, *changes: dict[str, str]) -> stack.Stack:
    """Return a stack whose pools need not have encrypted boot disks, with a change of the exception for each."""
    entries = [
        {
            "rule": "boot-disk-key",
            "stack": "staging",
            "resource": name,
            "reason": "The key's project is being moved",
            "expires": (date.today() + timedelta(days=30)).isoformat(),
            **change,
        }
        for (_, _, name), change in itertools.zip_longest(sorted(UNENCRYPTED), changes, fillvalue={})
    ]
    path = folder / "exceptions.yaml"
    path.write_text(yaml.safe_dump({"exceptions": entries}))
    return dataclasses.replace(where, environment={**where.environment, exceptions.VARIABLE: str(path)})


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the program to break."""
    copied = tmp_path / "repository"
    ignored = shutil.ignore_patterns("local", "policy", "__pycache__")
    shutil.copytree(REPOSITORY / "infra", copied / "infra", ignore=ignored)
    shutil.copy2(REPOSITORY / "Pulumi.yaml", copied)
    monkeypatch.setattr(stack, "REPOSITORY", copied)
    return copied


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_staging_breaks_no_rule(staging: stack.Stack) -> None:
    text = preview(staging)
    assert judgements(text) == ADVISED
    assert "can't run policy" not in text
    assert "adk-gke-sandbox@" in text


def test_broken_setting_stops_the_preview_and_says_what_to_do(staging: stack.Stack) -> None:
    text = refused(staging, rule="boot-disk-key", encryptBootDisks=False)
    assert judgements(text) == ADVISED | UNENCRYPTED
    printed = " ".join(text.split())
    assert (
        "[mandatory] [severity: medium] boot-disk-key (gcp:container:NodePool: sandbox-gvisor-pool) Boot disks of "
        "nodes, which hold images, logs and requests, are encrypted with a key in Cloud KMS (CIS GKE 1.9.0: 5.9.2) "
        "nodeConfig.bootDiskKmsKey is not set. Set node_config.boot_disk_kms_key; it replaces the pool."
    ) in printed


def test_broken_program_breaks_rules_of_resources_and_of_the_stack(staging: stack.Stack, repository: Path) -> None:
    """Also of Kubernetes objects, of which a preview without a cluster knows only what was asked for."""
    pools, isolation = repository / "infra" / "node_pools.py", repository / "infra" / "isolation.py"
    replace(
        repository / "infra" / "node_identity.py", "roles/container.defaultNodeServiceAccount", "roles/compute.admin"
    )
    replace(repository / "infra" / "admission" / "policies.py", "expression=rule.holds", 'expression="true"')
    replace(pools, 'NodePoolNodeConfigSandboxConfigArgs(type="GVISOR")', "NodePoolNodeConfigSandboxConfigArgs()")
    replace(pools, "enable_secure_boot=True", "enable_secure_boot=False")
    replace(isolation, 'policy_types=["Ingress", "Egress"]', 'policy_types=["Ingress"]')
    assert judgements(refused(staging, rule="default-deny")) - ADVISED == {
        ("mandatory", "sandbox-type", "sandbox-gvisor-pool"),
        ("mandatory", "gvisor-pool", "sandbox-cluster"),
        ("mandatory", "secure-boot", "sandbox-system-pool"),
        ("mandatory", "secure-boot", "sandbox-gvisor-pool"),
        ("mandatory", "default-deny", "sandbox-agents-namespace"),
        ("mandatory", "default-deny", "sandbox-namespace"),
        # The account has no name yet; the engine tells whose it is.
        ("mandatory", "node-roles", "sandbox-nodes"),
        ("mandatory", "sandbox-admission", "adk-gke-sandbox-staging"),
    }


def test_exception_lets_the_preview_through(staging: stack.Stack, tmp_path: Path) -> None:
    assert judgements(preview(exempting(staging, tmp_path), encryptBootDisks=False)) == ADVISED


def test_expired_exception_and_one_without_a_reason_stop_the_preview(staging: stack.Stack, tmp_path: Path) -> None:
    exempt = exempting(staging, tmp_path, {"expires": "2026-01-31"}, {"reason": ""})
    text = refused(exempt, rule="exceptions", encryptBootDisks=False)
    assert judgements(text) == ADVISED | UNENCRYPTED | {("mandatory", "exceptions", "adk-gke-sandbox-staging")}
    assert (
        "The exception from boot-disk-key for sandbox-gvisor-pool of stack staging ended on 2026-01-31. Repair the "
        "resource and remove the exception, or give a new date and say why it still holds."
    ) in text
    assert (
        "Exception 2 of exceptions.yaml (from boot-disk-key for sandbox-system-pool) has no reason. Say why the "
        "resource need not hold to the rule."
    ) in text
