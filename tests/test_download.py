"""One file from storage to disk: whole and right, or resumable, whatever the server does."""

import base64
import contextlib
import hashlib
import itertools
import json
import os
import threading
import time
from dataclasses import replace

import pytest
from faulty import MODIFIED, Asset, FaultyServer, Pattern, Reply
from rooms import asset_at, multihash

from mlhubfs.content.asset import AssetRef, Location
from mlhubfs.content.checksum import parse_checksum
from mlhubfs.download import downloader, gaps, part, transfer
from mlhubfs.download.downloader import Downloader, IfExists, Wanted
from mlhubfs.download.part import PartFile, Version
from mlhubfs.download.transfer import LONGEST_REQUEST
from mlhubfs.errors import BadAnswer, Changed, InUse, NotFound, NotWritten, Unavailable
from mlhubfs.transport.client import Transport
from mlhubfs.transport.workers import Workers

SIZE = 20_000_003
DATA = Pattern(SIZE)[0:SIZE]
OTHER = DATA[::-1]
MD5 = hashlib.md5(DATA).digest()


class Desk(contextlib.ExitStack):
    """A downloader, a server with `/file`, and a folder to download to."""

    def __init__(self, folder):
        super().__init__()
        self.server = self.enter_context(FaultyServer())
        self.workers = Workers()
        self.transport = Transport(root_url=self.server.url, backoff=0.001, read_timeout=5)
        self.callback(self.workers.close)
        self.callback(self.transport.close)
        self.folder = folder
        self.target = folder / "archives" / "file.tar.gz"
        self.located = []
        self.came = 0

    def asset(self, *paths, identity="file"):
        """Return an asset whose link is the first path, and the next one when it is renewed."""

        def locate(after):
            self.located.append(after)
            path = paths[min(len(self.located), len(paths)) - 1]
            return Location(self.server.url + path, time.monotonic())

        return AssetRef(("source", "c", "i", identity), locate)

    def asset_at(self, path):
        """Return an asset of its own, for good at that path."""
        url = self.server.url + path
        return AssetRef(("source", "c", "i", path), lambda after: Location(url, time.monotonic()))

    def mirrored(self, *paths, **more):
        """Return an asset that is at all of these paths."""
        own, *others = (self.server.url + path for path in paths)
        return asset_at(own, others=others, **more)

    def fetch(self, *paths, connections=8, identity="file", asset=None, **more):
        """Download to `target`; return whether anything had to be fetched."""

        def progress(came):
            self.came += came

        self.came = 0
        self.downloader = Downloader(self.transport, self.workers, connections=connections)
        asset = asset or self.asset(*(paths or ("/file",)), identity=identity)
        return self.downloader.fetch(asset, self.target, progress=progress, **more)

    def put(self, data):
        """Have a file where the download goes."""
        self.target.parent.mkdir(exist_ok=True)
        self.target.write_bytes(data)

    def names(self):
        return sorted(path.name for path in self.target.parent.iterdir())

    def is_complete(self, data=DATA):
        """Say whether the file is there, whole and right, and nothing beside it."""
        return self.names() == [self.target.name] and self.target.read_bytes() == data

    def asked_bytes(self):
        """Return how many bytes the requests so far asked for, and forget them."""
        asked = sum(len(span_of(one)) for one in self.server.requests)
        self.server.requests.clear()
        return asked


class OneAtATime:
    """Answers with a range of `DATA`, or with `refusal` while another is being sent."""

    def __init__(self, refusal):
        self.refusal = refusal
        self.turn = threading.Lock()

    def __call__(self, request):
        if not self.turn.acquire(blocking=False):
            return Reply(self.refusal)
        reply = Asset(content=DATA)(request)
        return replace(reply, body=Watched(reply.body, self.turn.release))


class Watched:
    """Content that says when its last bytes are taken."""

    def __init__(self, content, ended):
        self.content, self.ended = content, ended

    def __len__(self):
        return len(self.content)

    def __getitem__(self, index):
        if index.stop == len(self.content):
            self.ended()
        return self.content[index]


@pytest.fixture
def desk(tmp_path):
    with Desk(tmp_path) as desk:
        yield desk


@pytest.fixture
def prompt_notes(monkeypatch):
    """Notes of what is missing after each piece."""
    monkeypatch.setattr(part, "_NOTE_SECONDS", 0)


