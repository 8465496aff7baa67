"""Reads what a set of keys holds: the log page by page, all of it or about a stretch of time.

Ids of decisions lie in a stream, in the order of storing. Times are nearly in that order, but an
import, or a server whose clock is wrong, stores any time at any moment. So the stream is taken as
blocks of a thousand entries, and a hash keeps for each block where it begins, how many of its times
were noted, and the earliest and the latest of them. A reader leaves out the blocks that are
elsewhere in time, which is right for any times, and costs a tenth of a byte for each decision; a
sorted set of all decisions would cost more than a hundred.

A block that was not noted as a whole, by a version of this library that noted nothing, is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..base import DecisionWrite
from ..settle import StoredReward
from .client import RedisClient, Request
from .records import TimesOfBlock, ids_in, pairs, read_decision, read_reward, read_times

PAGE = 500
"""Decisions that are read, or replaced, at a time."""
BLOCK = 1000
"""Entries of the log whose times are kept together; ``commit.lua`` has this number too."""

Place = tuple[int, int]
"""Where an entry is in the log: milliseconds of the server's clock, and a number."""
START: Place = (0, 0)


class Keys(NamedTuple):
    """The keys of an installation, or of one of its bandits; the order is that of the script."""

    counts: str
    decisions: str
    rewards: str
    links: str
    waiting: str
    adjustments: str
    log: str
    times: str
    arrays: str

    @classmethod
    def of(cls, tag: str) -> Keys:
        """Return the keys with a hash tag, which keeps them on one node of a cluster."""
        return cls(*(f"{{{tag}}}:{name}" for name in cls._fields))

    def beside(self, name: str) -> str:
        """Return a key on the same node that no commit uses."""
        return self.counts.removesuffix("counts") + name


class Span(NamedTuple):
    """A stretch of time; ``None`` is without limit."""

    since: float | None = None
    until: float | None = None

    def holds(self, at: float) -> bool:
        """Tell whether a time is in it."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def meets(self, times: TimesOfBlock) -> bool:
        """Tell whether a block may hold a decision of this time."""
        # As floats, which is how the script compared them.
        return not (
            (self.since is not None and times.most < float(self.since))
            or (self.until is not None and times.least >= float(self.until))
        )


ALWAYS = Span()


class Log:
    """What was stored below a set of keys, as far as the log went when this was made."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self.keys = keys
        last = self._ask("XREVRANGE", keys.log, "+", "-", "COUNT", 1)
        self._end = _place(last[0][0]) if last else None

    def entries(
        self, bandit: str | None, span: Span
    ) -> Iterator[tuple[int, DecisionWrite, list[StoredReward]]]:
        """Yield milliseconds of storing, decisions and their rewards, in the order of storing."""
        keys = self.keys
        for page in self.pages(span):
            ids = [id_ for _, id_ in page]
            texts, links = self._client.call_all(
                [
                    Request(keys.counts, ("HMGET", keys.decisions, *ids)),
                    Request(keys.counts, ("HMGET", keys.links, *ids)),
                ],
                None,
            )
            writes = [read_decision(id_, text) for id_, text in zip(ids, texts, strict=True)]
            chosen = [
                (moment, write, ids_in(link))
                for (moment, _), write, link in zip(page, writes, links, strict=True)
                if bandit in (None, write.decision.bandit) and span.holds(write.decision.at)
            ]
            given = [id_ for *_, ids in chosen for id_ in ids]
            rows = rewards_of(self._client, keys, given)
            for moment, write, ids in chosen:
                yield moment, write, [next(rows) for _ in ids]

    def pages(self, span: Span = ALWAYS) -> Iterator[list[tuple[int, str]]]:
        """Yield milliseconds and ids of all decisions of a time, and of others stored near them."""
        for start, end in self._parts(span):
            first = start
            while entries := self._range(first, end):
                places = [_place(entry[0]) for entry in entries]
                yield [
                    (moment, entry[1][1].decode())
                    for (moment, _), entry in zip(places, entries, strict=True)
                ]
                first = places[-1][0], places[-1][1] + 1

    def _parts(self, span: Span) -> list[tuple[Place, Place]]:
        """Return the parts of the log to read, by their first and last places."""
        if self._end is None:
            return []
        if span == ALWAYS:
            return [(START, self._end)]
        blocks = read_times(self._ask("HGETALL", self.keys.times))
        # After the times: what came between is missing in them, and makes its block incomplete.
        length = self._ask("XLEN", self.keys.log)
        begun = [number for number, block in sorted(blocks.items()) if block.first]
        borders = [(START, 0 not in begun)]
        for number in begun:
            # Where the next one begins is known, unless this is the last.
            alone = number + 1 in begun or (number + 1) * BLOCK >= length
            whole = blocks[number].noted == min(BLOCK, length - number * BLOCK)
            wanted = not (alone and whole) or span.meets(blocks[number])
            borders.append((_place(blocks[number].first), wanted))
        parts: list[tuple[Place, Place]] = []
        ends = [start for start, _ in borders[1:]]
        for (start, wanted), end in zip(borders, [*map(_before, ends), self._end], strict=True):
            if wanted and parts and _before(start) == parts[-1][1]:
                parts[-1] = parts[-1][0], end
            elif wanted:
                parts.append((start, end))
        return [(start, min(end, self._end)) for start, end in parts]

    def _range(self, first: Place, last: Place) -> list[Any]:
        if first > last:
            return []
        ends = [f"{moment}-{number}" for moment, number in (first, last)]
        entries: list[Any] = self._ask("XRANGE", self.keys.log, *ends, "COUNT", PAGE)
        return entries

    def _ask(self, *arguments: str | int) -> Any:
        return self._client.call(Request(self.keys.counts, arguments), None)


def rewards_of(client: RedisClient, keys: Keys, ids: Sequence[str]) -> Iterator[StoredReward]:
    """Yield rewards by their ids, page by page."""
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        texts = client.call(Request(keys.counts, ("HMGET", keys.rewards, *page)), None)
        for id_, text in zip(page, texts, strict=True):
            yield read_reward(id_, text)[1]


def orphans(client: RedisClient, keys: Keys) -> list[str]:
    """Return the ids of rewards whose decision is not there, in the order of their arrival."""

    def ask(*arguments: str) -> Any:
        return client.call(Request(keys.counts, arguments), None)

    waiting = dict(pairs(ask("HGETALL", keys.waiting)))
    if not waiting:
        return []
    texts = ask("HMGET", keys.decisions, *(id_.decode() for id_ in waiting))
    ids = [
        id_
        for (_, waits), text in zip(waiting.items(), texts, strict=True)
        if text is None
        for id_ in ids_in(waits)
    ]
    if not ids:
        return []
    rewards = ask("HMGET", keys.rewards, *ids)
    numbers = {id_: read_reward(id_, text)[0] for id_, text in zip(ids, rewards, strict=True)}
    return sorted(ids, key=numbers.__getitem__)


def _place(text: bytes) -> Place:
    moment, number = text.split(b"-")
    return int(moment), int(number)


def _before(place: Place) -> Place:
    """Return the last place before another."""
    moment, number = place
    return (moment, number - 1) if number else (moment - 1, 2**64 - 1)
