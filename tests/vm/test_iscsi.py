# SPDX-License-Identifier: LGPL-2.1-or-later
"""Type iscsi, each LUN a disk, against the kernel's own target."""
import hashlib
import os
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import execs  # noqa: E402
import kit  # noqa: E402
from iscsi_help import CHAP, HOST, INCOMING, IQN, POINTS, IscsiTest, links, read, write  # noqa: E402
from kit import MIB, sh  # noqa: E402
from lab import deep, raises  # noqa: E402

OTHER = "iqn.2024-01.org.example:other"


def uuid_of(scsi_id):
    digits = hashlib.md5(scsi_id.encode()).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def by_lun(sr):
    """Rows by LUN number."""
    return {int(row["sm_config"]["LUNid"]): row for row in sr.contents().values()}


class Disks(IscsiTest):
    def test_disks_are_named_by_their_luns_and_are_free_until_asked_for(self):
        self.target([16 * MIB, 8 * MIB])
        sr = self.sr()
        rows = by_lun(sr)
        self.assertEqual(sorted(rows), [0, 1])
        for number, size in ((0, 16 * MIB), (1, 8 * MIB)):
            row = rows[number]
            self.assertEqual((int(row["size"]), row["managed"]), (size, False))
            self.assertEqual(row["uuid"], uuid_of(row["sm_config"]["SCSIid"]))
        with self.refused(46, "free"):
            sr("vdi_attach", "true", vdi_uuid=rows[0]["uuid"])

    def test_a_create_takes_the_smallest_that_is_large_enough_and_a_delete_gives_it_back(self):
        self.target([16 * MIB, 8 * MIB, 8 * MIB, 32 * MIB])
        sr = self.sr()
        rows = by_lun(sr)
        first = sr.disk(9 * MIB)
        self.assertEqual(first, rows[0]["uuid"])
        self.assertEqual({sr.disk(MIB), sr.disk(MIB)}, {rows[1]["uuid"], rows[2]["uuid"]})
        self.assertEqual(sr.disk(MIB), rows[3]["uuid"])
        with self.refused(44):
            sr.disk(MIB)
        sr("vdi_delete", vdi_uuid=first)
        sr("vdi_delete", vdi_uuid=first)
        with self.refused(44):
            sr.disk(17 * MIB)
        self.assertEqual(sr.disk(MIB), first)
        with self.refused(39):
            sr("sr_delete")

    def test_an_introduce_takes_the_one_it_names(self):
        self.target([8 * MIB, 8 * MIB])
        sr = self.sr()
        rows = by_lun(sr)
        for number, sm_config in ((1, {"LUNid": "1"}), (0, {"SCSIid": rows[0]["sm_config"]["SCSIid"]})):
            made = sr("vdi_introduce", new_uuid=uuid_of("x"), vdi_location="y", vdi_sm_config=sm_config)
            self.assertEqual(made["uuid"], rows[number]["uuid"])
            self.assertTrue(sr.contents()[made["uuid"]]["managed"])
        with self.refused(46):
            sr("vdi_introduce", new_uuid=uuid_of("x"), vdi_location="y", vdi_sm_config={"LUNid": "7"})

    @deep
    def test_content_survives_detach_restart_and_another_session(self):
        target = self.target([8 * MIB, 16 * MIB])
        sr = self.sr()
        vdi = sr.disk(8 * MIB)
        path = sr("vdi_attach", "true", vdi_uuid=vdi)["params"]
        sr("vdi_activate", "true", vdi_uuid=vdi)
        write(path, b"one" + bytes(509))
        self.assertEqual(read(target.files[0], 3), b"one")
        self.lab.kill9()
        self.lab.start()
        self.assertEqual(len(kit.sessions()), 1)
        write(path, b"two" + bytes(509))
        sr.released(vdi)
        sr("sr_detach")
        self.assertEqual((kit.sessions(), links()), ([], []))
        sr("sr_attach")
        again = sr("vdi_attach", "false", vdi_uuid=vdi)["params"]
        self.assertEqual((again, read(again, 3)), (path, b"two"))
        sr("vdi_detach", vdi_uuid=vdi)

    def test_scans_see_luns_come_go_grow_and_shrink(self):
        volume = kit.Volume(16 * MIB)
        self.addCleanup(volume.remove)
        target = self.target([8 * MIB, volume.path])
        sr = self.sr()
        vdi = sr.disk(16 * MIB)
        number = target.add(24 * MIB)
        sr("sr_scan")
        self.assertEqual(sorted(by_lun(sr)), [0, 1, number])
        target.remove(number)
        sr("sr_scan")
        self.assertEqual(sorted(by_lun(sr)), [0, 1])
        volume.resize(32 * MIB)
        self.assertEqual(sr("vdi_resize", str(32 * MIB), vdi_uuid=vdi)["uuid"], vdi)
        self.assertEqual(int(by_lun(sr)[1]["size"]), 32 * MIB)
        with self.refused(110, "larger on its target"):
            sr("vdi_resize", str(64 * MIB), vdi_uuid=vdi)
        volume.resize(12 * MIB)
        sr("sr_scan")
        row = by_lun(sr)[1]
        self.assertEqual((row["state"], int(row["size"])), ("damaged", 32 * MIB))
        with self.refused(46, "shrunk"):
            sr("vdi_attach", "true", vdi_uuid=vdi)
        volume.resize(32 * MIB)
        sr("sr_scan")
        self.assertEqual(by_lun(sr)[1]["state"], "live")
        path = sr("vdi_attach", "true", vdi_uuid=vdi)["params"]
        volume.resize(40 * MIB)
        self.lab.kill9()
        self.lab.start()  # the session that was there knows the LUN as it was
        self.assertEqual(kit.size_of(path), 40 * MIB)
        sr("vdi_detach", vdi_uuid=vdi)

    def test_only_the_luns_named_are_there(self):
        self.target([8 * MIB, 8 * MIB, 8 * MIB])
        sr = self.sr(LUNid="0,2")
        self.assertEqual(sorted(by_lun(sr)), [0, 2])
        self.assertEqual(len(links()), 2)
        wanted = by_lun(sr)[2]["sm_config"]["SCSIid"]
        with self.refused(16, wanted):
            self.sr(SCSIid=wanted)
        sr("sr_detach")
        other = self.sr(SCSIid=wanted)
        self.assertEqual(sorted(by_lun(other)), [2])
        with open("/proc/partitions", encoding="ascii") as partitions:
            self.assertEqual(partitions.read().count(" sd"), 1)


