"""Catalogs on this machine's disk: what may be read of a folder, and of a tarball."""

import gzip
import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhubfs.errors import BadAnswer, Changed, ConfigError, Denied, NotFound, Offline
from mlhubfs.transport import gunzip
from mlhubfs.transport.client import Transport
from mlhubfs.transport.gunzip import Gunzip
from mlhubfs.transport.local import Folder
from mlhubfs.transport.tarball import Tarball, is_tarball, open_files

DATA = random.Random(7).randbytes(5 << 18) * 3  # noisy, so that it does not pack to nothing


@pytest.fixture
def folder(tmp_path):
    """A folder with a catalog and a file, beside a file that is not its own."""
    (tmp_path / "outside.tif").write_bytes(b"secret")
    inside = tmp_path / "cat"
    (inside / "sub").mkdir(parents=True)
    (inside / "catalog.json").write_bytes(b"{}")
    (inside / "sub" / "a b%é.tif").write_bytes(DATA)
    return inside


@pytest.fixture(params=["folder", "tar", "tar.gz", "tgz"])
def files(request, folder, tmp_path):
    """The same files, as each kind; the second value is the URL of the folder."""
    if request.param == "folder":
        yield Folder(folder), f"{folder.as_uri()}"
        return
    path = packed(tmp_path / f"x.{request.param}", folder)
    opened = Tarball(path)
    yield opened, f"{path.as_uri()}/cat"
    opened.close()


def packed(path, folder, name=None):
    """Make a tarball of a folder, gzipped by its name."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        archive.add(folder, name or folder.name)
    return path


class TestAlike:
    """A folder and a tarball of it answer the same."""

    def test_a_document_is_the_whole_file(self, files):
        """At the URL that was asked for."""
        opened, url = files
        assert opened.document(f"{url}/catalog.json") == (b"{}", f"{url}/catalog.json")

    def test_the_root_is_its_catalog(self, files):
        """Where the catalog begins."""
        opened, url = files
        assert opened.root == f"{url}/catalog.json"

    @pytest.mark.parametrize(
        ("start", "stop"), [(0, 1), (0, len(DATA)), (1 << 20, 2 << 20), (5, 1 << 30)]
    )
    def test_a_range_is_exact(self, files, start, stop):
        """With the size of the whole, a validator and a time."""
        opened, url = files
        part = opened.range(f"{url}/sub/a%20b%25%C3%A9.tif", start, stop)
        assert part.data == DATA[start:stop]
        assert part.total == len(DATA)
        assert part.validator.startswith("etag:")
        assert part.modified > 1e9

    def test_a_range_beyond_the_end_is_empty(self, files):
        """And tells the size, as a 416 does."""
        opened, url = files
        part = opened.range(f"{url}/sub/a%20b%25%C3%A9.tif", len(DATA), len(DATA) + 5)
        assert (part.data, part.total) == (b"", len(DATA))

    @pytest.mark.parametrize("path", ["nope.tif", "sub", "", "sub/../sub/nope", "catalog.json/x"])
    def test_what_is_no_file_is_not_found(self, files, path):
        """A folder is none either."""
        opened, url = files
        with pytest.raises(NotFound):
            opened.range(f"{url}/{path}", 0, 1)

    @pytest.mark.parametrize(
        "path",
        ["../outside.tif", "sub/../../outside.tif", "%2E%2E/outside.tif", "/etc/passwd",
         "..%2Foutside.tif", "nul%00"],
    )  # fmt: skip
    def test_nothing_outside_is_read(self, files, path):
        """However the way there is written."""
        opened, url = files
        with pytest.raises((Denied, NotFound)):
            opened.range(f"{url}/{path}" if path[0] != "/" else f"file://{path}", 0, 1)

    @pytest.mark.parametrize("host", ["other", "h.org:80"])
    def test_another_machine_is_not_asked(self, files, host):
        """A file: URL with a host is somebody else's file."""
        opened, url = files
        with pytest.raises(NotFound, match=host):
            opened.document(url.replace("file://", f"file://{host}"))


