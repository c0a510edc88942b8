# SPDX-License-Identifier: LGPL-2.1-or-later
"""Type nfs against the kernel's own server, in a guest."""
import os
import re
import sys
import unittest
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ["SMAPI_KINDS"] = "nfs"
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import killed  # noqa: E402
import vhd  # noqa: E402
from lab import DEEP, MIB, Fault, Lab, LabTest, deep, each_day, new_uuid, raises  # noqa: E402
import places  # noqa: E402
from kit import NfsServer, eventually, held, left, made_anew, mounts, paused, read, sh  # noqa: E402

server = None


def setUpModule():
    global server
    server = places.server("nfs", lambda: NfsServer(["export"]))


class NfsTest(LabTest):
    def setUp(self):
        self.held, self.names = held(), os.listdir(self.lab.mounts)

    def clean(self):
        """Nothing is left on this host."""
        self.assertEqual(left(self.held), [])
        self.assertEqual(os.listdir(self.lab.mounts), self.names)

    def directory(self, sr):
        return f"{server.root}{sr.config['serverpath']}/{sr.uuid}"

    def repository(self, lab_=None, **config):
        sr = (lab_ or self.lab).repository("nfs")
        sr.config.update({"nfsversion": "4.2", **config})
        return sr

    def end(self, sr):
        """Disks and SR are deleted, and nothing is left here or there."""
        sr.delete_disks()
        sr("sr_detach")
        self.clean()
        sr("sr_delete")
        self.assertFalse(os.path.exists(self.directory(sr)))
        self.clean()

    def written(self, sr, disk, at, data):
        path = sr("vdi_attach", "true", vdi_uuid=disk)["params"]
        sr("vdi_activate", "true", vdi_uuid=disk)
        with open(path, "r+b") as image:
            image.seek(at)
            image.write(data)
        sr.released(disk)