class Programs(IscsiTest):
    def test_an_attach_starts_two_and_what_is_connected_none(self):
        self.target([8 * MIB])
        sr = self.sr(made=False)
        self.addCleanup(self.end, sr)
        sr("sr_create", "0")
        with execs.traced(self.lab) as started:
            sr("sr_attach")
        self.assertEqual(execs.names(started), ["iscsiadm", "iscsiadm"])  # discovery, login
        with execs.traced(self.lab) as started:
            sr("sr_attach")
            disk = sr.disk(MIB)
            sr.activated(disk)
            sr.released(disk)
            sr("sr_scan")
        self.assertEqual(execs.names(started), [])


class Ladder(IscsiTest):
    @raises(87, 95, 96, 107)
    def test_a_probe_leads_from_nothing_to_the_luns(self):
        self.target([8 * MIB, 16 * MIB], portals=("127.0.0.1:3260", "127.0.0.1:3270"))
        self.assertEqual(self.probe_errors()[0], 95)
        code, document = self.probe_errors(target="127.0.0.1")
        self.assertEqual(code, 96)
        self.assertEqual(self.texts(document, "TargetIQN"), [IQN, IQN, "*"])
        self.assertEqual(self.texts(document, "Port"), ["3270"])
        code, document = self.probe_errors(target="127.0.0.1", targetIQN=IQN + "x")
        self.assertEqual((code, self.texts(document, "IPAddress")), (96, ["127.0.0.1"] * 3))
        code, document = self.probe_errors(target="127.0.0.1", targetIQN=IQN, LUNid="5")
        self.assertEqual((code, self.texts(document, "LUNid"), self.texts(document, "size")),
                         (87, ["0", "1"], [str(8 * MIB), str(16 * MIB)]))
        ids = self.texts(document, "SCSIid")
        code, document = self.probe_errors(target="127.0.0.1", targetIQN=IQN, SCSIid="3600")
        self.assertEqual((code, self.texts(document, "SCSIid")), (107, ids))
        code, document = self.probe_errors(target="127.0.0.1", targetIQN=IQN, SCSIid=ids[0])
        self.assertEqual((code, self.texts(document, "SR")), (0, []))

    def test_all_targets_at_once(self):
        """As a wizard asks that was told "*": the LUNs of every target, and then an SR on some of them."""
        other = IQN + "-2"
        self.target([8 * MIB])
        self.target([16 * MIB, 24 * MIB], iqn=other)
        code, document = self.probe_errors(target="127.0.0.1", targetIQN="*", SCSIid="3600")
        self.assertEqual((code, sorted(self.texts(document, "size"))), (107, sorted(map(str, (8 * MIB, 16 * MIB, 24 * MIB)))))
        ids = dict(zip(self.texts(document, "size"), self.texts(document, "SCSIid")))
        sr = self.sr(targetIQN="*", SCSIid=f"{ids[str(8 * MIB)]},{ids[str(24 * MIB)]}")
        self.assertEqual(kit.sessions(), [(IQN, "127.0.0.1"), (other, "127.0.0.1")])
        self.assertEqual(sorted(int(row["size"]) for row in sr.contents().values()), [8 * MIB, 24 * MIB])
        sr("sr_detach")
        self.nothing_is_left()

    def test_the_document_reaches_remote_callers_after_the_sentence(self):
        self.target([8 * MIB])
        sr = self.sr(made=False)
        del sr.config["targetIQN"]
        with self.refused(96) as refusal:
            sr("sr_create", "0")
        sentence, _, document = refusal.exception.text.partition("\n")
        self.assertIn("no targetIQN", sentence)
        self.assertEqual(self.texts(document, "TargetIQN"), [IQN, "*"])

    @raises(106, 140, 141, 142)
    def test_what_is_wrong_has_its_code(self):
        self.target([8 * MIB])
        for code, keys in ((141, {"port": "3261"}), (142, {"port": "0"}), (142, {"port": "65536"}),
                           (140, {"target": "no-such-host.invalid"}), (106, {"targetIQN": "iqn.2024-13.org.example"}),
                           (106, {"localIQN": "host"}), (2, {"target": "a b"}), (2, {"targetIQN": "$(reboot)"}),
                           (2, {"LUNid": "one"}), (2, {"chapuser": "a\tb"}), (2, {"target": "-oProxyCommand"}),
                           (2, {"SCSIid": "../../sda"}), (95, {"target": ""}), (1, {"nonsense": "1"})):
            with self.subTest(code=code, **keys), self.refused(code):
                self.sr(made=False, **keys)("sr_create", "0")

    @deep
    def test_the_newest_name_of_the_host_does_not_change_its_own(self):
        target = self.target([8 * MIB])
        with open("/etc/iscsi/initiatorname.iscsi", encoding="ascii") as name:
            before = name.read()
        sr = self.sr(localIQN=OTHER)
        self.assertIn(OTHER, kit.read(f"{target.group}/dynamic_sessions"))
        with open("/etc/iscsi/initiatorname.iscsi", encoding="ascii") as name:
            self.assertEqual(name.read(), before)
        sr("sr_detach")

    @deep
    def test_addresses_are_compared_as_what_they_mean(self):
        for address in ("10.0.0.1", "10.0.0.10", "fd00::1"):
            sh("ip", "addr", "add", f"{address}/{24 if '.' in address else 64}", "dev", "lo", check=False)
        self.target([8 * MIB], portals=("10.0.0.1:3260", "10.0.0.10:3260", "[fd00::1]:3260"))
        for asked, shown in (("10.0.0.10", "10.0.0.10"), ("10.0.0.1", "10.0.0.1"), ("fd00:0:0::1", "fd00::1"),
                             ("10.0.0.99,10.0.0.10", "10.0.0.10"), ("[fd00::1]:3260", "fd00::1")):
            with self.subTest(asked):
                sr = self.sr(target=asked)
                self.assertEqual(kit.sessions(), [(IQN, shown)])
                sr("sr_detach")


