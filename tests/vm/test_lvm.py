# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lvm type on a real kernel: disks live in volumes that plain lvm2 and 7zz read, volumes are active only while
attached, whatever is interrupted leaves nothing, and what others laid out is taken over."""
import contextlib
import http.client
import os
import random
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import execs  # noqa: E402
import kit  # noqa: E402
import vhd  # noqa: E402
from disks import LvmDisks, active, group, volumes  # noqa: E402
from kit import MIB, sh  # noqa: E402
from lab import Fault, Lab, LabTest, Repository, deep, new_uuid, take_over  # noqa: E402

GIB = 1024 * MIB
PIECE = 64 * 1024
METADATA, PER_BLOCK = 4329472, 4096  # of a VHD whose BAT has room for 2 TiB
EXTENT = 4 * MIB
BROKEN = (OSError, http.client.HTTPException)  # the daemon died while it answered


def thick(size):
    """The length of the volume of a VHD that can be written in full."""
    return vhd.padded(size + METADATA + PER_BLOCK * -(-size // (2 * MIB)), EXTENT)


class VolumeMaker(vhd.Maker):
    @property
    def name(self):
        return "VHD-" + self.uuid


class LvmTest(LabTest):
    def setUp(self):
        self.before = kit.held()

    def sr(self, *disks, client=None, **config):
        """An SR on disks of its own that goes with the test, with all that then is in it."""
        disks = disks or (kit.spare(),)
        sr = Repository(client or self.lab.unix("xapi"), "lvm", new_uuid(), {"device": ",".join(disks), **config})
        self.addCleanup(self.drop, sr)
        return sr

    def drop(self, sr):
        for disk in sr.config["device"].split(","):
            sh("vgchange", "-an", group(sr), check=False)
            kit.wipe(disk)

    def nothing_is_left(self):
        kit.settle()
        self.assertEqual(kit.left(self.before), [])

    @staticmethod
    def disk(sr, size):
        """A new disk as today's xapi asks for one: a VHD."""
        return sr.disk(size, "a disk", "", "", "false", "19700101T00:00:00Z", "", "false")

    # What plain programs say.

    def content(self, sr, vdi):
        return LvmDisks(self, "lvm").read(sr, vdi)

    def write(self, sr, vdi, *pieces):
        LvmDisks(self, "lvm").write(sr, vdi, pieces)

    def written(self, sr, vdi, *pieces):
        sr.activated(vdi)
        self.write(sr, vdi, *pieces)
        sr.released(vdi)

    def consistent(self, sr):
        return LvmDisks(self, "lvm").consistent(sr)


def noise(seed, length=PIECE):
    return random.Random(seed).randbytes(length)


