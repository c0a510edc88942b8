# SPDX-License-Identifier: LGPL-2.1-or-later
"""cut.py DIRECTORY work|end: in a guest of test_power.py, which may have had others before it whose power was cut. Judges what
those left by what DIRECTORY/told says of it, and then, with "work", changes it until the power goes.

told has a line for each change of a Life, in JSON: what was certain, and what a call under way might have made of it. Such a
line is in the hands of the host before the call begins.
"""
import json
import os
import random
import sys
import threading
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import kit  # noqa: E402
import life  # noqa: E402
from kit import sh  # noqa: E402
from lab import Lab, Pki, Repository, fsck, new_uuid  # noqa: E402

STATE, DEVICES = "/dev/disk/by-id/virtio-file0", {"lvm": "/dev/disk/by-id/virtio-file1", "ext": "/dev/disk/by-id/virtio-file2"}
TOP = "/run/kept"
SHARED, WHAT = sys.argv[1:3]
told = os.open(os.path.join(SHARED, "told"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def plain(contents):
    return contents and vars(contents)


def tell(one):
    line = {"kind": one.sr.kind, "sr": one.sr.uuid, "calls": one.calls, "touched": sorted(one.touched),
            "held": {vdi: plain(content) for vdi, content in one.held.items()},
            "pending": {vdi: [plain(content) for content in choices] for vdi, choices in one.pending.items()}}
    text = (json.dumps(line) + "\n").encode()
    assert os.write(told, text) == len(text)


def last():
    """The last line of each type."""
    with open(os.path.join(SHARED, "told"), encoding="ascii") as lines:
        return {line["kind"]: line for line in map(json.loads, lines)}


class Cut(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        first = not sh("blkid", "-p", STATE, check=False)
        if first:
            sh("mkfs.ext4", "-q", STATE)
        os.mkdir(TOP)
        sh("mount", STATE, TOP)
        self.before = kit.held()
        os.makedirs(f"{TOP}/pki", exist_ok=True)
        self.lab = Lab(pki=Pki(f"{TOP}/pki"), directory=f"{TOP}/lab")
        os.sync()  # certificates and settings are not what the power is cut for
        self.lab.start()
        self.addCleanup(self.lab.end)
        self.lives = self.begun() if first else self.found()

    def of(self, kind, uuid):
        sr = Repository(self.lab.unix(), kind, uuid, {"device": DEVICES[kind]})
        return life.of(self, sr, random.Random(os.urandom(8)), tell)

    def begun(self):
        lives = [self.of(kind, new_uuid()) for kind in DEVICES]
        for one in lives:
            one.begin()
            one.tell()
        return lives

    def found(self):
        lives = []
        for kind, line in last().items():
            one = self.of(kind, line["sr"])
            one.calls, one.touched = line["calls"], set(line["touched"])
            one.held = {vdi: life.Content(**content) for vdi, content in line["held"].items()}
            one.pending = {vdi: [content and life.Content(**content) for content in choices]
                           for vdi, choices in line["pending"].items()}
            lives.append(one)
        return lives

    def test_what_was_acknowledged_is_there(self):
        for one in self.lives:
            with self.subTest(type=one.sr.kind):
                one.sr("sr_attach")
                one.release()
                one.settle(everything=True)
        self.assertEqual(fsck(self.lab, "--strict"), [])
        for one in self.lives:
            one.sr("sr_detach")
        kit.settle()
        self.assertEqual(kit.left(self.before), [])
        self.sane()
        if WHAT == "end":
            self.ended()
        else:
            self.work()

    def sane(self):
        """By the tools of their own: both volume groups, and the file system in the one."""
        for one in self.lives:
            name = ("XSLocalEXT-" if one.sr.kind == "ext" else "VG_XenStorage-") + one.sr.uuid
            self.assertEqual(sh("vgck", name), "")
            self.assertEqual(sh("vgs", "--noheadings", "-o", "vg_missing_pv_count", name).strip(), "0")
            if one.sr.kind == "ext":
                sh("lvchange", "-ay", name)
                self.assertIn("clean", sh("e2fsck", "-n", f"/dev/{name}/{one.sr.uuid}"))
                sh("e2fsck", "-fn", f"/dev/{name}/{one.sr.uuid}")
                sh("lvchange", "-an", name)

    def ended(self):
        for one in self.lives:
            one.sr("sr_attach")
            one.end(read=False)

    def work(self):
        for one in self.lives:
            one.sr("sr_attach")
        with open(os.path.join(SHARED, "works"), "wb"):
            pass
        threads = [threading.Thread(target=self.steps, args=(one,)) for one in self.lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.fail("the power was not cut")

    @staticmethod
    def steps(one):
        try:
            while True:
                one.step()
        except BaseException:  # told at once: the power would be cut over it
            traceback.print_exc()
            os._exit(1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
