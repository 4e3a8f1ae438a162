"""Images without a registry or Docker: Debian packages and locked wheels become OCI archives.

The same input gives the same digest: entries are sorted, times are zero, owners are numbers.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adk_gke_sandbox.errors import SandboxError
from infra.local import toolchain

Report = Callable[[str], None]

REPOSITORY = "adk-gke-sandbox.local"
DEFAULT_IMAGE = "docker.io/library/python:3.11-slim"
"""What the executor's default image is called on a node."""

_ROOT = Path(__file__).resolve().parents[2]
_LOCK = _ROOT / "requirements" / "image-data.txt"
_DEBIAN = _ROOT / "images" / "data" / "debian.txt"
_FONTS = _ROOT / "images" / "data" / "fonts.py"
"""What the image ``data`` is made of; its Dockerfile reads the same files."""

_SUITE = "bookworm"
"""The Debian release with Python 3.11."""

_PACKAGES = ("python3", "bash", "coreutils", "util-linux", "tzdata", "netbase")
_WHEELS = "usr/local/lib/python3.11/dist-packages"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_DROPPED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian"),
    *("usr/share/perl", "usr/share/perl5", "usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/apt", "usr/lib/systemd"),
    *("var/cache", "var/lib/apt", "var/lib/dpkg", "var/log", "dev", "proc", "sys", "run", "boot", "home", "root"),
    *("etc/resolv.conf", "etc/hostname", "etc/apt", "etc/shadow-", "etc/passwd-", "etc/group-", "etc/gshadow-"),
    *("usr/bin/perl", "usr/bin/perl5.36.0", "usr/bin/apt", "usr/bin/apt-get", "usr/bin/dpkg", "tmp"),
)
_USER = "sandbox:x:1001:1001::/workspace:/bin/bash\n"
_GROUP = "sandbox:x:1001:\n"
_CONFIGURATION = "/usr/local/share/matplotlib"
"""Folder that the image ``data`` names in MPLCONFIGDIR: Matplotlib's list of fonts."""

_LOCALE = "usr/lib/locale/en_US.utf8"
"""The one locale beside C and C.UTF-8: programs ask for it to write amounts of money."""

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An archive and the names under which a node knows it; the second one is by digest."""

    variant: str
    references: tuple[str, ...]
    digest: str
    archive: Path


def ensure(variants: Sequence[str], cache: Path, report: Report) -> list[Image]:
    """Return the images ``pause``, ``slim`` or ``data``, building those that the cache does not have.

    Raises:
        SandboxError: mmdebstrap or pip failed, or this is no Debian.
    """
    if all(_archive(variant, cache).with_suffix(".digest").exists() for variant in variants):
        return [_ensure(variant, cache, report) for variant in variants]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return [_ensure(variant, cache, report) for variant in variants]


def _ensure(variant: str, cache: Path, report: Report) -> Image:
    archive = _archive(variant, cache)
    digest_file = archive.with_suffix(".digest")
    if not digest_file.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        report(f"image {variant}: building{', about a minute' if variant != 'pause' else ''}")
        with tempfile.TemporaryDirectory(dir=cache, prefix="image-") as folder:
            layers = _LAYERS[variant](cache, Path(folder), report)
            temporary = archive.with_suffix(".new")
            digest = write_archive(temporary, _reference(variant), layers, _entrypoint(variant), _variables(variant))
            temporary.replace(archive)
        digest_file.write_text(digest)
    digest = digest_file.read_text()
    names = [_reference(variant), f"{REPOSITORY}/{_name(variant)}@{digest}"]
    if variant == "slim":
        names.append(DEFAULT_IMAGE)
    return Image(variant=variant, references=tuple(names), digest=digest, archive=archive)


def _archive(variant: str, cache: Path) -> Path:
    return cache / "images" / f"{variant}-{_key(variant)}.tar"


def _name(variant: str) -> str:
    return variant if variant == "pause" else f"python-{variant}"


def _reference(variant: str) -> str:
    return f"{REPOSITORY}/{_name(variant)}:1"


def _entrypoint(variant: str) -> list[str]:
    return ["/pause"] if variant == "pause" else ["/usr/bin/python3"]


def _variables(variant: str) -> dict[str, str]:
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    return {**variables, "MPLCONFIGDIR": _CONFIGURATION} if variant == "data" else variables


def _key(variant: str) -> str:
    """Return what changes whenever the image would: this module and the files that it reads.

    Debian's packages are as of the first build; `make clean` brings newer ones.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes() + variant.encode())
    if variant == "data":
        for file in (_LOCK, _DEBIAN, _FONTS):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _pause_layers(cache: Path, folder: Path, report: Report) -> list[Path]:
    root = folder / "root"
    root.mkdir()
    shutil.copy(toolchain.ensure(["cluster"], cache, report)["pause"].path, root / "pause")
    return [write_layer(folder / "pause.tar", root)]


