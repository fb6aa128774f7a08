"""An aerial picture of a valley that does not exist: river, fields, woods, roads and a village.

Owns the scene's composition; the parcels and the noise are `synthetic_land`'s. It is painted in
horizontal strips, so that memory stays at one strip's arrays beside the picture itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from synthetic_land import Array, Parcels, noise

STRIP_ROWS = 256

# Red, green, blue of what grows on the fields, in June.
CROPS = np.array([
    (116, 142, 72), (92, 128, 62), (138, 158, 88), (104, 134, 84), (178, 168, 104), (196, 182, 124),
    (160, 138, 104), (142, 118, 90), (84, 118, 66), (128, 150, 74), (186, 176, 90), (110, 140, 66),
], dtype=float)  # fmt: skip
ROOFS = np.array([(158, 92, 72), (140, 84, 70), (128, 124, 122), (172, 112, 88), (200, 196, 190)])
GARDENS = np.array([(104, 132, 74), (88, 116, 66), (122, 142, 86), (76, 102, 60)])
WATER, BANK = np.array((66, 92, 96.0)), np.array((88, 112, 66.0))
WOOD, HEDGE = np.array((56, 82, 48.0)), np.array((74, 98, 56.0))
ROAD, TRACK = np.array((176, 172, 164.0)), np.array((170, 156, 124.0))


@dataclass(frozen=True)
class Coarse:
    """A smooth field, kept at one value for 16 x 16 pixels, read at any row in between."""

    values: Array

    def rows(self, top: int, height: int, width: int) -> Array:
        """Return the field's rows top..top+height, linear between the values."""
        return self._spread(self._spread(self.values, top, height).T, 0, width).T

    @staticmethod
    def _spread(values: Array, first: int, count: int) -> Array:
        places = (np.arange(first, first + count) + 0.5) / 16
        below = np.minimum(places.astype(int), len(values) - 2)
        share = (places - below)[:, None]
        return values[below] * (1 - share) + values[below + 1] * share


def _mixed(picture: Array, colour: Array, share: Array) -> Array:
    """Return the picture with `share` of each pixel in another colour."""
    return picture + (colour - picture) * np.clip(share, 0, 1)[..., None]


