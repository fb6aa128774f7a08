"""What is guessed of a program's next files, and when guessing stops."""

import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import Rooms, asked, mlhub, stac_item

from mlhubfs.content.blocks import EXTENT
from mlhubfs.tree.guesses import Guesses

BANDS = ("B02", "B03", "B04")


class Program:
    """A program that opens files, by `guesses`."""

    def __init__(self, guesses, name=1):
        self.guesses = guesses
        self.name = name

    def opens(self, item, *keys, collection="c"):
        """Open files of an item; return what is fetched for each."""
        return [self.guesses.opened(self.name, collection, item, key, among=BANDS) for key in keys]

    def looks_at(self, item, key):
        """Ask for the size of a file; return what is fetched for it."""
        return self.guesses.looked_at(self.name, "c", item, key, among=BANDS)


@pytest.fixture
def program():
    return Program(Guesses())


def test_the_first_item_is_seen_and_the_second_guessed(program):
    """With the first file of the second item come those others that were read of the first."""
    assert program.opens("a", "B02", "B04") == [set(), set()]
    assert program.opens("b", "B02", "B04") == [{"B04"}, set()]


def test_any_of_the_files_may_be_the_first(program):
    """The order within an item does not matter."""
    program.opens("a", "B02", "B04")
    assert program.opens("b", "B04") == [{"B02"}]


def test_only_files_that_are_there_are_guessed(program):
    """An item that lacks a band does not cost a request for it."""
    program.opens("a", "B02", "gone", "B03")
    assert program.opens("b", "B02") == [{"B03"}]


def test_another_file_than_before_guesses_nothing(program):
    """A program that turns to something else is seen anew."""
    program.opens("a", "B02", "B03")
    assert program.opens("b", "B04") == [set()]
    assert program.opens("c", "B04") == [set()]


@pytest.mark.promise(
    "A program that reads the same small files of item after item gets the others with the first, "
    "from the second item on; two wrong guesses in a row stop that."
)
def test_two_wrong_guesses_in_a_row_stop_it(program):
    """After two items of which the guessed files were not read, nothing is fetched."""
    for item in "abc":
        program.opens(item, *BANDS)
    assert program.opens("d", "B02", "B03") == [{"B03", "B04"}, set()]
    assert program.opens("e", "B02") == [{"B03"}]
    assert program.opens("f", "B02", "B04") == [set(), set()]
    assert program.opens("g", "B02", "B03") == [set(), set()]


def test_one_wrong_guess_between_right_ones_does_not(program):
    """A right guess makes up for the wrong one before it."""
    for item, keys in (("a", BANDS), ("b", BANDS[:2]), ("c", BANDS[:2]), ("d", BANDS[:1])):
        program.opens(item, *keys)
    program.opens("e", "B02", "B03")
    assert program.opens("f", "B02") == [{"B03"}]


def test_it_goes_on_when_it_would_have_been_right(program):
    """A stopped guess is still made, and trusted again once the program has read it."""
    for item, keys in (("a", BANDS), ("b", BANDS[:2]), ("c", BANDS[:1])):
        program.opens(item, *keys)
    assert program.opens("d", "B02", "B03") == [set(), set()]
    assert program.opens("e", "B02", "B03") == [set(), set()]
    assert program.opens("f", "B02") == [{"B03"}]


def test_the_question_for_a_size_brings_the_guess_forward(program):
    """What is looked at before it is opened is guessed for then, and not again."""
    program.opens("a", "B02", "B03")
    assert program.looks_at("b", "B02") == {"B03"}
    assert program.opens("b", "B02", "B03") == [set(), set()]
    assert program.looks_at("c", "B03") == {"B02"}


def test_looking_alone_teaches_nothing(program):
    """Files that were looked at and not opened are not what the program reads."""
    assert program.looks_at("a", "B02") == set()
    program.opens("b", "B02")
    program.looks_at("b", "B03")
    assert program.opens("c", "B02") == [set()]


def test_looking_at_another_file_ends_nothing(program):
    """A look at what the program does not read leaves its guess for the file that it does."""
    program.opens("a", "B02", "B03")
    assert program.looks_at("b", "B04") == set()
    assert program.opens("b", "B02") == [{"B03"}]


def test_programs_are_told_apart():
    """What one program reads says nothing about another."""
    guesses = Guesses()
    Program(guesses, 1).opens("a", "B02", "B03")
    assert Program(guesses, 2).opens("b", "B02") == [set()]


