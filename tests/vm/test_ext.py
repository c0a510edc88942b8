# SPDX-License-Identifier: LGPL-2.1-or-later
"""Type ext on real devices, in a guest."""
import os
import sys
import unittest
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ["SMAPI_KINDS"] = "ext"
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import killed  # noqa: E402
import vhd  # noqa: E402
from lab import MIB, Lab, LabTest, deep, raises  # noqa: E402
from kit import held, left, made_anew, mounts, sh, spare, wipe  # noqa: E402


class ExtTest(LabTest):
    def setUp(self):
        self.held, self.names = held(), os.listdir(self.lab.mounts)

    def clean(self):
        """Nothing is left on this host."""
        self.assertEqual(left(self.held), [])
        self.assertEqual(os.listdir(self.lab.mounts), self.names)

    def repository(self, device=None):
        sr = self.lab.repository("ext")
        sr.config = {"device": device or spare()}
        return sr

    def untouched(self, sr):
        """The devices hold nothing that anybody would recognise."""
        for device in sr.config["device"].split(","):
            self.assertEqual(sh("wipefs", "-n", device), "")
        self.assertNotIn(sr.uuid, sh("vgs", check=False))

    def end(self, sr):
        sr.delete_disks()
        sr("sr_detach")
        self.clean()
        sr("sr_delete")
        self.clean()
        self.untouched(sr)


class Life(ExtTest):
    def test_a_life_with_contents(self):
        sr = self.repository(f"{spare()},{spare()}")
        sr("sr_create", "0")
        self.clean()
        sr("sr_attach")
        self.assertIn((os.path.realpath(sr.location), "ext4"), [mount[:2] for mount in mounts()])
        self.assertIn(f"XSLocalEXT-{sr.uuid}", sh("vgs"))
        disk = sr("vdi_create", str(4 * MIB), vdi_sm_config={"type": "raw"})["uuid"]
        path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
        sr("vdi_activate", "true", vdi_uuid=disk)
        with open(path, "r+b") as image:
            image.seek(MIB)
            image.write(b"pattern" * 1000)
        sr.released(disk)
        tree = sr.disk()
        made = [sr(method, vdi_uuid=tree)["uuid"] for method in ("vdi_snapshot", "vdi_clone")]
        sr("vdi_resize", str(8 * MIB), vdi_uuid=tree)
        sr("sr_detach")
        self.clean()
        sr("sr_attach")
        self.assertLessEqual({disk, tree, *made}, sr.images())
        with open(os.path.join(sr.location, f"{disk}.raw"), "rb") as image:
            image.seek(MIB)
            self.assertEqual(image.read(7000), b"pattern" * 1000)
        found = ElementTree.fromstring(sr.probe())
        self.assertEqual([(one.findtext("UUID"), one.findtext("Devlist")) for one in found],
                         [(sr.uuid, sr.config["device"])])
        self.lab.kill9()
        self.lab.start()
        self.assertIn(disk, sr.contents())
        self.end(sr)
        for device in sr.config["device"].split(","):
            with open(device, "rb") as raw:
                self.assertTrue(raw.read(100 * MIB) == bytes(100 * MIB), "it is not wiped")

    def test_an_sr_made_by_other_software_is_taken_over_and_ended(self):
        sr = self.repository()
        group, device = f"XSLocalEXT-{sr.uuid}", sr.config["device"]
        sh("vgcreate", "--metadatasize", "10M", group, device)
        sh("lvcreate", "-n", sr.uuid, "-l", "100%FREE", group, "-W", "y", "--yes")
        sh("mkfs.ext4", "-q", "-F", f"/dev/{group}/{sr.uuid}")
        os.makedirs("/run/tmp/older", exist_ok=True)
        sh("mount", f"/dev/{group}/{sr.uuid}", "/run/tmp/older")
        parent = vhd.Maker(4 * MIB)
        parent.write(MIB, b"p" * 512)
        child = vhd.Maker(4 * MIB, parent=parent)
        for maker in (parent, child):
            maker.save("/run/tmp/older")
        vhd.marked(f"/run/tmp/older/{parent.uuid}.vhd", True)
        sh("umount", "/run/tmp/older")
        sh("lvchange", "-an", group)
        sr("sr_attach")
        self.assertEqual({uuid: row["parent"] for uuid, row in sr.contents().items()},
                         {parent.uuid: "", child.uuid: parent.uuid})
        self.end(sr)

    def test_a_second_smapid_is_refused_and_told_the_owner(self):
        sr = self.repository()
        sr("sr_create", "0")
        rival = Lab()
        self.addCleanup(rival.close)
        rival.start()
        theirs = rival.repository("ext")
        theirs.uuid, theirs.config = sr.uuid, sr.config
        with self.refused(16, "belongs to server"):
            theirs("sr_attach")
        self.clean()
        sr("sr_attach")
        self.end(sr)


