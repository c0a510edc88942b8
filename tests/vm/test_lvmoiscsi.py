# SPDX-License-Identifier: LGPL-2.1-or-later
"""Type lvmoiscsi, a volume group on LUNs, against the kernel's own target."""
import os
import sys
import unittest
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import execs  # noqa: E402
import killed  # noqa: E402
import kit  # noqa: E402
from iscsi_help import CHAP, IQN, IscsiTest, links, read, write  # noqa: E402
from kit import MIB, sh  # noqa: E402
from lab import Lab, deep, rounds  # noqa: E402

LUN = 128 * MIB
SECRET = {"chapuser": CHAP[0], "chappassword": CHAP[1]}


def group(sr):
    return "VG_XenStorage-" + sr.uuid


class LvmOverIscsi(IscsiTest):
    KIND = "lvmoiscsi"

    def config(self, **more):
        return super().config(**{"LUNid": "0", **more})

    def clean(self):
        """Nothing of the SR is on this host."""
        self.nothing_is_left()

    def gone(self, sr):
        """No device of the target holds anything."""
        for path in self.store.files.values():
            self.assertEqual(sh("wipefs", "-n", path), "")

    def end_of(self, sr):
        sr.delete_disks()
        sr("sr_detach")
        self.clean()
        sr("sr_delete")
        self.clean()
        self.gone(sr)


class Life(LvmOverIscsi):
    def test_a_life_with_contents(self):
        self.store = self.target([LUN, MIB], chap=CHAP)
        sr = self.sr(made=False, **SECRET)
        self.addCleanup(self.end, sr)
        sr("sr_create", "0")
        self.clean()
        sr("sr_attach")
        disk = sr.disk(8 * MIB)
        path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
        self.assertEqual(path, f"/dev/{group(sr)}/LV-{disk}")
        sr("vdi_activate", "true", vdi_uuid=disk)
        write(path, b"pattern" + bytes(505), MIB)
        with self.refused(16):
            sr("sr_detach")
        self.lab.kill9()
        self.lab.start()
        self.assertEqual(read(path, 7, MIB), b"pattern")
        sr.released(disk)
        self.assertEqual(kit.left(self.before)[:1], [f"sessions: {(IQN, '127.0.0.1')}"])
        clone, snapshot = (sr(method, vdi_uuid=disk)["uuid"] for method in ("vdi_clone", "vdi_snapshot"))
        sr("vdi_resize", str(12 * MIB), vdi_uuid=clone)
        sr("sr_detach")
        self.clean()
        sr("sr_attach")
        self.assertLessEqual({disk, clone, snapshot}, set(sr.contents()))
        self.assertEqual(len(links()), 1)
        self.end_of(sr)

    def test_a_group_on_several_luns_and_by_identity(self):
        self.store = self.target([LUN, LUN, LUN])
        sr = self.sr(LUNid="2,0")
        self.assertEqual(len(links()), 2)
        disk = sr.disk(150 * MIB)  # larger than one of them
        path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
        write(path, b"end" + bytes(509), 140 * MIB)
        sr("vdi_detach", vdi_uuid=disk)
        code, document = self.probe_errors(**self.config(LUNid=""))
        ids = self.texts(document, "SCSIid")
        self.assertEqual((code, len(ids)), (107, 3))
        with self.refused(16, sr.uuid):
            self.sr(made=False, LUNid="", SCSIid=ids[2])("sr_create", "0")
        with self.refused(99):
            self.sr(made=False, LUNid="", SCSIid=f"{ids[0]},{ids[2]}")("sr_create", "0")
        other = self.sr(LUNid="", SCSIid=ids[1])
        self.assertEqual(sorted(os.path.basename(link) for link in links()), sorted(ids))
        sr("sr_detach")
        with self.refused(47, "lacks its device"):
            sr("sr_attach", device_config=self.config(LUNid="2"))
        sr("sr_attach")
        self.end_of_one(other)
        self.end_of(sr)

    def end_of_one(self, sr):
        sr("sr_detach")
        sr("sr_delete")

    @deep
    def test_a_lun_that_has_grown_is_taken_whole_by_the_next_attach(self):
        volume = kit.Volume(LUN)
        self.addCleanup(volume.remove)
        self.store = self.target([volume.path])
        sr = self.sr()
        before = int(sr.page(limit=1)["sr"]["physical_size"])
        volume.resize(3 * LUN)
        sr("sr_detach")
        sr("sr_attach")
        self.assertEqual(int(sr.page(limit=1)["sr"]["physical_size"]) - before, 2 * LUN)
        sr("sr_detach")
        sr("sr_delete")


