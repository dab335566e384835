"""The shape of convolutions over the pixels of boxes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CropShape:
    """Convolutions over the pixels of boxes."""

    widths: tuple[int, ...]
    """Channels of the convolutions, every second one with stride 2, the first one too."""
    side: int
    """Side of the pictures that the pixels of boxes are resized to."""
    margin: float
    """Side of the resized part of the picture, in sides of the box."""
    hidden: int
    """Width of the layer after the convolutions."""
    groups: int = 8
    """Groups of channels that are normalised together, at most."""

    @property
    def scale(self) -> int:
        """Factor by which the convolutions make the sides smaller."""
        return int(2 ** ((len(self.widths) + 1) // 2))

    def checks(self, part: str) -> list[tuple[bool, str]]:
        """Conditions that the shape must meet, each with the sentence that says otherwise; part: its section
        of the network config."""
        cells = self.side / self.scale
        return [
            (
                cells == int(cells),
                f"{part}: crop_side {self.side} must be divisible by {self.scale}, by which the layers of "
                "crop make it smaller",
            ),
            (cells >= 2, f"{part}: crop_side {self.side} must be at least {2 * self.scale}"),
            (0.5 <= self.margin <= 4, f"{part}: crop_margin {self.margin} must be from 0.5 to 4"),
        ]
