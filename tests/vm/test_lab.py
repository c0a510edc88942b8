# SPDX-License-Identifier: LGPL-2.1-or-later
"""The laboratory itself, seen from inside a guest: the storage that kit.py brings up is real, comes and goes."""
import os
import socket
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import kit  # noqa: E402
import lab  # noqa: E402
from kit import MIB, sh  # noqa: E402

IQN = "iqn.2024-01.org.example:store"


def write(path, data, offset=0):
    with open(path, "r+b", buffering=0) as out:
        out.seek(offset)
        out.write(data)
        os.fsync(out.fileno())


def content(path, size, offset=0):
    if not os.path.isfile(path):
        sh("blockdev", "--flushbufs", path)  # what was read before is not to be believed
    with open(path, "rb") as source:
        source.seek(offset)
        return source.read(size)


class Laboratory(unittest.TestCase):
    def setUp(self):
        self.before = kit.held()

        self.addCleanup(self.nothing_is_left)

    def nothing_is_left(self):
        """The last clean-up, after those of the test."""
        kit.settle()
        self.assertEqual(kit.left(self.before), [])

    def target(self, *args, **keys):
        target = kit.Target(IQN, *args, **keys)
        self.addCleanup(target.close)
        return target

    def login(self, *args, **keys):
        kit.initiator()
        self.addCleanup(kit.logout, IQN)
        return kit.login(IQN, *args, **keys)

    def test_there_is_a_place_for_every_type(self):
        self.assertEqual({kind["name"] for kind in lab.describe()["types"]} - lab.PLACES.keys(), set())

    def test_lvm_makes_grows_snapshots_and_removes(self):
        disk = kit.spare()
        sh("pvcreate", disk)
        sh("vgcreate", "v", disk)
        sh("lvcreate", "-y", "-L", "64M", "-n", "a", "v")
        sh("lvextend", "-L", "96M", "v/a")
        self.assertEqual(kit.size_of("/dev/v/a"), 96 * MIB)
        self.assertTrue(kit.busy(disk))
        self.assertIn("v-a", kit.left(self.before)[0])
        sh("vgremove", "-f", "v")
        sh("pvremove", disk)
        self.assertFalse(kit.busy(disk))

    def test_a_target_takes_sessions_and_a_lun_grows_and_shrinks(self):
        volume = kit.Volume(64 * MIB)
        self.addCleanup(volume.remove)
        self.target([32 * MIB, volume.path])
        disk = self.login(lun=1)
        for size in (128 * MIB, 48 * MIB):
            volume.resize(size)
            sh("iscsiadm", "-m", "session", "-R")
            self.assertEqual(kit.size_of(disk), size)
        write(disk, b"over the wire" + bytes(499))
        self.assertEqual(content(volume.path, 13), b"over the wire")
        self.assertEqual(kit.sessions(), [(IQN, "127.0.0.1")])
        self.assertEqual({line.split(":")[0] for line in kit.left(self.before)}, {"sessions", "records"})

    def test_a_target_with_a_password_refuses_who_has_none(self):
        self.target([16 * MIB], chap=("user", "password1234"))
        with self.assertRaises(AssertionError) as refused:
            self.login()
        self.assertIn("authorization failure", str(refused.exception))
        self.assertEqual(kit.sessions(), [])

    def test_two_initiators_and_a_persistent_reservation(self):
        self.target([16 * MIB])
        ours, theirs = self.login(), kit.login(IQN, other="iqn.2024-01.org.example:other")
        sh("sg_persist", "-o", "-G", "-S", "0xa", ours)
        sh("sg_persist", "-o", "-R", "-K", "0xa", "-T", "5", ours)
        write(ours, bytes(4096))
        with self.assertRaises(OSError):
            write(theirs, bytes(4096))

    def test_user_space_target(self):
        with open("/run/tmp/lun", "wb") as out:
            out.truncate(16 * MIB)
        self.addCleanup(kit.UserTarget(IQN, ["/run/tmp/lun"]).close)
        write(self.login(lun=1), b"tgt" + bytes(509))
        self.assertEqual(content("/run/tmp/lun", 3), b"tgt")

    @lab.deep
    def test_nfs_serves_versions_3_and_4_and_can_stop(self):
        server = kit.NfsServer(["export", "other"])
        self.addCleanup(server.close)
        os.makedirs("/run/tmp/mount", exist_ok=True)
        for version in ("3", "4.2"):
            sh("mount", "-t", "nfs", "-o", f"vers={version},soft,timeo=10,retrans=1", "127.0.0.1:/export", "/run/tmp/mount")
            with open("/run/tmp/mount/f", "w", encoding="ascii") as out:
                out.write(version)
            sh("flock", "/run/tmp/mount/f", "true")
            self.assertEqual(kit.read(f"{server.root}/export/f"), version)
            if version == "3":
                server.stop()
                with self.assertRaises(OSError):
                    os.stat("/run/tmp/mount/g")
                server.start()
            sh("umount", "/run/tmp/mount")
        self.assertIn("/other", sh("showmount", "-e", "127.0.0.1"))

    @lab.deep
    def test_samba_serves_a_directory(self):
        os.makedirs("/run/tmp/isos", exist_ok=True)
        kit.put("/run/tmp/isos/a.iso", "disc")
        self.addCleanup(kit.Samba("/run/tmp/isos").close)
        os.makedirs("/run/tmp/mount", exist_ok=True)
        sh("mount", "-t", "cifs", "-o", "username=guest,password=secret", "//127.0.0.1/iso", "/run/tmp/mount")
        self.assertEqual(kit.read("/run/tmp/mount/a.iso"), "disc")
        sh("umount", "/run/tmp/mount")

    @lab.deep
    def test_a_wire_can_be_cut(self):
        wire = kit.Wire()
        self.addCleanup(wire.close)
        with wire.peer():
            self.target([16 * MIB], portals=[f"{wire.far}:3260"])
        disk = self.login(f"{wire.far}:3260")
        wire.cut()
        with self.assertRaises(OSError):
            socket.create_connection((wire.far, 3260), 1)
        wire.cut(False)
        write(disk, b"mended" + bytes(506))


if __name__ == "__main__":
    unittest.main()
