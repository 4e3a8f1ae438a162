"""The figures that the program leaves open: saved as PNG when it ends, as a notebook would show them.

Executed inside of the program by ``worker``, once Matplotlib is imported. A figure that the program has saved itself is
left alone. It has, if the file lies in the working directory and no other figure was saved over it, or if it went
elsewhere than to a file (into a buffer, a page of a PDF, a frame of an animation), and nothing was added to it or
removed since. A figure that cannot be saved is named with the cause and costs no other one.

Standard library only, any CPython from 3.8 on.
"""

# pathlib would be an import to pay for.
# ruff: noqa: PTH100, PTH107, PTH110, PTH118

from __future__ import annotations

import os
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    Saves = Dict[Any, Tuple[Any, List[Any]]]

CHARACTERS = 300
"""The most that is shown of a cause."""

NAMED = 5
"""Figures that are named for one cause; the others are counted."""

saves: Saves = {}
"""What was saved last, and what was in it: by the path, or by the figure where there is none. All references are weak."""


class Watched:
    """Stands for a canvas' method that saves its figure, and notes each use of it.

    A function around the method would be in the traceback of a figure that cannot be saved.
    """

    def __init__(self, method: Any) -> None:
        self.method = method

    def __get__(self, canvas: Any, owner: Any = None) -> Any:
        try:
            if canvas is not None:
                # Called by ``Figure.savefig`` as a rule, whose argument tells the file.
                note(canvas.figure, sys._getframe(1).f_locals.get("fname"))
        except Exception:
            # Something that is no figure; the program is to see its own mistakes only.
            return self.method.__get__(canvas, owner)
        return self.method.__get__(canvas, owner)


def watch(canvas: Any) -> None:
    """Note from now on which figures are saved by a canvas of this class."""
    canvas.print_figure = Watched(canvas.print_figure)


def note(figure: Any, target: Any) -> None:
    """Remember that a figure is being saved."""
    path = os.path.abspath(os.fsdecode(target)) if isinstance(target, (str, bytes, os.PathLike)) else None
    saves[path or weakref.ref(figure)] = (weakref.ref(figure), [weakref.ref(artist) for artist in artists(figure)])


def artists(figure: Any) -> list[Any]:
    """Return what is drawn in a figure; an artist that has changed is the same."""
    return [*figure.get_children(), *(artist for axes in figure.axes for artist in axes.get_children())]


def is_saved(figure: Any, folder: str, extension: str) -> bool:
    """Return whether the program has saved a figure as it is now."""
    for path, (saved, content) in saves.items():
        if saved() is not figure or [artist() for artist in content] != artists(figure):
            continue
        # Matplotlib adds its default extension where there is none.
        if not isinstance(path, str) or (
            path.startswith(f"{folder}/") and (os.path.exists(path) or os.path.exists(f"{path}.{extension}"))
        ):
            return True
    return False


def save(pyplot: Any, folder: str, number: int) -> None:
    """Save the open figures into a folder as ``figure_NUMBER.png``, and say in a few lines what is wrong with them."""
    import logging
    import warnings

    # Says for each text that a font is missing; what follows from it is said below.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    failed: dict[str, list[str]] = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for figure in map(pyplot.figure, pyplot.get_fignums()):
            if is_saved(figure, folder, pyplot.rcParams["savefig.format"]):
                continue
            while os.path.lexists(path := f"{folder}/figure_{number}.png"):
                number += 1
            try:
                figure.savefig(path)
            except Exception as error:
                failed.setdefault(cause_of(error), []).append(f"figure_{number}.png")
                if os.path.lexists(path):
                    os.remove(path)
            number += 1
    for cause, names in failed.items():
        tell(f"{', '.join(names[:NAMED])}{more(names, NAMED)} could not be saved: {cause}")
    texts = list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in warned))
    glyphs = [chr(int(text.split()[1])) for text in texts if text.startswith("Glyph ")]
    if glyphs:
        tell(f"figures have boxes in place of characters that no font here has: {''.join(glyphs)[:CHARACTERS]}")
    others = [text for text in texts if not text.startswith("Glyph ")]
    if others:
        tell(f"while figures were saved: {others[0][:CHARACTERS]}{more(others, 1)}")


def cause_of(error: Exception) -> str:
    """Return an error as one line."""
    cause = " ".join(f"{type(error).__name__}: {error}".split())[:CHARACTERS]
    return cause + (r" (a dollar sign in a text is written \$)" if "ParseException" in cause else "")


def more(items: list[str], named: int) -> str:
    """Return how many there are beside those that are named."""
    return f" and {len(items) - named} more" if len(items) > named else ""


def tell(line: str) -> None:
    """Write a line where the program's last words are."""
    print(line, file=sys.__stderr__)