class TestLinks:
    """Links in a folder, and in a tarball of it."""

    @pytest.fixture(params=["folder", "tar"])
    def opened(self, request, folder, tmp_path):
        """Return what opens a path of the folder, once links have been put into it."""
        (folder / "file").symlink_to("sub/../catalog.json")
        (folder / "sub" / "upward").symlink_to("../up/catalog.json")
        (folder / "up").symlink_to("sub/..")
        (folder / "s").symlink_to("./sub")
        (folder / "sub" / "deep").mkdir()
        (folder / "deep").symlink_to("sub/deep")
        (folder / "beside").symlink_to("deep/../a b%é.tif")
        (folder / "hard").hardlink_to(folder / "catalog.json")
        (folder / "dangling").symlink_to("nothing")
        (folder / "circle").symlink_to("circle")
        (folder / "out").symlink_to("../outside.tif")
        (folder / "absolute").symlink_to("/etc/passwd")
        (folder / "sub" / "over").symlink_to("../up/../outside.tif")
        if request.param == "folder":
            files, url = Folder(folder), folder.as_uri()
        else:
            path = packed(tmp_path / "x.tar", folder, name=".")
            files, url = Tarball(path), path.as_uri()
        yield lambda name: files.range(f"{url}/{name}", 0, 1 << 30).data
        files.close()

    @pytest.mark.parametrize("name", ["file", "hard", "sub/upward", "up/up/file", "s/upward"])
    def test_a_link_that_stays_inside_is_followed(self, opened, name):
        """As any program would."""
        assert opened(name) == b"{}"

    @pytest.mark.parametrize("name", ["beside", "s/a b%25é.tif"])
    def test_it_is_followed_from_where_it_leads(self, opened, name):
        """Above a linked directory is what its own place is in."""
        assert opened(name) == DATA

    @pytest.mark.parametrize("name", ["dangling", "s", "up/nothing", "dangling/file"])
    def test_one_to_no_file_is_not_found(self, opened, name):
        """A directory is none."""
        with pytest.raises(NotFound):
            opened(name)

    @pytest.mark.parametrize("name", ["out", "absolute", "sub/over", "circle", "circle/file"])
    def test_one_that_leads_astray_is_denied(self, opened, name):
        """Out, or nowhere."""
        with pytest.raises(Denied):
            opened(name)


class TestFolder:
    """Links out of a folder."""

    @pytest.mark.parametrize("target", ["../outside.tif", "/etc/passwd", "sub/up/outside.tif"])
    def test_a_link_that_leads_out_is_denied(self, folder, target):
        """A catalog that was downloaded must not show the user's own files."""
        (folder / "sub" / "up").symlink_to(folder.parent)
        (folder / "link").symlink_to(target)
        with pytest.raises(Denied, match="outside"):
            Folder(folder).range((folder / "link").as_uri(), 0, 1)

    def test_the_folder_itself_may_be_reached_by_a_link(self, folder, tmp_path):
        """It is what was asked for."""
        (tmp_path / "link").symlink_to(folder)
        there = tmp_path / "link" / "catalog.json"
        assert Folder(tmp_path / "link").document(there.as_uri()).body == b"{}"
        assert Folder(there).document(there.as_uri()).body == b"{}"

    def test_a_pipe_is_no_file(self, folder):
        """And does not hang."""
        os.mkfifo(folder / "pipe")
        with pytest.raises(NotFound):
            Folder(folder).document((folder / "pipe").as_uri())

    def test_a_link_to_a_pipe_is_denied(self, folder):
        """It lies in no folder at all."""
        reader, writer = os.pipe()
        (folder / "link").symlink_to(f"/proc/self/fd/{reader}")
        with pytest.raises(Denied, match="outside"):
            Folder(folder).document((folder / "link").as_uri())
        os.close(reader)
        os.close(writer)

    def test_another_version_has_another_validator(self, folder):
        """So that an open file is not mixed of two."""
        path = folder / "catalog.json"
        first = Folder(folder).range(path.as_uri(), 0, 1).validator
        path.with_suffix(".new").write_bytes(b"[]")
        path.with_suffix(".new").replace(path)
        assert Folder(folder).range(path.as_uri(), 0, 1).validator != first

    def test_a_folder_without_a_catalog_is_told(self, tmp_path):
        """With what was looked for."""
        with pytest.raises(NotFound, match="neither a catalog"):
            Folder(tmp_path).root  # noqa: B018


