"""What tells the driver that the base was moved to another episode."""

from __future__ import annotations

import pytest

from demo.navigate.drive import is_moved


@pytest.mark.parametrize(
    ("pose", "moved"),
    [
        ((10.05, 1.03, 2.0, -3.1), False),  # a turn across pi
        ((10.9, 1.4, 2.0, 3.1), False),  # messages in between were lost
        ((10.05, 1.6, 2.0, 3.1), True),
        ((10.05, 1.0, 2.0, 1.5), True),
        ((1.0, 1.0, 2.0, 3.1), True),  # the simulator began anew
    ],
)
def test_a_base_is_moved_where_it_cannot_have_driven(pose: tuple[float, ...], moved: bool) -> None:
    assert is_moved((10.0, 1.0, 2.0, 3.1), pose) is moved
