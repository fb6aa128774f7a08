"""Amazon's signatures: a URL of S3 with the user's own AWS credentials, by botocore.

Owns what is signed, hosts of S3 and nothing else, and the region of each bucket, which S3 tells
when it was guessed wrong. The credentials are found as every AWS tool finds them.

*Threading.* Any thread.
"""

import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mlhubfs.errors import ConfigError, Denied
from mlhubfs.transport.signing import Ask

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_HOST = re.compile(rf"(?:(.+)\.)?s3(?:[.-](?:dualstack\.)?({_REGION.pattern}))?\.amazonaws\.com")
_SECONDS = 3600  # that a signature is good for; each request gets its own
_DEFAULT_REGION = "us-east-1"


class AwsSigner:
    """Signs URLs of S3; with `pays`, the user pays for what is read of requester-pays buckets."""

    def __init__(self, *, pays: bool) -> None:
        self._pays = pays
        try:
            from botocore import auth, awsrequest, session  # noqa: PLC0415 - few need it
        except ImportError:
            raise ConfigError("signing for S3 needs botocore: pip install 'mlhubfs[s3]'") from None
        self._presigner: Any = auth.S3SigV4QueryAuth
        self._request: Any = awsrequest.AWSRequest
        self._session: Any = session.get_session()
        self._lock = threading.Lock()
        self._regions: dict[str, str] = {}

    def sign(self, url: str, ask: Ask) -> str:  # noqa: ARG002 - of the protocol
        """Return the presigned form of a URL of S3's, any other as it is."""
        found = bucket_of(url)
        if found is None:
            return url
        bucket, region = found
        request = self._request(method="GET", url=url)
        if self._pays:
            request.params = {"x-amz-request-payer": "requester"}
        region = region or self._regions.get(bucket) or _DEFAULT_REGION
        self._presigner(self._credentials(), "s3", region, _SECONDS).add_auth(request)
        return str(request.url)

    def renew(self, signed: str, headers: Mapping[str, str]) -> bool:
        """Take note of the bucket's region, if the refusal tells another than was signed for."""
        found = bucket_of(signed.partition("?")[0])
        region = headers.get("x-amz-bucket-region", "")
        if found is None or not _REGION.fullmatch(region) or f"%2F{region}%2Fs3%2F" in signed:
            return False
        self._regions[found[0]] = region
        return True

    def _credentials(self) -> Any:
        with self._lock:  # botocore's session is for one thread
            credentials = self._session.get_credentials()
            if credentials is None:
                raise Denied("there are no AWS credentials: set AWS_PROFILE, or `aws configure`")
            return credentials.get_frozen_credentials()


def bucket_of(url: str) -> tuple[str, str | None] | None:
    """Return the bucket of a URL that is S3's and not signed yet, and the region that it names."""
    parts = urlsplit(url)
    match = _HOST.fullmatch(parts.hostname or "")
    bucket = match and (match[1] or parts.path.lstrip("/").partition("/")[0])
    if not match or not bucket or "x-amz-signature=" in parts.query.lower():
        return None
    return bucket, match[2]
