"""Ids as file names: valid, reversible, and each id's own."""

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlhubfs.catalog.models import Asset
from mlhubfs.tree.names import LONGEST, asset_names, decode, encode, is_cut
from mlhubfs.tree.surroundings import (
    RESERVED_IN_COLLECTION,
    RESERVED_IN_DATASET,
    RESERVED_IN_ROOT,
)

RESERVED = [
    frozenset(), RESERVED_IN_ROOT, RESERVED_IN_DATASET, RESERVED_IN_COLLECTION,
    frozenset({"stac.json"}),
]  # fmt: skip
HOSTILE = [
    "../x", "a/b", "", "\0", "a\nb", "x" * 300, "%2F", "@where", "Aa", "aA", "\N{FIRE}", ".", "..",
    "/", "%", "%%", "~", ".hidden", "-rf", "a\x7f\x80b", "\ud800", "\udcff", "\N{FIRE}" * 80,
    "collection.json", "_common", "README.txt", "catalog.json", "dataset.json", "stac.json", " ",
    "é", "e\u0301", "a" * 238 + "~0123456789abcdef", "%" * 100, "/" * 85, "/" * 86, "\u202e",
]  # fmt: skip
any_text = st.text(st.characters(exclude_categories=()), max_size=400)
ids = st.one_of(any_text, st.sampled_from(HOSTILE), st.text("./%@~aé\0\ud800", max_size=300))


def check_name(name):
    raw = name.encode()  # strictly: whoever reads the directory must be able to
    assert 0 < len(raw) <= 255
    assert not re.search(r"[/\x00-\x1f\x7f-\x9f]", name)
    assert name[0] not in "@."


@pytest.mark.promise(
    "What a path cannot hold (`/`, `%`, control characters, a leading `.` or `@`) is "
    "percent-encoded, and the name gives the id back."
)
@settings(deadline=None, max_examples=400)
@given(ids, st.sampled_from(RESERVED))
@example("%63ollection.json", RESERVED_IN_COLLECTION)
def test_a_name_is_valid_and_gives_its_id_back(identifier, reserved):
    """Any id has a name that Linux takes, that is none of the tree's own, and that is reversible
    unless it had to be cut."""
    name = encode(identifier, reserved)
    check_name(name)
    assert name not in reserved
    assert decode(name, reserved) == (None if is_cut(name) else identifier)
    assert encode(identifier, reserved) == name


@settings(deadline=None, max_examples=400)
@given(st.one_of(ids, st.text("%2E0aF./@~", max_size=12)), st.sampled_from(RESERVED))
@example("%2f", frozenset())
@example("%61", frozenset())
@example("%C3%A9", frozenset())
@example("%ED%A0%80", frozenset())
@example("%ff", frozenset())
@example("%", frozenset())
@example("", frozenset())
def test_a_name_is_the_only_spelling_of_its_id(name, reserved):
    """What decodes at all is exactly what its id encodes to, so that no item has two paths."""
    identifier = decode(name, reserved)
    assert identifier is None or encode(identifier, reserved) == name


@settings(deadline=None)
@given(st.sets(ids, max_size=20), st.sampled_from(RESERVED))
def test_two_ids_never_share_a_name(identifiers, reserved):
    """Nor do ids that differ behind the place where they are cut, or that look like a cut name."""
    identifiers |= {encode(one, reserved) for one in identifiers}
    identifiers |= {one + "x" * 300 for one in identifiers}
    identifiers |= {one + "/" for one in identifiers}
    assert len({encode(one, reserved) for one in identifiers}) == len(identifiers)


@pytest.mark.parametrize("identifier", HOSTILE)
def test_each_hostile_name_of_the_issue_stays_inside(identifier):
    """One component, none of the special ones, and reversible or cut."""
    name = encode(identifier, RESERVED_IN_COLLECTION)
    check_name(name)
    assert decode(name, RESERVED_IN_COLLECTION) == identifier or is_cut(name)


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("bigearthnet_v1_source_S2A_MSIL2A_20170613T101031_0_45",) * 2,
        ("a b,c:d+e=é~1",) * 2,
        ("a/b", "a%2Fb"),
        ("50%", "50%25"),
        ("%2F", "%252F"),
        (".hidden", "%2Ehidden"),
        ("..", "%2E."),
        (".", "%2E"),
        ("@where", "%40where"),
        ("a@b.c", "a@b.c"),
        ("", "%"),
        ("a\nb", "a%0Ab"),
        ("\x85", "%C2%85"),
        ("\ud800", "%ED%A0%80"),
        ("collection.json", "%63ollection.json"),
        ("_common", "%5Fcommon"),
    ],
)
def test_only_what_a_path_cannot_hold_is_encoded(identifier, name):
    """Ordinary ids are their own names."""
    assert encode(identifier, RESERVED_IN_COLLECTION) == name
    assert decode(name, RESERVED_IN_COLLECTION) == identifier


@pytest.mark.parametrize(
    "name", ["%2f", "%61", "%2", "a%", "%2E%2E", "@x", ".x", "%ff", "%00%", "é%C3%A9",
             "collection.json", "_common", "\udcff", "", "%C3%A9", "x" * 256]
)  # fmt: skip
def test_a_spelling_of_another_kind_names_nothing(name):
    """Lower-case escapes, needless ones, broken ones, and the directory's own names."""
    assert decode(name, RESERVED_IN_COLLECTION) is None


