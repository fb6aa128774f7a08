"""The settings: where they come from, which are refused, and that the key is not shown."""

import math
import re
from pathlib import Path

import pytest

from mlhubfs.config import (
    ANONYMOUS,
    MLHUB_ROOT,
    OPTIONS,
    Config,
    is_this_machine,
    load,
    parse_options,
    parse_seconds,
    parse_size,
    profile_path,
)
from mlhubfs.errors import ConfigError


@pytest.fixture
def home(tmp_path):
    """A folder of profiles, and the environment that names it."""
    (tmp_path / "profiles").write_text(
        "[default]\napi_key = from-default\n[work]\napi_key =  from-work \n[empty]\nother = 1\n"
    )
    return {"MLHUB_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("environ", "arguments", "key"),
    [
        ({"MLHUB_API_KEY": "from-env"}, {"api_key": "given", "profile": "work"}, "given"),
        ({"MLHUB_API_KEY": "from-env"}, {"profile": "work"}, "from-env"),
        ({"MLHUB_API_KEY": "from-env", "MLHUB_PROFILE": "work"}, {}, "from-env"),
        ({"MLHUB_PROFILE": "default"}, {"profile": "work"}, "from-work"),
        ({"MLHUB_PROFILE": "work"}, {}, "from-work"),
        ({}, {}, "from-default"),
        ({"MLHUB_API_KEY": ""}, {}, "from-default"),
        ({}, {"profile": ANONYMOUS}, None),
        ({"MLHUB_PROFILE": ANONYMOUS}, {}, None),
        ({"MLHUB_API_KEY": "from-env"}, {"profile": ANONYMOUS}, None),
        ({"MLHUB_PROFILE": ANONYMOUS}, {"api_key": "given"}, "given"),
    ],
)
def test_the_first_place_that_has_a_key_wins(home, environ, arguments, key):
    """Argument, MLHUB_API_KEY, profile by argument, by MLHUB_PROFILE, `default`; or anonymous."""
    assert load(home | environ, **arguments).api_key == key


def test_without_profiles_there_is_no_key(tmp_path):
    """No file of profiles means no key, unless a profile was asked for by name."""
    environ = {"MLHUB_HOME": str(tmp_path)}
    assert load(environ).api_key is None
    with pytest.raises(ConfigError, match=r"no profile 'work'.*configure --profile work"):
        load(environ, profile="work")


def test_azures_account_may_come_from_the_environment():
    """As for Azure's own tools, and an option goes first; what is none is refused."""
    environ = {"AZURE_STORAGE_ACCOUNT": "theirs"}
    assert load(environ).azure_account == "theirs"
    assert load(environ, azure_account="ours").azure_account == "ours"
    assert load({"AZURE_STORAGE_ACCOUNT": ""}).azure_account is None
    with pytest.raises(ConfigError, match="azure_account='https://a'"):
        load({"AZURE_STORAGE_ACCOUNT": "https://a"})


@pytest.mark.parametrize("profile", ["nobody", "empty"])
def test_a_profile_that_was_named_must_have_a_key(home, profile):
    """A misspelt profile is an error, not an anonymous session."""
    with pytest.raises(ConfigError, match="configure"):
        load(home, profile=profile)


