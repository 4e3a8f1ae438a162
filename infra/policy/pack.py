#!/usr/bin/env python3
"""The policy pack: hands the rules to Pulumi's engine.

    pulumi preview --policy-pack infra/policy/pack.py

An executable file, not a folder: for a folder the engine asks the language host, and not every one can run a pack
that is beside a program. It runs as a program of its own, started by the engine; nothing imports it but tests.
https://www.pulumi.com/docs/insights/policy/
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    # This folder comes first otherwise, and its modules would hide others of their names.
    sys.path[0] = str(_ROOT)

try:
    import pulumi_policy as policy
except ImportError:
    sys.exit(
        f"{sys.executable} has no pulumi_policy. Put the virtual environment of the program first on PATH "
        "(`source .venv/bin/activate`), or install requirements/infra.txt"
    )

from infra.policy import exceptions  # noqa: E402
from infra.policy.exceptions import Exemptions  # noqa: E402
from infra.policy.rule import (  # noqa: E402
    BENCHMARK,
    BENCHMARK_VERSION,
    Resource,
    ResourceRule,
    Rule,
    StackRule,
    violations,
)
from infra.policy.rules import RULES  # noqa: E402

NAME = "adk-gke-sandbox"
_POLL_SECONDS = 1.0


def policies(exempt: Exemptions) -> list[policy.Policy]:
    """Return all rules as Pulumi's engine takes them, and the one that holds exceptions to theirs."""
    asked: dict[str, Resource] = {}
    return [*(_policy(rule, exempt, asked) for rule in RULES.values()), _of_exceptions(exempt)]


def _policy(rule: Rule, exempt: Exemptions, asked: dict[str, Resource]) -> policy.Policy:
    known: dict[str, Any] = {
        "name": rule.name,
        "description": rule.description,
        "display_name": rule.title,
        "enforcement_level": policy.EnforcementLevel.ADVISORY if rule.advisory else policy.EnforcementLevel.MANDATORY,
        "severity": rule.severity,
        "framework": policy.PolicyComplianceFramework(
            name=BENCHMARK, version=BENCHMARK_VERSION, specification=", ".join(rule.cis)
        )
        if rule.cis
        else None,
        "tags": [f"cis-{identity}" for identity in rule.cis],
        "remediation_steps": f"{rule.remedy}.",
        "url": rule.url,
    }
    if isinstance(rule, ResourceRule):
        return policy.ResourceValidationPolicy(validate=_of_resource(rule, exempt, asked), **known)
    if isinstance(rule, StackRule):
        return policy.StackValidationPolicy(validate=_of_stack(rule, exempt, asked), **known)
    raise TypeError(f"{rule.name} is neither a rule of resources nor of stacks")


def _of_resource(rule: ResourceRule, exempt: Exemptions, asked: dict[str, Resource]) -> policy.ResourceValidation:
    def validate(args: policy.ResourceValidationArgs, report: policy.ReportViolation) -> None:
        resource = Resource(type=args.resource_type, name=args.name, urn=args.urn, inputs=args.props)
        asked[args.urn] = resource
        if not rule.concerns(resource) or exempt.covers(rule.name, resource.stack, resource):
            return
        for text in violations(rule, resource):
            report(text + exempt.lapsed(rule.name, resource.stack, resource), None)

    return validate


def _of_stack(rule: StackRule, exempt: Exemptions, asked: Mapping[str, Resource]) -> policy.StackValidation:
    def validate(args: policy.StackValidationArgs, report: policy.ReportViolation) -> None:
        # The engine shows what each resource has become; of an object in a cluster that is not there yet, a preview
        # knows nothing. What was asked for is known, and looked at.
        resources = [replace(asked.get(each.urn) or _resource(each), uses=_uses(each)) for each in args.resources]
        stack = resources[0].stack if resources else ""
        for finding in rule.survey(resources):
            if not exempt.covers(rule.name, stack, finding.resource):
                lapsed = exempt.lapsed(rule.name, stack, finding.resource)
                report(rule.text(finding.message) + lapsed, finding.resource.urn if finding.resource else None)

    return validate


def _of_exceptions(exempt: Exemptions) -> policy.Policy:
    def validate(args: policy.StackValidationArgs, report: policy.ReportViolation) -> None:
        resources = [_resource(each) for each in args.resources]
        for problem in exempt.problems:
            report(f"{problem}.", None)
        for finding in exempt.unused(resources[0].stack if resources else "", resources):
            report(f"{finding.message}.", None)

    return policy.StackValidationPolicy(
        name="exceptions",
        description="Every exception from a rule has a reason and an end",
        enforcement_level=policy.EnforcementLevel.MANDATORY,
        severity=policy.Severity.HIGH,
        remediation_steps="Repair the file of exceptions.",
        validate=validate,
    )


def _resource(found: policy.PolicyResource) -> Resource:
    return Resource(type=found.resource_type, name=found.name, urn=found.urn, inputs=found.props)


def _uses(found: policy.PolicyResource) -> dict[str, list[str]]:
    return {name: [source.urn for source in sources] for name, sources in found.property_dependencies.items()}


def _end_with(engine: int) -> None:
    """End this process when the engine that started it was killed; nobody else would."""
    while os.getppid() == engine:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # The engine waits for the port, which the SDK writes there and does not flush.
    sys.stdout = io.TextIOWrapper(open(1, "wb", buffering=0, closefd=False), write_through=True)  # noqa: SIM115
    path = Path(os.environ.get(exceptions.VARIABLE) or exceptions.FILE)
    policy.PolicyPack(
        name=NAME,
        policies=policies(exceptions.load(path, today=date.today(), rules=RULES)),
        description="GKE and Kubernetes settings that keep what models write apart from everything else",
        provider="gcp",
        tags=["cis", "gke"],
    )
