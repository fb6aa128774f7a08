"""What the commands print, write and return. Those that mount are in test_mount_lifecycle."""

import ast
import io
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import (
    AS_NOBODY,
    MLHUBFS,
    Done,
    User,
    names,
    need_root,
    refused,
    until,
    without_device,
    without_library,
)
from faulty import FaultyServer, Reply
from rooms import answer, mlhub, stac_item

import mlhubfs
from mlhubfs.cli import cli, main
from mlhubfs.server.run import LocalServer

SAMPLE = Path(mlhubfs.__file__).parent / "sample"
COMMANDS = (
    "demo", "mount", "umount", "datasets", "collections", "items", "show", "ls", "cat", "stat",
    "download", "index", "status", "serve", "configure", "doctor",
)  # fmt: skip
KEY = "KEY-51c07e9d"
CHIP = min(SAMPLE.glob("bigearthnet_v1/bigearthnet_v1_source/*/B04.tif"))
ASSET = f"/{CHIP.relative_to(SAMPLE)}"
COLLECTION = "/bigearthnet_v1/bigearthnet_v1_source"


@pytest.fixture
def user(tmp_path):
    made = User(tmp_path)
    yield made
    made.end()


@pytest.fixture
def here(user, monkeypatch, capsys):
    """Run `mlhubfs WORDS...` within this process: for what ends before anything is started."""

    def run(*words, typed="", **environ):
        monkeypatch.setattr(os, "environ", {**user.environ, **environ})
        monkeypatch.setattr(sys, "argv", ["mlhubfs", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        monkeypatch.chdir(user.folder)
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The root of a local server on the sample."""
    with LocalServer(cache_dir=tmp_path_factory.mktemp("server")) as server:
        yield server.root_url


class TestWords:
    """Help, version and what is not understood."""

    def test_help(self, here):
        """`--help` lists every command with what it does."""
        done = here("--help")
        assert (done.code, done.err) == (0, "")
        for name in COMMANDS:
            assert re.search(rf"^  {name} +\w", done.out, re.MULTILINE), name

    @pytest.mark.parametrize("name", COMMANDS)
    def test_help_of_each_command(self, user, here, name):
        """`--help` and `-h` of a command say the same, fit 100 columns, and change nothing."""
        done = here(name, "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"Usage: mlhubfs {name} ")
        assert max(map(len, done.out.splitlines())) <= 100 or name == "mount"
        assert here(name, "-h") == done
        assert not user.profiles.exists()

    def test_version(self, here):
        """`--version` tells the package's version."""
        done = here("--version")
        assert done.code == 0
        assert done.out.split()[-1] == mlhubfs.__version__

    def test_the_console_script_is_the_module(self, user):
        """`mlhubfs` and `python -m mlhubfs` are the same command."""
        script = Path(MLHUBFS[0]).with_name("mlhubfs")
        if not script.exists():
            pytest.skip(f"no {script}: mlhubfs is not installed here")
        done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
        assert done.stdout.endswith(f" {mlhubfs.__version__}\n")

    @pytest.mark.parametrize(
        "words",
        [
            ("frobnicate",),
            ("mount",),
            ("ls", ""),
            ("show", ""),
            ("items", ""),
            ("mount", "--frobnicate", "m"),
            ("mount", "http://a/", "m", "too many"),
            ("umount",),
            ("cat",),
            ("stat",),
            ("umount", ""),
            ("status", ""),
            ("index", ""),
            ("prefetch", ""),
            ("cache", "pin", ""),
            ("cache", "clear", ""),
            ("ls", "-s", "", "/"),
            ("serve", ""),
            ("items", "c", "--datetime", ""),
            ("items", "c", "--limit", "99999999999999999999999"),
            ("serve", "--port", "99999"),
            ("serve", "--port", "x"),
            ("demo", "a", "b"),
        ],
        ids=" ".join,
    )
    def test_what_is_not_understood(self, here, words):
        """A usage error exits 2, names what is wrong and points to --help, on stderr."""
        done = here(*words)
        assert (done.code, done.out) == (2, "")
        assert re.search(r"^Try '.* --help' for help\.$", done.err, re.MULTILINE)
        assert "Error: " in done.err

    def test_no_words(self, here):
        """Without any words the help is shown."""
        done = here()
        assert "Usage:" in done.out + done.err
        assert "demo" in done.out + done.err
        assert done.code in {0, 2}


class TestSources:
    """What is no source of a catalog is refused before anything is mounted."""

    @pytest.mark.parametrize(
        "source",
        ["nothing", "ftp://host/x", "http://", "http://[::1", "http://h:99999/",
         "http://h:x/", "http://h:0/", "://"],
    )  # fmt: skip
    def test_no_url(self, user, here, source):
        """What is no path and no http URL, or has an impossible port, is told so."""
        (user.folder / "m").mkdir()
        refused(
            here("mount", source, "m"),
            repr(source.rstrip("/")),
            "URL nor a file or folder: give the root of an API",
            "https://host/",
        )

    @pytest.mark.parametrize(
        ("path", "told"),
        [("/etc/fstab", "no STAC document"), ("/etc", "neither a catalog.json nor a collection.js"),
         ("/dev/null", "is a pipe or a device")],
    )  # fmt: skip
    def test_no_catalog(self, user, here, path, told):
        """A file or folder of this machine that is no catalog is told so."""
        (user.folder / "m").mkdir()
        done = here("mount", path, "m")
        refused(done, path, told)
        assert "root of an API" not in done.err

    @pytest.mark.parametrize(
        ("word", "told"),
        [
            ("foo", "unknown option 'foo': the options are allow_other, "),
            ("ttl=x", "option ttl='x': expected a time"),
            ("cache_size=-1", "option cache_size='-1': expected a size"),
            ("binding=fuse4", "expected auto, fuse2 or fuse3"),
            ("timeout=0", "option timeout='0'"),
            ("api_key_file=/nope", "cannot read api_key_file /nope"),
            ("profile=nobody", "no profile 'nobody'"),
        ],
    )
    def test_bad_options(self, user, here, word, told):
        """An option that does not exist, or a value that is none, is told with what would do."""
        (user.folder / "m").mkdir()
        refused(here("mount", "http://127.0.0.1:9/", "m", "-o", word), told)

    def test_each_setting_is_an_option_of_its_own(self, monkeypatch, tmp_path):
        """`--content-ttl 2h` is `-o content_ttl=2h`; what is not given keeps its default."""
        mounted = []

        def mount(sources, *_, **__):
            mounted.append(sources[""])
            return []

        monkeypatch.setattr("mlhubfs.mount.mount", mount)
        monkeypatch.setattr("mlhubfs.cli.mounting.log_to", lambda *_, **__: None)
        settings = ["-o", "memory=1G", "--content-ttl", "2h", "--immutable", "--guess", "off"]
        words = ["-f", *settings, "http://h", "m"]
        CliRunner().invoke(
            cli, ["mount", *words], env={"HOME": str(tmp_path)}, catch_exceptions=False
        )
        (config,) = mounted
        assert (config.memory, config.content_ttl, config.immutable) == (1 << 30, 7200, True)
        assert (config.guess, config.ttl, config.offline) == (False, 300, False)

    def test_nobody_listens(self, user):
        """A host that refuses the connection is named, with the reason."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        done = user.run("ls", "/", "-s", url, "-o", "timeout=1")
        refused(done, url, "cannot be reached (connection refused)")

    def test_no_address(self, user):
        """A host without an address is named, and that it has none."""
        done = user.run("ls", "/", "-s", "http://no-such-host.invalid/v1", "-o", "timeout=1")
        refused(done, "no-such-host.invalid", "has no address")

    def test_silence(self, user):
        """A host that accepts the connection and says nothing is given up at the deadline."""
        with socket.create_server(("127.0.0.1", 0)) as mute:
            url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1"
            done = user.run("ls", "/", "-s", url, "-o", "timeout=1")
            refused(done, url, "did not answer in full before the deadline")

    def test_a_web_page(self, user):
        """A web page in the place of JSON is said to be one, with the question for the root."""
        page = Reply(200, {"Content-Type": "text/html"}, b"<html>hello</html>")
        with FaultyServer() as host:
            host.on("/v1/datasets", page)
            host.on("/v1/collections", page)
            done = user.run("ls", "/", "-s", f"{host.url}/v1")
        refused(done, "answered a web page instead of JSON: is this the root of an API?")

    def test_not_found(self, user):
        """A root below which there is nothing is said to be that, with what to try."""
        with FaultyServer() as host:
            done = user.run("ls", "/", "-s", f"{host.url}/v1")
        refused(done, f"{host.url}/v1/collections", "404")

    def test_other_json(self, user):
        """JSON that is no catalog is said to be none."""
        with FaultyServer() as host:
            host.on("/v1/datasets", answer({"hello": "world"}))
            host.on("/v1/collections", answer({"hello": "world"}))
            done = user.run("ls", "/", "-s", f"{host.url}/v1")
        refused(done, "is not a list of collections")

    def test_a_refused_key(self, user, tmp_path):
        """A key that the API does not know is told so, with how to set one, and not printed."""
        with LocalServer(api_key="another", cache_dir=tmp_path / "server") as server:
            done = user.run("ls", "/", source=server.root_url, MLHUB_API_KEY=KEY)
        refused(done, "401", "check the API key", "mlhubfs configure")
        assert KEY not in done.err

    def test_a_key_over_plain_http(self, here):
        """A key does not go to another machine unencrypted: that is refused, with what to do."""
        done = here("ls", "/", "-s", "http://192.0.2.1/v1", MLHUB_API_KEY=KEY)
        refused(done, "unencrypted", "use https", "__anonymous__")
        assert KEY not in done.err

    def test_a_key_in_the_url(self, here):
        """A source that carries a key or a password is refused without being repeated."""
        for url in (f"https://h/v1?key={KEY}", f"https://me:{KEY}@h/v1"):
            done = here("ls", "/", "-s", url)
            refused(done, "MLHUB_API_KEY")
            assert KEY not in done.err


class TestFiles:
    """ls, cat, stat over the tree without a mount, as coreutils do it."""

    def test_ls(self, user, source):
        """`ls` shows the names of a directory, one a line."""
        assert user.run("ls", "/", source=source) == (
            0, "README.txt\nbigearthnet_v1\nsample_aerial_scene_v1\nsample_crop_fields_v1\n", "",
        )  # fmt: skip

    def test_ls_of_a_file(self, user, source):
        """`ls` of a file shows its path, as it was given."""
        assert user.run("ls", "README.txt", "-s", source) == (0, "README.txt\n", "")

    def test_ls_of_several(self, user, source):
        """`ls` of several directories puts each one's name before its names."""
        done = user.run("ls", "bigearthnet_v1", "/sample_crop_fields_v1/", source=source)
        assert done.code == 0
        assert done.out.startswith("bigearthnet_v1:\ncatalog.json\ndataset.json\n")
        assert "/sample_crop_fields_v1/:\ncatalog.json\n" in done.out

    def test_ls_long(self, user, source):
        """`ls -l` shows mode, size and time of each name."""
        done = user.run("ls", "-l", ASSET, COLLECTION, source=source)
        time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000"
        assert re.search(
            rf"^-r--r--r-- +{CHIP.stat().st_size} {time} {ASSET}$", done.out, re.MULTILINE
        )
        assert len(re.findall(rf"^dr-xr-xr-x +0 {time} \S+$", done.out, re.MULTILINE)) == 24

    def test_cat(self, user, source):
        """`cat` writes the bytes of files, one after the other."""
        done = subprocess.run(
            [*MLHUBFS, "cat", "-s", source, ASSET, "/README.txt", ASSET],
            env=user.environ, capture_output=True, check=True,
        )  # fmt: skip
        data = CHIP.read_bytes()
        assert done.stdout.startswith(data + b"This directory is a catalog")
        assert done.stdout.endswith(data)
        assert done.stderr == b""

    def test_stat(self, user, source):
        """`stat` shows size, kind, mode and time."""
        done = user.run("stat", ASSET, "/", source=source)
        assert (done.code, done.err) == (0, "")
        assert f"  File: {ASSET}\n  Size: {CHIP.stat().st_size} " in done.out
        assert "regular file\nAccess: (-r--r--r--)\n" in done.out
        assert "  File: /\n  Size: 0               directory\nAccess: (dr-xr-xr-x)" in done.out

    @pytest.mark.parametrize(
        ("command", "path", "code", "told"),
        [
            ("ls", "/nope", 2, "ls: cannot access '/nope': No such file or directory"),
            ("ls", "README.txt/x", 2, "ls: cannot access 'README.txt/x': Not a directory"),
            ("cat", "/nope", 1, "cat: /nope: No such file or directory"),
            ("cat", "/bigearthnet_v1", 1, "cat: /bigearthnet_v1: Is a directory"),
            ("cat", "/README.txt/x", 1, "cat: /README.txt/x: Not a directory"),
            ("stat", "/nope", 1, "stat: cannot statx '/nope': No such file or directory"),
        ],
    )
    def test_refusals(self, user, source, command, path, code, told):
        """Messages and exit codes are those of coreutils, and what is there is still shown."""
        done = user.run(command, path, "README.txt", source=source)
        assert (done.code, done.err) == (code, f"{told}\n")
        assert "README.txt" in done.out or "mounted by mlhubfs" in done.out

    def test_a_failing_asset(self, user):
        """`cat` of an asset whose storage fails says so as coreutils do, and then why."""
        with FaultyServer() as host:
            mlhub(host, {"d": {"c": [stac_item("i", {"a.txt": f"{host.url}/gone"})]}})
            host.on("/gone", Reply(403))
            done = user.run("cat", "/d/c/i/a.txt", "-s", f"{host.url}/v1")
        assert (done.code, done.out) == (1, "")
        first, second = done.err.splitlines()
        assert first == "cat: /d/c/i/a.txt: Permission denied"
        assert second.startswith(f"mlhubfs: {host.url}/gone answered 403")

    @pytest.mark.parametrize(
        "command",
        ["ls /bigearthnet_v1/bigearthnet_v1_source", f"cat {ASSET}", "items bigearthnet_v1_source"],
    )
    def test_head(self, user, source, command):
        """A reader that has enough, as `head -1`, ends it without a word."""
        done = subprocess.run(
            ["bash", "-c", f"'{MLHUBFS[0]}' -m mlhubfs {command} -s {source} | head -c 1"],
            env=user.environ, capture_output=True, check=True,
        )  # fmt: skip
        assert len(done.stdout) == 1
        assert done.stderr == b""

    @pytest.mark.parametrize("command", [("cat", ASSET), ("ls", "/")])
    def test_a_full_disk(self, user, source, command):
        """Output that cannot be written ends it with one line and exit code 1."""
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*MLHUBFS, *command, "-s", source],
                env=user.environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "mlhubfs: No space left on device\n")

    def test_no_fuse_is_needed(self, user, source):
        """The three work where there is no /dev/fuse at all."""
        need_root()
        done = user.run("cat", "/README.txt", source=source, before=without_device())
        assert done.code == 0
        assert source in done.out

    def test_interrupt(self, user):
        """Ctrl-C ends it while the server is silent: exit code 130, no traceback."""
        with FaultyServer() as host:
            host.on("/v1/datasets", answer([], hold=host.hold()))
            with user.running("ls", "/", "-s", f"{host.url}/v1") as process:
                host.wait_for("/v1/datasets")
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert (out, err.strip()) == ("", "")