class Life(LvmTest):
    def test_a_disk_of_the_specifications_callers_is_a_raw_volume(self):
        sr = self.sr(client=self.lab.unix("spec")).made()
        vdi = sr.disk(9 * MIB)
        self.assertEqual(volumes(sr)[f"LV-{vdi}"][0], 12 * MIB)
        self.assertEqual(sr.contents()[vdi]["size"], str(12 * MIB))
        path = sr("vdi_attach", vdi_uuid=vdi)
        self.assertEqual(path, f"/dev/{group(sr)}/LV-{vdi}")
        sr("vdi_activate", vdi_uuid=vdi)
        self.write(sr, vdi, (0, noise(1)), (12 * MIB - PIECE, noise(2)))
        sr.released(vdi)
        self.assertEqual(active(sr), set())
        want = noise(1) + bytes(12 * MIB - 2 * PIECE) + noise(2)
        self.assertEqual(self.content(sr, vdi), want)
        sr("vdi_resize", str(20 * MIB), vdi_uuid=vdi)
        self.assertEqual(self.content(sr, vdi), want + bytes(8 * MIB))
        self.assertEqual(volumes(sr)[f"LV-{vdi}"][2] & {"smapi_zero"}, set())
        sr("vdi_delete", vdi_uuid=vdi)
        self.consistent(sr)
        sr("sr_delete")
        self.assertNotIn("VG_XenStorage", sh("vgs"))
        self.assertEqual(sh("blkid", "-p", sr.config["device"], check=False), "")
        self.nothing_is_left()

    def test_a_new_disk_shows_nothing_of_an_older_one(self):
        sr = self.sr().made()
        secret = noise(3, 4 * MIB)
        for _ in range(2):
            old = sr.disk(40 * MIB, vdi_sm_config={"type": "raw"})
            sr.activated(old)
            self.write(sr, old, *((offset, secret) for offset in range(0, 40 * MIB, 4 * MIB)))
            sr.released(old)
            sr("vdi_delete", vdi_uuid=old)
        raw = sr.disk(16 * MIB, vdi_sm_config={"type": "raw"})
        self.assertEqual(self.content(sr, raw), bytes(16 * MIB))
        image = self.disk(sr, 16 * MIB)
        self.written(sr, image, (3 * MIB + 512, noise(4, 512)))
        self.assertEqual(self.content(sr, image),
                         bytes(3 * MIB + 512) + noise(4, 512) + bytes(13 * MIB - 1024))
        sr("vdi_resize", str(24 * MIB), vdi_uuid=raw)
        self.assertEqual(self.content(sr, raw), bytes(24 * MIB))

    def test_thick_and_thin_volumes_have_the_lengths_the_reference_gives_them(self):
        sr = self.sr().made()
        for size, length in ((2 * MIB, 8 * MIB), (10 * MIB, 16 * MIB), (100 * MIB, thick(100 * MIB))):
            vdi = self.disk(sr, size)
            self.assertEqual(volumes(sr)[f"VHD-{vdi}"][0], length)
            self.assertEqual(sr.contents()[vdi]["utilisation"], str(length))
        thin = self.sr(allocation="thin").made()
        vdi = self.disk(thin, 100 * MIB)
        self.assertEqual(volumes(thin)[f"VHD-{vdi}"][0], 8 * MIB)
        thin.activated(vdi)
        self.assertEqual(volumes(thin)[f"VHD-{vdi}"][0], thick(100 * MIB))
        self.write(thin, vdi, (50 * MIB, noise(5)))
        thin.released(vdi)
        self.assertEqual(volumes(thin)[f"VHD-{vdi}"][0], 8 * MIB)  # one block, and the metadata
        self.assertEqual(self.content(thin, vdi), bytes(50 * MIB) + noise(5) + bytes(50 * MIB - PIECE))
        thin("vdi_attach", "false", vdi_uuid=vdi)
        self.assertEqual(volumes(thin)[f"VHD-{vdi}"][0], 8 * MIB)
        thin("vdi_detach", vdi_uuid=vdi)

    def test_snapshots_and_clones_hold_what_the_disk_held(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 20 * MIB)
        now, states = bytearray(20 * MIB), {}
        for n, method in enumerate(("vdi_snapshot", "vdi_clone", "vdi_snapshot")):
            pieces = [(random.Random(n).randrange(0, 300) * PIECE, noise(n)) for n in range(10 * n, 10 * n + 4)]
            self.written(sr, vdi, *pieces)
            for offset, data in pieces:
                now[offset:offset + PIECE] = data
            other = sr(method, vdi_uuid=vdi)["uuid"]
            states[other] = bytes(now)
            if method == "vdi_clone":
                self.written(sr, other, (0, noise(99)))
                states[other] = noise(99) + states[other][PIECE:]
        sr("vdi_resize", str(30 * MIB), vdi_uuid=vdi)
        states[vdi] = bytes(now) + bytes(10 * MIB)
        rows = self.consistent(sr)
        self.assertEqual(sum(row["hidden"] for row in rows.values()), 3)
        for disk, data in states.items():
            self.assertEqual(self.content(sr, disk), data)
        for uuid, row in rows.items():
            if row["hidden"]:
                length, attributes, _ = volumes(sr)[f"VHD-{uuid}"]
                self.assertEqual(attributes[1], "r")
                self.assertLess(length, thick(20 * MIB))
        for disk in states:
            sr("vdi_delete", vdi_uuid=disk)
        self.assertEqual(set(volumes(sr)) - {"MGT"}, set())

    def test_a_raw_disk_becomes_the_parent_of_vhds(self):
        sr = self.sr().made()
        vdi = sr.disk(12 * MIB, vdi_sm_config={"type": "raw"})
        self.written(sr, vdi, (MIB, noise(6)))
        clone = sr("vdi_clone", vdi_uuid=vdi)["uuid"]
        self.written(sr, clone, (5 * MIB, noise(7)))
        was = bytes(MIB) + noise(6) + bytes(11 * MIB - PIECE)
        self.assertEqual(self.content(sr, vdi), was)
        self.assertEqual(self.content(sr, clone), was[:5 * MIB] + noise(7) + was[5 * MIB + PIECE:])
        rows = self.consistent(sr)
        base = rows[vdi]["parent"]
        self.assertEqual((rows[vdi]["format"], rows[base]["format"], rows[base]["hidden"]), ("vhd", "raw", True))
        self.assertIn("hidden", volumes(sr)[f"LV-{base}"][2])

    def test_volumes_are_active_only_while_a_disk_made_from_them_is_attached(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 4 * MIB)
        other = sr("vdi_clone", vdi_uuid=vdi)["uuid"]
        base = f"VHD-{sr.contents()[vdi]['parent']}"
        self.assertEqual(active(sr), set())
        sr.activated(vdi)
        sr.activated(other)
        self.assertEqual(active(sr), {f"VHD-{vdi}", f"VHD-{other}", base})
        sr.released(vdi)
        self.assertEqual(active(sr), {f"VHD-{other}", base})
        with open(f"/dev/{group(sr)}/VHD-{other}", "rb"), self.refused(24):
            sr("vdi_deactivate", vdi_uuid=other)
            sr("vdi_detach", vdi_uuid=other)
        sr("vdi_detach", vdi_uuid=other)
        self.assertEqual(active(sr), set())
        self.assertFalse(os.path.exists(f"/dev/{group(sr)}"))

    def test_a_disk_that_is_attached_is_snapshot_where_it_stands(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 8 * MIB)
        self.written(sr, vdi, (0, noise(8)))
        sr("vdi_attach", "true", vdi_uuid=vdi)
        snapshot = sr("vdi_snapshot", vdi_uuid=vdi)["uuid"]
        base = f"VHD-{sr.contents()[vdi]['parent']}"
        self.assertEqual(active(sr), {f"VHD-{vdi}", base})
        sr("vdi_activate", "true", vdi_uuid=vdi)
        self.write(sr, vdi, (0, noise(9)))
        sr.released(vdi)
        self.assertEqual(self.content(sr, vdi)[:PIECE], noise(9))
        self.assertEqual(self.content(sr, snapshot)[:PIECE], noise(8))
        self.consistent(sr)

    @deep
    def test_a_chain_has_at_most_thirty_images(self):
        sr = self.sr(allocation="thin").made()
        vdi = self.disk(sr, 2 * MIB)
        with self.refused(109):
            for _ in range(30):
                sr("vdi_snapshot", vdi_uuid=vdi)
        self.assertEqual(len(LvmDisks.chain(sr, vdi)), 30)
        self.assertEqual(self.content(sr, vdi), bytes(2 * MIB))
        self.consistent(sr)

    def test_a_host_that_was_started_again_activates_what_it_had_attached(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 4 * MIB)
        sr.activated(vdi)
        sh("vgchange", "-an", group(sr))
        self.lab.restart()
        self.assertEqual(active(sr), set())
        sr("vdi_activate", "true", vdi_uuid=vdi)
        self.assertEqual(active(sr), {f"VHD-{vdi}"})
        sr.released(vdi)

    def test_a_full_group_refuses_and_keeps_nothing(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 600 * MIB)
        for method, args in (("vdi_create", ("524288000",)), ("vdi_clone", ()), ("vdi_resize", (str(2 * GIB),))):
            with self.subTest(method=method), self.refused(44):
                sr(method, *args, **({} if method == "vdi_create" else {"vdi_uuid": vdi}))
        snapshot = sr("vdi_snapshot", vdi_uuid=self.disk(sr, 100 * MIB))["uuid"]
        self.assertIn(snapshot, self.consistent(sr))

    def test_attach_and_activate_start_lvchange_alone(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 4 * MIB)
        with execs.traced(self.lab) as started:
            sr("vdi_attach", "true", vdi_uuid=vdi)
        self.assertEqual(execs.names(started), ["lvchange"])  # the kernel is asked by ioctl, and told to let go so
        with execs.traced(self.lab) as started:
            sr("vdi_attach", "true", vdi_uuid=vdi)
            sr("vdi_activate", "true", vdi_uuid=vdi)
            sr.released(vdi)
        self.assertEqual(started, [])

    @deep
    def test_snapshots_in_several_repositories_do_not_wait_for_one_another(self):
        repositories = [self.sr(kit.spare()).made() for _ in range(4)]
        disks = [self.disk(sr, 2 * MIB) for sr in repositories]
        failed = []

        def snapshots(sr, vdi):
            try:
                for _ in range(5):
                    sr.by(self.lab.unix("xapi"))("vdi_snapshot", vdi_uuid=vdi)
            except Exception as fault:  # told below
                failed.append(fault)

        threads = [threading.Thread(target=snapshots, args=pair) for pair in zip(repositories, disks)]
        with execs.traced(self.lab) as found:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(failed, [])
        execs.side_by_side(self, found)
        for sr in repositories:
            self.assertEqual(len(self.consistent(sr)), 11)