def test_collections_are_told_apart(program):
    """Who reads images and labels in turn is followed in both."""
    program.opens("a", "B02", "B03")
    program.opens("a-labels", "B04", collection="labels")
    assert program.opens("b", "B02") == [{"B03"}]


def test_no_more_programs_are_remembered_than_are_needed():
    """The table of programs is bounded: who was not seen for long is seen anew."""
    guesses = Guesses()
    Program(guesses, 0).opens("a", "B02", "B03")
    for name in range(1, 1025):
        Program(guesses, name).opens("a", "B02")
    assert Program(guesses, 0).opens("b", "B02") == [set()]


@pytest.fixture
def host():
    with FaultyServer() as host:
        yield host


@pytest.fixture
def rooms(host):
    with Rooms(host, guesses=Guesses()) as rooms:
        yield rooms


def serve(host, size=1000):
    """Serve items a to d; B04 has `size` bytes, its neighbours few."""
    for item in "abcd":
        for key in BANDS:
            content = bytes(size if key == "B04" else 10)
            host.on(f"/store/{item}/{key}", Asset(content))
    items = [stac_item(one, {key: f"/store/{one}/{key}" for key in BANDS}) for one in "abcd"]
    mlhub(host, {"d": {"c": items}})


@pytest.mark.promise(
    "A program that reads the same small files of item after item gets the others with the first, "
    "from the second item on; two wrong guesses in a row stop that."
)
def test_the_files_of_the_second_item_come_together(host, rooms):
    """Opening one file of an item asks for what was read of the item before, once each."""
    serve(host)
    for key in BANDS:
        rooms.read(f"/d/c/a/{key}.tif")
    asked(host)
    rooms.tree.file("/d/c/b/B02.tif").open()
    for key in BANDS:
        host.wait_for(f"/store/b/{key}")
    for key in BANDS:
        rooms.read(f"/d/c/b/{key}.tif")
    assert sorted(asked(host)) == [
        "/store/b/B02", "/store/b/B03", "/store/b/B04", "/v1/collections/c/items/b",
    ]  # fmt: skip


def test_the_size_of_a_file_brings_the_others_too(host, rooms):
    """The kernel asks for the size first: the files come with that."""
    serve(host)
    for key in BANDS[:2]:
        rooms.read(f"/d/c/a/{key}.tif")
    rooms.tree.node("/d/c/b/B02.tif").attributes()
    host.wait_for("/store/b/B03")
    assert not host.to("/store/b/B04")


def test_what_is_at_hand_is_not_fetched_again(host, rooms):
    """A second epoch costs nothing."""
    serve(host)
    for _ in range(2):
        asked(host)
        for item in "ab":
            for key in BANDS:
                rooms.read(f"/d/c/{item}/{key}.tif")
    assert asked(host) == []


def test_it_can_be_switched_off(host):
    """Without guesses, a file is fetched when it is opened and not before."""
    serve(host)
    with Rooms(host) as rooms:
        for item in "ab":
            for key in BANDS[:2]:
                rooms.read(f"/d/c/{item}/{key}.tif")
        rooms.tree.file("/d/c/c/B02.tif").open()
        rooms.read("/d/c/d/B02.tif")
        assert not host.to("/store/c/B03")


@pytest.mark.parametrize(("size", "requests"), [(EXTENT, 2), (EXTENT + 1, 1)])
def test_a_small_file_comes_whole_and_of_a_large_one_the_first_block(host, rooms, size, requests):
    """The rest of a file up to 4 MiB is asked for too, that of a larger one is not."""
    serve(host, size)
    for key in ("B02", "B04"):
        rooms.tree.file(f"/d/c/a/{key}.tif").open()
    rooms.tree.file("/d/c/b/B02.tif").open()
    host.wait_for("/store/b/B04", requests)
    rooms.read("/d/c/b/B02.tif")
    assert len(host.to("/store/b/B04")) == requests


def test_a_guess_that_fails_is_nobodys_error(host, rooms):
    """A file that is gone fails for who opens it, not for who opens its neighbour."""
    serve(host)
    for key in BANDS:
        rooms.read(f"/d/c/a/{key}.tif")
    host.on("/store/b/B03", Reply(404))
    assert rooms.read("/d/c/b/B02.tif") == bytes(10)
    host.wait_for("/store/b/B03")
    assert rooms.read("/d/c/b/B04.tif") == bytes(1000)
