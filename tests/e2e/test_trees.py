# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots, clones, resizes and deletes in a file SR, asked for through the bridge as xapi asks and over HTTPS: every
disk's bytes are right after every step, and what is refused changes nothing. SMAPI_SEED chooses the steps."""
import hashlib
import os
import time
import unittest

import trees
import vhd
from lab import MIB, LabTest, new_uuid, rounds

SEED = int(os.environ.get("SMAPI_SEED") or 20100902)
LIMIT = vhd.LONGEST_CHAIN


def fingerprint(directory):
    """Everything in a directory: names, bytes, modes and inodes."""
    found = {}
    for name in os.listdir(directory):
        status = os.lstat(os.path.join(directory, name))
        with open(os.path.join(directory, name), "rb") as file:
            found[name] = (status.st_ino, status.st_mode, status.st_mtime_ns, hashlib.sha256(file.read()).digest())
    return found


class TreeTest(LabTest):
    def repository(self):
        """A file SR and those who call it in turn: xapi by the bridge, and a host over HTTPS."""
        sr = self.lab.repository("file").made()
        host = sr.by(self.lab.host(new_uuid()))
        host("sr_attach")
        return sr, [sr.by(self.lab.bridge()), host]

    def trees(self, seed=SEED):
        sr, callers = self.repository()
        return trees.Trees(self, sr, callers, seed)


class RandomTrees(TreeTest):
    DISKS, SECONDS = 20, 20

    def step(self, t):
        """One random step. The favourite is forked so often that its chain comes to the limit."""
        do = t.chance.random()
        if do < 0.35 and t.favourite in t.disks:
            t.write(t.favourite)
            self.fork(t, t.favourite, "vdi_snapshot")
        elif do < 0.5:
            self.fork(t, t.pick(filter(t.is_vhd, t.disks)), t.chance.choice(("vdi_snapshot", "vdi_clone")))
        elif do < 0.65:
            t.write(t.pick(t.writable()))
        elif do < 0.75:
            t.resize(t.pick())
        elif len(t.disks) > self.DISKS * 0.8:
            t.delete(t.pick(t.disks.keys() - {t.favourite}))
        else:
            t.create()

    def fork(self, t, vdi, method):
        chain = len(vhd.chain(t.sr.location, vdi))
        if chain < LIMIT:
            t.fork(vdi, method)
            return
        before = fingerprint(t.sr.location)
        with self.refused(109, vdi):
            t.caller()(method, vdi_uuid=vdi, driver_params={})
        self.assertEqual(fingerprint(t.sr.location), before)

    def test_every_disk_reads_right_after_every_step(self):
        t = self.trees()
        while len(t.disks) < self.DISKS:
            t.create()
        t.favourite = t.create(2)
        t.listed()
        deadline, steps, deepest = time.monotonic() + rounds(self.SECONDS), 0, 0
        while time.monotonic() < deadline or deepest < LIMIT:
            self.step(t)
            images = t.listed()
            steps, deepest = steps + 1, max([deepest, *(len(vhd.lineage(images, vdi)) for vdi in t.disks)])
        print(f"{steps} steps, seed {SEED}, {len(t.disks)} disks at the end", flush=True)
        self.emptied(t)

    def emptied(self, t):
        """Deleting every leaf leaves the marker alone."""
        while t.disks:
            t.delete(t.pick())
            self.assertEqual(t.sr.litter(), set())
            t.judges.sound()
        self.assertEqual((t.sr.names(), t.sr.contents()), ({"sr.smapi"}, {}))