class Refusals(LvmTest):
    def test_devices_that_are_none_or_are_somebodys_are_left_alone(self):
        disk, taken = kit.spare(), kit.spare()
        sh("mkfs.ext4", "-q", taken)
        first = kit.sh("dd", f"if={taken}", "bs=64k", "count=1", "status=none", check=False)
        for code, device in ((91, "/dev/null"), (19, "/dev/none"), (91, "dev/vda"), (91, f"{disk},"), (42, taken)):
            with self.subTest(device=device), self.refused(code):
                self.sr_of(device)("sr_create", "0")
        with self.subTest("one good and one taken"), self.refused(42):
            self.sr_of(f"{disk},{taken}")("sr_create", "0")
        self.assertEqual(sh("blkid", "-p", disk, check=False), "")
        self.assertEqual(kit.sh("dd", f"if={taken}", "bs=64k", "count=1", "status=none", check=False), first)
        os.makedirs("/run/mnt", exist_ok=True)
        sh("mount", taken, "/run/mnt")
        try:
            with self.refused(16, "/run/mnt"):
                self.sr_of(taken)("sr_create", "0")
        finally:
            sh("umount", "/run/mnt")
        sh("pvcreate", disk)
        with self.refused(56):
            self.sr_of(disk)("sr_create", "0")
        with self.refused(90):
            Repository(self.lab.unix(), "lvm", new_uuid(), {})("sr_create", "0")
        with self.refused(92):
            self.sr_of(disk)("sr_attach")
        kit.wipe(disk)
        kit.wipe(taken)

    def sr_of(self, device):
        return Repository(self.lab.unix(), "lvm", new_uuid(), {"device": device})

    def test_one_server_owns_a_group_until_it_is_taken_over(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 4 * MIB)
        with contextlib.closing(Lab()) as second:
            second.start()
            there = sr.by(second.unix("xapi"))
            with self.refused(47, "belongs to server"):
                there("sr_attach")
            take_over(second, sr)
            there("sr_attach")
            self.assertIn(vdi, there.contents())
            with self.refused(47, "belongs to server"):
                self.disk(sr, 4 * MIB)

    def test_a_group_of_two_bodies_is_not_served(self):
        one, two = kit.spare(), kit.spare()
        sr = self.sr(one, two)
        sh("vgcreate", "--devices", one, group(sr), one)
        sh("vgcreate", "--devices", two, group(sr), two)
        with self.refused(47, "two volume groups"):
            sr("sr_attach")

    def test_a_device_that_vanished_from_a_group_makes_it_unavailable(self):
        one, two = kit.spare(), kit.spare()
        sr = self.sr(one, two).made()
        sr("sr_detach")
        kit.wipe(two)
        with self.refused(47):
            sr("sr_attach")

    def test_changes_must_come_from_the_master(self):
        sr = self.sr().made()
        vdi = self.disk(sr, 4 * MIB)
        sr.config["SRmaster"] = "false"
        sr("sr_attach")
        for method, keys in (("vdi_create", {}), ("vdi_delete", {"vdi_uuid": vdi}), ("vdi_snapshot", {"vdi_uuid": vdi})):
            with self.subTest(method=method), self.refused(58):
                sr(method, *([] if keys else ["4194304"]), **keys)
        sr.activated(vdi)
        sr.released(vdi)


