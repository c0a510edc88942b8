# SPDX-License-Identifier: LGPL-2.1-or-later
"""The medium is authoritative: markers, owners, adoption, images that come and go, and a lost database."""
import http.client
import os
import shutil
import subprocess
import time
import unittest

import vhd
from lab import MIB, Fault, Lab, LabTest, fsck, new_uuid, program, rebuild, take_over


def raw_image(directory, size=2 * MIB):
    """An image as another storage manager leaves it; its uuid."""
    vdi = new_uuid()
    with open(os.path.join(directory, vdi + ".raw"), "wb") as image:
        image.truncate(size)
    return vdi


class Markers(LabTest):
    def test_an_sr_without_its_marker_is_unavailable_and_never_an_empty_list(self):
        sr = self.lab.repository("file").made()
        vdi = sr.disk()
        marker = os.path.join(sr.location, "sr.smapi")
        os.rename(marker, marker + ".away")
        for method, *args in (["sr_scan"], ["sr_update"], ["vdi_create", str(4 * MIB)]):
            with self.subTest(method=method), self.refused(47, "marker"):
                sr(method, *args)
        os.rename(marker + ".away", marker)
        sr("sr_attach")
        sr("sr_scan")
        self.assertEqual(set(sr.contents()), {vdi})

    def test_a_place_that_was_replaced_is_unavailable(self):
        sr = self.lab.repository("file").made()
        vdi = sr.disk()
        os.rename(sr.location, sr.location + ".away")
        os.mkdir(sr.location)
        with self.refused(47):
            sr("sr_scan")
        os.rmdir(sr.location)
        os.rename(sr.location + ".away", sr.location)
        sr("sr_scan")
        self.assertEqual(set(sr.contents()), {vdi})

    def test_a_place_that_is_gone_since_the_start_is_let_go_of(self):
        """But for what a host has of its disks, and for what is to be settled there."""
        srs = [self.lab.repository("file").made() for _ in range(3)]
        disks = [sr.disk() for sr in srs]
        used, cut, free = srs
        used("vdi_attach", "true", vdi_uuid=disks[0])
        self.lab.arm("create_temp_made:kill")
        with self.assertRaises((OSError, http.client.HTTPException)):
            cut.disk()
        self.assertTrue(self.lab.died())
        for sr in srs:
            os.rename(sr.location, sr.location + ".away")
        self.lab.start()
        for sr, code in ((used, 16), (cut, 47)):
            with self.refused(code):
                sr("sr_detach")
        free("sr_detach")
        with self.refused(47, "not attached"):
            free("sr_scan")
        self.assertEqual({one["sr"] for one in fsck(self.lab) if one["kind"] == "sr_unsettled"}, {used.uuid, cut.uuid})
        for sr, disk in zip(srs, disks):
            os.rename(sr.location + ".away", sr.location)
            sr("sr_attach")
            self.assertEqual(set(sr.contents()), {disk})
        self.assertEqual(fsck(self.lab, "--strict"), [])

    def test_the_marker_of_another_sr_is_refused(self):
        first, second = (self.lab.repository("file").made() for _ in range(2))
        second("sr_detach")
        second.config["location"] = first.location
        with self.refused(47, first.uuid):
            second("sr_attach")

    def test_an_sr_of_another_owner_is_in_use(self):
        sr = self.lab.repository("file").made()
        other = Lab()
        try:
            other.start()
            with self.refused(16):
                sr.by(other.unix())("sr_attach")
        finally:
            other.close()
        sr("sr_scan")


class Adoption(LabTest):
    def test_images_of_another_manager_are_adopted_under_the_uuid_of_the_call(self):
        sr = self.lab.repository("file")
        os.mkdir(sr.location)
        vdi = raw_image(sr.location)
        sr("sr_attach")
        sr("sr_scan")
        self.assertEqual(set(sr.contents()), {vdi})
        self.assertIn("sr.smapi", sr.names())

    def test_an_empty_place_is_adopted_only_on_demand(self):
        sr = self.lab.repository("file")
        os.mkdir(sr.location)
        with self.refused(47, "adopt"):
            sr("sr_attach")
        self.assertEqual(sr.names(), set())
        sr.config["adopt"] = "true"
        sr("sr_attach")
        self.assertEqual(sr.contents(), {})

    def test_a_place_that_is_not_there_is_not_made_by_attach(self):
        sr = self.lab.repository("file")
        with self.refused(47):
            sr("sr_attach")
        self.assertFalse(os.path.exists(sr.location))