def span_of(request):
    """Return which bytes of the file were asked for."""
    start, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    return range(int(start), min(int(last) + 1, SIZE))


def until(offset, **more):
    """Answer with ranges of `DATA` that begin before `offset`, and to others not at all."""
    behind = Asset(content=DATA, **more)
    return lambda request: behind(request) if span_of(request).start < offset else Reply(503)


def interrupt(desk, **more):
    """Break a download off in its middle: nothing answers behind 9 MB any more."""
    desk.server.on("/file", until(9_000_000, **more))
    with pytest.raises(Unavailable):
        desk.fetch(connections=1)
    desk.server.requests.clear()


class TestFetching:
    @pytest.mark.promise(
        "A downloaded file appears under its name when it is complete, and has the size and the "
        "digest that storage (MD5) and the catalog (`file:size`, `file:checksum`) tell; one that "
        "has not is dropped, asked for at the next `alternate` href, and else an error each time."
    )
    @pytest.mark.parametrize("size", [0, 1, LONGEST_REQUEST, LONGEST_REQUEST + 1, SIZE])
    @pytest.mark.parametrize("connections", [1, 8])
    def test_a_file_arrives_whole(self, desk, size, connections):
        """Every byte is asked for once, by requests of at most some megabytes."""
        desk.server.on("/file", Asset(content=DATA[:size]))
        assert desk.fetch(connections=connections)
        assert desk.is_complete(DATA[:size])
        assert desk.came == size
        assert len(desk.server.requests) >= -(-size // LONGEST_REQUEST)

    def test_it_has_the_servers_time(self, desk):
        """As the mount shows it."""
        desk.server.on("/file", Asset(content=DATA, modified=MODIFIED))
        desk.fetch()
        assert desk.target.stat().st_mtime == 1498904430

    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_server_without_ranges_sends_one_stream(self, desk, chunked):
        """One request, whether it tells the size beforehand or not."""
        desk.server.on("/file", Asset(content=DATA, ranges=False, chunked=chunked))
        assert desk.fetch()
        assert desk.is_complete()
        assert len(desk.server.requests) == 1

    def test_of_one_stream_that_breaks_off_for_ever_nothing_is_kept(self, desk):
        """The next try could not go on from there."""
        desk.server.on("/file", Asset(content=DATA, ranges=False, cut=5_000_000))
        with pytest.raises(Unavailable):
            desk.fetch()
        assert desk.names() == []

    def test_one_stream_that_breaks_off_begins_again(self, desk):
        """What cannot be resumed is fetched anew, and progress goes back."""
        whole = Asset(content=DATA, ranges=False)
        desk.server.on("/file", Asset(content=DATA, ranges=False, cut=5_000_000), whole)
        assert desk.fetch()
        assert desk.is_complete()
        assert desk.came == SIZE

    def test_a_server_that_stops_taking_ranges_is_asked_for_all(self, desk):
        """Nothing is put together from what was asked for and what was not."""
        desk.server.on("/file", Asset(content=DATA), Asset(content=DATA, ranges=False))
        assert desk.fetch(connections=1)
        assert desk.is_complete()

    def test_without_a_validator_nothing_is_put_together(self, desk):
        """Two answers may be of two versions: the file is one answer."""
        desk.server.on("/file", Asset(content=DATA, etag=None, modified=None))
        assert desk.fetch()
        assert desk.is_complete()
        assert [one.headers["range"] for one in desk.server.requests][1:] == [f"bytes=0-{SIZE - 1}"]

    def test_without_a_validator_a_small_file_begins_again_too(self, desk):
        """What its first bytes were of, another answer does not tell."""
        size, bare = 200_000, {"etag": None, "modified": None}
        broken = Asset(content=DATA[:size], cut=100_000, **bare)
        desk.server.on("/file", broken, Asset(content=OTHER[:size], **bare))
        assert desk.fetch()
        assert desk.is_complete(OTHER[:size])
        assert desk.came == size

    def test_connections_that_break_off_go_on_where_they_were(self, desk):
        """A megabyte a connection makes a file, and no byte is asked for in vain for long."""
        desk.server.on("/file", Asset(content=DATA, cut=1_000_000))
        assert desk.fetch()
        assert desk.is_complete()
        assert desk.came == SIZE

    @pytest.mark.parametrize("refusal", [503, 429])
    def test_a_server_that_answers_one_at_a_time_is_enough(self, desk, refusal, monkeypatch):
        """Connections that are refused leave their share to the one that is not."""
        monkeypatch.setattr(desk.transport, "_backoff", 0.1)
        desk.server.on("/file", OneAtATime(refusal))
        assert desk.fetch()
        assert desk.is_complete()

    def test_a_connection_that_stalls_holds_nothing_up(self, desk, prompt_notes, monkeypatch):
        """Its bytes are fetched by another; it is not waited for, and harms nothing later."""
        monkeypatch.setattr(gaps, "STALLED_SECONDS", 0.2)
        whole = Asset(content=DATA)
        stalling = Asset(content=DATA, cut=100_000, hold=desk.server.hold())
        desk.server.on("/file", whole, stalling, whole)
        assert desk.fetch()
        assert desk.is_complete()
        assert not stalling.hold.is_set()
        stalling.hold.set()
        for _ in range(8):
            assert desk.downloader._slots.acquire(timeout=30)
        assert desk.is_complete()

    def test_a_server_that_gives_nothing_is_given_up(self, desk, monkeypatch):
        """It is tried some times, and then it is an error; nothing is left behind."""
        monkeypatch.setattr(transfer, "_PAUSE_SECONDS", 0)
        desk.server.on("/file", Asset(content=DATA, cut=0))
        with pytest.raises(Unavailable):
            desk.fetch()
        assert desk.names() == []

    def test_what_is_not_there_is_not_tried_again(self, desk):
        """One request, one error, no file."""
        with pytest.raises(NotFound):
            desk.fetch()
        assert len(desk.server.requests) == 1
        assert desk.names() == []

    def test_a_link_that_expires_is_renewed(self, desk):
        """In the middle of a download too, once for each time that it dies."""
        dying = Asset(content=DATA)
        desk.server.on("/old", dying, Reply(403))
        desk.server.on("/new", Asset(content=DATA))
        assert desk.fetch("/old", "/new", connections=1)
        assert desk.is_complete()
        assert len(desk.located) == 2

    @pytest.mark.parametrize(
        "lie",
        [
            Asset(content=DATA, headers={"Content-Range": f"bytes 5-8388612/{SIZE}"}),
            Asset(content=DATA, headers={"Content-Range": "nonsense"}),
            Asset(content=DATA, headers={"Content-Type": "text/html"}),
            Asset(content=DATA, compressed=True),
            Asset(content=DATA, length=1000),
            Asset(content=DATA, ranges=False, length=-1),  # its end could be that of the line
            Reply(204),
        ],
    )
    def test_an_answer_that_contradicts_itself_is_not_written(self, desk, lie):
        """Better an error than wrong bytes."""
        desk.server.on("/file", lie)
        with pytest.raises(BadAnswer):
            desk.fetch()
        assert desk.names() == []


class TestVersions:
    def test_a_file_that_changes_on_its_way_is_that_of_the_end(self, desk):
        """What had come of the old version is dropped."""
        desk.server.on("/file", Asset(content=DATA, etag='"1"'), Asset(content=OTHER, etag='"2"'))
        assert desk.fetch()
        assert desk.is_complete(OTHER)

    def test_a_file_that_never_stops_changing_is_an_error(self, desk):
        """It is begun again some times, and left."""
        count = itertools.count()

        def another(request):
            return Asset(content=DATA, etag=f'"{next(count)}"')(request)

        desk.server.on("/file", another)
        with pytest.raises(Changed):
            desk.fetch()
        assert not desk.target.exists()

    @pytest.mark.parametrize(
        ("headers", "ranges"),
        [
            ({"x-ms-blob-content-md5": base64.b64encode(MD5).decode()}, True),
            ({"Content-MD5": base64.b64encode(MD5).decode()}, False),
            ({"x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(MD5).decode()}"}, True),
            ({"ETag": f'"{MD5.hex()}"', "x-amz-request-id": "1"}, True),
        ],
    )
    def test_bytes_are_compared_with_the_md5_that_storage_tells(self, desk, headers, ranges):
        """Bytes that do not have it are thrown away, with a word."""
        desk.server.on("/file", Asset(content=DATA, headers=headers, ranges=ranges))
        assert desk.fetch()
        assert desk.is_complete()
        desk.target.unlink()
        desk.server.on("/file", Asset(content=OTHER, headers=headers, ranges=ranges))
        with pytest.raises(BadAnswer, match="MD5"):
            desk.fetch()
        assert desk.names() == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"ETag": f'"{"0" * 32}"'},  # of nginx, of anybody
            {"ETag": f'"{"0" * 32}-5"', "x-amz-request-id": "1"},  # of an upload in parts
            {"ETag": f'"{"0" * 32}"', "x-amz-request-id": "1",
             "x-amz-server-side-encryption": "aws:kms"},
            {"Content-MD5": base64.b64encode(b"0" * 16).decode()},  # on a range: the range's
        ],
    )  # fmt: skip
    def test_what_is_no_md5_of_the_file_is_not_taken_for_one(self, desk, headers):
        """An ETag is S3's MD5 on S3 alone; a range's MD5 is the range's."""
        desk.server.on("/file", Asset(content=DATA, headers=headers))
        assert desk.fetch()
        assert desk.is_complete()


