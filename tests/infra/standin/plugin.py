# ruff: noqa: N802 - the methods of the protocol have its names
"""The plugin itself: Pulumi's provider protocol over gRPC.

Written against the protocol and not `pulumi.provider.experimental`: that server hands on neither old inputs
nor a half-made resource, and wraps errors in text of its own.
https://pulumi-developer-docs.readthedocs.io/latest/docs/architecture/providers/implementers-guide.html
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from standin import answers, compute, faults, local_cluster, schema
from standin.cloud import KUBECONFIG, PROJECT_NUMBER, Cloud, CloudError, Json, World
from standin.difference import difference
from standin.identity import LOGS_ACCOUNT
from standin.kinds import CLUSTER, FORWARDING_RULE, POOL, Kind, short, visible
from standin.model import KINDS
from standin.wire import UNKNOWN, decode, encode
from standin.wire import secret as wire_secret

VERSION: Final = "10.2.0"

_POLL_SECONDS: Final = 1.0
_MESSAGE_BYTES: Final = 400 * 1024 * 1024


class StandIn(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine for one phase: a preview, an update, a destroy."""

    def __init__(self, cloud: Cloud, kubeconfig: Path | None, engine: str | None = None) -> None:
        """Answer for a cloud.

        Args:
            cloud: The cloud.
            kubeconfig: The cluster that plays the GKE cluster.
            engine: Address of the engine's log.
        """
        self.cloud = cloud
        self.kubeconfig = kubeconfig
        self.log = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine)) if engine else None  # type: ignore[no-untyped-call]
        self.config: Json = {}

    # -- the provider itself

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        known = schema.provider_keys()
        failures = [
            provider_pb2.CheckFailure(property=key, reason=f"Invalid or unknown key. Examine values at '{key}'.")
            for key in decode(request.news)[0]
            if key not in known
        ]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        olds, news = decode(request.old_inputs)[0], decode(request.news)[0]
        # Another project means other resources; everything else about a provider may change.
        moved = [key for key in ("project",) if olds.get(key) != news.get(key)]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if olds != news else provider_pb2.DiffResponse.DIFF_NONE,
            replaces=moved,
        )

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.config = {
            **{name.rsplit(":", 1)[1]: value for name, value in request.variables.items()},
            **decode(request.args)[0],
        }
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    # -- resources

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _type(request.urn), _name(request.urn)
        news, secret = decode(request.news)
        olds, _ = decode(request.olds)
        kind = KINDS.get(token)
        if kind is None:
            reason = f"the stand-in does not know {token}: add it to tests/infra/standin/model.py"
            return provider_pb2.CheckResponse(failures=[provider_pb2.CheckFailure(reason=reason)])
        inputs = self._completed(kind, token, name, olds, news, request.randomSeed)
        found = schema.problems(token, inputs)
        if not found:
            found = [*schema.not_allowed(kind, inputs), *kind.check(inputs)]
        if not inputs.get("project") and "project" in schema.keys(token):
            found.append(("project", "Failed to retrieve project, project: required field is not set"))
        failures = [
            provider_pb2.CheckFailure(property="", reason=f"{reason}. Examine values at '{name}.{path}'.")
            for path, reason in found
        ]
        return provider_pb2.CheckResponse(inputs=encode(inputs, secret), failures=failures)

    def _completed(self, kind: Kind, token: str, name: str, olds: Json, news: Json, seed: bytes) -> Json:
        """Return the inputs with what the provider adds: names, and the project and place of its configuration."""
        inputs = {key: value for key, value in news.items() if value is not None and key != "__defaults"}
        added = []
        keys = schema.keys(token)
        for key in ("project", "region"):
            if key in keys and key not in inputs and self.config.get(key):
                inputs[key] = self.config[key]
                added.append(key)
        if "location" in keys and "location" not in inputs and self.config.get("region"):
            inputs["location"] = self.config["region"]
            added.append("location")
        for key, value in kind.adds.items():
            if key not in inputs:
                inputs[key] = value
                added.append(key)
        if kind.naming and kind.naming not in inputs and "namePrefix" not in inputs:
            # As the real provider does it: an old name of its own making is kept, a new resource gets a new one.
            kept = olds.get(kind.naming) if kind.naming in (olds.get("__defaults") or []) else None
            inputs[kind.naming] = kept or f"{name}-{seed.hex()[:7]}"
            added.append(kind.naming)
        inputs["__defaults"] = sorted(added)
        return inputs

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        state, before, after = (decode(each)[0] for each in (request.olds, request.old_inputs, request.news))
        return difference(KINDS[_type(request.urn)], state, before, after, list(request.ignoreChanges))

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _type(request.urn), _name(request.urn)
        kind = KINDS[token]
        inputs, secret = decode(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=encode(_previewed(kind, inputs), secret))
        identity = ""
        try:
            fault = faults.ordered(self.cloud, "create", token, name)
            with self.cloud.change() as world:
                faults.before(fault, "create", kind, inputs)
                identity = _identity(kind, inputs)
                _admit(world, kind, identity, inputs)
                outputs = self._state(world, kind, inputs)
                record = {"type": token, "id": identity, "name": name, "inputs": inputs, "outputs": outputs}
                world.resources[identity] = {**record, "at": world.changes}
                faults.half_made(fault, world, identity)
            self.cloud.record("create", token, name, identity)
            faults.after(fault, inputs)
        except CloudError as error:
            self._fail(context, str(error), request.urn)
        except faults.HalfMade as error:
            outputs = self.cloud.read().resources[identity]["outputs"]
            self._fail(context, str(error), request.urn, _half_made(identity, inputs, outputs, str(error)))
        return provider_pb2.CreateResponse(id=identity, properties=encode(_marked(outputs), secret))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        secret = decode(request.properties)[1] | decode(request.inputs)[1]
        world = self.cloud.read()
        found = world.resources.get(request.id)
        if found is None:
            return provider_pb2.ReadResponse()
        state = {**found["outputs"], **KINDS[found["type"]].outputs(world, found["outputs"])}
        inputs = answers.read(decode(request.inputs)[0] or found["inputs"], state)
        return provider_pb2.ReadResponse(
            id=request.id, properties=encode(_marked(state), secret), inputs=encode(inputs, secret)
        )

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _type(request.urn), _name(request.urn)
        kind = KINDS[token]
        news, secret = decode(request.news)
        olds, _ = decode(request.olds)
        if request.preview:
            return provider_pb2.UpdateResponse(
                properties=encode(_marked({**olds, **answers.settled(kind, news, olds)}), secret)
            )
        try:
            fault = faults.ordered(self.cloud, "update", token, name)
            faults.before(fault, "update", kind, news)
            with self.cloud.change() as world:
                if request.id not in world.resources:
                    raise CloudError(f"googleapi: Error 404: Not found: {request.id}., notFound")
                found = world.resources[request.id]
                outputs = self._state(world, kind, news, found["outputs"])
                world.resources[request.id] = {**found, "inputs": news, "outputs": outputs}
            self.cloud.record("update", token, name, request.id)
        except CloudError as error:
            self._fail(context, str(error), request.urn)
        return provider_pb2.UpdateResponse(properties=encode(_marked(outputs), secret))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _type(request.urn), _name(request.urn)
        kind = KINDS[token]
        properties, _ = decode(request.properties)
        try:
            fault = faults.ordered(self.cloud, "delete", token, name)
            faults.before(fault, "delete", kind, properties)
            if properties.get("deletionPolicy") == "PREVENT":
                raise CloudError(f'cannot destroy {request.id} because deletion_policy is set to "PREVENT"')
            kind.release(self.cloud.read(), properties)
            if token == CLUSTER and self.kubeconfig is not None:
                # Before the record goes: a plugin that is killed meanwhile must be able to do it again.
                local_cluster.wipe(self.kubeconfig, _stack(request.urn))
            with self.cloud.change() as world:
                world.resources.pop(request.id, None)
                if token == CLUSTER:
                    for pool in world.of(POOL):
                        if short(pool["inputs"]["cluster"]) == properties["name"]:
                            del world.resources[pool["id"]]
            self.cloud.record("delete", token, name, request.id)
        except (CloudError, TimeoutError) as error:
            self._fail(context, str(error), request.urn)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.tok not in LOOKUPS:
            self._fail(context, f"the stand-in does not know {request.tok}: add it to tests/infra/standin/plugin.py")
        permission, answer = LOOKUPS[request.tok]
        arguments, _ = decode(request.args)
        project = arguments.get("projectId") or arguments.get("project") or self.config.get("project")
        world = self.cloud.read()
        try:
            if world.allowed is not None and permission not in world.allowed.get(project, ()):
                raise CloudError(
                    f"googleapi: Error 403: Required '{permission}' permission for 'projects/{project}', forbidden"
                )
            return provider_pb2.InvokeResponse(**{"return": encode(answer(world, {**arguments, "project": project}))})
        except CloudError as error:
            self._fail(context, str(error))

    def _state(self, world: World, kind: Kind, inputs: Json, before: Json | None = None) -> Json:
        """Return what Google has after a create or an update."""
        state = answers.settled(kind, inputs, before)
        state |= kind.outputs(world, state)
        if kind.token == CLUSTER and self.kubeconfig is not None:
            # Where the cluster's API server is, in the form of GKE's DNS endpoint.
            found = (before or {}).get("controlPlaneEndpointsConfig", {}).get("dnsEndpointConfig", {}).get("endpoint")
            config = state["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]
            config["endpoint"] = local_cluster.endpoint(self.kubeconfig) if found is None else found
        return state

    def _fail(self, context: grpc.ServicerContext, message: str, urn: str = "", detail: Any = None) -> NoReturn:
        """Answer with an error, in the form of the bridge to Terraform's providers.

        The bridge prints it, too, as a line of its own.
        """
        if self.log and urn:
            line = f"  sdk-v2/provider2.go:572: sdk.helper_schema: {message}: provider=google-beta@{VERSION}"
            self.log.Log(engine_pb2.LogRequest(severity=engine_pb2.ERROR, message=line, urn=urn))
        text = f"1 error occurred:\n\t* {message}\n\n"
        if detail:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=text, details=[packed])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNKNOWN, text)
        raise AssertionError  # `abort` raises


