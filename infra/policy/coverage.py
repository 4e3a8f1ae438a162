"""What holds each recommendation of the CIS GKE Benchmark: the data, and the page in ``docs`` that is made of it.

    python -m infra.policy.coverage          # writes docs/cis.md

Recommendations are in words of our own; the benchmark itself is at https://www.cisecurity.org/benchmark/kubernetes.
Its sections 1 to 3 are about the control plane's and the nodes' own files, which GKE alone can change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.policy import exceptions
from infra.policy.rule import BENCHMARK, BENCHMARK_VERSION, Rule
from infra.policy.rules import RULES

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "cis.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One recommendation, and what holds it beside rules of the pack, which name it themselves.

    Attributes:
        title: What it asks for.
        admission: Admission rules of the sandbox namespace (``admission_rules``) that hold it.
        objects: Other objects and settings of the stack that hold it.
        note: What a reader must know, such as what is left to do by somebody else; a sentence.
        not_applicable: Why it does not apply; a sentence.
    """

    title: str
    admission: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    note: str = ""
    not_applicable: str = ""


RECOMMENDATIONS: Final[Mapping[str, Recommendation]] = {
    "4.1.1": Recommendation(
        title="cluster-admin only where it is needed",
        note="Who may administer the cluster is decided by IAM, outside of this stack.",
    ),
    "4.1.2": Recommendation(title="Little access to Secrets"),
    "4.1.3": Recommendation(title="No wildcards in roles"),
    "4.1.4": Recommendation(
        title="Default ServiceAccounts are not used",
        admission=("service-account",),
        objects=("ServiceAccount `default` of both namespaces, patched",),
    ),
    "4.1.5": Recommendation(
        title="ServiceAccount tokens only where needed",
        admission=("token",),
        objects=("ServiceAccount `sandbox-runner`",),
    ),
    "4.1.6": Recommendation(title="Nobody in group system:masters"),
    "4.1.7": Recommendation(title="Few may bind, impersonate or escalate"),
    "4.1.8": Recommendation(title="No bindings to system:anonymous"),
    "4.1.9": Recommendation(title="No bindings to system:unauthenticated"),
    "4.1.10": Recommendation(title="No bindings to system:authenticated"),
    "4.2.1": Recommendation(
        title="Pod Security Standards in every namespace",
        objects=("label `pod-security.kubernetes.io/enforce` of both namespaces",),
        note="Other namespaces of the cluster are their owners'.",
    ),
    "4.3.1": Recommendation(title="A network that knows NetworkPolicies"),
    "4.3.2": Recommendation(
        title="NetworkPolicies in every namespace", objects=("NetworkPolicy `deny-all` of both namespaces",)
    ),
    "4.4.1": Recommendation(title="Secrets as files, not as environment variables", admission=("env", "volumes")),
    "4.4.2": Recommendation(
        title="Secrets in a store outside the cluster",
        admission=("volumes",),
        objects=("ResourceQuota `sandbox`: no Secrets",),
    ),
    "4.5.1": Recommendation(
        title="Only images of known origin are admitted",
        admission=("image-digest", "image-registry"),
        note="For all namespaces: setting `binaryAuthorization`, off by default because its policy is the project's.",
    ),
    "4.6.1": Recommendation(title="Namespaces as boundaries", objects=("one namespace for agents, one for sandboxes",)),
    "4.6.2": Recommendation(title="seccomp profile RuntimeDefault", admission=("seccomp",)),
    "4.6.3": Recommendation(
        title="Security contexts for pods and containers",
        admission=("privilege-escalation", "non-root", "capabilities", "read-only-root", "proc-mount", "sysctls"),
    ),
    "4.6.4": Recommendation(title="Namespace default is not used"),
    "5.1.1": Recommendation(title="Images are scanned for vulnerabilities"),
    "5.1.2": Recommendation(title="Few people may reach the image registry"),
    "5.1.3": Recommendation(title="The cluster may only read images"),
    "5.1.4": Recommendation(title="Only trusted images", admission=("image-digest", "image-registry")),
    "5.2.1": Recommendation(title="Nodes do not use the default account of Compute Engine"),
    "5.2.2": Recommendation(title="Accounts of their own and Workload Identity for workloads"),
    "5.3.1": Recommendation(title="Kubernetes Secrets encrypted with keys in Cloud KMS"),
    "5.4.1": Recommendation(
        title="GKE metadata server", objects=("NetworkPolicy `deny-all` of the sandbox namespace",)
    ),
    "5.5.1": Recommendation(title="Container-Optimized OS"),
    "5.5.2": Recommendation(title="Nodes are repaired automatically"),
    "5.5.3": Recommendation(title="Nodes are upgraded automatically"),
    "5.5.4": Recommendation(title="Release channel"),
    "5.5.5": Recommendation(title="Shielded nodes"),
    "5.5.6": Recommendation(title="Integrity monitoring of shielded nodes"),
    "5.5.7": Recommendation(title="Secure Boot of shielded nodes"),
    "5.6.1": Recommendation(title="VPC flow logs and intranode visibility"),
    "5.6.2": Recommendation(title="VPC-native cluster"),
    "5.6.3": Recommendation(title="Networks authorized for the control plane"),
    "5.6.4": Recommendation(
        title="No public endpoint of the control plane",
        note="The DNS endpoint lets in whom IAM lets in; version 2.0.0 of the benchmark counts it as well.",
    ),
    "5.6.5": Recommendation(title="Private nodes"),
    "5.6.6": Recommendation(title="Firewall around nodes"),
    "5.6.7": Recommendation(title="Google-managed certificates"),
    "5.7.1": Recommendation(title="Cloud Logging and Cloud Monitoring"),
    "5.7.2": Recommendation(
        title="Linux audit logs of nodes",
        not_applicable="A sandbox's system calls end in gVisor's kernel, where the node's auditd does not see them. "
        "For the system pool, Google's DaemonSet for it is privileged and the platform team's to install.",
    ),
    "5.8.1": Recommendation(title="No authentication by client certificates"),
    "5.8.2": Recommendation(
        title="Google Groups for RBAC",
        note="Setting `rbacSecurityGroup`: who has no Google Workspace or Cloud Identity has no such group.",
    ),
    "5.8.3": Recommendation(title="No legacy authorization (ABAC)"),
    "5.9.1": Recommendation(
        title="Persistent disks encrypted with own keys",
        admission=("volumes",),
        objects=("ResourceQuota `sandbox`: no PersistentVolumeClaims",),
    ),
    "5.9.2": Recommendation(title="Boot disks encrypted with own keys"),
    "5.10.1": Recommendation(
        title="No Kubernetes web UI",
        not_applicable="GKE no longer has the add-on, and its API no field to switch it on.",
    ),
    "5.10.2": Recommendation(title="No alpha cluster"),
    "5.10.3": Recommendation(title="GKE Sandbox for untrusted workloads", admission=("runtime-class",)),
    "5.10.4": Recommendation(title="Security posture"),
}


