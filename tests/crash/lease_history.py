# SPDX-License-Identifier: LGPL-2.1-or-later
"""Judges a history of leases: what many hosts asked and were told, and when, against what the server says it committed,
in which order, and against what a lease is.

Three judges that share nothing but Rows, what a lease is:
  witness(ops, events)  the server's own order, its audit trail, explains every answer
  search(ops)           some order does, found without asking the server (Wing, Gong, Lowe)
  disk_order(ops, logs) no write of an older epoch was taken after one of a newer
Each returns a list of sentences, empty when there is nothing to say.
"""
import bisect
import collections
import heapq

FOREVER = 1 << 62
OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"
IN_USE, TOO_LATE = 24, 37


class Op:
    """One call. begin and end: moments of one clock, end is when its answer came; of an UNKNOWN one, when the server that
    may have had it was dead. result: the epoch of an activation, the rows {holder: (mode, epoch)} of a reading, or the
    code of a refusal."""

    __slots__ = ("begin", "end", "who", "what", "vdi", "mode", "epoch", "outcome", "result")

    def __init__(self, begin, end, who, what, vdi, outcome, result=None, mode=None, epoch=None):
        self.begin, self.end, self.who, self.what, self.vdi = begin, end, who, what, vdi
        self.mode, self.epoch, self.outcome, self.result = mode, epoch, outcome, result

    def __str__(self):
        words = [self.who, self.what, self.mode, self.epoch, "of", self.vdi, "->", self.outcome, self.result,
                 f"({self.begin}..{self.end})"]
        return " ".join(str(word) for word in words if word is not None)


# One line of the audit trail, in its order: what is take, or end with why (release, drop, broken).
Event = collections.namedtuple("Event", "seq who what why vdi mode epoch")


class Rows:
    """The leases of one disk, and the newest epoch ever given. Values, compared and hashed as such. An epoch that nobody
    was told yet is a negative number: newer than its opposite."""

    __slots__ = ("held", "newest")

    def __init__(self, held=(), newest=0):
        self.held, self.newest = held, newest

    def key(self):
        return self.held, self.newest

    def of(self, who):
        return next((row for row in self.held if row[0] == who), None)

    def without(self, row):
        return Rows(tuple(r for r in self.held if r is not row), self.newest)

    def having(self, who, mode, epoch):
        return Rows(tuple(sorted(self.held + ((who, mode, epoch),))), max(self.newest, epoch))

    def hindered(self, who, mode):
        return any(r[0] != who and "rw" in (mode, r[1]) for r in self.held)


def fits(known, told):
    """Whether the epoch of a row may be the one that is told."""
    return told == known if known > 0 else told > -known


def bound(rows, row, epoch):
    """The rows when row turns out to have this epoch."""
    if row[2] > 0:
        return rows
    return rows.without(row).having(row[0], row[1], epoch)


def activated(rows, op):
    row = rows.of(op.who)
    if op.outcome == REFUSED:
        if op.result != IN_USE:
            return rows
        return rows if rows.hindered(op.who, op.mode) or (row and row[1] != op.mode) else None
    if op.outcome == OK:
        if row:
            return bound(rows, row, op.result) if row[1] == op.mode and fits(row[2], op.result) else None
        if rows.hindered(op.who, op.mode) or op.result <= rows.newest:
            return None
        return rows.having(op.who, op.mode, op.result)
    if row or rows.hindered(op.who, op.mode):
        return rows
    return rows.having(op.who, op.mode, -rows.newest)


def deactivated(rows, op):
    row = rows.of(op.who)
    if op.outcome == REFUSED or not row:
        return rows
    if op.epoch is not None and not fits(row[2], op.epoch):
        return rows
    return rows.without(row)


def broken(rows, op):
    """A break names an epoch; it succeeds only when there is such a lease."""
    row = next((r for r in rows.held if fits(r[2], op.epoch)), None)
    if op.outcome == OK:
        return rows.without(row) if row else None
    return rows if op.outcome == REFUSED or not row else rows.without(row)


def listed(rows, op):
    if op.outcome != OK:
        return rows
    if {r[0]: r[1] for r in rows.held} != {who: mode for who, (mode, _) in op.result.items()}:
        return None
    for row in rows.held:
        epoch = op.result[row[0]][1]
        if not fits(row[2], epoch):
            return None
        rows = bound(rows, row, epoch)
    return rows


