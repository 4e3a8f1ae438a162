"""Checks of plain values that users give: quantities, names, labels, the environment. Pure; knows no settings object.

A check returns what it was given, or raises a ``ConfigError`` that names the setting and says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from adk_gke_sandbox.contract import APP_LABEL, EXECUTION_LABEL, MANAGED_BY_LABEL
from adk_gke_sandbox.errors import ConfigError

_QUANTITY: Final = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([-+]?0*[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")
"""https://github.com/kubernetes/apimachinery/blob/master/pkg/api/resource/quantity.go. The Python client's own parser
also takes what the API server refuses, such as ``1K``, ``1e3Ki`` and ``NaN``, and comes with the whole client only."""

_FACTORS: Final = {
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("n", "u", "m", "", *"kMGTPE"), start=-3)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}

_QUANTITY_MAX: Final = Decimal(2**63 - 1)
"""What the API server makes of anything larger."""

NAME_CHARACTERS_MAX: Final = 60
"""An execution's name is a label value of at most 63 characters, and its ConfigMaps are called NAME-0 to NAME-31."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

_LABEL_NAME: Final = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE: Final = re.compile(f"({_LABEL_NAME})?")
_LABEL_KEY: Final = re.compile(f"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}")
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set."""

_OWN_LABELS: Final = frozenset({APP_LABEL, MANAGED_BY_LABEL, EXECUTION_LABEL})
"""Labels by which an execution's objects are found again."""

_SECRET_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SECRET_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_CONTAINER_ENV_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
"""What Kubernetes takes for a container's environment before version 1.34."""

RUNNERS_OWN_ENV: Final = re.compile(
    "HOME|KUBERNETES_.*|LOGNAME|MALLOC_ARENA_MAX|(MKL|NUMEXPR|OMP|OPENBLAS)_NUM_THREADS|MPLBACKEND|MPLCONFIGDIR|"
    "PYTHONDONTWRITEBYTECODE|PYTHONUNBUFFERED|TMPDIR|USER|XDG_CACHE_HOME"
)
"""Variables that the runner sets or removes in place of the container's; the request's win over the runner's."""


class ReadOnly(dict[str, Any]):
    """A mapping that stays as it was checked; copies and pickles are the same."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        remedy = "Make a new one, for example by model_copy(update=...)"
        raise ConfigError("settings are checked once and then fixed", remedy)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return ReadOnly, (dict(self),)


def quantity(text: str, *, setting: str) -> Decimal:
    """Return the number that a Kubernetes quantity stands for, by the grammar that the API server reads it by.

    See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.

    Raises:
        ConfigError: not a positive quantity.
    """
    value = Decimal(0)
    if match := _QUANTITY.fullmatch(text) if isinstance(text, str) else None:
        value = min(Decimal(match[1]).scaleb(int(match[2] or 0)) * _FACTORS[match[3] or ""], _QUANTITY_MAX)
    if value <= 0:
        remedy = 'Write for example "500m" or "2" for CPU, "512Mi" or "1Gi" for memory'
        raise ConfigError(f"{setting}={text!r} is not a Kubernetes quantity", remedy)
    return value


def check_name(
    name: str, *, setting: str = "name", characters_max: int = NAME_CHARACTERS_MAX, dots: bool = False
) -> str:
    """Return the name of a Kubernetes object; by default that of an execution, with which others begin.

    Raises:
        ConfigError: Kubernetes would not take it.
    """
    parts = name.split(".") if dots and isinstance(name, str) else [name]
    if not isinstance(name, str) or not all(map(_NAME.fullmatch, parts)) or len(name) > characters_max:
        remedy = f"Use 1 to {characters_max} lower-case letters, digits and '-'; begin and end with a letter or digit"
        raise ConfigError(f"{setting}={name!r} is not a Kubernetes name", remedy)
    return name


def check_image(image: str, *, setting: str = "image") -> str:
    """Return the name of an image.

    Raises:
        ConfigError: it cannot be one.
    """
    if not isinstance(image, str) or not re.fullmatch(r"\S+", image):
        raise ConfigError(f"{setting}={image!r} is not an image reference", 'Write for example "python:3.11-slim"')
    return image


def check_labels(labels: Mapping[str, str], *, setting: str = "labels") -> dict[str, str]:
    """Return labels that Kubernetes takes and that are not this package's own.

    Raises:
        ConfigError: one of them is not such a label.
    """
    for key, value in _items(labels, setting):
        if not isinstance(value, str) or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            remedy = "Use letters, digits, '-', '_' and '.', at most 63, beginning and ending with a letter or digit"
            raise ConfigError(f"{setting} has {key!r}={value!r}, which is not a Kubernetes label", remedy)
        if key in _OWN_LABELS:
            raise ConfigError(f"{setting} has {key!r}, by which executions are found", "Choose another name for it")
    return ReadOnly(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKey:
    """A value of ``env`` that comes from a Kubernetes Secret in the namespace of the sandboxes.

    The stack's contract must allow it. The value itself is never seen here: the kubelet gives it to the container.

    Attributes:
        secret: Name of the Secret.
        key: Key in it.

    Raises:
        ConfigError: no name of a Secret, or of a key.
    """

    secret: str
    key: str

    def __post_init__(self) -> None:
        for value, known, what in ((self.secret, _SECRET_NAME, "a Secret"), (self.key, _SECRET_KEY, "a Secret's key")):
            if not isinstance(value, str) or not known.fullmatch(value):
                raise ConfigError(f"{value!r} is not the name of {what}", 'Write SecretKey(secret="NAME", key="KEY")')


def check_env(env: Mapping[str, str | SecretKey], *, setting: str = "env") -> dict[str, str | SecretKey]:
    """Return environment variables that a process can have. Messages name them and never show a value.

    Raises:
        ConfigError: a name or a value that cannot be one.
    """
    for name, value in _items(env, setting):
        if not name or "=" in name or not _encodes(name):
            remedy = "Use letters, digits and '_'; there can be no '=' and no NUL in it"
            raise ConfigError(f"{setting} has {name!r}, which is not the name of a variable", remedy)
        if isinstance(value, SecretKey):
            if not _CONTAINER_ENV_NAME.fullmatch(name) or RUNNERS_OWN_ENV.fullmatch(name):
                takes = "Kubernetes takes letters, digits, '_', '-' and '.', and the runner sets some itself"
                cause = f"{setting} has {name!r}, which cannot come from a Secret"
                raise ConfigError(cause, f"Choose another name: {takes}")
        elif not isinstance(value, str) or not _encodes(value):
            raise ConfigError(f"{setting} has no text for {name!r}", "Give a string without NUL characters")
    return ReadOnly(env)


def _items(given: Any, setting: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"{setting} does not map names to values", f'Write for example {setting}={{"name": "value"}}')
    return given.items()


def _encodes(text: str) -> bool:
    """Whether the operating system takes a text: no NUL, and no half of a surrogate pair but an undecoded byte."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
