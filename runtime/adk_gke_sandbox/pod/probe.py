"""Runs inside a pod: knocks at addresses and resolves names, and reports what answered, and as whom.

Standard library only.

Arguments: the targets as JSON, and for how many seconds each is tried. The report is one line of JSON. Any Python
from 3.8 runs it.
"""

import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

TOKEN_FOLDERS = ("/var/run/secrets/kubernetes.io", "/run/secrets/kubernetes.io")

_SLICE_SECONDS = 1.0

# RFC 1035: asks for the address of a name of the cluster itself.
_LABELS = b"kubernetes.default.svc.cluster.local".split(b".")
_NAME = b"".join(bytes([len(label)]) + label for label in _LABELS)
_QUERY = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + _NAME + b"\x00\x00\x01\x00\x01"


def main(targets: List[Dict[str, Any]], seconds: float) -> None:
    """Print the report."""
    with ThreadPoolExecutor(1 + len(targets)) as pool:
        answers = list(pool.map(lambda target: answers_within(target, seconds), targets))
    report = {
        "uid": os.getuid(),
        "credentials": [path for path in TOKEN_FOLDERS if Path(path).exists()]
        + [name for name in os.environ if name.startswith("KUBERNETES_")],
        "name_servers": name_servers(),
        "opened": [number for number, answered in enumerate(answers) if answered],
    }
    print(json.dumps(report))


def answers_within(target: Dict[str, Any], seconds: float) -> bool:
    """Try a target until it answers or the time is over; some networks close a moment after a pod starts."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            knock(target, min(seconds, _SLICE_SECONDS))
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def knock(target: Dict[str, Any], seconds: float) -> None:
    """Return once a target answers.

    Raises:
        OSError: it does not.
    """
    if target["protocol"] == "name":
        socket.getaddrinfo(target["address"], None)
        return
    family = socket.AF_INET6 if ":" in target["address"] else socket.AF_INET
    by_udp = target["protocol"] == "dns"
    with socket.socket(family, socket.SOCK_DGRAM if by_udp else socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect((target["address"], target["port"]))
        if by_udp:
            connection.send(_QUERY)
            connection.recv(512)


def name_servers() -> List[str]:
    """Return whom the resolver asks, but for the sandbox's own loopback."""
    try:
        lines = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line.split()[1] for line in lines if line.split()[:1] == ["nameserver"]]
    except (OSError, IndexError):
        return []
    return [address for address in found if not address.startswith("127.")]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), float(sys.argv[2]))
