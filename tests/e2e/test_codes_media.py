# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fault codes whose condition is a medium or a program that does not do as it is told: each by that condition, on this
machine's kernel. What they leave is undone, or done when the condition is over."""
import contextlib
import os
import subprocess
import sys
import threading
import unittest
import socket

import vhd
from lab import MIB, Lab, LabTest, Plays, Repository, kernel_has, new_uuid, raises
from test_lvm import Loop, sh

ISCSI = {"target": "127.0.0.1:3261", "targetIQN": "iqn.2024-01.org.example:store", "localIQN": "iqn.2024-01.org.example:me"}


@contextlib.contextmanager
def unchangeable(path, flag="i"):
    """Nobody changes the file or directory meanwhile, root included."""
    subprocess.run(["chattr", f"+{flag}", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{flag}", path], check=True)


class Files(LabTest):
    """Type file, on a file system that knows chattr."""

    def setUp(self):
        self.sr = self.lab.repository("file").made()
        probe = os.path.join(self.lab.dir, "probe")
        open(probe, "w", encoding="ascii").close()
        try:
            with unchangeable(probe):
                pass
        except subprocess.CalledProcessError:
            self.skipTest("the file system of TMPDIR has no immutable files")

    def image(self, vdi):
        return os.path.join(self.sr.location, vdi + ".vhd")

    @raises(78)
    def test_78_for_a_disk_that_cannot_be_made(self):
        with unchangeable(self.sr.location), self.refused(78, "make"):
            self.sr.disk()
        self.sr.disk()

    @raises(64)
    def test_64_for_an_image_that_cannot_be_removed(self):
        vdi = self.sr.disk()
        with unchangeable(self.image(vdi)), self.refused(64, vdi):
            self.sr("vdi_delete", vdi_uuid=vdi)
        self.assertIn(vdi, self.sr.images())
        self.sr("sr_attach")
        self.sr("vdi_delete", vdi_uuid=vdi)
        self.assertEqual(self.sr.images(), set())

    @raises(63)
    def test_63_for_content_that_cannot_be_removed(self):
        with unchangeable(os.path.join(self.sr.location, "sr.smapi")), self.refused(63, self.sr.uuid):
            self.sr("sr_delete")
        self.assertIn("sr.smapi", self.sr.names())

    @raises(62)
    def test_62_for_a_directory_that_cannot_be_removed(self):
        with unchangeable(os.path.dirname(self.sr.location), "a"), self.refused(62, self.sr.location):
            self.sr("sr_delete")

    @raises(80)
    def test_80_for_a_parent_that_cannot_be_hidden(self):
        parent = vhd.Maker(4 * MIB)
        child = vhd.Maker(4 * MIB, parent=parent)
        for maker in (parent, child):
            maker.save(self.sr.location)
        self.sr("sr_scan")
        with unchangeable(self.image(parent.uuid)), self.refused(80, parent.uuid):
            self.sr("vdi_delete", vdi_uuid=parent.uuid)
        self.sr("sr_attach")
        self.sr("vdi_delete", vdi_uuid=parent.uuid)
        self.assertTrue(self.sr.contents()[parent.uuid]["hidden"])

    @raises(81, 82)
    def test_81_and_82_for_trees_that_cannot_be_changed(self):
        for method, code in (("vdi_clone", 81), ("vdi_snapshot", 82)):
            vdi = self.sr.disk()
            with unchangeable(self.image(vdi)), self.refused(code, vdi):
                self.sr(method, vdi_uuid=vdi)
            self.sr(method, vdi_uuid=vdi)

    @raises(65)
    def test_65_for_an_image_that_cannot_be_read(self):
        vdi = self.sr.disk()
        with open(self.image(vdi), "r+b") as image:
            image.write(b"x" * 512)
            image.seek(-512, os.SEEK_END)
            image.write(b"x" * 512)
        with self.refused(65, vdi):
            self.sr("vdi_snapshot", vdi_uuid=vdi)


class Volumes(LabTest):
    """Type lvm on a loop device, with an lvm that fails where it is told to."""

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        try:
            cls.loop, boot = Loop(512 * MIB), Loop(16 * MIB)
            sh("mkfs.ext4", "-q", boot.path)
            cls.plays = Plays(cls.lab, "lvm", "iscsiadm", more=f"mkdir -p /boot; mount {boot.path} /boot\n"
                              "for d in /etc/iscsi /var/lib/iscsi; do if [ -d $d ]; then mount -t tmpfs tmpfs $d; fi; done\n")
            cls.boot = boot
            cls.addClassCleanup(boot.close)
            cls.addClassCleanup(cls.loop.close)
        except (OSError, subprocess.CalledProcessError) as broken:
            print(f"skipped: no loop device, lvm2 or open-iscsi here: {broken}", file=sys.stderr)
            sys.exit(77)
        cls.lab.start()

    def setUp(self):
        self.sr = Repository(self.lab.unix("xapi"), "lvm", new_uuid(), {"device": self.loop.path})
        self.addCleanup(self.end)

    def end(self):
        with contextlib.suppress(Exception):
            self.sr("sr_attach")
            for vdi in self.sr.contents():
                self.sr("vdi_delete", vdi_uuid=vdi)
            self.sr("sr_delete")
        sh("wipefs", "-qaf", self.loop.path)

    def image(self, kind="vhd"):
        return self.sr.disk(4 * MIB, vdi_sm_config={"type": kind})

    @raises(55, 77)
    def test_55_and_77_for_devices_that_become_no_group(self):
        for word, code in (("pvcreate", 55), ("vgcreate", 77)):
            with self.subTest(word), self.plays.fails("lvm", word), self.refused(code, f"{word} does not want to"):
                self.sr("sr_create", "0")
            self.assertEqual(sh("wipefs", "-n", self.loop.path), "")
        self.sr("sr_create", "0")

    @raises(50)
    def test_50_for_a_volume_that_is_not_made(self):
        self.sr.made()
        with self.plays.fails("lvm", "lvcreate"), self.refused(50, "lvcreate does not want to"):
            self.image()
        self.assertEqual(set(self.loop.volumes()), {"MGT"})
        self.image()

    @raises(51)
    def test_51_for_a_volume_that_stays(self):
        self.sr.made()
        vdi = self.image()
        with self.plays.fails("lvm", "lvremove"), self.refused(51, "lvremove does not want to"):
            self.sr("vdi_delete", vdi_uuid=vdi)
        self.sr("sr_attach")
        self.sr("sr_scan")
        self.sr("vdi_delete", vdi_uuid=vdi)
        self.assertEqual(set(self.loop.volumes()), {"MGT"})

    @raises(58)
    def test_58_for_a_change_that_does_not_come_from_the_master(self):
        self.sr.made()
        self.sr.config["SRmaster"] = "false"
        with self.refused(58, "SRmaster=false"):
            self.image()
        self.sr.config["SRmaster"] = "true"
        self.image()

    @raises(59)
    def test_59_for_a_volume_that_does_not_grow(self):
        self.sr.made()
        vdi = self.image("raw")
        with self.plays.fails("lvm", "lvresize"), self.refused(59, "lvresize does not want to"):
            self.sr("vdi_resize", str(64 * MIB), vdi_uuid=vdi)
        self.assertEqual(int(self.sr.contents()[vdi]["size"]), 4 * MIB)
        self.sr("sr_attach")
        self.sr("vdi_resize", str(64 * MIB), vdi_uuid=vdi)

    def test_the_largest_size_that_can_be_named_has_no_room(self):
        """So there is no 60: LVM could have volumes of that size."""
        self.sr.made()
        for size, code in (((1 << 63) - 4 * MIB, 44), ((1 << 63) - 1, 79), (1 << 63, 143)):
            with self.refused(code):
                self.sr.disk(size, vdi_sm_config={"type": "raw"})
        self.assertEqual(set(self.loop.volumes()), {"MGT"})

    @raises(93)
    def test_93_for_a_pvs_that_talks_nonsense(self):
        self.sr.made()("sr_detach")
        for script, words in (("echo nonsense; exit 0\n", "cannot be read"), ("exit 5\n", "exited with 5"),
                              ("echo '{\"report\": [{\"pvseg\": [{\"pv_name\": 4}]}]}'; exit 0\n", "row 1")):
            with self.subTest(words), self.plays.play("lvm", "pvs", script), self.refused(93, words):
                self.sr("sr_attach")
        self.sr("sr_attach")

    @raises(52)
    @unittest.skipIf(kernel_has("device-mapper"), "this kernel has device-mapper")
    def test_52_on_a_kernel_that_cannot_activate(self):
        self.sr.made()
        vdi = self.image()
        with self.refused(52, "device-mapper"):
            self.sr("vdi_attach", "true", vdi_uuid=vdi)

    @raises(100)
    def test_100_for_a_volume_behind_the_end_of_its_device(self):
        self.sr.made()
        vdi = self.sr.disk(300 * MIB, vdi_sm_config={"type": "raw"})
        self.sr("sr_detach")
        self.loop.file.truncate(128 * MIB)
        sh("losetup", "-c", self.loop.path)
        try:
            with self.refused(100, "behind the end"):
                self.sr("sr_attach")
                self.sr("vdi_resize", str(304 * MIB), vdi_uuid=vdi)
        finally:
            self.loop.file.truncate(512 * MIB)
            sh("losetup", "-c", self.loop.path)

    @raises(105)
    def test_105_for_the_device_of_the_system(self):
        for kind in ("lvm", "ext"):
            sr = Repository(self.lab.unix(), kind, new_uuid(), {"device": self.boot.path})
            with self.refused(105, "running system"):
                sr("sr_create", "0")

    # ---- open-iscsi without a kernel that has iSCSI: what it says is played, what we write is real

    @raises(97)
    def test_97_without_a_name_of_this_host(self):
        sr = Repository(self.lab.unix(), "iscsi", new_uuid(), {**ISCSI, "localIQN": ""})
        with self.refused(97, "initiatorname.iscsi"):
            sr("sr_create", "0")

    @raises(71, 83, 86)
    def test_71_83_and_86_for_what_iscsiadm_answers(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        threading.Thread(target=self.hang_up, args=(listener,), daemon=True).start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        for code, status, words in ((71, 20, "iscsiadm: can not connect to iSCSI daemon (111)!"),
                                    (71, 21, "iscsiadm: iscsid is not running. Could not start it up automatically"),
                                    (86, 21, "iscsiadm: Could not insert module tcp. Kmod error -2"),
                                    (83, 6, "iscsiadm: Could not perform SendTargets discovery: iSCSI DB error")):
            script = f"echo '{words}' >&2; exit {status}\n"
            sr = Repository(self.lab.unix(), "iscsi", new_uuid(), {**ISCSI, "target": target})
            with self.subTest(words), self.plays.play("iscsiadm", "discoverydb", script), self.refused(code, words[:40]):
                sr("sr_create", "0")

    @staticmethod
    def hang_up(listener):
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()


class ReadOnlyRecords(LabTest):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        Plays(cls.lab, more="for d in /etc/iscsi /var/lib/iscsi; do if [ -d $d ]; then mount -t tmpfs -o ro tmpfs $d; fi; done\n")
        cls.lab.start()

    @raises(70)
    def test_70_for_an_initiator_that_cannot_be_written_down(self):
        sr = Repository(self.lab.unix(), "iscsi", new_uuid(), ISCSI)
        with self.refused(70, "interface record"):
            sr("sr_create", "0")


if __name__ == "__main__":
    unittest.main()
