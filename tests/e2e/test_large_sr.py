# SPDX-License-Identifier: LGPL-2.1-or-later
"""An SR of 10,000 disks: listed right by pages, scanned again at a fraction of the cost when nothing changed, and what
did change is seen."""
import os
import time
import unittest
import uuid as uuids

import vhd
from lab import MIB, SANITIZED, LabTest, rounds

DISKS = 10000
RECENT = 3  # seconds after which a file's times tell of every change
FASTER = 2  # what an unchanged scan must be at least


class LargeRepository(LabTest):
    def setUp(self):
        """A directory of one image under many uuids, each in its footers too."""
        self.sr = self.lab.repository("file")
        os.mkdir(self.sr.location)
        self.template = vhd.Maker(2 * MIB).bytes()
        self.disks = {str(uuids.UUID(int=(n * 0x9E3779B97F4A7C15) % (1 << 64) << 64 | n)): 2 * MIB
                      for n in range(1, rounds(DISKS) + 1)}
        for vdi in self.disks:
            self.write(vdi, self.template)
        time.sleep(RECENT)

    def write(self, vdi, data):
        data = bytearray(data)
        for at in (0, len(data) - 512):
            data[at + 68:at + 84] = uuids.UUID(vdi).bytes
            data[at:at + 512] = vhd.sealed(data[at:at + 512], 64)
        with open(os.path.join(self.sr.location, vdi + ".vhd"), "wb") as image:
            image.write(data)

    def seconds(self, method):
        started = time.monotonic()
        self.sr(method)
        return time.monotonic() - started

    def listed(self):
        """All pages hold each disk once, and the totals are theirs."""
        rows = self.sr.contents()
        self.assertEqual({vdi: int(row["size"]) for vdi, row in rows.items()}, self.disks)
        self.assertEqual({row["state"] for row in rows.values()}, {"live"})
        self.assertEqual(int(self.sr.page(limit=1)["sr"]["virtual_allocation"]), sum(self.disks.values()))

    def test_it_is_listed_right_and_scanned_fast_when_nothing_changed(self):
        attached = self.seconds("sr_attach")
        first = self.seconds("sr_scan")
        self.listed()
        again = min(self.seconds("sr_scan") for _ in range(3))
        print(f"{len(self.disks)} disks: attached in {attached:.3f} s, scanned in {first:.3f} s, unchanged in "
              f"{again:.3f} s", flush=True)
        self.listed()
        if not SANITIZED:
            self.assertLess(again * FASTER, max(attached, first))
        self.change()
        self.sr("sr_scan")
        self.listed()

    def change(self):
        """One grows, one goes, one comes."""
        grown, gone, *_ = self.disks
        self.write(grown, vhd.Maker(64 * MIB).bytes())
        self.disks[grown] = 64 * MIB
        os.unlink(os.path.join(self.sr.location, gone + ".vhd"))
        del self.disks[gone]
        come = str(uuids.uuid4())
        self.write(come, self.template)
        self.disks[come] = 2 * MIB


if __name__ == "__main__":
    unittest.main()
