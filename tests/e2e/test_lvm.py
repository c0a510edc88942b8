# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lvm type as far as any kernel goes: volumes are made, forked, grown and removed on a loop device with the real lvm2,
killed at every point on the way, and read by their extents. What needs device-mapper is in tests/vm."""
import concurrent.futures
import contextlib
import fcntl
import glob
import http.client
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import execs  # noqa: E402
import vhd  # noqa: E402
from lab import (MIB, Fault, Lab, LabTest, Repository, each_day, fsck, kernel_has, new_uuid, rebuild,  # noqa: E402
                 rounds, take_over)

EXTENT = 4 * MIB
BLOCK_AT = 4329472 + 3584  # where the first block may stand: its bitmap; the data is on a page
FIELDS = "lv_name,lv_size,lv_attr,lv_tags,pe_start,pvseg_start,pvseg_size,seg_start_pe"
DRIVER = [] if kernel_has("device-mapper") else ["--driverloaded", "n"]  # of commands of lvm2
BROKEN = (OSError, http.client.HTTPException)  # the daemon died while it answered
LIMIT = 40  # more points than any call passes


def sh(*argv, check=True):
    return subprocess.run(argv, check=check, capture_output=True, text=True, timeout=60).stdout


# A linear volume, as LVM's text of a group has it.
VOLUME = """
{name} {{
id = "{id}"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
segment_count = 1
segment1 {{
start_extent = 0
extent_count = {count}
type = "striped"
stripe_count = 1
stripes = ["pv0", {at}]
}}
}}
"""


def eventually(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.05)


def lvm_id(number):
    """A uuid as LVM writes them."""
    text = f"{number:032d}"
    return "-".join((text[:6], text[6:10], text[10:14], text[14:18], text[18:22], text[22:26], text[26:]))


class Loop:
    """A sparse file as a block device."""

    def __init__(self, size):
        self.file = tempfile.NamedTemporaryFile(dir="/var/tmp")  # pylint: disable=consider-using-with
        self.file.truncate(size)
        self.path = sh("losetup", "-f", "--show", self.file.name).strip()

    def close(self):
        sh("losetup", "-d", self.path)
        self.file.close()

    def lvm(self, command, *more):
        """What a command of lvm2 itself says that sees this device alone."""
        return sh(command, "--devices", self.path, *DRIVER, *more)

    def segments(self):
        """Rows about what lies where."""
        text = self.lvm("pvs", "--segments", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", FIELDS)
        return [row for row in json.loads(text)["report"][0]["pvseg"] if row["lv_name"]]

    def volumes(self):
        """name: (bytes, attributes, tags)"""
        return {row["lv_name"]: (int(row["lv_size"]), row["lv_attr"], row["lv_tags"]) for row in self.segments()}

    def content(self, name):
        """The bytes of a volume."""
        found = bytearray()
        with open(self.path, "rb", buffering=0) as device:
            for row in sorted(self.segments(), key=lambda row: int(row["seg_start_pe"])):
                if row["lv_name"] == name:
                    at = int(row["pe_start"]) + int(row["pvseg_start"]) * EXTENT
                    length = int(row["pvseg_size"]) * EXTENT
                    os.posix_fadvise(device.fileno(), at, length, os.POSIX_FADV_DONTNEED)
                    found += os.pread(device.fileno(), length, at)
        return bytes(found)

    def edges(self, name, segments):
        """The first sectors of a volume, and its last."""
        rows = sorted((row for row in segments if row["lv_name"] == name), key=lambda row: int(row["seg_start_pe"]))
        begin, end = ([int(row["pe_start"]) + (int(row["pvseg_start"]) + more) * EXTENT
                       for row, more in ((rows[0], 0), (rows[-1], int(rows[-1]["pvseg_size"])))])
        with open(self.path, "rb", buffering=0) as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(device.fileno(), 1536, begin) + os.pread(device.fileno(), 512, end - 512)

    def put(self, name, data, offset):
        """Writes into the first segment of a volume."""
        row = next(row for row in self.segments() if row["lv_name"] == name and row["seg_start_pe"] == "0")
        with open(self.path, "r+b", buffering=0) as device:
            os.pwrite(device.fileno(), data, int(row["pe_start"]) + int(row["pvseg_start"]) * EXTENT + offset)
            os.fsync(device.fileno())


def footers(content):
    """(size, hidden, parent's name) of a VHD that is a volume's content; both its footers must agree."""
    start, head = content[:512], content[512:1536]
    assert start == content[-512:], "the footer and its copy differ"
    assert struct.unpack_from(">I", start, 64)[0] == vhd.checksum(start, 64)
    assert struct.unpack_from(">I", head, 36)[0] == vhd.checksum(head, 36)
    assert struct.unpack_from(">I", head, 28)[0] == 1 << 20, "its BAT has room for 2 TiB"
    return struct.unpack_from(">Q", start, 48)[0], start[vhd.HIDDEN_AT], \
        head[64:576].decode("utf-16-be").split("\0")[0]


class Lvm(LabTest):
    @classmethod
    def setUpClass(cls):
        try:
            cls.loop = Loop(8192 * MIB)
            sh("/sbin/lvm", "version")
        except (OSError, subprocess.CalledProcessError) as broken:
            print(f"skipped: no loop device or no lvm2 here: {broken}", file=sys.stderr)
            sys.exit(77)
        cls.addClassCleanup(cls.loop.close)
        super().setUpClass()

    def setUp(self):
        self.lab.disarm()
        if not self.lab.alive():
            self.lab.start()
        self.sr = Repository(self.lab.unix("xapi"), "lvm", new_uuid(), {"device": self.loop.path})
        self.addCleanup(sh, "wipefs", "-qaf", self.loop.path)

    def image(self, size=4 * MIB, kind="vhd"):
        return self.sr.disk(size, vdi_sm_config={"type": kind})

    def consistent(self):
        """Each disk has its volume and each volume its disk; what a VHD says of itself is what the row says."""
        self.sr("sr_scan")
        rows, segments = self.sr.contents(), self.loop.segments()
        names = {uuid: ("LV-" if row["format"] == "raw" else "VHD-") + uuid for uuid, row in rows.items()}
        self.assertEqual(set(names.values()), {row["lv_name"] for row in segments} - {"MGT"})
        for uuid, row in rows.items():
            self.assertEqual(row["state"], "live")
            if row["format"] == "vhd":
                parent = names[row["parent"]] if row["parent"] else ""
                self.assertEqual(footers(self.loop.edges(names[uuid], segments)),
                                 (int(row["size"]), int(row["hidden"]), parent))
        return rows

    @each_day
    def test_the_specifications_callers_get_raw_volumes_and_xapi_gets_vhds(self):
        self.sr.made()
        raw = self.sr.disk(5 * MIB)
        image = self.sr.disk(10 * MIB, "label", "", "", "false", "19700101T00:00:00Z", "", "false")
        volumes = self.loop.volumes()
        self.assertEqual((volumes["LV-" + raw][0], volumes["VHD-" + image][0]), (8 * MIB, 16 * MIB))
        self.consistent()
        self.sr.config["allocation"] = "thin"
        self.sr("sr_detach")
        self.sr("sr_attach")
        thin = self.image(100 * MIB)
        self.assertEqual(self.loop.volumes()["VHD-" + thin][0], 8 * MIB)
        self.assertEqual(self.loop.content("LV-" + raw), bytes(8 * MIB))

    def test_a_lost_database_is_made_anew_from_the_group_that_bears_this_servers_mark(self):
        self.sr.made()
        vdi = self.image()
        snapshot = self.sr("vdi_snapshot", vdi_uuid=vdi)["uuid"]
        before = self.consistent()
        for attached in (True, False):
            if not attached:
                self.sr("sr_detach")
            self.lab.kill9()
            os.unlink(os.path.join(self.lab.state, "smapid.db"))
            with contextlib.closing(Lab()) as stranger:  # whose server made none of this: it leaves the group alone
                self.assertNotIn(self.sr.uuid, rebuild(stranger))
            self.assertIn(f"SR {self.sr.uuid}: type lvm, {len(before)} disks\n", rebuild(self.lab))
            self.lab.start()
            self.sr("sr_attach")
            self.assertEqual(self.consistent().keys(), before.keys())
            self.assertEqual(fsck(self.lab, "--strict"), [])
        self.assertIn(snapshot, before)

    def test_new_volumes_show_nothing_of_old_ones(self):
        self.sr.made()
        for _ in range(3):
            vdi = self.image(16 * MIB, "raw")
            self.assertEqual(self.loop.content("LV-" + vdi), bytes(16 * MIB))
            self.loop.put("LV-" + vdi, b"secret" * 1000, 5 * MIB)
            self.sr("vdi_delete", vdi_uuid=vdi)
        vdi = self.image(4 * MIB, "raw")
        self.sr("vdi_resize", str(16 * MIB), vdi_uuid=vdi)
        self.assertEqual(self.loop.content("LV-" + vdi), bytes(16 * MIB))

    def test_an_end_that_was_anothers_is_not_believed(self):
        """A volume that grew may end in the footer of a disk that is gone: its copy at the start counts."""
        self.sr.made()
        vdi = self.image(8 * MIB)
        name, data = "VHD-" + vdi, bytearray(self.loop.content("VHD-" + vdi))
        stranger = vhd.footer(64 * MIB)
        self.loop.put(name, stranger, len(data) - 512)
        self.sr("sr_scan")
        self.assertEqual(self.sr.contents()[vdi]["state"], "live")
        self.sr("vdi_resize", str(12 * MIB), vdi_uuid=vdi)
        self.assertEqual(footers(self.loop.content(name)), (12 * MIB, 0, ""))

    def test_labels_stand_in_the_metadata_volume_as_others_read_them(self):
        self.sr.made()
        vdi = self.image()
        self.sr("vdi_update", vdi_uuid=vdi, name_label="<ä&\"'>", name_description="d" * 600)
        content = self.loop.content("MGT")
        sectors = [content[at:at + 512].decode().rstrip(" ") for at in range(0, 6 * 512, 512)]
        self.assertEqual(sectors[0], f"XSSM:{6 * 512:<10}:1:2")
        self.assertEqual(sectors[1], f'<?xml version="1.0" ?><uuid>{self.sr.uuid}</uuid><allocation>thick</allocation>')
        self.assertEqual(sectors[4], "<vdi><name_label>&lt;ä&amp;&quot;&#39;&gt;</name_label><name_description>"
                         + "d" * 222 + "</name_description>")
        self.assertTrue(sectors[5].startswith(f"<uuid>{vdi}</uuid><is_a_snapshot>0</is_a_snapshot><snapshot_of></"))
        self.assertTrue(sectors[5].endswith("<deleted>0</deleted></vdi>"))
        self.sr("vdi_delete", vdi_uuid=vdi)
        self.assertIn(b"<deleted>1</deleted></vdi>", self.loop.content("MGT"))
        other = self.image()  # takes the place of the deleted one
        self.assertEqual(self.loop.content("MGT")[:len(sectors[0])], sectors[0].encode())
        self.assertIn(other.encode(), self.loop.content("MGT"))

    def probed(self, **config):
        """What a probe says of the one SR, but for its devices and its size."""
        found = self.sr.client.call("sr_probe", path="/sm/lvm", args=[], device_config={"device": self.loop.path},
                                    sr_sm_config=config)
        told = {node.tag: node.text or "" for node in ElementTree.fromstring(found).find("SR")}
        return {tag: text for tag, text in told.items() if tag not in ("Devlist", "size")}

    def test_a_probe_that_asks_for_metadata_tells_what_the_volume_says_of_its_sr(self):
        self.sr.made()
        uuid = {"UUID": self.sr.uuid}
        self.image()
        self.loop.put("MGT", "<name_label>&lt;ä&amp;</name_label>".encode().ljust(512), 2 * 512)
        self.loop.put("MGT", b"<name_description>of a pool\x02\xff</name_description>".ljust(512), 3 * 512)
        told = {**uuid, "name_label": "<ä&", "name_description": "of a pool??", "pool_metadata_detected": "false"}
        self.assertEqual(self.probed(), uuid)
        self.assertEqual(self.probed(metadata="false"), uuid)
        self.assertEqual(self.probed(metadata="true"), told)
        database = self.sr.disk(4 * MIB, vdi_type="metadata")
        self.sr("sr_detach")
        self.assertEqual(self.probed(metadata="true"), {**told, "pool_metadata_detected": "true"})
        self.sr("sr_attach")
        self.sr("vdi_delete", vdi_uuid=database)
        self.assertEqual(self.probed(metadata="true"), told)
        self.sr("sr_detach")
        self.loop.put("MGT", b"nobody's", 0)
        self.assertEqual(self.probed(metadata="true"), uuid)
        self.loop.lvm("lvremove", "-y", f"VG_XenStorage-{self.sr.uuid}/MGT")
        self.assertEqual(self.probed(metadata="true"), uuid)

    def test_a_metadata_volume_that_claims_more_than_one_can_hold_is_not_believed(self):
        """It is read before anybody knows who made it: the daemon must not take whatever memory it asks for."""
        self.sr.made()
        self.image()
        self.sr("sr_detach")
        group, head = f"VG_XenStorage-{self.sr.uuid}", self.loop.content("MGT")[:4 * 512]
        self.loop.lvm("lvremove", "-y", f"{group}/MGT")
        self.loop.lvm("lvcreate", "-an", "-Zn", "-Wn", "-L", "1G", "-n", "MGT", group)
        self.loop.put("MGT", head, 0)
        self.loop.put("MGT", b"XSSM:%-10d:1:2" % (4 * 512 + 900 * MIB), 0)
        self.assertEqual(self.probed(metadata="true"), {"UUID": self.sr.uuid})
        self.sr("sr_attach")
        self.consistent()
        self.image()
        self.assertEqual(self.probed(metadata="true")["name_label"], "")  # a new one

    def test_a_group_without_its_metadata_volume_is_found_and_gets_a_new_one(self):
        self.sr.made()
        vdi = self.image()
        self.sr("sr_detach")
        self.loop.lvm("lvremove", "-y", f"VG_XenStorage-{self.sr.uuid}/MGT")
        found = self.sr.client.call("sr_probe", path="/sm/lvm", args=[], device_config={"device": self.loop.path})
        self.assertIn(f"<UUID>{self.sr.uuid}</UUID>\n\t\t<Devlist>{self.loop.path}</Devlist>\n\t\t<size>{8192 * MIB}<", found)
        self.assertNotIn("MGT", self.loop.volumes())
        self.sr("sr_attach")
        self.consistent()
        self.sr("vdi_update", vdi_uuid=vdi, name_label="anew")
        self.assertIn(b"<name_label>anew<", self.loop.content("MGT"))

    def confined(self, found, *devices):
        """Every command of lvm2 sees these devices and no other, and takes no lock but its group's."""
        for program in found:
            self.assertEqual(program.devices, set(devices), program.words)

    @unittest.skipUnless(execs.CAN, "strace and root are needed to look into the daemon")
    def test_a_call_starts_the_commands_that_it_needs_and_no_other(self):
        """lvcreate makes, lvrename publishes, lvremove removes; pvs tells where a new volume lies, and what is free once
        one is gone. What a change leaves is known without asking, so a scan asks nothing."""
        self.sr.made()
        disk, other = self.image(), self.image()
        snapshot = ["lvcreate", "lvcreate", "pvs", "lvrename", "lvrename", "lvrename", "lvresize", "pvs", "lvchange"]
        for call, want in ((lambda: self.image(), ["lvcreate", "pvs", "lvrename"]),
                           (lambda: self.image(4 * MIB, "raw"), ["lvcreate", "pvs", "lvrename"]),
                           (lambda: self.sr("sr_scan"), []),
                           (lambda: self.sr("vdi_update", vdi_uuid=disk, name_label="new"), []),
                           (lambda: self.sr("vdi_snapshot", vdi_uuid=disk), snapshot),
                           (lambda: self.sr("vdi_delete", vdi_uuid=other), ["lvremove", "pvs"]),
                           (lambda: self.sr("sr_attach"), [])):
            with execs.traced(self.lab) as found:
                call()
            self.assertEqual(execs.names(found), want)
            self.confined(found, self.loop.path)

    @unittest.skipUnless(execs.CAN, "strace and root are needed to look into the daemon")
    def test_a_scan_of_500_volumes_starts_two_programs_at_most(self):
        """Half raw, half VHDs, by another manager's hand: the group's metadata with one more volume for each extent."""
        self.sr.made()
        image = self.image(2 * MIB)
        data = self.loop.content("VHD-" + image)
        table, = struct.unpack_from(">Q", data, 512 + 16)
        with tempfile.TemporaryDirectory() as backups:
            backup = os.path.join(backups, "group")
            lvm = [*DRIVER, "--devices", self.loop.path, "-f", backup, "VG_XenStorage-" + self.sr.uuid]
            sh("vgcfgbackup", *lvm)
            with open(backup, encoding="utf-8") as old:
                text = old.read()
            free = 1 + max(int(row["pvseg_start"]) + int(row["pvseg_size"]) for row in self.loop.segments())
            more, start = [], int(self.loop.segments()[0]["pe_start"])
            with open(self.loop.path, "r+b", buffering=0) as device:
                for n in range(499):
                    vdi, raw, at = new_uuid(), n % 2, free
                    free += 1 if raw else len(data) // EXTENT
                    more.append(VOLUME.format(name=("LV-" if raw else "VHD-") + vdi, id=lvm_id(n), count=free - at, at=at))
                    if not raw:
                        for offset, length in ((0, 3072), (table + EXTENT, 512), (len(data) - 512, 512)):
                            os.pwrite(device.fileno(), data[offset:offset + length], start + at * EXTENT + offset)
            with open(backup, "w", encoding="utf-8") as new:
                new.write(text.replace("logical_volumes {\n", "logical_volumes {\n" + "".join(more), 1))
            sh("vgcfgrestore", *lvm)
        with execs.traced(self.lab) as found:
            self.sr("sr_scan")
        self.assertEqual(execs.names(found), ["pvs"])
        self.confined(found, self.loop.path)
        rows = self.sr.contents()
        self.assertEqual((len(rows), {row["state"] for row in rows.values()}), (500, {"live"}))
        with execs.traced(self.lab) as found:
            self.sr("sr_scan")
        self.assertEqual(execs.names(found), [])

    @unittest.skipUnless(execs.CAN, "strace and root are needed to look into the daemon")
    def test_snapshots_on_several_repositories_do_not_wait_for_one_another(self):
        """Commands for one run while commands for another do, and a daemon that is stopped inside one keeps no other."""
        loops = [Loop(256 * MIB) for _ in range(4)]
        for loop in loops:
            self.addCleanup(loop.close)
        repositories = [Repository(self.lab.unix("xapi"), "lvm", new_uuid(), {"device": loop.path}).made()
                        for loop in loops]
        disks = [sr.disk(2 * MIB, vdi_sm_config={"type": "vhd"}) for sr in repositories]
        failed = []

        def snapshots(sr, vdi):
            try:
                for _ in range(5 if rounds(1) > 1 else 2):
                    sr("vdi_snapshot", vdi_uuid=vdi)
            except Exception as fault:  # pylint: disable=broad-except; told below
                failed.append(fault)
        threads = [threading.Thread(target=snapshots, args=pair) for pair in zip(repositories, disks)]
        with execs.traced(self.lab) as found:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(failed, [])
        self.assertEqual({device for program in found for device in program.devices}, {loop.path for loop in loops})
        execs.side_by_side(self, found)

    def each_point(self, call, judge=lambda rows, point: None):
        """call again and again, killed at its first, second … point, until it passes no more."""
        points = []
        for n in range(1, LIMIT):
            self.lab.arm(f"*:kill:{n}")
            try:
                call()
            except BROKEN:
                self.assertTrue(self.lab.died())
                points.append(self.lab.acted()[-1])
                self.lab.start()
                with self.subTest(point=points[-1]):
                    judge(self.consistent(), points[-1])
                continue
            self.lab.disarm()
            judge(self.consistent(), "none")
            return points
        return self.fail("points without end")

    def test_killed_at_any_point_a_call_is_whole_or_gone(self):
        self.sr.made()
        for kind, method in (("raw", "vdi_clone"), ("vhd", "vdi_snapshot")):
            vdi, sizes, known = self.image(8 * MIB, kind), iter(range(12, 400, 4)), set()

            def unheard(rows, point):
                if point not in ("result_committed", "none"):
                    self.assertEqual(set(rows), known)
                known.update(rows)

            known.update(self.sr.contents())
            points = self.each_point(lambda: self.image(4 * MIB, kind), unheard)
            self.assertLess({"create_temp_made", "create_temp_synced", "create_published"}, set(points))
            self.each_point(lambda: self.sr("vdi_resize", str(next(sizes) * MIB), vdi_uuid=vdi))
            points = self.each_point(lambda: self.sr(method, vdi_uuid=vdi))
            self.assertLess({"fork_child_made", "fork_linked", "fork_published", "fork_second_made", "fork_hidden"},
                            set(points))
        self.each_point(lambda: self.sr("vdi_delete", vdi_uuid=vdi))
        self.sr.delete_disks()
        self.assertEqual(set(self.loop.volumes()), {"MGT"})

    def bat(self, vdi):
        """The entries of a VHD's table that lead to a block."""
        content = self.loop.content("VHD-" + vdi)
        at, = struct.unpack_from(">Q", content, 512 + 16)
        return {n: entry for n, (entry,) in enumerate(struct.iter_unpack(">I", content[at:at + 4096]))
                if entry != 0xffffffff}

    def fill(self, vdi):
        """As a data path would, writes the disk's first block."""
        name = "VHD-" + vdi
        at, = struct.unpack_from(">Q", self.loop.content(name), 512 + 16)
        self.loop.put(name, b"\xff" * 512 + b"data" * 1024, BLOCK_AT)
        self.loop.put(name, struct.pack(">I", BLOCK_AT // 512), at)
        self.assertEqual(self.bat(vdi), {0: BLOCK_AT // 512})

    def reset(self, vdi):
        self.sr("vdi_epoch_begin", vdi_uuid=vdi, vdi_on_boot="reset")

    def test_a_disk_that_is_reset_forgets_what_was_written_or_nothing(self):
        self.sr.made()
        vdi, size = self.image(8 * MIB), 12 * MIB
        with self.refused(38):
            self.reset(vdi)
        self.sr("vdi_snapshot", vdi_uuid=vdi)
        self.sr("vdi_resize", str(size), vdi_uuid=vdi)  # it stays as large as it is
        parent = self.sr.contents()[vdi]["parent"]
        with self.refused(46):
            self.reset(parent)

        def whole(rows, point):
            self.assertEqual((rows[vdi]["parent"], int(rows[vdi]["size"])), (parent, size))
            self.assertEqual(self.bat(vdi) == {}, point != "intent_committed")
            self.assertNotIn("smapi_reset", self.loop.volumes()["VHD-" + vdi][2])
        points = self.each_point(lambda: (self.fill(vdi), self.reset(vdi)), whole)
        self.assertEqual(points, ["intent_committed", "volume_reset_marked", "volume_reset_cleared", "effects_done",
                                  "result_committed"])

    def test_a_disk_that_is_composed_has_the_new_parent_or_the_old(self):
        self.sr.made()
        vdi, parents = self.image(8 * MIB), []
        self.sr("vdi_snapshot", vdi_uuid=vdi)
        parents.append(self.sr.contents()[vdi]["parent"])
        self.fill(vdi)
        had = self.bat(vdi)
        with self.refused(66):
            lone = self.image(8 * MIB)
            self.sr("vdi_compose", parents[0], vdi_uuid=lone)
        with self.refused(79):
            self.sr("vdi_compose", self.image(12 * MIB), vdi_uuid=vdi)
        with self.refused(1):
            self.sr("vdi_compose", vdi, vdi_uuid=vdi)

        def next_parent():
            parents.append(self.image(4 * MIB, "raw" if len(parents) % 2 else "vhd"))

        def judged(rows, point):
            done = point not in ("intent_committed", "volume_link_written")
            self.assertEqual(rows[vdi]["parent"], parents[-1] if done else self.was)
            self.assertTrue(rows[rows[vdi]["parent"]]["hidden"])
            self.assertEqual(rows[parents[-1]]["hidden"], done)
            self.assertEqual(self.bat(vdi), had)
            self.assertEqual({name for name in self.loop.volumes() if name.startswith("tmp_")}, set())
            self.was = rows[vdi]["parent"]
            if done:
                next_parent()
        self.was = parents[0]
        next_parent()
        points = self.each_point(lambda: self.sr("vdi_compose", parents[-1], vdi_uuid=vdi), judged)
        self.assertEqual(points, ["intent_committed", "volume_link_written", "compose_half_written", "compose_linked",
                                  "hide_written", "effects_done", "result_committed"])

    def test_what_a_dead_server_had_begun_another_finishes(self):
        """By the group alone."""
        for point in ("volume_reset_marked", "compose_half_written"):
            sh("wipefs", "-qaf", self.loop.path)
            self.sr.made()
            vdi, other = self.image(8 * MIB), self.image(8 * MIB)
            self.sr("vdi_snapshot", vdi_uuid=vdi)
            self.fill(vdi)
            self.lab.arm(f"{point}:kill")
            with self.subTest(point=point), contextlib.closing(Lab()) as second:
                with contextlib.suppress(*BROKEN):
                    if point.startswith("compose"):
                        self.sr("vdi_compose", other, vdi_uuid=vdi)
                    else:
                        self.reset(vdi)
                self.assertTrue(self.lab.died())
                self.lab.disarm()
                second.start()
                here, self.sr = self.sr, self.sr.by(second.unix("xapi"))
                take_over(second, self.sr)
                self.sr("sr_attach")
                rows = self.consistent()
                self.assertEqual((self.bat(vdi) == {}, rows[vdi]["parent"] == other),
                                 (point == "volume_reset_marked", point == "compose_half_written"))
                self.sr = here
            self.lab.start()
            self.sr = Repository(self.lab.unix("xapi"), "lvm", new_uuid(), {"device": self.loop.path})

    def left_running(self):
        """Commands of lvm2 that keep the SR's file of the daemon open."""
        found, file = set(), os.path.realpath(os.path.join(self.lab.state, "ops", self.sr.uuid + ".lock"))
        for path in glob.glob("/proc/[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                pid = path.split("/")[2]
                with open(f"/proc/{pid}/cmdline", "rb") as words:
                    if os.readlink(path) == file and words.read().startswith(b"/sbin/lvm\0"):
                        found.add(pid)
        return found

    def refusal(self):
        """What a call is told, while there is nothing else to be told."""
        try:
            return str(self.sr("sr_scan"))
        except (Fault, OSError) as refused:
            return str(refused)

    def test_a_command_that_outlives_the_daemon_is_waited_for(self):
        """It waits for the lock of its group, long after lvm2 has closed every descriptor that it does not know."""
        self.sr.made()
        with open(f"/run/lock/lvm/V_VG_XenStorage-{self.sr.uuid}", "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with concurrent.futures.ThreadPoolExecutor(1) as one:
                call = one.submit(self.image)
                eventually(self.left_running)
                time.sleep(0.5)  # it has begun its work, and not only its life
                self.assertEqual(len(self.left_running()), 1)
                self.lab.kill9()
                self.assertIsInstance(call.exception(), BROKEN)
            self.lab.launch()
            eventually(lambda: "previous start still runs" in self.refusal())
            self.assertEqual(len(self.left_running()), 1)
        self.assertTrue(self.lab.wait_ready())
        self.assertEqual((self.sr.contents(), set(self.loop.volumes())), ({}, {"MGT"}))

    def test_killed_again_while_it_recovers(self):
        self.sr.made()
        vdi = self.image()
        for first in range(1, LIMIT):
            self.lab.arm(f"*:kill:{first}")
            with contextlib.suppress(*BROKEN):
                self.sr("vdi_clone", vdi_uuid=vdi)
                self.assertGreater(first, 7)
                self.lab.disarm()
                break
            self.assertTrue(self.lab.died())
            for second in range(1, 4):
                self.lab.launch(f"*:kill:{second}")
                if self.lab.wait_ready():
                    break
                self.lab.end()
            else:
                self.lab.disarm()
                self.lab.start()
            self.lab.disarm()
            self.consistent()
            self.sr("vdi_resize", str((first + 2) * 4 * MIB), vdi_uuid=vdi)

    def test_a_group_of_others_that_is_deleted_leaves_the_device_clean_whenever_it_is_killed(self):
        lvm = ["--devices", self.loop.path, *DRIVER]
        points = []
        for n in range(1, LIMIT):
            sh("vgcreate", *lvm, "VG_XenStorage-" + self.sr.uuid, self.loop.path)
            self.sr("sr_attach")
            self.lab.arm(f"*:kill:{n}")
            try:
                self.sr("sr_delete")
            except BROKEN:
                self.assertTrue(self.lab.died())
                points.append(self.lab.acted()[-1])
                self.lab.start()
                with contextlib.suppress(Fault):
                    self.sr("sr_delete")
            self.lab.disarm()
            with self.subTest(point=points[-1:]):
                self.assertEqual(sh("blkid", "-p", self.loop.path, check=False), "")
                with open(self.loop.path, "rb", buffering=0) as device:
                    os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    self.assertEqual(device.read(512), bytes(512))
            if len(points) < n:
                break
        self.assertIn("sr_delete_unmarked", points)

    def test_repositories_killed_at_any_point_leave_the_device_clean_or_whole(self):
        for method in ("sr_create", "sr_delete"):
            for n in range(1, LIMIT):
                if method == "sr_delete":
                    with contextlib.suppress(Fault):
                        self.sr("sr_create", "0")
                    self.sr("sr_attach")
                self.lab.arm(f"*:kill:{n}")
                try:
                    self.sr(method, *["0"][:method == "sr_create"])
                except BROKEN:
                    self.assertTrue(self.lab.died())
                    point = self.lab.acted()[-1]
                    self.lab.start()
                    with self.subTest(method=method, point=point):
                        stands = sh("blkid", "-p", "-o", "value", "-s", "TYPE", self.loop.path, check=False).strip()
                        self.assertEqual(stands, "LVM2_member" if (method, point) == ("sr_create", "result_committed")
                                         else "")
                    if stands:
                        self.sr("sr_attach")
                        self.sr("sr_delete")
                    continue
                self.lab.disarm()
                break
            if method == "sr_create":
                self.sr("sr_attach")
                self.sr("sr_delete")
        self.assertEqual(sh("blkid", "-p", self.loop.path, check=False), "")


if __name__ == "__main__":
    unittest.main()