def page() -> str:
    """Return the page of documentation."""
    return "\n".join([*_head(), "", *_recommendations(), "", *_rules(), "", *_exceptions(), "", *_publishing(), ""])


def _head() -> Iterator[str]:
    yield f"# {BENCHMARK} {BENCHMARK_VERSION}"
    yield ""
    yield "<!-- Made by `python -m infra.policy.coverage`; change infra/policy and run it again. -->"
    yield ""
    yield (
        "What holds each recommendation for what this repository creates. *Rule*: a rule of the policy pack refuses a "
        "program that breaks it, before anything is changed. *Admission*: the API server refuses a pod or Job of the "
        "sandbox namespace ([admission rules](admission.md)). *Object*: something that the stack makes. Sections 1 to "
        "3 of the benchmark are about files of the control plane and of nodes, and about the kubelet: GKE sets "
        "them up, and a program can change none of it but the kubelet's read-only port (rules `kubelet-port`, "
        "`kubelet-port-default`)."
    )
    yield ""
    yield "```"
    yield "pulumi preview --policy-pack infra/policy/pack.py"
    yield "```"
    yield ""
    yield (
        "The virtual environment must be first on `PATH` (`source .venv/bin/activate`). `pulumi up` takes the same "
        "option; what a preview cannot know yet is looked at during the update."
    )


