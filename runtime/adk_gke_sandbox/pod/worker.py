"""The worker inside the pod: what makes an interpreter the user's program, up to its first line.

It is the interpreter itself, started by ``supervisor`` as ``python main.py`` before the request is read, with this file
as its ``sitecustomize``. Here it removes its traces, imports what it is told to preload, waits for the request, sets
the limits and returns; only then does the interpreter open ``main.py``. So the program has no frame of ours below it.

Standard library only, any CPython from 3.8 on.
"""

# pathlib would be an import to pay for; the data are our own.
# ruff: noqa: PTH100, PTH106, PTH107, PTH118, PTH120, PTH123, PTH208, S302

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict

    Json = Dict[str, Any]


def prepare() -> None:
    """Wait for the request, then make this process what ``python main.py`` would be at this point."""
    import marshal
    import os
    import sys

    os.setsid()
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "setting"), "rb") as setting:
        go, status, python_path, preload = marshal.load(setting)
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    os.rmdir(folder)
    sys.path.remove(folder)
    sys.path_importer_cache.pop(folder, None)
    if python_path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = python_path
    for name in preload:
        try:
            __import__(name)
        except ImportError:
            continue
    orders = os.fdopen(go, "rb")
    try:
        spec = marshal.load(orders)
    except EOFError:
        os._exit(1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(spec["limits"]["cpu_count"])
    os.environ.update(spec["env"])
    sys.argv[1:] = spec["argv"]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[2:] = spec["argv"]
    save_figures_at_end()
    use_own_sitecustomize()
    set_limits(spec["limits"])
    os.write(status, b".")
    os.close(status)
    if not orders.read(1):
        os._exit(1)
    orders.close()


def set_limits(limits: Json) -> None:
    """Bound what the program may take."""
    import resource

    bounds = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, limits["open_files"])]
    if limits["processes"]:
        bounds.append((resource.RLIMIT_NPROC, limits["processes"]))
    if limits["written_file_bytes"]:
        bounds.append((resource.RLIMIT_FSIZE, limits["written_file_bytes"]))
    if limits["memory_bytes"]:
        bounds.append((resource.RLIMIT_AS, limits["memory_bytes"]))
    for bound, value in bounds:
        hard = resource.getrlimit(bound)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(bound, (value, value))


def save_figures_at_end() -> None:
    """Save the figures that the program leaves open, as a notebook would show them.

    The interpreter calls ``threading._shutdown`` when the program has ended; at exit, Matplotlib's own handler
    would be earlier than one of ours.
    """
    import os
    import sys
    import threading

    shutdown, own = threading._shutdown, os.getpid()  # type: ignore[attr-defined]

    def save() -> None:
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None and os.getpid() == own:
            try:
                for number in pyplot.get_fignums():
                    index = number
                    while os.path.lexists(f"figure_{index}.png"):
                        index += 1
                    pyplot.figure(number).savefig(f"figure_{index}.png")
            except Exception as error:
                print(f"open figures could not be saved: {error}", file=sys.stderr)

    def end(*arguments: Any) -> None:
        shutdown(*arguments)
        save()

    threading._shutdown = end  # type: ignore[attr-defined]


def use_own_sitecustomize() -> None:
    """Import the ``sitecustomize`` of the image, if it has one, in place of this one."""
    import sys

    ours = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        sys.modules["sitecustomize"] = ours


if __name__ == "sitecustomize":
    try:
        prepare()
    except BaseException as error:
        # The interpreter would go on to the program, without its limits.
        import os

        os.write(2, (f"{type(error).__name__}: {error}").encode("utf-8", "replace"))
        os._exit(1)