class Forks(TreeTest):
    def test_a_snapshot_is_a_read_only_leaf_and_a_clone_a_writable_one_of_the_same_bytes(self):
        for method, read_only in (("vdi_snapshot", True), ("vdi_clone", False)):
            t = self.trees()
            vdi = t.create(2)
            if not t.is_vhd(vdi):
                continue
            t.write(vdi)
            made = t.fork(vdi, method)
            images = t.listed()
            base, = set(images) - set(t.disks)
            self.assertEqual({images[made].parent, images[vdi].parent}, {base})
            row = t.sr.contents()[made]
            self.assertEqual((row["read_only"], row["is_a_snapshot"]), (read_only, read_only))
            t.write(vdi)
            t.listed()

    def test_a_disk_is_a_vhd_of_whole_2_mib_unless_raw_is_asked_for(self):
        sr, callers = self.repository()
        for caller in callers:
            for size, rounded in ((1, 2 * MIB), (2 * MIB, 2 * MIB), (2 * MIB + 1, 4 * MIB)):
                vdi = caller.disk(size)
                self.assertEqual(int(sr.contents()[vdi]["size"]), rounded)
                self.assertEqual(vhd.Image(os.path.join(sr.location, vdi + ".vhd")).size, rounded)
            raw = caller.disk(4 * MIB, vdi_sm_config={"type": "raw"})
            self.assertEqual(os.path.getsize(os.path.join(sr.location, raw + ".raw")), 4 * MIB)
        vhd.judge(sr.location)

    def test_the_largest_disk_is_2040_gib_and_takes_no_time(self):
        sr, callers = self.repository()
        vdi = callers[0].disk(2040 << 30)
        self.assertEqual(vhd.Image(vhd.find(sr.location, vdi)).size, 2040 << 30)
        callers[1]("vdi_snapshot", vdi_uuid=vdi, driver_params={})
        vhd.judge(sr.location)

    def test_a_large_table_moves_blocks_and_every_byte_stays(self):
        t = self.trees()
        vdi = t.sr.disk(2 * MIB)
        t.disks[vdi] = trees.Disk(bytes(2 * MIB))
        t.write(vdi)
        for gib in (1, 64, 2040):
            t.sr("vdi_resize", str(gib << 30), vdi_uuid=vdi)
            vhd.judge(t.sr.location)
            data = vhd.Image(vhd.find(t.sr.location, vdi))
            self.assertEqual(data.size, gib << 30)
            data.size = 2 * MIB
            self.assertTrue(data.laid_on(None) == t.disks[vdi].data)


class Boots(TreeTest):
    def test_a_reset_forgets_what_was_written_since_the_fork_and_persist_nothing(self):
        t = self.trees()
        for caller in t.callers:
            vdi = t.sr.disk(2 * MIB)
            t.disks[vdi] = trees.Disk(bytes(2 * MIB))
            t.write(vdi)
            kept = t.disks[t.fork(vdi, "vdi_clone")]
            t.write(vdi)
            caller("vdi_epoch_begin", vdi_uuid=vdi, vdi_on_boot="persist")
            t.listed()
            caller("vdi_epoch_begin", vdi_uuid=vdi, vdi_on_boot="reset")
            t.disks[vdi] = trees.Disk(kept.data)
            t.listed()
            caller("vdi_epoch_end", vdi_uuid=vdi)

    def test_a_composed_disk_shows_its_new_parent_where_it_holds_nothing(self):
        t = self.trees()
        for caller in t.callers:
            vdi, parent = t.sr.disk(2 * MIB), t.sr.disk(2 * MIB)
            t.disks[caller("vdi_clone", vdi_uuid=vdi, driver_params={})["uuid"]] = trees.Disk(bytes(2 * MIB))
            trees.write_pieces(t.sr, parent, [(0, b"p" * 8192)])
            trees.write_pieces(t.sr, vdi, [(4096, b"c" * 8192)])
            caller("vdi_compose", parent, vdi_uuid=vdi)
            t.disks[vdi] = trees.Disk((b"p" * 4096 + b"c" * 8192).ljust(2 * MIB, b"\0"))
            t.listed()


