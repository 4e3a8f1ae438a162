"""The errors this package raises, and nothing else; docs/python.md says what raises which.

    SandboxError                  message and remedy; the base of everything raised here
    ├── ConfigError(ValueError)   a bad value: of a setting, or of one execution before anything is sent
    ├── ContractError             an unreadable contract, an unknown key or version
    ├── ExecutionFailed           an outcome that is no success, by Outcome.check (in ``execution``, which it knows)
    └── ClusterError              verb, object and HTTP status of a call that the cluster refused
        ├── Unauthorized          401: the credentials are not accepted
        ├── Forbidden             403: a permission, a quota or an admission rule
        ├── NotFound              404
        ├── Conflict              409: changed meanwhile; the same call may succeed
        ├── AlreadyExists         409
        ├── Gone                  410: list again
        └── Unreachable           no answer at all

A class exists only where a caller acts on it. What the user's code does is never an exception: it is
an ``Outcome`` with a ``Reason``.
"""

from __future__ import annotations

import re
from typing import Final


class SandboxError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: What happened, to which object.
        remedy: What to do about it; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class ConfigError(SandboxError, ValueError):
    """A setting that cannot work, or a file or an argument of one execution; raised when it is given, never later."""


class ContractError(SandboxError):
    """A contract that cannot be read or is not of a version known here."""


class ClusterError(SandboxError):
    """A call that the cluster refused or did not answer.

    Attributes:
        verb: Kubernetes verb, for example ``create``.
        target: Resource and name, for example ``jobs.batch agent-sandbox/x1``.
        status: HTTP status, or ``None`` if there was no answer.
        retry_after_seconds: What the server asked for by ``Retry-After``, or ``None``.
    """

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        verb: str,
        target: str,
        status: int | None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, remedy)
        self.verb = verb
        self.target = target
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    @property
    def too_large(self) -> bool:
        """Whether an object, or the call with it, has more bytes than the server, its storage or a proxy takes."""
        return self.status == 413 or bool(_TOO_LARGE.search(self.message))


_TOO_LARGE: Final = re.compile(r"request is too large|larger than max|Too long: .* \d{6,} bytes")
"""What etcd, its client and the API server's own checks say."""


class Unauthorized(ClusterError):
    """401: the credentials are not accepted."""


class Forbidden(ClusterError):
    """403: a permission, a quota or an admission rule refused the call."""


class NotFound(ClusterError):
    """404: the object, or the namespace it would be in, does not exist."""


class Conflict(ClusterError):
    """409: the object, or the quota that counts it, was changed meanwhile; the same call may succeed."""


class AlreadyExists(ClusterError):
    """409: an object of this name exists already."""


class Gone(ClusterError):
    """410: the resourceVersion is too old; list again."""


class Unreachable(ClusterError):
    """No answer: connection refused, reset, timed out, or a name that does not resolve."""


def cause(error: BaseException) -> str:
    """Return what another library's error says, in one line of at most 300 characters."""
    text = " ".join(str(getattr(error, "reason", None) or error).split())[:300]
    # The words of the operating system are at the end of such a message, behind the library's own objects.
    return text.rpartition(": ")[2] if "Errno" in text or "NewConnectionError" in text else text