class Passwords(IscsiTest):
    def config(self, **more):
        return super().config(**{"chapuser": CHAP[0], "chappassword": CHAP[1], "incoming_chapuser": INCOMING[0],
                                 "incoming_chappassword": INCOMING[1], **more})

    def watch(self, stop, seen):
        """Looks at every command line of the machine until told to stop."""
        while not stop.is_set():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for part in ("cmdline", "environ"):
                    try:
                        with open(f"/proc/{pid}/{part}", "rb") as words:
                            text = words.read()
                    except OSError:
                        continue
                    if b"Canary" in text:
                        seen.append(text)

    @raises(68)
    def test_both_sides_are_asked_and_no_password_is_seen_or_kept(self):
        self.target([8 * MIB], chap=CHAP, incoming=INCOMING)
        stop, seen = threading.Event(), []
        watcher = threading.Thread(target=self.watch, args=(stop, seen))
        watcher.start()
        try:
            sr = self.sr()
            vdi = sr.disk(MIB)
            self.lab.kill9()
            self.lab.start()
            self.assertEqual(sr.contents()[vdi]["state"], "live")
            with self.refused(68):
                self.sr(made=False, chappassword="Canary-wrong-wrong")("sr_create", "0")
            with self.refused(68):
                self.sr(made=False, incoming_chappassword="Canary-wrong-wrong")("sr_create", "0")
            sr("sr_detach")
        finally:
            stop.set()
            watcher.join()
        self.assertEqual(seen, [])
        self.assertNotIn("Canary", self.lab.log())
        for top in (self.lab.state, "/etc/iscsi", "/dev/smapid", "/run/tmp"):
            found = subprocess.run(["grep", "-rl", "--exclude=lun-*", "Canary", top], capture_output=True, check=False)
            self.assertEqual(found.stdout, b"", top)

    @deep
    def test_records_are_for_their_owner_alone_while_there_is_a_session(self):
        self.target([8 * MIB], chap=CHAP, incoming=INCOMING)
        sr = self.sr()
        for top, _, files in os.walk("/etc/iscsi/nodes"):
            for name in files:
                self.assertEqual(os.stat(os.path.join(top, name)).st_mode & 0o777, 0o600)
        sr("sr_detach")

    def test_a_lost_session_waits_for_the_password(self):
        self.target([8 * MIB], chap=CHAP, incoming=INCOMING)
        sr = self.sr()
        self.lab.kill9()
        sh("iscsiadm", "-m", "session", "-u")
        self.lab.start()
        with self.refused(47):
            sr("sr_scan")
        config, sr.config = sr.config, {}
        with self.refused(47, "password"):
            sr("sr_attach")
        sr.config = config
        sr("sr_attach")
        sr("sr_scan")
        sr("sr_detach")

    def test_a_probe_with_passwords_leaves_none(self):
        self.target([8 * MIB], chap=CHAP, incoming=INCOMING)
        code, document = self.probe_errors(target="127.0.0.1", chapuser=CHAP[0], chappassword=CHAP[1])
        self.assertEqual((code, self.texts(document, "TargetIQN")), (96, [IQN, "*"]))
        self.assertEqual(self.probe_errors(target="127.0.0.1", chapuser=CHAP[0], chappassword="wrongwrongwrong")[0], 68)


