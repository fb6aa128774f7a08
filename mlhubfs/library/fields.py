"""What the fields of a JSON object say: a field of another type is as if it were not there.

Pure functions. Servers send null for absent, a number for a text, a text for a list.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from mlhubfs.catalog.models import parse_time

Fields = Mapping[str, Any]


def decode(document: bytes) -> dict[str, Any]:
    """Return a JSON object of the tree's documents."""
    return msgspec.json.decode(document, type=dict[str, Any])


def text(fields: Fields, name: str) -> str | None:
    """Return a text, None where it is missing or empty."""
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def texts(fields: Fields, name: str) -> tuple[str, ...]:
    """Return the texts of a list."""
    value = fields.get(name)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def objects(fields: Fields, name: str) -> list[dict[str, Any]]:
    """Return the objects of a list."""
    value = fields.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def moment(fields: Fields, name: str) -> datetime | None:
    """Return a time, in UTC."""
    seconds = parse_time(fields.get(name))
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
