"""What a preview says after an update, for all settings: inputs of the program against what Google answers to them.

Without an engine: the stand-in's tables alone. `test_gke_engine.py` does the same with the engine.
"""

from __future__ import annotations

from typing import Any

import pytest
from standin.answers import settled
from standin.cloud import World
from standin.difference import difference
from standin.kinds import CLUSTER, at
from standin.model import KINDS

from tests.infra.conftest import IMAGE, REPOSITORY, Program, Registered, committed, run_program
from tests.infra.gke_variants import AUTOPILOT, VARIANTS

GROUP = "gke-security-groups@example.com"
ADD_ONS = {"agentSandboxAddon": True, "podSnapshots": True}
FLOOR = {"minVersion": "1.36.3-gke.1767000"}


def program(stack: str, settings: dict[str, Any]) -> Program:
    config = {**committed(stack), "image": IMAGE, **settings}
    return run_program({key: value for key, value in config.items() if value is not None}, stack)


def changes(before: Registered, after: Registered) -> dict[str, bool]:
    """Return what an update would change in Google Cloud, and whether that means a new resource."""
    kind = KINDS[before.type]
    named = {"name": "a-name"} if kind.naming else {}
    old, new = ({**named, **each.inputs} for each in (before, after))
    state = settled(kind, old)
    state |= kind.outputs(World(), state)
    answer = difference(kind, state, old, new, list(after.request.ignoreChanges))
    return {path: path in answer.replaces for path in answer.detailedDiff}


def of_google(found: Program) -> dict[tuple[str, str], Registered]:
    return {(each.type, each.name): each for each in found.resources if each.type in KINDS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_second_preview_has_no_changes(variant: str) -> None:
    for key, resource in of_google(program(*VARIANTS[variant])).items():
        assert changes(resource, resource) == {}, key


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            {**ADD_ONS, **FLOOR},
            FLOOR,
            {"addonsConfig.agentSandboxConfig.enabled": False, "addonsConfig.podSnapshotConfig.enabled": False},
        ),
        (
            {**AUTOPILOT, **ADD_ONS, **FLOOR},
            {**AUTOPILOT, **FLOOR},
            {"addonsConfig.agentSandboxConfig.enabled": False, "addonsConfig.podSnapshotConfig.enabled": False},
        ),
        (
            {"rbacSecurityGroup": GROUP},
            {"rbacSecurityGroup": "off"},
            {"authenticatorGroupsConfig.securityGroup": False},
        ),
        (
            {"binaryAuthorization": "enforce"},
            {},
            {"binaryAuthorization.evaluationMode": False},
        ),
        # Day 0, and on Autopilot for the whole cluster.
        (
            AUTOPILOT,
            {**AUTOPILOT, "encryptBootDisks": False},
            {"clusterAutoscaling.autoProvisioningDefaults.bootDiskKmsKey": True},
        ),
        ({"egress": "fqdn", "egressHosts": ["pypi.org"]}, {}, {"enableFqdnNetworkPolicy": True}),
    ],
)
def test_setting_taken_back_reaches_the_cluster(
    before: dict[str, Any], after: dict[str, Any], expected: dict[str, bool]
) -> None:
    (old,), (new,) = (program("staging", each).of("Cluster") for each in (before, after))
    assert changes(old, new) == expected


def test_times_without_upgrades_are_the_programs_alone() -> None:
    """One that somebody adds is read back, and taken away by the next update."""
    (asked,) = program("staging", {}).of("Cluster")
    kind = KINDS[CLUSTER]
    state = settled(kind, asked.inputs)
    state["maintenancePolicy"]["maintenanceExclusions"] = [
        {"exclusionName": "by-hand", "startTime": "2026-12-18T00:00:00Z", "endTime": "2026-12-19T00:00:00Z"}
    ]
    answer = difference(kind, state, asked.inputs, asked.inputs, list(asked.request.ignoreChanges))
    assert list(answer.detailedDiff) == ["maintenancePolicy.maintenanceExclusions"]


def test_page_of_drift_says_what_leaving_out_means_for_each_field_that_is_left_out() -> None:
    """Google keeps a field that is left out; each such field is one that no setting can switch on."""
    page = (REPOSITORY / "docs" / "operations" / "drift.md").read_text(encoding="utf-8")
    asked = [program(*VARIANTS[name]).of("Cluster")[0].inputs for name in ("staging", "everything")]
    left_out = {
        path
        for path, field in KINDS[CLUSTER].fields.items()
        for around in [path.rpartition(".")[0]]
        if field.keep
        and not any(at(inputs, path) is not None for inputs in asked)
        # Inside a block that is left out nothing is.
        and (not around or any(at(inputs, around) is not None for inputs in asked))
    }
    assert {path for path in left_out if f"`{path}`" not in page} == set()
