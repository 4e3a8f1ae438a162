"""What a Job of the sandbox namespace may ask for beyond its pod: rules in CEL, from the contract. Pure.

A Job is one run of one program, on its own request and with an end.
"""

from __future__ import annotations

from typing import Any, Final

from adk_gke_sandbox.cluster.manifests import DEADLINE_MARGIN_SECONDS
from adk_gke_sandbox.contract import EXECUTION_LABEL, JOBS, Contract
from infra.admission_cel import Rule, literal, unset, untrue

TTL_SECONDS_MAX: Final = 300
"""The longest that a finished Job may stay; the quota counts it until then."""

_ON: Final = (JOBS,)


def job_rules(contract: Contract) -> tuple[Rule, ...]:
    """Return the rules that only Jobs are held to."""
    return (*_own_objects(), *_one_run(), *_an_end(contract))


def _job(**fields: Any) -> Rule:
    return Rule(on=_ON, **fields)


def _own_objects() -> tuple[Rule, ...]:
    # A regular expression of the Job's name would not do: a dot in it stands for any character.
    name = 's.?configMap.?name.orValue("")'
    own = (
        f'{name} == "" || ({name}.startsWith(object.metadata.name + "-") && '
        f'{name}.substring(object.metadata.name.size() + 1).matches("^[0-9]+$"))'
    )
    # A volume of a ConfigMap looks like a source of a projected one.
    volume = f"([dyn(v)] + v.?projected.?sources.orValue([])).all(s, {own})"
    return (
        _job(
            id="execution-label",
            refuses=f"the label {EXECUTION_LABEL} of the Job or its template is not the Job's name",
            fix="Set it to the name: the executor finds the pod by it",
            holds=f'variables.labels.all(l, l[?{literal(EXECUTION_LABEL)}].orValue("") == object.metadata.name)',
            found=f'variables.labels.map(l, l[?{literal(EXECUTION_LABEL)}].orValue("none")).join(", ")',
        ),
        _job(
            id="config-maps",
            refuses="a volume shows the ConfigMap of another execution, which holds somebody else's code and files",
            fix="Mount ConfigMaps named NAME-NUMBER, where NAME is the Job's name",
            holds=f"variables.spec.?volumes.orValue([]).all(v, {volume})",
            found=f'variables.spec.?volumes.orValue([]).filter(v, !({volume})).map(v, v.name).join(", ")',
        ),
        _job(
            id="job-controller",
            refuses="the Job is another controller's, or chooses its pods itself",
            fix="Remove managedBy and manualSelector",
            holds="!object.spec.?managedBy.hasValue() && !object.spec.?manualSelector.orValue(false)",
            found='object.spec.?managedBy.orValue("manualSelector")',
        ),
    )


def _one_run() -> tuple[Rule, ...]:
    return (
        _job(
            id="one-pod",
            refuses="the Job is not for one pod",
            fix="Set parallelism and completions to 1, and leave completionMode NonIndexed",
            holds="object.spec.?parallelism.orValue(1) == 1 && object.spec.?completions.orValue(0) == 1 && "
            'object.spec.?completionMode.orValue("NonIndexed") == "NonIndexed"',
            found='string(object.spec.?parallelism.orValue(1)) + " at once, " + '
            'string(object.spec.?completions.orValue(0)) + " in all, " + '
            'object.spec.?completionMode.orValue("NonIndexed")',
        ),
        _job(
            id="backoff-limit",
            refuses="the Job would run a program again after a failure",
            fix="Set backoffLimit to 0",
            holds="object.spec.?backoffLimit.orValue(6) == 0",
            found="string(object.spec.?backoffLimit.orValue(6))",
        ),
        unset(
            "podFailurePolicy",
            id="pod-failure-policy",
            refuses="the Job would not count some failures, and run a program again",
            of="object.spec",
            on=_ON,
        ),
        _job(
            id="restart-policy",
            refuses="the kubelet would run a program again after a failure",
            fix="Set restartPolicy to Never, and none for the container",
            holds='variables.spec.?restartPolicy.orValue("Always") == "Never" && '
            "variables.containers.all(c, !c.?restartPolicy.hasValue())",
            found='([variables.spec.?restartPolicy.orValue("Always")] + '
            'variables.containers.map(c, c.?restartPolicy.orValue("none"))).join(", container ")',
        ),
    )


def _an_end(contract: Contract) -> tuple[Rule, ...]:
    most = contract.schedule_timeout_seconds + contract.ceilings.timeout_seconds + DEADLINE_MARGIN_SECONDS
    return (
        _job(
            id="deadline",
            refuses=f"activeDeadlineSeconds of the Job is above {most}, or not set",
            fix="Lower timeout_seconds or schedule_timeout_seconds, or have the platform team raise them in the "
            "stack's settings",
            holds=f"object.spec.?activeDeadlineSeconds.orValue({most + 1}) <= {most}",
            found='object.spec.?activeDeadlineSeconds.hasValue() ? string(object.spec.activeDeadlineSeconds) : "none"',
        ),
        _job(
            id="ttl",
            refuses=f"ttlSecondsAfterFinished is above {TTL_SECONDS_MAX}, or not set: a finished Job uses up quota",
            fix=f"Set it to {TTL_SECONDS_MAX} or less",
            holds=f"object.spec.?ttlSecondsAfterFinished.orValue({TTL_SECONDS_MAX + 1}) <= {TTL_SECONDS_MAX}",
            found="object.spec.?ttlSecondsAfterFinished.hasValue() ? "
            'string(object.spec.ttlSecondsAfterFinished) : "none"',
        ),
        untrue(
            "suspend",
            id="suspend",
            refuses="the Job is suspended, so its deadline does not run",
            of="object.spec",
            on=_ON,
        ),
    )
