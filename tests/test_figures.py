"""Characters in pictures: drawn in a font that has them, or escaped; never as boxes."""

import logging
import warnings

import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from vidpool import figures
from vidpool.figures import plain_text, save_figure


@pytest.fixture(autouse=True)
def fonts(request, monkeypatch):
    """Make Matplotlib know its own fonts only, and no others installed."""
    if "real_fonts" in request.function.__name__:
        return None
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in str(font.fname)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    return monkeypatch


def labelled(*names):
    figure = Figure(figsize=(3, 3))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), 1, label=plain_text(names[0]))
    axes.set_yticks(range(len(names)), [plain_text(name) for name in names])
    axes.set_xscale("log")
    axes.legend()
    figure.suptitle(plain_text(" ".join(names)))
    return figure


def save(figure, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib's, of glyphs that are missing
        save_figure(figure, path, 60)
    assert path.stat().st_size
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_no_font_has_a_character(tmp_path, caplog):
    figure = labelled("跑步", "hélicoptère", "a\U000e0101", "a\u3000b")
    assert save(figure, tmp_path / "a.png") == [r"\u8dd1\u6b65", "hélicoptère", "a", "a b"]
    assert figure.get_suptitle().startswith(r"\u8dd1\u6b65 h")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("on Debian or Ubuntu: apt install fonts-noto-cjk")
    assert "no installed font has 步 跑:" in record.getMessage()


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("तैरना", "fonts-noto-core"),
        ("\U00013000", "fonts-noto-core"),
        ("달리기", "fonts-noto-cjk"),
        ("🏃", "fonts-symbola"),
    ],
)
def test_message_names_the_package(tmp_path, caplog, text, package):
    save(labelled(text), tmp_path / "a.png")
    (record,) = caplog.records
    assert record.getMessage().endswith(f"apt install {package}")


def test_fonts_that_have_a_character_are_used(tmp_path, caplog):
    has = figures._characters(font_manager.findfont("DejaVu Sans"))
    stix = figures._characters(font_manager.findfont("STIXGeneral"))
    only = chr(min(code for code in stix - has if code > 0x2000))
    figure = labelled(f"{only} and a", "plain")
    assert save(figure, tmp_path / "a.png") == [f"{only} and a", "plain"]
    first, second = figure.axes[0].get_yticklabels()
    assert first.get_fontfamily()[0] == second.get_fontfamily()[0]
    assert len(first.get_fontfamily()) == 2
    assert len(second.get_fontfamily()) == 1
    assert not caplog.records


def test_fonts_installed_since_matplotlib_looked(fonts, tmp_path, caplog):
    stix = [f for f in font_manager.fontManager.ttflist if f.name.startswith("STIX")]
    others = [f for f in font_manager.fontManager.ttflist if not f.name.startswith("STIX")]
    has = set().union(*(figures._characters(f.fname) for f in others if "Last" not in f.name))
    general = next(f.fname for f in stix if str(f.fname).endswith("STIXGeneral.ttf"))
    only = chr(min(code for code in figures._characters(general) - has))
    fonts.setattr(font_manager.fontManager, "ttflist", others)
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    found = [str(tmp_path / "damaged.ttf"), str(general)]
    fonts.setattr(font_manager, "findSystemFonts", lambda: found)
    assert save(labelled(only), tmp_path / "a.png") == [only]
    assert not caplog.records


def test_plain_text():
    assert plain_text("a$b$\n\x1b\udce9") == "a\\$b\\$\n\\x1b\\udce9"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_real_fonts_draw_or_escape(tmp_path, suffix):
    save(labelled("跑步", "स्केटिंग", "كرة", "caf\udce9", "a$b$"), tmp_path / f"a.{suffix}")
