"""Attacks from inside, each named by its result."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any

import pytest

from adk_gke_sandbox.execution import Outcome, Reason
from infra.local.layout import Layout
from tests.conformance.paths import Execute
from tests.conformance.programs import program

pytestmark = pytest.mark.cluster

FACTS = """
import json, os, subprocess
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())

def text(path):
    try:
        return open(path).read()
    except OSError as error:
        return error.strerror

print(json.dumps({
    "kernel": subprocess.run(["dmesg"], capture_output=True, text=True).stdout.splitlines()[0],
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privs": status.get("NoNewPrivs", "").strip(),
    "processes": {pid: text(f"/proc/{pid}/cmdline").split("\\0") for pid in pids},
    "secrets": [path for path in ("/var/run/secrets", "/run/secrets") if os.path.exists(path)],
    "mounts": [line.split()[1:4] for line in open("/proc/self/mounts")],
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "resolver": text("/etc/resolv.conf"),
    "hosts": text("/etc/hosts"),
    "dev": sorted(os.listdir("/dev")),
    "self": os.getpid(), "parent": os.getppid(),
}))
"""


@pytest.fixture
def facts(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


@program(FACTS)
def test_the_kernel_is_gvisors(facts: dict[str, Any]) -> None:
    assert "Starting gVisor" in facts["kernel"]


@program(FACTS)
def test_the_user_is_not_root_in_any_way(facts: dict[str, Any]) -> None:
    assert (facts["uids"], facts["gids"], facts["groups"]) == ([1001] * 3, [1001] * 3, [1001])


@program(FACTS)
def test_there_is_no_capability(facts: dict[str, Any]) -> None:
    assert {int(value, 16) for value in facts["capabilities"]} == {0}


@program(FACTS)
def test_no_process_is_visible_but_the_programs_and_its_supervisor(facts: dict[str, Any]) -> None:
    assert set(map(int, facts["processes"])) == {facts["parent"], facts["self"]}


@program(FACTS)
def test_there_is_no_token_and_no_secret(facts: dict[str, Any]) -> None:
    assert facts["secrets"] == []


@program(FACTS)
def test_no_name_server_and_no_host_is_known(facts: dict[str, Any]) -> None:
    servers = [line.split()[1] for line in facts["resolver"].splitlines() if line.startswith("nameserver")]
    assert servers == ["127.0.0.1"]


@program(FACTS)
def test_only_the_working_and_the_temporary_directory_are_writable_mounts(facts: dict[str, Any]) -> None:
    kernel = {"proc", "sysfs", "devpts", "mqueue", "cgroup", "devtmpfs"}
    writable = {point for point, kind, options in facts["mounts"] if "rw" in options.split(",") and kind not in kernel}
    assert writable <= {
        "/workspace",
        "/tmp",
        "/dev",
        "/dev/shm",
        "/dev/termination-log",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    }


def tried(actions: dict[str, str], setup: str = "") -> str:
    """Return a program that tries each action and prints a line of what came of it: the error, or OPEN."""
    return (
        "import ctypes, os, signal, socket, subprocess, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(name, *arguments):\n    if getattr(libc, name)(*arguments) < 0:\n"
        "        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
        f"{setup}\nfor name, action in {actions!r}.items():\n"
        "    try:\n        exec(action)\n        print(name + ': OPEN')\n"
        "    except Exception as error:\n        print(name + ': ' + type(error).__name__, file=sys.stderr)\n"
    )


def opened(outcome: Outcome, actions: dict[str, str]) -> list[str]:
    """Return the actions that went through, once all have been tried."""
    lines = (outcome.stdout + outcome.stderr).decode().splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == sorted(actions), outcome
    return [line.split(": ")[0] for line in lines if line.endswith("OPEN")]


SUPERVISOR = {
    **{
        f"read {name}": f"open(f'/proc/{{SUPERVISOR}}/{name}', 'rb').read(1)"
        for name in ("environ", "maps", "auxv", "mem")
    },
    **{
        f"follow {name}": f"os.readlink(f'/proc/{{SUPERVISOR}}/{name}')"
        for name in ("fd/0", "fd/1", "exe", "cwd", "root")
    },
    "write fd/1": "open(f'/proc/{SUPERVISOR}/fd/1', 'wb').write(b'x')",
    "write fd/2": "open(f'/proc/{SUPERVISOR}/fd/2', 'wb').write(b'x')",
    "write mem": "open(f'/proc/{SUPERVISOR}/mem', 'r+b')",
    "enter cwd": "os.listdir(f'/proc/{SUPERVISOR}/cwd/')",
    "enter root": "os.listdir(f'/proc/{SUPERVISOR}/root/')",
    "trace it": "call('ptrace', 16, SUPERVISOR, 0, 0)",
    "read its memory": (
        "b = ctypes.create_string_buffer(8)\nclass V(ctypes.Structure):\n"
        "    _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]\n"
        "v = V(ctypes.addressof(b), 8)\ncall('process_vm_readv', SUPERVISOR, ctypes.byref(v), 1, ctypes.byref(v), 1, 0)"
    ),
    "take its descriptor": "call('syscall', 438, os.pidfd_open(SUPERVISOR), 1, 0)",
}


@program(tried(SUPERVISOR, "SUPERVISOR = os.getppid()"))
def test_the_supervisors_memory_descriptors_and_variables_are_out_of_reach(outcome: Outcome) -> None:
    assert opened(outcome, SUPERVISOR) == []


ROOT = {
    **{
        f"write {path}": f"open({path + '/x'!r}, 'w')"
        for path in ("/", "/etc", "/usr/bin", "/root", "/var", "/home", "/opt")
    },
    "write /etc/passwd": "open('/etc/passwd', 'a')",
    "write /etc/hosts": "open('/etc/hosts', 'a').write('x')",
    "write the runner": "open('/etc/sandbox/supervisor.py', 'a')",
    "replace the runner": "os.rename('/tmp', '/etc/sandbox')",
    "make a folder": "os.mkdir('/new')",
    "chmod the interpreter": "os.chmod(os.path.realpath(sys.executable), 0o777)",
    "write a sysctl": "open('/proc/sys/kernel/hostname', 'w').write('x')",
    "write sysfs": "open('/sys/kernel/x', 'w')",
    "trigger sysrq": "open('/proc/sysrq-trigger', 'w').write('b')",
}


@program(tried(ROOT))
def test_nothing_outside_the_two_directories_can_be_written(outcome: Outcome) -> None:
    assert opened(outcome, ROOT) == []


PRIVILEGES = {
    "become root": "os.setuid(0)",
    "become another user": "os.setresuid(1000, 1000, 1000)",
    "join a group": "os.setgroups([0])",
    "give a file away": "open('given', 'w').close(); os.chown('given', 0, 0)",
    "mount": "call('mount', b'none', b'/tmp', b'tmpfs', 0, None)",
    "remount the root": "call('mount', b'none', b'/', None, 32, None)",
    "chroot": "os.chroot('/tmp')",
    "load a module": "call('syscall', 313, 0, b'', 0)",
    "set the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "set the host name": "socket.sethostname('x')",
    "reboot": "call('reboot', 0)",
    "open a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "open a packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "load a BPF program": "call('syscall', 321, 0, 0, 0)",
    "use io_uring": "call('syscall', 425, 1, 0)",
    "open by handle": "call('syscall', 304, -1, 0, 0)",
    "use perf events": "call('syscall', 298, 0, 0, -1, -1, 0)",
    "use the keyring": "call('syscall', 250, 0, 0, 0)",
    "map the null page": "call('syscall', 9, 0, 4096, 7, 0x32, -1, 0)",
    "read the kernel's memory": "open('/dev/mem', 'rb')",
    "read kernel addresses": "open('/proc/kcore', 'rb').read(1)",
    "use KVM": "open('/dev/kvm', 'rb')",
    "use a set-user-id program": "subprocess.run(['su', '-c', 'true'], check=True, stdin=-3, stderr=-3)",
}


@program(tried(PRIVILEGES))
def test_no_privilege_can_be_gained(outcome: Outcome) -> None:
    assert opened(outcome, PRIVILEGES) == []


@program(
    "import os, shutil, subprocess\nshutil.copy('/bin/bash', 'mine')\nos.chmod('mine', 0o6755)\n"
    "print(subprocess.run(['./mine', '-p', '-c', 'id -u; id -g'], capture_output=True, text=True).stdout.split())\n"
    "os.remove('mine')"
)
def test_a_set_user_id_file_gives_nothing(outcome: Outcome) -> None:
    assert outcome.stdout == b"['1001', '1001']\n", outcome.stderr


def test_no_byte_leaves_the_sandbox(
    execute: Execute, layout: Layout, recorder: tuple[int, subprocess.Popen[str]]
) -> None:
    port, process = recorder
    outcome = execute(
        "import socket, time\nend = time.monotonic() + 3\nwhile time.monotonic() < end:\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
        "        s = socket.socket(socket.AF_INET, kind)\n        s.settimeout(0.3)\n        try:\n"
        f"            s.connect(({layout.node_address!r}, {port}))\n            s.sendall(b'escaped')\n"
        "            if kind == socket.SOCK_STREAM:\n                print('open')\n"
        "        except OSError:\n            pass\n        s.close()\n"
    )
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"")
    with socket.create_connection((layout.node_address, port)) as control:
        control.sendall(b"control")
    assert process.stdout
    assert process.stdout.readline() == "control\n"


@program(
    "import socket\ntry:\n    print(socket.getaddrinfo('example.invalid', 80))\n"
    "except OSError as error:\n    print(type(error).__name__)"
)
def test_no_name_is_resolved(outcome: Outcome) -> None:
    assert outcome.stdout == b"gaierror\n"


@program(
    "import os, signal, time\nprint('before', end='', flush=True)\ntime.sleep(0.5)\n"
    "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"
)
def test_killing_the_supervisor_is_no_success(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.started) == (Reason.SANDBOX_LOST, True)
    assert outcome.stdout == b"before"


@program(
    "import os, signal, time\nprint('before', end='', flush=True)\ntime.sleep(0.5)\n"
    "os.kill(os.getppid(), signal.SIGSTOP)\nos._exit(0)",
    timeout_seconds=2,
)
def test_stopping_the_supervisor_ends_at_the_clients_deadline_and_is_no_success(outcome: Outcome) -> None:
    assert outcome.reason is Reason.DEADLINE_EXCEEDED
    assert outcome.stdout == b"before"
    assert outcome.message == "the program was killed after 2 s. Do less, or raise timeout_seconds"


def test_executions_side_by_side_do_not_see_each_other(execute: Execute) -> None:
    from concurrent.futures import ThreadPoolExecutor

    code = (
        "import glob, sys, time\nseen = set()\nend = time.monotonic() + 4\nwhile time.monotonic() < end:\n"
        "    for path in glob.glob('/proc/[0-9]*/cmdline'):\n        seen.add(open(path).read())\n    time.sleep(0.1)\n"
        "print(sorted(word for line in seen for word in line.split(chr(0)) if word.startswith('mark-')))"
    )
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda mark: execute(code, argv=(mark,)), ("mark-a", "mark-b")))
    assert [outcome.stdout for outcome in outcomes] == [b"[]\n"] * 2
