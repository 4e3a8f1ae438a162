"""Settings of a stack: read from Pulumi's configuration, checked, frozen.

Every value is checked before the first resource is registered; an error names the key, the value and the repair.
The settings themselves are in groups, each in a module of its own; here is what they mean together. Creates nothing
and never talks to a cluster or a cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Final, Literal, get_args

from adk_gke_sandbox.contract import Cluster, Contract
from adk_gke_sandbox.errors import ConfigError
from infra import gke_checks, image_names
from infra.configuration import choose, full_key, key, read, settings_of, shown
from infra.environment_settings import EnvironmentSettings, Quota
from infra.existing_settings import ExistingSettings
from infra.gke import quotas
from infra.gke_settings import STANDARD_ONLY, GkeSettings

__all__ = ["COMPONENT", "GROUPS", "ClusterMode", "Quota", "Settings"]

ClusterMode = Literal["standard", "autopilot", "existing"]

COMPONENT: Final = "sandbox"
"""Logical name of the program's components; names of resources begin with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a stack. A field ``some_name`` is the configuration key ``adk-gke-sandbox:someName``.

    Raises:
        ConfigError: a value that cannot work, or one that has no effect.
    """

    stack: str = field(metadata={"setting": False})
    """Name of the stack; not a configuration key."""
    cluster_mode: ClusterMode = "existing"
    """Whose cluster it is: `standard` and `autopilot` make one on GKE, `existing` uses one that is there.

    Of an existing cluster nothing is touched but two namespaces and the admission policies for one of them.
    """
    environment: EnvironmentSettings = field(metadata={"setting": False})
    """What is inside the cluster."""
    existing: ExistingSettings = field(default_factory=ExistingSettings, metadata={"setting": False})
    """Where an existing cluster is."""
    gke: GkeSettings | None = field(default=None, metadata={"setting": False})
    """The cluster that the stack makes; ``None`` where it makes none."""

    def __post_init__(self) -> None:
        choose("cluster_mode", self.cluster_mode, get_args(ClusterMode))
        if self.gke is None:
            if self.existing.named is None:
                self.existing.server()
            return
        self._refuse(self.existing, settings_of(ExistingSettings))
        if self.cluster_mode == "autopilot":
            self._refuse(self.gke, [entry for entry in settings_of(GkeSettings) if entry.name in STANDARD_ONLY])
        else:
            self._check_machines(self.gke)

    @classmethod
    def from_config(cls, stack: str) -> Settings:
        """Return the settings in Pulumi's configuration of the running program.

        Raises:
            ConfigError: an unknown key, a value of the wrong type, a value that cannot work.
        """
        own, environment, existing, gke = read(*GROUPS)
        mode = own.get("cluster_mode", "existing")
        choose("cluster_mode", mode, get_args(ClusterMode))
        if mode == "existing":
            _refuse_without_effect(mode, gke, settings_of(GkeSettings))
        return cls(
            stack=stack,
            cluster_mode=mode,
            environment=EnvironmentSettings(**environment),
            existing=ExistingSettings(**existing),
            # Without a project or a region the group's own checks say how to set them.
            gke=None if mode == "existing" else GkeSettings(**{"project": "", "region": "", **gke}),
        )

    @property
    def protect(self) -> bool:
        """Whether Pulumi refuses to delete anything of the stack."""
        return self.gke is not None and self.gke.deletion_protection

    def contract(self) -> Contract:
        """Return the contract: everything that is provisioned is derived from it.

        Of a cluster that the stack makes, and of one that is named only, the name and address are not known yet.
        """
        environment = self.environment
        return Contract(
            stack=self.stack,
            cluster=self._cluster(),
            namespace=environment.namespace,
            agents_namespace=environment.agents_namespace,
            node_selector=dict(environment.node_selector),
            image=self._image(),
            resources=environment.resources,
            ceilings=environment.ceilings,
            timeout_seconds=environment.timeout_seconds,
            schedule_timeout_seconds=environment.schedule_timeout_seconds,
            egress=environment.egress,
            secret_env=environment.secret_env,
        )

    def warnings(self) -> list[str]:
        """Return what works and is probably not meant."""
        if self.gke is None:
            return []
        found = []
        if self.gke.production and not self.gke.deletion_protection:
            found.append(
                f"{shown('deletion_protection', False)} in a production stack: `pulumi destroy` would delete the "
                "cluster and everything that runs in it. Set it to true again unless you are tearing the stack down"
            )
        if self.cluster_mode == "standard" and (quota := quotas.warning(self.gke)):
            found.append(quota)
        if not self.environment.way_out and not image_names.reachable_privately(image := self._image()):
            found.append(
                f"{full_key('image')} is in {image.partition('/')[0]}, which nodes without a way to the internet "
                "cannot reach. Push it to the stack's own repository (output `repository`) and name it there"
            )
        if self.environment.way_out and self.gke.subnetwork:
            asking = "egress" if self.environment.egress != "none" else "agents_egress"
            found.append(
                f"{full_key(asking)} takes a way to the internet, and the stack makes none for "
                f"{shown('subnetwork', self.gke.subnetwork)}. Have its owner see to Cloud NAT or another route"
            )
        admitted = tuple(f"{repository}/" for repository in self._repositories(self.gke))
        if self.gke.binary_authorization == "manage" and not self._image().startswith(admitted):
            found.append(
                f"{full_key('image')} is in no repository of the stack, and "
                f"{shown('binary_authorization', 'manage')} admits no other. "
                "Push it to the stack's own repository (output `repository`) and name it there"
            )
        return found

    def _repositories(self, gke: GkeSettings) -> tuple[str, str]:
        """Return the repositories of the stack: for images that are pushed, and for those that are pulled through."""
        own, mirror = (
            image_names.uri(gke.project, gke.region, each(COMPONENT, self.stack))
            for each in (image_names.own_id, image_names.mirror_id)
        )
        return gke.repository or own, mirror

    def _cluster(self) -> Cluster:
        if self.gke:
            return Cluster(project=self.gke.project, location=self.gke.region)
        if named := self.existing.named:
            return Cluster(project=named.project, location=named.location, name=named.name)
        return Cluster(context=self.existing.context, endpoint=self.existing.server())

    def _image(self) -> str:
        image = self.environment.image
        if self.gke is None:
            return image
        _, mirror = self._repositories(self.gke)
        return image_names.pulled_through(image, mirror)

    def _refuse(self, group: object, entries: Any) -> None:
        given = {entry.name: getattr(group, entry.name) for entry in entries}
        _refuse_without_effect(self.cluster_mode, given, entries)

    def _check_machines(self, gke: GkeSettings) -> None:
        environment = self.environment
        if not gke.subnetwork:
            gke.addresses.check_sizes()
        room = gke.sandbox_nodes_max * gke.sandbox_pods_per_node
        if environment.quota_pods > room:
            raise ConfigError(
                f"{shown('quota_pods', environment.quota_pods)} is more than the {room} pods that "
                f"{shown('sandbox_nodes_max', gke.sandbox_nodes_max)} nodes of "
                f"{shown('sandbox_pods_per_node', gke.sandbox_pods_per_node)} have room for",
                "Lower quotaPods or raise sandboxNodesMax",
            )
        if size := gke_checks.machine(gke.sandbox_machine_type):
            for name, most in (("cpu_ceiling", size[0]), ("mem_ceiling", size[1])):
                if environment.amount(name) > most:
                    raise ConfigError(
                        f"{full_key(name)}={getattr(environment, name)} is more than a whole "
                        f"{shown('sandbox_machine_type', gke.sandbox_machine_type)} has",
                        f"Lower {key(name)} or take a larger machine type",
                    )


GROUPS: Final = (Settings, EnvironmentSettings, ExistingSettings, GkeSettings)
"""The classes that settings are in; a docstring under each field says what it is for."""


def _refuse_without_effect(mode: str, given: Mapping[str, Any], entries: Any) -> None:
    """Refuse settings that the mode of the cluster does not look at, unless they say what they always say."""
    for entry in entries:
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        # Google's project and region are not only ours.
        if default is MISSING or given.get(entry.name, default) == default:
            continue
        raise ConfigError(
            f"{shown(entry.name, given[entry.name])} has no effect with {shown('cluster_mode', mode)}",
            f"Remove it with `pulumi config rm {key(entry.name)}`, or set another clusterMode",
        )