class TestWhatTheCatalogSays:
    @pytest.mark.promise(
        "A downloaded file appears under its name when it is complete, and has the size and the "
        "digest that storage (MD5) and the catalog (`file:size`, `file:checksum`) tell; one that "
        "has not is dropped, asked for at the next `alternate` href, and else an error each time."
    )
    def test_bytes_with_another_checksum_are_dropped(self, desk):
        """The error names the asset and both digests; the next time all is fetched anew."""
        asset = desk.mirrored("/file", checksum=parse_checksum(multihash(DATA)))
        expected, found = (hashlib.sha256(one).hexdigest()[:12] for one in (DATA, OTHER))
        desk.server.on("/file", Asset(content=OTHER))
        for _ in range(2):
            with pytest.raises(BadAnswer, match=f"c/i/B02 .*SHA256.*{expected}.*{found}"):
                desk.fetch(asset=asset)
            assert desk.names() == []
            assert desk.came == 0
            assert desk.asked_bytes() == SIZE
        desk.server.on("/file", Asset(content=DATA))
        assert desk.fetch(asset=asset)
        assert desk.is_complete()
        assert desk.asked_bytes() == SIZE

    def test_what_another_href_has_may_be_right(self, desk):
        """No byte of the wrong ones is in it, though size and validator are the same."""
        desk.server.on("/own", Asset(content=OTHER))
        desk.server.on("/mirror", Asset(content=DATA))
        checksum = parse_checksum(multihash(DATA, "md5"))
        assert desk.fetch(asset=desk.mirrored("/own", "/mirror", checksum=checksum))
        assert desk.is_complete()
        assert desk.came == SIZE

    def test_all_of_a_file_that_was_resumed_is_compared(self, desk):
        """What came the time before may have gone bad on the disk."""
        desk.server.on("/file", until(9_000_000))
        asset = desk.mirrored("/file", checksum=parse_checksum(multihash(DATA)))
        with pytest.raises(Unavailable):
            desk.fetch(asset=asset, connections=1)
        with part._part_path(desk.target).open("r+b") as file:
            file.write(b"bad")
        desk.server.on("/file", Asset(content=DATA))
        with pytest.raises(BadAnswer, match="SHA256"):
            desk.fetch(asset=asset)
        assert desk.fetch(asset=asset)
        assert desk.is_complete()

    @pytest.mark.parametrize("storage", [Asset(DATA), Asset(DATA, ranges=False, chunked=True)])
    def test_another_size_is_refused(self, desk, storage):
        """Before all of it has come, where storage tells."""
        desk.server.on("/file", storage)
        with pytest.raises(BadAnswer, match=f"c/i/file has {SIZE} bytes, and 7 were"):
            desk.fetch(size=7)
        assert desk.names() == []
        assert len(desk.server.requests) == 1


