"""How a run of the engine is judged without one: what a user is told of its failure, and what is done about it."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
from pathlib import Path

import pytest

from infra.local.engine import Stack, StackError, causes, end_plugins, stream, variables

GOOGLE = """\
 +  gcp:container:Cluster cluster creating (0s) error: 1 error occurred:
@ updating.....
    pulumi:pulumi:Stack adk-gke-sandbox-staging  error: update failed
Diagnostics:
  pulumi:pulumi:Stack (adk-gke-sandbox-staging):
    error: update failed

  gcp:container:Cluster (cluster):
    error:   sdk-v2/provider2.go:572: sdk.helper_schema: googleapi: Error 403: Insufficient: provider=google-beta@10.2.0
    error: 1 error occurred:
    \t* googleapi: Error 403: Insufficient regional quota., forbidden

Resources:
    + 14 created
"""

HALF_MADE = """\
Diagnostics:
  gcp:container:NodePool (sandbox-pool):
    error: 1 error occurred:
    \t* 1 error occurred:
    \t* NodePool pool was created in the error state "RUNNING_WITH_ERROR"
"""

PROGRAM = """\
    pulumi:pulumi:Stack adk-gke-sandbox-local running error: adk-gke-sandbox:image is not set. Set it
    pulumi:pulumi:Stack adk-gke-sandbox-local **failed** 1 error
error: update failed
"""

SEVERAL = """\
Diagnostics:
  gcp:compute:Network (network):
    error: 2 errors occurred:
    \t* the first
    \t* the second
"""


def test_error_of_google_names_its_resource() -> None:
    assert causes(GOOGLE) == [
        "cluster (gcp:container:Cluster): googleapi: Error 403: Insufficient regional quota., forbidden"
    ]


def test_error_of_a_half_made_resource_is_found_below_two_headings() -> None:
    assert causes(HALF_MADE) == [
        'sandbox-pool (gcp:container:NodePool): NodePool pool was created in the error state "RUNNING_WITH_ERROR"'
    ]


def test_error_of_the_program_is_told_as_it_is() -> None:
    assert causes(PROGRAM) == ["adk-gke-sandbox:image is not set. Set it"]


def test_first_of_several_errors_comes_first() -> None:
    assert causes(SEVERAL)[0] == "network (gcp:compute:Network): the first"


def test_verdict_alone_is_no_cause() -> None:
    assert causes("error: update failed\n") == []


@pytest.mark.parametrize(
    "said",
    [
        "Program failed with an unhandled exception:",
        "Detected that /cache/pulumi-resource-kubernetes exited prematurely.",
        "grpc: the client connection is closing",
    ],
)
def test_what_the_engine_ends_because_of_an_error_is_not_the_cause(said: str) -> None:
    lost = f"    pulumi:pulumi:Stack adk-gke-sandbox-staging  error: {said}\n"
    assert causes(lost + GOOGLE)[0].startswith("cluster (gcp:container:Cluster): googleapi: Error 403")
    assert causes(lost) == [said]


def engine_that_says(folder: Path, first: str, then: str) -> Stack:
    """Return a stack whose engine fails with the first words, and then with others; it succeeds if these are none."""
    script = folder / "pulumi"
    script.write_text(
        f"#!/bin/sh\nif mkdir {folder}/began 2>/dev/null; then echo 'error: {first}'; exit 255; fi\n"
        f"echo 'error: {then}'; [ -z '{then}' ] || exit 255\n"
    )
    script.chmod(0o755)
    return Stack(folder=folder, kubeconfig=None, tools={"pulumi": script})


@pytest.mark.parametrize("name", ["pulumi-resource-kubernetes", "pulumi-language-python-exec"])
def test_plugins_that_outlived_their_engine_are_ended_and_those_of_others_are_not(tmp_path: Path, name: str) -> None:
    plugin = tmp_path / name
    plugin.write_text("read line\n")
    where = Stack(folder=tmp_path / "one", kubeconfig=None, tools={"pulumi": plugin})
    another = dataclasses.replace(where, folder=tmp_path / "another")
    # By its interpreter, whose name the process then has.
    command = ["/bin/sh", plugin]
    ours, theirs = (subprocess.Popen(command, stdin=subprocess.PIPE, env=variables(each)) for each in (where, another))
    with ours, theirs:
        end_plugins(where)
        assert ours.wait(timeout=10) == -signal.SIGKILL
        assert theirs.poll() is None
        theirs.communicate(b"\n")


LOST = "Detected that /cache/pulumi-resource-kubernetes exited prematurely."


def test_run_that_lost_nothing_but_a_plugin_is_repeated_once(tmp_path: Path) -> None:
    told: list[str] = []
    stream(engine_that_says(tmp_path, LOST, ""), "preview", [], told.append)
    assert told[1] == "the engine lost a plugin: trying once more"


@pytest.mark.parametrize(("first", "then"), [(LOST, LOST), ("no such setting", "")])
def test_run_that_fails_otherwise_or_again_fails(tmp_path: Path, first: str, then: str) -> None:
    with pytest.raises(StackError, match=re.escape(first)):
        stream(engine_that_says(tmp_path, first, then), "preview", [], lambda _: None)