class Crashes(IscsiTest):
    @deep
    def test_killed_at_each_point_nothing_is_left_and_the_next_attach_works(self):
        self.target([8 * MIB], chap=CHAP)
        for method in ("sr_create", "sr_attach"):
            for point in POINTS:
                with self.subTest(method=method, point=point):
                    sr = self.sr(made=False, chapuser=CHAP[0], chappassword=CHAP[1])
                    if method == "sr_attach":
                        sr("sr_create", "0")
                    self.lab.arm(f"{point}:kill")
                    with self.assertRaises((OSError, EOFError)):
                        sr(method, *(["0"] if method == "sr_create" else []))
                    self.assertTrue(self.lab.died())
                    self.lab.start()
                    kit.settle()
                    self.assertEqual(kit.left(self.before), [])
                    if method == "sr_create":
                        sr("sr_create", "0")
                    sr("sr_attach")
                    sr("sr_detach")
                    sr("sr_delete")

    @deep
    def test_failed_at_each_point_nothing_is_left(self):
        self.target([8 * MIB])
        for point in POINTS:
            with self.subTest(point):
                sr = self.sr(made=False)
                sr("sr_create", "0")
                self.lab.arm(f"{point}:eio")
                with self.assertRaises(Exception):
                    sr("sr_attach")
                self.assertEqual(kit.left(self.before), [])
                sr("sr_attach")
                sr("sr_detach")
                sr("sr_delete")

    @deep
    def test_a_killed_probe_is_cleared_by_the_next_call(self):
        target = self.target([8 * MIB], chap=CHAP)
        self.lab.arm("iscsi_logged_in:kill")
        with self.assertRaises(Exception):
            self.lab.unix().call("sr_probe", path="/sm/iscsi", args=[],
                                 device_config=self.config(chapuser=CHAP[0], chappassword=CHAP[1]))
        self.assertTrue(self.lab.died())
        self.lab.start()
        self.assertEqual(len(kit.sessions()), 1)
        self.probe_errors(target="127.0.0.1")
        self.assertEqual(kit.left(self.before), [])
        self.assertTrue(target.group)

    def test_a_session_whose_interface_record_is_gone_is_ended(self):
        """As a login leaves it that came through after the daemon had been killed and started again."""
        self.target([8 * MIB])
        sr = self.sr()
        os.unlink(f"/etc/iscsi/ifaces/smapi-{sr.uuid}")
        sr("sr_detach")
        self.assertEqual(kit.sessions(), [])

    def test_a_target_that_goes_during_an_attach_leaves_nothing(self):
        target = self.target([8 * MIB])
        sr = self.sr(made=False)
        sr("sr_create", "0")
        target.enable(False)
        with self.assertRaises(Exception):
            sr("sr_attach")
        self.assertEqual(kit.left(self.before), [])
        target.enable()
        sr("sr_attach")
        sr("sr_detach")

    def test_the_hosts_own_session_is_left_alone(self):
        self.target([8 * MIB, 8 * MIB])
        self.addCleanup(kit.logout, IQN)
        disk = kit.login(IQN, lun=1)
        sr = self.sr(LUNid="0")
        vdi = sr.disk(MIB)
        path = sr("vdi_attach", "true", vdi_uuid=vdi)["params"]
        self.assertNotEqual(os.path.realpath(path), disk)
        sr("vdi_detach", vdi_uuid=vdi)
        sr("sr_detach")
        self.assertEqual(kit.sessions(), [(IQN, "127.0.0.1")])
        write(disk, bytes(512))


