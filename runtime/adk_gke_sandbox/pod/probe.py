"""Runs inside a sandbox: knocks at addresses that must not answer, and reports what it is. Standard library only.

Arguments: the targets as JSON, and for how many seconds each is tried. The report is one line of JSON. Any Python
from 3.8 runs it.
"""

import ctypes
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

TOKEN_FOLDERS = ("/var/run/secrets/kubernetes.io", "/run/secrets/kubernetes.io")

_SYSLOG_ACTION_READ_ALL = 3
_SLICE_SECONDS = 1.0


def main(targets: List[Dict[str, Any]], seconds: float) -> None:
    """Print the report."""
    opened: List[int] = []
    threads = [threading.Thread(target=knock, args=(item, seconds, opened)) for item in enumerate(targets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gvisor, kernel = kernel_log()
    report = {
        "gvisor": gvisor,
        "kernel": kernel,
        "uid": os.getuid(),
        "credentials": [path for path in TOKEN_FOLDERS if Path(path).exists()]
        + [name for name in os.environ if name.startswith("KUBERNETES_")],
        "name_servers": name_servers(),
        "opened": sorted(opened),
    }
    print(json.dumps(report))


def kernel_log() -> Tuple[bool, str]:
    """Return whether the kernel's log is gVisor's, and its first line, or why there is none."""
    buffer = ctypes.create_string_buffer(64 * 1024)
    try:
        length = ctypes.CDLL(None, use_errno=True).klogctl(_SYSLOG_ACTION_READ_ALL, buffer, len(buffer))
    except (OSError, AttributeError) as error:
        return False, str(error)
    if length < 0:
        return False, "no kernel log: " + os.strerror(ctypes.get_errno())
    log = buffer.raw[:length].decode("utf-8", "replace")
    first = (log.splitlines() or ["an empty kernel log"])[0]
    return "Starting gVisor" in first, first.rpartition("] ")[2].strip()


def knock(item: Tuple[int, Dict[str, Any]], seconds: float, opened: List[int]) -> None:
    """Try a target until it answers or the time is over; some networks close a moment after a pod starts."""
    number, target = item
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            answer(target, min(seconds, _SLICE_SECONDS))
        except OSError:
            time.sleep(0.05)
        else:
            opened.append(number)
            return


def answer(target: Dict[str, Any], seconds: float) -> None:
    """Return once a target answers.

    Raises:
        OSError: it does not.
    """
    family = socket.AF_INET6 if ":" in target["address"] else socket.AF_INET
    by_udp = target["protocol"] == "dns"
    with socket.socket(family, socket.SOCK_DGRAM if by_udp else socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect((target["address"], target["port"]))
        if by_udp:
            connection.send(query())
            connection.recv(512)


def query() -> bytes:
    """Return a DNS query (RFC 1035) for a name of the cluster itself."""
    labels = b"kubernetes.default.svc.cluster.local".split(b".")
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    header = b"\x12\x34" + b"\x01\x00" + b"\x00\x01" + b"\x00\x00" * 3
    return header + name + b"\x00\x01" + b"\x00\x01"


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
