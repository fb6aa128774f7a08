"""How a mount begins, what refuses to begin and why, and that nothing is left when it has ended."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import mounted as mounts
import pytest
from commands import (
    AS_NOBODY,
    MLHUBFS,
    NOBODY,
    User,
    is_alive,
    is_dead,
    mount_table,
    names,
    need_root,
    refused,
    until,
    without_device,
    without_library,
)
from faulty import Asset, FaultyServer, Pattern
from rooms import mlhub, stac_item

import mlhubfs
from mlhubfs.server.run import LocalServer

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
KEY = "KEY-93d0a7f1"
CHIP = min(SAMPLE.glob("bigearthnet_v1/bigearthnet_v1_source/*/B04.tif")).relative_to(SAMPLE)
OWN = {"fuse3": ("libfuse3.so.3", "libfuse3.so.4"), "fuse2": ("libfuse.so.2",)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The root of a local server on the sample."""
    with LocalServer(cache_dir=tmp_path_factory.mktemp("server")) as server:
        yield server.root_url


@pytest.fixture
def user(tmp_path):
    """A user with an empty directory `m` to mount on."""
    made = User(tmp_path)
    (tmp_path / "m").mkdir()
    yield made
    made.end()


@pytest.fixture
def nobody():
    """A user whose folders belong to nobody; `m` in them is root's, `own` is nobody's.

    They are not below pytest's folder, which each pytest that starts closes for all but its user.
    """
    need_root()
    with tempfile.TemporaryDirectory(prefix="mlhubfs-test-") as folder:
        made = User(Path(folder))
        Path(folder).chmod(0o755)
        for name in ("m", "own"):
            (made.folder / name).mkdir()
        for name in ("own", "home", "cache", "state", "config"):
            os.chown(made.folder / name, NOBODY, NOBODY)
        yield made
        made.end()


@pytest.fixture
def where(user):
    return user.folder / "m"


def daemon_of(where):
    """Return the process that serves a mount of `user.run`, by the mount point in its words."""
    found = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(where).encode() in _read(path) and b"mlhubfs" in _read(path)
    ]
    assert len(found) == 1, found
    return found[0]


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def is_mounted(where):
    return str(where) in mount_table()


def shows_the_sample(where):
    return (where / CHIP).read_bytes() == (SAMPLE / CHIP).read_bytes()


