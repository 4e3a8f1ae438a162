"""The GKE part of the program under mocks: what the cluster, its nodes and everything around it are like."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pulumi
import pytest
import yaml
from standin import schema
from standin.model import KINDS

from adk_gke_sandbox.contract import parse
from infra.cluster import SandboxCluster, SandboxClusterArgs
from infra.gke_settings import GkeSettings
from tests.infra import conftest
from tests.infra.conftest import (
    ENDPOINT,
    GKE_STACKS,
    IMAGE,
    PROJECT_NUMBER,
    THEIRS,
    Program,
    Registered,
    Run,
    committed,
    run_program,
)
from tests.infra.gke_variants import ALL_OF_OTHERS, AUTOPILOT, EVERYTHING, NETWORK_OF_OTHERS

SECRET = "4dabf18193072939515e22adb298388d"
END = "2026-05-08T00:00:00Z"
PREVIEW = pytest.mark.parametrize("preview", [False, True])


@cache
def _made(stack: str, preview: bool, settings: str) -> Program:
    config = {**committed(stack), "image": IMAGE, **json.loads(settings)}
    return run_program({key: value for key, value in config.items() if value is not None}, stack, preview)


def made(stack: str = "staging", *, preview: bool = False, **settings: Any) -> Program:
    """Return what the program asks for with the committed settings of a stack and what is given; not to be changed."""
    return _made(stack, preview, json.dumps(settings, sort_keys=True))


def at(resource: Registered, path: str) -> Any:
    value: Any = resource.inputs
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def cluster(program: Program) -> Registered:
    (found,) = program.of("Cluster")
    return found


def pools(program: Program) -> tuple[Registered, Registered]:
    """Return the system pool and the one for sandboxes."""
    sandbox = [pool for pool in program.of("NodePool") if at(pool, "nodeConfig.sandboxConfig")]
    system = [pool for pool in program.of("NodePool") if not at(pool, "nodeConfig.sandboxConfig")]
    (sandbox_pool,), (system_pool,) = sandbox, system
    return system_pool, sandbox_pool


def google(program: Program) -> list[Registered]:
    return [resource for resource in program.resources if resource.type.startswith("gcp:")]


def awaited(resource: Registered) -> set[str]:
    """Return type and name of what a resource waits for."""
    return {urn.split("::")[2].rpartition("$")[2] + " " + urn.split("::")[3] for urn in resource.request.dependencies}


# -- the cluster


def test_options_reach_the_cluster() -> None:
    asked = cluster(made(**EVERYTHING))
    assert at(asked, "addonsConfig.agentSandboxConfig.enabled") is True
    assert at(asked, "addonsConfig.podSnapshotConfig.enabled") is True
    assert at(asked, "enableFqdnNetworkPolicy") is True
    assert at(asked, "minMasterVersion") == "1.36.3-gke.1767000"
    assert at(asked, "authenticatorGroupsConfig.securityGroup") == "gke-security-groups@example.com"
    assert at(asked, "binaryAuthorization.evaluationMode") == "PROJECT_SINGLETON_POLICY_ENFORCE"


def test_first_pool_takes_nothing_of_the_quota_for_ssd() -> None:
    assert at(cluster(made()), "nodeConfig.bootDisk") == {"diskType": "pd-standard", "sizeGb": 30}


def test_times_without_upgrades_are_the_settings() -> None:
    times = {
        "b": "2026-12-18T00:00:00+01:00/2027-01-04T00:00:00Z NO_MINOR_UPGRADES",
        "a": f"2026-05-01T00:00:00Z/{END}",
    }
    assert at(cluster(made(maintenanceExclusions=times)), "maintenancePolicy.maintenanceExclusions") == [
        {
            "exclusionName": name,
            "startTime": start,
            "endTime": end,
            "exclusionOptions": {"scope": scope},
        }
        for name, start, end, scope in (
            ("a", "2026-05-01T00:00:00Z", END, "NO_UPGRADES"),
            ("b", "2026-12-17T23:00:00Z", "2027-01-04T00:00:00Z", "NO_MINOR_UPGRADES"),
        )
    ]


@pytest.mark.parametrize("settings", [{}, AUTOPILOT])
def test_what_sandboxes_print_stays_out_of_the_projects_log(settings: dict[str, Any]) -> None:
    program = made(namespace="runs", **settings)
    (exclusion,) = program.of("ProjectExclusion")
    assert exclusion.inputs["filter"] == (
        'resource.type="k8s_container" AND resource.labels.location="europe-west4" AND '
        'resource.labels.cluster_name="sandbox-cluster-0a1b2c3" AND resource.labels.namespace_name="runs"'
    )
    assert not exclusion.inputs.get("disabled")
    assert [*program.of("ProjectSink"), *program.of("ProjectBucketConfig")] == []


def test_what_sandboxes_print_is_kept_in_a_bucket_under_the_stacks_key() -> None:
    program = made(sandboxLogs="keep", sandboxLogDays=90)
    (exclusion,), (sink,), (bucket,) = (program.of(f"Project{each}") for each in ("Exclusion", "Sink", "BucketConfig"))
    assert sink.inputs["filter"] == exclusion.inputs["filter"]
    assert sink.inputs["destination"] == f"logging.googleapis.com/{bucket.name}-id"
    assert bucket.inputs["location"] == "europe-west4"
    assert bucket.inputs["retentionDays"] == 90
    assert bucket.inputs["cmekSettings"] == {"kmsKeyName": "sandbox-key-id"}
    # Named after the first cluster; a second one does not replace it.
    assert list(bucket.request.ignoreChanges) == ["bucketId"]
    grant = program.one("CryptoKeyIAMMember", "sandbox-key-logging")
    assert grant.inputs["member"] == f"serviceAccount:cmek-p{PROJECT_NUMBER}@gcp-sa-logging.iam.gserviceaccount.com"
    assert any(urn.endswith("::sandbox-key-logging") for urn in bucket.request.dependencies)


def test_docker_hub_is_asked_as_somebody() -> None:
    token = "projects/123456789012/secrets/docker-hub/versions/1"
    mirror = made(dockerHubUser="me", dockerHubToken=token).one("Repository", "sandbox-docker-hub")
    login = {"usernamePasswordCredentials": {"username": "me", "passwordSecretVersion": token}}
    assert at(mirror, "remoteRepositoryConfig.upstreamCredentials") == login
    nobody = made().one("Repository", "sandbox-docker-hub")
    assert at(nobody, "remoteRepositoryConfig.upstreamCredentials") is None


@pytest.mark.parametrize(
    ("protected", "rule", "told"),
    [
        (
            False,
            {"network": "projects/p/global/networks/sandbox-network"},
            "would outlive the cluster and hold the network",
        ),
        (False, {"description": '{"kubernetes.io/service-name":"agents/web"}'}, "may be of this cluster"),
        (False, {"network": "n/default", "description": '{"kubernetes.io/service-name":"agents/web"}'}, ""),
        (False, {"network": "projects/p/global/networks/default", "description": "mine"}, ""),
        (True, {"network": "projects/p/global/networks/sandbox-network"}, ""),
    ],
)
def test_load_balancer_that_would_hold_the_network_is_told(
    monkeypatch: pytest.MonkeyPatch, protected: bool, rule: dict[str, str], told: str
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(conftest, "FORWARDING_RULES", [{"name": "a1b2", **rule}])
    monkeypatch.setattr(pulumi.log, "warn", lambda message, *_: warnings.append(message))
    run_program({**committed("staging"), "image": IMAGE, "deletionProtection": protected}, "staging")
    told_of = [each for each in warnings if each.startswith("load balancers")]
    assert [each.startswith(f"load balancers a1b2 {told}") for each in told_of] == [True] * bool(told)


def test_maintenance_window_is_the_settings() -> None:
    asked = cluster(made(maintenanceRecurrence="FREQ=DAILY"))
    assert at(asked, "maintenancePolicy.recurringWindow") == {
        "startTime": "2026-01-03T02:00:00Z",
        "endTime": "2026-01-03T08:00:00Z",
        "recurrence": "FREQ=DAILY",
    }


def test_certificates_of_the_control_plane_are_secrets_in_the_state() -> None:
    assert "masterAuth" in cluster(made()).request.additionalSecretOutputs


# -- autopilot


@pytest.mark.parametrize(
    "path",
    [
        "removeDefaultNodePool",
        "initialNodeCount",
        "nodeConfig",
        "nodePoolDefaults",
        "datapathProvider",
        "enableIntranodeVisibility",
        "enableShieldedNodes",
        "networkPolicy",
        "addonsConfig.networkPolicyConfig",
        "clusterAutoscaling.enabled",
        "clusterAutoscaling.autoscalingProfile",
        "workloadIdentityConfig",
        "defaultMaxPodsPerNode",
    ],
)
def test_autopilot_is_not_told_what_it_decides_itself(path: str) -> None:
    assert at(cluster(made(**AUTOPILOT)), path) is None


def test_autopilot_has_no_pools_and_the_same_identity_for_its_nodes() -> None:
    program = made(**AUTOPILOT)
    assert program.of("NodePool") == []
    assert at(cluster(program), "enableAutopilot") is True
    assert at(cluster(program), "clusterAutoscaling.autoProvisioningDefaults") == {
        "serviceAccount": "sandbox-nodes-staging@a-project.iam.gserviceaccount.com",
        "oauthScopes": ["https://www.googleapis.com/auth/cloud-platform"],
        "bootDiskKmsKey": "sandbox-key-id",
    }


def test_autopilot_is_as_closed_as_standard() -> None:
    standard, autopilot = cluster(made()), cluster(made(**AUTOPILOT))
    for key in (
        "controlPlaneEndpointsConfig",
        "privateClusterConfig",
        "databaseEncryption",
        "masterAuth",
        "anonymousAuthenticationConfig",
        "rbacBindingConfig",
        "loggingConfig",
        "monitoringConfig",
        "securityPostureConfig",
        "releaseChannel",
        "maintenancePolicy",
        "deletionProtection",
    ):
        assert autopilot.inputs[key] == standard.inputs[key], key


def test_options_reach_autopilot() -> None:
    asked = cluster(made(**{**EVERYTHING, **AUTOPILOT}))
    assert at(asked, "addonsConfig") == {
        "agentSandboxConfig": {"enabled": True},
        "podSnapshotConfig": {"enabled": True},
    }
    assert at(asked, "enableFqdnNetworkPolicy") is True


# -- pools


def test_only_the_sandbox_pool_is_under_gvisor() -> None:
    system, sandbox = pools(made())
    assert at(sandbox, "nodeConfig.sandboxConfig") == {"type": "GVISOR"}
    assert at(system, "nodeConfig.sandboxConfig") is None


@pytest.mark.parametrize("stack", GKE_STACKS)
def test_deprecated_sandbox_type_is_nowhere(stack: str) -> None:
    for resource in made(stack, **EVERYTHING).resources:
        assert "sandboxType" not in json.dumps(resource.inputs), resource.name


def test_gkes_own_taint_and_label_are_left_to_gke() -> None:
    for pool in pools(made()):
        assert not {"taints", "labels", "effectiveTaints"} & pool.inputs["nodeConfig"].keys(), pool.name


def test_sandbox_pool_starts_from_nothing() -> None:
    _, sandbox = pools(made(sandboxNodesMin=0, sandboxNodesMax=3))
    assert sandbox.inputs["initialNodeCount"] == 0
    assert sandbox.inputs["autoscaling"] == {"totalMinNodeCount": 0, "totalMaxNodeCount": 3, "locationPolicy": "ANY"}


@pytest.mark.parametrize(("least", "most", "a_zone"), [(1, 20, 1), (3, 20, 1), (4, 20, 2), (1, 2, 0), (5, 5, 1)])
def test_floor_is_there_from_the_start_and_never_above_the_limit(least: int, most: int, a_zone: int) -> None:
    """GKE counts the first nodes by zone, of which a region has three, and need not fill a pool up to its floor."""
    _, sandbox = pools(made(sandboxNodesMin=least, sandboxNodesMax=most))
    assert sandbox.inputs["initialNodeCount"] == a_zone


def test_settings_reach_the_pools() -> None:
    system, sandbox = pools(
        made(
            sandboxMachineType="c4-standard-8",
            sandboxDiskType="hyperdisk-balanced",
            sandboxDiskGb=200,
            sandboxPodsPerNode=32,
            sandboxSpot=False,
            systemMachineType="n2-standard-8",
            systemNodesMin=2,
            encryptBootDisks=False,
        )
    )
    assert at(sandbox, "nodeConfig.machineType") == "c4-standard-8"
    assert at(sandbox, "nodeConfig.bootDisk") == {"diskType": "hyperdisk-balanced", "sizeGb": 200}
    assert at(sandbox, "maxPodsPerNode") == 32
    assert at(sandbox, "nodeConfig.spot") is False
    assert at(sandbox, "nodeConfig.bootDiskKmsKey") is None
    assert at(system, "nodeConfig.machineType") == "n2-standard-8"
    assert at(system, "nodeConfig.spot") is None
    assert at(system, "autoscaling.totalMinNodeCount") == 2


def test_spot_is_for_sandboxes_only() -> None:
    system, sandbox = pools(made(sandboxSpot=True))
    assert at(sandbox, "nodeConfig.spot") is True
    assert at(system, "nodeConfig.spot") is None


def test_blue_green_upgrade_drains_before_it_deletes() -> None:
    _, sandbox = pools(made(sandboxUpgrade="BLUE_GREEN"))
    assert at(sandbox, "upgradeSettings.strategy") == "BLUE_GREEN"
    assert at(sandbox, "upgradeSettings.maxSurge") is None
    assert at(sandbox, "upgradeSettings.blueGreenSettings.nodePoolSoakDuration") == "3600s"


# -- network


def test_closed_sandboxes_have_no_way_out() -> None:
    program = made()
    assert program.of("Router") == []
    assert program.of("RouterNat") == []


@pytest.mark.parametrize("egress", [{"egress": "internet"}, {"egress": "fqdn", "egressHosts": ["pypi.org"]}])
def test_egress_brings_a_way_out_for_this_subnetwork_alone(egress: dict[str, Any]) -> None:
    program = made(**egress)
    (nat,) = program.of("RouterNat")
    assert nat.inputs["sourceSubnetworkIpRangesToNat"] == "LIST_OF_SUBNETWORKS"
    assert len(nat.inputs["subnetworks"]) == 1
    # 64 sandboxes of a node share its ports, of which there are 64 otherwise.
    assert nat.inputs["enableDynamicPortAllocation"] is True
    assert nat.inputs["enableEndpointIndependentMapping"] is False
    assert (nat.inputs["minPortsPerVm"], nat.inputs["maxPortsPerVm"]) == (1024, 32768)
    assert parse(json.dumps(program.outputs["sandbox"])).egress == egress["egress"]


def test_sandboxes_reach_the_internet_but_nothing_private() -> None:
    policy = made(egress="internet").one("NetworkPolicy", "sandbox-egress")
    _, out = policy.inputs["spec"]["egress"]
    four, six = (peer["ipBlock"] for peer in out["to"])
    assert four["cidr"] == "0.0.0.0/0"
    addresses = ("10.1.2.3", "100.64.0.1", "169.254.169.254", "192.0.0.8", "198.19.0.1", "203.0.113.9", "240.1.0.5")
    for address in (*addresses, "8.8.8.8"):
        left_out = any(ip_address(address) in ip_network(each) for each in four["except"])
        assert left_out == (address in addresses)
    assert six == {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}


def test_sandboxes_reach_hosts_by_name() -> None:
    program = made(egress="fqdn", egressHosts=["pypi.org", "*.pythonhosted.org"])
    (policy,) = program.of("FQDNNetworkPolicy")
    assert policy.inputs["spec"] == {
        "podSelector": {},
        "egress": [
            {
                "matches": [{"name": "pypi.org"}, {"pattern": "*.pythonhosted.org"}],
                "ports": [{"protocol": "TCP", "port": 443}],
            }
        ],
    }
    (names,) = program.one("NetworkPolicy", "sandbox-egress").inputs["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}


EVERY_NAME_SERVER = {
    # Cloud DNS, the cache of the nodes, the Service `kube-dns`, and the pods of the two.
    "169.254.169.254/32",
    "169.254.20.10/32",
    "10.72.0.10/32",
    "kube-dns",
    "node-local-dns",
}


def opened(policy: Registered) -> dict[str, set[tuple[str, int]]]:
    """Return protocol and port of what a policy opens, by range, or by label of the pods."""
    found: dict[str, set[tuple[str, int]]] = {}
    for rule in policy.inputs["spec"]["egress"]:
        for peer in rule["to"]:
            where = peer["ipBlock"]["cidr"] if "ipBlock" in peer else peer["podSelector"]["matchLabels"]["k8s-app"]
            ports = {(each["protocol"], each["port"]) for each in rule.get("ports") or []}
            found[where] = found.get(where, set()) | ports
    return found


@pytest.mark.parametrize("policy", ["sandbox-agents-egress", "sandbox-egress"])
def test_names_resolve_whichever_name_server_gke_gives_to_pods(policy: str) -> None:
    found = opened(made(egress="internet").one("NetworkPolicy", policy))
    dns = {("UDP", 53), ("TCP", 53)}
    assert {where for where, ports in found.items() if ports >= dns} == EVERY_NAME_SERVER
    agents = {("TCP", 80), ("TCP", 8080)} if policy == "sandbox-agents-egress" else set()
    # The metadata server is there, too: only agents have an identity to ask it for.
    assert {where: ports - dns for where, ports in found.items() if ports > dns} == (
        {"169.254.169.254/32": agents} if agents else {}
    )


def test_cache_of_the_nodes_is_on_whatever_the_version() -> None:
    assert at(cluster(made()), "addonsConfig.dnsCacheConfig") == {"enabled": True}


def test_agents_reach_what_they_are_let_to_on_its_port() -> None:
    program = made(agentsEgress=["10.20.0.0/24:5432", "0.0.0.0/0:4317", "db.example.com:5432", "a.org:443"])
    rules = program.one("NetworkPolicy", "sandbox-agents-egress").inputs["spec"]["egress"]
    assert rules[-2:] == [
        {"to": [{"ipBlock": {"cidr": "10.20.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 5432}]},
        {
            "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}],
            "ports": [{"protocol": "TCP", "port": 4317}],
        },
    ]
    (hosts,) = program.of("FQDNNetworkPolicy")
    assert hosts.inputs["metadata"]["namespace"] == "agents"
    assert hosts.inputs["spec"]["egress"] == [
        {"matches": [{"name": "db.example.com"}], "ports": [{"protocol": "TCP", "port": 5432}]}
    ]
    assert at(cluster(program), "enableFqdnNetworkPolicy") is True


@pytest.mark.parametrize(("entry", "routers"), [("api.anthropic.com:443", 1), ("10.20.0.5:5432", 0)])
def test_agents_have_a_way_out_where_they_need_one_and_sandboxes_stay_closed(entry: str, routers: int) -> None:
    program = made(agentsEgress=[entry])
    assert len(program.of("RouterNat")) == routers
    policies = program.of("NetworkPolicy")
    assert [each.name for each in policies if each.inputs["metadata"]["namespace"] == "agent-sandbox"] == [
        "sandbox-deny-all"
    ]


# -- what is there already


def test_network_that_is_there_is_used_and_nothing_of_it_is_made() -> None:
    program = made(**NETWORK_OF_OTHERS, egress="internet")
    assert [each.type for each in google(program) if each.type.startswith("gcp:compute/")] == []
    asked = cluster(program)
    assert asked.inputs["network"] == "projects/host-project/global/networks/shared"
    assert asked.inputs["subnetwork"] == "projects/host-project/regions/europe-west4/subnetworks/gke-nodes"
    assert at(asked, "ipAllocationPolicy") == {
        "clusterSecondaryRangeName": "gke-pods",
        "servicesSecondaryRangeName": "gke-services",
    }
    # Its ranges need not look private, and sandboxes must not reach them all the same.
    policy = program.one("NetworkPolicy", "sandbox-egress")
    assert {"240.0.0.0/4", "34.118.224.0/20"} <= set(policy.inputs["spec"]["egress"][1]["to"][0]["ipBlock"]["except"])
    assert "34.118.224.10/32" in opened(policy)


def test_subnetwork_is_made_in_a_network_that_is_there() -> None:
    program = made(network="shared", egress="internet")
    assert program.of("Network") == []
    (subnetwork,), (router,) = program.of("Subnetwork"), program.of("Router")
    link = "projects/my-staging-project/global/networks/shared"
    assert [each.inputs["network"] for each in (subnetwork, router, cluster(program))] == [link] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": "projects/x/global/networks/other"}, "is in the network other, not in adk-gke-sandbox:network="),
        ({"privateIpGoogleAccess": False}, "--project host-project --enable-private-ip-google-access`"),
        (
            {"secondaryIpRanges": THEIRS["subnetwork"]["secondaryIpRanges"][:1]},
            "servicesRange='gke-services' is no secondary range of the subnetwork gke-nodes, which has: gke-pods.",
        ),
        ({"ipCidrRange": "10.128.0.0/29"}, "the range of gke-nodes=10.128.0.0/29 has 4 addresses, and the pools may"),
    ],
)
def test_subnetwork_that_would_not_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setitem(THEIRS, "subnetwork", {**THEIRS["subnetwork"], **change})
    config = {**committed("staging"), "image": IMAGE, **NETWORK_OF_OTHERS}
    with pytest.raises(pulumi.RunError, match=re.escape(said)):
        run_program(config, "staging")


def test_subnetwork_of_autopilot_need_not_hold_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(THEIRS, "subnetwork", {**THEIRS["subnetwork"], "ipCidrRange": "10.128.0.0/29"})
    assert made(**AUTOPILOT, **NETWORK_OF_OTHERS).of("Cluster")


def test_account_key_and_repository_that_are_there_are_used_and_granted_nothing() -> None:
    """Who may use them is their owner's business; only what the stack makes does it open."""
    program = made(**ALL_OF_OTHERS)
    assert [each.type for each in google(program) if "kms" in each.type or "serviceaccount" in each.type] == []
    assert program.of("IAMMember") == []
    for pool in pools(program):
        assert at(pool, "nodeConfig.serviceAccount") == ALL_OF_OTHERS["nodeServiceAccount"]
        assert at(pool, "nodeConfig.bootDiskKmsKey") == ALL_OF_OTHERS["kmsKey"]
    assert at(cluster(program), "databaseEncryption.keyName") == ALL_OF_OTHERS["kmsKey"]
    assert program.outputs["repository"] == ALL_OF_OTHERS["repository"]
    (reader,) = program.of("RepositoryIamMember")
    assert reader.inputs["repository"] == "sandbox-docker-hub-staging"
    assert reader.inputs["member"] == f"serviceAccount:{ALL_OF_OTHERS['nodeServiceAccount']}"
    (policy,) = made(**ALL_OF_OTHERS, binaryAuthorization="manage").of("Policy")
    patterns = [each["namePattern"] for each in policy.inputs["admissionWhitelistPatterns"]]
    assert f"{ALL_OF_OTHERS['repository']}/**" in patterns