def written(rows, op):
    """A write that is taken carries the newest epoch ever given of the disk: who has an older one is fenced. The holder of
    that one is not refused."""
    if op.outcome == OK:
        return rows if op.epoch >= rows.newest else None
    kept_out = op.result == TOO_LATE and any(r[2] == op.epoch and r[1] == "rw" for r in rows.held)
    return None if kept_out and op.epoch == rows.newest else rows


STEPS = {"activate": activated, "deactivate": deactivated, "break": broken, "list": listed, "write": written}


def step(rows, op):
    """The rows after op, or None when op cannot have been answered so."""
    return STEPS[op.what](rows, op)


# ------------------------------------------------------------------ some order, without asking the server

def settled(op):
    """Whether an op that changes nothing where it stands may as well be put there at once: it changes nothing anywhere."""
    return op.outcome != UNKNOWN and (op.what in ("list", "write") or op.outcome == REFUSED)


class Ways:
    """Configurations: rows, which pending calls have taken effect (a bit each) and, apart, which of those that were never
    answered. Of two that differ in the latter only, the one that used fewer can become whatever the other can."""

    LIMIT = 200000  # more at a time is no verdict

    def __init__(self):
        self.best = {}  # (rows' key, done) -> [(rows, done, used)]
        self.count = 0

    def add(self, rows, done, used):
        """False when another is as good."""
        some = self.best.setdefault((*rows.key(), done), [])
        if any(other & used == other for _, _, other in some):
            return False
        self.count += 1
        if self.count > self.LIMIT:
            raise OverflowError("too many ways to order what was done to a disk")
        some[:] = [way for way in some if way[2] & used != used]
        some.append((rows, done, used))
        return True

    def all(self):
        return [way for some in self.best.values() for way in some]


class Searcher:
    """All the ways one disk can have come to be as it is. A call must have taken effect when its answer comes."""

    def __init__(self):
        self.pending = {}  # bit -> call
        self.bits = {}
        self.ways = [(Rows(), 0, 0)]

    def settle(self, rows, done):
        """Adds to done every pending call that could take effect there and changes nothing."""
        for bit, op in self.pending.items():
            if not done & bit and settled(op):
                after = step(rows, op)
                if after is not None and after.key() == rows.key():
                    done |= bit
        return done

    def begin(self, op):
        bit = 1
        while bit in self.pending:
            bit <<= 1
        self.pending[bit] = op
        self.bits[id(op)] = bit
        if settled(op):
            self.ways = [(rows, self.settle(rows, done), used) for rows, done, used in self.ways]

    def after(self, way, bit):
        """The way with this call taking effect next, or None."""
        rows, done, used = way
        op = self.pending[bit]
        after = step(rows, op)
        if after is None:
            return None
        if op.outcome == UNKNOWN:
            return None if after.key() == rows.key() else (after, self.settle(after, done), used | bit)
        return after, self.settle(after, done | bit), used

    def end(self, op):
        """False when there is no way that op was answered so."""
        bit = self.bits.pop(id(op))
        ways = self.having(bit) + (self.ways if op.outcome == UNKNOWN else [])
        del self.pending[bit]
        kept = Ways()
        for rows, done, used in ways:
            kept.add(rows, done & ~bit, used & ~bit)
        self.ways = kept.all()
        return bool(self.ways)

    def having(self, bit):
        """The ways in which the call of this bit has taken effect, after whatever else could before it."""
        seen, kept, todo = Ways(), [], []
        for way in self.ways:
            if seen.add(*way):
                todo.append(way)
        while todo:
            way = todo.pop()
            if (way[1] | way[2]) & bit:
                kept.append(way)
                continue
            for other in self.pending:
                if not (way[1] | way[2]) & other:
                    after = self.after(way, other)
                    if after and seen.add(*after):
                        todo.append(after)
        return kept


def search_disk(vdi, ops):
    """A sentence about the first call that no order explains, or None."""
    moments = sorted([(op.begin, 0, n) for n, op in enumerate(ops)] + [(op.end, 1, n) for n, op in enumerate(ops)])
    searcher, past = Searcher(), collections.deque(maxlen=12)
    for _, is_end, n in moments:
        op = ops[n]
        if not is_end:
            searcher.begin(op)
        elif not searcher.end(op):
            before = "\n    ".join(str(o) for o in past)
            return f"no order explains\n    {op}\n  after\n    {before}"
        else:
            past.append(op)
    return None


