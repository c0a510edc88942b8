# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories as the older manager leaves them, built by qemu-img and vhd.py: they are adopted, served and changed by
its rules, and what else it keeps there is left alone. Images put there by hand, and labels that outlive the database."""
import os
import random
import subprocess
import unittest

import vhd
from lab import MIB, Fault, LabTest, new_uuid, program
from test_trees import fingerprint
from trees import Disk, Judges, random_pieces, write_pieces


class Older:
    """A directory of the older manager. live: {uuid: Disk}; hidden, raw_bases: uuids of bases; others: names it keeps besides."""

    def __init__(self, directory, seed=1):
        self.directory, self.chance = directory, random.Random(seed)
        self.live, self.hidden, self.raw_bases, self.others = {}, set(), set(), set()
        os.mkdir(directory)

    def content(self, size, below=None):
        """Random pieces, and the disk they make of what is below."""
        disk = Disk(below.data if below else bytes(size))
        pieces = random_pieces(self.chance, size, 4)
        for offset, data in pieces:
            disk.write(offset, data)
        return pieces, disk

    def vhd(self, size=4 * MIB, parent=None, below=None, keep=True, **how):
        """One image of Xen's tools: (Maker, Disk)."""
        pieces, disk = self.content(size, below)
        maker = vhd.Maker(size, parent=parent, **how)
        for offset, data in pieces:
            maker.write(offset, data)
        maker.save(self.directory)
        if keep:
            self.live[maker.uuid] = disk
        return maker, disk

    def base(self, parent=None, below=None, **how):
        maker, disk = self.vhd(parent=parent, below=below, keep=False, **how)
        self.hidden.add(maker.uuid)
        return maker, disk

    def hide(self):
        """As its snapshots do: after the children were made."""
        for vdi in self.hidden:
            vhd.marked(os.path.join(self.directory, vdi + ".vhd"), True)

    def tree(self, depth=1, **how):
        """Bases upon each other, with two leaves at the top."""
        maker, disk = self.base(**how)
        for _ in range(depth - 1):
            maker, disk = self.base(maker, disk, **how)
        self.vhd(parent=maker, below=disk, **how)
        self.vhd(parent=maker, below=disk, **how)

    def raw(self, size=4 * MIB):
        vdi, disk = new_uuid(), self.content(size)[1]
        with open(os.path.join(self.directory, vdi + ".raw"), "wb") as image:
            image.write(disk.data)
        self.live[vdi] = disk
        return vdi, disk

    def raw_parent(self):
        """A raw disk cannot be marked: that it has a child must tell."""
        vdi, disk = self.raw()
        self.vhd(parent=vdi + ".raw", below=disk)
        del self.live[vdi]
        self.raw_bases.add(vdi)

    def of_qemu(self, *options):
        vdi, disk = new_uuid(), self.content(6 * MIB)[1]
        path = os.path.join(self.directory, vdi)
        with open(path, "wb") as image:
            image.write(disk.data)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", ",".join(("force_size=on", *options)), path,
                        path + ".vhd"], check=True)
        os.unlink(path)
        self.live[vdi] = disk

    def other(self, name, data=b"1"):
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(data)
        self.others.add(name)

    def all_of_it(self):
        self.vhd()
        self.vhd(batmap=False)
        self.tree()
        self.tree(5)
        self.tree(2, batmap=False)
        self.raw()
        self.raw_parent()
        self.of_qemu()
        self.of_qemu("subformat=fixed")
        self.hide()
        for kind in ("coalesce", "leaf", "relink"):
            self.other(f"{kind}_{new_uuid()}", b"1")
        self.other("filelog.txt", b"snapshot of something\n")
        self.other("sm-hardlink.conf", b"1")
        self.other(f".journal-{new_uuid()}", b"j" * 6000)
        self.other(f"{new_uuid()}.cbtlog", bytes(64))
        self.other(f"OLD_{new_uuid()}.vhd", b"x")
        return self


class AdoptionTest(LabTest):
    def adopted(self, build):
        sr = self.lab.repository("file")
        older = Older(sr.location)
        build(older)
        self.before = fingerprint(sr.location)
        sr("sr_attach")
        sr("sr_scan")
        return sr, older

    def untouched(self, sr, names):
        now = fingerprint(sr.location)
        for name in names:
            self.assertEqual(now.get(name), self.before[name], name)

    def live(self, sr):
        return {vdi for vdi, row in sr.contents().items() if not row["hidden"]}