class Lost(ExtTest):
    """Alone with its daemon: after a rebuild nobody may write for a while."""

    def test_a_lost_database_is_made_anew_from_what_is_mounted(self):
        sr = self.repository(f"{spare()},{spare()}").made()
        sr("vdi_snapshot", vdi_uuid=sr.disk(4 * MIB, "label"))
        made_anew(self, sr)
        self.end(sr)


class Refusals(ExtTest):
    def refuses(self, code, device, *naming):
        with open(os.path.realpath(device), "rb") as raw:
            before = raw.read(8 * MIB)
        with self.refused(code, *naming):
            self.repository(device)("sr_create", "0")
        with open(os.path.realpath(device), "rb") as raw:
            self.assertEqual(raw.read(8 * MIB), before)
        self.clean()

    @raises(16, 42, 56)
    def test_what_stands_on_a_device_is_never_touched(self):
        device = spare()
        sh("mkfs.ext4", "-q", device)
        self.refuses(42, device, "ext4")
        wipe(device)
        sh("mkswap", device)
        self.refuses(42, device, "swap")
        wipe(device)
        sh("pvcreate", device)
        self.refuses(56, device, "physical volume")
        wipe(device)
        sh("mkfs.ext4", "-q", device)
        os.makedirs("/run/tmp/used", exist_ok=True)
        sh("mount", "-o", "ro", device, "/run/tmp/used")  # the kernel itself writes nothing to it
        self.held = held()
        self.refuses(16, device, "/run/tmp/used")
        sh("umount", "/run/tmp/used")
        wipe(device)

    @raises(90, 91)
    def test_what_is_no_device_has_its_code(self):
        for code, config in ((90, {}), (90, {"device": ""}), (91, {"device": "/dev/null"}), (19, {"device": "/dev/none"}),
                             (91, {"device": "/etc/passwd"}), (2, {"device": "/dev/$(id)"}), (2, {"device": "--force"}),
                             (1, {"device": "/dev/none", "force": "true"})):
            with self.subTest(code=code, **config):
                for method in (("sr_create", "0"), ("sr_attach",)):
                    sr = self.repository("/dev/none")
                    sr.config = config
                    with self.refused(code):
                        sr(*method)
        self.clean()

    @raises(92)
    def test_devices_without_the_group_are_92(self):
        sr = self.repository()
        with self.refused(92, sr.uuid):
            sr("sr_attach")
        self.clean()


class Killed(ExtTest):
    @deep
    def test_it_leaves_nothing(self):
        create = ("volume_devices_made", "volume_group_made", "sr_create_made", "volume_formatted", "mount_done")
        killed.at(self, self.lab, self.repository, self.untouched, "sr_create", *create)
        killed.at(self, self.lab, self.repository, self.untouched, "sr_attach", "volume_activated", "mount_done")
        killed.at(self, self.lab, self.repository, self.untouched, "sr_delete", "volume_wiped", "volume_group_removed")

    def test_a_group_of_others_leaves_nothing(self):
        """Its devices have uuids that do not tell whose they are."""
        sr = self.repository(f"{spare()},{spare()}")
        group, devices = f"XSLocalEXT-{sr.uuid}", sr.config["device"].split(",")
        sh("vgcreate", "--metadatasize", "10M", group, *devices)
        sh("lvcreate", "-n", sr.uuid, "-l", "100%FREE", group, "-W", "y", "--yes")
        sh("mkfs.ext4", "-q", "-F", f"/dev/{group}/{sr.uuid}")
        sh("lvchange", "-an", group)
        sr("sr_attach", device_config={**sr.config, "adopt": "true"})
        sr("sr_detach")
        self.assertEqual(killed.once(self.lab, sr, "sr_delete", "volume_group_removed:kill"), "volume_group_removed")
        self.lab.start()
        self.clean()
        self.untouched(sr)
        for device in devices:
            with open(device, "rb") as start:
                self.assertEqual(start.read(MIB), bytes(MIB))

    @deep
    def test_it_leaves_nothing_at_any_point(self):
        killed.everywhere(self, self.lab, self.repository, self.untouched)


if __name__ == "__main__":
    unittest.main()