@pytest.mark.parametrize(
    "text", [b"api_key = SECRET-1\n", b"[default\napi_key = SECRET-1\n", b"\xff"]
)
def test_a_broken_profile_file_is_said_without_its_contents(tmp_path, text):
    """The message names the file; the key that may stand in it is not in the message."""
    (tmp_path / "profiles").write_bytes(text)
    with pytest.raises(ConfigError, match="profiles") as raised:
        load({"MLHUB_HOME": str(tmp_path)})
    assert "SECRET-1" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_profiles_are_in_the_home_folder_unless_mlhub_home_says_otherwise(monkeypatch):
    """`~/.mlhub/profiles`, as MLHub's own client had it."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(profile_path({})) == "/home/somebody/.mlhub/profiles"
    assert str(profile_path({"MLHUB_HOME": "/etc/mlhub"})) == "/etc/mlhub/profiles"


def test_a_key_can_come_from_a_file(home, tmp_path):
    """`api_key_file` is an argument too: it goes before the environment."""
    (tmp_path / "key").write_text("from-file\n")
    environ = home | {"MLHUB_API_KEY": "from-env"}
    assert load(environ, api_key_file=str(tmp_path / "key")).api_key == "from-file"


@pytest.mark.parametrize("text", [None, "", "two keys", "a\nb"])
def test_a_key_file_must_hold_one_key(tmp_path, text):
    """Anything else is refused, without being shown."""
    if text is not None:
        (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match="api_key_file") as raised:
        load({}, api_key_file=str(tmp_path / "key"))
    assert "two" not in str(raised.value)


@pytest.mark.parametrize("slash", ["", "/", "//"])
def test_the_root_means_the_same_with_and_without_a_slash(tmp_path, slash):
    """The old client lost the last segment of a root without one."""
    environ = {"MLHUB_HOME": str(tmp_path)}
    root = "https://h.org/mlhub/v1"
    assert load(environ, source=root + slash).source == root
    assert load(environ | {"MLHUB_ROOT_URL": root + slash}).source == root


def test_the_source_is_the_argument_the_environment_or_mlhub(tmp_path):
    """In that order."""
    environ = {"MLHUB_HOME": str(tmp_path)}
    named = environ | {"MLHUB_ROOT_URL": "https://b.org"}
    assert load(named, source="https://a.org").source == "https://a.org"
    assert load(named).source == "https://b.org"
    assert load(environ).source == MLHUB_ROOT


def test_the_cache_folder_is_the_option_the_environment_or_the_users_own(tmp_path, monkeypatch):
    """In that order."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/somebody/cache")
    environ = {"MLHUB_HOME": str(tmp_path)}
    assert str(load(environ).cache_dir) == "/home/somebody/cache/mlhubfs"
    environ["MLHUBFS_CACHE_DIR"] = "/scratch"
    assert str(load(environ).cache_dir) == "/scratch"
    assert str(load(environ, **parse_options(("cache_dir=/other",))).cache_dir) == "/other"


def test_the_key_is_not_shown():
    """Neither `repr` nor `str` of the settings holds it."""
    config = Config(source="https://h.org", api_key="SECRET-1")
    assert "SECRET-1" not in f"{config!r} {config}"


@pytest.mark.parametrize("host", ["h.org", "10.0.0.1", "127.0.0.1.evil.org", "localhost.evil.org"])
def test_a_key_over_plain_http_to_another_machine_is_refused(host):
    """Who listens on the way would have it; without a key, or over https, there is no harm."""
    with pytest.raises(ConfigError, match="unencrypted") as raised:
        Config(source=f"http://{host}/v1", api_key="SECRET-1")
    assert "SECRET-1" not in str(raised.value)
    Config(source=f"http://{host}/v1")
    Config(source=f"https://{host}/v1", api_key="SECRET-1")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "127.3.2.1", "localhost", "[::1]:8000"])
def test_a_key_over_plain_http_within_this_machine_is_fine(host):
    """The local server speaks http."""
    assert Config(source=f"http://{host}/v1", api_key="k").api_key == "k"


def test_loopback_is_recognised():
    """By its name and by its addresses, and by nothing that only looks like them."""
    assert all(map(is_this_machine, ["localhost", "::1", "127.0.0.1", "127.255.0.9"]))
    assert not any(map(is_this_machine, ["", "128.0.0.1", "127.0.0", "127.0.0.1x", "::2"]))


@pytest.mark.parametrize(
    "source",
    ["", "h.org/v1", "/data", "ftp://h.org", "http://", "https:///v1", "http://[oops/",
     "http://h.org:99999", "http://h.org:port", "http://:80/v1"],
)  # fmt: skip
def test_a_source_that_is_no_web_address_is_refused(source):
    """With one that would do; never with a traceback."""
    with pytest.raises(ConfigError, match="such as https://"):
        Config(source=source)


@pytest.mark.parametrize("source", ["https://me:SECRET-1@h.org", "https://h.org/?key=SECRET-1"])
def test_a_secret_in_the_source_is_refused_and_not_repeated(source):
    """The source is shown in /proc/mounts."""
    with pytest.raises(ConfigError, match="MLHUB_API_KEY") as raised:
        Config(source=source)
    assert "SECRET-1" not in str(raised.value)


def test_options_are_parsed_as_mount_writes_them():
    """Several arguments, several options in one, flags without a value, and units."""
    found = parse_options(
        ("ttl=1m,allow_other", "cache_size=2G", " page_size=10 ", "debug=false,,timeout=1.5")
    )
    assert found == {
        "ttl": 60.0, "allow_other": True, "cache_size": 2 << 30, "page_size": 10,
        "debug": False, "timeout": 1.5,
    }  # fmt: skip