# -- identities


def test_nodes_may_do_what_nodes_do_and_read_the_two_repositories() -> None:
    program = made()
    account = "serviceAccount:sandbox-nodes-staging@a-project.iam.gserviceaccount.com"
    roles = [(member.inputs["role"], member.inputs["member"]) for member in program.of("IAMMember")]
    assert roles == [("roles/container.defaultNodeServiceAccount", account)]
    readers = {
        (member.inputs["repository"], member.inputs["role"], member.inputs["member"])
        for member in program.of("RepositoryIamMember")
    }
    assert readers == {
        ("sandbox-images-staging", "roles/artifactregistry.reader", account),
        ("sandbox-docker-hub-staging", "roles/artifactregistry.reader", account),
    }


def test_id_of_the_nodes_account_fits_for_any_stack() -> None:
    ids = {
        at(program.one("Account", "sandbox-nodes"), "accountId")
        for name in ("a" * 40, "a" * 41, "Staging_2", "staging-2")
        for program in [
            run_program({}, name, program=lambda name=name: component("sandbox", stack=name))  # type: ignore[misc]
        ]
    }
    assert len(ids) == 4
    assert all(6 <= len(each) <= 30 for each in ids)


def test_agents_get_the_roles_of_the_settings_by_their_service_account() -> None:
    program = made(agentRoles=["roles/aiplatform.user"], agentsNamespace="bots")
    member = program.one("IAMMember", "sandbox-agent-aiplatform.user")
    assert member.inputs["role"] == "roles/aiplatform.user"
    assert member.inputs["member"] == (
        f"principal://iam.googleapis.com/projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/"
        "my-staging-project.svc.id.goog/subject/ns/bots/sa/agent"
    )
    # The pool of identities comes with a project's first cluster.
    assert f"{cluster(program).type} {cluster(program).name}" in awaited(member)


