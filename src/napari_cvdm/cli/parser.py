"""A parser whose errors are one line, and the kinds of numbers that it reads."""

import argparse
import re
import sys
from typing import Any, NoReturn

DEFOCUS = "--defocus-um"
_NUMBER = re.compile(r"[-+]?[.,]?\d[\d.,]*(?:[eE][-+]?\d+)?$")


class UsageError(ValueError):
    """Arguments that do not make a command."""


class Parser(argparse.ArgumentParser):
    """A parser that raises an error of one line, and does not print the usage or exit."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        # As in Python 3.14: before, -1. and -1e0 are taken for options.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but end the plane positions at the first word that is no number.

        An image may follow them.
        """
        return super().parse_known_args(
            _with_positions_last(sys.argv[1:] if args is None else list(args)), namespace
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the advice to look at the help."""
        raise UsageError(f"{message.rstrip('.')}. Try {self.prog} --help.")


def _with_positions_last(words: list[str]) -> list[str]:
    """The words with the option for positions and its numbers moved behind all others."""
    if DEFOCUS not in words or "--" in words:
        return words
    first = words.index(DEFOCUS)
    end = first + 1
    while end < len(words) and _NUMBER.match(words[end]):
        end += 1
    return words if end == first + 1 else [*words[:first], *words[end:], *words[first:end]]


def number(text: str) -> float:
    """A real number, or the complaint that argparse reports."""
    try:
        return float(text)
    except ValueError:
        advice = (
            f"write {text.replace(',', '.')} with a decimal point"
            if "," in text
            else "give a number such as 0.65"
        )
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; {advice}") from None


def whole(text: str) -> int:
    """A whole number, or the complaint that argparse reports."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number; give one such as 8"
        ) from None