class TestConfigure:
    """The profile file: the key goes in and is never shown."""

    def test_writes_a_profile(self, user):
        """The key is read from stdin into the profile file, mode 0600, folder 0700."""
        done = user.run("configure", typed=f"{KEY}\n")
        assert (done.code, done.err) == (0, "")
        assert done.out == f"wrote the profile 'default' to {user.profiles}\n"
        assert user.profiles.read_text() == f"[default]\napi_key = {KEY}\n\n"
        assert stat.S_IMODE(user.profiles.stat().st_mode) == 0o600
        assert stat.S_IMODE(user.profiles.parent.stat().st_mode) == 0o700

    def test_an_open_file_is_closed(self, user, here):
        """A profile file that others could read is mode 0600 afterwards."""
        user.profiles.parent.mkdir()
        user.profiles.write_text("[default]\napi_key = old\n")
        user.profiles.chmod(0o644)
        assert here("configure", typed=KEY).code == 0
        assert stat.S_IMODE(user.profiles.stat().st_mode) == 0o600
        assert names(user.profiles.parent) == ["profiles"]

    def test_asks_on_a_terminal(self, user):
        """On a terminal the key is asked for, and what is typed is not echoed."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [*MLHUBFS, "configure"], env=user.environ, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        shown = b""
        while b"API key" not in shown:
            shown += os.read(master, 1000)
        os.write(master, KEY.encode() + b"\n")
        assert process.wait(30) == 0
        try:
            while piece := os.read(master, 1000):
                shown += piece
        except OSError:  # what Linux says at the end of a terminal
            pass
        os.close(master)
        assert KEY.encode() not in shown
        assert KEY in user.profiles.read_text()

    def test_keeps_other_profiles(self, user, here):
        """Other profiles and other settings of the same profile stay."""
        user.profiles.parent.mkdir()
        user.profiles.write_text("[default]\napi_key = old%1\n\n[work]\napi_key = w\nfoo = bar\n")
        assert here("configure", "--profile", "work", typed=KEY).code == 0
        assert user.profiles.read_text() == (
            f"[default]\napi_key = old%1\n\n[work]\napi_key = {KEY}\nfoo = bar\n\n"
        )

    def test_mlhub_home(self, here, tmp_path):
        """MLHUB_HOME says where the file is."""
        done = here("configure", typed=KEY, MLHUB_HOME=str(tmp_path / "there"))
        assert done.code == 0
        assert KEY in (tmp_path / "there" / "profiles").read_text()

    @pytest.mark.parametrize("typed", ["", "\n", "two words\n", "\x07\n"])
    def test_refuses_what_is_no_key(self, user, here, typed):
        """Nothing, several words or control characters are refused, and nothing is written."""
        refused(here("configure", typed=typed), "that is no API key", "nothing was written")
        assert not user.profiles.exists()

    @pytest.mark.parametrize("profile", ["", "__anonymous__", "a]b", "a\nb"])
    def test_refuses_names_that_cannot_be(self, here, profile):
        """A name that the file cannot hold, or that means something else, is refused."""
        done = here("configure", "--profile", profile, typed=KEY)
        refused(done, "cannot be a profile's name")

    def test_leaves_a_broken_file_alone(self, user, here):
        """A profile file that cannot be read is left as it is, and its content is not shown."""
        user.profiles.parent.mkdir()
        broken = f"{KEY} is my key\n"
        user.profiles.write_text(broken)
        done = here("configure", typed="new")
        refused(done, str(user.profiles), "left alone")
        assert KEY not in done.err
        assert user.profiles.read_text() == broken

    def test_a_folder_that_cannot_be_written(self, user, here):
        """Where the file cannot be written, that is said, with the reason."""
        (user.folder / "file").touch()
        done = here("configure", typed=KEY, MLHUB_HOME=str(user.folder / "file"))
        refused(done, "cannot be written: ")

    def test_the_profile_is_used(self, user, tmp_path):
        """A key that was written is the one that is sent."""
        with LocalServer(api_key=KEY, cache_dir=tmp_path / "server") as server:
            assert user.run("ls", COLLECTION, source=server.root_url).code == 2
            assert user.run("configure", typed=KEY).code == 0
            done = user.run("ls", COLLECTION, source=server.root_url)
        assert done.code == 0
        assert len(done.out.splitlines()) == 25


class TestDoctor:
    """Each prerequisite: found or not, and the remedy."""

    def test_all_is_well(self, user):
        """Where all is there, each line says what was found, and the exit code is 0."""
        done = user.run("doctor")
        lines = dict(line[8:].split(": ", 1) for line in done.out.splitlines())
        assert {"Python", "/dev/fuse", "binding fuse3", "binding fuse2", "fusermount",
                "cache folder", "allow_other", "local server"} == set(lines)  # fmt: skip
        assert ("MISSING" in done.out) == (done.code == 1)

    def test_no_device(self, user):
        """Without /dev/fuse it is missing, with the remedy, and the exit code is 1."""
        need_root()
        done = user.run("doctor", before=without_device())
        assert done.code == 1
        assert "MISSING /dev/fuse: load the module (modprobe fuse)" in done.out
        assert done.err.count("\n") == 1

    def test_a_missing_library(self, user):
        """One libfuse that is not there is told with the package, and is no trouble."""
        need_root()
        done = user.run("doctor", before=without_library("libfuse.so.2"))
        assert re.search(
            r"^not +binding fuse2: .*install the package libfuse2", done.out, re.MULTILINE
        )
        assert done.code == 0

    def test_both_libraries_missing(self, user):
        """Without any libfuse both are missing, and the exit code is 1."""
        need_root()
        done = user.run("doctor", before=without_library("libfuse.so.2", "libfuse3.so.3"))
        assert done.out.count("MISSING binding") == 2
        assert done.code == 1

    def test_a_cache_folder_that_cannot_be(self, user):
        """A cache folder that cannot be made is told, with the option that gives another."""
        (user.folder / "file").touch()
        done = user.run("doctor", MLHUBFS_CACHE_DIR=str(user.folder / "file" / "x"))
        assert re.search(r"^not +cache folder: .*-o cache_dir=DIR", done.out, re.MULTILINE)

    def test_another_user(self, user):
        """A user who may not open /dev/fuse is told so."""
        need_root()
        if Path("/dev/fuse").stat().st_mode & 0o006:
            pytest.skip("all users may open /dev/fuse here")
        done = user.run("doctor", before=AS_NOBODY, HOME="/nonexistent")
        assert "MISSING /dev/fuse: Permission denied" in done.out
        assert "allow_other" in done.out
        assert done.code == 1


class TestServe:
    """The local server as a command."""

    def test_serves_the_sample_until_a_signal(self, user):
        """It prints its root, answers there, and ends with 0 and nothing listening."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with user.running("serve", "--port", "0") as process:
                root = process.stdout.readline().strip()
                with urllib.request.urlopen(f"{root}/datasets", timeout=30) as reply:
                    assert len(json.load(reply)) == 3
                process.send_signal(number)
                out, err = process.communicate(timeout=30)
            assert (process.returncode, out) == (0, "")
            assert f"mount it with: mlhubfs mount {root} DIRECTORY" in err
            assert "GET /mlhub/v1/datasets 200" in err
            assert "Traceback" not in err
            with pytest.raises(urllib.error.URLError, match="refused"):
                urllib.request.urlopen(root, timeout=5)

    def test_a_taken_port(self, user):
        """A port that is taken is told, with what to do."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            refused(user.run("serve", "--port", port), f"port {port}", "another --port")

    @pytest.mark.parametrize("name", ["nothing", "empty.tar.gz", "folder"])
    def test_what_holds_no_collection(self, user, name):
        """A path without a collection is refused by its name, with what would do."""
        (user.folder / "empty.tar.gz").touch()
        (user.folder / "folder").mkdir()
        refused(user.run("serve", "--port", "0", "--quiet", name), name)

    def test_a_key_is_asked_for_and_not_shown(self, user):
        """With a key from the environment, items are for those who have it; it is not printed."""
        with user.running("serve", "--port", "0", MLHUBFS_SERVER_KEY=KEY) as process:
            root = process.stdout.readline().strip()
            assert user.run("ls", COLLECTION, source=root).code == 2
            assert user.run("ls", COLLECTION, source=root, MLHUB_API_KEY=KEY).code == 0
            process.terminate()
            _, err = process.communicate(timeout=30)
        assert "401" in err
        assert KEY not in err

    def test_an_archive(self, user):
        """An archive is served as its folder is."""
        archive = user.folder / "fields.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(SAMPLE / "sample_crop_fields_v1/sample_crop_fields_v1", "fields")
        with user.running("serve", "--port", "0", "--quiet", archive) as process:
            root = process.stdout.readline().strip()
            listed = user.run("ls", "/", source=root)
            process.terminate()
        assert listed.code == 0
        assert "fields" in listed.out


def test_the_demo_ends_where_the_directory_cannot_be_used(user):
    """`demo` refuses a file, a full directory, a missing parent; no server is left behind."""
    (user.folder / "file").touch()
    (user.folder / "full" / "x").mkdir(parents=True)
    refused(user.run("demo", "file"), "file is not a directory")
    refused(user.run("demo", "full"), "full is not empty")
    refused(user.run("demo", "no/such"), "no/such cannot be made: No such file or directory")
    until(lambda: not user.processes(), "the servers have ended")


def test_no_command_prints_from_a_library():
    """The words of the user are the cli's: no other room calls print or click."""
    for path in Path(mlhubfs.__file__).parent.rglob("*.py"):
        if "cli" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", path
