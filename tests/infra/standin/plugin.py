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
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from standin import faults, local_cluster, schema
from standin.cloud import KUBECONFIG, PROJECT_NUMBER, Cloud, CloudError, Json, World
from standin.difference import difference
from standin.kinds import CLUSTER, POOL, Kind, short, visible
from standin.model import KINDS
from standin.wire import UNKNOWN, decode, encode
from standin.wire import secret as wire_secret

VERSION: Final = "10.2.0"

_POLL_SECONDS: Final = 1.0
_MESSAGE_BYTES: Final = 400 * 1024 * 1024


class StandIn(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine for one phase: a preview, an update, a destroy."""

    def __init__(self, cloud: Cloud, kubeconfig: Path | None) -> None:
        self.cloud = cloud
        self.kubeconfig = kubeconfig
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
            found = kind.check(inputs)
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
        for key, value in kind.defaults.items():
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
        kind = KINDS[_type(request.urn)]
        return difference(kind, decode(request.old_inputs)[0], decode(request.news)[0])

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _type(request.urn), _name(request.urn)
        kind = KINDS[token]
        inputs, secret = decode(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=encode(_previewed(kind, inputs), secret))
        identity = ""
        try:
            fault = faults.ordered(self.cloud, "create", token, name)
            faults.before(fault, "create", token, kind.permission, inputs)
            with self.cloud.change() as world:
                identity = _identity(kind, inputs)
                _admit(world, kind, identity, inputs)
                outputs = {**visible(inputs), **kind.outputs(world, inputs), **self._endpoint(token, inputs)}
                world.resources[identity] = {
                    "type": token,
                    "id": identity,
                    "name": name,
                    "inputs": inputs,
                    "outputs": outputs,
                }
            self.cloud.record("create", token, name, identity)
            faults.after(fault, inputs)
        except CloudError as error:
            _fail(context, str(error))
        except faults.HalfMade as error:
            _fail_half_made(context, identity, inputs, outputs, str(error))
        return provider_pb2.CreateResponse(id=identity, properties=encode(_marked(outputs), secret))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        secret = decode(request.properties)[1] | decode(request.inputs)[1]
        found = self.cloud.read().resources.get(request.id)
        if found is None:
            return provider_pb2.ReadResponse()
        inputs = {**decode(request.inputs)[0], **found["inputs"]}
        return provider_pb2.ReadResponse(
            id=request.id, properties=encode(_marked(found["outputs"]), secret), inputs=encode(inputs, secret)
        )

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _type(request.urn), _name(request.urn)
        kind = KINDS[token]
        news, secret = decode(request.news)
        olds, _ = decode(request.olds)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=encode(_marked({**olds, **visible(news)}), secret))
        try:
            fault = faults.ordered(self.cloud, "update", token, name)
            faults.before(fault, "update", token, kind.other("update"), news)
            with self.cloud.change() as world:
                if request.id not in world.resources:
                    raise CloudError(f"googleapi: Error 404: Not found: {request.id}., notFound")
                found = world.resources[request.id]
                old_keys = set(visible(found["inputs"])) - set(news)
                kept = {key: value for key, value in found["outputs"].items() if key not in old_keys}
                outputs = {**kept, **visible(news), **kind.outputs(world, news), **self._endpoint(token, news)}
                world.resources[request.id] = {**found, "inputs": news, "outputs": outputs}
            self.cloud.record("update", token, name, request.id)
        except CloudError as error:
            _fail(context, str(error))
        return provider_pb2.UpdateResponse(properties=encode(_marked(outputs), secret))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _type(request.urn), _name(request.urn)
        kind = KINDS[token]
        properties, _ = decode(request.properties)
        try:
            fault = faults.ordered(self.cloud, "delete", token, name)
            faults.before(fault, "delete", token, kind.other("delete"), properties)
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
            _fail(context, str(error))
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        arguments, _ = decode(request.args)
        project = arguments.get("projectId") or arguments.get("project") or self.config.get("project")
        answers: Mapping[str, Callable[[], Json]] = {
            "gcp:organizations/getProject:getProject": lambda: {
                "id": f"projects/{project}",
                "projectId": project,
                "number": PROJECT_NUMBER,
                "name": project,
            },
            "gcp:container/getCluster:getCluster": lambda: _looked_up(
                self.cloud.read(), {**arguments, "project": project}
            ),
        }
        answer = answers.get(request.tok)
        if answer is None:
            _fail(context, f"the stand-in does not know {request.tok}: add it to tests/infra/standin/plugin.py")
        try:
            return provider_pb2.InvokeResponse(**{"return": encode(answer())})
        except CloudError as error:
            _fail(context, str(error))

    def _endpoint(self, token: str, inputs: Json) -> Json:
        """Return where the cluster's API server is, in the form of GKE's DNS endpoint."""
        if token != CLUSTER or self.kubeconfig is None:
            return {}
        config = inputs.get("controlPlaneEndpointsConfig") or {}
        dns = {**(config.get("dnsEndpointConfig") or {}), "endpoint": local_cluster.endpoint(self.kubeconfig)}
        return {"controlPlaneEndpointsConfig": {**config, "dnsEndpointConfig": dns}}


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
        raise CloudError(f"googleapi: Error 404: Not found: {identity}., notFound")
    outputs = world.resources[identity]["outputs"]
    config = outputs["controlPlaneEndpointsConfig"]
    endpoints = {
        "dnsEndpointConfigs": [config["dnsEndpointConfig"]],
        "ipEndpointsConfigs": [config["ipEndpointsConfig"]],
    }
    return {**wanted, "id": identity, "controlPlaneEndpointsConfigs": [endpoints]}


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


def _fail(context: grpc.ServicerContext, message: str) -> NoReturn:
    # The form in which the bridge to Terraform's providers prints what they return.
    context.abort(grpc.StatusCode.UNKNOWN, f"1 error occurred:\n\t* {message}\n\n")
    raise AssertionError  # `abort` raises


def _fail_half_made(
    context: grpc.ServicerContext, identity: str, inputs: Json, outputs: Json, message: str
) -> NoReturn:
    """Answer that the creation failed and that the resource exists; the engine keeps it in its state."""
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=identity, properties=encode(_marked(outputs)), inputs=encode(inputs), reasons=[message]
        )
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, message)
    raise AssertionError  # `abort` raises


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
    stand_in = StandIn(Cloud.of_environment(), Path(kubeconfig) if kubeconfig else None)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()
