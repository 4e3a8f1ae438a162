"""What the toolchain consists of: pinned modules, packages, flags. Data only.

The pins are the go.mod and go.sum files in `toolchain/`; here is what each folder builds.
"""

from __future__ import annotations

from dataclasses import dataclass

KUBERNETES = "1.36.3"
GVISOR = "release-20260701"
CONTAINERD = "1.7.34"
PULUMI = "3.259.0"
PULUMI_KUBERNETES = "4.25.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One `go build`.

    Attributes:
        name: Name of the component.
        group: ``cluster`` or ``pulumi``.
        folder: Folder below `toolchain/` with its go.mod.
        packages: Binary -> Go package.
        version: Version of its binaries.
        seconds: How long it builds on two cores, with downloads.
        variables: Linker variables.
        tags: Build tags.
        embedded: Files of a module that are laid beside the source: name -> (module, path in it).
        scripts: Files of a module that are installed as they are: name -> (module, path in it).
    """

    name: str
    group: str
    folder: str
    packages: dict[str, str]
    version: str
    seconds: int
    variables: dict[str, str]
    tags: str = ""
    embedded: dict[str, tuple[str, str]] | None = None
    scripts: dict[str, tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Which versions of a binary that the user already has will do.

    Attributes:
        since: The first one, dotted, or a day for gVisor.
        before: The first one that will not do, likewise.
        beside: What must lie in the same folder.
    """

    since: str
    before: str
    beside: tuple[str, ...] = ()


ACCEPTED = {
    # One minor version: the components are configured by flags and files that belong to it.
    **dict.fromkeys(
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"),
        Accepted(since="1.36.0", before="1.37.0"),
    ),
    "etcd": Accepted(since="3.6.0", before="3.7.0"),
    # Our shim starts it by its command line, which lasts; far from the release tried here nobody knows.
    "runsc": Accepted(since="20260101", before="20280101"),
    # At least what the SDK in requirements/infra.txt is; its language host comes with it.
    "pulumi": Accepted(since=PULUMI, before="4.0.0", beside=("pulumi-language-python", "pulumi-language-python-exec")),
    "pulumi-resource-kubernetes": Accepted(since=PULUMI_KUBERNETES, before="5.0.0"),
}
"""Binary -> versions of it that are used in place of a build. Any other binary is built."""


def _kubernetes_variables() -> dict[str, str]:
    major, minor, _ = KUBERNETES.split(".")
    stamp = {
        "gitVersion": f"v{KUBERNETES}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{key}": value for package in packages for key, value in stamp.items()}


_PULUMI_VERSION = {"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": f"v{PULUMI}"}
_PROVIDER = "github.com/pulumi/pulumi-kubernetes/provider/v4"

COMPONENTS = (
    Component(
        name="kubernetes",
        group="cluster",
        folder="kubernetes",
        packages={
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
        },
        version=KUBERNETES,
        seconds=220,
        variables=_kubernetes_variables(),
        tags="selinux,notest,grpcnotrace",
    ),
    Component(
        name="etcd",
        group="cluster",
        folder="etcd",
        packages={"etcd": "go.etcd.io/etcd/server/v3"},
        version="3.6.14",
        seconds=30,
        variables={},
    ),
    Component(
        name="containerd",
        group="cluster",
        folder="containerd",
        packages={
            name: f"github.com/containerd/containerd/cmd/{name}"
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
        version=CONTAINERD,
        seconds=40,
        variables={"github.com/containerd/containerd/version.Version": CONTAINERD},
    ),
    Component(
        name="gvisor",
        group="cluster",
        folder="gvisor",
        packages={"runsc": "gvisor.dev/gvisor/runsc", "containerd-shim-runsc-v1": "./shim"},
        version=GVISOR,
        seconds=60,
        variables={"gvisor.dev/gvisor/runsc/version.version": GVISOR},
    ),
    Component(
        name="kube-router",
        group="cluster",
        folder="kube-router",
        packages={"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
        version="2.10.0",
        seconds=60,
        variables={},
    ),
    Component(
        name="pause",
        group="cluster",
        folder="pause",
        packages={"pause": "."},
        version="1",
        seconds=2,
        variables={},
    ),
    Component(
        name="pulumi",
        group="pulumi",
        folder="pulumi",
        packages={"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
        version=PULUMI,
        seconds=150,
        variables=_PULUMI_VERSION,
        scripts={
            "pulumi-language-python-exec": (
                "github.com/pulumi/pulumi/sdk/v3",
                "python/cmd/pulumi-language-python-exec",
            )
        },
    ),
    Component(
        name="pulumi-language-python",
        group="pulumi",
        folder="pulumi-language-python",
        packages={"pulumi-language-python": "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"},
        version=PULUMI,
        seconds=20,
        variables=_PULUMI_VERSION,
    ),
    Component(
        name="pulumi-resource-kubernetes",
        group="pulumi",
        folder="pulumi-resource-kubernetes",
        packages={"pulumi-resource-kubernetes": "."},
        version=PULUMI_KUBERNETES,
        seconds=300,
        variables={f"{_PROVIDER}/pkg/version.Version": PULUMI_KUBERNETES},
        embedded={
            "schema-embed.json": (_PROVIDER, "cmd/pulumi-resource-kubernetes/schema.json"),
            "terraform-mapping-embed.json": (_PROVIDER, "cmd/pulumi-resource-kubernetes/terraform-mapping.json"),
        },
    ),
)
