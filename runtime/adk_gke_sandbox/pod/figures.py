"""The figures that the program leaves open: saved as PNG when it ends, as a notebook would show them.

Executed inside of the program by ``worker``, once Matplotlib is imported. A figure that the program has saved itself is
left alone. It has, if the file lies in the working directory and no other figure was saved over it, or if it went
elsewhere than to a file (into a buffer, a page of a PDF, a frame of an animation), and nothing was added to it or
removed since. A figure that cannot be saved is named with the cause and costs no other one.

Standard library only, any CPython from 3.8 on.
"""

# pathlib would be an import to pay for.
# ruff: noqa: PTH100

from __future__ import annotations

import os
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    Saves = Dict[Any, Tuple[Any, List[Any]]]

CHARACTERS = 400
"""The longest line on figures."""

ADVICE = r" (a dollar sign in a text is written \$)"
"""Matplotlib takes what is between two dollar signs for mathematics."""

saves: Saves = {}
"""What was saved last, and what was in it: by the path, or by the figure where there is none. All references are weak."""


class Watched:
    """Stands for a canvas' method that saves its figure, and notes each use of it.

    A function around the method would be in the traceback of a figure that cannot be saved.
    """

    def __init__(self, method: Any) -> None:
        self.method = method

    def __get__(self, canvas: Any, owner: Any = None) -> Any:
        method = self.method.__get__(canvas, owner)
        try:
            figure = weakref.ref(canvas.figure)
            # Called by ``Figure.savefig`` as a rule, whose argument tells the file.
            target = sys._getframe(1).f_locals.get("fname")
            key = os.path.abspath(os.fsdecode(target)) if isinstance(target, (str, os.PathLike)) else figure
            saves[key] = (figure, [weakref.ref(artist) for artist in artists(canvas.figure)])
        except Exception:
            # Not of a canvas, or something is wrong with the figure or its file: the method is to say so, not we.
            return method
        return method


def artists(figure: Any) -> list[Any]:
    """Return what is drawn in a figure; an artist that has changed is the same."""
    return [*figure.get_children(), *(artist for axes in figure.axes for artist in axes.get_children())]


def is_saved(figure: Any, folder: str, extension: str) -> bool:
    """Return whether the program has saved a figure with what is in it now."""
    content = artists(figure)
    return any(
        saved() is figure
        and [artist() for artist in then] == content
        # Matplotlib adds its default extension where there is none.
        and (key is saved or (key.startswith(f"{folder}/") and any(map(os.path.exists, (key, f"{key}.{extension}")))))
        for key, (saved, then) in saves.items()
    )


def save(pyplot: Any, folder: str, number: int) -> None:
    """Save the open figures into a folder as ``figure_NUMBER.png``, and say in a few lines what is wrong with them."""
    import logging
    import warnings

    # Says for each text that a font is missing; what follows from it is said below.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    failed: dict[str, list[str]] = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for identity in pyplot.get_fignums():
            try:
                figure = pyplot.figure(identity)
                if is_saved(figure, folder, pyplot.rcParams["savefig.format"]):
                    continue
                while os.path.lexists(path := f"{folder}/figure_{number}.png"):
                    number += 1
                figure.savefig(path)
            except Exception as error:
                failed.setdefault(f"{type(error).__name__}: {error}", []).append(f"figure_{number}.png")
            number += 1
    notes = [
        f"{', '.join(names)} could not be saved{ADVICE if 'Parse' in cause else ''}: {cause}"
        for cause, names in failed.items()
    ]
    # All else that Matplotlib warns of, such as a layout that does not fit, is to be seen in the figure.
    texts = dict.fromkeys(str(warning.message) for warning in warned)
    glyphs = [chr(int(text.split()[1])) for text in texts if text.startswith("Glyph ")]
    if glyphs:
        notes.append(f"figures show boxes in place of characters that no font here has: {''.join(glyphs)}")
    for note in notes:
        print(" ".join(note.split())[:CHARACTERS], file=sys.__stderr__)