class TestMounting:
    """`mlhubfs mount` where all is well."""

    def test_it_returns_when_the_mount_answers(self, user, where, source, binding):
        """The mount can be read as soon as the command has returned, which tells of the log."""
        done = user.run("mount", source, where, "-o", f"binding={binding}")
        assert (done.code, done.err) == (0, "")
        assert shows_the_sample(where)
        match = re.fullmatch(rf"mounted {source} on {where}; the log is (\S+)\n", done.out)
        log = Path(match[1])
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert f"mounting {source} on {where}" in log.read_text()

    def test_source_from_the_environment(self, user, where, source):
        """Without SOURCE, MLHUB_ROOT_URL is mounted."""
        assert user.run("mount", where, source=source).code == 0
        assert shows_the_sample(where)

    def test_the_command_line_of_mount_8(self, user, where, source, binding):
        """`mlhubfs SOURCE MOUNTPOINT -o ...` with HOME empty and a minimal PATH mounts as well."""
        environ = {"HOME": "", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        if os.geteuid():
            options = f"ro,nofail,dev,suid,ttl=60,binding={binding}"
        else:
            options = f"ro,allow_other,nofail,dev,suid,ttl=60,binding={binding}"
        done = user.run(source, where, "-o", options, **environ)
        assert (done.code, done.err) == (0, "")
        assert shows_the_sample(where)
        assert user.run("umount", where, **environ).code == 0
        assert not is_mounted(where)

    def test_really_by_mount_8(self, user, where, source, binding):
        """`mount -t fuse.mlhubfs` mounts, and `umount` ends it."""
        need_root()
        script = Path(sys.executable).with_name("mlhubfs")
        if not Path("/sbin/mount.fuse").exists() or not script.exists():
            pytest.skip("no /sbin/mount.fuse, or mlhubfs is not installed here")
        options = f"ro,allow_other,nofail,_netdev,ttl=60,binding={binding}"
        # mount.fuse looks in the system's folders only, so the command is put into one of them.
        text = f"""
            mount -t tmpfs none /usr/local/bin && ln -s '{script}' /usr/local/bin/mlhubfs &&
            mount -t fuse.mlhubfs '{source}' '{where}' -o '{options}' &&
            cat '{where / CHIP}' > '{user.folder}/seen' && umount '{where}'
        """
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", text],
            env=user.environ, capture_output=True, text=True, timeout=mounts.SECONDS, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert (user.folder / "seen").read_bytes() == (SAMPLE / CHIP).read_bytes()
        until(lambda: user.processes() == [], "the daemon has ended")

    def test_odd_mount_points(self, user, source, binding):
        """A mount point may have any name; it is unmounted by it."""
        where = user.folder / "-o ro, b\u00e4ck\\040\nslash"
        where.mkdir()
        words = ("-o", f"binding={binding}", "--", source, where.name)
        assert user.run("mount", *words).code == 0
        assert is_mounted(where)
        assert user.run("umount", "--", where.name) == (0, "", "")
        assert not is_mounted(where)

    def test_paths_are_of_the_working_directory(self, user, where, source, binding):
        """A relative mount point and cache folder are those of where the command was called."""
        options = f"binding={binding},cache_dir=kept"
        assert user.run("mount", source, "m/", "-o", options).code == 0
        assert shows_the_sample(where)
        (daemon,) = user.processes()
        assert Path(f"/proc/{daemon}/cwd").readlink() == Path("/")
        assert user.run("umount", "m/.").code == 0
        blocks = user.folder / "kept" / "blocks"
        assert any(path.is_file() for path in blocks.rglob("*"))
        assert stat.S_IMODE(blocks.stat().st_mode) == 0o700

    def test_through_a_symbolic_link(self, user, where, source):
        """A link to a directory is as good as the directory, to mount on and to unmount."""
        (user.folder / "link").symlink_to("m")
        assert user.run("mount", source, "link").code == 0
        assert is_mounted(where)
        assert user.run("umount", "link").code == 0
        assert not is_mounted(where)

    def test_the_key_stays_inside(self, user, where, tmp_path, binding):
        """With debug on, the key is in no log line, no file of the mount, cache or state."""
        with LocalServer(api_key=KEY, cache_dir=tmp_path / "server") as server:
            options = f"debug,binding={binding}"
            done = user.run("mount", server.root_url, where, "-o", options, MLHUB_API_KEY=KEY)
            assert done.code == 0
            subprocess.run(["cat", where / CHIP, where / CHIP.parent / "stac.json"], check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            with pytest.raises(FileNotFoundError):
                (where / "nope").stat()
            files = [path for path in where.rglob("*.json") if "/S2" not in str(path)][:20]
            assert all(KEY.encode() not in path.read_bytes() for path in files)
            assert KEY.encode() not in _read(Path(f"/proc/{daemon_of(where)}/cmdline"))
            assert user.run("umount", where).code == 0
        kept = [path for path in user.folder.rglob("*") if path.is_file()]
        logs = [path for path in kept if path.suffix == ".log"]
        assert "GET " in logs[0].read_text()
        assert all(KEY.encode() not in path.read_bytes() for path in kept)
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in logs)

    def test_a_log_that_others_could_read_is_closed(self, user, where, source):
        """The log's mode is 0600 also where the file was there before with another."""
        done = user.run("mount", source, where)
        log = Path(done.out.split()[-1])
        assert user.run("umount", where).code == 0
        log.chmod(0o644)
        assert user.run("mount", source, where).code == 0
        assert stat.S_IMODE(log.stat().st_mode) == 0o600

    def test_two_at_once(self, user, where, source, binding):
        """Of two commands that mount on one directory at once one wins, the other says why not."""
        words = ("mount", source, str(where), "-o", f"binding={binding}")
        with user.running(*words) as one, user.running(*words) as other:
            outcomes = [process.communicate(timeout=mounts.SECONDS) for process in (one, other)]
            codes = sorted([one.returncode, other.returncode])
        assert codes == [0, 1], outcomes
        assert "another mlhubfs" in str(outcomes) or "already mounted" in str(outcomes)
        assert mount_table().count(str(where)) == 1
        assert shows_the_sample(where)
        assert user.run("umount", where) == (0, "", "")
        assert user.processes() == []

    def test_again_and_again(self, user, where, source, binding):
        """Unmounted, a directory can be mounted at once: nothing of the last mount is left."""
        for _ in range(2):
            assert user.run("mount", source, where, "-o", f"binding={binding}").code == 0
            assert user.run("umount", where).code == 0
            assert user.processes() == []


class TestRefusals:
    """`mlhubfs mount` exits 1 with one line that says why and what to do."""

    def test_unusable_directories(self, user, source):
        """What is missing, a file, full, or a dangling link is told so, with the remedy."""
        (user.folder / "file").touch()
        (user.folder / "full" / "x").mkdir(parents=True)
        (user.folder / "dangling").symlink_to("nothing")
        for name, why, remedy in (
            ("nothing", "does not exist", "make it with `mkdir nothing`"),
            ("file", "is not a directory", "give an empty directory"),
            ("full", "is not empty", "give an empty directory, or empty it"),
            ("dangling", "is a dangling symbolic link", "give a directory"),
            ("file/x", "", "give an empty directory"),
        ):
            refused(user.run("mount", source, name), name, why, remedy)

    def test_already_mounted(self, user, where, source):
        """A directory that is mounted is told so, with the source and how to end it; it goes on."""
        assert user.run("mount", source, where).code == 0
        done = user.run("mount", source, where)
        refused(done, "is already mounted", source, f"mlhubfs umount {where}")
        assert shows_the_sample(where)

    def test_no_device(self, user, where, source, binding):
        """Without /dev/fuse it says so, with what to load or how to start the container."""
        need_root()
        options = f"binding={binding}"
        done = user.run("mount", source, where, "-o", options, before=without_device())
        refused(done, "device not found", "modprobe fuse", "--device /dev/fuse")

    def test_no_libfuse(self, user, where, source, binding):
        """Where the library of the binding is missing, the package is named."""
        need_root()
        hidden = without_library(*OWN[binding])
        done = user.run("mount", source, where, "-o", f"binding={binding}", before=hidden)
        refused(done, f"{binding}: ", "install the package", binding.replace("2", ""))

    def test_the_other_libfuse_will_do(self, user, where, source, binding):
        """With `auto`, the library that is there is taken."""
        need_root()
        looks = f"cat '{where / CHIP}' > '{user.folder}/seen'; umount '{where}'"
        before = without_library(*OWN[binding], then=looks)
        done = user.run("mount", source, where, before=before)
        assert done.code == 0, done.err
        assert (user.folder / "seen").read_bytes() == (SAMPLE / CHIP).read_bytes()

    def test_no_libfuse_at_all(self, user, where, source):
        """Without any library, both packages are named."""
        need_root()
        hidden = without_library(*OWN["fuse2"], *OWN["fuse3"])
        done = user.run("mount", source, where, before=hidden)
        refused(done, "install the package fuse3", "install the package libfuse2")

    def test_another_ones_directory(self, nobody, source, binding):
        """A directory that the user may not write is told so, with the remedy."""
        words = ("mount", source, nobody.folder / "m", "-o", f"binding={binding}")
        done = nobody.run(*words, before=with_open_device(nobody))
        refused(done, "no write access", "mount on a directory that is yours")

    def test_a_device_for_root_only(self, nobody, source, binding):
        """A user who may not open /dev/fuse is told so, with the remedy."""
        if Path("/dev/fuse").stat().st_mode & 0o006:
            pytest.skip("all users may open /dev/fuse here")
        words = ("mount", source, nobody.folder / "own", "-o", f"binding={binding}")
        done = nobody.run(*words, before=AS_NOBODY)
        refused(done, "/dev/fuse: Permission denied", "chmod 666 /dev/fuse")

    def test_nobody_listens(self, user, where):
        """An API that cannot be reached is named, with the reason; nothing is mounted."""
        with FaultyServer() as host:
            url = f"{host.url}/v1"
        done = user.run("mount", url, where, "-o", "timeout=1")
        refused(done, url, "cannot be reached (connection refused)")
        assert not is_mounted(where)
        assert user.processes() == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_interrupted_while_the_server_hangs(self, user, where, number):
        """A `mount` that ends before it has mounted takes its daemon with it, however it ends."""
        with socket.create_server(("127.0.0.1", 0)) as host:
            host.settimeout(mounts.SECONDS)
            url = f"http://127.0.0.1:{host.getsockname()[1]}/v1"
            # What is accepted here never gets a word.
            with user.running("mount", url, str(where)) as process, host.accept()[0]:
                process.send_signal(number)
                until(lambda: user.processes() == [], "the daemon has ended")
        assert not is_mounted(where)

    def test_a_refused_key(self, user, where, tmp_path):
        """A key that the API refuses is told so, with how to set one; it is not printed."""
        with LocalServer(api_key="another", cache_dir=tmp_path / "server") as server:
            done = user.run("mount", server.root_url, where, MLHUB_API_KEY=KEY)
        refused(done, "401", "check the API key", "mlhubfs configure")
        assert KEY not in done.err
        assert not is_mounted(where)

    def test_an_impossible_key(self, user, where, source):
        """A key with characters that no header can hold is refused before anything is asked."""
        for key in ("кey", "two words", "line\nbreak"):
            done = user.run("mount", source, where, MLHUB_API_KEY=key)
            refused(done, "API key", "MLHUB_API_KEY")
            assert key not in done.err

    def test_no_key_is_no_trouble(self, user, where, tmp_path):
        """Without a key what is public is mounted, and items are refused with EACCES."""
        with LocalServer(api_key="another", cache_dir=tmp_path / "server") as server:
            assert user.run("mount", server.root_url, where).code == 0
            assert (where / CHIP.parts[0] / CHIP.parts[1] / "collection.json").read_bytes()
            with pytest.raises(PermissionError):
                (where / CHIP).stat()

    def test_a_log_that_cannot_be_written(self, user, where, source):
        """A state folder that cannot be written is told, with the variable that names another."""
        (user.folder / "file").touch()
        done = user.run("mount", source, where, XDG_STATE_HOME=str(user.folder / "file"))
        refused(done, str(user.folder / "file"), "set XDG_STATE_HOME")

    def test_a_cache_that_cannot_be_written_is_no_trouble(self, user, where, source, binding):
        """Without a cache on disk the mount works, and the log says so."""
        (user.folder / "file").touch()
        options = f"binding={binding},cache_dir={user.folder / 'file'}"
        assert user.run("mount", source, where, "-o", options).code == 0
        assert shows_the_sample(where)
        assert "no cache on disk" in next(user.logs.glob("*.log")).read_text()


class TestAfterACrash:
    """A mount whose daemon was killed: "Transport endpoint is not connected"."""

    @pytest.fixture
    def dead(self, user, where, source, binding):
        """A mount point whose daemon was killed."""
        assert user.run("mount", source, where, "-o", f"binding={binding}").code == 0
        os.kill(daemon_of(where), signal.SIGKILL)
        until(lambda: is_dead(where), "the mount is dead")
        return where

    def test_the_next_mount_clears_it(self, user, dead, source):
        """The next mount takes the dead one away first."""
        assert user.run("mount", source, dead).code == 0
        assert mount_table().count(str(dead)) == 1
        assert shows_the_sample(dead)
        assert user.run("umount", dead) == (0, "", "")
        assert not is_mounted(dead)

    def test_through_a_link(self, user, dead, source):
        """So it does through a symbolic link."""
        (user.folder / "link").symlink_to("m")
        assert user.run("mount", source, "link").code == 0
        assert mount_table().count(str(dead)) == 1
        assert shows_the_sample(dead)

    def test_it_can_be_unmounted(self, user, dead):
        """`umount` takes a dead mount away."""
        assert user.run("umount", dead) == (0, "", "")
        assert not is_mounted(dead)

    def test_a_demo_clears_it_too(self, user, dead):
        """`demo` takes a dead mount away first."""
        assert user.run("demo", dead).code == 0
        assert shows_the_sample(dead)
        assert user.run("umount", dead).code == 0


class TestEnding:
    """umount and signals."""

    def test_the_daemon_is_gone(self, user, where, source, binding):
        """When `umount` returns, the mount is gone and so is the daemon."""
        assert user.run("mount", source, where, "-o", f"binding={binding}").code == 0
        pid = daemon_of(where)
        assert shows_the_sample(where)
        assert user.run("umount", where) == (0, "", "")
        assert not is_alive(pid)
        assert not is_mounted(where)
        assert list((user.folder / "state/mlhubfs/mounts").iterdir()) == []

    def test_busy(self, user, where, source, binding):
        """A mount in use is not taken away: exit 1, one line, with the option that does."""
        assert user.run("mount", source, where, "-o", f"binding={binding}").code == 0
        with (where / CHIP).open("rb") as file:
            refused(user.run("umount", where), str(where), "is in use", "--lazy")
            assert file.read() == (SAMPLE / CHIP).read_bytes()
        assert user.run("umount", where).code == 0

    def test_lazily(self, user, where, source, binding):
        """`--lazy` detaches it at once; who has it open reads on; then the daemon ends."""
        assert user.run("mount", source, where, "-o", f"binding={binding}").code == 0
        pid = daemon_of(where)
        with (where / CHIP).open("rb") as file:
            assert user.run("umount", "--lazy", where) == (0, "", "")
            assert not is_mounted(where)
            assert names(where) == []
            assert file.read() == (SAMPLE / CHIP).read_bytes()
        until(lambda: not is_alive(pid), "the daemon has ended")

    def test_a_daemon_that_was_stopped(self, user, where, source):
        """Its mount is taken away without asking it, and it ends; a lazy one is only detached."""
        (user.folder / "link").symlink_to("m")
        for words in ((), ("--lazy",)):
            assert user.run("mount", source, where, "-o", "ttl=0").code == 0
            os.kill(daemon_of(where), signal.SIGSTOP)
            assert user.run("umount", *words, "link") == (0, "", "")
            assert not is_mounted(where)
            if not words:
                assert user.processes() == []

    def test_not_mounted(self, user, where):
        """What is not mounted, or does not exist, is told so."""
        refused(user.run("umount", where), f"{where} is not mounted")
        refused(user.run("umount", "nothing"), "nothing is not mounted")

    def test_another_type(self, user):
        """A mount that is not one of ours is left alone."""
        refused(user.run("umount", "/proc"), "/proc is a mount of type proc, not one of mlhubfs")

    @pytest.mark.parametrize(
        ("number", "binding"),
        [(signal.SIGTERM, "fuse3"), (signal.SIGTERM, "fuse2"), (signal.SIGHUP, "fuse3")],
    )
    def test_a_signal_to_the_daemon(self, user, where, source, binding, number):
        """SIGTERM and SIGHUP unmount and end the daemon, also while a file is open."""
        mounts.need_fuse(binding)
        assert user.run("mount", source, where, "-o", f"binding={binding}").code == 0
        pid = daemon_of(where)
        descriptor = os.open(where / CHIP, os.O_RDONLY)
        os.kill(pid, number)
        until(lambda: not is_alive(pid), "the daemon has ended")
        with contextlib.suppress(OSError):  # ENOTCONN
            os.close(descriptor)
        assert not is_mounted(where)
        log = next(user.logs.glob("*.log")).read_text()
        assert f"unmounted from {where}" in log
        mounts.check_log(log)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_in_the_foreground(self, user, where, source, binding, number):
        """`-f` stays and logs to the terminal; a signal unmounts it, and it exits 0."""
        words = ("mount", "-f", source, str(where), "-o", f"binding={binding}")
        with user.running(*words) as process:
            until(lambda: is_mounted(where), "it is mounted")
            assert shows_the_sample(where)
            process.send_signal(number)
            out, err = process.communicate(timeout=mounts.SECONDS)
        assert process.returncode == 0
        assert out == ""
        assert f"mounted on {where}" in err
        assert f"unmounted from {where}" in err
        mounts.check_log(err)
        assert not is_mounted(where)
        assert names(where) == []

    def test_unmounted_in_the_foreground(self, user, where, source, binding):
        """`umount` ends a mount in the foreground, which exits 0."""
        words = ("mount", "-f", source, str(where), "-o", f"binding={binding}")
        with user.running(*words) as process:
            until(lambda: is_mounted(where), "it is mounted")
            assert user.run("umount", where) == (0, "", "")
            assert process.wait(mounts.SECONDS) == 0

    def test_a_refusal_in_the_foreground(self, user, source):
        """`-f` refuses as it does without."""
        refused(user.run("mount", "-f", source, "nothing"), "nothing does not exist")

    def test_a_signal_during_a_stalled_read(self, user, where, binding):
        """A daemon with a read stalled in it ends at SIGTERM, and the reader gets an error."""
        with FaultyServer() as host:
            mlhub(host, {"d": {"c": [stac_item("i", {"a": f"{host.url}/a.bin"})]}})
            whole = Pattern(20 << 20)
            host.on("/a.bin", Asset(content=whole), Asset(content=whole, hold=host.hold()))
            done = user.run("mount", f"{host.url}/v1", where, "-o", f"binding={binding}")
            assert done.code == 0
            pid = daemon_of(where)
            reader = subprocess.Popen(
                ["dd", f"if={where}/d/c/i/a.bin", "skip=9", "count=1", "bs=1M", "of=/dev/null"],
                stderr=subprocess.PIPE,
            )
            host.wait_for("/a.bin", 2)
            os.kill(pid, signal.SIGTERM)
            until(lambda: not is_alive(pid), "the daemon has ended", 10)
            assert reader.wait(10) == 1
            reader.stderr.close()
            assert not is_mounted(where)


class TestDemo:
    """The sample, served and mounted by one command."""

    def test_it_shows_the_sample_and_leaves_nothing(self, user):
        """It mounts on a new directory, shows tree and asset; umount leaves nothing running."""
        done = user.run("demo", "new")
        assert (done.code, done.err) == (0, "")
        where = user.folder / "new"
        assert shows_the_sample(where)
        assert "B04.tif: a TIFF of 120 x 120 pixels, 16 bits each" in done.out
        assert done.out.endswith(" umount new\n")
        root = re.search(r"Source: +(\S+)", (where / "README.txt").read_text())[1]
        assert len(user.processes()) == 2  # the daemon, the server
        assert user.run("umount", "new") == (0, "", "")
        assert not is_mounted(where)
        until(lambda: user.processes() == [], "the server has ended")
        assert listening(root) is False
        assert user.run("demo", "new").code == 0
        assert user.run("umount", "new").code == 0

    def test_the_default_directory(self, user):
        """Without a directory it is ./mlhub-demo."""
        assert user.run("demo").code == 0
        assert shows_the_sample(user.folder / "mlhub-demo")

    def test_a_killed_daemon_ends_the_server(self, user, where):
        """kill -9 of the daemon ends the demo's server as well."""
        assert user.run("demo", where).code == 0
        os.kill(daemon_of(where), signal.SIGKILL)
        until(lambda: user.processes() == [], "the server has ended")

    def test_a_demo_that_cannot_mount(self, user):
        """Where the mount fails the demo says why, at once, and leaves no server and no folder."""
        need_root()
        done = user.run("demo", "new", before=without_device())
        refused(done, "device not found", "modprobe fuse", "--device /dev/fuse")
        until(lambda: user.processes() == [], "the server has ended")
        assert not (user.folder / "new").exists()

    def test_a_demo_that_is_there(self, user, where):
        """A second `demo` on the same directory shows the same mount once more."""
        first = user.run("demo", where)
        assert user.run("demo", where) == first

    def test_with_its_output_closed(self, user, where):
        """Standard streams that the caller closed do not keep it from mounting."""
        closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
        assert user.run("demo", where, before=closing).code == 0
        assert shows_the_sample(where)

    def test_a_key_of_the_user_is_not_used(self, user, where):
        """The demo needs no key, and sends none that the user has."""
        assert user.run("demo", where, MLHUB_API_KEY=KEY, MLHUB_PROFILE="nope").code == 0
        assert shows_the_sample(where)


def listening(url):
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 5).close()
    except OSError:
        return False
    return True


