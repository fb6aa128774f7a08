"""Signing at read time: from the URL of an asset to the one that its storage answers.

Owns what a signer is, and the hook for others. A signed URL is a permission: it is made for
one request, goes into that, and is kept nowhere, so that no link, log or document ever holds it.

*Threading.* Signers are called by all threads at once.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Protocol

from mlhubfs.errors import BadAnswer, ConfigError
from mlhubfs.transport.origin import origin

Ask = Callable[[str], bytes]
"""Returns the JSON at a URL, within the deadline of the request that is to be signed."""


class Signer(Protocol):
    """Makes URLs that storage answers."""

    def sign(self, url: str, ask: Ask) -> str:
        """Return the URL to be asked in the place of `url`; `url` itself where that is not ours."""

    def renew(self, signed: str, headers: Mapping[str, str]) -> bool:
        """Forget what was signed with, and refused; say whether to sign and ask once more."""


class Unsigned:
    """Signs nothing."""

    def sign(self, url: str, ask: Ask) -> str:  # noqa: ARG002 - of the protocol
        """Return `url`."""
        return url

    def renew(self, signed: str, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 - of the protocol
        """Return False."""
        return False


class Hook:
    """A function of the user's: given an http(s) URL, it returns the one to be asked.

    It is called before each request, by any thread, and returns what is not its own as it came.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        module, _, function = name.partition(":")
        try:
            self._function = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"sign={name}: {error}") from None

    def sign(self, url: str, ask: Ask) -> str:  # noqa: ARG002 - of the protocol
        """Return what the function makes of `url`."""
        signed = self._function(url)
        try:
            origin(signed)
        except (ValueError, TypeError, AttributeError):
            raise BadAnswer(f"{self._name} did not return an http(s) URL") from None
        return str(signed)

    def renew(self, signed: str, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 - of the protocol
        """Return False: the function knows for itself how long its signatures are good."""
        return False