class TestResuming:
    def test_what_is_there_is_not_asked_for_again(self, desk):
        """After an error the next call asks for what is missing only."""
        interrupt(desk)
        ((start, stop),) = json.loads(note_of(desk.target).read_text())["missing"]
        assert (start > LONGEST_REQUEST, stop) == (True, SIZE)
        desk.server.on("/file", Asset(content=DATA))
        assert desk.fetch()
        assert desk.is_complete()
        assert desk.asked_bytes() == stop - start
        assert desk.came == SIZE

    def test_a_file_that_has_changed_meanwhile_starts_again(self, desk):
        """No byte of the old version is in the new one."""
        interrupt(desk)
        desk.server.on("/file", Asset(content=OTHER, etag='"v2"'))
        assert desk.fetch()
        assert desk.is_complete(OTHER)

    def test_overwriting_starts_again(self, desk):
        """Whatever is there."""
        interrupt(desk)
        desk.server.on("/file", Asset(content=DATA))
        assert desk.fetch(if_exists=IfExists.OVERWRITE)
        assert desk.is_complete()
        assert desk.asked_bytes() == SIZE

    def test_of_a_server_without_validators_nothing_is_kept(self, desk):
        """It could not be told whether the rest belongs to it."""
        desk.server.on("/file", Asset(content=DATA, etag=None, modified=None, cut=5_000_000))
        with pytest.raises(Unavailable):
            desk.fetch()
        assert desk.names() == []

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda file, note: note.write_text("{"),
            lambda file, note: note.write_text("[]"),
            lambda file, note: note.unlink(),
            lambda file, note: file.unlink(),
            lambda file, note: os.truncate(file, 1000),
            lambda file, note: change(note, identity="another file"),
            lambda file, note: change(note, version=[SIZE, "etag:other"]),
            lambda file, note: change(note, version=[SIZE + 1, "etag:v1"]),
            lambda file, note: change(note, missing=[[5, 3]]),
            lambda file, note: change(note, missing=[[0, SIZE * 2]]),
            lambda file, note: change(note, missing=[["a", 2]]),
            lambda file, note: change(note, boot="another", missing_when_synced=None),
        ],
    )
    def test_a_part_that_cannot_be_trusted_starts_again(self, desk, spoil):
        """A note that is damaged, of another file, or outlives its part, tells nothing."""
        interrupt(desk)
        spoil(part._part_path(desk.target), note_of(desk.target))
        desk.server.on("/file", Asset(content=DATA))
        assert desk.fetch()
        assert desk.is_complete()
        assert desk.asked_bytes() >= SIZE

    def test_after_another_boot_only_what_was_synced_counts(self, desk):
        """A machine that went down may have lost what a killed process would not."""
        interrupt(desk)
        change(note_of(desk.target), boot="another", missing_when_synced=[[1_000_000, SIZE]])
        desk.server.on("/file", Asset(content=DATA))
        assert desk.fetch()
        assert desk.is_complete()
        assert desk.asked_bytes() == SIZE - 1_000_000

    def test_the_note_never_speaks_of_bytes_that_are_not_there(self, desk, prompt_notes):
        """Whenever the process is killed: what the note does not miss is in the part."""
        seen = []

        def look(request):
            with contextlib.suppress(OSError):
                note = json.loads(note_of(desk.target).read_text())
                data, at = part._part_path(desk.target).read_bytes(), 0
                for start, stop in [*note["missing"], [SIZE, SIZE]]:
                    assert data[at:start] == DATA[at:start]
                    at = stop
                seen.append(note["missing"])
            return Asset(content=DATA)(request)

        desk.server.on("/file", look)
        assert desk.fetch()
        assert desk.is_complete()
        assert seen

    def test_neither_link_nor_token_is_in_the_note(self, desk):
        """The note says what the file is, and not where it came from."""
        desk.server.on("/file", Reply(302, {"Location": "/storage?sig=SECRET"}))
        desk.server.on("/storage", Asset(content=DATA), Reply(503))
        with pytest.raises(Unavailable):
            desk.fetch(connections=1)
        note = note_of(desk.target).read_text()
        assert "SECRET" not in note
        assert "http" not in note


