"""The Pulumi program: settings, then the contract, then components, then exports.

The only module of ``infra`` with side effects at import. Clusters of other kinds plug in between contract
and environment: whatever they are, they end in a Kubernetes provider.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

# Pulumi runs this file with "." (this folder) first on sys.path: `infra.settings` would not be found, and a
# module here could shadow one of the standard library. The package is importable without being installed.
_ROOT = Path(__file__).resolve().parents[1]
if sys.path[0] == ".":
    sys.path[:1] = [str(_ROOT), str(_ROOT / "runtime")]

import pulumi  # noqa: E402
import pulumi_kubernetes as kubernetes  # noqa: E402

from adk_gke_sandbox.errors import ConfigError  # noqa: E402
from infra.address_ranges import NO_ADDRESSES, Addresses  # noqa: E402
from infra.cluster import SandboxCluster, SandboxClusterArgs  # noqa: E402
from infra.environment import SandboxEnvironment, SandboxEnvironmentArgs  # noqa: E402
from infra.existing_cluster import existing_gke  # noqa: E402
from infra.gke_settings import GkeSettings  # noqa: E402
from infra.links import console_links  # noqa: E402
from infra.settings import COMPONENT, Settings  # noqa: E402


def main() -> None:
    """Register everything.

    Raises:
        pulumi.RunError: a setting cannot work; the engine prints the message without a traceback.
    """
    try:
        settings = Settings.from_config(pulumi.get_stack())
        if not pulumi.runtime.is_dry_run():
            # A preview of the committed stack files must work for everybody.
            settings.environment.require_image()
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from error
    for warning in settings.warnings():
        pulumi.log.warn(warning)
    if settings.gke:
        _on_gke(settings, settings.gke)
    else:
        _on_existing(settings)


def _on_gke(settings: Settings, gke: GkeSettings) -> None:
    """Make a cluster, and the environment in it."""
    contract = settings.contract()
    opts = pulumi.ResourceOptions(protect=settings.protect)
    made = SandboxCluster(
        COMPONENT,
        SandboxClusterArgs(
            stack=settings.stack,
            mode="autopilot" if settings.cluster_mode == "autopilot" else "standard",
            gke=gke,
            way_out=settings.environment.way_out,
            fqdn_policies=settings.environment.names_hosts,
            sandbox_namespace=contract.namespace,
            agents_namespace=contract.agents_namespace,
            agent_service_account=contract.agent_service_account,
        ),
        opts,
    )
    provider = _provider(opts, kubeconfig=made.kubeconfig, cluster_identifier=made.cluster.id)
    environment = SandboxEnvironment(
        COMPONENT,
        _arguments(
            settings,
            cluster=pulumi.Output.all(name=made.cluster.name, endpoint=made.endpoint, context=made.context),
            addresses=made.addresses,
            deleted_with=made.cluster,
        ),
        pulumi.ResourceOptions(providers=[provider], depends_on=made.ready, protect=settings.protect),
    )
    pulumi.export("sandbox", environment.contract)
    pulumi.export("kubeconfig", made.kubeconfig)
    pulumi.export("repository", made.repository)
    pulumi.export(
        "links",
        made.cluster.name.apply(
            lambda name: console_links(
                project=gke.project, location=gke.region, name=name, namespace=contract.namespace
            )
        ),
    )


def _on_existing(settings: Settings) -> None:
    """Make the environment in a cluster that is there already."""
    opts = pulumi.ResourceOptions(protect=settings.protect)
    if named := settings.existing.named:
        found = existing_gke(named)
        provider = _provider(opts, kubeconfig=found.kubeconfig, cluster_identifier=settings.existing.gke_cluster)
        environment = SandboxEnvironment(
            COMPONENT,
            _arguments(
                settings,
                cluster=pulumi.Output.all(endpoint=found.endpoint, context=found.context),
                addresses=found.addresses,
            ),
            pulumi.ResourceOptions(providers=[provider]),
        )
        pulumi.export("kubeconfig", found.kubeconfig)
        pulumi.export(
            "links",
            console_links(
                project=named.project,
                location=named.location,
                name=named.name,
                namespace=settings.environment.namespace,
            ),
        )
    else:
        existing = settings.existing
        provider = _provider(
            opts,
            kubeconfig=str(existing.kubeconfig_path),
            cluster_identifier=existing.context,
            context=existing.context,
        )
        environment = SandboxEnvironment(COMPONENT, _arguments(settings), pulumi.ResourceOptions(providers=[provider]))
    pulumi.export("sandbox", environment.contract)


def _provider(
    opts: pulumi.ResourceOptions,
    *,
    kubeconfig: pulumi.Input[str],
    cluster_identifier: pulumi.Input[str],
    context: str | None = None,
) -> kubernetes.Provider:
    return kubernetes.Provider(
        "cluster",
        kubeconfig=kubeconfig,
        context=context,
        # Without it a changed kubeconfig replaces the provider, and with it every object.
        cluster_identifier=cluster_identifier,
        # Without it a changed contract replaces the ConfigMap, and agents lose it meanwhile.
        enable_config_map_mutable=True,
        opts=opts,
    )


def _arguments(
    settings: Settings,
    *,
    cluster: pulumi.Input[Mapping[str, str]] | None = None,
    addresses: Addresses = NO_ADDRESSES,
    deleted_with: pulumi.Resource | None = None,
) -> SandboxEnvironmentArgs:
    return SandboxEnvironmentArgs(
        contract=settings.contract(),
        quota=settings.environment.quota,
        pod_security_version=settings.environment.pod_security_version,
        egress_hosts=settings.environment.egress_hosts,
        agents_egress=settings.environment.destinations,
        addresses=addresses,
        cluster=cluster,
        deleted_with=deleted_with,
    )


main()