class Life(NfsTest):
    @each_day
    def test_a_life_with_contents_in_every_version(self):
        for version in ("3", "4", "4.1", "4.2") if DEEP else ("3", "4.2"):
            with self.subTest(version=version):
                sr = self.repository(nfsversion=version)
                sr("sr_create", "0")
                self.clean()
                self.assertEqual(os.listdir(self.directory(sr)), ["sr.smapi"])
                sr("sr_attach")
                self.assertIn(("nfs" if version == "3" else "nfs4", f"127.0.0.1:{sr.config['serverpath']}/{sr.uuid}"),
                              [mount[1:] for mount in mounts()])
                disk = sr("vdi_create", str(4 * MIB), vdi_sm_config={"type": "raw"})["uuid"]
                self.written(sr, disk, MIB, b"pattern" * 1000)
                with open(os.path.join(self.directory(sr), f"{disk}.raw"), "rb") as image:
                    image.seek(MIB)
                    self.assertEqual(image.read(7000), b"pattern" * 1000)
                tree = sr.disk()
                made = [sr(method, vdi_uuid=tree)["uuid"] for method in ("vdi_snapshot", "vdi_clone")]
                sr("vdi_resize", str(8 * MIB), vdi_uuid=tree)
                self.assertLessEqual({disk, tree, *made}, sr.images())
                self.assertEqual(sr.litter(), set())
                self.end(sr)

    def test_no_image_ever_has_a_name_that_the_client_gives_it(self):
        """A client gives a name (.nfs…) to what is open and removed; what has two names is no disk."""
        sr = self.repository()
        sr("sr_create", "0")
        sr("sr_attach")

        def names_at(point, call, *args, **keys):
            with paused(self.lab, point, call, *args, **keys) as pending:
                names = os.listdir(self.directory(sr))
                made = pending.result()
            self.lab.disarm()
            self.assertEqual([name for name in names if name.startswith(".nfs")], [], point)
            return made

        vdi = names_at("create_published", sr.disk)
        names_at("fork_published", sr, "vdi_snapshot", vdi_uuid=vdi)
        names_at("reset_published", sr, "vdi_epoch_begin", vdi_uuid=vdi, vdi_on_boot="reset")
        names_at("delete_renamed", sr, "vdi_delete", vdi_uuid=vdi)
        self.end(sr)

    def test_an_sr_made_by_other_software_is_taken_over_with_its_tree(self):
        sr = self.repository()
        os.mkdir(self.directory(sr))
        parent = vhd.Maker(4 * MIB)
        parent.write(MIB, b"p" * 512)
        child = vhd.Maker(4 * MIB, parent=parent)
        for maker in (parent, child):
            maker.save(self.directory(sr))
        vhd.marked(os.path.join(self.directory(sr), parent.uuid + ".vhd"), True)
        base, leaf = parent.uuid, child.uuid
        sr("sr_attach")
        rows = sr.contents()
        self.assertEqual({uuid: row["parent"] for uuid, row in rows.items()}, {base: "", leaf: base})
        self.assertTrue(rows[base]["hidden"])
        self.end(sr)

    def test_an_empty_directory_is_not_taken_for_an_sr(self):
        sr = self.repository()
        os.mkdir(self.directory(sr))
        with self.refused(47, "is something not mounted"):
            sr("sr_attach")
        self.clean()
        with self.refused(42, sr.uuid):
            sr("sr_create", "0")
        self.clean()
        os.rmdir(self.directory(sr))

    def test_a_mount_is_hard_unless_it_is_told_to_be_soft_and_has_the_options_given(self):
        for config, words in (({}, {"hard", "timeo=100", "nosuid", "noexec"}),
                              ({"nfs_mode": "soft", "options": "noac"}, {"soft", "timeo=50", "noac", "nosuid"})):
            sr = self.repository(**config).made()
            line = next(line for line in read("/proc/mounts").splitlines() if sr.uuid in line)
            self.assertLessEqual(words, set(line.split()[3].split(",")))
            self.end(sr)

    def test_two_hosts_are_one_mount(self):
        sr = self.repository().made()
        other = sr.by(self.lab.host(new_uuid()))
        other("sr_attach")
        sr("sr_detach")
        disk = other.disk()
        other("vdi_delete", vdi_uuid=disk)
        other("sr_detach")
        self.clean()
        sr("sr_delete")

    @deep
    def test_a_mount_left_by_a_daemon_that_was_killed_serves_on(self):
        sr = self.repository().made()
        disk = sr.disk()
        self.lab.kill9()
        self.lab.start()
        self.assertIn(disk, sr.contents())
        sr("sr_scan")
        self.end(sr)

    @raises(75)
    def test_what_is_mounted_in_its_place_by_others_is_left_alone(self):
        sr = self.repository()
        sr("sr_create", "0")
        os.mkdir(sr.location)
        sh("mount", "-t", "tmpfs", "tmpfs", sr.location)
        with self.refused(75, "tmpfs"):
            sr("sr_attach")
        sh("umount", sr.location)
        sr("sr_attach")
        self.end(sr)

    @raises(74)
    def test_a_mount_in_use_is_not_left(self):
        sr = self.repository().made()
        disk = sr.disk()
        with open(os.path.join(sr.location, f"{disk}.vhd"), "rb"):
            with self.refused(74, "busy"):
                sr("sr_detach")
            sr("sr_scan")
        self.end(sr)


class Lost(NfsTest):
    """Alone with its daemon: after a rebuild nobody may write for a while."""

    def test_a_lost_database_is_made_anew_from_what_is_mounted(self):
        sr = self.repository(nfsversion="4.1", nfs_mode="soft").made()
        sr("vdi_snapshot", vdi_uuid=sr.disk(4 * MIB, "label"))
        made_anew(self, sr)
        self.end(sr)


class Owners(NfsTest):
    def test_a_second_smapid_is_refused_and_told_the_owner(self):
        sr = self.repository().made()
        disk = sr.disk()
        rival = Lab()
        self.addCleanup(rival.close)
        rival.start()
        theirs = self.repository(rival)
        theirs.uuid, theirs.config = sr.uuid, sr.config
        with self.refused(47, "belongs to server"):
            theirs("sr_attach")
        self.assertEqual(os.listdir(rival.mounts), [])
        sr("sr_scan")
        self.assertIn(disk, sr.contents())
        self.end(sr)


