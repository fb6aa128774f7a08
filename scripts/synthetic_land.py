"""Pictures of land that does not exist: Sentinel-2 chips by CORINE class, and an aerial scene.

Owns how land looks (spectra, textures, seasons, clouds); knows nothing of STAC, files or places.
Everything is drawn from the `RandomState` that it is given: its streams are frozen by numpy's
policy, those of `default_rng` may change with a release. All sums are in float64, so that another
processor's last bit does not survive the rounding to integers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Array = np.ndarray

# Band name -> pixel size in metres, in the order of the spectra below.
BANDS = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20,
    "B07": 20, "B08": 10, "B8A": 20, "B09": 60, "B11": 20, "B12": 20,
}  # fmt: skip

# Reflectances are multiples of this: it takes a fifth off the files, and noise hides it.
STEP = 4

# Surface reflectance x 10000 per band: typical level-2A values over Europe.
SPECTRA = {
    "conifer": (180, 220, 360, 250, 600, 1500, 1800, 1950, 2100, 2100, 950, 480),
    "broadleaf": (200, 250, 520, 290, 900, 2800, 3500, 3700, 3900, 3900, 1800, 850),
    "autumn wood": (280, 350, 620, 720, 1150, 1900, 2200, 2350, 2500, 2500, 1900, 1100),
    "bare wood": (320, 420, 600, 680, 950, 1350, 1550, 1700, 1850, 1850, 2000, 1250),
    "scrub": (300, 380, 640, 620, 1050, 1800, 2100, 2250, 2400, 2400, 2000, 1200),
    "maquis": (280, 340, 540, 480, 900, 1800, 2150, 2300, 2450, 2450, 1750, 950),
    "meadow": (300, 400, 800, 520, 1250, 3000, 3700, 3900, 4100, 4100, 2300, 1250),
    "lush meadow": (260, 340, 760, 380, 1150, 3500, 4400, 4600, 4800, 4800, 2100, 1050),
    "winter meadow": (360, 460, 760, 700, 1200, 2200, 2600, 2750, 2900, 2900, 2300, 1400),
    "dry grass": (560, 760, 1180, 1420, 1850, 2350, 2600, 2800, 3000, 3000, 3500, 2400),
    "green crop": (280, 350, 740, 380, 1150, 3500, 4500, 4700, 4900, 4900, 2100, 1000),
    "young crop": (420, 560, 900, 860, 1450, 2500, 2900, 3100, 3250, 3250, 2700, 1800),
    "rape in bloom": (420, 520, 1450, 1250, 1900, 3200, 3800, 4000, 4200, 4200, 2400, 1200),
    "ripe crop": (600, 850, 1300, 1700, 2150, 2450, 2650, 2900, 3050, 3050, 3900, 2800),
    "stubble": (650, 880, 1250, 1550, 1900, 2150, 2350, 2600, 2750, 2750, 3900, 3000),
    "soil": (560, 740, 1020, 1300, 1580, 1750, 1900, 2050, 2250, 2250, 3200, 2700),
    "wet soil": (430, 540, 720, 900, 1080, 1230, 1330, 1480, 1620, 1650, 2200, 1800),
    "orchard": (330, 430, 740, 620, 1150, 2300, 2700, 2900, 3050, 3050, 2200, 1300),
    "vines": (420, 560, 880, 860, 1350, 2300, 2650, 2850, 3000, 3000, 2700, 1800),
    "olives": (480, 640, 960, 1080, 1500, 2100, 2350, 2500, 2650, 2650, 2900, 2100),
    "rice": (260, 340, 760, 360, 1150, 3100, 3900, 4050, 4200, 4200, 1500, 650),
    "paddy water": (500, 600, 780, 700, 850, 1050, 1150, 1100, 1150, 1100, 500, 300),
    "marsh": (290, 360, 600, 480, 950, 2000, 2350, 2500, 2650, 2650, 1500, 750),
    "salt marsh": (420, 540, 800, 780, 1200, 1750, 1950, 2050, 2150, 2150, 1700, 1100),
    "peat": (300, 360, 520, 600, 850, 1300, 1500, 1650, 1800, 1800, 1700, 1050),
    "heath": (300, 370, 540, 620, 950, 1600, 1850, 2000, 2150, 2150, 1900, 1150),
    "burnt": (330, 400, 480, 560, 680, 820, 920, 1020, 1180, 1200, 2000, 1900),
    "sand": (1400, 1850, 2400, 2800, 3000, 3150, 3250, 3350, 3450, 3450, 4000, 3600),
    "mud": (620, 760, 950, 1050, 1150, 1200, 1230, 1250, 1280, 1280, 1000, 750),
    "salt pan": (1100, 1300, 1500, 1500, 1480, 1400, 1350, 1300, 1250, 1250, 500, 350),
    "rock": (850, 1020, 1240, 1420, 1530, 1620, 1700, 1780, 1850, 1850, 2300, 2050),
    "gravel": (1050, 1280, 1550, 1750, 1880, 1980, 2050, 2150, 2250, 2250, 2700, 2400),
    "red roof": (750, 880, 1150, 1600, 1800, 1950, 2050, 2150, 2250, 2250, 2500, 2300),
    "grey roof": (1050, 1200, 1400, 1550, 1650, 1750, 1850, 1950, 2000, 2000, 2200, 2000),
    "white roof": (2100, 2500, 2800, 2950, 3000, 3050, 3100, 3150, 3200, 3200, 3000, 2700),
    "asphalt": (700, 800, 930, 1020, 1100, 1170, 1230, 1300, 1350, 1350, 1500, 1350),
    "lake": (260, 300, 340, 200, 180, 140, 130, 110, 100, 100, 50, 30),
    "sea": (360, 370, 300, 150, 120, 90, 80, 70, 60, 60, 30, 20),
    "river": (420, 520, 700, 560, 500, 380, 340, 290, 250, 220, 90, 60),
    "estuary": (480, 600, 780, 680, 620, 430, 380, 310, 270, 240, 90, 60),
    "snow": (7600, 7900, 7900, 7850, 7700, 7600, 7500, 7400, 7100, 7100, 900, 650),
    "cloud": (5300, 5500, 5400, 5500, 5600, 5700, 5800, 5900, 5900, 6000, 3800, 2900),
}

# What a cover's material is in a month; other materials look the same all year.
SEASONS = {
    "crop": {
        (12, 1, 2): ("soil", "wet soil", "young crop"),
        (3, 4): ("green crop", "soil", "young crop", "wet soil"),
        (5,): ("green crop", "green crop", "rape in bloom", "soil"),
        (6, 7): ("ripe crop", "ripe crop", "green crop", "green crop", "stubble", "meadow"),
        (8, 9): ("stubble", "soil", "green crop", "stubble"),
        (10, 11): ("soil", "wet soil", "young crop", "stubble"),
    },
    "irrigated": {
        (11, 12, 1, 2, 3): ("soil", "wet soil", "young crop"),
        (4, 5, 6, 7, 8): ("green crop", "green crop", "green crop", "soil"),
        (9, 10): ("ripe crop", "soil"),
    },
    "paddy": {
        (5, 6): ("paddy water", "paddy water", "rice"),
        (7, 8): ("rice", "rice", "rice", "paddy water"),
        (9, 10): ("ripe crop", "stubble"),
        (11, 12, 1, 2, 3, 4): ("wet soil", "paddy water"),
    },
    "broadleaf": {(10, 11): ("autumn wood",), (12, 1, 2, 3, 4): ("bare wood",)},
    "meadow": {(11, 12, 1, 2, 3): ("winter meadow",)},
    "lush meadow": {(12, 1, 2): ("winter meadow", "meadow")},
}


@dataclass(frozen=True)
class Cover:
    """How one CORINE class looks from above."""

    materials: tuple[str, ...]
    """Names out of SPECTRA or SEASONS, equally likely; named twice is twice as likely."""
    parcel: float = 0
    """Mean width of a parcel in pixels, each of one material; 0: materials blend in patches."""
    grain: float = 0.06
    """Relative brightness of the texture inside."""
    slope: float = 2.6
    """How fast the texture's power falls with frequency: 2 is rough, 4 is smooth."""
    snow: float = 0.92
    """Share that snow hides on a snowy day."""