def by_disk(ops):
    disks = collections.defaultdict(list)
    for op in ops:
        disks[op.vdi].append(op)
    return disks


def search(ops, spared=0):
    """spared: so many disks may be too much for it, which it tells; they are left to the other judges."""
    found = []
    for vdi, some in by_disk(ops).items():
        try:
            found.append(search_disk(vdi, some))
        except OverflowError as much:
            if not spared:
                raise
            spared -= 1
            print(f"{vdi}, {len(some)} calls, is not searched: {much}", flush=True)
    return [sentence for sentence in found if sentence]


# ------------------------------------------------------------------ the server's own order

class Trail:
    """The audit trail: for each disk the positions in it at which its rows changed, and the rows after each."""

    def __init__(self, events):
        self.events = events
        self.wrong = []
        self.changes = collections.defaultdict(lambda: ([-1], [Rows()]))
        self.taken, self.broken = {}, {}  # epoch -> position
        newest = 0
        for at, event in enumerate(events):
            rows = self.changes[event.vdi][1][-1]
            if event.what == "take":
                if event.epoch <= newest:
                    self.wrong.append(f"epoch {event.epoch} was given after {newest}: {event}")
                if rows.of(event.who) or rows.hindered(event.who, event.mode):
                    self.wrong.append(f"given although {rows.held} were held: {event}")
                newest = max(newest, event.epoch)
                self.taken[event.epoch] = at
                rows = rows.having(event.who, event.mode, event.epoch)
            else:
                if event.why == "broken":
                    self.broken[event.epoch] = at
                row = rows.of(event.who)
                if not row or row[1:] != (event.mode, event.epoch):
                    self.wrong.append(f"ended although {rows.held} were held: {event}")
                else:
                    rows = rows.without(row)
            positions, states = self.changes[event.vdi]
            positions.append(at)
            states.append(rows)

    def first(self, vdi, floor, legal):
        """The first position from floor on at which the disk's rows are legal, or None."""
        positions, states = self.changes[vdi]
        n = bisect.bisect_right(positions, floor) - 1
        for at, rows in zip(positions[n:], states[n:]):
            if legal(rows):
                return max(at, floor)
        return None

    def rows(self):
        """What is held at its end: {(vdi, who): (mode, epoch)}."""
        return {(vdi, r[0]): r[1:] for vdi, (_, states) in self.changes.items() for r in states[-1].held}


def answers(op):
    """What the rows must be for an op that was answered so; None when they may be anything."""
    if op.outcome == UNKNOWN or (op.outcome == REFUSED and op.what in ("deactivate", "break")):
        return None
    if op.what == "activate" and op.outcome == OK:
        return lambda rows: (op.who, op.mode, op.result) in rows.held
    if op.what == "deactivate":
        if op.epoch is not None:
            return lambda rows: (rows.of(op.who) or (0, 0, 0))[2] != op.epoch
        return lambda rows: not rows.of(op.who)
    return lambda rows: step(rows, op) is not None


