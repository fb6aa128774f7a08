"""Sources by name: from words NAME=SOURCE, or from a TOML file.

Owns what may stand in the file. A source's permissions are its own: neither $MLHUB_API_KEY nor the
default profile is sent to one of several, but the key of the `profile` that it names.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs

from mlhubfs import config as settings
from mlhubfs.config import ANONYMOUS, Config, Permission
from mlhubfs.errors import ConfigError

_NAMED = re.compile(r"([A-Za-z0-9_][\w.-]*)=(.+)", re.ASCII | re.DOTALL)
_HOST = re.compile(r"([\w.-]*\w|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_SENT = {
    # RFC 9110, 5.6.2 and 5.5; of bytes beyond ASCII no two servers think the same.
    "headers": (r"[\w!#$%&'*+.^`|~-]+", r"[!-~]([ -~]*[!-~])?", "of ASCII, without blanks around"),
    "query": (r".+", r".+", "not empty"),
}
"""What can be sent to a host: what its name and its text are like, and the latter in words."""
_OWN = frozenset({"root", *_SENT, "hosts", "profile", "api_key_file"})


def default_file() -> Path:
    """Return where the file is looked for where none is named."""
    return platformdirs.user_config_path("mlhubfs") / "sources.toml"


def from_words(words: tuple[str, ...], texts: tuple[str, ...]) -> dict[str, Config] | None:
    """Return name -> Config of words NAME=SOURCE, None where they are not such; raises ConfigError.

    `texts` are `-o` arguments, for all of them.
    """
    matches = [_NAMED.fullmatch(word) for word in words]
    named = [(match[1], match[2]) for match in matches if match]
    if not named or len(named) < len(words):
        return None
    if len(dict(named)) < len(named):
        raise ConfigError("two sources have the same name: give each its own")
    return {name: _load(name, {"root": root}, texts) for name, root in named}


def from_file(path: Path, texts: tuple[str, ...]) -> dict[str, Config]:
    """Return name -> Config of a file's tables; `-o` arguments come first. Raises ConfigError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not tables:
        raise ConfigError(f'{path} names no source: write [NAME] and root = "https://..."')
    for name, table in tables.items():
        if not _NAMED.fullmatch(f"{name}=x") or not isinstance(table, dict):
            raise ConfigError(f"{path}: {name!r} is no [NAME] that a directory can have")
    return {name: _load(name, table, texts) for name, table in tables.items()}


def keyless(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the API key that is for a single source."""
    return {name: value for name, value in environ.items() if name != "MLHUB_API_KEY"}


def _load(name: str, table: Mapping[str, Any], texts: tuple[str, ...]) -> Config:
    root = table.get("root")
    if not isinstance(root, str) or not root:
        raise ConfigError(f"the source {name!r} has no root: give the URL of its API or catalog")
    written = [f"{key}={_word(value)}" for key, value in table.items() if key not in _OWN]
    chosen = settings.parse_options((*written, *texts))
    if {"profile", "api_key_file"} & chosen.keys():
        raise ConfigError("several sources have a key each: put profile into a file (--config)")
    environ = keyless(os.environ)
    try:
        config = settings.load(
            environ,
            source=root,
            profile=table.get("profile") or ANONYMOUS,
            api_key_file=table.get("api_key_file"),
            **chosen,
        )
        return replace(config, permissions=_permissions(config, table))
    except ConfigError as error:
        raise ConfigError(f"the source {name!r}: {error}") from None


def _permissions(config: Config, table: Mapping[str, Any]) -> tuple[Permission, ...]:
    hosts = list(_dict(table.get("hosts", {}), "hosts").items())
    own = {key: table[key] for key in _SENT if key in table}
    if own:
        hosts.insert(0, (settings.netloc(config.source), own))
    found = {host.lower(): _permission(host, one) for host, one in hosts}
    if len(found) < len(hosts):
        raise ConfigError("a host stands twice: write its headers and query in one place")
    return tuple(found.values())


def _permission(host: str, table: Any) -> Permission:
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{host!r} is no host to send anything to: give HOST or HOST:PORT")
    unknown = sorted(_dict(table, host).keys() - _SENT)
    if unknown:
        raise ConfigError(f"unknown settings for {host}: {unknown}: it takes {' and '.join(_SENT)}")
    headers, query = (tuple(_pairs(table, key, host)) for key in _SENT)
    return Permission(host.lower(), headers, query)


def _pairs(table: Mapping[str, Any], key: str, host: str) -> Iterator[tuple[str, str]]:
    name_like, text_like, words = _SENT[key]
    for name, text in _dict(table.get(key, {}), key).items():
        if not re.fullmatch(name_like, name, re.ASCII):
            raise ConfigError(f"{key} for {host}: {name!r} is no name that can be sent")
        if not (isinstance(text, str) and re.fullmatch(text_like, text)):
            raise ConfigError(f"{key} for {host}: {name} is no text: one line, {words}")
        yield name, text


def _dict(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f'{what} is a table: {{NAME = "TEXT"}}')
    return value


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if "," in str(value):
        raise ConfigError(f"{value!r} is no value of an option: it holds a comma")
    return str(value)