def _slim_layers(_cache: Path, folder: Path, _report: Report) -> list[Path]:
    return [_base(folder)]


def _data_layers(cache: Path, folder: Path, report: Report) -> list[Path]:
    # The slim image's own layer, so that a node stores it once.
    slim = _ensure("slim", cache, report)
    base = folder / "base.tar"
    with tarfile.open(slim.archive) as archive:
        layer = max(archive.getmembers(), key=lambda member: member.size)
        with base.open("wb") as target:
            shutil.copyfileobj(archive.extractfile(layer) or io.BytesIO(), target)
    root = folder / "root"
    root.mkdir()
    with tarfile.open(base) as archive:
        names = frozenset(archive.getnames())
        archive.extractall(root, filter="fully_trusted")  # noqa: S202 - our own layer
    # Without a package manager's scripts; none of these packages needs its own.
    _debian(folder, root, "extract", _DEBIAN.read_text().split())
    _inside(root, "/usr/bin/localedef", "--no-archive", "-i", "en_US", "-f", "UTF-8", f"/{_LOCALE}")
    shutil.rmtree(root / "usr/share/i18n")
    wheels = root / _WHEELS
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-compile"]
    command += ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", f"--target={wheels}"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    _run([*command, "--requirement", str(_LOCK)])
    for surplus in [*wheels.rglob("tests"), wheels / "bin"]:
        shutil.rmtree(surplus, ignore_errors=True)
    _compile(root, f"/{_WHEELS}")
    (root / _CONFIGURATION[1:]).mkdir(parents=True)
    _python(root, "-B", "-", given=_FONTS.read_text(encoding="utf-8"))
    return [base, write_layer(folder / "data.tar", root, without=names)]


_LAYERS: dict[str, Callable[[Path, Path, Report], list[Path]]] = {
    "pause": _pause_layers,
    "slim": _slim_layers,
    "data": _data_layers,
}


def _base(folder: Path) -> Path:
    """Return a layer with a minimal Debian that has Python."""
    if shutil.which("mmdebstrap") is None:
        raise SandboxError("mmdebstrap is not installed", "On Debian and Ubuntu: apt-get install mmdebstrap")
    root = folder / "root"
    root.mkdir()
    _debian(folder, root, "minbase", _PACKAGES)
    for file, line in (("passwd", _USER), ("group", _GROUP)):
        with (root / "etc" / file).open("a") as target:
            target.write(line)
    for empty, mode in (("workspace", 0o755), ("tmp", 0o1777), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)):
        (root / empty).mkdir()
        (root / empty).chmod(mode)
    (root / "usr/bin/python").symlink_to("python3")
    _compile(root, "/usr/lib/python3.11")
    return write_layer(folder / "base.tar", root)


def _kept(name: str) -> bool:
    path = PurePosixPath(name.removeprefix("./"))
    return not any(path == PurePosixPath(drop) or PurePosixPath(drop) in path.parents for drop in _DROPPED)