class Witness:
    def __init__(self, ops, events):
        self.ops, self.trail = sorted(ops, key=lambda op: op.begin), Trail(events)
        self.wrong = self.trail.wrong
        self.unknown = collections.Counter()  # calls that may explain an event, by who, what and disk
        self.asked = collections.defaultdict(list)  # (who, vdi, mode) -> moments at which an unknown activation began
        self.firsts = []  # (minus the moment, position), moments falling
        self.releases = collections.defaultdict(list)  # (who, vdi) -> (latest, earliest, epoch) of answered releases
        self.placed = collections.defaultdict(list)  # position -> calls that stand there
        for op in ops:
            if op.outcome == UNKNOWN:
                self.unknown[op.who if op.what != "break" else op.epoch, op.what, op.vdi] += 1
                if op.what == "activate":
                    self.asked[op.who, op.vdi, op.mode].append(op.begin)

    def place(self, op, floor):
        """Where op stands at the earliest, when all that ended before it began stands at floor or before; None when it
        cannot stand."""
        if op.what == "break" and op.outcome == OK:
            at = self.trail.broken.get(op.epoch)
            return None if at is None else max(at, floor)
        legal = answers(op)
        if not legal:
            return floor
        at = self.trail.first(op.vdi, floor, legal)
        if at is not None and op.what == "activate" and op.outcome == OK:
            if not floor < self.trail.taken[op.result] == at and not self.had_before(op):
                return None
        return at

    def had_before(self, op):
        """Whether another call of its can have got the lease, before this one was answered."""
        return any(begin < op.end for begin in self.asked[op.who, op.vdi, op.mode]) or any(
            o is not op for o in self.got[op.result])

    def run(self):
        self.got = collections.defaultdict(list)
        for op in self.ops:
            if op.what == "activate" and op.outcome == OK:
                self.got[op.result].append(op)
        self.count_takes()
        ended, floor = [], -1
        for n, op in enumerate(self.ops):
            while ended and ended[0][0] < op.begin:
                floor = max(floor, heapq.heappop(ended)[2])
            at = self.place(op, floor)
            if at is None:
                self.wrong.append(f"the audit trail does not explain {op} (after {self.trail.events[max(floor, 0)]})"
                                  if self.trail.events else f"the audit trail is empty and does not explain {op}")
                continue
            self.placed[at].append(op)
            if op.what == "deactivate" and op.outcome == OK:
                self.releases[op.who, op.vdi].append((self.latest(op), at, op.epoch))
            if op.outcome != UNKNOWN:
                heapq.heappush(ended, (op.end, n, at))
        self.explain()
        return self.wrong

    def count_takes(self):
        """The first position of a take whose one asker began after a moment: nothing that had ended by then is behind it."""
        first = FOREVER
        for op in reversed(self.ops):
            if op.what == "activate" and op.outcome == OK and op.result in self.trail.taken and not self.had_before(op):
                first = min(first, self.trail.taken[op.result])
                self.firsts.append((-op.begin, first))

    def latest(self, op):
        """Where op may stand at the latest."""
        n = bisect.bisect_left(self.firsts, (-op.end,)) - 1
        return self.firsts[n][1] - 1 if n >= 0 else FOREVER

    def let_go(self, event, at):
        """Whether a release that was answered may have been this one. It may stand later than at the earliest place."""
        some = self.releases[event.who, event.vdi]
        fit = min((way for way in some if way[1] <= at <= way[0] and way[2] in (None, event.epoch)), default=None,
                  key=lambda way: way[:2])
        if fit:
            some.remove(fit)
        return bool(fit)

    def explain(self):
        """Every line of the trail was asked for by someone."""
        causes = {"take": "activate", "release": "deactivate", "broken": "break"}
        for at, event in enumerate(self.trail.events):
            what = causes.get(event.what if event.what == "take" else event.why)
            if not what:
                continue
            who = event.epoch if what == "break" else event.who
            if what == "deactivate" and self.let_go(event, at):
                continue
            if any(op.what == what == "break" and who == op.epoch and op.outcome == OK for op in self.placed[at]):
                continue
            if what == "activate" and self.got[event.epoch]:
                continue
            if self.unknown[who, what, event.vdi] > 0:
                self.unknown[who, what, event.vdi] -= 1
            else:
                self.wrong.append(f"nobody asked for {event}")


def witness(ops, events):
    return Witness(ops, events).run()


# ------------------------------------------------------------------ what the disks took

def disk_order(ops, logs=()):
    """logs: (vdi, [(epoch, data)]) as a disk told it in one life of the server."""
    wrong = []
    for vdi, log in logs:
        for before, after in zip(log, log[1:]):
            if after[0] < before[0]:
                wrong.append(f"disk {vdi} took {after} after {before}")
    for vdi, some in by_disk(op for op in ops if op.what == "write" and op.outcome == OK).items():
        ended, newest = [], None
        for n, op in enumerate(sorted(some, key=lambda op: op.begin)):
            while ended and ended[0][0] < op.begin:
                last = heapq.heappop(ended)[2]
                newest = last if newest is None or last.epoch > newest.epoch else newest
            if newest and op.epoch < newest.epoch:
                wrong.append(f"disk {vdi} took\n    {op}\n  after\n    {newest}")
            heapq.heappush(ended, (op.end, n, op))
    return wrong