def test_nobody_is_bound_to_the_sandboxes_service_account() -> None:
    program = made(**EVERYTHING)
    for resource in google(program):
        assert "sandbox-runner" not in json.dumps(resource.inputs), resource.name
        assert "/ns/agent-sandbox/" not in json.dumps(resource.inputs), resource.name


def test_compute_engine_has_no_use_for_the_key_of_secrets_alone() -> None:
    (member,) = made(encryptBootDisks=False).of("CryptoKeyIAMMember")
    assert "container-engine-robot" in member.inputs["member"]


# -- images


def test_docker_hub_is_pulled_through() -> None:
    own, mirror = sorted(made().of("Repository"), key=lambda each: "mode" in each.inputs)
    assert own.inputs["dockerConfig"] == {"immutableTags": True}
    assert mirror.inputs["mode"] == "REMOTE_REPOSITORY"
    assert at(mirror, "remoteRepositoryConfig.dockerRepository.publicRepository") == "DOCKER_HUB"
    image = made(image=f"python@sha256:{'b' * 64}").outputs["sandbox"]["image"]
    location = f"{mirror.inputs['location']}-docker.pkg.dev/my-staging-project/{mirror.inputs['repositoryId']}"
    assert image == f"{location}/library/python@sha256:{'b' * 64}"


