# SPDX-License-Identifier: LGPL-2.1-or-later
"""An SR of any type that is changed call by call, and what its disks must then hold: also of a call that was not answered,
which has done all or nothing."""
import contextlib
import functools
import itertools
import os
import random

import disks
import killed
from kit import MIB
from lab import DEEP, SEED, Fault, new_uuid, type_row

GROWTH = 4 * MIB
LARGEST = 12 * MIB
PIECE = 12 * 1024
MOST = 4     # disks at a time
LONGEST = 8  # forks of a disk


def some(kinds, part="", most=None):
    """One type of each layout, or of so many, others every day; all of them when deep."""
    shuffled = random.Random(f"{SEED} {part}").sample(kinds, len(kinds))
    found = list({type_row(kind)["layout"]: kind for kind in shuffled}.values())[:most]
    return list(kinds) if DEEP else [kind for kind in kinds if kind in found]


@functools.lru_cache(64)
def noise(seed):
    return random.Random(seed).randbytes(PIECE)


class Content:
    """What a disk holds: size, and [offset, what] of all that was written: the seed of noise, or a text. form: of its image,
    as its row has it; forks: at most so many are between it and a disk that was created."""

    def __init__(self, size, form, pieces=(), read_only=False, forks=0):
        self.size, self.form, self.pieces, self.read_only, self.forks = size, form, list(pieces), read_only, forks

    def but(self, **changes):
        return Content(**{**vars(self), **changes})

    def bytes(self):
        disk = bytearray(self.size)
        for offset, what in self.pieces:
            data = what.encode() if isinstance(what, str) else noise(what)
            disk[offset:offset + len(data)] = data
        return bytes(disk)

    def torn(self, before, data):
        """Whether this was written after before, and data is so but for the last piece, of which any sectors may be
        missing."""
        if self.pieces[:-1] != before.pieces or len(data) != self.size:
            return False
        old, new = before.bytes(), self.bytes()
        return all(data[at:at + 512] in (old[at:at + 512], new[at:at + 512]) for at in range(0, self.size, 512))


