"""What the kernel and ordinary programs are told of a mount: options, modes, times, refusals."""

import contextlib
import errno
import json
import mmap
import os
import shutil
import stat
import subprocess
import tempfile
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import mounted as mounts
import pytest
from synthetic import MODIFIED, SyntheticServer, item

import mlhubfs
from mlhubfs.server.run import LocalServer

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
ITEM = next(SAMPLE.glob("sample_crop_fields_v1/*/*/stac.json")).parent.relative_to(SAMPLE)
FILE = ITEM / "labels.tif"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with LocalServer(cache_dir=tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def mount(server, binding, tmp_path_factory):
    """The bundled sample, mounted without options."""
    folder = tmp_path_factory.mktemp("options")
    with mounts.mounted(server.root_url, folder, binding=binding) as made:
        yield made


def table_entry(path):
    """Source, type and options of a mount as /proc/mounts has them."""
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        source, where, kind, options, *_ = line.split(" ")
        if where == str(path):
            return source, kind, set(options.split(","))
    raise AssertionError(f"{path} is not in /proc/mounts")


def test_the_options_stand_in_proc_mounts(mount):
    """A mount is read-only, without devices and set-user-id, checked by the kernel, and its own."""
    source, kind, options = table_entry(mount.path)
    assert source == mount.source
    assert kind == "fuse.mlhubfs"
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= options
    assert {f"user_id={os.getuid()}", f"group_id={os.getgid()}"} <= options
    assert not {"rw", "allow_other", "suid", "dev"} & options


def as_nobody(*command):
    return subprocess.run(
        command, capture_output=True, check=False, user=65534, group=65534, extra_groups=[]
    )


@pytest.fixture
def open_folder():
    """A folder that others may pass through; pytest's are shut again whenever a session starts."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.promise("Nobody else can look in, unless `allow_other` is given.")
def test_others_are_kept_out_unless_let_in(server, binding, open_folder):
    """Another user gets EACCES, even where the mode says 0555; with allow_other, the bytes."""
    if os.geteuid():
        pytest.skip("only root can act as another user")
    with mounts.mounted(server.root_url, open_folder, binding=binding) as mount:
        kept_out = as_nobody("ls", mount.path)
        assert kept_out.returncode != 0
        assert b"Permission denied" in kept_out.stderr
        mount.remount("allow_other")
        assert "allow_other" in table_entry(mount.path)[2]
        let_in = as_nobody("cat", mount.path / FILE)
        assert (let_in.stderr, let_in.stdout) == (b"", (SAMPLE / FILE).read_bytes())


def test_what_mount_8_adds_changes_nothing(server, mounted, binding):
    """Generic options, `dev,suid,rw` among them, are taken and leave the mount as it always is."""
    generic = "dev,suid,rw,noatime,_netdev,nofail,x-systemd.automount,defaults"
    with mounted(server.root_url, generic, binding=binding) as mount:
        _, _, options = table_entry(mount.path)
        assert {"ro", "nosuid", "nodev"} <= options


def test_auto_takes_libfuse_3(server, mounted):
    """`binding=auto` takes libfuse 3 where it is: the daemon has that library loaded."""
    mounts.need_fuse("fuse3")
    with mounted(server.root_url) as mount:
        loaded = Path(f"/proc/{mount.daemon}/maps").read_text("utf-8")
        assert "libfuse3.so" in loaded
        assert "libfuse.so" not in loaded


def test_a_forced_binding_is_the_one_in_use(mount, binding):
    """`binding=fuse2` and `binding=fuse3` load that libfuse and no other."""
    loaded = Path(f"/proc/{mount.daemon}/maps").read_text("utf-8")
    assert ("libfuse3.so" in loaded, "libfuse.so.2" in loaded) == (
        binding == "fuse3",
        binding == "fuse2",
    )


REFUSED = {
    "mkdir": lambda path: (path / ITEM / "new").mkdir(),
    "create": lambda path: (path / ITEM / "new").touch(),
    "touch": lambda path: os.utime(path / FILE),
    "write": lambda path: (path / FILE).open("r+b"),
    "append": lambda path: (path / FILE).open("ab"),
    "truncate": lambda path: os.truncate(path / FILE, 0),
    "remove a file": lambda path: (path / FILE).unlink(),
    "remove a directory": lambda path: (path / ITEM).rmdir(),
    "rename": lambda path: (path / FILE).rename(path / ITEM / "other.tif"),
    "hard link": lambda path: os.link(path / FILE, path / ITEM / "other.tif"),
    "symbolic link": lambda path: (path / ITEM / "link").symlink_to("labels.tif"),
    "chmod": lambda path: (path / FILE).chmod(0o644),
    "chown": lambda path: os.chown(path / FILE, 1, 1),
    "set an attribute": lambda path: os.setxattr(path / FILE, "user.a", b"1"),
    "remove an attribute": lambda path: os.removexattr(path / FILE, "user.a"),
}


@pytest.mark.promise(
    "Everything is read-only, with the modes 0555 and 0444, and belongs to who mounted it."
)
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.fault("anything that would write")
def test_everything_that_would_write_is_refused(mount, name):
    """Whatever changes a file, a name or an attribute fails with EROFS."""
    with mounts.fails(errno.EROFS):
        REFUSED[name](mount.path)
    assert (mount.path / FILE).read_bytes() == (SAMPLE / FILE).read_bytes()


def test_extended_attributes_are_not_supported(mount):
    """To read an extended attribute fails with ENOTSUP, and a file lists none."""
    with mounts.fails(errno.ENOTSUP):
        os.getxattr(mount.path / FILE, "user.a")
    with contextlib.suppress(OSError):  # the kernel's choice, by its version: nothing, or an error
        assert os.listxattr(mount.path / FILE) == []


def test_the_size_of_the_file_system_can_be_asked(mount):
    """statfs answers: `df` and `stat -f` work, names may have 255 bytes, nothing is free."""
    totals = os.statvfs(mount.path)
    assert totals.f_namemax == 255
    assert totals.f_bfree == totals.f_bavail == 0
    assert totals.f_flag & os.ST_RDONLY
    for command in (["df", mount.path], ["df", "-i", mount.path], ["stat", "-f", mount.path]):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert str(mount.path) in done.stdout


def everything(root):
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            yield Path(folder, name)


@pytest.mark.promise(
    "Everything is read-only, with the modes 0555 and 0444, and belongs to who mounted it."
)
def test_modes_owner_and_link_count(mount):
    """Directories are 0555, files 0444, of who mounted, with one link; nothing else is there."""
    modes = set()
    for path in everything(mount.path):
        found = path.lstat()
        assert (found.st_uid, found.st_gid, found.st_nlink) == (os.getuid(), os.getgid(), 1), path
        assert found.st_blocks == -(-found.st_size // 512), path
        modes.add(found.st_mode)
    assert modes == {stat.S_IFDIR | 0o555, stat.S_IFREG | 0o444}


def test_the_mode_binds(mount):
    """What is not executable cannot be executed, and access() tells the truth."""
    assert os.access(mount.path / FILE, os.R_OK)
    assert not os.access(mount.path / FILE, os.W_OK)
    assert not os.access(mount.path / FILE, os.X_OK)
    assert os.access(mount.path / ITEM, os.R_OK | os.X_OK)
    with pytest.raises(PermissionError):
        subprocess.run([mount.path / FILE], check=False)


@pytest.mark.promise(
    "The mtime of an item's directory is the item's datetime, that of a file its "
    "`Last-Modified`, else the item's datetime; it is the same at every call, and "
    "1970 where nothing is known."
)
def test_an_items_time_is_its_datetime(mount):
    """The mtime of each item directory, and of its stac.json, is the item's datetime."""
    for path in SAMPLE.glob("*/*/*/stac.json"):
        said = json.loads(path.read_text("utf-8"))["properties"]["datetime"]
        here = mount.path / path.relative_to(SAMPLE)
        assert here.parent.stat().st_mtime == datetime.fromisoformat(said).timestamp()
        assert here.stat().st_mtime == here.parent.stat().st_mtime


def test_a_files_time_is_its_last_modified(mount):
    """The mtime of an asset is what storage calls Last-Modified."""
    for path in SAMPLE.glob("*/*/*/*.tif"):
        here = mount.path / path.relative_to(SAMPLE)
        assert here.stat().st_mtime == int(path.stat().st_mtime), path


@pytest.mark.promise(
    "The mtime of an item's directory is the item's datetime, that of a file its "
    "`Last-Modified`, else the item's datetime; it is the same at every call, and "
    "1970 where nothing is known."
)
def test_times_and_sizes_are_the_same_at_every_call(server, mounted, binding):
    """stat answers the same before and after reading, after a listing, and after a remount.

    Access time and change time are the mtime. With `ttl=0` the kernel keeps nothing and asks.
    """

    def look():
        seen = {}
        for path in everything(mount.path / ITEM):
            found = path.stat()
            assert found.st_atime_ns == found.st_mtime_ns == found.st_ctime_ns
            seen[path] = (found.st_size, found.st_mtime_ns)
        return seen

    with mounted(server.root_url, "ttl=0", binding=binding) as mount:
        first = look()
        assert len(first) == 5
        for path, (size, _) in first.items():
            if path.is_file():
                assert len(path.read_bytes()) == size, path
        assert look() == first
        mount.remount()
        assert look() == first


def test_a_known_path_has_the_times_of_a_listed_one(server, mounted, binding):
    """stat of a path says the same whether its directory was listed before or not."""

    def look(path):
        found = path.stat()
        return found.st_mode, found.st_size, found.st_mtime_ns

    with mounted(server.root_url, binding=binding) as mount:
        levels = [mount.path / FILE, *(mount.path / FILE).parents[:4]]
        known = [look(path) for path in levels]
        mount.remount()
        for folder in reversed(levels[1:]):
            subprocess.run(["ls", "-l", folder], capture_output=True, check=True)
        assert [look(path) for path in levels] == known


@pytest.mark.promise(
    "The mtime of an item's directory is the item's datetime, that of a file its "
    "`Last-Modified`, else the item's datetime; it is the same at every call, and "
    "1970 where nothing is known."
)
def test_what_has_no_time_is_of_1970(mounted, binding):
    """An item without a datetime is of 1970, and its assets of their Last-Modified."""
    odd = {**item("timeless", {"a.txt": b"text"}), "datetime": None}
    with (
        SyntheticServer({"c": [odd]}, datasets={"d": ["c"]}) as server,
        mounted(server.root_url, binding=binding) as mount,
    ):
        folder = mount.path / "d/c/timeless"
        assert folder.stat().st_mtime == 0
        assert (folder / "stac.json").stat().st_mtime == 0
        last_modified = parsedate_to_datetime(MODIFIED).timestamp()
        assert (folder / "a.txt").stat().st_mtime == last_modified


def test_a_path_below_a_file_is_no_directory(mount):
    """A path that goes on below a file fails with ENOTDIR, to list a file too."""
    with pytest.raises(NotADirectoryError):
        (mount.path / FILE / "x").stat()
    with pytest.raises(NotADirectoryError):
        os.scandir(mount.path / FILE)


def test_a_directory_is_no_file(mount):
    """To read a directory as a file fails with EISDIR."""
    descriptor = os.open(mount.path / ITEM, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def test_memory_mapping_reads_the_bytes(mount):
    """A file can be mapped, as numpy.memmap and some readers do."""
    with (
        (mount.path / FILE).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert mapped[:] == (SAMPLE / FILE).read_bytes()


def test_gio_and_ls_agree(mount):
    """GLib's view of a directory, the file managers' one, has the names that `ls` has."""
    if shutil.which("gio") is None:
        pytest.skip("gio is not installed")
    done = subprocess.run(
        ["gio", "list", "--hidden", mount.path / ITEM], capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split()) == sorted(mounts.names(mount.path / ITEM))
