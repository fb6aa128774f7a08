"""Eight processes read random ranges through a mount while its storage fails at random.

`python scripts/soak.py` does the same for ten minutes, and plays with the cache folder meanwhile.
"""

import mounted as mounts
import pytest
from storm import ALLOWED, FAULTS, STORMY, WARNED, Outcome, Storm

SECONDS = 3
READERS = 8


@pytest.mark.promise(
    "A read gives the right bytes or an error, never wrong bytes, and never waits beyond `timeout`."
)
def test_no_wrong_byte(mounted, binding):
    """Whatever the storage does, a read gives the right bytes or one of four errnos.

    503, 429, resets, bodies cut short, stalls and lies are a third of the answers. The cache is so
    small that blocks are evicted, read back and fetched again all the time.
    """
    with (
        Storm(seed=2026) as storm,
        mounted(storm.source, STORMY, binding=binding, allow=WARNED) as mount,
    ):
        readers = storm.readers(mount.path, count=READERS, seconds=SECONDS)
        outcome = Outcome.of(readers, timeout=SECONDS + mounts.SECONDS)
        seen = dict(storm.weather.seen)
        storm.calm(mount.path)
    assert outcome.wrong == []
    assert outcome.errors.keys() <= ALLOWED
    assert outcome.reads > READERS * SECONDS, "the storm let hardly anything through"
    assert sum(seen.values()) > seen["none"] > 0
    assert set(FAULTS) <= set(seen)
