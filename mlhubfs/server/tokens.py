"""Download tokens: who holds one may fetch one asset until it expires.

Owns the making and the checking of tokens. Does not know what the names inside stand for.

A token carries its own meaning, signed with a secret that lives as long as the server does, so that
590,326 items with thirteen assets each cost no memory, however often they are listed.

*Threading.* All methods may be called from any thread; nothing changes after construction.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Callable

from mlhubfs.errors import Denied

_HEAD = struct.Struct(">dH")  # when it expires, how many bytes of names follow
_SIGNATURE_SIZE = hashlib.sha256().digest_size
_NONCE_SIZE = 16  # makes each token new
_WHOLE_SIZE = 240  # 320 characters, as long as the recorded ones (312 to 356)


class Tokens:
    """Issues tokens that are good for `seconds`, and reads them back."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._clock = clock
        self._secret = secrets.token_bytes(32)

    def issue(self, *names: str) -> str:
        """Return a new token for `names`, which must not hold NUL."""
        payload = "\0".join(names).encode("utf-8", "surrogatepass")
        body = _HEAD.pack(self._clock() + self._seconds, len(payload)) + payload
        size = max(_WHOLE_SIZE, _SIGNATURE_SIZE + len(body) + _NONCE_SIZE)
        # Whole groups of three bytes: base64 then has no padding and no bits that mean nothing.
        size += -size % 3
        body += secrets.token_bytes(size - _SIGNATURE_SIZE - len(body))
        return base64.urlsafe_b64encode(self._sign(body) + body).decode("ascii")

    def read(self, token: str) -> tuple[str, ...]:
        """Return the names that `token` was issued for, or raise `Denied`."""
        try:
            whole = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            whole = b""
        signature, body = whole[:_SIGNATURE_SIZE], whole[_SIGNATURE_SIZE:]
        if not hmac.compare_digest(signature, self._sign(body)):
            raise Denied("Download link is not valid.")
        expires, length = _HEAD.unpack_from(body)
        if expires <= self._clock():
            raise Denied("Download link has expired.")
        payload = body[_HEAD.size : _HEAD.size + length]
        return tuple(payload.decode("utf-8", "surrogatepass").split("\0"))

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")
