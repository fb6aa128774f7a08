"""Which signer a setting means."""

from urllib.parse import urlsplit

from mlhubfs.transport.aws import AwsSigner
from mlhubfs.transport.sas import ENDPOINT, SasSigner
from mlhubfs.transport.signing import Hook, Signer, Unsigned

_PLANETARY_COMPUTER = "planetarycomputer.microsoft.com"


def signer_of(setting: str, root_url: str) -> Signer:
    """Return the signer of `Config.sign`, for the source at `root_url`; raises ConfigError."""
    parts = urlsplit(root_url)
    if setting == "auto":
        setting = "planetary-computer" if parts.hostname == _PLANETARY_COMPUTER else "none"
    if setting == "none":
        return Unsigned()
    if setting == "planetary-computer":
        # Of a catalog that is not the service itself, the service is the public one.
        known = f"https://{_PLANETARY_COMPUTER}"
        service = f"{parts.scheme}://{parts.netloc}" if "/api/stac/" in parts.path else known
        return SasSigner(service + ENDPOINT)
    if setting in {"s3", "s3-requester-pays"}:
        return AwsSigner(pays=setting == "s3-requester-pays")
    return Hook(setting)