class TestAlternates:
    @pytest.mark.promise(
        "A download tries an asset's `alternate` hrefs as a read does; what one of them has begun "
        "another goes on with if it has the same size and validator, else it starts again."
    )
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_where_one_breaks_off_for_good_the_next_goes_on(self, desk, version):
        """With what is missing, if its validator is the same; else with a file of its own."""
        data = DATA if version == "v1" else OTHER
        desk.server.on("/own", until(9_000_000))
        desk.server.on("/mirror", Asset(content=data, etag=f'"{version}"'))
        assert desk.fetch(asset=desk.mirrored("/own", "/mirror"), connections=1)
        assert desk.is_complete(data)
        assert desk.came == SIZE
        asked = sum(len(span_of(request)) for request in desk.server.to("/mirror"))
        assert (asked < SIZE) == (version == "v1")

    @pytest.mark.parametrize(
        "refusal",
        [Reply(403), Reply(404), Reply(503), Reply(200, {"Content-Type": "text/html"}, b"log in")],
    )
    def test_the_next_one_is_tried_where_one_fails(self, desk, refusal):
        """Refused, gone, down, a login page: in the catalog's order."""
        desk.server.on("/own", refusal)
        desk.server.on("/mirror", Asset(content=DATA))
        assert desk.fetch(asset=desk.mirrored("/own", "/gone", "/mirror", "/never"))
        assert desk.is_complete()
        assert desk.server.to("/gone")
        assert not desk.server.to("/never")

    def test_where_all_fail_the_error_is_of_the_own(self, desk):
        """And what has come is kept for the next time, from wherever it then comes."""
        desk.server.on("/own", until(9_000_000))
        with pytest.raises(Unavailable):
            desk.fetch(asset=desk.mirrored("/own", "/gone"), connections=1)
        desk.server.on("/own", Reply(404))
        desk.server.on("/mirror", Asset(content=DATA))
        desk.server.requests.clear()
        assert desk.fetch(asset=desk.mirrored("/own", "/mirror"))
        assert desk.is_complete()
        assert sum(len(span_of(one)) for one in desk.server.to("/mirror")) < SIZE

    @pytest.mark.parametrize("size", [LONGEST_REQUEST, SIZE])
    def test_without_validators_one_is_not_gone_on_with_by_another(self, desk, monkeypatch, size):
        """Nothing tells that their bytes are the same."""
        monkeypatch.setattr(transfer, "_PAUSE_SECONDS", 0)
        bare = {"etag": None, "modified": None}
        desk.server.on("/own", Asset(content=DATA[:size], cut=5_000_000, **bare))
        desk.server.on("/mirror", Asset(content=OTHER[:size], **bare))
        assert desk.fetch(asset=desk.mirrored("/own", "/mirror"))
        assert desk.is_complete(OTHER[:size])
        assert desk.came == size

    def test_an_alternate_that_expires_is_renewed(self, desk):
        """With a link of its own, not with one of the first href."""
        old, new = ([f"{desk.server.url}/{age}/{one}" for one in "ab"] for age in ("old", "new"))
        for age in ("old", "new"):
            desk.server.on(f"/{age}/a", Reply(404))
        desk.server.on("/old/b", Asset(content=DATA), Reply(403))
        desk.server.on("/new/b", Asset(content=DATA))

        def locate(after):
            own, *others = new if after else old
            return Location(own, time.monotonic(), tuple(others))

        asset = AssetRef(("source", "c", "i", "a"), locate)
        assert desk.fetch(asset=asset, connections=1)
        assert desk.is_complete()
        assert desk.server.to("/new/b")


