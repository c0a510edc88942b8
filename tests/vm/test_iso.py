# SPDX-License-Identifier: LGPL-2.1-or-later
"""Type iso: discs in a directory of the machine, of the kernel's NFS server and of Samba, in a guest."""
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ["SMAPI_KINDS"] = "iso"
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import killed  # noqa: E402
from lab import LabTest, MIB, deep, new_uuid, raises  # noqa: E402
import places  # noqa: E402
from kit import NfsServer, Samba, held, left, mounts, sh  # noqa: E402

servers = {}


def setUpModule():
    servers["nfs"] = places.server("nfs", lambda: NfsServer(["export"]))
    os.makedirs("/run/tmp/share")
    servers["smb"] = Samba("/run/tmp/share")


def fill(directory, odd=True):
    """Two discs, and what is none; odd: also what a share shows under other names."""
    os.makedirs(directory)
    for name, size in (("first.iso", 2 * MIB), ("Second.IMG", MIB)):
        with open(f"{directory}/{name}", "wb") as out:
            out.write(name.encode().ljust(size, b"\0"))
    for name in ("readme.txt", ".hidden.iso", "no-suffix", *(["line\nend.iso"] if odd else ())):
        with open(f"{directory}/{name}", "w", encoding="ascii") as out:
            out.write("x")
    os.mkdir(f"{directory}/folder.iso")
    if odd:
        os.mkfifo(f"{directory}/pipe.iso")
        os.symlink("first.iso", f"{directory}/link.iso")
        os.symlink("/etc/passwd", f"{directory}/out.iso")


class IsoTest(LabTest):
    def setUp(self):
        self.held, self.names = held(), os.listdir(self.lab.mounts)

    def clean(self):
        self.assertEqual(left(self.held), [])
        self.assertEqual(os.listdir(self.lab.mounts), self.names)

    def local(self):
        return f"/run/tmp/discs-{new_uuid()[:8]}"

    def repository(self, **config):
        sr = self.lab.repository("iso")
        sr.config = {"location": "", **config}
        return sr

    def ways(self):
        """(what, directory with discs in it, SR that leads to it) of each way to reach one."""
        name = f"iso-{new_uuid()[:8]}"
        local = self.local()
        ways = {"local": (local, {"location": local, "legacy_mode": "true"}),
                "nfs": (f"{servers['nfs'].root}/export/{name}", {"location": f"127.0.0.1:/export/{name}", "nfsversion": "4.2"}),
                "nfs3": (f"{servers['nfs'].root}/export/{name}3", {"location": f"127.0.0.1:/export/{name}3", "type": "nfs_iso"}),
                "smb": (f"/run/tmp/share/{name}", {"location": f"\\\\127.0.0.1\\iso\\{name}", "type": "cifs",
                                                   "username": "guest", "cifspassword": "secret"}),
                "below": (f"/run/tmp/share/{name}-deep/er", {"location": f"//127.0.0.1/iso/{name}-deep", "type": "cifs",
                                                             "username": "guest", "cifspassword": "secret",
                                                             "iso_path": "/er"})}
        for directory, config in ways.values():
            fill(directory, config.get("type") != "cifs")
        return [(what, directory, self.repository(**config)) for what, (directory, config) in ways.items()]

    def discs(self, sr):
        return {row["location"]: row for row in sr.contents().values()}


