"""One file system in memory, mounted for real on each libfuse."""

import contextlib
import ctypes
import errno
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from math import floor
from pathlib import Path

import pytest
from memory_filesystem import (
    DATA,
    ERRORS,
    MTIME,
    ODD_NAMES,
    big_name,
    is_mounted,
    memory_mount,
    wait_until,
)

from mlhubfs.errors import MountError
from mlhubfs.fuse import libfuse
from mlhubfs.fuse.binding import Binding, available, choose

CATCHING = """\
import os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
os.read(descriptor, 100)
"""  # Python catches SIGINT
ORDINARY = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n" + CATCHING


@pytest.fixture
def mount(tmp_path, binding):
    """The file system in memory, with options of mlhubfs's kind."""
    timeouts = {"entry_timeout": 300.0, "attr_timeout": 300.0, "negative_timeout": 60}
    with memory_mount(tmp_path, binding, names=3000, **timeouts) as mount:
        yield mount


@contextlib.contextmanager
def reader(path, program=ORDINARY):
    """A process that has opened `path` and reads from it."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout.readline() == b"open\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def names(folder):
    return [path.name for path in folder.iterdir()]


def errno_of(action):
    """The errno with which `action` fails, or 0."""
    try:
        action()
    except OSError as error:
        return error.errno
    return 0


# --- which library


def test_no_binding_is_imported_before_it_is_chosen():
    """Importing the module loads neither fusepy nor mfusepy."""
    program = (
        "import sys, mlhubfs.fuse.binding; sys.exit(bool({'fuse', 'mfusepy'} & {*sys.modules}))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], check=True, env=environ)


def test_auto_prefers_libfuse_3():
    """`auto` takes the first that loads, and libfuse 3 is tried first."""
    usable = [found.name for found in available() if not found.problem]
    if not usable:
        pytest.skip("no libfuse here")
    assert choose("auto").name == usable[0]
    assert [found.name for found in available()] == ["fuse3", "fuse2"]


def test_each_binding_gets_its_own_libfuse(binding, monkeypatch):
    """FUSE_LIBRARY_PATH that names the other libfuse is passed over, and left as it was."""
    other = "libfuse.so.2" if binding == "fuse3" else "libfuse3.so.3"
    monkeypatch.setenv("FUSE_LIBRARY_PATH", other)
    chosen = Binding(binding)
    assert f"fuse{chosen.libfuse.version.major}" == binding
    assert os.environ["FUSE_LIBRARY_PATH"] == other


def test_a_missing_libfuse_is_named_with_its_package(monkeypatch):
    """What cannot be loaded is said for each binding, with the package that brings it."""
    monkeypatch.delenv("FUSE_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(libfuse, "SONAMES", {"fuse3": ("libno3.so",), "fuse2": ("libno2.so",)})
    with pytest.raises(MountError, match=r"libno3.*package fuse3.*libno2.*package libfuse2"):
        choose("auto")
    assert ["package" in found.problem for found in available()] == [True, True]


@pytest.mark.parametrize(
    ("number", "text"), [(29, "2.9"), (34, "3.4"), (314, "3.14"), (318, "3.18")]
)
def test_versions_are_parsed_as_libfuse_packs_them(number, text):
    """Minor versions below ten take one digit, others two."""
    assert str(libfuse.parse_version(number)) == text


# --- options


def test_options_as_the_kernel_has_them(tmp_path, binding):
    """Read-only, permissions checked by the kernel, for the owner alone; any source."""
    source = "https://host/a,b\\c d"
    with memory_mount(tmp_path, binding, fsname=source, allow_other=False) as mount:
        fields = mount_table_line(mount.path)
        assert fields[0].encode().decode("unicode_escape") == source
        assert fields[2] == "fuse.mlhubfs"
        assert set(fields[3].split(",")) == {
            "ro", "nosuid", "nodev", "relatime", "default_permissions",
            f"user_id={os.getuid()}", f"group_id={os.getgid()}",
        }  # fmt: skip


def test_allow_other_only_when_it_is_asked_for(tmp_path, binding):
    """`allow_other` reaches the kernel."""
    if os.getuid() != 0:
        pytest.skip("allow_other needs root or user_allow_other in /etc/fuse.conf")
    with memory_mount(tmp_path, binding, allow_other=True) as mount:
        assert "allow_other" in mount_table_line(mount.path)[3].split(",")


def mount_table_line(path):
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        fields = line.split(" ")
        if fields[1] == str(path):
            return fields
    return pytest.fail(f"{path} is not mounted")


def test_a_refused_option_is_an_error_with_libfuses_words(tmp_path, binding):
    """The reason that libfuse wrote to stderr is in the MountError, with the remedy."""
    with memory_mount(tmp_path, binding, no_such_option=True) as mount:
        assert mount.ends() == 1
        assert "MountError: cannot mount on" in mount.log
        assert "no_such_option" in mount.log
        assert mount.log.strip().endswith("; leave the option out")


def test_a_start_that_fails_ends_the_mount(tmp_path, binding):
    """When the file system cannot start, nothing stays mounted and the reason is told."""
    allow = ["init.* failed"]
    with memory_mount(tmp_path, binding, fails_to_start=True, allow=allow) as mount:
        assert mount.ends() == 1
        assert "MountError: cannot start: nothing to serve" in mount.log
        assert not is_mounted(mount.path)
        assert not mount.calls("destroy")


# --- listings


@pytest.mark.parametrize("folder", ["big", "loose"])
def test_a_listing_is_complete_and_in_order(mount, folder):
    """No name is lost or repeated where one reply ends and the next goes on."""
    expected = [big_name(number) for number in range(3000)]
    assert names(mount.path / folder) == expected
    offsets = [offset for _, offset, _ in mount.calls("readdir", f"/{folder}")]
    assert offsets == sorted(set(offsets))
    assert len(offsets) > 2


def test_a_listing_goes_on_where_it_was_left(mount):
    """telldir and seekdir work: an offset names the same place in every listing."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    libc.readdir.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

    def following(stream):
        entry = libc.readdir(stream)
        return ctypes.string_at(entry + 19) if entry else None  # d_name of struct dirent

    stream = libc.opendir(os.fsencode(mount.path / "big"))
    places = []
    while True:
        place = libc.telldir(stream)
        name = following(stream)
        if name is None:
            break
        places.append((place, name))
    for place, name in random.Random(1).sample(places, 50):
        libc.seekdir(stream, place)
        assert following(stream) == name
    libc.closedir(stream)
    assert len(places) == 3002