def test_generic_mount_options_are_passed_over():
    """What mount(8), fstab and systemd add is nobody's mistake."""
    generic = "ro,rw,nofail,_netdev,dev,suid,nodev,nosuid,noexec,user,defaults,noatime"
    assert parse_options((generic, "x-systemd.automount,x-gvfs-show,comment=why")) == {}


@pytest.mark.parametrize("text", ["tll=1", "api_key=SECRET-1", "source=x", "=", "=1x", "ttl =1"])
def test_an_unknown_option_is_refused_with_those_there_are(text):
    """A misspelt option must not pass for a generic one; its value is not repeated."""
    with pytest.raises(ConfigError, match=r"unknown option.*cache_size.*ttl") as raised:
        parse_options((text,))
    assert "SECRET-1" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["ttl=soon", "ttl=-1", "cache_size=big", "cache_size=-1", "page_size=0", "page_size=1e3",
     "binding=fuse4", "allow_other=yes", "cache_dir=", "timeout=0", "connect_timeout=0s",
     "read_timeout=0.0", "timeout="],
)  # fmt: skip
def test_an_unusable_value_is_refused_with_the_option_and_what_would_do(text):
    """The message names the option and the value that it had."""
    name, _, value = text.partition("=")
    with pytest.raises(ConfigError, match=f"option {name}='{value}': .{{10,}}"):
        parse_options((text,))


def test_settings_may_be_texts_as_options_are(tmp_path):
    """As a program gives them by name, or values of Python's."""
    environ = {"MLHUB_HOME": str(tmp_path)}
    found = load(environ, ttl="1h", cache_size="1G", offline="on", cache_dir="x", memory=7)
    assert (found.ttl, found.cache_size, found.offline, found.memory) == (3600, 1 << 30, True, 7)
    assert found.cache_dir == Path("x").absolute()
    with pytest.raises(ConfigError, match="option offline='yes': takes no value, or on or off"):
        load(environ, offline="yes")
    with pytest.raises(ConfigError, match=r"unknown option 'cachesize'.*; near: cache_size"):
        load(environ, cachesize=1)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("timeout", None, "float"), ("timeout", -1, "a time"), ("connect_timeout", -3, "a time"),
     ("timeout", 0.0, "more than no time"), ("ttl", -5.5, "a time"), ("ttl", math.nan, "a time"),
     ("ttl", True, "a time"), ("memory", -1, "a size"), ("memory", 0.5, "int"),
     ("page_size", 0, "from 1"), ("page_size", None, "int"), ("guess", None, "bool"),
     ("guess", 1, "bool"), ("sign", None, "str"), ("sign", "s4", "s3"), ("cache_dir", None, "Path"),
     ("azure_account", 5, "str | None")],
)  # fmt: skip
def test_a_value_of_pythons_is_held_to_what_options_are(tmp_path, name, value, expected):
    """The message names the setting, the value and what would do."""
    with pytest.raises(
        ConfigError, match=re.escape(f"option {name}={value!r}: expected")
    ) as caught:
        load({"MLHUB_HOME": str(tmp_path)}, **{name: value})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", 7), ("ttl", 0.5), ("ttl", 0), ("memory", 0), ("page_size", 5), ("guess", False),
     ("offline", True), ("cache_dir", Path("/x")), ("azure_account", None), ("sign", "none")],
)  # fmt: skip
def test_a_value_of_pythons_is_the_setting(tmp_path, name, value):
    """As an option's text would be."""
    assert getattr(load({"MLHUB_HOME": str(tmp_path)}, **{name: value}), name) == value


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("500000", 500_000), ("512K", 512 << 10), ("10g", 10 << 30), ("1TiB", 1 << 40),
     ("3MB", 3 << 20), (" 7 ", 7)],
)  # fmt: skip
def test_sizes_are_read_in_powers_of_1024(text, number):
    """With the usual letters, in either case."""
    assert parse_size(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("90", 90), ("1.5", 1.5), ("5m", 300), ("2H", 7200), ("1d", 86400)],
)
def test_times_are_read_in_seconds(text, number):
    """Unless a letter says otherwise."""
    assert parse_seconds(text) == number


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_says_what_it_means_and_its_default(name):
    """`--help` is made of this, and what it shows as the default is the default."""
    option = OPTIONS[name]
    shown = option.metadata["shown"]
    assert len(option.metadata["help"]) > 10
    if name not in {"cache_dir", "azure_account"}:  # theirs are the user's environment's
        value = {"off": "false"}.get(shown, shown)
        assert option.metadata["parse"](value) == option.default