@pytest.mark.parametrize(("option", "policies"), [("off", 0), ("enforce", 0), ("manage", 1)])
def test_policy_of_the_project_is_written_only_if_the_stack_is_told_to(option: str, policies: int) -> None:
    program = made(binaryAuthorization=option)
    assert len(program.of("Policy")) == policies
    assert ("binaryauthorization.googleapis.com" in services(program)) == (option != "off")


def test_policy_admits_the_stacks_repositories_and_gkes_own_images() -> None:
    (policy,) = made(binaryAuthorization="manage").of("Policy")
    assert policy.inputs["globalPolicyEvaluationMode"] == "ENABLE"
    assert policy.inputs["defaultAdmissionRule"] == {
        "evaluationMode": "ALWAYS_DENY",
        "enforcementMode": "ENFORCED_BLOCK_AND_AUDIT_LOG",
    }
    assert [each["namePattern"].rpartition("/")[2] for each in policy.inputs["admissionWhitelistPatterns"]] == [
        "**",
        "**",
    ]


# -- services


def services(program: Program) -> set[str]:
    return {service.inputs["service"] for service in program.of("Service")}


def test_services_stay_enabled_when_the_stack_goes() -> None:
    for service in made().of("Service"):
        assert service.inputs["disableOnDestroy"] is False, service.name


