# SPDX-License-Identifier: LGPL-2.1-or-later
"""Type extoiscsi, a file system on one LUN that one server has at a time, against the kernel's own target. One guest plays
two hosts: the daemon's session, and one of plain iscsiadm under another name."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import killed  # noqa: E402
import kit  # noqa: E402
from iscsi_help import CHAP, IQN, IscsiTest, links, read, write  # noqa: E402
from kit import MIB, sh  # noqa: E402
from lab import Lab, deep, take_over  # noqa: E402

LUN = 64 * MIB
OTHER = "iqn.2024-01.org.example:other"
SECRET = {"chapuser": CHAP[0], "chappassword": CHAP[1]}


class ExtOverIscsi(IscsiTest):
    KIND = "extoiscsi"

    def config(self, **more):
        return super().config(**{"LUNid": "0", **more})

    def clean(self):
        """Nothing of the SR is on this host."""
        self.nothing_is_left()

    def gone(self, sr):
        """The LUN holds nothing, and nobody's key."""
        self.assertEqual(sh("wipefs", "-n", self.store.files[0]), "")
        self.assertIn("No SPC-3 Reservation holder", self.target_says("res_holder"))

    def target_says(self, what):
        return kit.read(f"{self.store.stores[0]}/pr/{what}")

    def end_of(self, sr):
        sr.delete_disks()
        sr("sr_delete")
        self.clean()
        self.gone(sr)


class Life(ExtOverIscsi):
    def test_a_life_with_contents(self):
        self.store = self.target([LUN, MIB], chap=CHAP)
        sr = self.sr(made=False, **SECRET)
        self.addCleanup(self.end, sr)
        sr("sr_create", "0")
        self.clean()
        sr("sr_attach")
        disk = sr("vdi_create", str(4 * MIB), vdi_sm_config={"type": "raw"})["uuid"]
        path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
        sr("vdi_activate", "true", vdi_uuid=disk)
        write(path, b"pattern" + bytes(505), MIB)
        self.assertEqual(sr.page(limit=1)["sr"]["fencing"], "sr")
        self.lab.kill9()
        self.lab.start()
        write(path, b"pattern" + bytes(505), 2 * MIB)
        sr.released(disk)
        sr("sr_detach")
        self.clean()
        sr("sr_attach")
        self.assertEqual(read(path, 7, MIB), b"pattern")
        self.assertEqual(read(path, 7, 2 * MIB), b"pattern")
        self.end_of(sr)  # the password went with sr_attach, and is not needed again

    def test_a_probe_leads_from_nothing_to_the_repository(self):
        self.store = self.target([LUN, MIB])
        config = {"target": "127.0.0.1", "targetIQN": IQN}
        self.assertEqual(self.probe_errors(target="127.0.0.1")[0], 96)
        code, document = self.probe_errors(**config)
        ids = self.texts(document, "SCSIid")
        self.assertEqual((code, self.texts(document, "LUNid")), (89, ["0", "1"]))
        for keys in ({"LUNid": "0,1"}, {"LUNid": "", "SCSIid": ",".join(ids)}):
            with self.refused(99, "where one may be"):
                self.sr(made=False, **keys)("sr_create", "0")
        self.assertEqual(self.texts(self.probe_errors(**config, SCSIid=ids[0])[1], "SR"), [])
        sr = self.sr()
        code, document = self.probe_errors(**config, SCSIid=ids[0])
        self.assertEqual((code, self.texts(document, "UUID"), self.texts(document, "Devlist")), (0, [sr.uuid], ids[:1]))
        sr("sr_detach")
        self.clean()

    def test_what_stands_on_a_lun_is_left_alone(self):
        self.store = self.target([LUN])
        sh("mkfs.ext4", "-q", "-F", self.store.files[0])
        was = read(self.store.files[0], MIB)
        with self.refused(42, "ext4"):
            self.sr(made=False)("sr_create", "0")
        self.clean()
        self.assertEqual(read(self.store.files[0], MIB), was)


class Lost(ExtOverIscsi):
    """Alone with its daemon: after a rebuild nobody may write for a while."""

    @deep
    def test_a_lost_database_is_made_anew_from_session_and_mount(self):
        self.store = self.target([LUN])
        sr = self.sr()
        sr("vdi_snapshot", vdi_uuid=sr.disk(4 * MIB, "label"))
        kit.made_anew(self, sr)
        self.end_of(sr)


