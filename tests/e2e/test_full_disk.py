# SPDX-License-Identifier: LGPL-2.1-or-later
"""A full disk under the state directory: what gives back still commits, what takes is refused with 44, and once there is
room everything goes on. In the SR whose disks fill it, and in another."""
import os
import subprocess
import sys
import unittest

from lab import MIB, Fault, Lab, boot_id, fsck, new_uuid

PLENTY = 200_000  # calls that would fill the file system many times over


def mount(lab):
    """A small file system of its own for the state; False where the machine permits none."""
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", lab.state],
                          capture_output=True, check=False).returncode == 0


class FullDisk(unittest.TestCase):
    def setUp(self):
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        if not mount(self.lab):
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.lab.state], check=True)
        self.addCleanup(self.lab.end)
        self.lab.start()

    def fill(self):
        """Takes all that is free; the daemon has its reserve already."""
        path = os.path.join(self.lab.state, "filler")
        with open(path, "ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return path

    def until_full(self, sr):
        """Disks made through the socket until one is refused."""
        made = []
        for _ in range(PLENTY):
            try:
                made.append(sr.disk(MIB, "label" * 40, "description" * 100))
            except Fault as fault:
                self.assertEqual(fault.code, 44, fault.text)
                return made
        self.fail("the disk is never full")

    def test_what_gives_back_commits_and_what_takes_is_44_until_there_is_room(self):
        self.full_disk("dummy")

    def test_the_same_with_images(self):
        self.full_disk("file")

    def full_disk(self, kind):
        sr, other = (self.lab.repository(kind).made() for _ in range(2))
        session = {"host_boot_id": boot_id(), "nonce": new_uuid()}
        sr.client.call("smapi.host_register", path="/RPC2", **session)
        active, doomed = sr.disk(), [sr.disk() for _ in range(8)]
        epoch = sr.activated(active)
        filler = self.fill()
        made, here = self.until_full(other), self.until_full(sr)
        self.assertTrue(self.lab.alive(), self.lab.log())

        sr.client.call("smapi.host_renew", path="/RPC2", **session)
        sr.released(active)
        for vdi in doomed:
            sr("vdi_delete", vdi_uuid=vdi)
        self.assertEqual(set(sr.contents()), {active, *here})
        self.assertEqual(self.lab.leases(), {})

        os.unlink(filler)
        more = sr.disk()
        made.append(other.disk())
        self.assertGreater(sr.activated(active), epoch)
        sr.released(active)
        self.assertEqual(fsck(self.lab, "--strict"), [])
        self.lab.restart()
        self.assertEqual(set(sr.contents()), {active, more, *here})
        self.assertEqual(set(other.contents()), set(made))
        self.assertEqual(fsck(self.lab, "--strict"), [])


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("skipped: only root mounts a file system", file=sys.stderr)
        sys.exit(77)
    unittest.main()
