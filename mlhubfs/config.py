"""Every setting of mlhubfs: its name, its default, its meaning, and where it may come from.

Owns `Config` and the reading of the environment and of the profile file, which happens here, at
call time, and nowhere else. Does not know what the settings do.
"""

import configparser
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import platformdirs

from mlhubfs.errors import ConfigError

MLHUB_ROOT = "https://api.radiant.earth/mlhub/v1"
ANONYMOUS = "__anonymous__"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(text: str) -> int:
    """Return the bytes that `text` names: a number, or one with K, M, G or T (powers of 1024)."""
    match = re.fullmatch(r"(\d+)([kmgt]?)(i?b)?", text.strip().lower())
    if not match:
        raise ValueError("expected a size such as 500000, 512K or 10G")
    return int(match[1]) * _UNITS[match[2]]


def parse_seconds(text: str) -> float:
    """Return the seconds that `text` names: a number, or one with s, m, h or d."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip().lower())
    if not match:
        raise ValueError("expected a time such as 90, 5m or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def _parse_timeout(text: str) -> float:
    seconds = parse_seconds(text)
    if not seconds:
        raise ValueError("expected more than no time at all")
    return seconds


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", text.strip()):
        raise ValueError("expected a whole number from 1 to 999999")
    return int(text)


def _parse_flag(text: str) -> bool:
    if text not in {"", "on", "off", "true", "false"}:
        raise ValueError("takes no value, or on or off")
    return text not in {"off", "false"}


def _parse_binding(text: str) -> str:
    if text not in {"auto", "fuse2", "fuse3"}:
        raise ValueError("expected auto, fuse2 or fuse3")
    return text


def _parse_sign(text: str) -> str:
    known = {"auto", "none", "planetary-computer", "s3", "s3-requester-pays"}
    if text not in known and not re.fullmatch(r"[\w.]+:\w+", text):
        raise ValueError(f"expected package.module:function, or one of {', '.join(sorted(known))}")
    return text


def _parse_account(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]{3,24}", text):
        raise ValueError("expected 3 to 24 small letters and digits")
    return text


def _parse_path(text: str) -> Path:
    if not text:
        raise ValueError("expected a path")
    return Path(text).expanduser().absolute()  # the daemon's working directory is another one


def _option(default: Any, parse: Callable[[str], Any], meaning: str, shown: str = "") -> Any:
    """Declare a setting that `-o name=value` can change."""
    return field(
        default=default, metadata={"parse": parse, "help": meaning, "shown": shown or str(default)}
    )


class Permission(NamedTuple):
    """What is sent to one host and to no other, over https, or within this machine."""

    host: str
    """With a port, but that it may lack the URL's scheme's own."""
    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config:
    """What one mount, or one command, is to do. Sizes are bytes, times are seconds."""

    source: str = MLHUB_ROOT
    """URL of the API's root, or of a static catalog's first document, without a trailing slash; the
    `file:` URL of a folder, a document or a tarball."""

    api_key: str | None = field(default=None, repr=False)
    """Sent to the source's own origin only, in a header."""

    permissions: tuple[Permission, ...] = field(default=(), repr=False)
    """Headers and query parameters of a source that a file describes, by host."""

    cache_dir: Path = _option(
        Path(),
        _parse_path,
        "where listings and blocks are kept between mounts",
        "the user's cache folder",
    )
    cache_size: int = _option(
        10 << 30,
        parse_size,
        "most bytes of blocks in the cache; the least recently used go first",
        "10G",
    )
    memory: int = _option(
        256 << 20, parse_size, "most bytes of blocks in memory, those on their way included", "256M"
    )
    guess: bool = _option(
        True,
        _parse_flag,
        "fetch early the small files that the same program read in the item before",
        "on",
    )
    ttl: float = _option(
        300.0,
        parse_seconds,
        "how long names and item JSON are trusted before they are looked at again",
        "5m",
    )
    content_ttl: float = _option(
        86400.0, parse_seconds, "how long a file's size and validator are trusted", "1d"
    )
    immutable: bool = _option(
        False, _parse_flag, "trust sizes and validators for ever: files are never replaced", "off"
    )
    negative_ttl: float = _option(
        60.0, parse_seconds, "how long a name that does not exist is remembered", "60"
    )
    timeout: float = _option(
        60.0, _parse_timeout, "deadline of one operation, its retries included", "60"
    )
    connect_timeout: float = _option(10.0, _parse_timeout, "for one connection to be made", "10")
    read_timeout: float = _option(
        20.0, _parse_timeout, "longest silence in the middle of an answer", "20"
    )
    page_size: int = _option(
        10000, _parse_count, "most items of a listing's page; the first has at most 100"
    )
    offline: bool = _option(
        False, _parse_flag, "ask no server: only what the index and the cache hold", "off"
    )
    show_views: bool = _option(
        False, _parse_flag, "list the views @where, @source and @archive.tar.gz too", "off"
    )
    binding: str = _option(
        "auto", _parse_binding, "libfuse to use: fuse3 (mfusepy), fuse2 (fusepy) or auto"
    )
    allow_other: bool = _option(
        False, _parse_flag, "let other users in (needs user_allow_other in /etc/fuse.conf)", "off"
    )
    sign: str = _option(
        "auto",
        _parse_sign,
        "how assets' URLs are signed: planetary-computer, s3, s3-requester-pays, none, "
        "or package.module:function",
        "auto",
    )
    azure_account: str | None = _option(
        None,
        _parse_account,
        "account of Azure's storage for az: and abfs: assets whose catalog names none",
        "$AZURE_STORAGE_ACCOUNT",
    )
    allow_private: bool = _option(
        False,
        _parse_flag,
        "let the catalog name private, loopback and metadata addresses that it is not at",
        "off",
    )
    debug: bool = _option(False, _parse_flag, "log every request and operation", "off")

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.source)
            is_web = url.scheme in {"http", "https"} and url.hostname and url.port != 0
            usable = is_web or (url.scheme == "file" and url.path.startswith("/"))
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError(
                f"source {self.source!r} is neither an http(s) URL nor a file or folder: give the "
                "root of an API, such as https://host/mlhub/v1, or a catalog.json"
            )
        if "@" in url.netloc or "key=" in url.query:
            raise ConfigError(
                "the source URL carries a password or key, which other users could see: "
                "put the key into MLHUB_API_KEY or a profile (`mlhubfs configure`)"
            )
        host = url.hostname or ""
        if self.api_key and not re.fullmatch(r"[!-~]+", self.api_key):
            raise ConfigError(
                "the API key holds spaces or characters that no key has: look at MLHUB_API_KEY, "
                "or at the profile"
            )
        if self.api_key and url.scheme == "http" and not is_this_machine(host):
            raise ConfigError(
                f"the API key would cross the network to {host} unencrypted: use https, "
                f"or the profile {ANONYMOUS} to send no key"
            )


