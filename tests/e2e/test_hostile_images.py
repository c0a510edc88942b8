# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that are broken or lie, among good ones: each is told as damaged with its reason, the rest is served, a scan
succeeds, and nothing outside the SR is ever opened."""
import os
import random
import shutil
import stat
import struct
import unittest

import vhd
from lab import MIB, Fault, LabTest, new_uuid, rounds
from trees import holds, image_read, write_pieces
from watch import Watch

SEED = int(os.environ.get("SMAPI_SEED") or 20100902)


def patched(data, at, new, seal):
    """Bytes replaced, in a structure at start whose checksum is made right again: seal is (start, length, where)."""
    data = bytearray(data)
    data[at:at + len(new)] = new
    if seal:
        start, length, where = seal
        data[start:start + length] = vhd.sealed(data[start:start + length], where)
    return bytes(data)


HEADER = (512, 1024, 36)


class HostileTest(LabTest):
    def setUp(self):
        self.sr = self.lab.repository("file").made()
        self.content = os.urandom(8192)
        self.good = [self.save(vhd.Maker(4 * MIB).write(MIB, self.content)) for _ in range(3)]
        self.canary = os.path.join(self.lab.dir, new_uuid() + ".vhd")
        shutil.copyfile(self.path(self.good[0]), self.canary)

    def path(self, vdi, suffix=".vhd"):
        return os.path.join(self.sr.location, vdi + suffix)

    def save(self, maker):
        return maker.save(self.sr.location).uuid

    def plant(self, data):
        vdi = new_uuid()
        with open(self.path(vdi), "wb") as image:
            image.write(data)
        return vdi

    def scanned(self):
        """Scans with an eye on the canary; the rows."""
        watch = Watch(self.canary)
        try:
            self.sr("sr_scan")
            rows = self.sr.contents()
            for vdi, row in rows.items():
                self.ask(vdi, row)
            self.assertFalse(watch.opened(), "a file outside the SR was opened")
        finally:
            watch.close()
        self.assertTrue(self.lab.alive(), self.lab.log())
        for vdi in self.good:
            self.assertEqual((rows[vdi]["state"], rows[vdi]["damage"]), ("live", ""))
        return rows

    def ask(self, vdi, row):
        """Damaged disks answer with faults."""
        if row["state"] != "damaged":
            return
        for method, *args in (["vdi_attach", "true"], ["vdi_snapshot"], ["vdi_clone"], ["vdi_resize", str(64 * MIB)]):
            with self.subTest(method=method, damage=row["damage"]), self.assertRaises(Fault):
                self.sr(method, *args, vdi_uuid=vdi)

    def damaged(self, *vdis):
        rows = self.scanned()
        for vdi in vdis:
            self.assertEqual(rows[vdi]["state"], "damaged", vdi)
            self.assertNotEqual(rows[vdi]["damage"], "")
            with self.assertRaises(AssertionError):
                image_read(self.sr.location, vdi, os.path.join(self.lab.dir, "read"))
        self.served()
        return rows

    def served(self):
        """The good ones can be worked with, and read."""
        for vdi in self.good:
            self.assertEqual(vhd.read(self.sr.location, vdi)[MIB:MIB + len(self.content)], self.content)
            self.sr("vdi_attach", "true", vdi_uuid=vdi)
            self.sr.released(vdi)
        made = self.sr("vdi_snapshot", vdi_uuid=self.good[0], driver_params={})["uuid"]
        self.sr("vdi_delete", vdi_uuid=made)


class Broken(HostileTest):
    def test_truncated_images(self):
        whole = vhd.Maker(4 * MIB).write(0, b"x" * 512).bytes()
        self.damaged(*(self.plant(whole[:length]) for length in (0, 1, 511, 512, 1024, 1536, 2048, 2560, 4096)))

    def test_an_image_cut_off_after_the_last_that_was_written_is_whole(self):
        """A writer that was killed leaves such."""
        whole = vhd.Maker(4 * MIB).write(0, b"x" * 512).bytes()
        for length in (len(whole) - 512, MIB):
            vdi, read = self.plant(whole[:length]), os.path.join(self.lab.dir, "read")
            row = self.scanned()[vdi]
            self.assertEqual((row["state"], int(row["size"])), ("live", 4 * MIB), row["damage"])
            image_read(self.sr.location, vdi, read)
            self.assertTrue(holds(read, b"x" * 512 + bytes(4 * MIB - 512)))

    def test_lying_headers(self):
        good = vhd.Maker(4 * MIB).write(0, b"x" * 512).bytes()
        lies = {"entries": (512 + 28, struct.pack(">I", 0xFFFFFFFF)), "no entries": (512 + 28, bytes(4)),
                "block size 0": (512 + 32, bytes(4)), "block size 3": (512 + 32, struct.pack(">I", 3)),
                "huge blocks": (512 + 32, struct.pack(">I", 1 << 31)),
                "table beyond the end": (512 + 16, struct.pack(">Q", 1 << 40)),
                "table over the header": (512 + 16, struct.pack(">Q", 512)),
                "table at the end of numbers": (512 + 16, struct.pack(">Q", (1 << 64) - 512))}
        self.damaged(*(self.plant(patched(good, at, new, HEADER)) for at, new in lies.values()))

    def test_blocks_that_are_elsewhere(self):
        """Beyond the end, over the metadata and over each other: nobody writes to such a disk."""
        good = vhd.Maker(4 * MIB).write(0, b"x" * 512).write(2 * MIB, b"y" * 512).bytes()
        for entry in (0x7FFFFFFF, 0, 1, 3, struct.unpack_from(">I", good, 1540)[0]):
            vdi = self.plant(patched(good, 1536, struct.pack(">I", entry), None))
            self.scanned()
            with self.subTest(entry=entry), self.assertRaises(AssertionError):
                write_pieces(self.sr, vdi, [(0, bytes(512))])
            with open(self.path(vdi), "rb") as image:
                self.assertEqual(image.read(), patched(good, 1536, struct.pack(">I", entry), None))

    def test_any_flipped_bit_is_found_or_harmless(self):
        good = vhd.Maker(4 * MIB).write(0, b"x" * 512).bytes()
        chance, metadata = random.Random(SEED), [*range(2560), *range(len(good) - 512, len(good))]
        flipped = []
        for _ in range(rounds(150)):
            at, bit = chance.choice(metadata), 1 << chance.randrange(8)
            flipped.append(self.plant(patched(good, at, bytes([good[at] ^ bit]), None)))
        rows = self.scanned()
        for vdi in flipped:
            row = rows[vdi]
            self.assertIn(row["state"], ("live", "damaged"))
            self.assertTrue(row["state"] == "damaged" or int(row["size"]) == 4 * MIB, row)
            self.assertEqual(row["state"] == "damaged", bool(row["damage"]))
        self.served()


class Chains(HostileTest):
    def child(self, parent, uuid=None, **how):
        return self.save(vhd.Maker(4 * MIB, uuid=uuid, parent=parent, **how))

    def test_a_loop_and_an_image_that_is_its_own_parent(self):
        first, second, own = (vhd.Maker(4 * MIB) for _ in range(3))
        for maker in (first, second, own):
            self.save(maker)
        first.parent, second.parent, own.parent = second, first, own
        self.damaged(*(self.save(maker) for maker in (first, second, own)))

    def test_a_missing_parent(self):
        parent = vhd.Maker(4 * MIB)
        self.save(parent)
        child = self.child(parent)
        grandchild = self.child(vhd.Maker(4 * MIB, uuid=child))
        os.unlink(self.path(parent.uuid))
        self.damaged(child, grandchild)

    def test_a_damaged_parent_damages_its_children(self):
        parent = vhd.Maker(4 * MIB)
        self.save(parent)
        child = self.child(parent)
        with open(self.path(parent.uuid), "r+b") as image:
            image.truncate(100)
        self.damaged(parent.uuid, child)

    def test_a_parent_that_is_not_the_one_it_was_made_from(self):
        parent = vhd.Maker(4 * MIB)
        self.save(parent)
        child = self.child(parent)
        with open(self.path(parent.uuid), "wb") as image:
            image.write(vhd.Maker(4 * MIB).bytes())
        row = self.scanned()[child]
        if row["state"] != "damaged":
            with self.assertRaises(Exception):
                image_read(self.sr.location, child, os.path.join(self.lab.dir, "read"))
                self.sr("vdi_attach", "true", vdi_uuid=child)

    def test_a_chain_of_31(self):
        maker = vhd.Maker(4 * MIB)
        self.save(maker)
        for _ in range(vhd.LONGEST_CHAIN):
            maker = vhd.Maker(4 * MIB, parent=maker)
            self.save(maker)
        self.damaged(maker.uuid)

    def test_locators_that_lead_out_of_the_sr(self):
        """To a good image that stands outside, under a uuid that no image inside has."""
        outside = os.path.basename(self.canary)
        hostile = []
        for path in (self.canary, "../" + outside, "./" + outside + "/../../" + outside, "/etc/shadow"):
            parent = vhd.Maker(4 * MIB)
            self.save(parent)
            data = vhd.Maker(4 * MIB, parent=parent).bytes(self.sr.location)
            os.unlink(self.path(parent.uuid))
            hostile.append(self.plant(self.led_to(data, path)))
        self.damaged(*hostile)

    def led_to(self, data, path):
        """All of a child's locators say this."""
        for i, text in enumerate((b"file://" + path.encode(), *[path.replace("/", "\\").encode("utf-16-le")] * 2)):
            entry = 512 + 576 + 24 * i
            at, = struct.unpack_from(">Q", data, entry + 16)
            data = patched(data, at, text.ljust(512, b"\0"), None)
            data = patched(data, entry + 8, struct.pack(">I", len(text)), HEADER)
        return patched(data, 512 + 64, path.encode("utf-16-be").ljust(512, b"\0"), HEADER)


class NoImages(HostileTest):
    """What is no plain file is never opened: a FIFO would hang, a device might do anything."""

    def test_links_pipes_devices_sockets_and_directories(self):
        names = [new_uuid() for _ in range(6)]
        os.symlink(self.canary, self.path(names[0]))
        os.symlink(os.path.basename(self.path(self.good[0])), self.path(names[1]))
        os.mkfifo(self.path(names[2]))
        os.mkdir(self.path(names[3]))
        shutil.copyfile(self.canary, self.canary + ".other")
        os.link(self.canary + ".other", self.path(names[4]))
        os.symlink("/nowhere", self.path(names[5]))
        if os.geteuid() == 0:
            names.append(new_uuid())
            os.mknod(self.path(names[6]), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        before = {name: os.lstat(self.path(name)) for name in names}
        self.damaged(*names)
        self.assertEqual({name: os.lstat(self.path(name)) for name in names}, before)

    def test_two_images_of_one_disk(self):
        with open(self.path(self.good[2], ".raw"), "wb") as raw:
            raw.truncate(2 * MIB)
        both = self.good.pop()
        row = self.scanned()[both]
        self.assertEqual(row["state"], "damaged")
        self.served()


if __name__ == "__main__":
    unittest.main()