class Lost(LvmOverIscsi):
    """Alone with its daemon: after a rebuild nobody may write for a while."""

    @deep
    def test_a_lost_database_is_made_anew_from_session_and_group(self):
        self.store = self.target([LUN, LUN])
        sr = self.sr(LUNid="0,1")
        sr("vdi_snapshot", vdi_uuid=sr.disk(8 * MIB, "label"))
        kit.made_anew(self, sr)
        self.end_of(sr)


class Ladder(LvmOverIscsi):
    def test_a_probe_leads_from_nothing_to_the_repository(self):
        self.store = self.target([LUN, MIB])
        config = {"target": "127.0.0.1", "targetIQN": IQN}
        self.assertEqual(self.probe_errors()[0], 95)
        code, document = self.probe_errors(target="127.0.0.1")
        self.assertEqual((code, self.texts(document, "TargetIQN")), (96, [IQN, "*"]))
        code, document = self.probe_errors(**config)
        self.assertEqual((code, self.texts(document, "LUNid"), self.texts(document, "size")),
                         (107, ["0", "1"], [str(LUN), str(MIB)]))
        ids = self.texts(document, "SCSIid")
        with self.refused(89, "neither LUNid nor SCSIid"):
            self.sr(made=False, LUNid="")("sr_create", "0")
        self.assertEqual(self.probe_errors(**config, LUNid="7")[0], 87)
        self.assertEqual(self.probe_errors(**config, SCSIid="3600")[0], 107)
        code, document = self.probe_errors(**config, SCSIid=ids[0])
        self.assertEqual((code, self.texts(document, "SR")), (0, []))
        sr = self.sr()
        for key in ({"SCSIid": ids[0]}, {"LUNid": "0"}):
            code, document = self.probe_errors(**config, **key)
            self.assertEqual((code, self.texts(document, "UUID"), self.texts(document, "Devlist")), (0, [sr.uuid], ids[:1]))
        sr("sr_detach")
        sr("sr_delete")

    def test_what_stands_on_a_lun_is_left_alone(self):
        self.store = self.target([LUN, LUN])
        sh("mkfs.ext4", "-q", "-F", self.store.files[0])
        sh("modprobe", "loop")
        loop = sh("losetup", "-f", "--show", self.store.files[1]).strip()
        sh("pvcreate", loop)
        sh("losetup", "-d", loop)
        was = [read(path, MIB) for path in self.store.files.values()]
        for lun, code, words in (("0", 42, "ext4"), ("1", 56, "physical volume")):
            with self.subTest(lun):
                with self.refused(code, words):
                    self.sr(made=False, LUNid=lun)("sr_create", "0")
                self.clean()
        self.assertEqual([read(path, MIB) for path in self.store.files.values()], was)


class Owners(LvmOverIscsi):
    def test_a_second_smapid_is_told_the_owner_and_takes_nothing(self):
        self.store = self.target([LUN])
        sr = self.sr()
        disk = sr.disk(8 * MIB)
        sr("sr_detach")
        rival = Lab()
        self.addCleanup(rival.close)
        rival.start()
        theirs = rival.repository(self.KIND)
        theirs.uuid, theirs.config = sr.uuid, sr.config
        with self.refused(47, "belongs to server"):
            theirs("sr_attach")
        self.clean()
        sr("sr_attach")
        self.assertIn(disk, sr.contents())
        self.end_of(sr)