def test_entries_carry_their_kind(mount):
    """Whether a name is a file or a directory is known without a stat."""
    with os.scandir(mount.path) as found:
        kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in found}
    assert kinds == {"data": False, "big": True, "odd": True}
    assert not mount.calls("getattr", "/data")


def test_complete_entries_need_no_stat_on_libfuse_3(mount, binding):
    """Names whose attributes are known are given with them (readdirplus), others are looked up."""
    for folder in ("big", "loose"):
        with os.scandir(mount.path / folder) as found:
            assert {entry.stat().st_mtime_ns for entry in found} == {NANOSECONDS}
    looks = [path for (path,) in mount.calls("getattr")]
    loose = {path for path in looks if path.startswith("/loose/")}
    known = {path for path in looks if path.startswith("/big/")}
    assert len(loose) == 3000
    assert len(known) == (0 if binding == "fuse3" else 3000)


def test_names_of_any_bytes(mount):
    """Newlines, other scripts, 255 bytes, bytes that are no UTF-8, and case are kept."""
    assert names(mount.path / "odd") == list(ODD_NAMES)
    for name in ODD_NAMES:
        assert (mount.path / "odd" / name).read_bytes() == DATA[:1]


def test_a_path_that_is_no_utf8_does_not_exist(mount):
    """Bytes that are no UTF-8 are ENOENT, no fault."""
    with pytest.raises(FileNotFoundError):
        Path(os.fsdecode(os.fsencode(mount.path) + b"/\xff\xfe/\x80")).stat()


# --- attributes and bytes

NANOSECONDS = floor(MTIME) * 10**9 + int((MTIME - floor(MTIME)) * 1e9)


def test_attributes(mount):
    """Size, time, owner, mode, links and blocks are those of the file system and of who mounted."""
    found = (mount.path / "data").stat()
    assert stat.filemode(found.st_mode) == "-r--r--r--"
    assert (found.st_size, found.st_blocks) == (1_000_003, 1954)
    assert (found.st_uid, found.st_gid, found.st_nlink) == (os.getuid(), os.getgid(), 1)
    assert found.st_mtime_ns == found.st_atime_ns == found.st_ctime_ns == NANOSECONDS
    assert found.st_blksize == 4096


