"""The help of the commands in Japanese, where the terminal speaks it (LC_ALL, LC_MESSAGES, LANG).

English stands in the code, because click takes its help from docstrings; `templates/locale/ja/cli.po` holds the Japanese, a
paragraph at a time. A command is translated as a copy: the one that was loaded stays as it is. Names, options and what a
command prints are the same in every language, so a script never depends on it.
"""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Iterable, Iterator
from copy import copy
from typing import Final, TypeVar

import click

from idp.core.settings import shipped_templates
from idp.edges import language

Kind = TypeVar("Kind", bound=click.Command)

#: what click says by itself on a page of help
HEADINGS: Final = ("Options", "Commands", "Usage:", "Show this message and exit.")
#: its notes behind an option, in brackets
NOTES: Final = ("required", "default:")
#: never first in a line
CLOSING: Final = "、。)」:;,.]"


def said(text: str) -> str:
    """One paragraph of help in Japanese; as it is where nobody translated it."""
    return language.load(shipped_templates() / "locale")["ja"].gettext(text) if text else text


def paragraphs(text: str) -> list[str]:
    """A help text as its paragraphs, each on one line: what the catalogue holds."""
    return [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")]


def in_japanese(command: Kind) -> Kind:
    """A copy of a command, with everything below it, that explains itself in Japanese."""
    made = copy(command)
    made.context_class = _Context
    if command.help:
        made.help = "\n\n".join(map(said, paragraphs(command.help)))
        made.short_help = made.help.partition("\n")[0].partition("。")[0]
    made.params = [_option(one) for one in command.params]
    if isinstance(made, click.Group):
        made.commands = {name: in_japanese(one) for name, one in made.commands.items()}
    return made


def _option(param: click.Parameter) -> click.Parameter:
    made = copy(param)
    if isinstance(made, click.Option) and made.help:
        made.help = said(made.help)
    return made


class _Formatter(click.HelpFormatter):
    """Lines are as wide as they look: a Japanese character takes two columns, and a line may break behind any of them."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """`Usage:` in Japanese."""
        super().write_usage(prog, args, f"{said('Usage:')} " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        """The same for a heading."""
        super().write_heading(said(heading))

    def write_text(self, text: str) -> None:
        """Paragraphs."""
        for number, part in enumerate(text.split("\n\n")):
            self.write("\n" if number else "")
            for line in wrapped(part, self.width - self.current_indent):
                self.write(f"{'':{self.current_indent}}{line}\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Names with what they mean beside them."""
        listed = list(rows)
        first = min(max(len(name) for name, _ in listed), col_max) + col_spacing
        for name, text in listed:
            lines = list(wrapped(_notes(said(text)), self.width - first - self.current_indent)) or [""]
            lead = f"{'':{self.current_indent}}{name:<{first}}"
            if len(name) > first - col_spacing:
                self.write(f"{lead.rstrip()}\n")
                lead = " " * (self.current_indent + first)
            for line in lines:
                self.write(f"{lead}{line}".rstrip() + "\n")
                lead = " " * (self.current_indent + first)


class _Context(click.Context):
    formatter_class = _Formatter


def _notes(text: str) -> str:
    head, bracket, notes = text.rpartition("[")
    for word in NOTES if text.endswith("]") else ():
        notes = notes.replace(word, said(word))
    return f"{head}{bracket}{notes}"


def wrapped(text: str, width: int) -> Iterator[str]:
    """Lines of at most this many columns. Latin words stay whole; no line begins with a closing mark."""
    line, columns = "", 0
    for word in _words(text):
        wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in word)
        if line and columns + wide > width:
            yield line.rstrip()
            line, columns = "", 0
            word = word.lstrip()  # noqa: PLW2901 - the blank between two words is no beginning of a line
            wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in word)
        line, columns = line + word, columns + wide
    if line.rstrip():
        yield line.rstrip()


def _words(text: str) -> Iterator[str]:
    """What is not taken apart: a run of Latin letters, or one Japanese character; either with the closing marks behind it."""
    held = ""
    for c in text:
        if held and c not in CLOSING and (c == " " or _wide(c) or _wide(held[-1])):
            yield held
            held = ""
        held += c
    yield held


def _wide(c: str) -> bool:
    return unicodedata.east_asian_width(c) in "WF"
