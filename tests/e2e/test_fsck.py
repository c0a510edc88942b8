# SPDX-License-Identifier: LGPL-2.1-or-later
"""smapid --fsck: each kind of difference is planted and told, by the running daemon or without one; where there is none
none is told, and nothing is changed."""
import os
import struct
import unittest

import vhd
from lab import MIB, Lab, describe, fsck, new_uuid, store_sql

KINDS = [row["kind"] for row in describe()["findings"]]


class Planted:
    """One SR with a tree of disks, of which one is active, and one thing wrong with it. Each method is a kind of
    difference, plants it, and gives what must be named: (object or None for the SR or store, whether the daemon runs)."""

    def __init__(self, lab):
        self.lab = lab
        self.sr = lab.repository("file").made()
        self.disk = self.sr.disk(4 * MIB, "label")
        self.copy = self.sr("vdi_clone", vdi_uuid=self.disk, driver_params={})["uuid"]
        self.base = self.sr.contents()[self.disk]["parent"]
        self.lone = self.sr.disk(4 * MIB)
        self.sr.activated(self.lone)

    def path(self, name):
        return os.path.join(self.sr.location, name)

    def sql(self, text, running=True):
        """Changes rows behind the daemon's back."""
        self.lab.stop()
        store_sql(self.lab, text.format(sr=self.sr.uuid, disk=self.disk, copy=self.copy, base=self.base,
                                        lone=self.lone))
        if running:
            self.lab.start()

    def integrity(self):
        self.sql("PRAGMA writable_schema = ON;"
                 "CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'vdi_parent';"
                 "DELETE FROM sqlite_schema WHERE name = 'vdi_parent'; PRAGMA writable_schema = RESET;"
                 "UPDATE vdi SET parent = '' WHERE uuid = '{copy}'; UPDATE vdi SET parent = '{base}' WHERE uuid = '{lone}';"
                 "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM kept")
        return "smapid.db"

    def intent_open(self):
        self.sql("INSERT INTO op (uuid, state, method, sr, vdi, made, base, size, old_size, format, name, device, inode,"
                 " read_only, keep, epoch, opened) VALUES (lower(hex(randomblob(4))) || '-0000-4000-8000-000000000000',"
                 "'open', 'vdi_update', '{sr}', '{lone}', '', '', 0, 0, '', '', 0, 0, 0, 0, 0, 0)", running=False)
        return self.lone

    def sr_unsettled(self):
        self.lab.stop()
        os.rename(self.sr.location, self.sr.location + ".away")
        self.lab.start()

    def sr_unreachable(self):
        os.rename(self.path("sr.smapi"), self.path("sr.away"))

    def place_stray(self):
        stray = new_uuid()
        os.symlink("/nowhere", os.path.join(self.lab.mounts, stray))
        return stray

    def disk_unsettled(self):
        self.sql("UPDATE vdi SET state = 'creating' WHERE uuid = '{lone}'")
        return self.lone

    def disk_quarantined(self):
        self.sql("UPDATE vdi SET state = 'quarantined', damage = 'for a test' WHERE uuid = '{disk}'")
        return self.disk

    def disk_damaged(self):
        bad = new_uuid()
        with open(self.path(bad + ".vhd"), "wb") as image:
            image.write(b"no image at all")
        self.sr("sr_scan")
        return bad

    def disk_missing(self):
        os.unlink(self.path(self.copy + ".vhd"))
        return self.copy

    def disk_unknown(self):
        return vhd.Maker(2 * MIB).save(self.sr.location).uuid

    def disk_differs(self):
        self.sql("UPDATE vdi SET size = 8388608 WHERE uuid = '{copy}'")
        return self.copy

    def parent_missing(self):
        self.sql("UPDATE vdi SET parent = '" + new_uuid() + "' WHERE uuid = '{copy}'")
        return self.copy

    def parent_visible(self):
        self.sql("UPDATE vdi SET hidden = 0 WHERE uuid = '{base}'")
        return self.copy

    def chain_loop(self):
        self.sql("UPDATE vdi SET parent = '{copy}' WHERE uuid = '{base}'")
        return self.copy

    def lease_conflict(self):
        self.sql("INSERT INTO attachment (sr, vdi, holder, writable, since) SELECT sr, vdi, 'host:x', 0, 0 FROM attachment "
                 "WHERE vdi = '{lone}'; INSERT INTO lease (sr, vdi, holder, mode, epoch, since, state, boot, nonce, "
                 "fence, why) VALUES ('{sr}', '{lone}', 'host:x', 'ro', (SELECT epoch_next FROM meta), 0, 'held', '', '', "
                 "'vdi', '')")
        return self.lone

    def lease_unattached(self):
        self.sql("DELETE FROM attachment WHERE vdi = '{lone}'")
        return self.lone

    def lease_epoch(self):
        self.sql("UPDATE lease SET epoch = epoch + (1 << 50)")
        return self.lone

    def lease_audit(self):
        self.sql("UPDATE lease SET holder = 'host:x'; UPDATE attachment SET holder = 'host:x'")

    def attachment_stray(self):
        gone = new_uuid()
        self.sql("INSERT INTO attachment (sr, vdi, holder, writable, since) VALUES ('{sr}', '" + gone + "', 'x', 1, 0)")
        return gone

    def secret_stored(self):
        self.sql("INSERT INTO sr_config (sr, position, key, value) VALUES ('{sr}', 9, 'chappassword', 'geheim')")
        return "chappassword"

    def litter(self):
        name = "01234567-new-" + new_uuid() + ".smapi"
        with open(self.path(name), "wb"):
            return name

    def sidecar_stray(self):
        gone = new_uuid()
        with open(self.path(gone + ".smapi"), "wb"):
            return gone

    def image_linked(self):
        name = self.copy + ".vhd"
        os.link(self.path(name), self.path("another name"))
        return name

    def image_unsound(self):
        with open(self.path(self.lone + ".vhd"), "r+b") as image:
            head, = struct.unpack_from(">Q", image.read(512), 16)
            image.seek(head + 16)
            image.seek(*struct.unpack(">Q", image.read(8)))
            image.write(b"\x7f\xff\xff\xf0")  # the first block, far behind the end
        self.sr.released(self.lone)
        return self.lone


