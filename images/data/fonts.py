"""Prepares Matplotlib in the sandbox image: labels in any common script, and no list of fonts to make at each run.

Run by the image's own Python while the image is built, as root, with MPLCONFIGDIR naming a folder. A sandbox links
what is in that folder into the program's own.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.font_manager import FontEntry

CJK = "WenQuanYi Micro Hei"
"""Latin, Greek, Cyrillic, kana, hangul, and Han of both kinds, in one file of 5 MB (fonts-wqy-microhei)."""

FALLBACKS = (CJK, "Symbola")
"""Families that Matplotlib looks into for a glyph that the program's font lacks."""

NAMES = (
    *("SimHei", "SimSun", "NSimSun", "KaiTi", "FangSong", "Microsoft YaHei", "Microsoft JhengHei", "PingFang SC"),
    *("PingFang TC", "PingFang HK", "Heiti SC", "Heiti TC", "STHeiti", "STSong", "STKaiti", "Songti SC", "Kaiti SC"),
    *("Hiragino Sans GB", "Hiragino Sans", "Hiragino Kaku Gothic Pro", "Hiragino Kaku Gothic ProN", "MS Gothic"),
    *("MS PGothic", "MS Mincho", "Meiryo", "Yu Gothic", "YuGothic", "IPAexGothic", "IPAGothic", "IPAPGothic"),
    *("TakaoGothic", "TakaoPGothic", "VL Gothic", "VL PGothic", "Malgun Gothic", "NanumGothic", "NanumBarunGothic"),
    *("AppleGothic", "Apple SD Gothic Neo", "Gulim", "Dotum", "Batang", "Arial Unicode MS", "Droid Sans Fallback"),
    *("WenQuanYi Zen Hei", "AR PL UMing CN", "AR PL UKai CN"),
    *(
        f"{source} {kind}"
        for source in ("Source Han Sans", "Source Han Serif")
        for kind in ("CN", "SC", "TC", "JP", "KR")
    ),
    *(
        f"Noto {style}{kind}"
        for style in ("Sans CJK ", "Serif CJK ", "Sans ")
        for kind in ("SC", "TC", "HK", "JP", "KR")
    ),
)
"""Fonts of other systems by which programs ask for such labels; the one that is here answers to all of them."""


def with_fallbacks(text: str) -> str:
    """Return a configuration or style sheet of Matplotlib with the fallbacks behind each family that it sets.

    In Matplotlib's own files, because `rcdefaults()` and styles go back to these, whatever a user's file says.
    """
    return re.sub(r"^(#?font\.family *: *[\w-]+) *$", rf"\1, {', '.join(FALLBACKS)}", text, flags=re.MULTILINE)


def with_names(fonts: list[FontEntry]) -> list[FontEntry]:
    """Return a list of fonts in which the fallbacks go by all names, and as bold, in an order that is always the same.

    A font that is found without the weight asked for is a warning on each run, even if no glyph comes from it.
    """
    more = [
        replace(font, name=name, weight=weight)
        for font in fonts
        if font.name in FALLBACKS
        for name in (font.name, *(NAMES if font.name == CJK else ()))
        for weight in (400, 700)
    ]
    kept = [font for font in fonts if font.name not in FALLBACKS]
    return sorted([*kept, *more], key=lambda font: (font.fname, font.index, font.name, int(_weight(font))))


def _weight(font: FontEntry) -> int:
    from matplotlib.font_manager import weight_dict

    return font.weight if isinstance(font.weight, int) else weight_dict[font.weight]


def _edit() -> None:
    # Before the first import, which reads them.
    package = importlib.util.find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    data = Path(package.origin).with_name("mpl-data")
    for file in (data / "matplotlibrc", *sorted((data / "stylelib").glob("*.mplstyle"))):
        file.write_text(with_fallbacks(file.read_text(encoding="utf-8")), encoding="utf-8")


def _list() -> None:
    from matplotlib import font_manager

    manager = font_manager.fontManager
    manager.ttflist = with_names(manager.ttflist)
    path = Path(os.environ["MPLCONFIGDIR"]) / f"fontlist-v{manager._version}.json"
    font_manager.json_dump(manager, path)
    path.chmod(0o644)


def _check() -> None:
    """Draw what must work, every warning an error, as a build that does not fulfil its purpose is worth nothing."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("Agg")
    heard = io.StringIO()
    logging.getLogger("matplotlib").addHandler(logging.StreamHandler(heard))
    warnings.simplefilter("error")
    for setting in (
        {},
        {"font.sans-serif": ["SimHei"]},
        {"font.sans-serif": ["Malgun Gothic"]},
        "seaborn-v0_8",
        "ggplot",
    ):
        pyplot.rcdefaults()
        if isinstance(setting, str):
            pyplot.style.use(setting)
        else:
            pyplot.rcParams.update(setting)
        pyplot.bar(["北京", "臺北", "東京", "カタカナ", "서울"], [1, 2, -3, 4, 5])
        pyplot.title("Größe Ελλάδα Москва 销售额 😀 📈", fontweight="bold")
        pyplot.savefig(io.BytesIO())
        pyplot.close()
    if heard.getvalue():
        raise SystemExit(heard.getvalue())


if __name__ == "__main__":
    _edit()
    _list()
    _check()
