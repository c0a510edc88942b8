# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written into a disk of any type is what it holds: through forks, growth, another attach, a restart of the daemon, and
copies into SRs of other types. Read by plain programs alone (disks.py)."""
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import kit  # noqa: E402
import life  # noqa: E402
from kit import MIB, sh  # noqa: E402
from lab import EVERY_DAY, KINDS, Fault, Lab, deep, new_uuid, type_row  # noqa: E402

BLOCK = 2 * MIB  # of a VHD


class Contents(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        kit.initiator()
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start()

    def begun(self, kinds):
        """An SR of each type, attached; and what the host held before."""
        lives = [life.of(self, self.lab.repository(kind), random.Random(kind)) for kind in kinds]
        before = kit.held()
        for one in lives:
            one.begin()
        return before, lives

    def ended(self, before, lives):
        self.each(lives, lambda one: one.end(read=False))
        kit.settle()
        self.assertEqual(kit.left(before), [])

    def each(self, lives, do):
        for one in lives:
            with self.subTest(type=one.sr.kind):
                do(one)

    def test_every_disk_holds_what_was_written(self):
        before, lives = self.begun(life.some(KINDS, most=2))
        self.each(lives, self.written_and_forked)
        self.lab.restart()
        self.each(lives, self.read_again)
        self.copied(lives)
        self.ended(before, lives)

    def written_and_forked(self, one):
        """At both ends, over the seam of two blocks, and beneath and above forks."""
        for form in one.disks.FORMATS if EVERY_DAY else (one.disks.FORMATS[life.SEED % len(one.disks.FORMATS)],):
            vdi = one.create(form)
            last = one.held[vdi].size - life.PIECE
            one.use(vdi, 0, BLOCK - 512, last)
            if one.forked(vdi):
                self.forked(one, vdi)
            elif "vdi_clone" in one.disks.offers:
                with self.assertRaises(Fault) as refused:
                    one.fork(vdi, "vdi_snapshot")
                self.assertEqual(refused.exception.code, 38)
                one.pending = {}
            if one.grows(vdi):
                one.resize(vdi)
                one.use(vdi, last + 4096, one.held[vdi].size - life.PIECE)

    @staticmethod
    def forked(one, vdi):
        one.fork(vdi, "vdi_snapshot")
        one.use(vdi, 512, BLOCK)
        one.use(one.fork(vdi, "vdi_clone"), BLOCK - life.PIECE)
        one.use(vdi, BLOCK - 1024)
        one.reset(vdi)

    def read_again(self, one):
        """All of it, by another attach of a daemon that was started again."""
        one.reattach()
        one.settle(everything=True)

    def copied(self, lives):
        """From each type into the next, as a disk is moved: from the path of one attached disk to that of another."""
        sources = [self.plain(one) for one in lives]
        for one, source, other in zip(lives, sources, lives[1:] + lives[:1]):
            with self.subTest(source=one.sr.kind, target=other.sr.kind):
                target = other.create({"lun": "lun", "iso": "img"}.get(other.sr.layout, "raw"))
                paths = [self.attached(one, source, "false"), self.attached(other, target, "true")]
                sh("dd", f"if={paths[0]}", f"of={paths[1]}", "bs=64k", "conv=notrunc,fsync", "count=64")
                one.sr.released(source)
                other.sr.released(target)
                self.assertEqual(other.disks.read(other.sr, target)[:4 * MIB], one.held[source].bytes()[:4 * MIB])

    @staticmethod
    def attached(one, vdi, writable):
        path = one.sr("vdi_attach", writable, vdi_uuid=vdi)["params"]
        one.sr("vdi_activate", writable, vdi_uuid=vdi)
        return path

    @staticmethod
    def plain(one):
        """A disk whose bytes are those of its path."""
        rows = one.sr.contents()
        found = [vdi for vdi in one.disks_of_ours() if rows[vdi]["format"] == "raw" and not rows[vdi]["parent"]]
        if found:
            return found[0]
        vdi = one.create({"lun": "lun", "iso": "img"}.get(one.sr.layout, "raw"))
        one.use(vdi)
        return vdi

    @deep
    def test_an_image_that_is_carried_into_another_sr_is_introduced_there(self):
        before, lives = self.begun([kind for kind in KINDS if type_row(kind)["layout"] in ("file", "lvm")])
        self.each(lives, self.carried)
        self.ended(before, lives)

    def carried(self, one):
        other = life.of(self, self.lab.repository(one.sr.kind), one.chance)
        other.begin()
        for form in one.disks.FORMATS:
            vdi, new = one.create(form), new_uuid()
            one.use(vdi, 0, BLOCK - 512)
            one.disks.carry(one.sr, vdi, other.sr, new)
            info = other.sr("vdi_introduce", vdi_location=new, new_uuid=new, vdi_sm_config={})
            self.assertEqual(info["uuid"], new)
            other.held[new] = one.held[vdi].but()
        other.settle(everything=True)
        other.end(read=False)


if __name__ == "__main__":
    unittest.main()
