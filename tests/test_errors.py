"""Untrusted text on a terminal or in a log."""

import pytest

from groma_ros.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the red mug", "the red mug"),
        ("die rote Tasse, 赤いカップ 🍵", "die rote Tasse, 赤いカップ 🍵"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("abc\u202egpj.exe\u2066", "abc\\u202egpj.exe\\u2066"),
        ("one\u2028two\u0085", "one\\u2028two\\x85"),
        ("\udcff\ufeff", "\\udcff\\ufeff"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_long_texts_are_cut() -> None:
    assert printable("x" * 100, 10) == "xxxxxxx..."
    assert printable(12) == "12"