class OneServer(ExtOverIscsi):
    def setUp(self):
        super().setUp()
        self.store = self.target([LUN])
        self.addCleanup(kit.logout, IQN)
        self.other = kit.login(IQN, other=OTHER)

    def keys(self):
        text = sh("sg_persist", "-n", "-i", "-k", self.other)
        return [line.strip() for line in text.splitlines() if line.strip().startswith("0x")]

    def test_another_host_can_neither_write_nor_attach(self):
        sr = self.sr()
        first, = self.keys()
        self.assertEqual(int(first, 16) >> 56, 0x53)
        self.assertIn("type: Write Exclusive, registrants only", sh("sg_persist", "-n", "-i", "-r", self.other))
        with self.assertRaises(OSError):
            write(self.other, bytes(512), 32 * MIB)
        self.lab.kill9()
        self.lab.start()
        sr("sr_scan")
        second, = self.keys()
        self.assertGreater(int(second, 16), int(first, 16))
        sr("sr_detach")
        self.assertEqual(self.keys(), [])
        theirs = "0x53" + "00ff" + "0000000001"
        sh("sg_persist", "-n", "-o", "--register", f"--param-sark={theirs}", self.other)
        sh("sg_persist", "-n", "-o", "--reserve", f"--param-rk={theirs}", "--prout-type=5", self.other)
        with self.refused(16, sr.uuid, "0x5300ff"):
            sr("sr_attach")
        self.assertEqual(self.keys(), [hex(int(theirs, 16))])
        self.assertEqual(links(), [])
        take_over(self.lab, sr, known=True)
        sr("sr_attach")
        for _ in range(3):  # the other is told, once each, what has become of its registration
            sh("sg_persist", "-n", "-i", "-k", self.other, check=False)
        self.assertNotIn(hex(int(theirs, 16)), self.keys())
        with self.assertRaises(OSError):
            write(self.other, bytes(512), 32 * MIB)
        sr("sr_detach")

    @deep
    def test_a_second_smapid_is_refused_before_it_mounts_anything(self):
        for store in self.store.stores.values():
            kit.put(f"{store}/attrib/emulate_pr", 0)
        sr = self.sr()
        self.assertEqual(sr.page(limit=1)["sr"]["fencing"], "advisory")
        sr("sr_detach")
        rival = Lab()
        self.addCleanup(rival.close)
        rival.start()
        theirs = rival.repository(self.KIND)
        theirs.uuid, theirs.config = sr.uuid, sr.config
        rival.arm("volume_activated:kill")
        with self.refused(16, "belongs to server"):
            theirs("sr_attach")
        self.assertTrue(rival.alive())
        sr("sr_attach")
        sr("sr_detach")


class Paths(ExtOverIscsi):
    @deep
    def test_every_path_of_a_map_is_registered_and_a_life_goes_over_it(self):
        self.two_portals(LUN)
        daemon = self.multipathd()
        sr = self.sr(LUNid="", SCSIid=self.store.identity(0))
        self.assertEqual(list(daemon.paths(self.store.identity(0)).values()), [True, True])
        link, = links()
        keys = [line.strip() for line in sh("sg_persist", "-n", "-i", "-k", os.path.realpath(link)).splitlines()
                if line.strip().startswith("0x")]
        self.assertEqual((len(keys), len(set(keys))), (2, 1))
        disk = sr("vdi_create", str(4 * MIB), vdi_sm_config={"type": "raw"})["uuid"]
        path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
        for at in range(16):  # by either path
            write(path, b"%2d" % at + bytes(510), at * 64 * 1024)
        code, document = self.probe_errors(**sr.config)  # its session, which is not registered, becomes a path for a while
        self.assertEqual((code, self.texts(document, "UUID")), (0, [sr.uuid]))
        write(path, b"16" + bytes(510), 16 * 64 * 1024)
        sr("vdi_detach", vdi_uuid=disk)
        sr("sr_detach")
        self.clean()
        sr("sr_attach")
        self.assertEqual([read(path, 2, at * 64 * 1024) for at in range(17)], [b"%2d" % at for at in range(17)])
        self.end_of(sr)
        self.assertEqual(daemon.noted(), [])

    @deep
    def test_a_map_that_keeps_what_has_no_path_keeps_nobody(self):
        self.two_portals(LUN)
        daemon = self.multipathd()
        kit.put("/etc/multipath.conf", "defaults {\n no_path_retry queue\n}\n")
        sh("multipathd", "reconfigure")
        sr = self.sr(LUNid="", SCSIid=self.store.identity(0))
        self.assertIn("queue_if_no_path", sh("dmsetup", "table", self.store.identity(0)))
        disk = sr.disk(4 * MIB)
        self.store.enable(False)
        with self.refused(47):
            sr("sr_scan")
        begun = time.monotonic()
        sr("sr_detach")
        self.assertLess(time.monotonic() - begun, 60)
        self.clean()
        self.store.enable()
        sr("sr_attach")
        self.assertEqual(list(daemon.paths(self.store.identity(0)).values()), [True, True])
        self.assertIn(disk, sr.contents())
        self.end_of(sr)
        self.assertEqual(daemon.noted(), [])


class Crashes(ExtOverIscsi):
    def new(self):
        return self.sr(made=False, **SECRET)

    def test_at_points_between_two_steps_nothing_is_left(self):
        self.store = self.target([LUN], chap=CHAP)
        for method, point, action in (("sr_create", "volume_group_made", "kill"), ("sr_attach", "volume_activated", "eio")):
            self.assertEqual(killed.trial(self, self.lab, self.new, self.gone, method, f"{point}:{action}:1"), point)

    @deep
    def test_a_power_cut_while_it_is_made_leaves_nothing_once_the_password_is_there(self):
        self.store = self.target([LUN], chap=CHAP)
        for method, point in (("sr_create", "volume_group_made"), ("sr_delete", "volume_group_removed")):
            with self.subTest(method):
                killed.unplugged(self, self.lab, self.new, self.gone, method, point)

    @deep
    def test_killed_or_failed_at_each_point_nothing_is_left(self):
        self.store = self.target([LUN], chap=CHAP)
        killed.everywhere(self, self.lab, self.new, self.gone)

    @deep
    def test_a_target_that_is_gone_does_not_keep_the_host(self):
        self.store = self.target([LUN])
        sr = self.sr()
        self.store.enable(False)
        sr("sr_detach")
        self.clean()
        self.store.enable()
        sr("sr_attach")
        self.end_of(sr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