def with_open_device(user, then=""):
    """Words before a command that run it as nobody where all may open /dev/fuse.

    That is a mount namespace of its own, so what the command mounts is seen by `then` only: more
    words for the shell, in which $UNPRIVILEGED makes a command one of nobody's.
    """
    device = user.folder / "fuse"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(10, 229))
    device.chmod(0o666)
    script = f"UNPRIVILEGED='{' '.join(AS_NOBODY)}'; mount --bind '{device}' /dev/fuse && "
    script += f'$UNPRIVILEGED "$@" && {{ {then}; }}' if then else 'exec $UNPRIVILEGED "$@"'
    return "unshare", "-m", "sh", "-c", script, "sh"


def test_an_ordinary_user(nobody, source, binding):
    """A user who is not root mounts on a directory of his own and unmounts it.

    Nobody else can look in, root included.
    """
    where = nobody.folder / "own"
    then = f"""
        $UNPRIVILEGED cat '{where / CHIP}' > '{nobody.folder}/seen' &&
        ! ls '{where}' 2> '{nobody.folder}/root' &&
        ! setpriv --reuid=12345 --clear-groups ls '{where}' 2> '{nobody.folder}/other' &&
        $UNPRIVILEGED {" ".join(MLHUBFS)} umount '{where}' &&
        ! grep -q ' {where} ' /proc/mounts
    """.strip()
    words = ("mount", source, where, "-o", f"binding={binding}")
    done = nobody.run(*words, before=with_open_device(nobody, then))
    assert (done.code, done.err) == (0, "")
    assert (nobody.folder / "seen").read_bytes() == (SAMPLE / CHIP).read_bytes()
    assert "Permission denied" in (nobody.folder / "root").read_text()
    assert "Permission denied" in (nobody.folder / "other").read_text()
    until(lambda: nobody.processes() == [], "the daemon has ended")