def test_every_service_that_is_called_is_enabled() -> None:
    """The stand-in knows to which service a resource type belongs."""
    for options in ({}, EVERYTHING):
        program = made(**options)
        called = {KINDS[resource.type].service for resource in google(program)} - {"serviceusage.googleapis.com"}
        assert called <= services(program)
        # Cloud DNS for GKE, image streaming, control plane logs.
        assert {
            f"{name}.googleapis.com" for name in ("dns", "containerfilesystem", "logging", "monitoring")
        } <= services(program)
    assert "aiplatform.googleapis.com" in services(made(agentRoles=["roles/aiplatform.user"]))
    assert "aiplatform.googleapis.com" not in services(made())


# -- protection, and what goes with the cluster


def test_prod_protects_everything() -> None:
    program = made("prod")
    assert [resource.name for resource in program.resources if not resource.request.protect] == []
    assert cluster(program).inputs["deletionProtection"] is True


def test_one_setting_takes_both_protections_away() -> None:
    program = made("prod", deletionProtection=False)
    assert [resource.name for resource in program.resources if resource.request.protect] == []
    assert cluster(program).inputs["deletionProtection"] is False


def test_what_is_in_the_cluster_goes_with_it() -> None:
    program = made()
    within = [resource for resource in program.resources if resource.type.startswith("kubernetes:")]
    assert within
    for resource in within:
        assert resource.request.deletedWith.split("::")[3] in (
            cluster(program).name,
            "sandbox-namespace",
            "sandbox-agents-namespace",
        ), resource.name
    for namespace in program.of("Namespace"):
        assert namespace.request.deletedWith.endswith(f"::{cluster(program).name}")


