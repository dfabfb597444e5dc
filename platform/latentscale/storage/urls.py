"""Which URLs can name a folder, found without a connection: nobody waits for a host that cannot exist."""

import re
from urllib.parse import SplitResult, urlsplit

from latentscale.errors import UserError

_WEB = ("http", "https")
_BUCKETS = {"s3": "S3", "s3a": "S3", "gs": "Google Cloud Storage", "gcs": "Google Cloud Storage"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# an IPv6 address has :: of its own
_LINKED = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::|$))")
_LONGEST = 4_096


def check_url(url: str, named: str = "") -> None:
    """Refuse a URL that no server could have.

    Args:
        url: as the user gave it.
        named: the key to put before it in the message, as ``data.path=``.

    Raises:
        UserError: naming the URL, its fault and the remedy.
    """
    if fault := _fault(url):
        raise UserError(f"{named}{url} is not a URL that can be read: {fault}")


def _fault(url: str) -> str:
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in url):
        return "remove its control characters"
    if any(0xD800 <= ord(character) < 0xE000 for character in url):
        return "write it in UTF-8; it has bytes that are not"
    if len(url) > _LONGEST:
        return f"it has {len(url):,} characters: shorten it to {_LONGEST:,}"
    # fsspec reads one URL through others: zip://FOLDER::https://HOST/FILE
    links = (_link_fault(link) for link in _LINKED.split(url) if not _SCHEME.fullmatch(link))
    return next(filter(None, links), "")


def _link_fault(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if not _SCHEME.fullmatch(scheme):
        return "write s3://, gs://, http(s):// or file:// before a host, a bucket or a path; or name a folder"
    if scheme in _BUCKETS:
        return _bucket_fault(scheme, rest)
    if scheme == "file":
        # fsspec would take the host for a folder below the current one
        return "" if rest.startswith("/") else "write three slashes before an absolute path, file:///data/photos"
    try:
        parts = urlsplit(url)
        return _host_fault(parts) if scheme.lower() in _WEB else ""
    except ValueError as error:
        return f"correct its host or port ({error})"


def _bucket_fault(kind: str, rest: str) -> str:
    bucket = rest.partition("/")[0]
    if not bucket:
        return f"write a bucket after it, {kind}://BUCKET/FOLDER"
    if "@" in bucket:
        return f"remove what stands before the @; {_BUCKETS[kind]} takes credentials from the environment or its files"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", bucket):
        return "correct the bucket, whose name has letters, digits, dots, hyphens and underscores"
    return ""


def _host_fault(parts: SplitResult) -> str:
    """The fault of a host; raises ValueError for a port that is none."""
    host = parts.hostname or ""
    _ = parts.port  # converted only when it is asked for
    if not host:
        return f"write a host after {parts.scheme}://"
    if re.search(r"[\s\\<>\"{}|^`]", parts.netloc):
        return "remove spaces and special characters from its host"
    try:
        host.removesuffix(".").encode("idna")
    except UnicodeError:
        return "correct its host, whose parts have 1 to 63 characters between dots"
    return "" if len(host) <= 253 else "correct its host, which has at most 253 characters"