class Life:
    """held: {uuid: Content} of what was acknowledged. pending: what a call that is under way may make of disks: {uuid, or ""
    for a new one: [Content, or None for absent]}. touched: disks that calls since the last settle were about. told, if there
    is one, is called whenever held or pending changed."""

    def __init__(self, test, sr, chance, told=None):
        self.test, self.sr, self.chance, self.told = test, sr, chance, told
        sr.client.timeout = 300  # for calls that may take minutes
        self.disks = disks.of(test, sr.kind)
        self.held, self.pending, self.touched = {}, {}, set()
        self.seeds = itertools.count(chance.randrange(1 << 30))
        self.calls = 0

    def begin(self):
        self.sr.made()
        if self.sr.layout == "iso":
            self.held = {vdi: Content(int(row["size"]), row["format"], [[0, row["location"]]], True)
                         for vdi, row in self.sr.contents().items()}

    @contextlib.contextmanager
    def doubt(self, pending):
        """The block makes a call that may end so; what is acknowledged, it writes into held itself."""
        self.pending = pending
        self.touched |= set(pending) - {""}
        self.tell()
        yield
        self.pending = {}
        self.calls += 1
        self.tell()

    def tell(self):
        if self.told:
            self.told(self)

    def made(self, vdi, content):
        self.held[vdi] = content
        self.touched.add(vdi)
        return vdi

    # What can be done.

    def create(self, form=None):
        form = form or self.chance.choice(self.disks.FORMATS)
        vdi, content = new_uuid(), Content(self.disks.SIZE, form)
        with self.doubt({vdi: [None, content]}):
            self.disks.create(self.sr, vdi, form)
            return self.made(vdi, content)

    def fork(self, vdi, method):
        content = self.held[vdi]
        made = content.but(form="vhd", read_only=method == "vdi_snapshot", forks=content.forks + 1)
        self.touched.add(vdi)
        with self.doubt({"": [None, made]}):
            other = self.sr(method, vdi_uuid=vdi, driver_params={})["uuid"]
            self.held[vdi] = made.but(read_only=content.read_only)
            return self.made(other, made)

    def resize(self, vdi):
        old = self.held[vdi]
        new = old.but(size=old.size + GROWTH)
        with self.doubt({vdi: [old, new]}):
            self.sr("vdi_resize", str(new.size), vdi_uuid=vdi)
            self.held[vdi] = new

    def delete(self, vdi):
        with self.doubt({vdi: [None, self.held[vdi]]}):
            self.sr("vdi_delete", vdi_uuid=vdi)
            del self.held[vdi]

    def use(self, vdi, *offsets):
        """Attached, written and released."""
        writable = not self.held[vdi].read_only
        self.touched.add(vdi)
        self.tell()  # whoever goes on after a power cut gives back what was attached
        self.sr.activated(vdi, str(writable).lower())
        if writable:
            for offset in offsets or (self.chance.randrange(0, self.held[vdi].size - PIECE, 512),):
                self.write(vdi, offset)
        self.sr.released(vdi)
        self.calls += 4

    def write(self, vdi, offset):
        old = self.held[vdi]
        new = old.but(pieces=[*old.pieces, [offset, next(self.seeds)]])
        with self.doubt({vdi: [old, new]}):
            self.disks.write(self.sr, vdi, [(offset, noise(new.pieces[-1][1]))])
            self.held[vdi] = new

    def written_over(self, vdi):
        """Forked, so that it holds nothing of its own, and written; what a reset makes of it."""
        self.delete(self.fork(vdi, "vdi_clone"))
        before = self.held[vdi]
        self.use(vdi)
        return before

    def reset(self, vdi, before=None):
        before = before or self.written_over(vdi)
        with self.doubt({vdi: [self.held[vdi], before]}):
            self.sr("vdi_epoch_begin", vdi_uuid=vdi, vdi_on_boot="reset")
            self.held[vdi] = before

    def attach(self):
        killed.patiently(self.sr, "sr_attach")

    def reattach(self):
        self.sr("sr_detach")
        self.attach()
        self.calls += 2

    def scan(self):
        self.sr("sr_scan")

    # All of it at random.

    def choices(self):
        """(act, its arguments) of what makes sense now."""
        found = [(self.create, ())] if len(self.disks_of_ours()) < MOST else []
        for vdi in self.disks_of_ours():
            found += [(self.use, (vdi,)), (self.delete, (vdi,))]
            found += [(self.resize, (vdi,))] if self.grows(vdi) else []
            found += self.forks(vdi) if self.forked(vdi) and len(self.held) < MOST else []
        return found

    def forks(self, vdi):
        found = [(self.fork, (vdi, "vdi_clone"))]
        if not self.held[vdi].read_only:
            found.append((self.fork, (vdi, "vdi_snapshot")))
            found += [(self.reset, (vdi,))] if "vdi_reset" in self.disks.offers else []
        return found

    def grows(self, vdi):
        """Whether it can, once more."""
        content = self.held[vdi]
        return "vdi_resize" in self.disks.offers and not content.read_only and content.size < LARGEST

    def forked(self, vdi):
        """Whether it can be, once more."""
        content = self.held[vdi]
        return "vdi_clone" in self.disks.offers and content.form in self.disks.FORKED and content.forks < LONGEST

    def disks_of_ours(self):
        """Those that were made, not found."""
        return sorted(vdi for vdi, content in self.held.items() if not isinstance(content.pieces[:1] and
                                                                                  content.pieces[0][1], str))

    def step(self):
        act, words = self.chance.choice(self.choices() + [(self.reattach, ()), (self.scan, ())])
        try:
            act(*words)
        except Fault as refused:
            if refused.code != 44:  # no room: then nothing has changed
                raise
            self.pending = {}
            self.tell()

    # What must be so.

    def settle(self, everything=False):
        """What is there is what was acknowledged, and of what was pending one or the other; that is certain from now on."""
        rows = self.disks.live(self.disks.consistent(self.sr))
        known = set(self.held) | set(self.pending)
        for vdi in sorted(set(rows) - known):
            self.test.assertIn("", self.pending, f"a disk that nobody asked for: {rows[vdi]}")
            self.held[vdi] = self.is_one_of(vdi, rows[vdi], self.fresh(vdi, rows[vdi]))
            del self.pending[""]
        for vdi in sorted(known - {""}):
            choices = self.pending.get(vdi, [self.held.get(vdi)])
            if everything or vdi in self.touched or vdi not in rows:
                self.held[vdi] = self.is_one_of(vdi, rows.get(vdi), choices)
                if not self.held[vdi]:
                    del self.held[vdi]
        self.pending, self.touched = {}, set()
        self.tell()

    def fresh(self, _vdi, _row):
        return self.pending[""]

    def is_one_of(self, vdi, row, choices):
        if not row:
            self.test.assertIn(None, choices, f"{vdi} is gone")
            return None
        data = self.disks.read(self.sr, vdi)
        self.test.assertEqual(int(row["size"]), len(data), f"{vdi} reads in another length than its row has")
        for content in filter(None, choices):
            if data == content.bytes() and row["read_only"] == content.read_only:
                return content.but(form=row["format"] or content.form)
        if len(choices) == 2 and all(choices) and choices[1].torn(choices[0], data):
            self.write_again(vdi, choices[1])
            return choices[1]
        return self.test.fail(f"{vdi} holds none of what it may: {row}, {[vars(one) for one in choices if one]}")

    def write_again(self, vdi, content):
        """The last piece, of which sectors are missing."""
        offset, what = content.pieces[-1]
        self.sr.activated(vdi)
        self.disks.write(self.sr, vdi, [(offset, noise(what))])
        self.sr.released(vdi)

    def release(self):
        """Whatever of the disks was in use when the daemon died. The writer of one may have died too: the next host that
        writes to it finds it mended."""
        rows = self.sr.contents()
        for vdi in sorted(self.touched & set(rows)):
            self.sr.released(vdi)
            if vdi in self.pending and not self.disks.read_only(rows[vdi]):
                self.sr.activated(vdi)
                self.sr.released(vdi)

    def end(self, read=True):
        """All disks go, and the SR. read: their bytes are looked at first."""
        if read:
            self.settle(everything=True)
        for vdi in self.disks_of_ours():
            self.delete(vdi)
        self.test.assertEqual(set(self.disks.live(self.disks.consistent(self.sr))), set(self.held))
        for vdi in sorted(self.held):
            self.delete(vdi)
        self.sr("sr_detach")
        self.sr("sr_delete")
        self.disks.gone(self.sr)


class LunLife(Life):
    """A LUN keeps what it holds when it is given back."""

    def begin(self):
        super().begin()
        self.luns = {vdi: Content(int(row["size"]), self.disks.FORMATS[0]) for vdi, row in self.sr.contents().items()}

    def tell(self):
        self.luns.update(self.held)
        super().tell()

    def fresh(self, vdi, _row):
        return [None, self.luns[vdi]]

    def create(self, form=None):
        with self.doubt({"": [None]}):
            vdi = self.disks.create(self.sr, None, form)
            return self.made(vdi, self.luns[vdi])

    def grows(self, vdi):
        """Only when its target makes it larger."""
        return False


def of(test, sr, chance, told=None):
    return (LunLife if sr.layout == "lun" else Life)(test, sr, chance, told)