class TestTarball:
    """What a tarball may be."""

    def test_the_root_is_the_catalog_that_lies_highest(self, tmp_path):
        """A catalog before a collection, whatever the order in the tarball."""
        for name in ("z/collection.json", "z/a/catalog.json", "z/catalog.json"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"{}")
        opened = Tarball(packed(tmp_path / "x.tar", tmp_path / "z"))
        assert opened.root.endswith("/x.tar/z/catalog.json")
        opened.close()

    def test_names_may_begin_with_a_dot(self, tmp_path, folder):
        """As `tar czf x.tar.gz .` writes them."""
        opened = Tarball(packed(tmp_path / "x.tar.gz", folder, name="."))
        assert opened.root == f"{(tmp_path / 'x.tar.gz').as_uri()}/catalog.json"
        opened.close()

    @pytest.mark.parametrize(
        "data",
        [b"", b"\x1f\x8b", b"no tar at all" * 99, gzip.compress(b"no tar at all" * 99, mtime=0)],
        ids=["empty", "two bytes", "text", "gzipped text"],
    )
    def test_what_is_none_is_told(self, tmp_path, data):
        """With its name."""
        (tmp_path / "x.tar.gz").write_bytes(data)
        with pytest.raises((BadAnswer, NotFound)):
            Tarball(tmp_path / "x.tar.gz").root  # noqa: B018

    def test_one_without_a_catalog_is_told_and_closed(self, tmp_path):
        """Python goes on, and would keep its descriptor."""
        (tmp_path / "x").write_bytes(b"x")
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            archive.add(tmp_path / "x", "x")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            with pytest.raises(NotFound):
                Tarball(tmp_path / "x.tar")
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    @pytest.mark.parametrize("kept", [0.2, 0.9])
    def test_one_that_breaks_off_is_refused(self, tmp_path, folder, kept):
        """Instead of being shown as far as it goes."""
        path = packed(tmp_path / "x.tar.gz", folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(BadAnswer):
            Tarball(path)

    @pytest.mark.promise(
        "A tarball that breaks off, or has a damaged header, is refused when it is mounted."
    )
    @pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
    def test_one_with_a_damaged_header_is_refused(self, tmp_path, folder, name):
        """What follows it would be missing."""
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(folder, "cat")
        data = whole.getvalue().replace(b"cat/sub", b"cat/s\0b")
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        with pytest.raises(BadAnswer, match=f"{name} is no tarball, or damaged"):
            Tarball(tmp_path / name)

    @pytest.mark.parametrize("ending", [b"", bytes(100), bytes(512), bytes(512) + b"more"])
    def test_one_ends_with_zeros_or_with_the_file(self, tmp_path, ending):
        """Not all programs write the two blocks that a tarball is to end with."""
        header = tarfile.TarInfo("catalog.json")
        header.size = 2
        (tmp_path / "x.tar").write_bytes(header.tobuf() + b"{}".ljust(512, b"\0") + ending)
        opened = Tarball(tmp_path / "x.tar")
        assert opened.document(opened.root).body == b"{}"
        opened.close()

    @pytest.mark.parametrize("form", ["gnu", "pax"])
    def test_a_sparse_file_is_passed_over(self, tmp_path, folder, form):
        """It is stored without its holes: read where it lies, it would have others' bytes."""
        with (folder / "sparse").open("wb") as file:
            file.truncate(1 << 20)
            file.seek(1 << 19)
            file.write(b"x")
        path = tmp_path / "x.tar"
        command = ["tar", f"--format={form}", "-cSf", path, "-C", folder, "."]
        subprocess.run(command, check=True)
        opened = Tarball(path)
        assert opened.document(opened.root).body == b"{}"
        with pytest.raises(NotFound):
            opened.range(f"{path.as_uri()}/sparse", 0, 1)
        opened.close()

    def test_one_that_is_replaced_is_read_to_its_end(self, tmp_path, folder):
        """Its table of members holds for the bytes that it was made from."""
        path = packed(tmp_path / "x.tar", folder)
        opened = Tarball(path)
        (tmp_path / "new").write_bytes(b"else")
        (tmp_path / "new").replace(path)
        assert opened.document(f"{path.as_uri()}/cat/catalog.json").body == b"{}"
        opened.close()

    def test_one_that_is_written_to_is_stale(self, tmp_path, folder):
        """Its table of members no longer tells where they are."""
        path = packed(tmp_path / "x.tar", folder)
        opened = Tarball(path)
        url = f"{path.as_uri()}/cat/catalog.json"
        path.write_bytes(path.read_bytes() + b"more")
        for ask in (opened.document, lambda url: opened.range(url, 0, 1)):
            with pytest.raises(Changed):
                ask(url)
        opened.close()


@given(
    pieces=st.lists(st.binary(max_size=90), max_size=5),
    reads=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 300)), max_size=8),
    span=st.integers(1, 64),
)
def test_gzip_is_read_at_any_offset(pieces, reads, span):
    """Whatever was read before, of one gzip or of several written one after the other."""
    whole = b"".join(pieces)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"gunzip-{os.getpid()}.gz"
    path.write_bytes(b"".join(map(gzip.compress, pieces)) or gzip.compress(b""))
    with path.open("rb") as file:
        path.unlink()
        opened = Gunzip(file.fileno())
        opened._span = span
        for offset, size in reads:
            assert opened.read(offset, size) == whole[offset : offset + size]


