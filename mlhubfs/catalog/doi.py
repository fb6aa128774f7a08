"""DOIs as people write them: `10.34911/rdnt.d2ce8i`, behind `doi:`, or as a URL.

Pure functions.
"""

import re

_DOI = re.compile(r"(https?://(dx\.)?doi\.org/|doi:)?(?=10\.\d+/)")


def is_doi(text: str) -> bool:
    """Say whether a text is a DOI, and neither an id nor a path."""
    return _DOI.match(text) is not None


def bare(doi: str) -> str:
    """Return a DOI without what people write before it."""
    return _DOI.sub("", doi, count=1)