def is_this_machine(host: str) -> bool:
    """Say whether `host`, a name or an address, is this machine's loopback."""
    return host in {"localhost", "::1"} or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


OPTIONS = {option.name: option for option in fields(Config) if option.metadata}
"""The settings that `-o` takes: name -> dataclass field."""

# What mount(8) and fstab(5) say to every file system; they ask for nothing that differs here.
_GENERIC = frozenset(
    "ro rw dev nodev suid nosuid exec noexec auto noauto user nouser users owner group defaults "
    "nofail _netdev async sync atime noatime diratime nodiratime relatime norelatime strictatime "
    "lazytime nolazytime mand nomand iversion silent loud remount default_permissions".split()
)


def parse_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings that `-o` arguments name, as `mount -o` writes them: `a,b=1`.

    Generic mount options are passed over. Raises ConfigError for an unknown name or a bad value.
    """
    settings: dict[str, Any] = {}
    for text in ",".join(texts).split(","):
        name, equals, value = text.strip().partition("=")
        if not (name or equals) or name in _GENERIC or name.startswith(("x-", "X-", "comment")):
            continue
        if name in {"api_key_file", "profile"}:
            settings[name] = value
            continue
        settings[name] = _checked(name, value)
    return settings


def _checked(name: str, value: Any) -> Any:
    """Return the value of an option, which is read as in `-o`; raises ConfigError."""
    option = OPTIONS.get(name)
    if option is None:
        known = sorted([*OPTIONS, "api_key_file", "profile"])
        near = "".join(f"; near: {one}" for one in difflib.get_close_matches(name, known, n=1))
        raise ConfigError(f"unknown option {name!r}: the options are {', '.join(known)}{near}")
    if value is option.default:
        return value
    try:
        return option.metadata["parse"](_written(value, option.type))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"option {name}={value!r}: {error}") from None


def _written(value: Any, kind: Any) -> str:
    """Return a value of Python's as `-o` has it; raises TypeError for one of another kind."""
    if not isinstance(value, str | int | float if kind is float else str | kind):
        name = getattr(kind, "__name__", kind)
        raise TypeError(f"expected a value of the type {name}, or a text as `mount -o` takes it")
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}" if isinstance(value, float) else str(value)


