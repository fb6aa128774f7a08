"""The header of a file in a tarball, as `tarfile` is to read it.

Owns one thing that `tarfile` does otherwise: it takes a header that is damaged for the end, and all
files after it are missing without a word.

*Threading.* Values.
"""

import tarfile
from typing import Self


class TarHeader(tarfile.TarInfo):
    """For `tarfile.open(tarinfo=)`: a damaged header is an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return what is in a block; raises ReadError where it is neither a header nor the end."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.strip(b"\0"):
                raise tarfile.ReadError(str(error)) from None
            raise  # a block of zeros, or nothing at all