def test_nothing_goes_with_a_cluster_that_is_there(run: Run) -> None:
    for program in (run(), by_name()):
        for resource in [*program.of("Namespace"), *program.of("ValidatingAdmissionPolicy")]:
            assert resource.request.deletedWith == "", resource.name


# -- a cluster that is there, by its name


def by_name() -> Program:
    theirs = "projects/their-project/locations/us-east1/clusters/theirs"
    return run_program({"image": IMAGE, "gkeCluster": theirs})


def test_nothing_of_a_named_cluster_is_touched() -> None:
    assert google(by_name()) == []
    assert {each.name for each in by_name().of("Namespace")} == {"sandbox-agents-namespace", "sandbox-namespace"}


def test_named_cluster_is_reached_like_one_of_ours() -> None:
    outputs = by_name().outputs
    context = "gke_their-project_us-east1_theirs"
    assert yaml.safe_load(outputs["kubeconfig"])["current-context"] == context
    found = parse(json.dumps(outputs["sandbox"])).cluster
    assert (found.project, found.location, found.name) == ("their-project", "us-east1", "theirs")
    assert (found.context, found.endpoint) == (context, f"https://{ENDPOINT}")
    assert "/us-east1/theirs/" in outputs["links"]["cluster"]


def test_named_cluster_without_a_dns_endpoint_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.infra.conftest.ENDPOINT", "")
    with pytest.raises(pulumi.RunError) as raised:
        by_name()
    assert str(raised.value) == (
        "the cluster theirs has no DNS endpoint. "
        "Switch it on with `gcloud container clusters update theirs --location us-east1 --enable-dns-access`"
    )