class Adoption(LvmTest):
    """Laid out by plain lvm2 and a VHD writer of Python's, as other managers do."""

    def group(self, disk):
        sr = self.sr(disk)
        sh("vgcreate", "--metadatasize", "10M", group(sr), disk)
        return sr

    def put(self, sr, image, length=32 * MIB):
        """A VHD in a volume: its footer at the end of that."""
        with tempfile.TemporaryDirectory() as directory:
            if image.parent:  # whose time the child notes
                with open(os.path.join(directory, image.parent.name), "wb"):
                    pass
            data = image.bytes(directory)
        sh("lvcreate", "-y", "-L", f"{length}b", "-n", image.name, group(sr))
        with open(f"/dev/{group(sr)}/{image.name}", "r+b") as volume:
            volume.write(data[:-512])
            volume.seek(length - 512)
            volume.write(data[-512:])
            os.fsync(volume.fileno())
        sh("lvchange", "-an", f"{group(sr)}/{image.name}")

    def labelled(self, sr, vdi):
        """A metadata volume that names one disk."""
        texts = ["XSSM:%-10d:1:2" % (6 * 512), f'<?xml version="1.0" ?><uuid>{sr.uuid}</uuid><allocation>thick</allocation>',
                 "<name_label>old</name_label>", "<name_description></name_description>",
                 "<vdi><name_label>a &lt; b</name_label><name_description>of others</name_description>",
                 f"<uuid>{vdi}</uuid><is_a_snapshot>0</is_a_snapshot><snapshot_of></snapshot_of><snapshot_time>"
                 "</snapshot_time><type>user</type><vdi_type>aio</vdi_type><read_only>0</read_only><managed>1</managed>"
                 "<metadata_of_pool></metadata_of_pool><deleted>0</deleted></vdi>"]
        sh("lvcreate", "-y", "-Wn", "-L", "4M", "-n", "MGT", group(sr))
        with open(f"/dev/{group(sr)}/MGT", "r+b") as volume:
            volume.write("".join(text.ljust(512) for text in texts).encode())
            os.fsync(volume.fileno())
        sh("lvchange", "-an", f"{group(sr)}/MGT")

    def test_a_group_of_another_manager_is_taken_over_with_its_tree(self):
        sr = self.group(kit.spare())
        base = VolumeMaker(8 * MIB, hidden=True).write(0, noise(20))
        leaf = VolumeMaker(8 * MIB, parent=base).write(2 * MIB, noise(21))
        other = VolumeMaker(8 * MIB, parent=base)
        for image in (base, leaf, other):
            self.put(sr, image)
        raw = new_uuid()
        sh("lvcreate", "-an", "-Zn", "-Wn", "-L", "8M", "-n", f"LV-{raw}", group(sr))
        self.labelled(sr, raw)
        sr("sr_attach")
        rows = self.consistent(sr)
        self.assertEqual((rows[raw]["label"], rows[raw]["description"]), ("a < b", "of others"))
        self.assertEqual({uuid: (row["format"], row["parent"], row["hidden"]) for uuid, row in rows.items()},
                         {base.uuid: ("vhd", "", True), leaf.uuid: ("vhd", base.uuid, False),
                          other.uuid: ("vhd", base.uuid, False), raw: ("raw", "", False)})
        want = noise(20) + bytes(2 * MIB - PIECE) + noise(21) + bytes(6 * MIB - PIECE)
        self.assertEqual(self.content(sr, leaf.uuid), want)
        snapshot = sr("vdi_snapshot", vdi_uuid=leaf.uuid)["uuid"]
        self.assertEqual(self.content(sr, snapshot), want)
        self.assertIn("smapi_owner", sh("vgs", "-o", "vg_tags", group(sr)))

    def test_a_broken_volume_is_told_and_the_others_are_served(self):
        sr = self.sr().made()
        good, bad = self.disk(sr, 4 * MIB), self.disk(sr, 4 * MIB)
        sh("lvchange", "-ay", f"{group(sr)}/VHD-{bad}")
        sh("dd", "if=/dev/zero", f"of=/dev/{group(sr)}/VHD-{bad}", "bs=1M", "count=8", "oflag=direct")
        sh("lvchange", "-an", f"{group(sr)}/VHD-{bad}")
        sr("sr_scan")
        self.assertEqual({uuid: row["state"] for uuid, row in sr.contents().items()}, {good: "live", bad: "damaged"})
        sr.activated(good)
        sr.released(good)


