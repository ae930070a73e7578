"""Text that is not ours (names of files and classes, messages of libraries) on its way to a terminal, a figure or a CSV file.

Each place gives some characters a meaning: ESC moves the cursor, a newline ends a row, a right-to-left override turns the line
round, `$` begins a formula in matplotlib, and `=` one in a spreadsheet. A name has none of these meanings.
"""

import re
import unicodedata
from typing import Any

LONGEST = 48  # characters of a name in a figure
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
AFTER_SEMICOLON = re.compile(r"(;\s*)([=+\-@＝＋－＠])")  # where a spreadsheet takes ; for the end of a cell
NUMBER = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|inf|nan)", re.ASCII)
ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4}))")
JOINERS = "\u200c\u200d"  # invisible, but words of some languages and some emoji are written with them


def for_terminal(text: object) -> str:
    """Text as one line that does nothing but be shown: other characters as Python's escapes, such as \\x1b and \\n.

    Undecodable bytes of a file's name become \\udc80 to \\udcff.
    """
    return "".join(c if _is_shown(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def for_figure(text: object, longest: int = LONGEST) -> str:
    """Text as one line of a matplotlib figure: no formula, nothing that the font lacks, and a long one without its middle."""
    line = for_terminal(text)
    if len(line) > longest:
        line = f"{line[: longest // 2]}…{line[-(longest - longest // 2 - 1) :]}"
    has = _font().get_char_index
    line = "".join(c if has(ord(c)) else c.encode("unicode_escape").decode() for c in line)
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")  # a legend leaves out what begins with _


def for_csv(text: object) -> str:
    """Text as a cell of a CSV file that no spreadsheet takes for a formula; a number stays one. `from_csv` gives it back.

    A text that begins like a formula, or with ', gets a ' before it. What `for_terminal` does not show, a sign of a formula
    after a semicolon, and the backslash of what looks like such an escape, become \\uXXXX or \\UXXXXXXXX.
    """
    text = ESCAPE.sub(lambda found: _code("\\") + found[0][1:], str(text))
    text = "".join(c if _is_shown(c) else _code(c) for c in text)
    text = AFTER_SEMICOLON.sub(lambda found: found[1] + _code(found[2]), text)
    return f"'{text}" if text.startswith("'") or (FORMULA.match(text) and not NUMBER.fullmatch(text)) else text


def from_csv(cell: str) -> str:
    """The text that `for_csv` made a cell of."""
    return ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), cell.removeprefix("'"))


def _is_shown(c: str) -> bool:
    return c.isprintable() or unicodedata.category(c) == "Zs" or c in JOINERS


def _code(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"


def _font() -> Any:
    """The font that figures are written in."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties()))
