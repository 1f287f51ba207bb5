"""Text of others, made harmless in each medium that it is written to.

Names of models, tensors, labels and files, and what a configuration or a recipe says, come from
anywhere. In a terminal they must not be obeyed, on a page not be markup, in a card neither, and a
regular expression must come to an end. JSON needs none of this: it keeps every text exactly. Lists
and intervals are written here too, since all media write them alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape

from surgeon.errors import SelectionError

_STAND_IN = "\N{REPLACEMENT CHARACTER}"
_WORDS = re.compile(r"(?!.*www\.)[^\W\d_](?:[^\W_]|[ .,/()+-])*", re.IGNORECASE)
_CELL = re.compile(r"(?!.*www\.)(?:[^\W_]|[ .,:%()+→…−-])*", re.IGNORECASE)
_LONGEST = 200  # characters of a name in a card or a picture


def plain(text: str) -> str:
    """Return text for a terminal or a picture, of which no character is an order.

    Gaps of any kind, line breaks among them, become spaces. Codes for the terminal, what turns the
    direction of writing, what is invisible, and halves of surrogate pairs show as �.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else _STAND_IN for c in text)


def html(text: str) -> str:
    """Return text for the body of a page, a line break of its own being no more than a gap."""
    return escape(plain(text))


def in_chart(text: str) -> str:
    """Return text for a chart of plotly's, which takes tags for markup and knows few entities."""
    return escape(shortened(text), quote=False)


def markdown(text: str) -> str:
    """Return text for a line of a Markdown document: words as they are, anything else as code."""
    name = shortened(text)
    return name if _WORDS.fullmatch(name) else markdown_code(name)


def markdown_code(text: str) -> str:
    """Return text as code of a Markdown document, within which nothing is markup.

    In a table, its bars are to be escaped beside that.
    """
    name = shortened(text) or _STAND_IN
    fence = fence_for(name, least=1)
    gap = " " if name.startswith("`") or name.endswith("`") else ""
    return f"{fence}{gap}{name}{gap}{fence}"


def markdown_cell(text: str) -> str:
    """Return text for a cell of a Markdown table: words and numbers as they are, else as code."""
    name = shortened(text)
    return name if _CELL.fullmatch(name) else markdown_code(name).replace("|", "\\|")


def fence_for(text: str, *, least: int) -> str:
    """Return the backticks, ``least`` or more, that enclose code in which there are any."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def shortened(text: str, most: int = _LONGEST) -> str:
    """Return plain text without double gaps, cut in its middle to ``most`` characters."""
    shown = " ".join(plain(text).split())
    half = most // 2
    return shown if len(shown) <= most else f"{shown[:half]}…{shown[half - most + 1 :]}"


def listed(entries: Iterable[object], most: int | None = None) -> str:
    """Return entries as a list for people, cut after ``most`` of them."""
    shown = [*map(str, entries)]
    return ", ".join(shown[:most]) + (", …" if most and len(shown) > most else "")


def from_to(interval: Sequence[float], form: str = ".4g") -> str:
    """Return the ends of an interval, each in a format of Python's."""
    return f"{interval[0]:{form}} to {interval[1]:{form}}"


def with_minus(numbers: str) -> str:
    """Return written numbers with a minus where Python writes a hyphen."""
    return numbers.replace("-", "−")


def whole_match(pattern: str) -> Callable[[str], bool]:
    """Return whether a regular expression matches the whole of a name.

    A record or an edit file may bring the expression along, so that it is not for Python's engine,
    which some keep busy forever: pydantic's is Rust's, whose time grows with the name alone. It
    has no look-around and no back-references.

    Raises:
        SelectionError: the pattern is not a regular expression.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        SchemaValidator(core_schema.str_schema(pattern=pattern))  # by itself: ")(" is not one
        whole = SchemaValidator(core_schema.str_schema(pattern=rf"\A(?:{pattern})\z"))
    except (SchemaError, UnicodeError) as error:
        reason = str(error).rpartition("\n")[2].removeprefix("error: ").strip()
        raise SelectionError(
            f"`sites_pattern` {pattern!r}: not a regular expression ({reason})"
        ) from error
    return whole.isinstance_python
