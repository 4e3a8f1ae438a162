"""The Pulumi program: settings, then the contract, then components, then exports.

The only module of ``infra`` with side effects at import. Clusters of other kinds plug in between contract
and environment: whatever they are, they end in a Kubernetes provider.
"""

import sys
from pathlib import Path

# Pulumi runs this file with "." (this folder) first on sys.path: `infra.settings` would not be found, and a
# module here could shadow one of the standard library. The package is importable without being installed.
_ROOT = Path(__file__).resolve().parents[1]
if sys.path[0] == ".":
    sys.path[:1] = [str(_ROOT), str(_ROOT / "runtime")]

import pulumi  # noqa: E402
import pulumi_kubernetes as kubernetes  # noqa: E402

from adk_gke_sandbox.errors import ConfigError  # noqa: E402
from infra.environment import SandboxEnvironment, SandboxEnvironmentArgs  # noqa: E402
from infra.settings import Settings  # noqa: E402


def main() -> None:
    """Register everything.

    Raises:
        pulumi.RunError: a setting cannot work; the engine prints the message without a traceback.
    """
    try:
        settings = Settings.from_config(pulumi.get_stack())
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from error
    contract = settings.contract()
    cluster = kubernetes.Provider(
        "cluster",
        kubeconfig=str(Path(settings.kubeconfig).expanduser()),
        context=settings.context,
        # Without it a changed kubeconfig replaces the provider, and with it every object.
        cluster_identifier=settings.context,
        # Without it a changed contract replaces the ConfigMap, and agents lose it meanwhile.
        enable_config_map_mutable=True,
    )
    environment = SandboxEnvironment(
        "sandbox",
        SandboxEnvironmentArgs(
            contract=contract, quota=settings.quota, pod_security_version=settings.pod_security_version
        ),
        pulumi.ResourceOptions(providers=[cluster]),
    )
    pulumi.export("sandbox", environment.contract)


main()