def _type(urn: str) -> str:
    # A child's type is written `PARENT$CHILD`.
    return urn.split("::")[2].rsplit("$", 1)[-1]


def _name(urn: str) -> str:
    return urn.split("::")[3]


def _stack(urn: str) -> str:
    return urn.split("::")[0].rsplit(":", 1)[-1]


def _looked_up(world: World, wanted: Json) -> Json:
    """Return a cluster as the data source has it: every block in a list of its own.

    Raises:
        CloudError: there is none of that name.
    """
    identity = _identity(KINDS[CLUSTER], wanted)
    if identity not in world.resources:
        # Not the API's words: the provider's own (`data_source_google_container_cluster.go`).
        raise CloudError(f"{identity} not found")
    outputs = world.resources[identity]["outputs"]
    config = outputs["controlPlaneEndpointsConfig"]
    endpoints = {
        "dnsEndpointConfigs": [config["dnsEndpointConfig"]],
        "ipEndpointsConfigs": [config["ipEndpointsConfig"]],
    }
    ranges = {key: outputs[key] for key in ("clusterIpv4Cidr", "servicesIpv4Cidr")}
    return {**wanted, "id": identity, "controlPlaneEndpointsConfigs": [endpoints], **ranges}


LOOKUPS: Final[Mapping[str, tuple[str, Callable[[World, Json], Json]]]] = MappingProxyType(
    {
        # Reads the billing account, too, which takes the same
        # (https://cloud.google.com/billing/docs/reference/rest/v1/projects/getBillingInfo).
        "gcp:organizations/getProject:getProject": (
            "resourcemanager.projects.get",
            lambda _, wanted: {
                "id": f"projects/{wanted['project']}",
                "projectId": wanted["project"],
                "number": PROJECT_NUMBER,
                "name": wanted["project"],
            },
        ),
        # https://cloud.google.com/logging/docs/reference/v2/rest/v2/projects/getCmekSettings
        "gcp:logging/getProjectCmekSettings:getProjectCmekSettings": (
            "logging.cmekSettings.get",
            lambda _, wanted: {
                "id": f"projects/{wanted['project']}/cmekSettings",
                "project": wanted["project"],
                "serviceAccountId": LOGS_ACCOUNT,
            },
        ),
        # https://cloud.google.com/compute/docs/reference/rest/v1/forwardingRules/list
        "gcp:compute/getForwardingRules:getForwardingRules": (
            "compute.forwardingRules.list",
            lambda world, wanted: {
                "id": f"projects/{wanted['project']}/regions/{wanted['region']}/forwardingRules",
                "rules": world.outputs(FORWARDING_RULE),
            },
        ),
        # https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/projects.locations.clusters/get
        "gcp:container/getCluster:getCluster": ("container.clusters.get", _looked_up),
        # https://cloud.google.com/compute/docs/reference/rest/v1/subnetworks/get
        "gcp:compute/getSubnetwork:getSubnetwork": ("compute.subnetworks.get", compute.looked_up),
    }
)
"""What a program may ask for: the permission that it takes in the project that is asked for, and the answer."""