def _recommendations() -> Iterator[str]:
    yield "## Recommendations"
    yield ""
    yield "| Id | Recommendation | Held by |"
    yield "|---|---|---|"
    for identity, recommendation in RECOMMENDATIONS.items():
        yield f"| {identity} | {recommendation.title} | {_held_by(identity, recommendation)} |"


def _held_by(identity: str, recommendation: Recommendation) -> str:
    if recommendation.not_applicable:
        return f"Not applicable. {recommendation.not_applicable}"
    named = [
        ("Rule", [f"`{rule.name}`" for rule in RULES.values() if identity in rule.cis]),
        ("Admission", [f"`{name}`" for name in recommendation.admission]),
        ("Object", recommendation.objects),
    ]
    parts = [f"{what}: {', '.join(names)}." for what, names in named if names]
    return " ".join([*parts, *filter(None, [recommendation.note])])


def _rules() -> Iterator[str]:
    yield "## Rules"
    yield ""
    yield "A violation stops `preview` and `up`, unless the rule is marked *advisory*."
    yield ""
    yield "| Rule | What must hold | Severity | CIS | What to do |"
    yield "|---|---|---|---|---|"
    for rule in RULES.values():
        yield (
            f"| [`{rule.name}`]({rule.url}) | {rule.title} | {_severity(rule)} | {', '.join(rule.cis) or '-'} "
            f"| {rule.remedy.replace('|', '/')} |"
        )


def _severity(rule: Rule) -> str:
    return f"{rule.severity.value}, advisory" if rule.advisory else rule.severity.value


def _exceptions() -> Iterator[str]:
    yield "## Exceptions"
    yield ""
    yield (
        f"`infra/policy/{exceptions.FILE.name}` lists which resource need not hold to which rule. "
        f"`{exceptions.VARIABLE}` names another file. Each entry has all of:"
    )
    yield ""
    yield "| Key | Meaning |"
    yield "|---|---|"
    yield "| `rule` | Name of the rule |"
    yield "| `stack` | Name of the stack |"
    yield f"| `resource` | Logical name of the resource; `{exceptions.WHOLE_STACK}` if none is blamed |"
    yield "| `reason` | Why |"
    yield f"| `expires` | The last day, `YYYY-MM-DD`, within {exceptions.LONGEST.days} days |"
    yield ""
    yield (
        "An entry without a reason or an end, past its end, or for a resource that is not there exempts nothing and is "
        "itself a violation, under the name `exceptions`. A rule that is made `advisory` or `disabled` with "
        "`--policy-pack-config` needs no entry: let CI run without that option."
    )


def _publishing() -> Iterator[str]:
    yield "## For every stack of an organization"
    yield ""
    yield (
        "With `--policy-pack` a branch brings its own rules. `pulumi policy publish` gives the pack to an organization "
        "of Pulumi Cloud, which then holds every stack of a policy group to it, whatever a branch says. It takes a "
        "folder with all that the pack imports. Nobody has published this one yet: a bucket has no policy groups."
    )
    yield ""
    yield "```bash"
    yield "mkdir -p build/policy/infra"
    yield "cp -r infra/policy infra/admission build/policy/infra/"
    yield "cp infra/address_ranges.py infra/configuration.py infra/gke_checks.py build/policy/infra/"
    yield "cp -r runtime/adk_gke_sandbox build/policy/"
    yield "cp infra/policy/PulumiPolicy.yaml infra/policy/__main__.py build/policy/"
    yield "cp requirements/infra.txt build/policy/requirements.txt"
    yield "echo .venv > build/policy/.gitignore   # or it is uploaded"
    yield "cd build/policy"
    yield "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    yield "pulumi policy publish my-organization"
    yield "```"
    yield ""
    yield (
        "`pulumi policy enable` takes it into a policy group. "
        f"Exceptions are then those of `infra/policy/{exceptions.FILE.name}` when it was published. "
        "[Policy packs](https://www.pulumi.com/docs/insights/policy/policy-packs/)."
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