CANOPY = {"grain": 0.13, "slope": 2.3, "snow": 0.25}
WATER = {"grain": 0.05, "slope": 3.4, "snow": 0.9}
TOWN = {"grain": 0.1, "snow": 0.55}

COVERS = {
    "Continuous urban fabric": Cover(
        ("grey roof", "red roof", "asphalt", "red roof", "white roof"), 2.6, **TOWN
    ),
    "Discontinuous urban fabric": Cover(
        ("red roof", "grey roof", "meadow", "broadleaf", "asphalt"), 2.6, **TOWN
    ),
    "Industrial or commercial units": Cover(
        ("white roof", "grey roof", "asphalt", "gravel", "asphalt"), 7, **TOWN
    ),
    "Mineral extraction sites": Cover(("gravel", "sand", "rock", "soil"), 0, 0.12),
    "Green urban areas": Cover(("meadow", "broadleaf"), 0, 0.08),
    "Non-irrigated arable land": Cover(("crop",), 17, 0.04),
    "Permanently irrigated land": Cover(("irrigated",), 22, 0.035),
    "Rice fields": Cover(("paddy",), 13, 0.03),
    "Vineyards": Cover(("vines", "vines", "vines", "crop"), 9, 0.06),
    "Fruit trees and berry plantations": Cover(("orchard", "orchard", "meadow"), 8, 0.07),
    "Olive groves": Cover(("olives", "olives", "dry grass"), 11, 0.09),
    "Pastures": Cover(("meadow", "lush meadow", "meadow"), 15, 0.045),
    "Complex cultivation patterns": Cover(("crop", "meadow", "orchard", "vines"), 6.5, 0.05),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": Cover(
        ("crop", "meadow", "broadleaf", "scrub"), 8, 0.07
    ),
    "Agro-forestry areas": Cover(("dry grass", "dry grass", "maquis"), 0, 0.1),
    "Broad-leaved forest": Cover(("broadleaf",), 0, **CANOPY),
    "Coniferous forest": Cover(("conifer",), 0, **CANOPY),
    "Mixed forest": Cover(("conifer", "broadleaf"), 0, **CANOPY),
    "Natural grassland": Cover(("meadow", "dry grass"), 0, 0.06),
    "Moors and heathland": Cover(("heath", "heath", "meadow"), 0, 0.08),
    "Sclerophyllous vegetation": Cover(("maquis", "maquis", "dry grass"), 0, 0.1),
    "Transitional woodland/shrub": Cover(
        ("scrub", "scrub", "meadow", "broadleaf"), 0, 0.1, snow=0.6
    ),
    "Beaches, dunes, sands": Cover(("sand",), 0, 0.05),
    "Bare rock": Cover(("rock", "gravel"), 0, 0.12),
    "Sparsely vegetated areas": Cover(("rock", "dry grass", "scrub"), 0, 0.1),
    "Burnt areas": Cover(("burnt", "burnt", "scrub"), 0, 0.09),
    "Inland marshes": Cover(("marsh", "marsh", "lake"), 0, 0.07),
    "Peatbogs": Cover(("peat", "peat", "heath"), 0, 0.07),
    "Salt marshes": Cover(("salt marsh", "salt marsh", "mud"), 0, 0.06),
    "Salines": Cover(("salt pan", "salt pan", "estuary", "mud"), 12, 0.02),
    "Intertidal flats": Cover(("mud",), 0, 0.05),
    "Water courses": Cover(("river",), 0, **WATER),
    "Water bodies": Cover(("lake",), 0, **WATER),
    "Estuaries": Cover(("estuary",), 0, **WATER),
    "Sea and ocean": Cover(("sea",), 0, **WATER),
}

