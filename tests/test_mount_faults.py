"""What programs on a mount see when servers, storage, disk or the network fail.

Each fault has a defined outcome: the right bytes, or an errno. After each the mount is alive: a
healthy file is looked up and read, right, and the log holds no traceback.
"""

import contextlib
import errno
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mounted as mounts
import pytest
from commands import User, is_dead, names, need_root, until
from faulty import Asset, FaultyServer, Pattern, Reply
from rooms import answer, features, mlhub, multihash, stac_item

import mlhubfs

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
ITEM = min(SAMPLE.glob("bigearthnet_v1/bigearthnet_v1_source/*/B04.tif")).relative_to(SAMPLE).parent
HTML = {"Content-Type": "text/html; charset=utf-8"}
SIZE = 8 << 20  # more than an asset that is brought whole
FAR = 5 << 20  # an offset that nothing brings before it is asked for
SMALL = b"well, well\n" * 1000
PATIENT = "timeout=30,connect_timeout=2,read_timeout=1"
QUICK = "timeout=1.5,connect_timeout=1,read_timeout=1"
WARNED = [r"WARNING mlhubfs\."]
"""Faults are logged as warnings; an error or a traceback in the log still fails the test."""

DATA = random.Random(7).randbytes(SIZE)
NEW = random.Random(8).randbytes(SIZE + (1 << 20) + 17)


class Scene:
    """An item of its own behind an API and a storage that fail as told, and a mount of them.

    It has the assets `a.tif` (DATA, at `file` of the storage) and `well.txt`, which never fails.
    """

    def __init__(self, api, storage, number):
        self.api, self.storage = api, storage
        self.name, self.file = f"i{number}", f"/a{number}"
        self.route = f"/v1/collections/c/items/{self.name}"
        self.well = f"{api.url}/well"
        storage.on(self.file, Asset(content=DATA))
        self.describe({"a.tif": f"{storage.url}{self.file}"})

    def describe(self, assets, **more):
        """Give the item these assets; `more` are other items, named after it."""
        self.api.on(self.route, answer(stac_item(self.name, {**assets, "well.txt": self.well})))
        for name, one in more.items():
            item = stac_item(f"{self.name}-{name}", one)
            self.api.on(f"{self.route}-{name}", answer(item))

    def at(self, mount):
        self.mount = mount
        self.item = mount.path / "d/c" / self.name
        self.path = self.item / "a.tif"
        return self

    def other(self, name):
        """The directory of an item of `describe`'s `more`."""
        return self.item.with_name(f"{self.name}-{name}")


class Stage(contextlib.ExitStack):
    """Servers and a mount of them, for one scene after the other."""

    def __init__(self, folder, binding, options):
        super().__init__()
        self.api = self.enter_context(FaultyServer())
        self.storage = self.enter_context(FaultyServer())
        self.api.on("/well", Asset(content=SMALL))
        mlhub(self.api, {"d": {"c": []}})
        source = f"{self.api.url}/v1"
        mount = mounts.mounted(source, folder, options, binding=binding, allow=WARNED)
        self.mount = self.enter_context(mount)
        self.numbers = itertools.count(1)

    @contextlib.contextmanager
    def scene(self, prepare=lambda it: None):
        it = Scene(self.api, self.storage, next(self.numbers)).at(self.mount)
        prepare(it)
        yield it
        alive(it)


@pytest.fixture(scope="module")
def stages(binding, tmp_path_factory):
    """`stages(options)`: the stage of these options, mounted when it is first asked for."""
    known = {}

    def find(options):
        if options not in known:
            folder = tmp_path_factory.mktemp("stage")
            known[options] = ending.enter_context(Stage(folder, binding, options))
        return known[options]

    with contextlib.ExitStack() as ending:
        yield find


@pytest.fixture
def scene(stages, binding, tmp_path_factory):
    """`with scene(options) as it:` gives a mounted Scene, and checks at the end that it lives.

    With `alone` the servers and the mount are its own.
    """

    @contextlib.contextmanager
    def make(options, prepare=lambda it: None, *, alone=False):
        with contextlib.ExitStack() as ending:
            if alone:
                stage = Stage(tmp_path_factory.mktemp("stage"), binding, options)
                ending.enter_context(stage)
            else:
                stage = stages(options)
            yield ending.enter_context(stage.scene(prepare))

    return make


def alive(it):
    """Look up a name that nobody asked for, and read a healthy file."""
    assert (it.item / "well.txt").read_bytes() == SMALL
    assert not os.path.lexists(it.item / f"nothing-{time.monotonic_ns()}")
    assert names(it.mount.path) == ["README.txt", "d"]
    assert os.kill(it.mount.daemon, 0) is None