def test_the_time_is_the_same_at_each_look(tmp_path, binding):
    """The same time comes back at each call, to the nanosecond."""
    with memory_mount(tmp_path, binding, attr_timeout=0, entry_timeout=0) as mount:
        assert {(mount.path / "data").stat().st_mtime_ns for _ in range(20)} == {NANOSECONDS}
        assert len(mount.calls("getattr", "/data")) >= 20


def test_links_and_totals(mount):
    """A symbolic link gives its target; `df` sees the totals, all used."""
    assert (mount.path / "link").readlink() == Path("data")
    totals = os.statvfs(mount.path)
    assert (totals.f_blocks, totals.f_bfree, totals.f_files) == (3, 0, 7)
    assert totals.f_namemax == 255


@pytest.mark.parametrize("name", ["data", "unsplit", "view"])
def test_bytes_are_right_at_any_offset(mount, name):
    """Reads at random offsets, across and beyond the end, give the true bytes."""
    chance = random.Random(name)
    descriptor = os.open(mount.path / name, os.O_RDONLY)
    for _ in range(200):
        offset = chance.randrange(len(DATA) + 5000)
        size = chance.choice([1, 100, 4096, 70_000, 400_000])
        assert os.pread(descriptor, size, offset) == DATA[offset : offset + size]
    os.close(descriptor)


def test_direct_io_reads_as_the_program_does(mount):
    """A file opened with `direct_io` is asked for just what was asked, each time."""
    descriptor = os.open(mount.path / "unsplit", os.O_RDONLY)
    for _ in range(2):
        os.pread(descriptor, 7, 11)
    os.close(descriptor)
    assert mount.calls("read") == [["/unsplit", 7, 11]] * 2


def test_the_page_cache_outlives_the_open_file(mount):
    """With `keep_cache`, what was read once is not asked for again; without, it is."""
    for name, is_kept in (("data", True), ("view", False)):
        (mount.path / name).read_bytes()
        asked = len(mount.calls("read"))
        assert (mount.path / name).read_bytes() == DATA
        assert (len(mount.calls("read")) == asked) == is_kept


def test_an_answer_too_long_is_an_error(tmp_path, binding):
    """More bytes than were asked for would overrun the reply: EIO, and the fault is logged."""
    with memory_mount(tmp_path, binding, allow=["read failed", "Traceback"]) as mount:
        assert errno_of((mount.path / "too-long").read_bytes) == errno.EIO
        assert "ValueError: read(" in mount.log


def test_handles_are_given_back(mount):
    """Each open and each listing ends with its handle's release."""
    (mount.path / "data").read_bytes()
    names(mount.path / "odd")
    wait_until(lambda: mount.calls("release", len("/data")))
    wait_until(lambda: mount.calls("releasedir", len("/odd")))


# --- what is not there