class Refusals(TreeTest):
    """Each by its code, and then nothing has changed."""

    def refuse(self, sr, code, method, *args, **keys):
        before, rows = fingerprint(sr.location), sr.contents()
        with self.refused(code):
            sr(method, *args, **keys)
        self.assertEqual(fingerprint(sr.location), before)
        self.assertEqual(sr.contents(), rows)

    def forks(self, sr, vdi, snapshot, clone):
        for method, code in (("vdi_snapshot", snapshot), ("vdi_clone", clone)):
            with self.subTest(method=method):
                self.refuse(sr, code, method, vdi_uuid=vdi, driver_params={})

    def test_46_for_a_disk_that_is_not_there(self):
        for caller in self.repository()[1]:
            self.forks(caller, new_uuid(), 46, 46)

    def test_38_for_a_raw_disk(self):
        for caller in self.repository()[1]:
            self.forks(caller, caller.disk(vdi_sm_config={"type": "raw"}), 38, 38)

    def test_82_and_81_for_a_hidden_base(self):
        for caller in self.repository()[1]:
            vdi = caller.disk()
            trees.write_pieces(caller, vdi, [(0, b"x" * 512)])
            caller("vdi_clone", vdi_uuid=vdi, driver_params={})
            base = caller.contents()[vdi]["parent"]
            self.forks(caller, base, 82, 81)
            caller.delete_disks()

    def test_46_for_any_use_of_a_base(self):
        sr, callers = self.repository()
        vdi, parent = sr.disk(), sr.disk()
        sr("vdi_clone", vdi_uuid=vdi, driver_params={})
        base = sr.contents()[vdi]["parent"]
        sr("vdi_compose", parent, vdi_uuid=vdi)
        for caller in callers:
            for hidden in (base, parent):
                for method, *args in (["vdi_attach", "true"], ["vdi_attach", "false"], ["vdi_activate", "true"],
                                      ["vdi_resize", str(8 * MIB)], ["vdi_compose", vdi], ["vdi_epoch_begin"],
                                      ["vdi_generate_config"]):
                    with self.subTest(method=method, composed=hidden == parent):
                        self.refuse(caller, 46, method, *args, vdi_uuid=hidden)

    def test_24_for_a_disk_that_is_active_read_write_and_not_for_one_active_read_only(self):
        sr, callers = self.repository()
        for caller in callers:
            vdi = caller.disk()
            for writable in ("true", "false"):
                caller("vdi_attach", writable, vdi_uuid=vdi)
                caller("vdi_activate", writable, vdi_uuid=vdi)
                self.refuse(caller, 24, "vdi_resize", str(8 * MIB), vdi_uuid=vdi)
                if writable == "true":
                    self.forks(caller, vdi, 24, 24)
                    self.forks(sr.by(self.lab.unix()), vdi, 24, 24)
                else:
                    caller("vdi_snapshot", vdi_uuid=vdi, driver_params={})
                caller.released(vdi)

    def test_79_for_shrinking_and_for_too_large(self):
        for caller in self.repository()[1]:
            vdi = caller.disk(8 * MIB)
            for size in (6 * MIB, (2040 << 30) + 1):
                self.refuse(caller, 79, "vdi_resize", str(size), vdi_uuid=vdi)
            caller("vdi_resize", str(8 * MIB), vdi_uuid=vdi)

    def test_a_disk_made_without_a_parent_takes_none_and_one_without_a_parent_cannot_be_reset(self):
        for caller in self.repository()[1]:
            vdi, parent = caller.disk(), caller.disk()
            self.refuse(caller, 66, "vdi_compose", parent, vdi_uuid=vdi)
            self.refuse(caller, 46, "vdi_compose", new_uuid(), vdi_uuid=vdi)
            self.refuse(caller, 38, "vdi_epoch_begin", vdi_uuid=vdi, vdi_on_boot="reset")

    def test_109_at_30_images(self):
        sr, callers = self.repository()
        vdi = sr.disk(2 * MIB)
        for n in range(LIMIT - 1):
            trees.write_pieces(sr, vdi, [(512 * n, b"%512d" % n)])
            callers[n % 2]("vdi_clone", vdi_uuid=vdi, driver_params={})
        self.assertEqual(len(vhd.chain(sr.location, vdi)), LIMIT)
        trees.write_pieces(sr, vdi, [(512 * LIMIT, b"x" * 512)])
        for caller in callers:
            self.forks(caller, vdi, 109, 109)
        expected = b"".join(b"%512d" % n for n in range(LIMIT - 1)) + bytes(512) + b"x" * 512
        self.assertEqual(vhd.read(sr.location, vdi)[:len(expected)], expected)


if __name__ == "__main__":
    unittest.main()