# -- outputs


@pytest.mark.parametrize("stack", GKE_STACKS)
@PREVIEW
def test_exports_hold_no_null(stack: str, preview: bool) -> None:
    outputs = made(stack, preview=preview).outputs
    assert set(outputs) == {"sandbox", "kubeconfig", "repository", "links"}
    for name in ("sandbox", "kubeconfig", "links"):
        # In a preview nothing of a cluster that is not there yet is known, and nothing is made up.
        assert (outputs[name] is None) == preview, name
        assert preview or not {"None", "null"} & set(json.dumps(outputs[name]).replace('"', " ").split()), name
        assert "None" not in str(outputs[name] or ""), name


def test_exported_contract_leads_to_the_cluster_by_the_exported_kubeconfig() -> None:
    outputs = made().outputs
    found = parse(json.dumps(outputs["sandbox"])).cluster
    document = yaml.safe_load(outputs["kubeconfig"])
    assert found.context == document["current-context"] == f"gke_my-staging-project_europe-west4_{found.name}"
    assert found.endpoint == document["clusters"][0]["cluster"]["server"] == f"https://{ENDPOINT}"
    assert found.name == "sandbox-cluster-0a1b2c3"


def test_kubeconfig_brings_neither_credential_nor_authority() -> None:
    document = yaml.safe_load(made().outputs["kubeconfig"])
    assert document["clusters"][0]["cluster"].keys() == {"server"}
    user = document["users"][0]["user"]
    assert user.keys() == {"exec"}
    assert {key: user["exec"][key] for key in ("apiVersion", "command", "provideClusterInfo", "interactiveMode")} == {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "gke-gcloud-auth-plugin",
        "provideClusterInfo": True,
        "interactiveMode": "Never",
    }
    assert "env" not in user["exec"]


