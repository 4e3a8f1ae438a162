"""What the stand-in knows of each type: names, defaults, what forces a replacement, and what the API refuses.

Sources: the schema of pulumi_gcp 10.2 and of the Terraform provider beneath it, recordings of Google's API, Google's
documentation; `tables/*.yaml` name them. What is not written there is not checked. A type that is not listed is
refused, so that no test passes because the stand-in shrugs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from standin import compute, container, identity
from standin.kinds import Kind

KINDS: Final[Mapping[str, Kind]] = MappingProxyType({**compute.KINDS, **container.KINDS, **identity.KINDS})
