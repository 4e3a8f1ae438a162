"""The worker inside the pod: what makes an interpreter the user's program, up to its first line.

It is the interpreter itself, started by ``supervisor`` as ``python main.py`` before the request is read, with this file
as its ``sitecustomize``. Here it removes its traces, waits for the request, sets the limits and returns; only then does
the interpreter open ``main.py``. So the program has no frame of ours below it.

Standard library only, any CPython from 3.8 on.
"""

# pathlib would be an import to pay for; the data are our own.
# ruff: noqa: PTH100, PTH106, PTH107, PTH109, PTH118, PTH120, PTH123, PTH208, S102, S302

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
        go, status, python_path, pod = marshal.load(setting)
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    os.rmdir(folder)
    sys.path.remove(folder)
    sys.path_importer_cache.pop(folder, None)
    if python_path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = python_path
    orders = os.fdopen(go, "rb")
    try:
        spec = marshal.load(orders)
    except EOFError:
        os._exit(1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(spec["limits"]["cpu_count"])
    os.environ.update(spec["env"])
    exec(spec["customize"], {})
    sys.argv[1:] = spec["argv"]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[2:] = spec["argv"]
    save_figures = figures_saver(pod, spec["first_figure"])
    use_own_sitecustomize()
    # Out of the way of the numbers that a program's own files get.
    report = min(spec["limits"]["open_files"], 256) - 1
    os.dup2(status, report, inheritable=False)
    os.close(status)
    watch_the_end(report, spec["flush"], pod, save_figures)
    set_limits(spec["limits"])
    os.write(report, b".")
    if not orders.read(1):
        os._exit(1)
    orders.close()


def watch_the_end(report: int, flush_signal: int, pod: str, save_figures: Any) -> None:
    """Tell the supervisor through ``report`` that the program has come to its end, and which limit ended it.

    The interpreter calls ``threading._shutdown`` when the program has ended; at exit, Matplotlib's own handler would be
    earlier than one that saves its figures. A program that an exception ends is told, after its traceback, what to do
    about it (``hints``). When the supervisor is about to kill it, it sends ``flush_signal`` for the unfinished line.
    """
    import _signal  # type: ignore[import-not-found]
    import os
    import sys
    import threading

    shutdown, own, pipe = threading._shutdown, os.getpid(), os.fstat(report)  # type: ignore[attr-defined]

    def tell(word: str) -> None:
        try:
            # The program may have closed it and opened something else under its number; a child has the same.
            if os.getpid() == own and os.path.samestat(os.fstat(report), pipe):
                os.write(report, f"{word}\n".encode("ascii"))
        except OSError:
            return

    def flush(*_: Any) -> None:
        for stream in (sys.stdout, sys.__stdout__, sys.stderr):
            try:
                stream.flush()  # type: ignore[union-attr]
            except Exception:  # noqa: S112 - the program's own streams
                continue
        tell("flushed")

    def end(*arguments: Any) -> None:
        # The interpreter sets it when it shows the traceback of an exception that nobody has handled.
        error, limit = getattr(sys, "last_value", None), ""
        try:
            limit = limit_of(error)
        except Exception:
            # One that cannot be looked at tells of none.
            error = None
        tell(f"ended {limit}")
        shutdown(*arguments)
        if os.getpid() != own:
            return
        save_figures()
        if error is None or limit or sys.excepthook is not sys.__excepthook__:
            return
        try:
            hint = load(pod, "hints")["hint_for"](error)
            if hint:
                flush()
                os.write(2, f"hint: {hint}\n".encode("utf-8", "backslashreplace"))
        except Exception:
            # The traceback is there.
            return

    _signal.signal(flush_signal, flush)
    threading._shutdown = end  # type: ignore[attr-defined]


def limit_of(error: Any) -> str:
    """Return which limit an exception tells of, by its exact type; nothing if none."""
    import builtins
    import errno

    group: Any = getattr(builtins, "BaseExceptionGroup", ())
    while isinstance(error, group):
        error = error.exceptions[0]
    kind = type(error)
    home, _, _ = str(kind.__module__).partition(".")
    code = getattr(error, "errno", None) if home == "builtins" else None
    where = module_of(error)
    if (isinstance(error, MemoryError) and home in ("builtins", "numpy", "pyarrow")) or code == errno.ENOMEM:
        return "memory"
    # The dynamic linker has no exception of its own; NumPy raises another one after it.
    if kind is ImportError and "failed to map segment from shared object" in f"{error}{error.__cause__}":
        return "memory"
    if code == errno.ENOSPC or (home == "sqlite3" and getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"):
        return "space"
    if code == errno.EAGAIN and (where in ("subprocess", "multiprocessing.popen_fork") or no_more_tasks()):
        # A read that would block has the same number.
        return "processes"
    if kind is RuntimeError and error.args == ("can't start new thread",) and (where == "threading" or no_more_tasks()):
        return "threads"
    return {errno.EMFILE: "files", errno.EFBIG: "size"}.get(code, "") if code else ""


def module_of(error: Any) -> str:
    """Return the name of the module that raised an exception."""
    trace = getattr(error, "__traceback__", None)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))


def no_more_tasks() -> bool:
    """Return whether the kernel still refuses another process or thread."""
    import _thread

    try:
        _thread.start_new_thread(int, ())
    except RuntimeError:
        return True
    return False


def set_limits(limits: Json) -> None:
    """Bound what the program may take."""
    import resource

    bounds = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, limits["open_files"])]
    if limits["processes"]:
        bounds.append((resource.RLIMIT_NPROC, limits["processes"] + tasks_of_others()))
    if limits["written_file_bytes"]:
        bounds.append((resource.RLIMIT_FSIZE, limits["written_file_bytes"]))
    if limits["memory_bytes"]:
        bounds.append((resource.RLIMIT_AS, limits["memory_bytes"]))
    for bound, value in bounds:
        hard = resource.getrlimit(bound)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(bound, (value, value))


def tasks_of_others() -> int:
    """Return how many processes and threads the kernel counts for this user beside this one.

    Those of the pod's other containers are among them, which cannot be seen; so the count is where a thread starts.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    # There are never fewer, and each try takes time.
    for count in range(5, 100):
        resource.setrlimit(resource.RLIMIT_NPROC, (count + 1, hard))
        if not no_more_tasks():
            return count - 1
    return 0


def load(pod: str, name: str) -> Json:
    """Return what a program of the pod defines, one that few of the user's programs need, or only at their end."""
    path = f"{pod}/{name}.py"
    names: Json = {"__name__": name, "__file__": path}
    with open(path, "rb") as source:
        exec(compile(source.read(), path, "exec"), names)
    return names


def figures_saver(pod: str, first: int) -> Any:
    """Return what saves the figures that the program leaves open (``figures``), the first one under this number."""
    import os
    import sys

    folder = os.getcwd()
    figures: Json = {}

    class Watch:
        """Is asked for each module that is imported, and has none; so it notices Matplotlib."""

        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            canvas = getattr(sys.modules.get("matplotlib.backend_bases"), "FigureCanvasBase", None)
            if canvas is not None and not figures and name.startswith("matplotlib"):
                figures.update(load(pod, "figures"))
                canvas.print_figure = figures["Watched"](canvas.print_figure)

    def save() -> None:
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            try:
                (figures or load(pod, "figures"))["save"](pyplot, folder, first)
            except Exception as error:
                print(f"open figures could not be saved: {error}", file=sys.stderr)

    # Whatever starts the interpreter may have imported it.
    Watch.find_spec("matplotlib")
    sys.meta_path.insert(0, Watch)
    return save


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