def test_kubeconfig_reaches_the_provider_as_a_secret_and_does_not_name_the_cluster() -> None:
    provider = made().one("kubernetes", "cluster")
    assert SECRET in provider.inputs["kubeconfig"]
    assert provider.inputs["clusterIdentifier"] == "sandbox-cluster-id"


# -- the image of the committed stack files


@pytest.mark.parametrize("stack", GKE_STACKS)
def test_committed_stack_can_be_previewed_but_not_brought_up(stack: str) -> None:
    assert run_program(committed(stack), stack, preview=True).of("Cluster")
    with pytest.raises(pulumi.RunError, match=r"^adk-gke-sandbox:image is still the example of the stack file"):
        run_program(committed(stack), stack)


# -- everybody's arguments


@pytest.mark.parametrize("stack", GKE_STACKS)
@pytest.mark.parametrize("options", [{}, EVERYTHING, {"egress": "internet"}], ids=["plain", "everything", "internet"])
@PREVIEW
def test_googles_provider_takes_every_argument(stack: str, options: dict[str, Any], preview: bool) -> None:
    """Keys, types and required keys by the SDK's own types; conflicts by what the stand-in knows of the provider."""
    for resource in google(made(stack, preview=preview, **options)):
        # What a preview cannot know is not on the wire.
        found = [
            (path, why) for path, why in refusals(resource) if not (preview and why.startswith("Missing required"))
        ]
        assert found == [], resource.name


def test_googles_provider_takes_every_argument_of_autopilot() -> None:
    for resource in google(made(**{**EVERYTHING, **AUTOPILOT})):
        assert list(refusals(resource)) == [], resource.name


def test_misspelt_nested_key_would_be_refused() -> None:
    _, pool = pools(made())
    sandbox = dataclasses.replace(pool, inputs=copy.deepcopy(pool.inputs))
    sandbox.inputs["nodeConfig"]["sandboxConfig"] = {"typ": "GVISOR"}
    assert list(refusals(sandbox)) == [("nodeConfig.sandboxConfig.typ", "Invalid or unknown key")]


def refusals(resource: Registered) -> Iterator[schema.Problem]:
    inputs = {"name": "a-name", **resource.inputs} if KINDS[resource.type].naming else resource.inputs
    yield from schema.problems(resource.type, inputs)
    yield from schema.not_allowed(KINDS[resource.type], inputs)
    yield from KINDS[resource.type].check(inputs)


# -- the component in somebody else's program


def component(*names: str, stack: str = "theirs", **gke: Any) -> None:
    settings = GkeSettings(project="their-project", region="us-east1", **gke)
    for name in names:
        SandboxCluster(name, SandboxClusterArgs(stack=stack, gke=settings))


def test_component_makes_a_cluster_in_somebody_elses_program() -> None:
    program = run_program({}, "theirs", program=lambda: component("theirs"))
    assert [resource.name for resource in program.of("SandboxCluster")] == ["theirs"]
    for resource in google(program):
        assert resource.request.parent.endswith("adk:infra:SandboxCluster::theirs"), resource.name
        assert resource.name.startswith("theirs-"), resource.name


def test_two_components_in_one_program_share_no_name() -> None:
    program = run_program({}, "theirs", program=lambda: component("blue", "green"))
    names = [(resource.type, resource.name) for resource in google(program)]
    assert len(names) == len(set(names))
    ids = [
        resource.inputs[key]
        for resource in google(program)
        for key in ("accountId", "repositoryId")
        if key in resource.inputs
    ]
    assert len(ids) == len(set(ids))


def test_components_project_is_that_of_its_settings() -> None:
    """Not that of whatever provider the program has."""
    for resource in google(
        run_program({}, "theirs", program=lambda: component("theirs", binary_authorization="manage"))
    ):
        if "project" in schema.keys(resource.type):
            assert resource.inputs.get("project") == "their-project", resource.name


def test_component_is_protected_as_a_whole() -> None:
    def program() -> None:
        settings = GkeSettings(project="their-project", region="us-east1")
        SandboxCluster("x", SandboxClusterArgs(stack="theirs", gke=settings), pulumi.ResourceOptions(protect=True))

    assert all(resource.request.protect for resource in run_program({}, "theirs", program=program).resources)


def test_arguments_of_the_component_cannot_change() -> None:
    args = SandboxClusterArgs(stack="theirs", gke=GkeSettings(project="their-project", region="us-east1"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        args.mode = "autopilot"  # type: ignore[misc]