def _debian(folder: Path, root: Path, variant: str, packages: Sequence[str]) -> None:
    """Lay packages and what they depend on into a folder, except for what is there already or not needed."""
    packed = folder / "debian.tar"
    command = ["mmdebstrap", "--quiet", f"--variant={variant}", f"--include={','.join(packages)}"]
    _run([*command, '--aptopt=APT::Sandbox::User "root"', _SUITE, str(packed)])
    with tarfile.open(packed) as archive:
        members = [member for member in archive if not member.isdev() and _kept(member.name)]
        # `/bin` and the like are links into `/usr` in the one and may be folders in the other.
        new = [member for member in members if not os.path.lexists(root / member.name)]
        archive.extractall(root, members=new, filter="fully_trusted")  # noqa: S202 - what mmdebstrap has just made


def _compile(root: Path, folder: str) -> None:
    """Compile the modules of an image, as a read-only root never can, without times in the result."""
    _python(root, "-m", "compileall", "-q", "-f", "--invalidation-mode=unchecked-hash", folder)


def _python(root: Path, *arguments: str, given: str = "") -> None:
    """Run an image's own Python in it."""
    _inside(root, "/usr/bin/python3", *arguments, given=given)


def _inside(root: Path, *command: str, given: str = "") -> None:
    """Run a command of an image in it, with nothing of this process's environment."""
    variables = [f"{name}={value}" for name, value in _variables("data").items()]
    _run(["unshare", f"--root={root}", "/usr/bin/env", "-i", *variables, *command], given)


def _run(command: list[str], given: str = "") -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, encoding="utf-8", input=given, env=environment
    )
    if done.returncode:
        raise SandboxError(
            f"`{command[0]}` failed: {(done.stderr or done.stdout).strip()[-500:]}",
            f"Try it by hand: {' '.join(command)}",
        )


def write_layer(path: Path, root: Path, without: Container[str] = ()) -> Path:
    """Write a folder, but for some names, as a tar file that depends on its content alone; return its path."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer:
        for entry in sorted(root.rglob("*")):
            name = str(entry.relative_to(root))
            if name in without:
                continue
            info = layer.gettarinfo(entry, arcname=name)
            info.mtime = 0
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            if info.islnk():
                # Which of several names a hard link points to depends on the order of reading.
                info.type, info.size = tarfile.REGTYPE, entry.stat().st_size
            if info.isreg():
                with entry.open("rb") as content:
                    layer.addfile(info, content)
            else:
                layer.addfile(info)
    return path


def write_archive(
    path: Path, reference: str, layers: Sequence[Path], entrypoint: Sequence[str], variables: Mapping[str, str]
) -> str:
    """Write an OCI archive that containerd imports; return the digest of its manifest.

    See https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
    """
    digests = [_digest(layer.open("rb")) for layer in layers]
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint),
                "Env": [f"{name}={value}" for name, value in variables.items()],
            },
            "rootfs": {"type": "layers", "diff_ids": digests},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [
                {"mediaType": _LAYER, "digest": digest, "size": layer.stat().st_size}
                for digest, layer in zip(digests, layers, strict=True)
            ],
        }
    )
    named = {**_descriptor(_MANIFEST, manifest), "annotations": {"io.containerd.image.name": reference}}
    index = _json({"schemaVersion": 2, "manifests": [named]})
    with tarfile.open(path, "w") as archive:
        for name, data in (
            ("oci-layout", _json({"imageLayoutVersion": "1.0.0"})),
            ("index.json", index),
            (_blob(_digest(io.BytesIO(manifest))), manifest),
            (_blob(_digest(io.BytesIO(config))), config),
        ):
            _add(archive, name, len(data), io.BytesIO(data))
        for digest, layer in zip(digests, layers, strict=True):
            with layer.open("rb") as content:
                _add(archive, _blob(digest), layer.stat().st_size, content)
    return _digest(io.BytesIO(manifest))


def _add(archive: tarfile.TarFile, name: str, size: int, content: io.BufferedIOBase) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    archive.addfile(info, content)


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(io.BytesIO(data)), "size": len(data)}


def _digest(content: io.BufferedIOBase) -> str:
    with content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