@contextlib.contextmanager
def opened(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fails(code, act):
    """Check that `act` fails with an errno, or one of several."""
    codes = code if isinstance(code, tuple) else (code,)
    with pytest.raises(OSError, match="Errno") as raised:
        act()
    names = [errno.errorcode[one] for one in codes]
    assert raised.value.errno in codes, f"{raised.value!r} instead of {names}"


def assert_right(it, data=DATA, path=None):
    """Read some ranges, and the end, of the file as it is opened now."""
    with opened(path or it.path) as file:
        for offset in (0, 70_001, FAR - 5, len(data) - 100_000):
            assert os.pread(file, 99_991, offset) == data[offset : offset + 99_991]
        assert os.pread(file, 10, len(data)) == b""


class Reading:
    """A read in a process of its own, so that a read which hangs does not hang the test."""

    def __init__(self, path, offset=0, size=65536):
        script = (
            "import os,sys;os.write(2,b'.');f=os.open(sys.argv[1],os.O_RDONLY)\n"
            "try: sys.stdout.buffer.write(os.pread(f,int(sys.argv[3]),int(sys.argv[2])))\n"
            "except OSError as e: sys.exit(f'errno {e.errno}')"
        )
        words = ["python3", "-S", "-c", script, path, str(offset), str(size)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def data(self, seconds=mounts.SECONDS):
        out, err = self._end(seconds)
        assert self.process.returncode == 0, err
        return out

    def errno(self, seconds=mounts.SECONDS):
        out, err = self._end(seconds)
        assert out == b""
        return int(re.search(rb"[Ee]rrno (\d+)", err)[1])

    def _end(self, seconds):
        try:
            return self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self):
        self.process.kill()
        self.process.communicate(timeout=20)

    def wait_inside(self):
        """Wait until it waits for the mount."""
        assert self.process.stderr.read(1) == b"."
        state = Path(f"/proc/{self.process.pid}/stat")
        until(lambda: state.read_text().rpartition(") ")[2][0] in "DS", "it waits")


@contextlib.contextmanager
def read_by(*readings):
    """Readers that are killed at the end, all of them before any is waited for.

    Of several that look up one name, the kernel lets those who wait for the first one's look-up go
    when that has ended (d_alloc_parallel cannot be interrupted).
    """
    try:
        yield readings
    finally:
        for one in readings:
            one.process.kill()
        for one in readings:
            one.kill()


@pytest.mark.fault("connections refused")
@pytest.mark.fault("connections reset, bodies cut short")
def test_server_killed_in_mid_read_and_restarted(scene):
    """A read during which the storage dies and comes back returns the right bytes."""
    with scene(PATIENT) as it, opened(it.path) as file:
        assert os.pread(file, 100, 0) == DATA[:100]
        it.storage.on(
            it.file, Asset(content=DATA, cut=10_000, hold=it.storage.hold()), Asset(content=DATA)
        )
        reading = Reading(it.path, FAR)
        it.storage.wait_for(it.file, 2)
        it.storage.kill()
        it.storage.restart()
        assert reading.data() == DATA[FAR : FAR + 65536]


@pytest.mark.fault("500, 502, 503, 504")
@pytest.mark.fault("408")
@pytest.mark.fault("connections reset, bodies cut short")
def test_a_burst_of_trouble(scene):
    """Statuses that may pass, resets and cut bodies are waited out: the right bytes."""
    trouble = [
        *map(Reply, (500, 502, 503, 504, 408)), Reply(reset=True), Asset(content=DATA, cut=1000)
    ]  # fmt: skip
    with scene(PATIENT) as it, opened(it.path) as file:
        for one, mebibytes in zip(trouble, (5, 7, 6, 7.5, 5.5, 6.5, 7.8), strict=True):
            it.storage.on(it.file, one, Asset(content=DATA))
            offset = int(mebibytes * (1 << 20))
            assert os.pread(file, 100, offset) == DATA[offset : offset + 100]


def test_a_burst_of_5xx_of_the_api(scene):
    """5xx of the API are waited out as well: names and bytes are right."""
    with scene(PATIENT) as it:
        item = stac_item(it.name, {"a.tif": f"{it.storage.url}{it.file}", "well.txt": it.well})
        it.api.on(it.route, Reply(503), Reply(500), answer(item))
        assert_right(it)


def lying(**headers):
    """Return a storage whose every answer has these headers instead of the true ones."""
    return Asset(content=DATA, headers={name.replace("_", "-"): headers[name] for name in headers})


LASTING = {
    "500": (Reply(500), errno.EIO),
    "reset": (Reply(reset=True), errno.EIO),
    "cut": (Asset(content=DATA, cut=1000), errno.EIO),
    "408": (Reply(408), errno.ETIMEDOUT),
    "403": (Reply(403), errno.EACCES),
    "410": (Reply(410), errno.ENOENT),
    "416": (Reply(416, {"Content-Range": f"bytes */{SIZE}"}), errno.EIO),
    "no Location": (Reply(302), errno.EIO),
    "to ftp": (Reply(302, {"Location": "ftp://127.0.0.1/a"}), errno.EIO),
    "in circles": (lambda request: Reply(302, {"Location": request.path}), errno.EIO),
    "another range": (lying(Content_Range=f"bytes 0-{(256 << 10) - 1}/{SIZE}"), errno.EIO),
    "a shorter range": (lying(Content_Range=f"bytes {FAR}-{FAR + 9}/{SIZE}"), errno.EIO),
    "no range": (lying(Content_Range="nonsense"), errno.EIO),
    "several ranges": (lying(Content_Type="multipart/byteranges; boundary=x"), errno.EIO),
    "too long": (Asset(content=DATA, length=SIZE), errno.EIO),
    "too short": (Asset(content=DATA, length=99), errno.EIO),
    "no length": (Asset(content=DATA, ranges=False, length=-1), errno.EIO),
    "gzip": (Asset(content=DATA, compressed=True), errno.EIO),
    "br": (lying(Content_Encoding="br"), errno.EIO),
    "html": (Reply(200, HTML, b"<html>please log in</html>"), errno.EIO),
}


@pytest.mark.fault("no such item, asset or file; storage answers 404 or 410")
@pytest.mark.fault("the server refuses the key, or storage a fresh link (401, 403)")
@pytest.mark.fault("500, 502, 503, 504")
@pytest.mark.fault("408")
@pytest.mark.fault("connections reset, bodies cut short")
@pytest.mark.fault("416 for bytes that exist")
@pytest.mark.fault(
    "redirects in circles, more than 10, without `Location`, to another scheme, from https to http"
)
@pytest.mark.fault("206 with another range, with several (multipart), with another length")
@pytest.mark.fault("no length")
@pytest.mark.fault("bytes compressed unasked (gzip, br)")
@pytest.mark.fault("a web page instead of the file")
@pytest.mark.parametrize(("trouble", "code"), LASTING.values(), ids=LASTING.keys())
def test_trouble_that_lasts(scene, trouble, code):
    """A read that needs the storage has its errno in time, what is there is read; it recovers."""
    with scene(QUICK) as it, opened(it.path) as file:
        it.storage.on(it.file, trouble)
        assert Reading(it.path, FAR).errno(20) == code
        assert os.pread(file, 100, 0) == DATA[:100]
        it.storage.on(it.file, Asset(content=DATA))
        assert_right(it)


@pytest.mark.fault("429, with `Retry-After` as seconds or a date")
def test_429_with_a_short_wait(scene):
    """429 with `Retry-After: 1` is waited for, at least so long, and the bytes are right."""
    with scene(PATIENT) as it, opened(it.path) as file:
        it.storage.on(it.file, Reply(429, {"Retry-After": "1"}), Asset(content=DATA))
        started = time.monotonic()
        assert os.pread(file, 100, FAR) == DATA[FAR : FAR + 100]
        assert time.monotonic() - started >= 1


@pytest.mark.fault("429, with `Retry-After` as seconds or a date")
def test_429_with_a_long_wait(scene):
    """429 that asks for more time than the timeout leaves gives EAGAIN, without waiting."""
    with scene("timeout=50") as it, opened(it.path) as file:
        it.storage.on(it.file, Reply(429, {"Retry-After": "3600"}))
        started = time.monotonic()
        fails(errno.EAGAIN, lambda: os.pread(file, 100, FAR))
        assert time.monotonic() - started < 25
        it.storage.on(it.file, Asset(content=DATA))
        assert_right(it)


@pytest.mark.fault("`Range` is ignored: 200 and the whole file")
def test_range_ignored(scene):
    """A storage that answers every range with 200 and all gives the right bytes."""
    with scene(PATIENT) as it:
        it.storage.on(it.file, Asset(content=DATA, ranges=False))
        assert_right(it)
        assert it.path.stat().st_size == SIZE


@pytest.mark.fault("no length")
@pytest.mark.parametrize("framing", [{"chunked": True}, {"length": -1}], ids=["chunked", "closed"])
def test_no_length(scene, framing):
    """A range that comes in chunks, or ends with the connection, gives the right bytes."""
    with scene(PATIENT) as it:
        it.storage.on(it.file, Asset(content=DATA, **framing))
        assert_right(it)


@pytest.mark.fault("an empty file, a file of 5 GiB")
def test_the_smallest_and_the_largest(scene):
    """An empty file is empty; of 5 GiB the bytes around and behind 2^32 are the right ones."""
    huge = Pattern(5 << 30)

    def prepare(it):
        it.storage.on(f"{it.file}/0", Asset(content=b""))
        it.storage.on(f"{it.file}/5", Asset(content=huge))
        it.describe({f"{n}.tif": f"{it.storage.url}{it.file}/{n}" for n in (0, 5)})

    with scene(PATIENT, prepare) as it:
        assert (it.item / "0.tif").read_bytes() == b""
        path = it.item / "5.tif"
        assert path.stat().st_size == len(huge)
        with opened(path) as file:
            for offset in ((1 << 32) - 50_000, (1 << 32) + 12_345, len(huge) - 50_000):
                assert os.pread(file, 100_000, offset) == huge[offset : offset + 100_000]


@pytest.mark.fault("a host without an address (DNS)")
@pytest.mark.fault("TLS that fails, a certificate that is not trusted")
@pytest.mark.parametrize("url", ["http://h.invalid/a", "https://127.0.0.1:{port}/a"])
def test_hosts_that_cannot_be_spoken_to(scene, url):
    """A name without an address, and a host that does not speak TLS, give EIO."""
    with scene(PATIENT, lambda it: it.describe({"a.tif": url.format(port=it.storage.port)})) as it:
        assert Reading(it.path).errno(20) == errno.EIO


@pytest.mark.fault("a web page instead of the file")
def test_html_with_200(scene):
    """A portal's web page with 200 is never taken for the file: EIO, and it recovers."""
    with scene(QUICK) as it:
        it.storage.on(it.file, Reply(200, HTML, b"<html>please log in</html>"))
        fails(errno.EIO, it.path.read_bytes)
        it.storage.on(it.file, Asset(content=DATA))
        assert_right(it)


@pytest.mark.fault("a web page instead of the file")
def test_html_of_the_api(scene):
    """A web page in the place of an item gives EIO, and it recovers."""
    with scene(QUICK) as it:
        it.api.on(it.route, Reply(200, HTML, b"<html>please log in</html>"))
        fails(errno.EIO, it.item.stat)
        it.describe({})
        assert it.item.is_dir()


@pytest.mark.fault("the server refuses the key, or storage a fresh link (401, 403)")
def test_a_wrong_key(scene):
    """Items that the key does not open give EACCES, to list and to look up; it is asked again."""
    listing = "/v1/collections/c/items"
    with scene(QUICK, alone=True) as it:
        it.api.on(listing, Reply(401))
        it.api.on(it.route, Reply(401))
        it.api.on(f"{it.route}-x", Reply(403))
        fails(errno.EACCES, it.item.stat)
        fails(errno.EACCES, (it.other("x") / "a.tif").read_bytes)
        fails(errno.EACCES, lambda: names(it.item.parent))
        assert (it.item.parent / "collection.json").read_bytes()
        it.describe({"a.tif": f"{it.storage.url}{it.file}"})
        found = {"a.tif": f"{it.storage.url}{it.file}", "well.txt": it.well}
        it.api.on(listing, answer(features([stac_item(it.name, found)])))
        assert_right(it)
        assert names(it.item.parent) == ["collection.json", it.name]


@pytest.mark.promise(
    "An open file is of one version: when it is replaced on the server, reads that need the server "
    "fail with ESTALE, and the next open sees the new file."
)
@pytest.mark.parametrize(
    "new", [NEW[:SIZE], NEW, NEW[: SIZE - (2 << 20)]], ids=["same size", "grown", "shrunk"]
)
@pytest.mark.fault("a file is replaced, grows or shrinks while it is open")
def test_a_changed_etag_under_an_open_handle(scene, new):
    """The old handle gives ESTALE where it must ask, the next open the new file, whole.

    Last-Modified is the same, so that only the ETag tells.
    """
    with scene(PATIENT) as it, opened(it.path) as old:
        assert os.pread(old, 4096, 0) == DATA[:4096]
        it.storage.on(it.file, Asset(content=new, etag='"v2"'))
        for _ in range(2):
            fails(errno.ESTALE, lambda: os.pread(old, 4096, FAR))
        assert it.path.read_bytes() == new
        assert_right(it, new)
        for offset in (0, FAR):  # the old handle never shows bytes of the new file
            fails(errno.ESTALE, lambda at=offset: os.pread(old, 4096, at))
        copy = it.mount.folder / "copy"
        shutil.copyfile(it.path, copy)  # by sendfile
        assert copy.read_bytes() == new


@pytest.mark.promise(
    "To open a file after `content_ttl` asks whether it has changed (If-None-Match, and one byte): "
    "if not, the kernel's pages and the cached blocks serve on, else neither does."
)
def test_a_changed_etag_between_two_opens(scene):
    """A file that was replaced while it was closed is read as it is now, also what was cached."""
    with scene(f"{PATIENT},content_ttl=0", alone=True) as it:
        assert it.path.read_bytes()[:4096] == DATA[:4096]
        for number, size in enumerate((SIZE, SIZE + 99_999, SIZE - 99_999), 2):
            new = random.Random(number).randbytes(size)
            it.storage.on(it.file, Asset(content=new, etag=f'"v{number}"'))
            copy = it.mount.folder / "copy"
            shutil.copyfile(it.path, copy)  # by sendfile, which goes by the kernel's size and pages
            assert copy.read_bytes() == new
            assert it.path.read_bytes() == new


@pytest.mark.promise(
    "To open a file after `content_ttl` asks whether it has changed (If-None-Match, and one byte): "
    "if not, the kernel's pages and the cached blocks serve on, else neither does."
)
@pytest.mark.parametrize("conditional", [True, False], ids=["304", "206"])
def test_an_unchanged_file_is_not_read_again(scene, conditional):
    """Opened again after `content_ttl` it costs a byte: its pages are still in the kernel."""
    with scene(f"{PATIENT},content_ttl=0", alone=True) as it:
        it.storage.on(it.file, Asset(content=DATA, conditional=conditional))
        assert it.path.read_bytes() == DATA
        asked = len(it.storage.to(it.file))
        with opened(it.path) as file, stopped(it.mount.daemon):
            assert head(file) == DATA[:4096]
        news = it.storage.to(it.file)[asked:]
        assert {one.headers["range"] for one in news} == {"bytes=0-0"}
        assert {one.headers["if-none-match"] for one in news} == {'"v1"'}
        assert it.path.read_bytes() == DATA
        assert {one.headers["range"] for one in it.storage.to(it.file)[asked:]} == {"bytes=0-0"}


@pytest.mark.promise("With `immutable`, a file whose size is known is never asked about again.")
def test_an_immutable_file_is_not_asked_about(scene):
    """Whatever `content_ttl` says, opens cost no request, after a remount neither."""
    with scene(f"{PATIENT},content_ttl=0,immutable", alone=True) as it:
        assert it.path.read_bytes() == DATA
        asked = len(it.storage.to(it.file))
        it.mount.remount()
        assert it.path.read_bytes() == DATA
        assert len(it.storage.to(it.file)) == asked


@contextlib.contextmanager
def stopped(process):
    """Stop a process meanwhile, so that what is answered is answered by the kernel."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def head(file):
    """Return what `head` reads of an open file."""
    words = ["head", "-c", "4096"]
    return subprocess.run(words, stdin=file, capture_output=True, timeout=20, check=True).stdout


def test_the_size_is_told_anew(scene, binding):
    """After a replacement `stat` tells the new size: at once on libfuse 3, else after the ttl."""
    seconds = 300 if binding == "fuse3" else 1
    with scene(f"{PATIENT},ttl={seconds}", alone=True) as it, opened(it.path) as old:
        assert os.fstat(old).st_size == SIZE
        it.storage.on(it.file, Asset(content=NEW, etag='"v2"'))
        fails(errno.ESTALE, lambda: os.pread(old, 4096, FAR))
        until(lambda: it.path.stat().st_size == len(NEW), "the new size is told", 20)


def expiring(it):
    """Give `a.tif` download links that are new at each answer: the first is .../1, and so on."""
    numbers = itertools.count(1)

    def item(_request):
        number = next(numbers)
        link = f"/download/{it.name}/{number}"
        place = f"{it.file}/{number}"
        it.api.on(link, Reply(302, {"Location": f"{it.storage.url}{place}"}))
        it.storage.on(place, Asset(content=DATA))
        return answer(stac_item(it.name, {"a.tif": f"{it.api.url}{link}", "well.txt": it.well}))

    it.api.on(it.route, item)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
@pytest.mark.fault("a download link has expired (401, 403, 404, 410), in mid-file too")
@pytest.mark.fault("a redirect to another host")
def test_an_expired_link(scene, status):
    """A link that has expired is renewed, once, under an open handle: the right bytes."""
    with scene(PATIENT, expiring) as it, opened(it.path) as file:
        assert os.pread(file, 100, 0) == DATA[:100]
        it.storage.on(f"{it.file}/1", Reply(status))
        it.api.on(f"/download/{it.name}/1", Reply(status))
        assert os.pread(file, 100, FAR) == DATA[FAR : FAR + 100]
        assert len(it.api.to(it.route)) == 2
        assert len(it.api.to(f"/download/{it.name}/2")) == 1
        assert_right(it)
        assert len(it.api.to(it.route)) == 2


@pytest.mark.fault("the server refuses the key, or storage a fresh link (401, 403)")
def test_a_link_that_stays_refused(scene):
    """A link that is refused again after it was renewed gives EACCES, and no third try."""
    with scene(PATIENT, expiring) as it, opened(it.path) as file:
        assert os.pread(file, 100, 0) == DATA[:100]
        it.storage.on(f"{it.file}/1", Reply(403))
        it.describe({"a.tif": f"{it.api.url}/refused/{it.name}"})
        it.api.on(f"/refused/{it.name}", Reply(403))
        fails(errno.EACCES, lambda: os.pread(file, 100, FAR))
        assert len(it.api.to(f"/refused/{it.name}")) == 1


@pytest.mark.fault("connections refused")
def test_a_storage_that_is_down(scene):
    """A storage that refuses gives EIO; what is cached is read, and its return is noticed."""
    with scene(QUICK) as it, opened(it.path) as file:
        assert os.pread(file, 100, 0) == DATA[:100]
        it.storage.kill()
        fails((errno.EIO, errno.ETIMEDOUT), lambda: os.pread(file, 100, FAR))
        assert os.pread(file, 100, 200) == DATA[200:300]
        assert it.path.stat().st_size == SIZE
        it.storage.restart()
        assert_right(it)


@pytest.mark.promise(
    "A read gives the right bytes or an error, never wrong bytes, and never waits beyond `timeout`."
)
@pytest.mark.fault("silence before the answer or within it, or a byte now and then")
def test_a_silent_storage(scene):
    """A storage that accepts and says nothing gives ETIMEDOUT within the timeout."""
    with scene(QUICK) as it, opened(it.path) as file:
        it.storage.on(it.file, Asset(content=DATA, hold=it.storage.hold()))
        assert Reading(it.path, FAR).errno(20) == errno.ETIMEDOUT
        # One deadline of 1.5 s has room for two silences of 1 s, the kernel's own second try for
        # two more: that is answered by the first one's error.
        asked = [one for one in it.storage.to(it.file) if f"={FAR}-" in one.headers["range"]]
        assert len(asked) <= 2
        it.storage.on(it.file, Asset(content=DATA))
        assert os.pread(file, 100, FAR) == DATA[FAR : FAR + 100]


@pytest.mark.fault("silence before the answer or within it, or a byte now and then")
def test_a_trickling_storage(scene):
    """A storage that sends a byte now and then, so that it is never silent, is cut off as well."""
    with scene(QUICK) as it:
        assert it.path.stat().st_size == SIZE
        it.storage.on(it.file, Asset(content=DATA, trickle=0.2))
        assert Reading(it.path, FAR).errno(20) == errno.ETIMEDOUT
        it.storage.on(it.file, Asset(content=DATA))
        assert_right(it)


@pytest.mark.fault("no such item, asset or file; storage answers 404 or 410")
def test_a_missing_asset(scene):
    """An asset that is advertised and not in storage is ENOENT; the rest of the item is read."""
    with scene(
        QUICK,
        lambda it: it.describe(
            {"a.tif": f"{it.storage.url}{it.file}", "B10.tif": f"{it.api.url}/no"}
        ),
    ) as it:
        fails(errno.ENOENT, (it.item / "B10.tif").stat)
        fails(errno.ENOENT, lambda: (it.item / "B10.tif").open("rb"))
        assert names(it.item) == ["B10.tif", "a.tif", "stac.json", "well.txt"]
        done = subprocess.run(["ls", "-l", it.item], capture_output=True, text=True, check=False)
        assert "B10.tif': No such file" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert_right(it)


@contextlib.contextmanager
def small_disk(folder, size):
    need_root()
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.promise(
    "A cache folder that is full, read-only or deleted slows reading down, and does nothing else."
)
@pytest.mark.parametrize("megabytes", [1, 3])
@pytest.mark.fault("the cache folder is full, read-only, deleted, or on a disk that fails")
def test_a_full_cache_disk(scene, tmp_path, megabytes):
    """A disk that is too small for what is read costs nothing but the caching."""
    disk = tmp_path / "disk"
    with small_disk(disk, f"{megabytes}m"), scene(f"{PATIENT},cache_dir={disk}", alone=True) as it:
        for _ in range(2):
            assert it.path.read_bytes() == DATA
            subprocess.run(["dd", f"if={it.path}", "iflag=nocache", "count=0"],
                           capture_output=True, check=True)  # fmt: skip
        assert_right(it)


@pytest.mark.promise(
    "A cache folder that is full, read-only or deleted slows reading down, and does nothing else."
)
@pytest.mark.fault("the cache folder is full, read-only, deleted, or on a disk that fails")
def test_a_cache_that_becomes_read_only(scene, tmp_path):
    """A cache whose disk becomes read-only costs nothing but the caching."""
    disk = tmp_path / "disk"
    with small_disk(disk, "64m"), scene(f"{PATIENT},cache_dir={disk}", alone=True) as it:
        assert it.path.stat().st_size == SIZE
        subprocess.run(["mount", "-o", "remount,ro", disk], check=False, capture_output=True)
        assert_right(it)
        assert it.path.read_bytes() == DATA


@contextlib.contextmanager
def mortal_disk(folder, image):
    """A file system on a disk that loses all it holds, and fails to read it, when it is told to."""
    need_root()
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(96 << 20)
    words = ["losetup", "--find", "--show", "--direct-io=on", image]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device for a disk that fails: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, folder], check=True)
        yield lambda: os.truncate(image, 0)
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.fault("the cache folder is full, read-only, deleted, or on a disk that fails")
def test_a_cache_on_a_disk_that_fails(scene, tmp_path):
    """Blocks that the disk no longer reads are fetched again."""
    disk = tmp_path / "disk"
    with (
        mortal_disk(disk, tmp_path / "image") as die,
        scene(f"{PATIENT},cache_dir={disk}", alone=True) as it,
    ):
        assert it.path.read_bytes() == DATA
        it.mount.remount()
        for path in disk.rglob("*.val"):
            with opened(path) as file:  # out of the kernel's pages, so that the disk has to answer
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        die()
        asked = len(it.storage.to(it.file))
        assert it.path.read_bytes() == DATA
        assert len(it.storage.to(it.file)) > asked
        assert "cannot read: [Errno 5]" in it.mount.log


@pytest.mark.promise(
    "A cache folder that is full, read-only or deleted slows reading down, and does nothing else."
)
@pytest.mark.fault("the cache folder is full, read-only, deleted, or on a disk that fails")
def test_a_cache_that_is_deleted(scene):
    """A cache folder that is deleted while it is in use costs nothing but the caching."""
    with scene(PATIENT, alone=True) as it:
        assert_right(it)
        until(lambda: shutil.rmtree(it.mount.cache, ignore_errors=True)
              or not it.mount.cache.exists(), "it is deleted")  # fmt: skip
        assert it.path.read_bytes() == DATA
        it.mount.remount()
        assert it.path.read_bytes() == DATA


@pytest.mark.promise(
    "A block that was damaged on disk is noticed by its checksum and fetched again."
)
@pytest.mark.fault("blocks in the cache are cut short, changed or gone, or its database is damaged")
def test_corrupted_blocks(scene):
    """A bit that flips in a cached block is noticed: it is fetched again, the bytes are right."""
    with scene(PATIENT, alone=True) as it:
        assert it.path.read_bytes() == DATA
        it.mount.unmount()
        blocks = [path for path in it.mount.cache.rglob("*.val") if path.stat().st_size > 1000]
        assert len(blocks) >= SIZE // (1 << 20)
        for path in blocks:
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 2)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 16]))
        it.mount.mount()
        asked = len(it.storage.to(it.file))
        assert it.path.read_bytes() == DATA
        assert len(it.storage.to(it.file)) > asked
        assert "fails its checksum" in it.mount.log


@pytest.mark.parametrize("size", [100_000, 300_000, SIZE])
@pytest.mark.parametrize(
    "read",
    [Path.read_bytes, lambda path: shutil.copyfile(path, os.devnull)],
    ids=["read", "sendfile"],
)
def test_bytes_that_the_catalog_denies(scene, read, size):
    """The program is told, though the kernel reads ahead, and again what could not be read."""
    right, wrong = DATA[:size], DATA[: size // 2] + b"?" + DATA[size // 2 + 1 : size]

    def prepare(it):
        href = f"{it.storage.url}{it.file}"
        it.describe({"a.tif": {"href": href, "file:checksum": multihash(right)}})
        it.storage.on(it.file, Asset(content=wrong))

    with scene(PATIENT, prepare) as it:
        fails(errno.EIO, lambda: read(it.path))
        it.storage.on(it.file, Asset(content=right))
        assert it.path.read_bytes() == right


@pytest.mark.parametrize("harm", ["cut", "gone"])
@pytest.mark.fault("blocks in the cache are cut short, changed or gone, or its database is damaged")
def test_damaged_block_files(scene, harm):
    """Blocks whose files are cut or gone are fetched again."""
    with scene(PATIENT, alone=True) as it:
        assert it.path.read_bytes() == DATA
        it.mount.unmount()
        for path in it.mount.cache.rglob("*.val"):
            if harm == "gone":
                path.unlink()
            else:
                os.truncate(path, path.stat().st_size // 2)
        it.mount.mount()
        assert it.path.read_bytes() == DATA


@pytest.mark.parametrize("harm", ["head", "middle"])
@pytest.mark.fault("blocks in the cache are cut short, changed or gone, or its database is damaged")
def test_a_damaged_cache_database(scene, harm):
    """A cache whose database is garbage, at its head or in the middle, gives the right bytes."""
    with scene(PATIENT, alone=True) as it:
        assert it.path.read_bytes() == DATA
        it.mount.unmount()
        for path in it.mount.cache.rglob("cache.db"):
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(0 if harm == "head" else 4096)
                file.write(random.Random(1).randbytes(4096 if harm == "head" else size - 4096))
        it.mount.mount()
        assert it.path.read_bytes() == DATA


@pytest.mark.fault("several mounts, each with a daemon of its own, on one cache folder")
def test_two_daemons_on_one_cache_folder(scene, binding, tmp_path):
    """Both read the right bytes while each evicts what the other has written."""
    options = f"{PATIENT},cache_dir={tmp_path / 'shared'},cache_size=12M,memory=1M"

    def prepare(it):
        it.describe({f"{n}.tif": f"{it.storage.url}{it.file}/{n}" for n in range(3)})
        for number in range(3):
            it.storage.on(f"{it.file}/{number}", Asset(content=DATA, etag=f'"{number}"'))

    def read(folder):
        for number in (0, 1, 2, 1, 0):
            with opened(folder / f"{number}.tif") as file:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.pread(file, SIZE, 0) == DATA

    (tmp_path / "second").mkdir()
    with scene(options, prepare, alone=True) as it:
        source, second = it.mount.source, tmp_path / "second"
        with mounts.mounted(source, second, options, binding=binding, allow=WARNED) as other:
            folders = [it.item, other.path / "d/c" / it.name]
            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(read, folders * 2)) == [None] * 4


@pytest.mark.fault("the daemon is killed while it writes (`kill -9`)")
def test_a_killed_daemon_leaves_a_sound_cache(scene):
    """After kill -9 of a daemon that was writing blocks, the next mount reads the right bytes."""
    with scene(PATIENT, alone=True) as it:
        reading = Reading(it.path, 0, SIZE)
        it.storage.wait_for(it.file, 2)
        os.kill(it.mount.daemon, signal.SIGKILL)
        until(lambda: is_dead(it.mount.path), "the mount is dead")
        reading.kill()
        it.mount.mount()
        assert it.path.read_bytes() == DATA


@pytest.mark.fault("Ctrl-C or `kill -9` of the reader")
def test_ctrl_c_ends_cat(scene):
    """A program that does not catch the signal dies of it in the middle of its read."""
    with scene("timeout=60,read_timeout=60") as it:
        assert it.path.stat().st_size == SIZE
        held = it.storage.hold()
        it.storage.on(it.file, Asset(content=DATA, hold=held))
        with subprocess.Popen(["cat", it.path], stdout=subprocess.DEVNULL) as cat:
            it.storage.wait_for(it.file, 2)
            cat.send_signal(signal.SIGINT)
            assert cat.wait(timeout=20) == -signal.SIGINT
        held.set()
        assert_right(it)


class TestBlackHole:
    """A server that stops answering in the middle of everything: SIGSTOP."""

    @pytest.fixture
    def hole(self, tmp_path, mounted, binding):
        """The local server as a process, and a mount of it in which one item was looked at."""

        @contextlib.contextmanager
        def make(options):
            user = User(tmp_path / "server")
            with user.running("serve", "--port", "0", "--quiet") as server:
                source = server.stdout.readline().strip()
                with mounted(source, options, binding=binding, allow=WARNED) as mount:
                    item = mount.path / ITEM
                    assert (item / "B04.tif").read_bytes() == (
                        SAMPLE / ITEM / "B04.tif"
                    ).read_bytes()
                    listed = names(mount.path / ITEM.parent)
                    server.send_signal(signal.SIGSTOP)
                    yield mount, item, server
                    # The mount is alive, and knows what it knew.
                    server.send_signal(signal.SIGCONT)
                    for name in ("B02.tif", "B8A.tif"):
                        path = mount.path / ITEM / name
                        assert path.read_bytes() == (SAMPLE / ITEM / name).read_bytes()
                    assert names(mount.path / ITEM.parent) == listed

        (tmp_path / "server").mkdir()
        return make

    @pytest.mark.fault("the server is stopped and goes on later (SIGSTOP, SIGCONT)")
    def test_a_read_times_out(self, hole):
        """A read fails with ETIMEDOUT within its timeout, and works after SIGCONT."""
        with hole(QUICK) as (_mount, item, _server):
            assert Reading(item / "B02.tif").errno(20) == errno.ETIMEDOUT

    @pytest.mark.fault("the server is stopped and goes on later (SIGSTOP, SIGCONT)")
    def test_what_is_known_answers(self, hole):
        """Cached directories and files answer while reads of another item's files hang."""
        with hole("timeout=50") as (mount, item, server):
            other = item.parent / max(name for name in names(item.parent) if "S2A" in name)
            with read_by(*(Reading(other / name) for name in ("B02.tif", "B03.tif"))) as readings:
                started = time.monotonic()
                assert (item / "B04.tif").read_bytes() == (SAMPLE / ITEM / "B04.tif").read_bytes()
                assert (item / "stac.json").read_bytes()
                assert len(names(item)) == 13
                assert len(names(item.parent)) == 25
                assert not (item / "B04.tif.ovr").exists()
                assert (mount.path / "README.txt").read_text()
                assert time.monotonic() - started < 20
                assert all(reading.process.poll() is None for reading in readings)
                server.send_signal(signal.SIGCONT)
                for reading, name in zip(readings, ("B02.tif", "B03.tif"), strict=True):
                    assert reading.data() == (SAMPLE / ITEM.parent / other.name / name).read_bytes()

    @pytest.mark.promise(
        "A program that is killed or interrupted while it waits for a read is let go at once; "
        "one that catches the signal waits on, until `timeout`."
    )
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    @pytest.mark.fault("Ctrl-C or `kill -9` of the reader")
    def test_a_reader_that_gives_up_is_let_go(self, hole, number):
        """Ctrl-C and kill -9 end a reader at once, though its read would hang for a minute."""
        with hole("timeout=60,read_timeout=60") as (_mount, item, _server):
            reading = Reading(item / "B02.tif")
            reading.wait_inside()
            started = time.monotonic()
            reading.process.send_signal(number)
            reading.process.communicate(timeout=20)
            assert time.monotonic() - started < 5
            assert reading.process.returncode != 0

    def test_many_that_give_up_leave_nothing(self, hole):
        """Forty readers that are killed in their reads do not keep later ones from reading."""
        with hole("timeout=60,read_timeout=60") as (_mount, item, _server):
            paths = [item / name for name in ("B02.tif", "B03.tif") for _ in range(20)]
            with read_by(*map(Reading, paths)) as readings:
                for one in readings:
                    one.wait_inside()


class TestStalls:
    """Reads that stall on a dead storage, and others that must go on."""

    @pytest.mark.parametrize("count", [16, 60])
    def test_stalled_reads_keep_nobody_else(self, scene, count):
        """Sixteen, and sixty, reads stalled on a dead storage do not keep another from being read.

        Neither a cached file, nor one on a healthy storage, nor a look-up at the API.
        """
        sizes = 4 << 20

        def prepare(it):
            held = it.storage.hold()
            assets = {}
            for number in range(count):
                content = Pattern(sizes + 1 + number)
                it.storage.on(
                    f"{it.file}/{number}", Asset(content=content), Asset(content=content, hold=held)
                )
                assets[f"n{number}.tif"] = f"{it.storage.url}{it.file}/{number}"
            it.api.on("/fine", Asset(content=DATA))
            it.describe({**assets, "fine.tif": f"{it.api.url}/fine"})

        with scene("timeout=60,read_timeout=60", prepare, alone=True) as it:
            assert (it.item / "well.txt").read_bytes() == SMALL
            paths = [it.item / f"n{number}.tif" for number in range(count)]
            for number, path in enumerate(paths):
                assert path.stat().st_size == sizes + 1 + number
            with read_by(*(Reading(path, (3 << 20) - 999, 600_000) for path in paths)) as readings:
                for number in range(count):
                    it.storage.wait_for(f"{it.file}/{number}", 2)
                started = time.monotonic()
                assert Reading(it.item / "well.txt").data() == SMALL
                assert Reading(it.item / "fine.tif", FAR).data() == DATA[FAR : FAR + 65536]
                assert Reading(it.item / "fine.tif", 0, SIZE).data() == DATA
                it.api.on(f"{it.route}-x", answer(stac_item(f"{it.name}-x", {"x.txt": it.well})))
                assert Reading(it.other("x") / "x.txt").data() == SMALL
                assert time.monotonic() - started < 30
                assert all(one.process.poll() is None for one in readings)

    def test_stalled_look_ups_keep_nobody_else(self, scene):
        """Sixty files whose size is not told keep no other from being read."""

        count = 60

        def prepare(it):
            it.storage.on(f"{it.file}/dead", Asset(content=DATA, hold=it.storage.hold()))
            items = {str(n): {"x.tif": f"{it.storage.url}{it.file}/dead"} for n in range(count)}
            it.describe({}, **items)

        with scene("timeout=60,read_timeout=60", prepare, alone=True) as it:
            paths = [it.other(number) / "x.tif" for number in range(count)]
            with read_by(*map(Reading, paths)):
                it.storage.wait_for(f"{it.file}/dead", count)
                started = time.monotonic()
                assert Reading(it.item / "well.txt").data() == SMALL
                assert time.monotonic() - started < 30

    def test_abandoned_look_ups_keep_nobody_else(self, scene):
        """Nor do ninety whose readers were killed since, and whose requests still hang."""

        def prepare(it):
            it.storage.on(f"{it.file}/dead", Asset(content=DATA, hold=it.storage.hold()))
            items = {str(n): {"x.tif": f"{it.storage.url}{it.file}/dead"} for n in range(90)}
            it.describe({}, **items)

        with scene("timeout=60,read_timeout=60", prepare, alone=True) as it:
            for first in (0, 45):
                paths = [it.other(number) / "x.tif" for number in range(first, first + 45)]
                with read_by(*map(Reading, paths)) as readings:
                    for one in readings:
                        one.wait_inside()
            started = time.monotonic()
            assert Reading(it.item / "well.txt").data() == SMALL
            assert time.monotonic() - started < 30