def test_what_follows_the_last_gzip_may_be_zeros(tmp_path):
    """Tapes and some mirrors fill up."""
    (tmp_path / "x").write_bytes(gzip.compress(b"abc") + bytes(1000))
    with (tmp_path / "x").open("rb") as file:
        assert Gunzip(file.fileno()).read(0, 10) == b"abc"


def test_a_tarball_is_not_held_in_memory(tmp_path):
    """What is kept are states of the decompressor, and a few spans."""
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        for _ in range(40):
            file.write(bytes(1 << 20))
    with (tmp_path / "x.gz").open("rb") as file:
        opened = Gunzip(file.fileno())
        assert opened.read((40 << 20) - 5, 10) == bytes(5)
        assert sum(map(len, opened._kept.values())) <= gunzip._KEPT * opened._span


class TestTransport:
    """The transport, where the catalog is local and where it is not."""

    def test_local_files_are_read_offline(self, folder):
        """They are on no server."""
        files = open_files(folder.as_uri())
        transport = Transport(root_url=files.root, files=files, is_offline=True)
        assert transport.get_document(files.root).body == b"{}"
        assert transport.get_range(files.root, 0, 1).data == b"{"
        with pytest.raises(Offline):
            transport.get_document("https://h.invalid/x")

    def test_a_remote_catalog_reads_no_local_file(self, folder):
        """Whatever its links say."""
        transport = Transport(root_url="https://h.invalid/catalog.json")
        for ask in (transport.get_document, lambda url: transport.get_range(url, 0, 1)):
            with pytest.raises(Denied, match="a file of this machine"):
                ask((folder / "catalog.json").as_uri())

    @pytest.mark.parametrize("name", ["x.tar.xz", "x.TAR.BZ2", "x.tar.zst", "x.zip"])
    def test_another_archive_is_told(self, tmp_path, name):
        """With what is read instead."""
        (tmp_path / name).write_bytes(b"packed")
        told = rf"^{name} is an archive .* \.tar and \.tar\.gz are$"
        with pytest.raises(ConfigError, match=told):
            open_files((tmp_path / name).as_uri())
        with pytest.raises(ConfigError, match=told):
            is_tarball(f"https://h.invalid/{name}?key=1")

    def test_a_pipe_is_told(self, tmp_path):
        """As a shell's `<(...)` gives one."""
        os.mkfifo(tmp_path / "x.tar")
        with pytest.raises(NotFound, match="is a pipe or a device: give a file"):
            open_files((tmp_path / "x.tar").as_uri())

    def test_a_folder_may_be_called_like_one(self, folder):
        """As `unzip -d` may have called it."""
        folder = folder.rename(folder.with_name("x.zip"))
        assert open_files(folder.as_uri()).root.endswith("/x.zip/catalog.json")

    def test_nothing_there_is_told(self, tmp_path):
        """With the path."""
        with pytest.raises(NotFound, match="nope"):
            open_files((tmp_path / "nope").as_uri())