class Fencing(IscsiTest):
    """One guest plays two hosts: the daemon's session, and one of plain iscsiadm under another name."""

    def setUp(self):
        super().setUp()
        self.store = self.target([8 * MIB])
        self.addCleanup(kit.logout, IQN)
        self.other = kit.login(IQN, other=OTHER)
        self.sr_ = self.sr()
        self.vdi = self.sr_.disk(MIB)

    def keys(self):
        text = sh("sg_persist", "-n", "-i", "-k", self.other)
        return [line.strip() for line in text.splitlines() if line.strip().startswith("0x")]

    def test_who_is_not_registered_cannot_write_while_the_disk_is_active(self):
        epoch = self.sr_.activated(self.vdi)
        path = self.sr_("vdi_attach", "true", vdi_uuid=self.vdi)["params"]
        self.assertEqual(len(self.keys()), 1)
        self.assertEqual(int(self.keys()[0], 16) & (1 << 40) - 1, epoch)
        self.assertEqual(int(self.keys()[0], 16) >> 56, 0x53)
        self.assertIn("type: Write Exclusive, registrants only", sh("sg_persist", "-n", "-i", "-r", self.other))
        write(path, b"mine" + bytes(508))
        with self.assertRaises(OSError):
            write(self.other, bytes(512))
        self.assertEqual(read(path, 4), b"mine")
        self.sr_.released(self.vdi)
        self.assertEqual(self.keys(), [])
        write(self.other, bytes(512))

    def test_a_writer_that_was_preempted_gets_a_conflict(self):
        self.sr_.activated(self.vdi)
        path = self.sr_("vdi_attach", "true", vdi_uuid=self.vdi)["params"]
        write(path, b"mine" + bytes(508))
        mine = self.keys()[0]
        sh("sg_persist", "-n", "-o", "--register", "--param-sark=0x99", self.other)
        sh("sg_persist", "-n", "-o", "--preempt-abort", "--param-rk=0x99", f"--param-sark={mine}", "--prout-type=5", self.other)
        with self.assertRaises(OSError):
            write(path, bytes(512))
        self.assertEqual(read(path, 4), b"mine")
        sh("sg_persist", "-n", "-o", "--clear", "--param-rk=0x99", self.other)

    def test_a_disk_of_another_cluster_is_not_taken_from_it(self):
        sh("sg_persist", "-n", "-o", "--register", "--param-sark=0x99", self.other)
        sh("sg_persist", "-n", "-o", "--reserve", "--param-rk=0x99", "--prout-type=5", self.other)
        self.sr_("vdi_attach", "true", vdi_uuid=self.vdi)
        with self.refused(24, "0x0000000000000099"):
            self.sr_("vdi_activate", "true", vdi_uuid=self.vdi)
        self.assertEqual(self.keys(), ["0x99"])
        sh("sg_persist", "-n", "-o", "--clear", "--param-rk=0x99", self.other)
        self.sr_("vdi_activate", "true", vdi_uuid=self.vdi)
        self.sr_.released(self.vdi)

    def test_what_a_dead_session_of_ours_left_is_preempted_by_a_newer_epoch(self):
        first = self.sr_.activated(self.vdi)
        mine = self.keys()[0]
        self.lab.kill9()
        sh("iscsiadm", "-m", "node", "-I", "smapi-" + self.sr_.uuid, "-u")
        self.assertEqual(self.keys(), [mine])
        self.lab.start()
        self.sr_("vdi_deactivate", vdi_uuid=self.vdi)
        second = self.sr_.activated(self.vdi)
        self.assertGreater(second, first)
        self.assertEqual([int(key, 16) & (1 << 40) - 1 for key in self.keys()], [second])
        self.sr_.released(self.vdi)

    @deep
    def test_killed_between_registering_and_reserving_the_next_activation_takes_it(self):
        self.sr_("vdi_attach", "true", vdi_uuid=self.vdi)
        self.lab.arm("fence_registered:kill")
        with self.assertRaises(Exception):
            self.sr_("vdi_activate", "true", vdi_uuid=self.vdi)
        self.assertTrue(self.lab.died())
        self.lab.start()
        self.sr_("vdi_deactivate", vdi_uuid=self.vdi)
        self.assertEqual(self.keys(), [])
        self.sr_.activated(self.vdi)
        self.sr_.released(self.vdi)

    def test_a_holder_whose_lease_is_broken_loses_the_disk_it_has_open(self):
        epoch = self.sr_.activated(self.vdi)
        path = self.sr_("vdi_attach", "true", vdi_uuid=self.vdi)["params"]
        fd = os.open(path, os.O_WRONLY | os.O_SYNC)
        self.addCleanup(os.close, fd)
        os.pwrite(fd, b"mine" + bytes(508), 0)
        self.lab.admin().call("smapi.lease_break", sr_uuid=self.sr_.uuid, vdi_uuid=self.vdi, host=self.lab.local_host,
                              epoch=str(epoch), evidence="fenced", reason="a test")
        with self.assertRaises(OSError):
            os.pwrite(fd, bytes(512), 0)
        with self.assertRaises(OSError):
            write(self.other, bytes(512))
        self.assertEqual(read(path, 4), b"mine")
        self.assertEqual([int(key, 16) & (1 << 40) - 1 for key in self.keys()], [epoch | 1 << 39])
        self.sr_("vdi_detach", vdi_uuid=self.vdi)
        self.sr_("sr_detach")
        self.sr_("sr_attach")  # what shut it out is no epoch that was forgotten
        with self.assertRaises(OSError):
            write(self.other, bytes(512))
        second = self.sr_.activated(self.vdi)
        self.assertGreater(second, epoch)
        write(path, b"next" + bytes(508))
        self.sr_.released(self.vdi)

    @deep
    def test_a_target_without_reservations_works_and_is_not_called_fenced(self):
        for store in self.store.stores.values():
            kit.put(f"{store}/attrib/emulate_pr", 0)
        self.sr_("sr_detach")
        self.sr_("sr_attach")
        self.sr_.activated(self.vdi)
        self.assertEqual(self.sr_.page(limit=1)["sr"]["fencing"], "advisory")
        self.sr_.released(self.vdi)