class Probing(NfsTest):
    def test_a_probe_lists_what_is_there(self):
        made = [self.repository().made()]
        made.append(self.repository(**{**made[0].config}).made())
        for sr in made:
            sr("sr_detach")
        found = ElementTree.fromstring(made[0].probe())
        self.assertEqual({sr.uuid for sr in made}, {sr.findtext("UUID") for sr in found})
        self.clean()
        for sr in made:
            sr("sr_delete")

    @raises(101)
    def test_without_serverpath_the_exports_are_told(self):
        sr = self.repository()
        del sr.config["serverpath"]
        for call in (sr.probe, lambda: sr("sr_create", "0"), lambda: sr("sr_attach")):
            with self.assertRaises(Fault) as refused:
                call()
            self.assertEqual(refused.exception.code, 101)
            exports = ElementTree.fromstring(refused.exception.text.partition("\n")[2])
            self.assertEqual(exports.tag, "nfs-exports")
            self.assertEqual({(e.findtext("Target"), e.findtext("Path"), e.findtext("Accesslist")) for e in exports},
                             {("127.0.0.1", path, "*") for path in ("/", "/export")})
        self.clean()

    @raises(72, 73, 102, 103, 108, 140)
    def test_each_reason_has_its_code(self):
        for code, config in ((103, {"serverpath": "/nowhere"}), (140, {"server": "no-such-host.invalid"}),
                             (108, {"server": "10.255.0.1"}), (102, {"server": ""}), (72, {"nfsversion": "2"}),
                             (73, {"options": "no_such_option"})):
            with self.subTest(code=code, **config):
                for act in (lambda sr: sr.probe(), lambda sr: sr("sr_create", "0"), lambda sr: sr("sr_attach")):
                    sr = self.repository(**config)
                    for _ in range(2 if code in (103, 140) else 1):  # what could not be begun leaves nothing to be settled
                        with self.refused(code):
                            act(sr)
                self.clean()


class Killed(NfsTest):
    def gone(self, sr):
        self.assertEqual(os.listdir(os.path.dirname(self.directory(sr))), [])

    @deep
    def test_it_leaves_nothing(self):
        killed.at(self, self.lab, self.repository, self.gone, "sr_create", "sr_create_made", "mount_done")
        killed.at(self, self.lab, self.repository, self.gone, "sr_attach", "mount_point_made", "mount_done")
        killed.at(self, self.lab, self.repository, self.gone, "sr_delete", "sr_delete_unmarked")

    @deep
    def test_it_leaves_nothing_at_any_point(self):
        killed.everywhere(self, self.lab, self.repository, self.gone)


class DeadServer(NfsTest):
    def setUp(self):
        super().setUp()
        self.sr = self.repository().made()
        self.disk = self.sr.disk()
        self.sr.activated(self.disk)
        self.addCleanup(self.alive)

    def dead(self):
        server.stop()

    def alive(self):
        if read("/proc/fs/nfsd/threads") == "0":
            server.start()

    def test_its_sr_fails_fast_and_comes_back_by_itself(self):
        other = self.lab.repository("dummy").made()
        self.dead()
        with self.refused(47, "not"):
            self.sr("sr_scan")  # the first may have to wait for an answer that does not come
        eventually(lambda: self.silent_for(self.sr) >= 5)
        other.disk()
        with self.refused(47, "has not answered for"):
            self.sr.disk()
        with self.refused(47, "has not answered for"):
            self.sr("vdi_snapshot", vdi_uuid=self.disk)
        self.sr.released(self.disk)  # what was taken can be given back
        self.alive()
        eventually(lambda: self.scans(self.sr))
        self.end(self.sr)

    def silent_for(self, sr):
        """Seconds of silence that a call is told, 0 when it is served."""
        try:
            sr("sr_update")
        except Fault as fault:
            found = re.search(r"has not answered for (\d+) s", fault.text)
            return int(found.group(1)) if found else 0
        return 0

    def scans(self, sr):
        try:
            sr("sr_scan")
        except Fault as fault:
            self.assertEqual(fault.code, 47, fault.text)
            return False
        return True

    @deep
    def test_a_daemon_that_starts_meanwhile_serves_the_rest(self):
        self.dead()
        self.lab.kill9()
        other = self.lab.repository("dummy")
        self.lab.start()
        other.made()
        with self.refused(47):
            self.sr("sr_scan")
        self.alive()
        eventually(lambda: self.attaches(self.sr))
        self.sr.released(self.disk)
        self.end(self.sr)

    def attaches(self, sr):
        try:
            sr("sr_attach")
        except Fault as fault:
            self.assertEqual(fault.code, 47, fault.text)
            return False
        return True

    def test_its_sr_can_be_detached(self):
        self.dead()
        self.sr.released(self.disk)
        self.sr("sr_detach")
        self.clean()
        self.alive()
        self.sr("sr_attach")
        self.end(self.sr)


if __name__ == "__main__":
    unittest.main()