class Paths(LvmOverIscsi):
    """One LUN, two portals, of which one is at the other end of a wire."""

    @deep
    def test_without_multipathd_the_first_portal_is_used(self):
        wire = self.two_portals(LUN)
        sr = self.sr(LUNid="", SCSIid=self.store.identity(0), target=f"{wire.far},127.0.0.1")
        self.assertEqual(len(kit.sessions()), 1)
        link, = links()
        self.assertRegex(os.path.realpath(link), "^/dev/sd")
        sr("sr_detach")
        self.clean()

    def test_a_map_over_all_portals_outlives_the_loss_of_one(self):
        wire, daemon = self.two_portals(LUN), self.multipathd()
        sr = self.sr(LUNid="", SCSIid=self.store.identity(0))
        self.assertEqual(len(kit.sessions()), 2)
        link, = links()
        self.assertEqual(os.path.realpath(link), os.path.realpath(f"/dev/mapper/{self.store.identity(0)}"))
        self.assertEqual(list(daemon.paths(self.store.identity(0)).values()), [True, True])
        disk = sr.disk(8 * MIB)
        path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
        write(path, b"both" + bytes(508))
        code, document = self.probe_errors(**sr.config)  # its session becomes a path for a while
        self.assertEqual((code, self.texts(document, "UUID")), (0, [sr.uuid]))
        self.assertEqual(len(kit.sessions()), 2)
        wire.cut()
        write(path, b"one " + bytes(508), MIB)
        kit.eventually(lambda: sorted(daemon.paths(self.store.identity(0)).values()) == [False, True])
        self.lab.kill9()
        self.lab.start()
        write(path, b"one " + bytes(508), 2 * MIB)
        wire.cut(False)
        kit.eventually(lambda: list(daemon.paths(self.store.identity(0)).values()) == [True, True])
        self.assertEqual([read(path, 4, offset) for offset in (0, MIB, 2 * MIB)], [b"both", b"one ", b"one "])
        with self.refused(16):
            sr("sr_detach")
        sr("vdi_detach", vdi_uuid=disk)
        sr("sr_detach")
        self.clean()
        self.assertEqual(daemon.noted(), [])
        sr("sr_attach")
        self.end_of(sr)

    @deep
    def test_what_multipathd_is_not_to_map_is_reached_by_one_portal(self):
        self.two_portals(LUN)
        daemon = self.multipathd()
        kit.put("/etc/multipath.conf", "blacklist {\n wwid \".*\"\n}\n")
        sh("multipathd", "reconfigure")
        sr = self.sr(LUNid="", SCSIid=self.store.identity(0))
        self.assertEqual((len(kit.sessions()), daemon.noted()), (1, []))
        sr("sr_detach")
        self.clean()

    @deep
    def test_a_map_goes_without_its_daemon_and_without_its_sessions(self):
        self.two_portals(LUN)
        for lost in (False, True):
            daemon = kit.Multipathd()
            sr = self.sr(LUNid="", SCSIid=self.store.identity(0))
            self.assertEqual(len(kit.mappings()), 1)
            daemon.close()
            if lost:
                sh("iscsiadm", "-m", "session", "-u")
                self.assertEqual((len(kit.sessions()), len(kit.mappings())), (0, 1))
            sr("sr_detach")
            self.clean()
            self.assertEqual(daemon.noted(), [])
            sr("sr_attach")
            self.assertEqual((len(kit.sessions()), kit.mappings()), (1, []))
            self.end_of(sr)

    @deep
    def test_what_the_host_has_mapped_for_itself_stays(self):
        wire, daemon = self.two_portals(LUN), self.multipathd()
        identity = self.store.identity(0)
        for portal in ("127.0.0.1:3260", f"{wire.far}:3260"):
            kit.login(IQN, portal)
        self.addCleanup(sh, "multipath", "-w", identity)
        self.addCleanup(kit.logout, IQN)
        sh("udevadm", "settle")
        kit.eventually(lambda: sh("multipathd", "add", "map", identity).startswith("ok"))
        before = kit.held()
        self.assertEqual(len(daemon.paths(identity)), 2)
        sr = self.sr(LUNid="", SCSIid=identity)
        self.assertEqual(len(daemon.paths(identity)), 4)
        link, = links()
        self.assertEqual(os.path.realpath(link), os.path.realpath(f"/dev/mapper/{identity}"))
        sr("sr_detach")
        self.assertEqual(links(), [])
        self.assertEqual((kit.left(before), kit.left(kit.held(), before)), ([], []))
        self.assertEqual((list(daemon.paths(identity).values()), daemon.noted()), ([True, True], [identity]))
        sr("sr_attach")
        sr("sr_detach")
        sr("sr_delete")
        self.assertEqual((kit.left(before), kit.left(kit.held(), before)), ([], []))

    @deep
    def test_a_host_that_maps_every_disk_maps_one_of_one_portal(self):
        self.store = self.target([LUN])
        daemon = self.multipathd()
        kit.put("/etc/multipath.conf", "defaults {\n find_multipaths no\n}\n")
        sh("multipathd", "reconfigure")
        sr = self.sr()
        link, = links()
        self.assertEqual(os.path.realpath(link), os.path.realpath(f"/dev/mapper/{self.store.identity(0)}"))
        self.end_of(sr)
        self.assertEqual(daemon.noted(), [])

    @deep
    def test_all_targets_and_a_portal_that_is_away_and_growth(self):
        volume = kit.Volume(LUN)
        self.addCleanup(volume.remove)
        wire, daemon = self.two_portals(volume.path), self.multipathd()
        identity = self.store.identity(0)
        sr = self.sr(LUNid="", SCSIid=identity, targetIQN="*")
        self.assertEqual(list(daemon.paths(identity).values()), [True, True])
        before = int(sr.page(limit=1)["sr"]["physical_size"])
        volume.resize(3 * LUN)
        self.lab.kill9()
        self.lab.start()
        sr("sr_attach")
        self.assertEqual(int(sr.page(limit=1)["sr"]["physical_size"]) - before, 2 * LUN)
        sr("sr_detach")
        self.clean()
        wire.cut()
        sr("sr_attach")
        self.assertEqual((len(kit.sessions()), len(daemon.paths(identity))), (1, 1))
        wire.cut(False)
        sr("sr_detach")
        self.clean()
        sr("sr_delete")
        self.clean()
        self.assertEqual(daemon.noted(), [])

    @deep
    def test_killed_or_failed_nothing_is_left(self):
        self.two_portals(LUN)
        daemon = self.multipathd()
        new = lambda: self.sr(made=False, LUNid="", SCSIid=self.store.identity(0))  # noqa: E731
        killed.at(self, self.lab, new, self.gone, "sr_attach", "iscsi_logged_in", "iscsi_scanned", "multipath_mapped")
        for method in ("sr_create", "sr_detach"):
            killed.at(self, self.lab, new, self.gone, method, "multipath_unmapped")
        self.assertEqual(daemon.noted(), [])