class Adopted(AdoptionTest):
    def test_every_disk_is_listed_and_read_right_and_no_file_is_touched(self):
        sr, older = self.adopted(Older.all_of_it)
        rows = sr.contents()
        self.assertEqual({vdi: (int(row["size"]), row["state"]) for vdi, row in rows.items() if not row["hidden"]},
                         {vdi: (disk.size, "live") for vdi, disk in older.live.items()})
        self.assertEqual({vdi for vdi, row in rows.items() if row["hidden"]}, older.hidden | older.raw_bases)
        images = Judges(self, sr).judge(older.live)
        self.assertEqual({vdi: rows[vdi]["parent"] or None for vdi in images},
                         {vdi: image.parent for vdi, image in images.items()})
        self.assertEqual(int(sr.page()["sr"]["virtual_allocation"]), sum(disk.size for disk in older.live.values()))
        self.untouched(sr, self.before)
        self.assertEqual({name for name in sr.names() - self.before.keys() if not name.endswith(".smapi")}, set())

    def test_what_we_do_to_its_disks_keeps_its_rules(self):
        sr, older = self.adopted(Older.all_of_it)
        judges, chance = Judges(self, sr), random.Random(2)
        disks = dict(older.live)
        for vdi in sorted(older.live):
            if not vhd.find(sr.location, vdi).endswith(".vhd"):
                continue
            with self.subTest(vdi=vdi, image=older.live[vdi]):
                self.worked_on(sr, vdi, disks, chance)
                judges.judge(disks)
        self.untouched(sr, older.others)

    def worked_on(self, sr, vdi, disks, chance):
        """Snapshot, write, clone, write, grow; disks is kept in step."""
        for method in ("vdi_snapshot", "vdi_clone"):
            made = sr(method, vdi_uuid=vdi, driver_params={})["uuid"]
            disks[made] = Disk(disks[vdi].data)
            pieces = random_pieces(chance, disks[vdi].size)
            write_pieces(sr, vdi, pieces)
            disks[vdi] = Disk(disks[vdi].data)
            for offset, data in pieces:
                disks[vdi].write(offset, data)
        disks[vdi] = disks[vdi].grown(disks[vdi].size + 2 * MIB)
        sr("vdi_resize", str(disks[vdi].size), vdi_uuid=vdi)

    def test_its_own_images_grow(self):
        def build(older):
            older.vhd()
            older.vhd(batmap=False)
            older.of_qemu()
            older.of_qemu("subformat=fixed")

        sr, older = self.adopted(build)
        for vdi, disk in older.live.items():
            with self.subTest(vdi=vdi):
                size = disk.size + 4 * MIB
                sr("vdi_resize", str(size), vdi_uuid=vdi)
                older.live[vdi] = disk.grown(size)
                Judges(self, sr).judge(older.live)

    def test_deleting_every_disk_leaves_what_else_it_keeps(self):
        sr, older = self.adopted(Older.all_of_it)
        for vdi in [*sorted(older.live), *older.raw_bases]:
            sr("vdi_delete", vdi_uuid=vdi)
            self.assertNotIn(vdi, self.live(sr))
        self.assertEqual((sr.names(), sr.contents()), (older.others | {"sr.smapi"}, {}))
        self.untouched(sr, older.others)
        with self.refused(39):
            sr("sr_delete")
        self.assertEqual(sr.names(), older.others | {"sr.smapi"})

    def test_what_nobody_marked_is_a_disk_again_after_a_scan_without_its_children(self):
        def build(older):
            maker, disk = older.vhd()
            older.raw_parent()
            self.bases = {maker.uuid, *older.raw_bases}
            older.vhd(parent=maker, below=disk)

        sr, older = self.adopted(build)
        for vdi in set(older.live) - self.bases:
            sr("vdi_delete", vdi_uuid=vdi)
        sr("sr_scan")
        self.assertEqual(self.live(sr), self.bases)

    def test_a_base_that_a_crash_of_its_left_visible_is_a_base_all_the_same(self):
        def build(older):
            maker, disk = older.vhd()
            self.base = maker.uuid
            older.vhd(parent=maker, below=disk)

        sr, older = self.adopted(build)
        del older.live[self.base]
        self.assertEqual(self.live(sr), set(older.live))
        self.assertTrue(sr.contents()[self.base]["coalescable"])
        with self.refused(82):
            sr("vdi_snapshot", vdi_uuid=self.base, driver_params={})
        sr("vdi_delete", vdi_uuid=self.base)  # nothing can go, as a child needs it
        self.assertEqual(self.live(sr), set(older.live))
        Judges(self, sr).judge(older.live)
        sr("vdi_delete", vdi_uuid=older.live.popitem()[0])
        self.assertEqual((sr.names(), sr.contents()), ({"sr.smapi"}, {}))


