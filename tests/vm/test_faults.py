# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes wrong beneath repositories of all types, in a guest: programs that fail or do not end, devices that take no
writes, targets and servers that go. Each time the right code and sentence, nothing left behind, and all well again when the
cause is gone."""
import concurrent.futures
import contextlib
import glob
import os
import re
import shutil
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
import execs  # noqa: E402
import kit  # noqa: E402
import places  # noqa: E402
from iscsi_help import IQN, IscsiTest  # noqa: E402
from kit import MIB, eventually, held, left, sh  # noqa: E402
from lab import Fault, Lab, LabTest, Plays, Repository, deep, new_uuid, raises, rounds  # noqa: E402


class FaultsTest(LabTest):
    PROGRAMS = ()

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        if cls.PROGRAMS:
            cls.plays = Plays(cls.lab, *cls.PROGRAMS)
            for name in cls.PROGRAMS:
                cls.addClassCleanup(sh, "umount", f"/sbin/{name}")
        cls.lab.start()

    def setUp(self):
        self.held, self.names = held(), os.listdir(self.lab.mounts)

    def clean(self):
        self.assertEqual(left(self.held), [])
        self.assertEqual(os.listdir(self.lab.mounts), self.names)

    def sr(self, kind, **config):
        return Repository(self.lab.unix("xapi"), kind, new_uuid(), config)

    def end(self, sr):
        sr.delete_disks()
        sr("sr_delete")
        self.clean()


class Programs(FaultsTest):
    TYPES = ("extoiscsi", "nfs", "ext")  # those of LUNs and volumes have it in their own suites

    @deep
    def test_calls_on_what_is_connected_start_none(self):
        for kind in self.TYPES:
            with self.subTest(kind):
                sr = self.lab.repository(kind).made()
                with execs.traced(self.lab) as started:
                    sr("sr_attach")
                    disk = sr.disk(4 * MIB)
                    sr.activated(disk)
                    sr.released(disk)
                    sr("sr_scan")
                self.assertEqual(execs.names(started), [])
                sr.delete_disks()
                sr("sr_delete")


class Devices(FaultsTest):
    PROGRAMS = ("mkfs.ext4", "lvm")

    def untouched(self, device):
        self.assertEqual(sh("wipefs", "-n", device), "")

    @raises(57)
    def test_a_file_system_that_is_not_made(self):
        sr = self.sr("ext", device=kit.spare())
        with self.plays.fails("mkfs.ext4", "-q", 1), self.refused(57, "mkfs.ext4 exited with 1", "does not want to"):
            sr("sr_create", "0")
        self.clean()
        self.untouched(sr.config["device"])
        sr.made()
        self.end(sr)

    def test_a_mkfs_that_outlives_the_daemon_is_waited_for(self):
        """R8: whoever recovers acts when what the dead one started is gone, and not before."""
        sr, mark = self.sr("ext", device=kit.spare()), os.path.join(self.lab.dir, "slow")
        group = f"XSLocalEXT-{sr.uuid}"
        slow = f"sleep 7 <&0 & echo $! >{mark}; wait\n"  # mkfs dies with its parent, as told; what it started does not
        seen = []
        with self.plays.play("mkfs.ext4", "-q", slow):
            caller = threading.Thread(target=self.quietly, args=(sr, "sr_create", "0"))
            caller.start()
            eventually(lambda: os.path.exists(mark) and kit.read(mark))
            pid = int(kit.read(mark))
            self.lab.kill9()
            caller.join()
            self.assertTrue(os.path.exists(f"/proc/{pid}"))
            self.lab.launch()
            while os.path.exists(f"/proc/{pid}"):
                there = group in sh("vgs", check=False)
                if os.path.exists(f"/proc/{pid}"):
                    seen.append(there)
                time.sleep(0.1)
            self.assertTrue(self.lab.wait_ready())
        self.assertGreater(len(seen), 1)
        self.assertTrue(all(seen), "the recovery did not wait")
        eventually(lambda: group not in sh("vgs", check=False))
        self.clean()
        self.untouched(sr.config["device"])
        sr.made()
        self.end(sr)

    @staticmethod
    def quietly(sr, method, *args):
        with contextlib.suppress(Fault, OSError, EOFError, Exception):
            sr.by(sr.client.lab.unix())(method, *args)

    @raises(53)
    def test_a_volume_that_somebody_keeps_open(self):
        sr = self.sr("ext", device=kit.spare()).made()
        volume = os.open(f"/dev/XSLocalEXT-{sr.uuid}/{sr.uuid}", os.O_RDONLY)
        try:
            with self.refused(53):
                sr("sr_detach")
        finally:
            os.close(volume)
        sr("sr_detach")
        self.clean()
        sr("sr_attach")
        self.end(sr)

    @raises(54)
    def test_a_device_whose_middle_takes_no_writes(self):
        disk, name = kit.spare(), "kit-torn"
        end, sound = kit.size_of(disk) // 512, 64 * MIB // 512
        table = f"0 {sound} linear {disk} 0\n{sound} {end - 2 * sound} error\n{end - sound} {sound} linear {disk} 0\n"
        sh("dmsetup", "create", name, input=table.encode())
        self.addCleanup(sh, "dmsetup", "remove", "--retry", name)
        self.held = held()
        sr = self.sr("lvm", device=f"/dev/mapper/{name}").made()
        with self.refused(54, "Input/output error"):
            sr.disk(256 * MIB, vdi_sm_config={"type": "raw"})
        self.assertEqual(sr.contents(), {})
        sr.disk(4 * MIB, vdi_sm_config={"type": "raw"})
        self.end(sr)

    @raises(44, 55)
    def test_a_device_that_is_read_only_and_a_group_that_is_full(self):
        device = kit.spare()
        sr = self.sr("lvm", device=device)
        sh("blockdev", "--setro", device)
        try:
            with self.refused(55, "pvcreate"):
                sr("sr_create", "0")
        finally:
            sh("blockdev", "--setrw", device)
        self.untouched(device)
        sr.made()
        with self.refused(44):
            sr.disk(4096 * MIB, vdi_sm_config={"type": "raw"})
        vdi = sr.disk()
        sh("blockdev", "--setro", device)
        try:
            with self.assertRaises(Fault) as refusal:
                sr("vdi_snapshot", vdi_uuid=vdi)
            self.assertIn(refusal.exception.code, (50, 82), refusal.exception.text)
        finally:
            sh("blockdev", "--setrw", device)
        sr("sr_attach")
        self.assertEqual(set(sr.contents()), {vdi})
        sr("vdi_snapshot", vdi_uuid=vdi)
        sr("sr_scan")
        self.end(sr)

    def test_two_groups_of_one_name(self):
        one, two = kit.spare(), kit.spare()
        sr = self.sr("lvm", device=f"{one},{two}")
        for disk in (one, two):
            sh("vgcreate", "--devices", disk, f"VG_XenStorage-{sr.uuid}", disk)
        with self.refused(47, "two volume groups"):
            sr("sr_attach")
        self.clean()
        kit.wipe(one)
        kit.wipe(two)


class Iscsi(IscsiTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lab.stop()
        cls.lab.process = None
        cls.plays = Plays(cls.lab, "iscsiadm")
        cls.addClassCleanup(sh, "umount", "/sbin/iscsiadm")
        cls.lab.start()

    @raises(69, 85)
    def test_sessions_that_do_not_end(self):
        self.target([8 * MIB])
        sr = self.sr()
        for code, script, words in ((69, "echo 'no' >&2; exit 9\n", "end session"), (85, "exit 0\n", "does not end")):
            with self.plays.play("iscsiadm", "-u", script), self.refused(code, words):
                sr("sr_detach")
            self.assertEqual(kit.sessions(), [(IQN, "127.0.0.1")])
        sr("sr_detach")
        self.nothing_is_left()
        sr("sr_attach")
        sr("sr_detach")

    @raises(84)
    def test_a_session_of_ours_with_another_target(self):
        self.target([8 * MIB])
        other = "iqn.2024-01.org.example:else"
        self.target([8 * MIB], iqn=other, portals=("127.0.0.1:3280",))
        sr = self.sr(made=False)
        sr("sr_create", "0")
        name = "smapi-" + sr.uuid
        os.makedirs("/etc/iscsi/ifaces", exist_ok=True)
        kit.put(f"/etc/iscsi/ifaces/{name}", f"iface.iscsi_ifacename = {name}\niface.transport_name = tcp\n")
        sh("iscsiadm", "-m", "node", "-o", "new", "-T", other, "-p", "127.0.0.1:3280", "-I", name)
        sh("iscsiadm", "-m", "node", "-T", other, "-I", name, "--login")
        with self.refused(84, other):
            sr("sr_attach")
        self.assertEqual(kit.sessions(), [])  # it bore our name: it was ours to end
        shutil.rmtree(f"/etc/iscsi/nodes/{other}", ignore_errors=True)
        sr("sr_attach")
        sr("sr_detach")

    @raises(89, 99)
    def test_none_or_two_luns_where_one_is_wanted(self):
        self.target([64 * MIB, 64 * MIB])
        for kind, code, more in (("lvmoiscsi", 89, {}), ("extoiscsi", 89, {}), ("extoiscsi", 99, {"LUNid": "0,1"})):
            with self.subTest(kind=kind, code=code), self.refused(code):
                Repository(self.lab.unix(), kind, new_uuid(), self.config(**more))("sr_create", "0")

    @raises(67, 98)
    def test_luns_without_a_medium_or_an_identity(self):
        files = ["/run/tmp/user-1", "/run/tmp/user-2"]
        for path in files:
            with open(path, "wb") as out:
                out.truncate(8 * MIB)
        target = kit.UserTarget(IQN, files)
        self.addCleanup(target.close)
        flags = "/sys/module/scsi_mod/parameters/default_dev_flags"
        kit.put(flags, 0x4000000)  # the kernel asks no disk for its pages
        self.addCleanup(kit.put, flags, 0)
        sr = self.sr(made=False)
        with self.refused(98, "identity"):
            sr("sr_create", "0")
        self.nothing_is_left()
        target._admin("update", "logicalunit", "--tid", "1", "--lun", "1", "--params", "online=0")
        with self.refused(67, "15 s"):
            sr("sr_create", "0")


class Gone(IscsiTest):
    """A target that goes while it is looked at, and one that does not come back."""

    LUNS = {"extoiscsi": 64 * MIB, "lvmoiscsi": 128 * MIB, "iscsi": 8 * MIB}
    SECONDS = 60  # of a call that has to do with a target that is gone; the kernel itself would wait for 120

    def setUp(self):
        super().setUp()
        self.store = self.target(list(self.LUNS.values()))

    def made(self, kind):
        """An SR of its own client, detached, on the LUN that is this type's."""
        sr = Repository(self.lab.unix("xapi"), kind, new_uuid(), self.config(LUNid=str(list(self.LUNS).index(kind))))
        sr("sr_create", "0")
        self.addCleanup(self.end, sr)
        return sr

    def within(self, call, *args, **keys):
        begun = time.monotonic()
        try:
            return call(*args, **keys)
        finally:
            self.assertLess(time.monotonic() - begun, self.SECONDS, args)

    def lost(self):
        """The target goes, and the kernel has noticed."""
        self.store.enable(False)
        states = "/sys/class/iscsi_session/*/state"
        eventually(lambda: all(kit.read(path) != "LOGGED_IN" for path in glob.glob(states)))

    def attached(self, kind):
        """(SR, disk): attached and active, of a form that has a device of its own where the type knows any."""
        sr = self.made(kind)
        sr("sr_attach")
        disk = sr.disk(4 * MIB, **({} if kind == "iscsi" else {"vdi_sm_config": {"type": "raw"}}))
        sr("vdi_attach", "true", vdi_uuid=disk)
        sr("vdi_activate", "true", vdi_uuid=disk)
        return sr, disk

    def let_go(self, sr, disk):
        """All that a host has of a disk and its SR is given back; what it cannot have is refused, and nobody waits."""
        with self.refused(47, "does not answer"):
            self.within(sr, "sr_scan")
        self.within(sr, "vdi_deactivate", vdi_uuid=disk)
        self.within(sr, "vdi_detach", vdi_uuid=disk)
        self.within(sr, "sr_detach")

    @contextlib.contextmanager
    def goes_at(self, point, sr):
        """The target goes when sr_attach is there; the call, to be waited for."""
        with kit.paused(self.lab, point, sr, "sr_attach") as attach:
            self.store.enable(False)
            yield attach
        self.nothing_is_left()
        self.store.enable()
        sr("sr_attach")
        sr("sr_detach")

    @raises(141)
    def test_a_target_that_goes_between_login_and_its_luns_leaves_nothing(self):
        for kind in list(self.LUNS)[-rounds(1):]:
            sr = self.made(kind)
            for point in ("iscsi_logged_in", "iscsi_scanned")[:rounds(1)]:
                with self.subTest(kind=kind, point=point), self.goes_at(point, sr) as attach, \
                        self.refused(141, "went while it was asked for its LUNs"):
                    self.within(attach.result)

    @deep
    def test_a_target_that_goes_beneath_a_volume_that_is_about_to_be_mounted_leaves_nothing(self):
        """Here a program waits in the kernel."""
        with self.goes_at("volume_activated", self.made("extoiscsi")) as attach, self.refused(52, "e2fsck"):
            self.within(attach.result)

    def test_a_host_lets_go_of_a_target_that_does_not_come_back(self):
        held = [self.attached(kind) for kind in self.LUNS]
        self.lost()
        with concurrent.futures.ThreadPoolExecutor(len(held)) as all_at_once:
            for one in [all_at_once.submit(self.let_go, *pair) for pair in held]:
                one.result()
        self.nothing_is_left()
        self.store.enable()
        for sr, disk in held:
            sr("sr_attach")
            sr("vdi_attach", "true", vdi_uuid=disk)
            sr("vdi_activate", "true", vdi_uuid=disk)
            sr.released(disk)

    @deep
    def test_a_wire_that_is_cut_is_as_good_as_gone(self):
        """Nothing tells the kernel but its own questions, which nobody answers."""
        wire = kit.Wire()
        self.addCleanup(wire.close)
        with wire.peer():
            self.store.listen(f"{wire.far}:3260")
        self.config = lambda **more: {"target": wire.far, "targetIQN": IQN, **more}
        held = [self.attached(kind) for kind in self.LUNS]
        for sr, disk in held:
            sr.released(disk)
        wire.cut()
        for sr, _ in held:
            self.within(sr, "sr_detach")
        self.nothing_is_left()
        wire.cut(False)
        for sr, _ in held:
            sr("sr_attach")
            sr("sr_detach")

    @deep
    def test_a_daemon_that_is_started_again_while_it_is_gone_lets_go_of_what_no_disk_is_attached_of(self):
        held = [self.attached(kind) for kind in self.LUNS]
        (given_back, disk), *others = held
        given_back.released(disk)
        self.lab.kill9()
        self.lost()
        self.lab.start()
        self.within(given_back, "sr_detach")
        self.assertEqual([session for session in kit.sessions()], [(IQN, "127.0.0.1")] * len(others))
        for sr, disk in others:
            for call, keys in (("sr_scan", {}), ("vdi_detach", {"vdi_uuid": disk})):
                with self.refused(47):
                    self.within(sr, call, **keys)
            with self.refused(16):
                self.within(sr, "sr_detach")
        self.store.enable()
        given_back("sr_attach")
        for sr, disk in others:
            sr("sr_attach")
            sr.released(disk)
        for sr, _ in held:
            sr("sr_detach")
        self.nothing_is_left()