class Life(IsoTest):
    def test_discs_are_found_and_read_wherever_they_are(self):
        for what, directory, sr in self.ways():
            with self.subTest(way=what):
                self.discs_are_found_and_read(directory, sr)

    def discs_are_found_and_read(self, directory, sr):
        sr("sr_create", "0")
        self.clean()
        sr("sr_attach")
        discs = self.discs(sr)
        self.assertEqual(set(discs) - {"link.iso"}, {"first.iso", "Second.IMG"})
        self.assertEqual("link.iso" in discs, os.path.islink(f"{directory}/link.iso"))
        self.assertEqual((discs["first.iso"]["size"], discs["Second.IMG"]["size"]), (str(2 * MIB), str(MIB)))
        self.assertTrue(all(row["read_only"] for row in discs.values()))
        disc = discs["first.iso"]["uuid"]
        with self.refused(46, "read-only"):
            sr("vdi_attach", "true", vdi_uuid=disc)
        path = sr("vdi_attach", "false", vdi_uuid=disc)["params"]
        with open(path, "rb") as image:
            self.assertEqual(image.read(9), b"first.iso")
        sr("vdi_activate", "false", vdi_uuid=disc)
        with self.refused(16, "disks"):
            sr("sr_detach")
        sr.released(disc)
        os.unlink(f"{directory}/first.iso")
        if sr.config.get("type") != "cifs":  # whose client believes its server in this, and that one sees no local unlink
            with self.refused(144, "first.iso"):
                sr("vdi_attach", "false", vdi_uuid=disc)
        sr("sr_scan")
        self.assertNotIn("first.iso", self.discs(sr))
        sr("sr_detach")
        self.clean()

    def test_uuids_stay_over_scans_and_restarts(self):
        directory = self.local()
        fill(directory)
        named = new_uuid()
        with open(f"{directory}/{named}.iso", "wb") as out:
            out.write(bytes(512))
        sr = self.repository(location=directory, legacy_mode="true").made()
        before = {name: row["uuid"] for name, row in self.discs(sr).items()}
        self.assertEqual(before[f"{named}.iso"], named)
        self.lab.restart()
        sr("sr_scan")
        self.assertEqual({name: row["uuid"] for name, row in self.discs(sr).items()}, before)
        sr("sr_detach")

    def test_an_sr_without_a_row_is_taken_by_its_location(self):
        directory = self.local()
        fill(directory)
        sr = self.repository(location=directory, legacy_mode="true")
        sr("sr_attach")
        self.assertIn("first.iso", self.discs(sr))
        sr("sr_detach")
        self.clean()

    def test_a_suspend_image_is_made_written_and_removed(self):
        for what, directory, sr in self.ways():
            with self.subTest(way=what):
                self.a_suspend_image_is_made_written_and_removed(directory, sr)

    def a_suspend_image_is_made_written_and_removed(self, directory, sr):
        sr.made()
        before = set(os.listdir(directory))
        image = sr.disk(MIB)
        named = sr("vdi_create", str(MIB), vdi_sm_config={"path": "suspended.img"})["location"]
        self.assertEqual(named, "suspended.img")
        with self.refused(43, "suspended.img"):
            sr("vdi_create", str(MIB), vdi_sm_config={"path": "suspended.img"})
        for path, code in (("a.iso/../../x.iso", 2), ("../x.img", 2), ("x.txt", 221), (".x.img", 2), ("x y.iso", 2)):
            with self.refused(code):
                sr("vdi_create", str(MIB), vdi_sm_config={"path": path})
        path = sr("vdi_attach", "true", vdi_uuid=image)["params"]
        sr("vdi_activate", "true", vdi_uuid=image)
        with open(path, "r+b") as out:
            out.write(b"memory")
        sr.released(image)
        sr("sr_scan")
        for row in self.discs(sr).values():
            sr("vdi_delete", vdi_uuid=row["uuid"])
        self.assertEqual(set(os.listdir(directory)), before)  # discs of others stay
        sr("sr_scan")
        self.assertIn("first.iso", self.discs(sr))
        sr("sr_detach")
        self.clean()


