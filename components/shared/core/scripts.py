"""What script a letter is of, and whether that script leaves spaces between words."""

import unicodedata
from functools import cache

# By the first word of their characters' names in Unicode.
WITHOUT_SPACES = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}


@cache
def script(letter: str) -> str:
    """Return the first word of a letter's name in Unicode, mostly its script."""
    return unicodedata.name(letter, "").split(" ")[0]


def leaves_no_spaces(letter: str) -> bool:
    """Return whether a letter is of a script without spaces between words."""
    return script(letter) in WITHOUT_SPACES


def is_without_spaces(text: str) -> bool:
    """Return whether most letters of a text are of scripts without spaces between words."""
    letters = [] if text.isascii() else [sign for sign in text if sign.isalpha()]
    return sum(map(leaves_no_spaces, letters)) > len(letters) / 2