def _grain(random: np.random.RandomState, size: int) -> Array:
    """Return a tile of tree-crown sized bumps that repeats without a seam."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(rows, columns)
    crowns = np.exp(-(((frequency - 0.06) / 0.025) ** 2))
    field = np.fft.irfft2(np.fft.rfft2(random.standard_normal((size, size))) * crowns)
    return field / field.std()


class Valley:
    """The valley, drawn once; `paint(top)` gives a strip of it."""

    def __init__(self, random: np.random.RandomState, size: int) -> None:
        self.size = size
        coarse = size // 16 + 1
        relief = noise(random, coarse, 3.6)
        self.relief, self.wood_level = Coarse(relief), float(np.quantile(relief, 0.8))
        self.tone = Coarse(noise(random, coarse, 2.8))
        self.bend = Coarse(noise(random, coarse, 3.4))
        self.grain = _grain(random, 1024)
        self.fields = Parcels.draw(random, 170, size)
        self.crop = random.randint(len(CROPS), size=self.fields.count)
        self.crop_tone = random.uniform(0.9, 1.08, self.fields.count)
        self.tilled = random.uniform(0.0, 1.0, self.fields.count)
        self.hedged = random.uniform(0.0, 1.0, self.fields.count)
        self.plots = Parcels.draw(random, 30, size)
        self.roof = random.randint(len(ROOFS), size=self.plots.count)
        self.garden = random.randint(len(GARDENS), size=self.plots.count)
        self.built = random.uniform(0.0, 1.0, self.plots.count)
        self.blocks = Parcels.draw(random, 190, size)

    def paint(self, top: int) -> Array:
        """Return rows top..top+STRIP_ROWS as (row, column, 3) values from 0 to 255."""
        rows, columns = np.mgrid[top : top + STRIP_ROWS, : self.size].astype(float)

        def at(field: Coarse) -> Array:
            return field.rows(top, STRIP_ROWS, self.size)

        tone, bend = at(self.tone), at(self.bend)
        repeats = -(-self.size // self.grain.shape[1])
        first = top % self.grain.shape[0]
        grain = np.tile(self.grain[first : first + STRIP_ROWS], (1, repeats))[:, : self.size]
        picture = self._fields(rows, columns, bend)
        picture = picture * (1 + 0.05 * tone + 0.006 * grain)[..., None]
        picture = self._village(picture, rows, columns, bend, grain)
        wood = (at(self.relief) - self.wood_level + 0.05 * bend + 0.02 * grain) * 14
        picture = _mixed(picture, WOOD * (1 + 0.09 * grain + 0.05 * tone)[..., None], wood)
        return self._river(picture, rows, columns, bend, grain)

    def _fields(self, rows: Array, columns: Array, bend: Array) -> Array:
        number, edge, across = self.fields.locate(rows + 30 * bend, columns + 30 * bend)
        picture = CROPS[self.crop[number]] * self.crop_tone[number][..., None]
        tramlines = (across % 21 < 2) & (self.tilled[number] > 0.55)
        picture = picture * np.where(tramlines, 0.93, 1.0)[..., None]
        hedged = self.hedged[number] > 0.72
        picture = _mixed(picture, HEDGE, np.where(hedged, (5 - edge) / 2, 0.0))
        picture = _mixed(picture, TRACK, np.where(hedged, 0.0, (2 - edge) / 1.5))
        strips = self.fields.along[::5]
        along = (columns + 30 * bend) * np.cos(self.fields.angle)
        along = along + (rows + 30 * bend) * np.sin(self.fields.angle)
        nearest = np.clip(np.searchsorted(strips, along), 1, len(strips) - 1)
        road = np.minimum(np.abs(along - strips[nearest]), np.abs(along - strips[nearest - 1]))
        return _mixed(picture, ROAD, (5 - road) / 1.5)

    def _village(
        self, picture: Array, rows: Array, columns: Array, bend: Array, grain: Array
    ) -> Array:
        distance = np.hypot(rows - 0.62 * self.size, columns - 0.27 * self.size)
        inside = np.clip((0.13 * self.size + 90 * bend - distance) / 6, 0, 1)
        number, edge, _ = self.plots.locate(rows, columns)
        gardens = GARDENS[self.garden[number]] * (1 + 0.06 * grain)[..., None]
        houses = (self.built[number] > 0.35) & (edge > 7)
        plots = _mixed(gardens, ROOFS[self.roof[number]], houses.astype(float))
        _, street, _ = self.blocks.locate(rows, columns)
        plots = _mixed(plots, ROAD, (6 - street) / 1.5)
        return _mixed(picture, plots, inside)

    def _river(
        self, picture: Array, rows: Array, columns: Array, bend: Array, grain: Array
    ) -> Array:
        middle = self.size * (0.58 + 0.09 * np.sin(rows / self.size * 7.3 + 0.6)) + 40 * bend
        distance = np.abs(columns - middle)
        bank = BANK * (1 + 0.08 * grain)[..., None]
        picture = _mixed(picture, bank, (78 + 6 * grain - distance) / 6)
        depth = 1 + 0.07 * np.clip(distance / 50, 0, 1) + 0.03 * bend
        return _mixed(picture, WATER * depth[..., None], (48 - distance) / 4)


def valley(
    random: np.random.RandomState, size: int, progress: Callable[[int], None] = lambda _: None
) -> Array:
    """Return a (3, size, size) uint8 picture."""
    drawn = Valley(random, size)
    picture = np.empty((3, size, size), np.uint8)
    for top in range(0, size, STRIP_ROWS):
        strip = np.clip(np.rint(drawn.paint(top)), 0, 255)
        picture[:, top : top + STRIP_ROWS] = strip.transpose(2, 0, 1)
        progress(top)
    return picture