class Crash(LvmTest):
    """kill -9 at every point that a call passes; then a start, and all is whole or gone."""

    def prepared(self, kind, **config):
        sr = self.sr(**config).made()
        vdi = sr.disk(8 * MIB, vdi_sm_config={"type": kind})
        self.written(sr, vdi, (MIB, noise(30)))
        return sr, vdi, bytes(MIB) + noise(30) + bytes(7 * MIB - PIECE)

    def kill_at_each_point(self, sr, call, judge):
        """call again and again, killed at its first, second … point, until it passes no more. judge after each."""
        for n in range(1, 40):
            self.lab.arm(f"*:kill:{n}")
            try:
                call()
                alive = True
            except BROKEN:
                alive = False
            if alive:
                self.lab.disarm()
                judge("none")
                return n
            self.assertTrue(self.lab.died())
            point = self.lab.acted()[-1]
            self.lab.start()
            with self.subTest(point=point):
                self.consistent(sr)
                judge(point)
        return self.fail("points without end")

    @deep
    def test_create_and_delete(self):
        for kind in ("raw", "vhd"):
            sr, vdi, data = self.prepared(kind)
            known = {vdi}

            def create():
                known.add(sr.disk(4 * MIB, vdi_sm_config={"type": kind}))

            def judge(point):
                rows = sr.contents()
                if point not in ("result_committed", "none"):
                    self.assertEqual(set(rows), known, point)
                known.update(rows)

            self.assertGreater(self.kill_at_each_point(sr, create, judge), 4)
            self.assertEqual(self.content(sr, vdi), data)
            left = sorted(known - {vdi})
            self.kill_at_each_point(sr, lambda: sr("vdi_delete", vdi_uuid=left[0]), lambda _: None)
            self.assertNotIn(left[0], sr.contents())

    @deep
    def test_snapshot_and_clone(self):
        for kind, method in (("vhd", "vdi_snapshot"), ("raw", "vdi_clone")):
            sr, vdi, data = self.prepared(kind)

            def judge(_):
                self.assertFalse(sr.contents()[vdi]["hidden"])

            self.assertGreater(self.kill_at_each_point(sr, lambda: sr(method, vdi_uuid=vdi), judge), 6)
            for uuid in (uuid for uuid, row in sr.contents().items() if not row["hidden"]):
                self.assertEqual(self.content(sr, uuid), data)

    @deep
    def test_resize(self):
        for kind in ("raw", "vhd"):
            sr, vdi, data = self.prepared(kind)
            sizes = iter(range(12, 400, 4))

            def judge(_):
                held = self.content(sr, vdi)
                self.assertEqual(held[:len(data)], data)
                self.assertEqual(held.strip(b"\0"), data.strip(b"\0"))
                self.assertEqual(str(len(held)), sr.contents()[vdi]["size"])

            self.kill_at_each_point(sr, lambda: sr("vdi_resize", str(next(sizes) * MIB), vdi_uuid=vdi), judge)

    @deep
    def test_repositories(self):
        disk = kit.spare()
        for n in range(1, 20):
            sr = Repository(self.lab.unix("xapi"), "lvm", new_uuid(), {"device": disk})
            self.lab.arm(f"*:kill:{n}")
            try:
                sr("sr_create", "0")
            except BROKEN:
                pass
            else:
                break
            self.assertTrue(self.lab.died())
            point = self.lab.acted()[-1]
            self.lab.start()
            with self.subTest(point=point):
                if point == "result_committed":
                    sr("sr_attach")
                    sr("sr_delete")
                self.assertEqual(sh("blkid", "-p", disk, check=False), "")
        for n in range(1, 20):
            self.lab.disarm()
            sr("sr_attach")
            self.lab.arm(f"*:kill:{n}")
            try:
                sr("sr_delete")
            except BROKEN:
                pass
            else:
                break
            self.assertTrue(self.lab.died())
            self.lab.start()
            self.assertEqual(sh("blkid", "-p", disk, check=False), "")
            sr("sr_create", "0")
        self.lab.disarm()
        self.assertEqual(sh("blkid", "-p", disk, check=False), "")
        self.nothing_is_left()

    @deep
    def test_random_kills_while_disks_are_attached_and_made(self):
        sr, vdi, data = self.prepared("vhd")
        chance = random.Random(7)
        for _ in range(5):
            calls = threading.Thread(target=self.busy, args=(sr, vdi))
            calls.start()
            time.sleep(chance.uniform(0.05, 2.5))
            self.lab.kill9()
            calls.join()
            self.lab.start()
            with contextlib.suppress(Fault):
                sr.released(vdi)
            self.consistent(sr)
            self.assertEqual(self.content(sr, vdi), data)

    @staticmethod
    def busy(sr, vdi):
        with contextlib.suppress(*BROKEN, Fault):
            while True:
                sr.activated(vdi)
                sr.released(vdi)
                snapshot = sr("vdi_snapshot", vdi_uuid=vdi)["uuid"]
                sr("vdi_delete", vdi_uuid=snapshot)

    @deep
    def test_a_lost_database_finds_everything_again(self):
        """The group alone: what was under way is finished or gone after the attach of a server that knows nothing."""
        for point in ("create_temp_synced", "fork_child_made", "fork_linked", "fork_published"):
            sr, vdi, data = self.prepared("vhd")
            self.lab.arm(f"{point}:kill")
            with contextlib.suppress(*BROKEN, Fault):
                if point.startswith("create"):
                    self.disk(sr, 4 * MIB)
                else:
                    sr("vdi_clone", vdi_uuid=vdi)
            self.assertTrue(self.lab.died())
            with contextlib.closing(Lab()) as second:
                second.start()
                there = sr.by(second.unix("xapi"))
                take_over(second, sr)
                there("sr_attach")
                with self.subTest(point=point):
                    rows = self.consistent(there)
                    shown = [uuid for uuid, row in rows.items() if not row["hidden"]]
                    self.assertEqual(len(shown), 1 + (point in ("fork_linked", "fork_published")))
                    self.assertIn(vdi, shown)
                    for uuid in shown:
                        self.assertEqual(self.content(there, uuid), data)
            self.lab.start()


if __name__ == "__main__":
    unittest.main()