class EachKind(unittest.TestCase):
    def setUp(self):
        self.lab = Lab(in_memory=True)
        self.addCleanup(self.lab.close)
        self.lab.start()

    def plant(self, kind):
        planted = Planted(self.lab)
        self.assertEqual(fsck(self.lab, "--strict"), [])
        named = getattr(planted, kind)()
        for _ in range(2):  # telling it changes nothing of it
            found = fsck(self.lab, "--strict")
            self.assertIn(kind, [one["kind"] for one in found], found)
            if named:
                self.assertIn((kind, named), [(one["kind"], one["object"]) for one in found])
            self.assertTrue(all(one["text"] and one["sr"] in ("", planted.sr.uuid) for one in found), found)


def promise(kind):
    return lambda self: self.plant(kind)


for each in KINDS:
    setattr(EachKind, "test_" + each + "_is_told", promise(each))


class Whole(unittest.TestCase):
    def setUp(self):
        self.lab = Lab(in_memory=True)
        self.addCleanup(self.lab.close)
        self.lab.start()

    def test_many_differences_are_told_in_pages_and_each_once(self):
        sr = self.lab.repository("file").made()
        strangers = {vhd.Maker(2 * MIB).save(sr.location).uuid for _ in range(120)}
        found = fsck(self.lab)
        self.assertEqual(len(found), len(strangers))
        self.assertEqual({one["object"] for one in found}, strangers)

    def test_one_repository_can_be_asked_for(self):
        first, second = (self.lab.repository("file").made() for _ in range(2))
        stranger = vhd.Maker(2 * MIB).save(first.location).uuid
        self.assertEqual([one["object"] for one in fsck(self.lab, first.uuid)], [stranger])
        self.assertEqual(fsck(self.lab, second.uuid), [])

    def test_without_a_daemon_the_same_is_told_and_nothing_changed(self):
        planted = Planted(self.lab)
        planted.disk_missing()
        planted.litter()
        running = fsck(self.lab, "--strict")
        self.lab.kill9()
        before = {name: os.stat(planted.path(name)).st_mtime_ns for name in planted.sr.names()}
        stopped = fsck(self.lab, "--strict")
        self.assertEqual(sorted(map(str, stopped)), sorted(map(str, running)))
        self.assertEqual({name: os.stat(planted.path(name)).st_mtime_ns for name in planted.sr.names()}, before)

    def test_a_sound_state_is_sound_after_kill_9_and_recovery(self):
        planted = Planted(self.lab)
        planted.sr("vdi_delete", vdi_uuid=planted.copy)
        self.lab.kill9()
        self.assertEqual(fsck(self.lab, "--strict"), [])
        self.lab.start()
        self.assertEqual(fsck(self.lab, "--strict"), [])


if __name__ == "__main__":
    unittest.main()
