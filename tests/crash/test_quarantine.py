# SPDX-License-Identifier: LGPL-2.1-or-later
"""An operation that recovery cannot explain takes down the disk it is about and nothing else: bytes are left, the journal
row is closed, fsck tells of it, and a person ends it."""
import http.client
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import MIB, Fault, Lab, fsck, new_uuid  # noqa: E402

BROKEN = (OSError, http.client.HTTPException)


class Quarantine(unittest.TestCase):
    def setUp(self):
        self.lab = Lab(in_memory=True)
        self.addCleanup(self.lab.close)
        self.lab.start()
        self.sr = self.lab.repository("file").made()
        self.disk, self.other = self.sr.disk(4 * MIB, "label"), self.sr.disk(4 * MIB)

    def image(self, vdi=None):
        return os.path.join(self.sr.location, (vdi or self.disk) + ".vhd")

    def killed(self, point, method, *args, op=None, **keys):
        self.lab.arm(point + ":kill:1")
        with self.assertRaises(BROKEN):
            self.sr(method, *args, op=op, vdi_uuid=self.disk, **keys)
        self.assertTrue(self.lab.died())
        self.lab.disarm()

    def away(self, vdi=None):
        os.rename(self.image(vdi), self.image(vdi) + ".away")

    def back(self, vdi=None):
        os.rename(self.image(vdi) + ".away", self.image(vdi))

    def code(self, method, *args, **keys):
        try:
            self.sr(method, *args, **{"vdi_uuid": self.disk, **keys})
            return 0
        except Fault as fault:
            return fault.code

    def set_aside(self, method):
        """The disk is in quarantine, all else is served, nothing is open, a further start changes nothing."""
        self.lab.start()
        for _ in range(2):
            row = self.sr.contents()[self.disk]
            self.assertEqual(row["state"], "quarantined")
            self.assertIn(method, row["damage"])
            for call in (("vdi_attach", "true"), ("vdi_resize", str(8 * MIB)), ("vdi_clone",)):
                self.assertEqual(self.code(*call), 46)
            self.sr("vdi_attach", "false", vdi_uuid=self.other)
            self.sr("vdi_detach", vdi_uuid=self.other)
            self.sr("vdi_delete", vdi_uuid=self.sr.disk())
            kinds = {(one["kind"], one["object"]) for one in fsck(self.lab)}
            self.assertIn(("disk_quarantined", self.disk), kinds)
            self.assertNotIn("intent_open", {kind for kind, _ in kinds})
            self.sr("sr_scan")
            self.lab.restart()

    def resolved(self):
        """A person ends every quarantine, and takes away what fsck then tells."""
        for vdi, row in self.sr.contents().items():
            if row["state"] == "quarantined":
                self.sr("smapi.vdi_resolve", vdi_uuid=vdi)
        self.sr("sr_scan")
        for one in fsck(self.lab, "--strict"):
            self.assertEqual(one["kind"], "sidecar_stray", one)
            os.unlink(os.path.join(self.sr.location, one["object"] + ".smapi"))
        self.assertEqual(fsck(self.lab, "--strict"), [])

    def test_a_deletion_whose_image_is_another_one_by_now(self):
        op = new_uuid()
        self.killed("intent_committed", "vdi_delete", op=op)
        with open(self.image(), "rb") as image:
            data = image.read()
        self.away()
        with open(self.image(), "wb") as image:
            image.write(data)
        self.set_aside("vdi_delete")
        with open(self.image(), "rb") as image:
            self.assertEqual(image.read(), data)
        self.assertEqual(self.code("vdi_delete", op=op), 46)  # its answer, under its id
        os.unlink(self.image() + ".away")
        self.resolved()
        self.assertEqual(self.sr.contents()[self.disk]["label"], "label")
        self.assertEqual(self.code("vdi_delete"), 0)

    def test_a_growing_whose_image_is_gone(self):
        self.killed("resize_grown", "vdi_resize", str(4 << 30))
        self.away()
        self.set_aside("vdi_resize")
        self.back()
        self.sr("sr_detach")
        self.sr("sr_attach")  # reverts what the growing left
        self.resolved()
        self.assertEqual(int(self.sr.contents()[self.disk]["size"]), 4 * MIB)

    def test_a_fork_whose_disk_is_gone(self):
        self.killed("fork_linked", "vdi_snapshot", driver_params={})
        os.unlink(self.image())  # its bytes have the base's name too
        self.set_aside("vdi_snapshot")
        base, = self.sr.images() - {self.disk, self.other}
        os.rename(self.image(base), self.image())
        self.resolved()
        self.assertEqual(self.sr.contents()[self.disk]["state"], "live")

    def test_a_reset_whose_disk_is_gone(self):
        self.sr("vdi_clone", vdi_uuid=self.disk, driver_params={})
        self.killed("reset_child_made", "vdi_epoch_begin", vdi_on_boot="reset")
        self.away()
        self.set_aside("vdi_epoch_begin")
        self.back()
        self.resolved()

    def test_a_composing_whose_child_is_gone(self):
        self.sr("vdi_clone", vdi_uuid=self.disk, driver_params={})
        parent = self.sr.disk(4 * MIB)
        self.killed("intent_committed", "vdi_compose", parent)
        self.away()
        self.set_aside("vdi_compose")
        self.back()
        self.assertEqual(self.sr.contents()[parent]["state"], "quarantined")
        self.resolved()
        self.assertEqual({row["state"] for row in self.sr.contents().values()}, {"live"})

    def test_a_disk_without_an_image_is_gone_once_a_person_says_so(self):
        self.killed("intent_committed", "vdi_delete")
        self.away()
        with open(self.image(), "wb") as image:
            image.write(b"no image at all")
        self.set_aside("vdi_delete")
        os.unlink(self.image())
        self.resolved()
        self.assertNotIn(self.disk, self.sr.contents())

    def test_an_image_that_is_still_not_sound_is_damaged(self):
        self.killed("intent_committed", "vdi_delete")
        self.away()
        with open(self.image(), "wb") as image:
            image.write(b"no image at all")
        self.set_aside("vdi_delete")
        self.sr("smapi.vdi_resolve", vdi_uuid=self.disk)
        self.assertEqual(self.sr.contents()[self.disk]["state"], "damaged")

    def test_a_failing_call_sets_its_disk_aside_without_a_restart(self):
        self.sr("vdi_clone", vdi_uuid=self.disk, driver_params={})
        self.away()
        self.assertEqual(self.code("vdi_epoch_begin", vdi_on_boot="reset"), 46)
        self.assertEqual(self.sr.contents()[self.disk]["state"], "quarantined")
        self.sr("vdi_attach", "false", vdi_uuid=self.other)
        self.back()
        self.resolved()

    def test_where_the_sr_cannot_be_judged_it_stays_stuck(self):
        self.killed("intent_committed", "vdi_delete")
        os.rename(self.sr.location, self.sr.location + ".away")
        self.lab.start()
        self.assertEqual(self.code("vdi_attach", "true", vdi_uuid=self.other), 47)
        os.rename(self.sr.location + ".away", self.sr.location)
        self.sr("sr_attach")
        self.assertEqual(set(self.sr.contents()), {self.other})
        self.assertEqual(fsck(self.lab, "--strict"), [])


if __name__ == "__main__":
    unittest.main()