class Writers(LabTest):
    def left(self):
        """(SR, disk, path of its image) as a writer leaves them that is killed between a block and the footer behind it."""
        sr = self.lab.repository("file").made()
        vdi = sr.disk()
        subprocess.run([program("vhd_write"), sr.location, vdi], input=b"0 512\n" + b"k" * 512, check=True)
        path = vhd.find(sr.location, vdi)
        with open(path, "r+b") as image:
            image.seek(-512, os.SEEK_END)
            image.write(b"n" * 512)
        self.assertEqual([one["kind"] for one in fsck(self.lab, "--strict")], ["image_unsound"])
        return sr, vdi, path

    def sound(self, sr, vdi):
        self.assertEqual(fsck(self.lab, "--strict"), [])
        self.assertEqual(vhd.read(sr.location, vdi)[:1024], b"k" * 512 + bytes(512))

    def test_an_image_whose_writer_was_killed_gets_its_footer_back_when_it_is_activated(self):
        """And not while it is attached alone, as the writer may still be there."""
        sr, vdi, path = self.left()
        for active in ("false", "true"):
            sr("vdi_attach", "true", vdi_uuid=vdi)
            self.assertRaises(vhd.Unsound, vhd.Image, path)
            sr("vdi_activate", active, vdi_uuid=vdi)
            sr.released(vdi)
        self.sound(sr, vdi)

    def test_no_base_is_made_of_an_image_without_a_footer(self):
        sr, vdi, _ = self.left()
        sr("vdi_snapshot", vdi_uuid=vdi)
        self.sound(sr, vdi)


class Scans(LabTest):
    def test_a_scan_finds_what_came_and_forgets_what_went_and_deletes_nothing(self):
        sr = self.lab.repository("file").made()
        stays, goes = sr.disk(), sr.disk()
        for name in sr.names():
            if name.startswith(goes):
                os.rename(os.path.join(sr.location, name), os.path.join(self.lab.dir, name))
        comes = raw_image(sr.location)
        before = sr.names()
        sr("sr_scan")
        self.assertEqual(set(sr.contents()), {stays, comes})
        self.assertLessEqual(before, sr.names())

    def test_an_introduced_image_is_served_at_once(self):
        sr = self.lab.repository("file").made()
        vdi = raw_image(sr.location)
        info = sr("vdi_introduce", vdi_location=vdi, new_uuid=vdi, vdi_sm_config={})
        self.assertEqual(info["uuid"], vdi)
        sr("vdi_attach", "true", vdi_uuid=vdi)

    def test_a_damaged_image_is_told_and_hides_no_other(self):
        sr = self.lab.repository("file").made()
        good, bad = sr.disk(), new_uuid()
        with open(os.path.join(sr.location, bad + ".vhd"), "wb") as image:
            image.write(b"no image at all")
        sr("sr_scan")
        self.assertIn(good, sr.contents())
        with self.refused(46):
            sr("vdi_attach", "true", vdi_uuid=bad)
        sr("vdi_attach", "true", vdi_uuid=good)


