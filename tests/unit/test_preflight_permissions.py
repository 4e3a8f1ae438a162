"""What is allowed, refused and granted, as sets."""

from __future__ import annotations

import pytest
from adk_gke_sandbox.preflight.permissions import (
    NEEDED,
    REFUSED,
    Access,
    Grant,
    agent_user,
    grants,
    in_rules,
    review,
)

from adk_gke_sandbox.contract import (
    EXECUTOR_RULES,
    Contract,
)

CONTRACT = Contract(stack="test", image=f"registry/project/data@sha256:{'a' * 64}")


def test_what_the_executor_needs_is_never_counted_as_dangerous() -> None:
    assert not NEEDED & set(REFUSED)
    assert {access.resource for access in NEEDED} == {rule.resource for rule in EXECUTOR_RULES}


def test_access_is_written_as_kubectl_does() -> None:
    assert str(Access("batch", "jobs", "create")) == "create jobs.batch"
    assert str(Access("", "pods/log", "get")) == "get pods/log"


def test_everybodys_own_reviews_are_nothing_special() -> None:
    rule = {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews"],
        "verbs": ["create"],
    }
    assert in_rules([rule, {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]) == set()


def test_rule_for_one_name_is_told_from_the_rule_for_all() -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["a", "b"]}
    assert in_rules([rule]) == {Access("", "configmaps[a,b]", "get")}


@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "ServiceAccount", "name": "agent", "namespace": "agents"},
        {"kind": "User", "name": "system:serviceaccount:agents:agent"},
        {"kind": "Group", "name": "system:serviceaccounts:agents"},
        {"kind": "Group", "name": "system:authenticated"},
    ],
)
def test_binding_counts_whatever_way_it_names_the_agent(subject: dict[str, str]) -> None:
    role = {
        "metadata": {"name": "view"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    binding = {
        "metadata": {"name": "b", "namespace": "agent-sandbox"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [subject],
    }
    found = grants([binding], [role], namespace="agents", service_account="agent")
    assert found == {Grant(Access("", "pods", "get"), "RoleBinding b (ClusterRole view)")}


@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "ServiceAccount", "name": "agent", "namespace": "agent-sandbox"},
        {"kind": "User", "name": "agent"},
        {"kind": "Group", "name": "system:serviceaccounts:agent-sandbox"},
    ],
)
def test_binding_of_somebody_else_does_not(subject: dict[str, str]) -> None:
    role = {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "r"},
        "subjects": [subject],
    }
    assert grants([binding], [role], namespace="agents", service_account="agent") == set()


def test_role_of_a_cluster_is_not_taken_for_one_of_the_namespace() -> None:
    roles = [
        {"metadata": {"name": "r"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]},
        {"metadata": {"name": "r", "namespace": "agent-sandbox"}, "rules": []},
    ]
    binding = {
        "metadata": {"name": "b", "namespace": "agent-sandbox"},
        "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "agents"}],
    }
    assert grants([binding], roles, namespace="agents", service_account="agent") == set()


def test_review_asks_for_the_agent_with_its_groups() -> None:
    asked = review(CONTRACT, Access("", "pods/exec", "create"), of_agent=True)
    assert asked["kind"] == "SubjectAccessReview"
    assert asked["spec"] == {
        "user": agent_user(CONTRACT),
        "groups": ["system:serviceaccounts", "system:serviceaccounts:agents", "system:authenticated"],
        "resourceAttributes": {
            "namespace": "agent-sandbox",
            "verb": "create",
            "group": "",
            "resource": "pods",
            "subresource": "exec",
        },
    }


def test_review_of_oneself_names_nobody() -> None:
    asked = review(CONTRACT, Access("", "nodes/proxy", "get", everywhere=True), of_agent=False)
    assert asked["kind"] == "SelfSubjectAccessReview"
    assert set(asked["spec"]) == {"resourceAttributes"}
    assert asked["spec"]["resourceAttributes"]["namespace"] == ""
