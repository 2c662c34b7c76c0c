"""Random values: from a list (Zipf's law or evenly), texts, numbers."""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from outgrow.errors import OutgrowError
from outgrow.load.profile import Draw

TEXT = (
    "about after again answer balance because before between bright carry change city clear coast deep "
    "early earth engine evening field first forest garden green harbour history house island journey "
    "kitchen lantern large letter light market meadow measure morning mountain music narrow never night "
    "notebook ocean often orchard paper people quiet rain reason river road school season second shadow "
    "silver simple slow small south spring station stone story summer table thread today tower travel "
    "under valley village voice water weather window winter woods yellow"
)
WORDS = TEXT.split()


def source(draw: Draw, rng: random.Random, lists: Mapping[str, Sequence[Any]]) -> Callable[[], Any]:
    """A function that draws one value a call. Raises OutgrowError when the list is empty."""
    if draw.words is not None:
        count = draw.words
        return lambda: " ".join(rng.choices(WORDS, k=count))
    if draw.between is not None:
        least, most = draw.between
        return lambda: rng.randint(least, most)
    values = lists.get(draw.from_, ()) if isinstance(draw.from_, str) else draw.from_ or ()
    if not values:
        raise OutgrowError(
            f'the list "{draw.from_}" is empty after the set-up requests',
            hint="fill the application with data first: `outgrow seed`",
        )
    if draw.zipf is None:
        return lambda: rng.choice(values)
    sums = list(itertools.accumulate((rank + 1) ** -draw.zipf for rank in range(len(values))))
    return lambda: values[min(bisect(sums, rng.random() * sums[-1]), len(values) - 1)]
