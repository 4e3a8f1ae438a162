from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from infra.local import images


def tree(root: Path) -> Path:
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "tool").write_text("x")
    (root / "usr" / "bin" / "tool").chmod(0o755)
    (root / "usr" / "bin" / "alias").symlink_to("tool")
    return root


def test_a_layer_depends_on_its_content_alone(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    os.utime(second / "usr" / "bin" / "tool", (1, 1))
    written = [images.write_layer(tmp_path / f"{root.name}.tar", root).read_bytes() for root in (first, second)]
    assert written[0] == written[1]


def test_a_layer_leaves_out_what_lower_ones_have(tmp_path: Path) -> None:
    path = images.write_layer(tmp_path / "a.tar", tree(tmp_path / "root"), without={"usr", "usr/bin", "usr/bin/alias"})
    with tarfile.open(path) as layer:
        assert layer.getnames() == ["usr/bin/tool"]


def test_an_archive_has_the_digest_that_it_says(tmp_path: Path) -> None:
    layer = images.write_layer(tmp_path / "layer.tar", tree(tmp_path / "root"))
    digest = images.write_archive(tmp_path / "image.tar", "repository/name:1", [layer], ["/usr/bin/tool"], {})
    with tarfile.open(tmp_path / "image.tar") as archive:
        index = archive.extractfile("index.json")
        assert index
        (manifest,) = json.load(index)["manifests"]
        assert manifest["digest"] == digest
        assert manifest["annotations"] == {"io.containerd.image.name": "repository/name:1"}
        assert archive.extractfile("blobs/" + digest.replace(":", "/"))


@pytest.mark.parametrize("name", ["./usr/share/doc/x", "usr/share/doc", "./var/lib/apt/lists"])
def test_what_nobody_needs_in_a_sandbox_is_dropped(name: str) -> None:
    assert not images._kept(name)


@pytest.mark.parametrize(
    "name", ["./usr/bin/python3", "./usr/bin/dmesg", "usr/share/documents", "./usr/share/zoneinfo/Asia/Tokyo"]
)
def test_what_programs_need_is_kept(name: str) -> None:
    assert images._kept(name)


def test_an_image_that_is_in_the_cache_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = images._archive("slim", tmp_path)
    archive.parent.mkdir()
    archive.with_suffix(".digest").write_text("sha256:abc")
    monkeypatch.setattr(images, "_run", lambda *_: pytest.fail("built"))
    (image,) = images.ensure(["slim"], tmp_path, print)
    assert image.references == (
        "adk-gke-sandbox.local/python-slim:1",
        "adk-gke-sandbox.local/python-slim@sha256:abc",
        "docker.io/library/python:3.11-slim",
    )


@pytest.mark.parametrize("file", ["_LOCK", "_DEBIAN", "_FONTS"])
def test_the_data_image_is_another_when_one_of_its_files_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    before = images._key("data"), images._key("slim")
    (tmp_path / "file").write_text("other")
    monkeypatch.setattr(images, file, tmp_path / "file")
    assert images._key("data") != before[0]
    assert images._key("slim") == before[1]