class Programs(LvmOverIscsi):
    @deep
    def test_what_is_connected_starts_no_program_that_is_not_needed(self):
        self.store = self.target([LUN])
        sr = self.sr(made=False)
        self.addCleanup(self.end, sr)
        sr("sr_create", "0")
        with execs.traced(self.lab) as started:
            sr("sr_attach")
        names = execs.names(started)
        self.assertEqual(names[:2], ["iscsiadm", "iscsiadm"])  # discovery, login
        self.assertLessEqual(set(names[2:]), {"pvs", "lvcreate"})  # lvcreate: MGT, once in the life of an SR
        disk = sr.disk(4 * MIB)
        with execs.traced(self.lab) as started:
            sr("sr_attach")
            sr("vdi_attach", "true", vdi_uuid=disk)
        names = execs.names(started)
        self.assertEqual([name for name in names if name != "pvs"], ["lvchange"])
        self.assertLessEqual(len(names), 2)  # pvs, once after the disk was made
        with execs.traced(self.lab) as started:
            sr("vdi_activate", "true", vdi_uuid=disk)
            sr.released(disk)
            sr("sr_scan")
        self.assertEqual(execs.names(started), [])
        self.end_of(sr)


class Crashes(LvmOverIscsi):
    PLUGS = (("sr_create", "sr_create_marked"), ("sr_delete", "sr_delete_unmarked"))

    def new(self):
        return self.sr(made=False, **SECRET)

    def test_killed_before_its_group_is_made_nothing_is_left(self):
        self.store = self.target([LUN], chap=CHAP)
        trial = killed.trial(self, self.lab, self.new, self.gone, "sr_create", "sr_create_made:kill:1")
        self.assertEqual(trial, "sr_create_made")

    def test_a_power_cut_while_it_is_made_leaves_nothing_once_the_password_is_there(self):
        self.store = self.target([LUN], chap=CHAP)
        for method, point in self.PLUGS[:rounds(1)]:
            with self.subTest(method):
                killed.unplugged(self, self.lab, self.new, self.gone, method, point)

    @deep
    def test_killed_or_failed_at_each_point_nothing_is_left(self):
        self.store = self.target([LUN], chap=CHAP)
        killed.everywhere(self, self.lab, self.new, self.gone)

    @deep
    def test_killed_while_it_forks_the_disk_is_whole_and_nothing_is_left(self):
        self.store = self.target([LUN])
        sr = self.sr()
        disk = sr.disk(8 * MIB)
        for point in ("fork_linked", "fork_child_made", "fork_published", "fork_hidden", "effects_done"):
            with self.subTest(point):
                self.lab.arm(f"{point}:kill")
                with self.assertRaises(killed.BROKEN):
                    sr("vdi_snapshot", vdi_uuid=disk)
                self.assertTrue(self.lab.died())
                self.lab.start()
                path = sr("vdi_attach", "false", vdi_uuid=disk)["params"]
                self.assertTrue(os.path.exists(path))
                sr("vdi_detach", vdi_uuid=disk)
                sr("sr_detach")
                self.clean()
                sr("sr_attach")
        self.end_of(sr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
