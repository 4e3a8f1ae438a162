"""A platform team's own Pulumi program: its cluster is there already, and gets sandboxes for model-written Python.

What is the team's stays the team's: it brings the provider, the names and the settings. `SandboxEnvironment` adds
two namespaces, what belongs into them, and the admission policies for one of them.
"""

import sys
from pathlib import Path

# The checkout of adk-gke-sandbox; with a Git submodule of yours, Path(__file__).parent / "vendor" / "adk-gke-sandbox".
CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "runtime")]

import pulumi  # noqa: E402
import pulumi_kubernetes as kubernetes  # noqa: E402

from adk_gke_sandbox.contract import Ceilings, Cluster, Contract  # noqa: E402
from infra.environment import SandboxEnvironment, SandboxEnvironmentArgs  # noqa: E402
from infra.environment_settings import Quota  # noqa: E402

config = pulumi.Config()

# -- The team's own: the provider of its cluster. A program that also makes the cluster has it from there.
cluster = kubernetes.Provider(
    "team-cluster",
    kubeconfig=config.require("kubeconfig"),
    context=config.require("context"),
    cluster_identifier=config.require("context"),
    # Without it a changed contract replaces the ConfigMap, and agents are without it meanwhile.
    enable_config_map_mutable=True,
)

# -- The sandboxes.
contract = Contract(
    stack=pulumi.get_stack(),
    cluster=Cluster(context=config.require("context"), endpoint=config.require("endpoint")),
    namespace=config.get("sandboxes") or "team-sandboxes",
    agents_namespace=config.get("agents") or "team-agents",
    image=config.require("image"),
    ceilings=Ceilings(cpu="2", memory="4Gi", timeout_seconds=900),
)
sandbox = SandboxEnvironment(
    "sandbox",
    SandboxEnvironmentArgs(
        contract=contract,
        quota=Quota(pods=20, jobs=40, cpu="20", memory="20Gi"),
        pod_security_version="v1.34",
    ),
    pulumi.ResourceOptions(providers=[cluster]),
)

# `adk-gke-sandbox contract pull STACK --project .` reads this output; agents find the same in their mount.
pulumi.export("sandbox", sandbox.contract)