class TestWhatIsThere:
    @pytest.mark.promise("`--if-exists skip` asks no server for a file that is there.")
    def test_to_skip_asks_no_server(self, desk):
        """Whatever the file holds, and whatever the catalog says of it."""
        desk.put(OTHER[:500])
        asset = desk.mirrored("/file", checksum=parse_checksum(multihash(DATA)))
        assert not desk.fetch(if_exists=IfExists.SKIP)
        assert not desk.fetch(if_exists=IfExists.SKIP, asset=asset, size=SIZE)
        assert desk.server.requests == []

    def test_a_file_of_the_catalogs_size_costs_no_request(self, desk):
        """Where the catalog tells no digest."""
        desk.put(DATA)
        assert not desk.fetch(size=SIZE)
        assert desk.server.requests == []

    @pytest.mark.promise(
        "A file that is there stays if it has the catalog's `file:size` and `file:checksum`, or, "
        "where neither is told, the size that storage tells, if it tells any, when asked for one "
        "byte; else it is fetched anew, and stays until the new one is complete."
    )
    @pytest.mark.parametrize("size", [None, SIZE])
    def test_a_file_with_the_catalogs_digest_costs_no_request(self, desk, size):
        """One with another is fetched anew, though its size is the same."""
        asset = desk.mirrored("/file", checksum=parse_checksum(multihash(DATA)))
        desk.server.on("/file", Asset(content=DATA))
        desk.put(OTHER)
        assert desk.fetch(asset=asset, size=size)
        assert desk.is_complete()
        assert desk.asked_bytes() == SIZE
        assert not desk.fetch(asset=asset, size=size)
        assert desk.server.requests == []

    def test_a_file_that_cannot_be_read_is_fetched_anew(self, desk, monkeypatch):
        """Whether its digest is the catalog's nobody knows."""

        def refuse(path, kind):
            raise PermissionError(path)

        monkeypatch.setattr(downloader, "digest_of", refuse)
        desk.put(DATA)
        desk.server.on("/file", Asset(content=DATA))
        asset = desk.mirrored("/file", checksum=parse_checksum(multihash(DATA)))
        assert desk.fetch(asset=asset)
        assert desk.is_complete()

    @pytest.mark.promise(
        "A file that is there stays if it has the catalog's `file:size` and `file:checksum`, or, "
        "where neither is told, the size that storage tells, if it tells any, when asked for one "
        "byte; else it is fetched anew, and stays until the new one is complete."
    )
    @pytest.mark.parametrize("size", [0, 1, 1000])
    @pytest.mark.parametrize("ranges", [True, False])
    def test_where_the_catalog_tells_no_size_storage_is_asked(self, desk, size, ranges):
        """By one request for a byte; what has the size that it tells is left."""
        desk.server.on("/file", Asset(content=DATA[:size], ranges=ranges))
        desk.put(OTHER[:size])
        assert not desk.fetch()
        assert [one.headers["range"] for one in desk.server.requests] == ["bytes=0-0"]
        assert desk.is_complete(OTHER[:size])

    @pytest.mark.parametrize("there", [b"", b"ten bytes.", DATA + b"more"])
    def test_a_file_of_another_size_than_storage_tells_is_fetched_anew(self, desk, there):
        """An empty one, a beginning, one that was longer before."""
        desk.server.on("/file", Asset(content=DATA))
        desk.put(there)
        assert desk.fetch()
        assert desk.is_complete()
        assert desk.asked_bytes() == 1 + SIZE

    def test_a_file_whose_size_cannot_be_told_is_left(self, desk):
        """Only the end of the stream would tell it."""
        desk.server.on("/file", Asset(content=DATA, ranges=False, chunked=True))
        desk.put(OTHER)
        assert not desk.fetch()
        assert desk.is_complete(OTHER)

    def test_the_size_is_asked_for_as_the_bytes_are(self, desk):
        """With a new link where the old one is refused, and at the next href after that."""
        desk.server.on("/old", Reply(403))
        desk.server.on("/new", Asset(content=DATA))
        desk.put(DATA)
        old, new = (Location(f"{desk.server.url}/{one}", 1.0) for one in ("old", "new"))
        renewed = AssetRef(("source", "c", "i", "a"), lambda after: new if after else old)
        assert not desk.fetch(asset=renewed)
        assert not desk.fetch(asset=desk.mirrored("/gone", "/new"))

    def test_where_no_size_can_be_had_it_is_an_error(self, desk):
        """And the file stays as it is."""
        desk.put(OTHER)
        with pytest.raises(NotFound):
            desk.fetch()
        assert desk.is_complete(OTHER)

    def test_a_file_of_another_size_is_fetched_anew(self, desk):
        """It may be a beginning, but of what? It stays until the new one is there."""
        desk.put(OTHER[:500])
        seen = []

        def look(request):
            seen.append(desk.target.read_bytes() == OTHER[:500])
            return Asset(content=DATA)(request)

        desk.server.on("/file", look)
        assert not desk.fetch(if_exists=IfExists.SKIP, size=SIZE)
        assert desk.fetch(size=SIZE)
        assert all(seen)
        assert desk.is_complete()

    def test_two_processes_do_not_write_the_same_file(self, desk):
        """The second is told so."""
        other = PartFile(desk.target, "")
        desk.server.on("/file", Asset(content=DATA))
        with pytest.raises(InUse, match=r"another process is downloading file\.tar\.gz"):
            desk.fetch()
        other.release()
        assert desk.fetch()

    def test_a_file_that_another_process_has_just_finished_is_not_touched(self, desk, monkeypatch):
        """What was opened as a part may be the target by the time that it is locked."""
        other = PartFile(desk.target, "")
        flock, path = part.fcntl.flock, part._part_path(desk.target)

        def finish_first(descriptor, how):
            monkeypatch.setattr(part.fcntl, "flock", flock)
            os.pwrite(descriptor, OTHER, 0)
            path.rename(desk.target)
            other.release()
            flock(descriptor, how)

        monkeypatch.setattr(part.fcntl, "flock", finish_first)
        second = PartFile(desk.target, "")
        second.begin(Version(1, ""))
        assert desk.target.read_bytes() == OTHER
        second.release()

    def test_a_folder_that_cannot_be_written_is_said(self, desk):
        """In one line, with the reason."""
        desk.target.parent.write_text("a file")
        with pytest.raises(NotWritten, match=r"file\.tar\.gz cannot be written: (File|Not)"):
            desk.fetch()

    def test_the_longest_names_have_parts_too(self, desk):
        """A name of 255 bytes leaves no room for a suffix."""
        desk.target = desk.target.with_name("é" * 125 + ".tif")
        interrupt(desk)
        desk.server.on("/file", Asset(content=DATA))
        assert desk.fetch()
        assert desk.is_complete()


