"""Matplotlib figures: the colours of charts, and names shown in the fonts that are installed."""

import logging
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from vidpool.files import printable

# chart colours of Okabe and Ito, which colour-blind people can tell apart
BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, AMBER, PINK = "#D55E00", "#E69F00", "#CC79A7"
GREY, BLACK = "#999999", "#000000"

_log = logging.getLogger(__name__)
# fonts that have a glyph for every character, but not of the character; bitmaps, which do not scale
_NOT_FOR_TEXT = ("Last Resort", "Adobe Blank", "Color Emoji")
_CJK = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH")


def plain_text(text: str) -> str:
    """Return a text that Matplotlib draws as it is.

    Dollar signs do not begin a formula, and characters that cannot be shown are escaped, except
    line breaks; see :func:`vidpool.files.printable`.
    """
    return "\n".join(map(printable, text.split("\n"))).replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float) -> None:
    r"""Save a figure in which every character has a glyph.

    Characters that a text's font lacks are drawn in other fonts that are installed. A character
    that no font has is replaced by its escape, such as ``\u8dd1``, and a line in the log names the
    package to install.

    Args:
        figure: The figure; fonts and texts in it are changed where need be.
        path: The file; its suffix gives the format.
        dpi: Pixels per inch.

    Raises:
        OSError: The file cannot be written.
    """
    lacking = {text: _lacking(text) for text in _texts(figure)}
    missing = set().union(*lacking.values())
    if missing:
        families, without = _find_families(missing)
        for text, characters in lacking.items():
            if characters - without:
                text.set_fontfamily([*text.get_fontfamily(), *families])
        replacements = {ord(character): _replacement(character) for character in without}
        _replace(figure, lacking, replacements)
        untold = sorted(c for c in without if replacements[ord(c)].strip())
        if untold:
            _log.warning(
                f"{os.fspath(path)}: no installed font has {' '.join(untold[:10])}"
                f"{' ...' if len(untold) > 10 else ''}: the picture shows escapes such as "
                f"{_replacement(untold[0])}. Install a font for them, on Debian or Ubuntu: "
                f"apt install {' '.join(_packages(untold))}"
            )
    with _no_messages_of_weights():
        figure.savefig(path, dpi=dpi)


@contextmanager
def _no_messages_of_weights() -> Iterator[None]:
    """Keep Matplotlib from telling that a font has no regular weight, but a similar one."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _axises(figure: Figure) -> Iterator[Axis]:
    for axes in figure.axes:
        yield from (axes.xaxis, axes.yaxis)


def _texts(figure: Figure) -> list[Text]:
    """All texts of a figure."""
    for axis in _axises(figure):  # tick labels are made on demand
        axis.get_ticklabels()
        axis.get_ticklabels(minor=True)
    return [text for text in figure.findobj(Text) if isinstance(text, Text)]


def _lacking(text: Text) -> set[str]:
    """Characters of a text that its font has no glyph for."""
    characters = set(text.get_text()) - {"\n"}
    if all(" " <= character <= "~" for character in characters):
        return set()
    has = _characters(font_manager.findfont(text.get_fontproperties()))
    return {character for character in characters if ord(character) not in has}


def _replace(figure: Figure, texts: Any, replacements: dict[int, str]) -> None:
    """Replace characters in all texts; tick labels are kept by their axis."""
    for axis in _axises(figure):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        replaced = [label.translate(replacements) for label in labels]
        if replaced != labels:
            axis.set_ticklabels(replaced)
    for text in texts:
        text.set_text(text.get_text().translate(replacements))


def _find_families(missing: set[str]) -> tuple[list[str], set[str]]:
    """Return font families that have missing characters, and the characters that none has."""
    families: list[str] = []
    for find in (_known_fonts, _installed_fonts):
        fonts = find()
        while missing and fonts:
            covered = {
                family: sum(ord(character) in _characters(path) for character in missing)
                for family, path in fonts.items()
            }
            # the one that has most; then one without serifs, as the default has none
            best = max(covered, key=lambda name: (covered[name], "Sans" in name, -len(name), name))
            if not covered[best]:
                break
            families.append(best)
            missing = {c for c in missing if ord(c) not in _characters(fonts[best])}
    return families, missing


def _known_fonts() -> dict[str, str]:
    """Files of the upright fonts that Matplotlib knows, by family; of the most regular weight."""
    fonts = [
        (abs(_weight(font.weight) - 400), font)
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and not any(name in font.name for name in _NOT_FOR_TEXT)
    ]
    fonts.sort(key=lambda pair: pair[0], reverse=True)
    return {font.name: font.fname for _, font in fonts}


def _weight(weight: str | int) -> int:
    return font_manager.weight_dict[weight] if isinstance(weight, str) else weight


def _installed_fonts() -> dict[str, str]:
    """Like :func:`_known_fonts`, with those installed since Matplotlib wrote its list of fonts."""
    known = {os.path.realpath(font.fname) for font in font_manager.fontManager.ttflist}
    for path in sorted(font_manager.findSystemFonts()):
        if os.path.realpath(path) not in known:
            with suppress(Exception):  # a font that Matplotlib cannot use, such as one of bitmaps
                font_manager.fontManager.addfont(path)
    return _known_fonts()


@cache
def _characters(path: str) -> frozenset[int]:
    """Code points that a font file has glyphs for."""
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):  # removed since it was listed, or damaged
        return frozenset()


def _replacement(character: str) -> str:
    """Return the text drawn in place of a character without a glyph."""
    kind = unicodedata.category(character)
    if kind == "Cf" or "VARIATION SELECTOR" in unicodedata.name(character, ""):
        return ""  # has no glyph of its own, but changes its neighbours
    return " " if kind == "Zs" else character.encode("unicode_escape").decode()


def _packages(characters: list[str]) -> list[str]:
    """Debian's packages of fonts that have the characters."""
    packages = set()
    for character in characters:
        name = unicodedata.name(character, "")
        if name.startswith(_CJK):
            packages.add("fonts-noto-cjk")
        elif unicodedata.category(character) == "So":  # emoji among them
            packages.add("fonts-symbola")
        else:
            packages.add("fonts-noto-core")
    return sorted(packages)