def _marked(outputs: Json) -> Json:
    """Return outputs with what the real provider knows to be a secret marked as one."""
    credentials = outputs.get("masterAuth")
    if not isinstance(credentials, dict) or "clientKey" not in credentials:
        return outputs
    return {**outputs, "masterAuth": {**credentials, "clientKey": wire_secret(credentials["clientKey"])}}


def _identity(kind: Kind, inputs: Json) -> str:
    return kind.identity.format(**{**inputs, "cluster_name": short(inputs.get("cluster", ""))})


def _admit(world: World, kind: Kind, identity: str, inputs: Json) -> None:
    """Raise what the API answers to a create that cannot work."""
    if not world.enabled(kind.service):
        raise CloudError(
            f"googleapi: Error 403: {kind.service} has not been used in project {PROJECT_NUMBER} before or it is "
            f"disabled. Enable it by visiting https://console.developers.google.com/apis/api/{kind.service}/overview"
            f"?project={PROJECT_NUMBER} then retry. If you enabled this API recently, wait a few minutes for the "
            "action to propagate to our systems and retry., accessNotConfigured"
        )
    kind.admit(world, inputs)
    if (
        identity in world.resources
        and "/setIamPolicy" not in kind.permission
        and not kind.permission.endswith(("setIamPolicy", "services.enable", "policy.update"))
    ):
        raise CloudError(f"googleapi: Error 409: Already exists: {identity}., alreadyExists")


def _previewed(kind: Kind, inputs: Json) -> Json:
    """Return the outputs of a create that did not happen: what is left out is unknown to the engine."""
    outputs = json.loads(json.dumps(visible(inputs)))
    for path in kind.unknown:
        *parents, last = path.split(".")
        inner = outputs
        for key in parents:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[last] = UNKNOWN
    return dict(outputs)


def _half_made(identity: str, inputs: Json, outputs: Json, message: str) -> Any:
    """Return what tells the engine that the creation failed and that the resource exists all the same."""
    return provider_pb2.ErrorResourceInitFailed(
        id=identity, properties=encode(_marked(outputs)), inputs=encode(inputs), reasons=[message]
    )


def _end_with(engine: int) -> None:
    """End this process when the engine that started it was killed; nobody else would."""
    while os.getppid() == engine:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def main() -> None:
    """Serve until the engine ends this process; the port is the first line of standard output."""
    kubeconfig = os.environ.get(KUBECONFIG)
    limits = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=limits)
    engine = next((each for each in sys.argv[1:] if not each.startswith("-")), None)
    stand_in = StandIn(Cloud.of_environment(), Path(kubeconfig) if kubeconfig else None, engine)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()