Shape = Literal["contour", "river", "blob"]


@dataclass(frozen=True)
class Land:
    """What is to be seen on one chip."""

    covers: tuple[tuple[str, float, Shape], ...]
    """(class, share of the area, shape): contours share what rivers and blobs leave."""
    month: int
    clouds: bool
    snow: bool


def noise(random: np.random.RandomState, size: int, slope: float) -> Array:
    """Return size x size noise, mean 0 and deviation 1, whose power falls as frequency**-slope."""
    padded = 1 << (size * 3 // 2).bit_length()  # a cut-out of it does not repeat at its edges
    rows = np.fft.fftfreq(padded)[:, None]
    columns = np.fft.rfftfreq(padded)[None, :]
    squared = rows * rows + columns * columns
    squared[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((padded, padded))) * squared ** (-slope / 4)
    field = np.fft.irfft2(spectrum, s=(padded, padded))[:size, :size]
    return (field - field.mean()) / field.std()


@dataclass(frozen=True)
class Parcels:
    """Strips of parcels at an angle, as fields lie in Europe."""

    along: Array
    """Where strips end, across the strips, in pixels."""
    across: Array
    """Where parcels end, along a strip, in pixels."""
    shifts: Array
    """How far each strip's parcel ends are shifted."""
    angle: float

    @classmethod
    def draw(cls, random: np.random.RandomState, width: float, extent: int) -> "Parcels":
        """Draw parcels of the mean `width` for coordinates within +-1.5 x `extent`."""
        count = int(4 * extent / width) + 4
        widths = width * random.uniform(0.6, 1.4, count)
        lengths = width * random.uniform(0.9, 2.6, count)
        return cls(
            along=np.cumsum(widths) - 2 * extent,
            across=np.cumsum(lengths) - 2 * extent,
            shifts=random.uniform(-width, width, count + 1),
            angle=float(random.uniform(0, np.pi)),
        )

    def locate(self, rows: Array, columns: Array) -> tuple[Array, Array, Array]:
        """Return for each pixel its parcel's number, its distance from an edge, its place in it."""
        u = columns * np.cos(self.angle) + rows * np.sin(self.angle)
        v = rows * np.cos(self.angle) - columns * np.sin(self.angle)
        strip = np.clip(np.searchsorted(self.along, u), 1, len(self.along) - 1)
        v = v + self.shifts[strip]
        place = np.clip(np.searchsorted(self.across, v), 1, len(self.across) - 1)
        edge = np.minimum(
            np.minimum(u - self.along[strip - 1], self.along[strip] - u),
            np.minimum(v - self.across[place - 1], self.across[place] - v),
        )
        return strip * len(self.across) + place, edge, u - self.along[strip - 1]

    @property
    def count(self) -> int:
        """One more than the greatest parcel number."""
        return len(self.along) * len(self.across) + 1


def class_map(random: np.random.RandomState, size: int, land: Land) -> Array:
    """Return size x size indices into `land.covers`, each with its share of the pixels."""
    rows, columns = np.mgrid[:size, :size].astype(float)
    relief = noise(random, size, 3.9)
    contours = [index for index, cover in enumerate(land.covers) if cover[2] == "contour"]
    shares = np.cumsum([land.covers[index][1] for index in contours])
    levels = np.quantile(relief, shares[:-1] / shares[-1])
    classes = np.array(contours)[np.searchsorted(levels, relief)]
    for index, (_, share, shape) in enumerate(land.covers):
        rough = noise(random, size, 3.6)
        centre, bend, turn = random.uniform(0.25, 0.75, 3)
        if shape == "river":
            middle = centre * size + size * 0.16 * np.sin(rows / size * 5 + 6 * bend) + 4 * rough
            across = columns if turn > 0.5 else columns[:, ::-1]
            distance = np.abs(across - middle)
        elif shape == "blob":
            distance = np.hypot(rows - centre * size, columns - bend * size) + size * 0.1 * rough
        else:
            continue
        classes[distance < np.quantile(distance, share)] = index
    return classes


def _materials(cover: Cover, month: int) -> tuple[str, ...]:
    names: list[str] = []
    for material in cover.materials:
        months = SEASONS.get(material, {})
        names += next((found for among, found in months.items() if month in among), (material,))
    return tuple(names)


def _paint(random: np.random.RandomState, size: int, cover: Cover, month: int) -> Array:
    """Return (band, row, column) reflectance of a chip that is all of one cover."""
    names = _materials(cover, month)
    spectra = np.array([SPECTRA[name] for name in names], dtype=float)
    rows, columns = np.mgrid[:size, :size].astype(float)
    if cover.parcel:
        parcels = Parcels.draw(random, cover.parcel, size)
        number, edge, _ = parcels.locate(rows, columns)
        drawn = random.randint(len(names), size=parcels.count)[number]
        tone = random.uniform(0.86, 1.12, parcels.count)[number]
        picture = spectra[drawn].transpose(2, 0, 1) * tone
        if cover.parcel > 12:  # hedges and tracks, where fields are wide enough to leave any
            seam = np.array(SPECTRA["scrub"], dtype=float)[:, None, None]
            picture = np.where(edge < 0.5, 0.45 * picture + 0.55 * seam, picture)
    else:
        patches = noise(random, size, 3.0)
        levels = np.quantile(patches, np.arange(1, len(names)) / len(names))
        picture = spectra[np.searchsorted(levels, patches)].transpose(2, 0, 1)
    texture = noise(random, size, cover.slope)
    return picture * np.exp(cover.grain * texture)


def _blurred(picture: Array) -> Array:
    """Return the picture as optics see it: each pixel takes a quarter from its neighbours."""
    for axis in (-2, -1):
        before = np.take(picture, [0, *range(picture.shape[axis] - 1)], axis=axis)
        after = np.take(picture, [*range(1, picture.shape[axis]), -1], axis=axis)
        picture = 0.7 * picture + 0.15 * before + 0.15 * after
    return picture


def _under_snow(random: np.random.RandomState, picture: Array, hidden: Array) -> Array:
    size = picture.shape[-1]
    snow = np.array(SPECTRA["snow"], dtype=float)[:, None, None]
    share = np.clip(hidden + 0.1 * noise(random, size, 2.8), 0, 1)
    return picture * (1 - share) + snow * share * (1 + 0.04 * noise(random, size, 3.0))


def _under_clouds(random: np.random.RandomState, picture: Array) -> Array:
    size = picture.shape[-1]
    thickness = noise(random, size + 14, 3.5)
    density = np.clip((thickness - np.quantile(thickness, 0.6)) * 1.6, 0, 1)
    density = density * density * (3 - 2 * density)
    shadow = density[14:, 14:]  # the sun stands in the south-east: shadows fall north-west
    cloud = density[:size, :size]
    white = np.array(SPECTRA["cloud"], dtype=float)[:, None, None]
    picture = picture * (1 - 0.55 * shadow)
    return picture * (1 - cloud) + white * cloud * (1 + 0.06 * thickness[:size, :size])


def chip(random: np.random.RandomState, size: int, land: Land) -> tuple[dict[str, Array], Array]:
    """Return (band name -> uint16 picture at the band's own pixel size, 10 m class map)."""
    classes = class_map(random, size, land)
    picture = np.zeros((len(BANDS), size, size))
    hidden = np.zeros((size, size))
    for index, (name, _, _) in enumerate(land.covers):
        cover = COVERS[name]
        painted = _paint(random, size, cover, land.month)
        picture = np.where(classes == index, painted, picture)
        hidden = np.where(classes == index, cover.snow, hidden)
    picture = picture * np.exp(0.04 * noise(random, size, 3.4))
    if land.snow:
        picture = _under_snow(random, picture, hidden)
    picture = _blurred(picture)
    if land.clouds:
        picture = _under_clouds(random, picture)
    bands = {}
    for layer, (name, gsd) in zip(picture, BANDS.items(), strict=True):
        factor = gsd // 10
        cells = layer.reshape(size // factor, factor, size // factor, factor).mean(axis=(1, 3))
        cells = cells + 0.08 * np.sqrt(cells) * random.standard_normal(cells.shape)
        bands[name] = np.clip(STEP * np.rint(cells / STEP), STEP, 10000).astype(np.uint16)
    return bands, classes


def field_picture(
    random: np.random.RandomState, numbers: Array, materials: list[str], bands: tuple[str, ...]
) -> Array:
    """Return (band, row, column) uint16: each field number's material, in a tone of its own."""
    places = [list(BANDS).index(name) for name in bands]
    spectra = np.array([SPECTRA[name] for name in materials], dtype=float)[:, places]
    spectra = spectra * random.uniform(0.88, 1.1, (len(materials), 1))
    size = len(numbers)
    picture = spectra[numbers].transpose(2, 0, 1) * np.exp(0.05 * noise(random, size, 2.7))
    picture = _blurred(picture)
    return np.clip(STEP * np.rint(picture / STEP), STEP, 10000).astype(np.uint16)