@pytest.mark.promise("A name of more than 255 bytes is cut and ends in `~` and a hash.")
@pytest.mark.parametrize("character", ["x", "é", "\N{FIRE}", "/", "%", "\ud800", "\n"])
@pytest.mark.parametrize("extra", range(8))
def test_a_long_id_is_cut_at_a_whole_character_and_marked(character, extra):
    """At 255 bytes it is not cut; beyond, it ends in a mark, and no escape is split."""
    one = (
        len(
            encode(
                f"a{character}".encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
            ).encode()
        )
        - 1
    )
    fits = "a" * (LONGEST % one + extra * one) + character * (LONGEST // one - extra)
    assert len(encode(fits).encode()) == LONGEST
    assert decode(encode(fits)) == fits
    name = encode(fits + "b")
    assert re.search(r"~[0-9a-f]{16}$", name)
    assert is_cut(name)
    assert decode(name) is None
    assert 250 <= len(name.encode()) <= 255
    assert not re.search(r"%[0-9A-F]?~", name)
    assert name != encode(fits + "c")


def test_a_cut_name_is_the_same_everywhere():
    """It depends on the id alone: scripts hold such names."""
    assert encode("x" * 300) == "x" * 238 + "~12b539c1cad94615"


@pytest.mark.parametrize("name", ["a~0123456789abcdef", "x" * 255, "", ".hidden", "a" * 300])
def test_an_ordinary_name_is_not_taken_for_a_cut_one(name):
    """The listing is walked for cut names only, so nothing short may look like one."""
    assert not is_cut(name)


# --- assets


def named(*assets):
    return {
        name: asset.key for name, asset in asset_names(assets, frozenset({"stac.json"})).items()
    }


TOKEN = "https://api.radiant.earth/mlhub/v1/download/gAAAAABh.tif"


@pytest.mark.parametrize(
    ("key", "href", "media_type", "name"),
    [
        # From the asset key if it has one,
        ("B02.tif", "https://h/other.png", "image/png", "B02.tif"),
        ("a.tar.gz", TOKEN, None, "a.tar.gz"),
        ("B02.TIF", TOKEN, None, "B02.TIF"),
        # else the href's path unless it is an opaque download link,
        ("B02", "https://h/x/T33_B02.jp2?sig=a.tif#b", "image/tiff", "B02.jp2"),
        ("B02", "./B02.tif", None, "B02.tif"),
        ("B02", "s3://bucket/B02.TIF", None, "B02.TIF"),
        ("data", "https://h/a.tar.gz", None, "data.tar.gz"),
        ("data", "https://h/a%2Etif", None, "data.tif"),
        ("v1.0", "https://h/a.tif", None, "v1.0.tif"),
        ("eo.B02", "https://h/a.tif", None, "eo.B02.tif"),
        # else the media type,
        ("B02", TOKEN, "image/tiff; application=geotiff; profile=cloud-optimized", "B02.tif"),
        ("labels", TOKEN, "application/geo+json", "labels.geojson"),
        ("labels", TOKEN, "APPLICATION/GEO+JSON", "labels.geojson"),
        ("x", "https://h/path/2.0", "text/csv", "x.csv"),
        # else none.
        ("B02", TOKEN, None, "B02"),
        ("B02", TOKEN, "application/octet-stream", "B02"),
        ("B02", "https://h/", "nonsense", "B02"),
        # And as for ids:
        ("a/b", TOKEN, "image/tiff", "a%2Fb.tif"),
        ("", TOKEN, "image/tiff", "%.tif"),
        (".tif", TOKEN, None, "%2Etif"),
        ("stac", TOKEN, "application/json", "%73tac.json"),
        ("stac.json", TOKEN, None, "%73tac.json"),
    ],
)
def test_an_asset_has_the_extension_of_its_key_its_path_or_its_type(key, href, media_type, name):
    """In this order, with none rather than a wrong one."""
    assert named(Asset(key, href, media_type)) == {name: key}


@settings(deadline=None)
@given(
    st.lists(st.tuples(ids, st.sampled_from(["", "image/tiff", "text/csv"])), max_size=12),
    st.randoms(use_true_random=False),
)
def test_every_asset_has_one_valid_name_whatever_the_order(described, random):
    """No asset is lost to another, and the names do not depend on the server's order."""
    described += [(f"{key}.tif", kind) for key, kind in described]
    assets = [Asset(key, TOKEN, kind) for key, kind in dict(described).items()]
    names = named(*assets)
    assert sorted(names.values()) == sorted(asset.key for asset in assets)
    for name in names:
        check_name(name)
        assert name != "stac.json"
    random.shuffle(assets)
    assert named(*assets) == names


def test_two_assets_that_would_share_a_name_get_a_stable_suffix():
    """The one whose key is the name keeps it, else the first by key; which others there are does
    not matter to the rest."""
    tif = "image/tiff"
    one, two = Asset("B02", TOKEN, tif), Asset("B02.tif", TOKEN, tif)
    names = named(one, two)
    assert names.pop("B02.tif") == "B02.tif"
    ((name, key),) = names.items()
    assert key == "B02"
    assert re.fullmatch(r"B02~[0-9a-f]{8}\.tif", name)
    assert name in named(two, one, Asset("B03", TOKEN, tif))


def test_an_asset_that_sits_on_anothers_suffix_hides_nothing():
    """A hostile key that is exactly the suffixed name moves it on, and both can be read."""
    tif = "image/tiff"
    pair = [Asset("B02", TOKEN, tif), Asset("B02.tif", TOKEN, tif)]
    (suffixed,) = set(named(*pair)) - {"B02.tif"}
    for assets in itertools.permutations([*pair, Asset(suffixed, TOKEN, tif)]):
        names = named(*assets)
        assert sorted(names.values()) == sorted(["B02", "B02.tif", suffixed])
        assert names[suffixed] == suffixed


@pytest.mark.parametrize("length", range(236, 262))
def test_the_extension_outlives_the_cut(length):
    """A long key's file can still be opened by its extension."""
    (name,) = named(Asset("k" * length, TOKEN, "image/tiff"))
    check_name(name)
    assert name.endswith(".tif")
