"""The sandbox image: what must hold of its recipes before anybody builds it."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
from matplotlib.font_manager import FontEntry

from adk_gke_sandbox.contract import SANDBOX_UID
from adk_gke_sandbox.pod import supervisor  # noqa: F401 - imports processes as the pod does
from infra.local import images

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "images" / "data" / "Dockerfile"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Instructions with their arguments, each on one line, without comments."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_image_runs_as_the_sandboxes_user(instructions: list[tuple[str, str]]) -> None:
    """As a number: `runAsNonRoot` cannot tell what a name stands for."""
    assert [rest for name, rest in instructions if name == "USER"] == [f"{SANDBOX_UID}:{SANDBOX_UID}"]
    # Nothing is built after it.
    assert "RUN" not in [name for name, _ in instructions][[name for name, _ in instructions].index("USER") :]


def test_packages_are_the_locked_ones_by_hash(instructions: list[tuple[str, str]]) -> None:
    install = next(rest for name, rest in instructions if name == "RUN" and "pip install" in rest)
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement /tmp/image-data.txt"):
        assert option in install
    assert f"COPY {images._LOCK.relative_to(ROOT)} /tmp/image-data.txt" in FILE.read_text()


def test_pip_is_gone_before_anything_runs(instructions: list[tuple[str, str]]) -> None:
    install = next(rest for name, rest in instructions if name == "RUN" and "pip install" in rest)
    after = install.partition("pip uninstall")[2].partition("&&")[0].split()
    assert {"pip", "setuptools", "wheel"} <= set(after)
    assert "ensurepip" in install.partition("pip uninstall")[2]


def test_base_can_be_given_by_digest(instructions: list[tuple[str, str]]) -> None:
    assert instructions[:2] == [("ARG", "BASE=python:3.11-slim"), ("FROM", "${BASE}")]


def test_tools_and_fonts_are_those_of_the_local_image(instructions: list[tuple[str, str]]) -> None:
    (install,) = [rest for name, rest in instructions if name == "RUN" and "apt-get install" in rest]
    assert "xargs --arg-file=/tmp/debian.txt apt-get install --yes --no-install-recommends" in install
    for file, place in ((images._DEBIAN, "/tmp/debian.txt"), (images._FONTS, "/tmp/fonts.py")):
        assert ("COPY", f"{file.relative_to(ROOT)} {place}") in instructions


def test_fonts_are_prepared_where_the_image_says(instructions: list[tuple[str, str]]) -> None:
    assert ("ENV", f"MPLCONFIGDIR={images._CONFIGURATION}") in instructions
    install = next(rest for name, rest in instructions if name == "RUN" and "pip install" in rest)
    assert "mkdir -p $MPLCONFIGDIR && python3 -B /tmp/fonts.py" in install


def test_build_sees_what_it_copies_and_nothing_else(instructions: list[tuple[str, str]]) -> None:
    ignored, *let_through = [
        line for line in FILE.with_name("Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert ignored == "*"
    copied = [rest.split()[0] for name, rest in instructions if name in ("COPY", "ADD")]
    assert let_through == [f"!{path}" for path in copied]
    for path in copied:
        assert (ROOT / path).is_file()


# Fonts


@pytest.fixture(scope="module")
def fonts() -> ModuleType:
    """The script that prepares Matplotlib in both recipes."""
    spec = importlib.util.spec_from_file_location("fonts", images._FONTS)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DATA = Path(matplotlib.get_data_path())
STYLES = [path for path in (DATA / "stylelib").glob("*.mplstyle") if "font.family" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", [DATA / "matplotlibrc", *STYLES], ids=lambda path: path.stem)
def test_every_family_of_matplotlibs_own_files_gets_the_fallbacks(
    fonts: ModuleType, tmp_path: Path, path: Path
) -> None:
    edited = fonts.with_fallbacks(path.read_text(encoding="utf-8"))
    # The default file is read with its comments as settings.
    lines = [line.removeprefix("#") for line in edited.splitlines() if re.match(r"#?font\.family\s*:", line)]
    (tmp_path / "rc").write_text("\n".join(lines))
    family = matplotlib.rc_params_from_file(tmp_path / "rc", use_default_template=False)["font.family"]
    assert family == ["sans-serif", *fonts.FALLBACKS]


def test_a_font_of_another_system_is_the_one_that_is_here(fonts: ModuleType) -> None:
    here = [FontEntry("/b", 0, fonts.CJK, weight=400), FontEntry("/a", 0, "DejaVu Sans", weight=400)]
    found = {(font.name, font.weight): font.fname for font in fonts.with_names(here)}
    assert found["SimHei", 400] == found["SimHei", 700] == found["Noto Sans CJK JP", 400] == "/b"
    assert found[fonts.CJK, 700] == "/b"
    assert [name for name, path in found.items() if path == "/a"] == [("DejaVu Sans", 400)]


def test_the_list_of_fonts_is_the_same_in_each_build(fonts: ModuleType) -> None:
    here = [FontEntry(path, 0, name, weight="normal") for path, name in (("/b", fonts.CJK), ("/a", "x"), ("/c", "y"))]
    assert fonts.with_names(here) == fonts.with_names(here[::-1])


def test_what_an_image_brings_for_matplotlib_is_in_the_programs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, temporary = tmp_path / "image", tmp_path / "tmp"
    image.mkdir()
    (image / "fontlist-v1.json").write_text("{}")
    monkeypatch.setenv("MPLCONFIGDIR", str(image))
    monkeypatch.setenv("TMPDIR", str(temporary))
    folder = Path(sys.modules["processes"].environment()["MPLCONFIGDIR"])
    assert folder == temporary / "home" / "matplotlib"
    assert (folder / "fontlist-v1.json").read_text() == "{}"
    assert os.access(folder, os.W_OK)