class TestFullDisk:
    def test_a_part_on_a_full_disk_is_noted(self, desk, monkeypatch):
        """Where there is no room even for the note, the last bytes make room."""
        file = PartFile(desk.target, "id")
        file.begin(Version(SIZE, "etag:1"))
        claim = file.gaps.claim(SIZE)
        file.write(claim, DATA[:5_000_000])
        save, fails = PartFile._save, iter([NotWritten("full")])

        def full_once(self, *, sync):
            for error in fails:
                raise error
            save(self, sync=sync)

        monkeypatch.setattr(PartFile, "_save", full_once)
        file.keep()
        file.release()
        again = PartFile(desk.target, "id")
        ((at, stop),) = again.gaps.missing()
        again.release()
        assert 4_900_000 < at < 5_000_000
        assert stop == SIZE


class TestMany:
    def test_files_are_fetched_side_by_side_and_named_with_their_errors(self, desk):
        """Those that fail keep none of the others from coming."""
        asked = threading.Barrier(4, timeout=30)

        def together(request):
            asked.wait()
            return Asset(content=DATA[:1000])(request)

        for number in range(4):
            desk.server.on(f"/{number}", together)
        downloader = Downloader(desk.transport, desk.workers, connections=5)
        files = [
            Wanted(desk.asset_at(f"/{number}"), desk.folder / str(number)) for number in range(5)
        ]
        outcomes = {wanted.target.name: error for wanted, error in downloader.fetch_all(files)}
        assert {name: type(error) for name, error in outcomes.items()} == {
            **dict.fromkeys("0123", type(None)),
            "4": NotFound,
        }
        assert all((desk.folder / name).read_bytes() == DATA[:1000] for name in "0123")

    def test_a_file_that_is_on_its_way_is_not_fetched_again(self, desk):
        """It was named twice: no error, and no second request."""
        hold = threading.Event()
        desk.server.on("/file", Asset(content=b"x", hold=hold))

        def files():
            for _ in range(3):
                yield Wanted(desk.asset_at("/file"), desk.folder / "a")
            hold.set()

        downloader = Downloader(desk.transport, desk.workers, connections=2)
        assert [error for _, error in downloader.fetch_all(files())] == [None]
        assert len(desk.server.to("/file")) == 1

    def test_files_are_taken_as_there_is_room_for_them(self, desk):
        """A catalog of 590,326 items is not held in memory."""
        desk.server.on("/file", Asset(content=b"x"))
        taken = []

        def files():
            for number in range(100):
                taken.append(number)
                yield Wanted(desk.asset_at("/file"), desk.folder / str(number))

        downloader = Downloader(desk.transport, desk.workers, connections=2)
        for done, _ in enumerate(downloader.fetch_all(files()), 1):
            assert len(taken) <= done + 4


def note_of(target):
    """Return the path of the note beside a target."""
    file = part._part_path(target)
    return file.with_name(f"{file.name}.json")


def change(note, **fields):
    """Change fields of a note."""
    note.write_text(json.dumps({**json.loads(note.read_text()), **fields}))
