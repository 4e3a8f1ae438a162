"""When GKE may upgrade a cluster, and when it may not: what is refused, and what is sent. Pure.

GKE may set both aside for critical patches, and repairs what is broken at any time
(https://cloud.google.com/kubernetes-engine/docs/concepts/maintenance-windows-and-exclusions).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from adk_gke_sandbox.errors import ConfigError
from infra.configuration import full_key, key, repair, shown

_TIME: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)"
"""RFC 3339, of which Google's provider takes no more than this; Python takes all of ISO 8601."""

_DAY: Final = "(?:MO|TU|WE|TH|FR|SA|SU)"
_RULE: Final = re.compile(rf"FREQ=(?P<often>DAILY|WEEKLY)(;BYDAY=(?P<by_day>{_DAY}(,{_DAY})*))?")

_WINDOW_HOURS: Final = 4
_WINDOW_DAYS: Final = 32
_WINDOW_TOTAL_HOURS: Final = 48
"""https://cloud.google.com/kubernetes-engine/docs/concepts/maintenance-windows-and-exclusions#restrictions."""

_SCOPES: Final = ("NO_UPGRADES", "NO_MINOR_UPGRADES", "NO_MINOR_OR_NODE_UPGRADES")
"""https://cloud.google.com/kubernetes-engine/docs/reference/rest/v1/Scope."""

_EXCLUSION: Final = re.compile(rf"(?P<start>{_TIME})/(?P<end>{_TIME})(?: (?P<scope>{'|'.join(_SCOPES)}))?", re.ASCII)
_EXCLUSIONS: Final = 20
"""https://cloud.google.com/kubernetes-engine/docs/concepts/maintenance-windows-and-exclusions#limitations-maint-exclusions.

How long one may be, GKE says itself: that differs by scope and release channel, and has changed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A time without upgrades.

    Attributes:
        name: Its name.
        start: Its begin, as GKE gives it back.
        end: Its end, likewise.
        scope: Which upgrades do not happen.
    """

    name: str
    start: str
    end: str
    scope: str


def check(start: str, end: str, recurrence: str) -> None:
    """Refuse a window that GKE would not take: it must leave room for upgrades."""
    times = [_time(name, text) for name, text in (("maintenance_start", start), ("maintenance_end", end))]
    hours = (times[1] - times[0]).total_seconds() / 3600
    if not _WINDOW_HOURS <= hours <= 24:
        raise ConfigError(
            f"{full_key('maintenance_end')} is {hours:g} hours after {full_key('maintenance_start')}",
            f"Give {_WINDOW_HOURS} to 24 hours",
        )
    days = _days_a_week(recurrence)
    if not days:
        raise ConfigError(
            f"{shown('maintenance_recurrence', recurrence)} is not a daily or weekly rule of RFC 5545",
            "Set it with `pulumi config set maintenanceRecurrence 'FREQ=WEEKLY;BYDAY=SA,SU'`",
        )
    total = days * (_WINDOW_DAYS // 7) * hours
    if total < _WINDOW_TOTAL_HOURS:
        raise ConfigError(
            f"{shown('maintenance_recurrence', recurrence)} with windows of {hours:g} hours leaves {total:g} hours "
            f"in {_WINDOW_DAYS} days, and GKE wants {_WINDOW_TOTAL_HOURS}",
            "Add days to BYDAY, or move maintenanceEnd",
        )


def exclusions(given: Mapping[str, str]) -> list[Exclusion]:
    """Return the times without upgrades, by their names.

    Raises:
        ConfigError: one that GKE would not take.
    """
    setting = "maintenance_exclusions"
    if len(given) > _EXCLUSIONS:
        raise ConfigError(f"{full_key(setting)} has {len(given)} entries", f"Keep {_EXCLUSIONS} at most, as GKE does")
    found = []
    for name, text in sorted(given.items()):
        entry = _EXCLUSION.fullmatch(text)
        times = [_parsed(entry[end]) for end in ("start", "end")] if entry else []
        if not entry or not name or None in times:
            raise ConfigError(
                f"{full_key(setting)} has {name!r}: {text!r}, which is not BEGIN/END in times of RFC 3339, "
                f"and if you like one of {', '.join(_SCOPES)}",
                f"Set it with `pulumi config set --path '{key(setting)}[\"year-end\"]' "
                "'2026-12-18T00:00:00Z/2027-01-04T00:00:00Z NO_UPGRADES' --type string`",
            )
        start, end = (in_utc(entry[each]) for each in ("start", "end"))
        if start >= end:
            raise ConfigError(f"{full_key(setting)} has {name!r}, which ends before it begins", "Give the begin first")
        found.append(Exclusion(name=name, start=start, end=end, scope=entry["scope"] or _SCOPES[0]))
    return found


def in_utc(time: str) -> str:
    """Return a time of RFC 3339 as GKE gives it back: in UTC. Any other form would be a difference in every preview."""
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(name: str, text: str) -> datetime:
    found = _parsed(text)
    if found is None:
        raise ConfigError(
            f"{shown(name, text)} is not a time of RFC 3339, with its zone", repair(name, "2026-01-03T02:00:00Z")
        )
    return found


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if re.fullmatch(_TIME, text, re.ASCII) else None
    except ValueError:
        return None


def _days_a_week(recurrence: str) -> int:
    """Return on how many days of a week a rule opens a window; 0 if it is none, or not daily or weekly."""
    found = _RULE.fullmatch(recurrence)
    if not found:
        return 0
    if found["by_day"]:
        return len(set(found["by_day"].split(",")))
    return 7 if found["often"] == "DAILY" else 1
