"""Object stores: the https form of their own URLs. Pure functions.

*Threading.* No state.
"""

import re
from urllib.parse import quote

AZURE_SCHEMES = frozenset({"az", "abfs", "abfss"})
BUCKET_SCHEMES = AZURE_SCHEMES | {"s3", "gs"}
_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
_HOST = re.compile(r"(?:([a-z0-9$-]+)@)?([a-z0-9]+)\.(?:blob|dfs)\.core\.windows\.net")
_CONTAINER = re.compile(r"[a-z0-9$-]+")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")


def lacks_account(url: str) -> bool:
    """Say whether `url` names a container of Azure's, and not whose."""
    scheme, _, rest = url.partition("://")
    return scheme.lower() in AZURE_SCHEMES and not _HOST.fullmatch(rest.partition("/")[0])


def over_http(url: str, account: str | None = None) -> str:
    """Return the https URL of what is in a bucket or container, and any other URL as it is.

    `s3://bucket/key`, `gs://bucket/key`; `az`, `abfs` and `abfss` with the account in the host:
    `abfs://container@account.dfs.core.windows.net/blob`, `az://account.blob.core.windows.net/
    container/blob`; `az://container/blob` is in `account`. Raises ValueError where the bucket or
    the account is missing.
    """
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in BUCKET_SCHEMES:
        return url
    bucket, _, key = rest.partition("/")
    key = quote(key, safe="/%~")
    if scheme in {"s3", "gs"} and not _BUCKET.fullmatch(bucket):
        raise ValueError(f"expected {scheme}://bucket/key")
    if scheme == "gs":
        return f"https://storage.googleapis.com/{bucket}/{key}"
    if scheme == "s3":
        # A bucket with dots in its name is no host that Amazon's certificate is for.
        if "." in bucket:
            return f"https://s3.amazonaws.com/{bucket}/{key}"
        return f"https://{bucket}.s3.amazonaws.com/{key}"
    match = _HOST.fullmatch(bucket)
    if not match and _CONTAINER.fullmatch(bucket) and _ACCOUNT.fullmatch(account or ""):
        return f"https://{account}.blob.core.windows.net/{bucket}/{key}"
    if not match:
        raise ValueError(f"expected {scheme}://container@account.dfs.core.windows.net/blob")
    container = f"{match[1]}/" if match[1] else ""
    return f"https://{match[2]}.blob.core.windows.net/{container}{key}"