class ByHand(AdoptionTest):
    def put_there(self, sr):
        """A base, its child and a raw disk, moved into an SR: {uuid: Disk}, [(uuid, suffix)]."""
        older = Older(sr.location + ".by-hand")
        parent, disk = older.vhd()
        child, _ = older.vhd(parent=parent, below=disk)
        raw, _ = older.raw()
        for name in os.listdir(older.directory):
            os.rename(os.path.join(older.directory, name), os.path.join(sr.location, name))
        return older.live, [(parent.uuid, ".vhd"), (child.uuid, ".vhd"), (raw, ".raw")]

    def test_a_vhd_a_child_and_a_raw_image_put_there_are_introduced_in_any_order(self):
        for backwards in (False, True):
            sr = self.lab.repository("file").made()
            disks, images = self.put_there(sr)
            for vdi, suffix in reversed(images) if backwards else images:
                info = sr("vdi_introduce", vdi_location=vdi + suffix, new_uuid=vdi, vdi_sm_config={})
                self.assertEqual(info["uuid"], vdi)
                row = sr.contents()[vdi]
                self.assertEqual((int(row["size"]), row["state"], row["format"]), (disks[vdi].size, "live", suffix[1:]))
            before = sr.contents()
            self.assertEqual({vdi: row["hidden"] for vdi, row in before.items()},
                             {vdi: n == 0 for n, (vdi, _) in enumerate(images)})
            sr("sr_scan")
            self.assertEqual(sr.contents(), before)
            for vdi, disk in disks.items():
                self.assertTrue(vhd.read(sr.location, vdi) == disk.data)

    def test_an_image_that_is_none_is_not_introduced(self):
        sr = self.lab.repository("file").made()
        vdi = new_uuid()
        with open(os.path.join(sr.location, vdi + ".vhd"), "wb") as image:
            image.write(b"conectix" * 600)
        with self.assertRaises(Fault) as refused:
            sr("vdi_introduce", vdi_location=vdi + ".vhd", new_uuid=vdi, vdi_sm_config={})
        self.assertIn(vdi, refused.exception.text)
        self.assertEqual(sr.contents(), {})


class LostDatabase(AdoptionTest):
    KEPT = ("label", "description", "size", "read_only", "is_a_snapshot", "hidden", "parent", "type", "format", "depth")

    def told(self, sr):
        return {vdi: tuple(row[key] for key in self.KEPT) for vdi, row in sr.contents().items()}

    def test_a_rebuilt_database_has_labels_of_every_kind_of_disk(self):
        sr, older = self.adopted(lambda older: (older.tree(2), older.raw(), older.of_qemu(), older.hide()))
        for n, vdi in enumerate(sorted(older.live)):
            sr("vdi_update", vdi_uuid=vdi, name_label=f"adopted {n} <&> \u00e4", name_description="words")
        created = sr.disk(4 * MIB, "created", "anew", vdi_type="system")
        for method in ("vdi_snapshot", "vdi_clone"):
            made = sr(method, vdi_uuid=created, driver_params={})["uuid"]
            sr("vdi_update", vdi_uuid=made, name_label=method)
        before = self.told(sr)
        self.assertEqual(sum(row[0].startswith("adopted") for row in before.values()), len(older.live))
        self.lab.stop()
        for name in os.listdir(self.lab.state):
            if name.startswith("smapid.db"):
                os.unlink(os.path.join(self.lab.state, name))
        subprocess.run([program("smapid"), "--config", self.lab.config_path, "--rebuild", "--sr",
                        f"file,uuid={sr.uuid},location={sr.location}"], timeout=60, check=True, capture_output=True)
        self.lab.start()
        sr("sr_attach")
        sr("sr_scan")
        self.assertEqual(self.told(sr), before)


if __name__ == "__main__":
    unittest.main()
