"""How long `clipsyn evaluate` said that it would take, against how long it took."""

from __future__ import annotations

import re
from collections.abc import Iterator

from processes import Ran

SETTLED = 60.0  # seconds after which an estimate should be right within a factor of two
_LEFT = re.compile(r": [\d,]+/[\d,]+, .*?([\d,]+) s left$")


def estimates(ran: Ran) -> Iterator[tuple[float, float]]:
    """(second, total seconds as estimated then), in order."""
    for second, line in ran.said:
        if found := _LEFT.search(line):
            yield second, second + float(found[1].replace(",", ""))


def over_truth(ran: Ran) -> str:
    """The first estimate over what it took, and the range of those after the first minute."""
    ratios = [(second, total / ran.wall) for second, total in estimates(ran)]
    if not ratios:
        return ""
    settled = [ratio for second, ratio in ratios if second >= SETTLED]
    later = f", then {min(settled):.2f}-{max(settled):.2f}" if settled else ""
    return f"{ratios[0][1]:.2f}{later}"