class Refusals(IsoTest):
    @raises(223)
    def test_a_mount_in_use_is_not_left(self):
        name = f"busy-{new_uuid()[:8]}"
        fill(f"{servers['nfs'].root}/export/{name}")
        sr = self.repository(location=f"127.0.0.1:/export/{name}", nfsversion="4.2").made()
        with open(f"{self.lab.mounts}/{sr.uuid}/first.iso", "rb"):
            with self.refused(223, "busy"):
                sr("sr_detach")
            sr("sr_scan")
        sr("sr_detach")
        self.clean()

    @raises(2, 140, 220, 222, 224, 225, 226, 227)
    def test_each_reason_has_its_code(self):
        directory = self.local()
        fill(directory)
        user = {"type": "cifs", "username": "guest", "cifspassword": "secret"}
        for code, config in ((220, {}), (225, {"location": "nothing"}), (225, {"location": "x:/y", "type": "tape"}),
                             (2, {"location": "-o:/x"}), (225, {"location": "a:/b,c"}),
                             (225, {"location": "a:/b", "type": "cifs"}), (225, {"location": "//host", "type": "cifs"}),
                             (225, {"location": "//host/a,user=root", "type": "cifs"}),
                             (226, {"location": "/no/such/directory", "legacy_mode": "true"}),
                             (226, {"location": "relative", "legacy_mode": "true"}),
                             (226, {"location": directory, "legacy_mode": "true", "iso_path": "nowhere"}),
                             (2, {"location": directory, "legacy_mode": "true", "iso_path": "../.."}),
                             (227, {"location": "//127.0.0.1/iso", "vers": "2.0", **user}),
                             (140, {"location": "no-such-host.invalid:/x"}),
                             (222, {"location": "10.255.0.1:/x"}),
                             (224, {"location": "127.0.0.1:/export/nowhere", "nfsversion": "4.2"}),
                             (224, {"location": "//127.0.0.1/nowhere", **user}),
                             (224, {"location": "//127.0.0.1/iso", **user, "cifspassword": "wrong"}),
                             (2, {"location": "//127.0.0.1/iso", **user, "cifspassword": "a\nusername=root"}),
                             (2, {"location": "//127.0.0.1/iso", **user, "options": "credentials=/etc/shadow"})):
            with self.subTest(code=code, **config):
                for method in (("sr_create", "0"), ("sr_attach",)):
                    with self.refused(code):
                        self.repository(**config)(*method)
                self.clean()

    def test_the_password_is_in_no_argument_and_no_log(self):
        os.makedirs("/run/tmp/share/quiet", exist_ok=True)
        sr = self.repository(location="//127.0.0.1/iso/quiet", type="cifs", username="guest", cifspassword="secret")
        with open("/run/tmp/mount.cifs", "w", encoding="ascii") as out:
            out.write("#!/bin/sh\nprintf '%s\\n' \"$@\" >>/run/tmp/words\nenv >>/run/tmp/words\nexec /run/tmp/real/mount.cifs \"$@\"\n")
        os.chmod("/run/tmp/mount.cifs", 0o755)
        os.makedirs("/run/tmp/real")
        sh("cp", "/sbin/mount.cifs", "/run/tmp/real/mount.cifs")
        sh("mount", "--bind", "/run/tmp/mount.cifs", "/sbin/mount.cifs")
        self.addCleanup(sh, "umount", "/sbin/mount.cifs")
        self.held = held()
        sr.made()
        with open("/run/tmp/words", encoding="ascii") as words:
            text = words.read()
        self.assertIn("credentials=", text)
        self.assertNotIn("secret", text)
        self.assertNotIn("=secret", self.lab.log())
        self.assertFalse([mount for mount in mounts() if "secret" in str(mount)])
        sr("sr_detach")
        self.clean()


class Killed(IsoTest):
    @deep
    def test_it_leaves_nothing(self):
        name = new_uuid()[:8]
        os.makedirs(f"{servers['nfs'].root}/export/{name}")

        def new():
            return self.repository(location=f"127.0.0.1:/export/{name}", nfsversion="4.2")

        def gone(_):
            self.assertEqual(os.listdir(f"{servers['nfs'].root}/export/{name}"), [])

        killed.at(self, self.lab, new, gone, "sr_attach", "mount_point_made", "mount_done")
        for point in ("create_temp_made", "create_temp_synced", "create_published", "effects_done"):
            with self.subTest(point=point):
                sr = new().made()
                self.lab.arm(f"{point}:kill:1")
                with self.assertRaises(killed.BROKEN):
                    sr.disk(MIB)
                self.assertTrue(self.lab.died())
                self.lab.start()
                sr("sr_scan")
                self.assertEqual(sr.contents(), {})
                gone(sr)
                sr("sr_detach")
                self.clean()


if __name__ == "__main__":
    unittest.main()