def test_an_ordinary_user_cannot_let_others_in(nobody, source, binding):
    """`allow_other` of a user who is not root needs a line in /etc/fuse.conf, which is told."""
    if "\nuser_allow_other" in Path("/etc/fuse.conf").read_text():
        pytest.skip("/etc/fuse.conf has user_allow_other")
    words = ("mount", source, nobody.folder / "own", "-o", f"binding={binding},allow_other")
    refused(
        nobody.run(*words, before=with_open_device(nobody)), "user_allow_other", "/etc/fuse.conf"
    )


def test_paths_inside_a_mount_are_read_at_its_source(user, source):
    """By `ls`, `cat` and `stat`, which show them as they were written."""
    mounts.need_fuse("fuse3")
    assert user.run("mount", source, "m").code == 0
    nowhere = "http://127.0.0.1:9"
    item = Path("m") / CHIP.parent
    there = user.run("ls", CHIP.parent, source=source)
    assert user.run("ls", item, source=nowhere) == there
    assert user.run("cat", item / "stac.json", source=nowhere).out.startswith("{")
    assert f"File: {item}\n" in user.run("stat", item, source=nowhere).out
    refusal = "ls: cannot access 'm/nope': No such file or directory\n"
    assert user.run("ls", "m/nope", source=nowhere) == (2, "", refusal)
    assert user.run("umount", "m").code == 0