class LostDatabase(LabTest):
    """Each test has a daemon of its own."""

    @classmethod
    def setUpClass(cls):
        pass

    def setUp(self):
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        self.lab.start()

    def with_three_disks(self):
        sr = self.lab.repository("file").made()
        labels = {sr.disk(4 * MIB, f"label {n}", f"words {n}"): f"label {n}" for n in range(3)}
        before = self.told(sr)
        self.assertEqual({vdi: row[0] for vdi, row in before.items()}, labels)
        return sr, before

    def told(self, sr):
        return {vdi: (row["label"], row["description"], row["size"]) for vdi, row in sr.contents().items()}

    def test_the_same_disks_and_labels_come_back_from_the_medium(self):
        sr, before = self.with_three_disks()
        self.lose(sr)
        self.assertIn("--rebuild", self.fails_to_start())
        self.rebuild("--sr", f"file,uuid={sr.uuid},location={sr.location}")
        self.lab.start()
        sr("sr_attach")
        self.assertEqual(self.told(sr), before)
        self.assertEqual(fsck(self.lab, "--strict"), [])

    def lose(self, sr):
        """The database, after an orderly end without attachments."""
        sr("sr_detach")
        self.lab.stop()
        os.unlink(os.path.join(self.lab.state, "smapid.db"))

    def fails_to_start(self):
        """65, and a sentence; nothing was made in the place of what is lost."""
        self.lab.launch()
        self.assertEqual(self.lab.end_status(), 65)
        return self.lab.log()

    def rebuild(self, *more, status=0):
        return rebuild(self.lab, *more, status=status)

    def test_a_damaged_database_is_refused_and_kept_beside_the_new_one(self):
        sr, before = self.with_three_disks()
        self.lab.stop()  # what is attached stays attached: its link in the mount base leads there
        path = os.path.join(self.lab.state, "smapid.db")
        with open(path, "r+b") as database:
            database.write(b"no database at all")
        with open(path, "rb") as database:
            damaged = database.read()
        self.assertIn("--rebuild", self.fails_to_start())
        told = self.rebuild()
        self.assertIn(f"SR {sr.uuid}: type file, 3 disks", told)
        kept, = (name for name in os.listdir(self.lab.state) if name.startswith("smapid.db.broken-")
                 and not name.endswith("-wal"))
        with open(os.path.join(self.lab.state, kept), "rb") as database:
            self.assertEqual(database.read(), damaged)
        self.lab.start()
        sr("sr_attach")
        self.assertEqual(self.told(sr), before)
        self.assertEqual(fsck(self.lab, "--strict"), [])

    def test_each_rebuild_keeps_the_database_before_it_even_three_in_a_second(self):
        sr, before = self.with_three_disks()
        self.lab.stop()
        for _ in range(3):
            self.assertIn(f"SR {sr.uuid}: type file, 3 disks", self.rebuild())
        kept = [name for name in os.listdir(self.lab.state) if name.startswith("smapid.db.broken-")]
        self.assertEqual(sum(not name.endswith("-wal") for name in kept), 3, kept)
        self.lab.start()
        sr("sr_attach")
        self.assertEqual(self.told(sr), before)

    def test_after_a_rebuild_nobody_writes_until_all_who_could_hold_a_lease_must_be_dead(self):
        sr, _ = self.with_three_disks()
        vdi = min(sr.contents())
        epoch = sr.activated(vdi)
        sr.released(vdi)
        self.lose(sr)
        ends = [self.epochs_end()]
        self.rebuild("--sr", f"file,uuid={sr.uuid},location={sr.location}")
        ends.append(self.epochs_end())
        self.lab.start(lease__renew=1, lease__warn=2, lease__stop=3, lease__ttl=4, lease__watchdog=1, lease__dead=6)
        sr("sr_attach")
        sr("vdi_attach", "true", vdi_uuid=vdi)
        with self.refused(24):
            sr("vdi_activate", "true", vdi_uuid=vdi)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                sr("vdi_activate", "true", vdi_uuid=vdi)
                break
            except Fault as fault:
                self.assertEqual(fault.code, 24)
                time.sleep(0.2)
        self.assertGreater(ends[0], epoch)
        self.assertGreaterEqual(sr.epoch(), max(ends))
        self.assertLess(sr.epoch(), 1 << 40, "the key of a reservation cannot hold it")
        sr.released(vdi)

    def epochs_end(self):
        """Every epoch granted so far is below, as the state directory has it."""
        with open(os.path.join(self.lab.state, "smapid.epoch"), encoding="ascii") as text:
            return int(text.read().split()[0])

    def test_what_cannot_be_taken_in_is_told_and_the_rest_is(self):
        sr, before = self.with_three_disks()
        self.lose(sr)
        told = self.rebuild("--sr", f"file,uuid={sr.uuid},location={sr.location}",
                            "--sr", f"file,uuid={new_uuid()},location={self.lab.dir}/nowhere", status=1)
        self.assertIn("not taken in", told)
        self.lab.start()
        sr("sr_attach")
        self.assertEqual(self.told(sr), before)

    def test_a_value_with_commas_and_what_a_command_line_must_not_show(self):
        sr, before = self.with_three_disks()
        place = os.path.join(self.lab.dir, "with,comma")
        sr("sr_detach")
        shutil.copytree(sr.location, place)
        shutil.rmtree(sr.location)
        self.lab.stop()
        os.unlink(os.path.join(self.lab.state, "smapid.db"))
        told = self.rebuild("--sr", f"file,uuid={sr.uuid},location={place}", "--sr",
                            f"iscsi,uuid={new_uuid()},target=192.0.2.1,192.0.2.2,chappassword=s3cret", status=1)
        self.assertIn(f"SR {sr.uuid}: type file, 3 disks", told)
        self.assertIn("chappassword", told)
        self.assertNotIn("s3cret", told)
        self.lab.start()
        sr.config["location"] = place
        sr("sr_attach")
        self.assertEqual(self.told(sr), before)

    def test_what_nobody_knows_in_the_mount_base_is_told(self):
        sr, _ = self.with_three_disks()
        self.lose(sr)
        stranger = new_uuid()
        os.mkdir(os.path.join(self.lab.mounts, stranger))
        told = self.rebuild("--sr", f"file,uuid={sr.uuid},location={sr.location}", status=1)
        self.assertIn(f"{self.lab.mounts}/{stranger}", told)

    def test_another_server_takes_over_only_when_it_is_told_to(self):
        sr, before = self.with_three_disks()
        self.lab.stop()
        shutil.rmtree(self.lab.state)
        os.mkdir(self.lab.state, 0o700)
        self.lab.start()
        for more in ({}, {"adopt": "true"}):
            with self.refused(16, "--take-over"):
                sr("sr_attach", device_config={**sr.config, **more})
        take_over(self.lab, sr, reason="the old one burnt down")
        sr("sr_attach")
        self.assertEqual(self.told(sr), before)
        self.lab.restart()
        self.assertEqual(self.told(sr), before)

    def test_a_restart_keeps_what_was_attached(self):
        for kind in ("file", "dummy"):
            sr = self.lab.repository(kind).made()
            vdi = sr.disk(4 * MIB, "label")
            self.lab.restart()
            self.assertEqual(sr.contents()[vdi]["label"], "label")
            sr("vdi_attach", "true", vdi_uuid=vdi)


if __name__ == "__main__":
    unittest.main()