def load(
    environ: Mapping[str, str],
    *,
    source: str | None = None,
    api_key: str | None = None,
    api_key_file: str | None = None,
    profile: str | None = None,
    **settings: Any,
) -> Config:
    """Return the Config of arguments, environment and profile file, in that order of precedence.

    `settings` are those of `-o`, as values or as its texts. Raises ConfigError where one of them is
    unusable.
    """
    if api_key_file:
        api_key = _read_key(Path(api_key_file).expanduser())
    if environ.get("AZURE_STORAGE_ACCOUNT"):
        settings.setdefault("azure_account", environ["AZURE_STORAGE_ACCOUNT"])
    settings = {name: _checked(name, value) for name, value in settings.items()}
    settings.setdefault(
        "cache_dir",
        Path(environ.get("MLHUBFS_CACHE_DIR") or platformdirs.user_cache_path("mlhubfs")),
    )
    return Config(
        source=_to_url(source or environ.get("MLHUB_ROOT_URL") or MLHUB_ROOT).rstrip("/"),
        api_key=api_key or _find_key(environ, profile),
        **settings,
    )


def netloc(url: str) -> str:
    """Return host and, where it is not the scheme's own, port of a URL; nothing for a file."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    is_usual = parts.port in {None, {"https": 443, "http": 80}.get(parts.scheme)}
    return host if is_usual else f"{host}:{parts.port}"


def _to_url(source: str) -> str:
    """Return the URL of a source that may be a path of this machine."""
    path = Path(source).expanduser()
    return path.absolute().as_uri() if "://" not in source and path.exists() else source


def profile_path(environ: Mapping[str, str]) -> Path:
    """Return where the profiles are: `$MLHUB_HOME/profiles`, else `~/.mlhub/profiles`."""
    home = environ.get("MLHUB_HOME")
    return (Path(home) if home else Path("~/.mlhub").expanduser()) / "profiles"


def _find_key(environ: Mapping[str, str], profile: str | None) -> str | None:
    """Return the API key by the order of MLHub's own client; None sends no key."""
    name = profile or environ.get("MLHUB_PROFILE")
    if name == ANONYMOUS:
        return None
    if environ.get("MLHUB_API_KEY"):
        return environ["MLHUB_API_KEY"]
    path = profile_path(environ)
    profiles = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        profiles.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        raise ConfigError(
            f"cannot read the profiles in {path}: mend it, or write it with `mlhubfs configure`"
        ) from None
    if profiles.has_option(name or "default", "api_key"):
        return profiles.get(name or "default", "api_key").strip() or None
    if name:
        raise ConfigError(
            f"no profile {name!r} with an api_key in {path}: "
            f"make it with `mlhubfs configure --profile {name}`"
        )
    return None


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read api_key_file {path}: {error}") from None
    if not key or len(key.split()) != 1:
        raise ConfigError(f"api_key_file {path} must hold one API key and nothing else")
    return key