CHANGES = {
    "mkdir": lambda path: (path / "new").mkdir(),
    "create": lambda path: (path / "new").write_bytes(b""),
    "write": lambda path: os.open(path / "data", os.O_WRONLY),
    "truncate": lambda path: os.truncate(path / "data", 0),
    "unlink": lambda path: (path / "data").unlink(),
    "rmdir": lambda path: (path / "odd").rmdir(),
    "rename": lambda path: (path / "data").rename(path / "view"),
    "chmod": lambda path: (path / "data").chmod(0o600),
    "chown": lambda path: os.chown(path / "data", 1, 1),
    "utime": lambda path: os.utime(path / "data", (1, 1)),
    "symlink": lambda path: (path / "new").symlink_to("data"),
    "link": lambda path: os.link(path / "data", path / "new"),
    "mkfifo": lambda path: os.mkfifo(path / "new"),
    "setxattr": lambda path: os.setxattr(path / "data", "user.a", b""),
    "removexattr": lambda path: os.removexattr(path / "data", "user.a"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_refused(mount, change):
    """Whatever would change something is EROFS."""
    assert errno_of(lambda: CHANGES[change](mount.path)) == errno.EROFS


def test_extended_attributes_are_not_supported(mount):
    """There are no extended attributes, and permissions are the kernel's to check."""
    assert errno_of(lambda: os.getxattr(mount.path / "data", "user.a")) == errno.ENOTSUP
    assert os.access(mount.path / "data", os.R_OK)
    assert not os.access(mount.path / "data", os.W_OK)


# --- faults


@pytest.mark.parametrize("name", ERRORS)
def test_errors_become_errnos(tmp_path, binding, name):
    """A typed error is its errno; anything else is EIO and logged; the mount lives on."""
    error, expected = ERRORS[name]
    with memory_mount(tmp_path, binding, allow=["getattr.* failed", "Traceback"]) as mount:
        assert errno_of((mount.path / "raises" / name).stat) == expected
        assert (mount.path / "data").read_bytes() == DATA
        is_fault = expected == errno.EIO
        assert ("Traceback" in mount.log) == is_fault
        assert not is_fault or f"{type(error).__name__}" in mount.log


# --- readers that give up, and ends


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_reader_is_let_go(mount, number):
    """A program whose read stalls ends when it is killed, long before the read would."""
    with reader(mount.path / "stalled") as process:
        wait_until(lambda: mount.calls("read", "/stalled"))
        process.send_signal(number)
        assert process.wait(timeout=30) == -number


def test_a_reader_that_catches_its_signal_is_let_go(tmp_path, binding):
    """With `sync_read` the daemon learns that its reader was interrupted, and answers EINTR."""
    with memory_mount(tmp_path, binding, sync_read=True) as mount:
        with reader(mount.path / "stalled", CATCHING) as process:
            wait_until(lambda: mount.calls("read", "/stalled"))
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
        assert mount.calls("interrupted", "/stalled")


def test_the_daemon_learns_that_a_reader_was_killed(tmp_path, binding):
    """With `sync_read` the thread that serves a killed reader is told, and is free again."""
    with memory_mount(tmp_path, binding, sync_read=True) as mount:
        with reader(mount.path / "stalled") as process:
            wait_until(lambda: mount.calls("read", "/stalled"))
            process.kill()
            process.wait(timeout=30)
        wait_until(lambda: mount.calls("interrupted", "/stalled"))


def test_only_a_thread_with_a_request_is_interrupted(mount, binding):
    """Threads without a request, before, during and after the mount, are told False."""
    assert not Binding(binding).interrupted()
    assert mount.calls("init") == [[False]]
    mount.path.stat()
    with contextlib.suppress(FileNotFoundError):
        (mount.path / "invalidate").stat()
    assert mount.calls("invalidated")[0][1] is False


def test_sixty_stalled_readers_do_not_stop_the_next(mount):
    """Other files and listings are served while sixty reads stall, and SIGTERM frees them all."""
    with contextlib.ExitStack() as stack:
        for number in range(60):
            descriptor = os.open(mount.path / f"stalled-{number}", os.O_RDONLY)
            stack.callback(os.close, descriptor)
            threading.Thread(target=pread, args=(descriptor,), daemon=True).start()
        wait_until(lambda: len({path for path, *_ in mount.calls("read")}) == 60)
        assert (mount.path / "data").read_bytes() == DATA
        assert len(names(mount.path / "big")) == 3000
        mount.process.terminate()
        assert mount.ends() == 0


def pread(descriptor):
    with contextlib.suppress(OSError):
        os.pread(descriptor, 1 << 20, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts_cleanly(mount, number):
    """SIGTERM, SIGINT and SIGHUP to the daemon unmount, let it finish, and are no error."""
    with reader(mount.path / "stalled"):
        wait_until(lambda: mount.calls("read", "/stalled"))
        mount.process.send_signal(number)
        assert mount.ends() == 0
    assert not is_mounted(mount.path)
    assert mount.calls("destroy") == [[False]]


def test_a_lazy_unmount_ends_when_the_last_user_leaves(mount):
    """A mount that is in use ends when its last file is closed."""
    descriptor = os.open(mount.path / "data", os.O_RDONLY)
    subprocess.run(["umount", "-l", mount.path], check=True)
    assert not is_mounted(mount.path)
    assert os.pread(descriptor, 100, 5) == DATA[5:105]
    os.close(descriptor)
    assert mount.ends() == 0
    assert mount.calls("destroy")


def test_a_changed_file_can_be_invalidated_on_libfuse_3(mount, binding):
    """The kernel forgets what it knew of a path; libfuse 2 cannot, and says so."""
    before = (mount.path / "grows").stat().st_size
    assert (mount.path / "grows").stat().st_size == before
    with contextlib.suppress(FileNotFoundError):
        (mount.path / "invalidate").stat()
    assert mount.calls("invalidated")[0][0] is (binding == "fuse3")
    after = (mount.path / "grows").stat().st_size
    assert after == (before + 1 if binding == "fuse3" else before)


def test_nothing_is_invalidated_without_a_mount(binding):
    """Before a mount it is harmless."""
    assert Binding(binding).invalidate("/data") is False
