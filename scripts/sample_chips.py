"""Which 24 chips the sample of BigEarthNet has: where, when, what is to be seen, how flagged.

Data only. Names follow BigEarthNet's: satellite and time of the overpass, then column and row of
the 1200 m cell in the Sentinel-2 tile.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

# The 43 level-3 classes of CORINE Land Cover that BigEarthNet labels with, in CORINE's order.
CLASSES = (
    "Continuous urban fabric",
    "Discontinuous urban fabric",
    "Industrial or commercial units",
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Non-irrigated arable land",
    "Permanently irrigated land",
    "Rice fields",
    "Vineyards",
    "Fruit trees and berry plantations",
    "Olive groves",
    "Pastures",
    "Annual crops associated with permanent crops",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland",
    "Moors and heathland",
    "Sclerophyllous vegetation",
    "Transitional woodland/shrub",
    "Beaches, dunes, sands",
    "Bare rock",
    "Sparsely vegetated areas",
    "Burnt areas",
    "Inland marshes",
    "Peatbogs",
    "Salt marshes",
    "Salines",
    "Intertidal flats",
    "Water courses",
    "Water bodies",
    "Coastal lagoons",
    "Estuaries",
    "Sea and ocean",
)

Flag = bool | Literal["true", "false"] | None


class Tile(NamedTuple):
    """A Sentinel-2 tile: its UTM zone and the coordinates of its upper left corner in metres."""

    epsg: int
    left: int
    top: int


AUSTRIA = Tile(32633, 499980, 5300040)
BELGIUM = Tile(32631, 499980, 5700000)
FINLAND = Tile(32635, 499980, 6900000)
IRELAND = Tile(32629, 600000, 5900040)
KOSOVO = Tile(32634, 499980, 4800000)
LITHUANIA = Tile(32634, 600000, 6200040)
LUXEMBOURG = Tile(32631, 699960, 5600040)
PORTUGAL = Tile(32629, 499980, 4300020)
SERBIA = Tile(32634, 399960, 5000040)
SWITZERLAND = Tile(32632, 499980, 5300040)


@dataclass(frozen=True)
class Chip:
    """One pair of a source item and a label item."""

    name: str
    tile: Tile
    cloud_and_shadow: Flag
    """As the label item records it: the service had booleans, strings and nothing at all."""
    seasonal_snow: Flag
    covers: tuple[tuple[str, float] | tuple[str, float, str], ...]
    """(class, share) and, where the class is no contour of the relief, "river" or "blob"."""


AGRICULTURE_AND_NATURE = CLASSES[20]

CHIPS = (
    Chip("S2A_MSIL2A_20170701T093031_65_62", SERBIA, False, False, (
        ("Non-irrigated arable land", 0.45), ("Pastures", 0.2), ("Broad-leaved forest", 0.35),
        ("Discontinuous urban fabric", 0.1, "blob"), ("Water courses", 0.05, "river"))),
    Chip("S2A_MSIL2A_20170707T103021_18_30", SWITZERLAND, False, False, (
        ("Water bodies", 0.2), ("Pastures", 0.3), ("Coniferous forest", 0.5))),
    Chip("S2B_MSIL2A_20170712T103019_31_44", SWITZERLAND, "false", "false", (
        ("Coniferous forest", 0.5), ("Natural grassland", 0.33), ("Bare rock", 0.17))),
    Chip("S2A_MSIL2A_20170717T103021_40_36", SWITZERLAND, "true", "false", (
        ("Coniferous forest", 0.6), ("Sparsely vegetated areas", 0.4))),
    Chip("S2B_MSIL2A_20170722T103019_24_51", SWITZERLAND, True, False, (
        ("Transitional woodland/shrub", 0.45), ("Coniferous forest", 0.55))),
    Chip("S2A_MSIL2A_20170727T103021_7_25", SWITZERLAND, None, None, (
        ("Complex cultivation patterns", 0.6), ("Coniferous forest", 0.4),
        ("Industrial or commercial units", 0.1, "blob"))),
    Chip("S2B_MSIL2A_20170730T103019_12_28", SWITZERLAND, False, False, (
        ("Water bodies", 0.5), ("Inland marshes", 0.12), ("Vineyards", 0.38),
        ("Discontinuous urban fabric", 0.12, "blob"))),
    Chip("S2B_MSIL2A_20180227T103019_45_47", SWITZERLAND, False, True, (
        ("Pastures", 0.45), ("Coniferous forest", 0.55))),
    Chip("S2A_MSIL2A_20170717T112121_30_52", PORTUGAL, False, False, (
        ("Rice fields", 0.65), ("Permanently irrigated land", 0.35),
        ("Water courses", 0.07, "river"))),
    Chip("S2B_MSIL2A_20170822T112119_44_60", PORTUGAL, "false", "false", (
        ("Agro-forestry areas", 0.45), ("Olive groves", 0.3),
        ("Sclerophyllous vegetation", 0.25))),
    Chip("S2A_MSIL2A_20171015T112121_9_33", PORTUGAL, False, False, (
        ("Sea and ocean", 0.45), ("Beaches, dunes, sands", 0.12), ("Coniferous forest", 0.43),
        ("Continuous urban fabric", 0.1, "blob"))),
    Chip("S2B_MSIL2A_20171114T112319_51_20", PORTUGAL, False, None, (
        ("Burnt areas", 0.4), ("Transitional woodland/shrub", 0.35),
        ("Broad-leaved forest", 0.25))),
    Chip("S2A_MSIL2A_20180413T112121_5_28", PORTUGAL, "false", "false", (
        ("Estuaries", 0.4), ("Intertidal flats", 0.1), ("Salt marshes", 0.25),
        ("Salines", 0.25))),
    Chip("S2A_MSIL2A_20170704T112111_22_41", IRELAND, "true", "false", (
        ("Peatbogs", 0.45), ("Moors and heathland", 0.2), ("Pastures", 0.35))),
    Chip("S2B_MSIL2A_20180506T112109_60_13", IRELAND, False, False, (
        ("Water bodies", 0.12), ("Pastures", 0.58), (AGRICULTURE_AND_NATURE, 0.3))),
    Chip("S2B_MSIL2A_20170709T094029_33_71", LITHUANIA, False, False, (
        ("Water bodies", 0.18), ("Non-irrigated arable land", 0.5), ("Mixed forest", 0.32))),
    Chip("S2A_MSIL2A_20180420T094031_70_15", LITHUANIA, None, "false", (
        ("Broad-leaved forest", 0.3), ("Mixed forest", 0.35), ("Coniferous forest", 0.35))),
    Chip("S2A_MSIL2A_20180526T100031_65_62", FINLAND, False, False, (
        ("Water bodies", 0.3), ("Transitional woodland/shrub", 0.2),
        ("Coniferous forest", 0.5))),
    Chip("S2B_MSIL2A_20180214T100029_14_8", FINLAND, None, "true", (
        ("Water bodies", 0.3), ("Peatbogs", 0.25), ("Coniferous forest", 0.45))),
    Chip("S2A_MSIL2A_20170903T100031_38_22", AUSTRIA, "false", "false", (
        ("Non-irrigated arable land", 0.4), ("Vineyards", 0.4),
        ("Fruit trees and berry plantations", 0.2),
        ("Discontinuous urban fabric", 0.12, "blob"))),
    Chip("S2B_MSIL2A_20171217T100329_18_60", AUSTRIA, True, True, (
        ("Coniferous forest", 0.5), ("Natural grassland", 0.25), ("Bare rock", 0.25))),
    Chip("S2A_MSIL2A_20170627T105031_52_19", BELGIUM, False, False, (
        ("Continuous urban fabric", 0.45), ("Discontinuous urban fabric", 0.35),
        ("Industrial or commercial units", 0.2), ("Green urban areas", 0.09, "blob"),
        ("Water courses", 0.07, "river"))),
    Chip("S2B_MSIL2A_20180508T104019_3_50", LUXEMBOURG, None, None, (
        ("Non-irrigated arable land", 0.3), ("Pastures", 0.25), ("Broad-leaved forest", 0.45))),
    Chip("S2A_MSIL2A_20171005T092031_55_60", KOSOVO, False, False, (
        (AGRICULTURE_AND_NATURE, 0.5), ("Broad-leaved forest", 0.5),
        ("Discontinuous urban fabric", 0.15, "blob"),
        ("Mineral extraction sites", 0.08, "blob"))),
)  # fmt: skip