class Nfs(FaultsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = places.server("nfs", lambda: kit.NfsServer(["export"]))

    def repository(self, **more):
        return self.sr("nfs", **{**places.nfs(self.lab, new_uuid()), "nfsversion": "4.2", **more})

    def top(self, sr):
        return self.server.root + sr.config["serverpath"]

    @contextlib.contextmanager
    def unchangeable(self, path):
        sh("chattr", "+i", path)
        try:
            yield
        finally:
            sh("chattr", "-i", path)

    @raises(76, 88)
    def test_directories_that_cannot_be_made_or_removed(self):
        sr = self.repository()
        with self.unchangeable(self.top(sr)), self.refused(88, sr.uuid):
            sr("sr_create", "0")
        self.clean()
        sr.made()
        with self.unchangeable(self.top(sr)), self.refused(76, sr.uuid):
            sr("sr_delete")
        with self.assertRaises(Fault):  # it ends what was begun, and finds nothing then
            sr("sr_attach")
        self.clean()
        self.assertEqual(os.listdir(self.top(sr)), [])

    def metrics(self, name):
        text = self.lab.unix().get("/metrics").body.decode()
        return float(re.search(rf"^{name}(?:\{{.*\}})? ([0-9.]+)$", text, re.M).group(1))

    def latency(self, sr, vdi, calls=20):
        """The median, in seconds."""
        taken = []
        for _ in range(calls):
            begun = time.monotonic()
            sr("vdi_update", vdi_uuid=vdi)
            taken.append(time.monotonic() - begun)
        return sorted(taken)[calls // 2]

    def code(self, sr, method, *args, **keys):
        """(code, seconds, sentence)"""
        begun = time.monotonic()
        try:
            sr.by(self.lab.unix("xapi"))(method, *args, **keys)
            return 0, time.monotonic() - begun, ""
        except Fault as fault:
            return fault.code, time.monotonic() - begun, fault.text

    def resizing(self, sr, vdi, until):
        """Grows a disk until told to stop; what the last call came to."""
        sr, size, last = sr.by(self.lab.unix("xapi")), 4, None
        while not until.is_set():
            size += 2
            last = self.code(sr, "vdi_resize", str(size * MIB), vdi_uuid=vdi)
            if last[0]:
                break
        return last

    def test_a_server_that_stops_keeps_nobody_but_its_own_and_they_are_told(self):
        """Four workers in all; more calls than that are inside when the server goes."""
        self.lab.restart(limits__workers=4, limits__sr_workers=2)
        other = self.sr("dummy").made()
        mine = other.disk()
        srs = [self.repository().made() for _ in range(2)]
        disks = [(sr, sr.disk()) for sr in srs for _ in range(4)]
        before = self.latency(other, mine)
        until = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(len(disks)) as pool:
            inside = [pool.submit(self.resizing, sr, vdi, until) for sr, vdi in disks]
            time.sleep(1)
            self.server.stop()
            stopped = time.monotonic()
            try:
                eventually(lambda: self.code(srs[0], "sr_update")[0] == 47 and self.code(srs[1], "sr_update")[0] == 47)
                print("silence known after", round(time.monotonic() - stopped, 1), "s; stalled",
                      self.metrics("smapid_calls_stalled"), flush=True)
                calls = [self.code(srs[n % 2], "sr_scan") for n in range(20)]
                self.assertEqual({code for code, _, _ in calls}, {47})
                self.assertLess(max(seconds for _, seconds, _ in calls), 2)
                self.assertIn("has not answered for", calls[0][2])
                during = self.latency(other, mine)
                print(f"another SR's call: {before * 1000:.1f} ms before, {during * 1000:.1f} ms during", flush=True)
                self.assertLess(during, max(10 * before, 0.5))
                with concurrent.futures.ThreadPoolExecutor(4) as four:
                    self.assertEqual([one.result(30)[0] for one in [four.submit(self.code, other, "sr_scan") for _ in range(8)]],
                                     [0] * 8)
            finally:
                until.set()
                self.server.start()
            ends = [one.result(90) for one in inside]
        self.assertLessEqual({code for code, _, _ in ends}, {0, 47})
        for sr in srs:
            eventually(lambda sr=sr: self.code(sr, "sr_attach")[0] == 0 and self.code(sr, "sr_scan")[0] == 0)
        self.assertEqual(self.metrics("smapid_calls_stalled"), 0)
        other("vdi_delete", vdi_uuid=mine)
        other("sr_delete")
        for sr, vdi in disks:
            sr("vdi_delete", vdi_uuid=vdi)
        for sr in srs:
            sr("sr_delete")
        self.clean()

    @deep
    def test_a_server_that_is_away_for_a_minute(self):
        sr, other = self.repository().made(), self.sr("dummy").made()
        vdi, mine = sr.disk(), other.disk()
        before = self.latency(other, mine)
        self.server.stop()
        try:
            ages = []
            for _ in range(12):
                time.sleep(5)
                code, seconds, text = self.code(sr, "sr_scan")
                self.assertEqual(code, 47)
                self.assertLess(seconds, 8)
                ages += [int(age) for age in re.findall(r"has not answered for (\d+) s", text)]
                self.assertLess(self.latency(other, mine), max(10 * before, 0.5))
            self.assertEqual(ages, sorted(ages))
            self.assertGreater(ages[-1], 50)
        finally:
            self.server.start()
        eventually(lambda: self.code(sr, "sr_scan")[0] == 0)
        self.assertIn(vdi, sr.contents())
        self.end(sr)

    def test_an_odd_but_sound_export_is_taken_as_it_is(self):
        for odd in ("$(reboot)", ";id", "-o", "`id`"):
            sr = self.repository()
            os.mkdir(f"{self.top(sr)}/{odd}")
            sr.config["serverpath"] += "/" + odd
            sr.made()
            self.assertEqual(os.listdir(f"{self.top(sr)}"), [sr.uuid])
            self.end(sr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
