"""The stand-in itself: what it refuses, what it replaces, what it hides. Without an engine and without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from pulumi.runtime.proto import provider_pb2

from standin import answers, container, schema
from standin.cloud import PROJECT_NUMBER, Cloud, Json
from standin.identity import LATE_CALLS
from standin.kinds import CLUSTER, KEY_MEMBER, NETWORK, POOL, SERVICE, SERVICE_IDENTITY, SUBNETWORK
from standin.model import KINDS
from standin.plugin import StandIn
from standin.wire import UNKNOWN, decode, encode

LOCATION = "europe-west4"
PROJECT = "a-project"


class Refused(Exception):
    """The call was answered with an error."""


class Context:
    """As much of gRPC's context as the plugin uses."""

    def __init__(self) -> None:
        self.metadata: Any = ()

    def abort(self, code: grpc.StatusCode, message: str) -> None:
        raise Refused(message)

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.metadata = metadata


class Google:
    """The plugin as the engine calls it, with plain values."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.plugin = StandIn(cloud, None)
        self.configure(project=PROJECT, region=LOCATION)

    def configure(self, **values: str) -> None:
        self.plugin.Configure(provider_pb2.ConfigureRequest(args=encode(values)), Context())

    @staticmethod
    def urn(token: str, name: str) -> str:
        return f"urn:pulumi:staging::adk-gke-sandbox::adk:infra:SandboxCluster${token}::{name}"

    def check(self, token: str, news: Json, name: str = "x", olds: Json | None = None) -> tuple[Json, list[str]]:
        request = provider_pb2.CheckRequest(
            urn=self.urn(token, name), olds=encode(olds or {}), news=encode(news), randomSeed=b"\x12\x34\x56\x78"
        )
        answer = self.plugin.Check(request, Context())
        return decode(answer.inputs)[0], [failure.reason for failure in answer.failures]

    def create(self, token: str, news: Json, name: str = "x", *, preview: bool = False) -> tuple[str, Json]:
        inputs, failures = self.check(token, news, name)
        assert failures == []
        request = provider_pb2.CreateRequest(urn=self.urn(token, name), properties=encode(inputs), preview=preview)
        answer = self.plugin.Create(request, Context())
        return answer.id, decode(answer.properties)[0]

    def difference(self, token: str, before: Json, after: Json, *ignored: str) -> Any:
        olds, _ = self.check(token, before)
        news, _ = self.check(token, after, olds=olds)
        state = answers.settled(KINDS[token], olds)
        state |= KINDS[token].outputs(self.cloud.read(), state)
        request = provider_pb2.DiffRequest(
            urn=self.urn(token, "x"),
            olds=encode(state),
            old_inputs=encode(olds),
            news=encode(news),
            ignoreChanges=ignored,
        )
        return self.plugin.Diff(request, Context())

    def delete(self, token: str, identity: str, properties: Json) -> None:
        request = provider_pb2.DeleteRequest(urn=self.urn(token, "x"), id=identity, properties=encode(properties))
        self.plugin.Delete(request, Context())


Enable = Callable[..., None]


@pytest.fixture
def google(tmp_path: Path) -> Google:
    """A project in which all services are enabled."""
    made = Google(Cloud(tmp_path / "cloud"))
    with made.cloud.change() as world:
        world.services += [f"{name}.googleapis.com" for name in ("compute", "container", "iam", "cloudkms")]
    return made


@pytest.fixture
def cluster(google: Google) -> str:
    """The name of a cluster."""
    _, outputs = google.create(CLUSTER, {"location": LOCATION})
    return str(outputs["name"])


def sandbox_pool(cluster: str, **config: Any) -> Json:
    return {"cluster": cluster, "location": LOCATION, "nodeConfig": {"sandboxConfig": {"type": "GVISOR"}, **config}}


# -- keys


def test_misspelt_key_in_a_list_is_refused(google: Google) -> None:
    taint = {"key": "a", "value": "b", "effekt": "NO_SCHEDULE"}
    _, failures = google.check(POOL, {"cluster": "c", "nodeConfig": {"taints": [taint]}})
    assert failures[0] == "Invalid or unknown key. Examine values at 'x.nodeConfig.taints[0].effekt'."


def test_missing_key_is_refused(google: Google) -> None:
    _, failures = google.check(POOL, {})
    assert failures == [
        'Missing required argument. The argument "cluster" is required, but no definition was found.. '
        "Examine values at 'x.cluster'."
    ]


def test_type_that_is_not_modelled_is_refused(google: Google) -> None:
    _, failures = google.check("gcp:storage/bucket:Bucket", {})
    assert failures == ["the stand-in does not know gcp:storage/bucket:Bucket: add it to tests/infra/standin/model.py"]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"enableAutopilot": False, "removeDefaultNodePool": True}, '"enable_autopilot": conflicts with'),
        ({"removeDefaultNodePool": True, "nodeVersion": "1.36"}, "node_version can only be specified"),
        (
            {"ipAllocationPolicy": {"clusterSecondaryRangeName": "pods", "clusterIpv4CidrBlock": "/14"}},
            "cluster_ipv4_cidr_block conflicts with cluster_secondary_range_name",
        ),
        ({"name": "a" * 41}, "can be up to 40 characters"),
        (
            {"releaseChannel": {"channel": "SLOW"}},
            'expected release_channel.0.channel to be one of ["UNSPECIFIED" "RAPID"',
        ),
        ({"loggingConfig": {"enableComponents": ["ALL"]}}, "expected logging_config.0.enable_components to be one of"),
    ],
)
def test_cluster_inputs_that_cannot_be_are_refused(google: Google, inputs: Json, reason: str) -> None:
    _, failures = google.check(CLUSTER, {"location": LOCATION, **inputs})
    assert reason in " ".join(failures)


# -- names


def test_name_is_made_from_the_logical_one(google: Google) -> None:
    assert google.check(NETWORK, {}, "sandbox")[0]["name"] == "sandbox-1234567"


def test_made_name_is_kept(google: Google) -> None:
    inputs, _ = google.check(NETWORK, {}, olds={"name": "old-1", "__defaults": ["name"]})
    assert inputs["name"] == "old-1"


# -- changes


def test_machine_type_changes_in_place(google: Google) -> None:
    answer = google.difference(POOL, sandbox_pool("c", machineType="n2-a"), sandbox_pool("c", machineType="n2-b"))
    assert list(answer.detailedDiff) == ["nodeConfig.machineType"]
    assert list(answer.replaces) == []


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ({"spot": False}, {"spot": True}, "nodeConfig.spot"),
        ({}, {"bootDiskKmsKey": "k"}, "nodeConfig.bootDiskKmsKey"),
        ({"oauthScopes": ["a"]}, {"oauthScopes": ["b"]}, "nodeConfig.oauthScopes[0]"),
    ],
)
def test_pool_is_replaced(google: Google, before: Json, after: Json, path: str) -> None:
    answer = google.difference(POOL, sandbox_pool("c", **before), sandbox_pool("c", **after))
    assert list(answer.replaces) == [path]
    assert not answer.deleteBeforeReplace


def test_resource_with_a_name_of_ours_is_deleted_before_it_is_replaced(google: Google) -> None:
    named = {**sandbox_pool("c"), "name": "sandbox"}
    assert google.difference(POOL, named, {**named, "maxPodsPerNode": 32}).deleteBeforeReplace


# -- what the API refuses


def test_service_must_be_enabled_first(tmp_path: Path) -> None:
    fresh = Google(Cloud(tmp_path))
    with pytest.raises(Refused, match=r"compute.googleapis.com has not been used in project 123456789012 before"):
        fresh.create(NETWORK, {})
    fresh.create(SERVICE, {"service": "compute.googleapis.com"})
    fresh.create(NETWORK, {})


def test_key_must_be_granted_before_the_cluster(google: Google) -> None:
    wanted = {"location": LOCATION, "databaseEncryption": {"state": "ENCRYPTED", "keyName": "a-key"}}
    with pytest.raises(Refused, match=r"'cloudkms\.cryptoKeyVersions\.useToEncrypt' denied on resource 'a-key'"):
        google.create(CLUSTER, wanted)
    agent = f"serviceAccount:service-{PROJECT_NUMBER}@container-engine-robot.iam.gserviceaccount.com"
    role = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
    google.create(KEY_MEMBER, {"cryptoKeyId": "a-key", "role": role, "member": agent})
    google.create(CLUSTER, wanted)


@pytest.mark.parametrize("asked_for", [True, False])
def test_googles_own_account_comes_late_unless_it_is_asked_for(tmp_path: Path, asked_for: bool) -> None:
    fresh = Google(Cloud(tmp_path))
    fresh.create(SERVICE, {"service": "cloudkms.googleapis.com"})
    agent = f"serviceAccount:service-{PROJECT_NUMBER}@container-engine-robot.iam.gserviceaccount.com"
    grant = {"cryptoKeyId": "k", "role": "roles/cloudkms.cryptoKeyEncrypterDecrypter", "member": agent}
    fresh.create(SERVICE, {"service": "container.googleapis.com"}, "y")
    with pytest.raises(Refused, match=r"container-engine-robot\.iam\.gserviceaccount\.com does not exist"):
        fresh.create(KEY_MEMBER, grant)
    if asked_for:
        fresh.create(SERVICE_IDENTITY, {"service": "container.googleapis.com"})
    else:
        with fresh.cloud.change() as world:
            world.changes += LATE_CALLS
    fresh.create(KEY_MEMBER, grant)


def test_range_of_pods_must_be_in_the_subnetwork(google: Google) -> None:
    _, network = google.create(NETWORK, {})
    _, subnetwork = google.create(SUBNETWORK, {"network": network["selfLink"], "ipCidrRange": "10.0.0.0/20"})
    wanted = {
        "location": LOCATION,
        "subnetwork": subnetwork["selfLink"],
        "ipAllocationPolicy": {"clusterSecondaryRangeName": "pods"},
    }
    with pytest.raises(Refused, match='Pods secondary range "pods" not found in subnet'):
        google.create(CLUSTER, wanted)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"machineType": "n2d-standard4"}, 'Invalid machine type "n2d-standard4" in zone'),
        ({"machineType": "c4-standard-4"}, "pd-balanced disk type cannot be used by c4-standard-4 machine type"),
    ],
)
def test_machines_that_do_not_exist_are_refused(google: Google, cluster: str, config: Json, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        google.create(POOL, sandbox_pool(cluster, **config))


def test_two_clusters_do_not_share_a_range_of_services(google: Google) -> None:
    _, network = google.create(NETWORK, {})
    ranges = [{"rangeName": "services", "ipCidrRange": "10.1.0.0/20"}]
    inputs = {"network": network["selfLink"], "ipCidrRange": "10.0.0.0/20", "secondaryIpRanges": ranges}
    _, subnetwork = google.create(SUBNETWORK, inputs)
    policy = {"servicesSecondaryRangeName": "services"}
    wanted = {"location": LOCATION, "subnetwork": subnetwork["selfLink"], "ipAllocationPolicy": policy}
    google.create(CLUSTER, wanted)
    with pytest.raises(Refused, match='Services secondary range "services" is already used by cluster'):
        google.create(CLUSTER, {**wanted, "name": "another"})


def test_network_in_use_is_not_deleted(google: Google) -> None:
    identity, network = google.create(NETWORK, {})
    google.create(SUBNETWORK, {"network": network["selfLink"], "ipCidrRange": "10.0.0.0/20"})
    with pytest.raises(Refused, match="is already being used by"):
        google.delete(NETWORK, identity, network)


# -- what GKE adds, and what that means for the next preview

COMPARISONS = yaml.safe_load((Path(__file__).parent / "comparisons.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("before", "after", "changed"), COMPARISONS)
def test_inputs_are_compared_with_what_gke_answered(
    google: Google, before: Json, after: Json, changed: list[str]
) -> None:
    inputs = ({"location": LOCATION, **each} for each in (before, after))
    assert list(google.difference(CLUSTER, *inputs).detailedDiff) == changed


def test_change_that_the_program_ignores_is_none(google: Google) -> None:
    inputs = {"location": LOCATION, **COMPARISONS[0][0]}
    assert not google.difference(CLUSTER, inputs, inputs, "privateClusterConfig.enablePrivateEndpoint").detailedDiff


def test_refresh_takes_googles_word_for_what_the_program_gave_and_for_nothing_else() -> None:
    state = {"a": {"time": "00:00Z", "added": 1}, "b": [{"name": "theirs"}], "c": True}
    assert answers.read(
        {"a": {"time": "02:00+02:00"}, "b": [{"name": "ours"}], "gone": 1, "__defaults": []}, state
    ) == {
        "a": {"time": "00:00Z"},
        "b": [{"name": "theirs"}],
        "__defaults": [],
    }


@pytest.mark.parametrize("token", KINDS)
def test_fields_in_the_tables_are_those_of_the_sdk(token: str) -> None:
    def known(path: str) -> bool:
        inside: schema.Properties | None = schema.properties(token)
        for key in path.split("."):
            if inside is None or key not in inside:
                return False
            inside = inside[key]
        return True

    assert [path for path in KINDS[token].fields if path != "*" and not known(path)] == []


def test_sandbox_pool_gets_gkes_taint(google: Google, cluster: str) -> None:
    _, outputs = google.create(POOL, sandbox_pool(cluster))
    assert outputs["nodeConfig"]["effectiveTaints"] == [
        {"key": "sandbox.gke.io/runtime", "value": "gvisor", "effect": "NO_SCHEDULE"}
    ]
    assert "taints" not in outputs["nodeConfig"]


def test_gkes_own_taint_is_refused_from_others(google: Google, cluster: str) -> None:
    own = [{"key": "sandbox.gke.io/runtime", "value": "gvisor", "effect": "NO_SCHEDULE"}]
    with pytest.raises(Refused, match="is reserved for GKE Sandbox"):
        google.create(POOL, sandbox_pool(cluster, taints=own))


def test_preview_knows_neither_id_nor_endpoint(google: Google) -> None:
    dns = {"dnsEndpointConfig": {"allowExternalTraffic": True}}
    identity, outputs = google.create(CLUSTER, {"location": LOCATION, "controlPlaneEndpointsConfig": dns}, preview=True)
    assert identity == ""
    assert outputs["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"] == UNKNOWN
    assert google.cloud.read().resources == {}


def test_key_of_a_client_certificate_travels_as_a_secret(google: Google) -> None:
    wanted = {"masterAuth": {"clientCertificateConfig": {"issueClientCertificate": True}}}
    inputs, _ = google.check(CLUSTER, {"location": LOCATION, **wanted})
    request = provider_pb2.CreateRequest(urn=google.urn(CLUSTER, "x"), properties=encode(inputs))
    outputs, secrets = decode(google.plugin.Create(request, Context()).properties)
    assert outputs["masterAuth"]["clientKey"] == container.CLIENT_KEY
    assert secrets == {"masterAuth"}