class Rebuilt(IscsiTest):
    """Alone with its daemon, since what it does makes every disk of the daemon wait."""

    def test_an_epoch_on_a_disk_that_this_server_does_not_remember_makes_writers_wait(self):
        self.target([8 * MIB])
        self.addCleanup(kit.logout, IQN)
        other = kit.login(IQN, other=OTHER)
        sr = self.sr()
        vdi = sr.disk(MIB)
        epoch = sr.activated(vdi)
        mine = next(line.strip() for line in sh("sg_persist", "-n", "-i", "-k", other).splitlines() if "0x53" in line)
        sr.released(vdi)
        newer = hex(int(mine, 16) & ~((1 << 40) - 1) | epoch + (1 << 21))
        sh("sg_persist", "-n", "-o", "--register", f"--param-sark={newer}", other)
        sr("sr_detach")
        sr("sr_attach")
        sr("vdi_attach", "true", vdi_uuid=vdi)
        with self.refused(24, "rebuilt"):
            sr("vdi_activate", "true", vdi_uuid=vdi)
        sh("sg_persist", "-n", "-o", "--clear", f"--param-rk={newer}", other)


class Lost(IscsiTest):
    """Alone with its daemon: after a rebuild nobody may write for a while."""

    @deep
    def test_a_lost_database_is_made_anew_from_the_session(self):
        self.target([8 * MIB, 4 * MIB])
        sr = self.sr()
        sr.disk(MIB)  # a LUN has no place for a label
        kit.made_anew(self, sr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
