# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of the iSCSI types share: the daemon and its plugin in a guest, and what they must leave behind: nothing."""
import glob
import os
import subprocess
import sys
import unittest
import xml.dom.minidom
from contextlib import contextmanager

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]
import kit  # noqa: E402
from client import Fault, xapi_body  # noqa: E402
from lab import Lab, describe  # noqa: E402

HOST = "iqn.2024-01.org.example:host"
IQN = "iqn.2024-01.org.example:store"
CHAP = ("someone", "Canary-7c1f0b93-out")
INCOMING = ("target", "Canary-7c1f0b93-in")
POINTS = sorted(row["name"] for row in describe()["points"] if row["name"].startswith("iscsi_"))


def write(path, data, offset=0):
    """All of it, past every cache, or OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_SYNC)
    try:
        assert os.pwrite(fd, data, offset) == len(data)
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path, size, offset=0):
    if not os.path.isfile(path):
        kit.sh("blockdev", "--flushbufs", path)
    with open(path, "rb") as source:
        source.seek(offset)
        return source.read(size)


def links():
    return sorted(glob.glob("/dev/smapid/*/*"))


class IscsiTest(unittest.TestCase):
    KIND = "iscsi"
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        kit.initiator(HOST)
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start()

    def setUp(self):
        self.before = kit.held()
        self.addCleanup(self.nothing_is_left)

    def nothing_is_left(self):
        kit.settle()
        self.assertEqual(kit.left(self.before), [])
        self.assertEqual(links(), [])

    def target(self, luns, iqn=IQN, **keys):
        target = kit.Target(iqn, luns, **keys)
        self.addCleanup(target.close)
        return target

    def two_portals(self, lun):
        """self.store, a target with one LUN and a second portal, at the other end of a wire; the wire."""
        wire = kit.Wire()
        self.addCleanup(wire.close)
        self.store = self.target([lun])
        with wire.peer():
            self.store.listen(f"{wire.far}:3260")
        return wire

    def multipathd(self):
        daemon = kit.Multipathd()
        self.addCleanup(daemon.close)
        return daemon

    def config(self, **more):
        return {"target": "127.0.0.1", "targetIQN": IQN, **more}

    def sr(self, made=True, **more):
        sr = self.lab.repository(self.KIND, location="/")
        sr.config = self.config(**more)
        if made:
            self.addCleanup(self.end, sr)
            sr.made()
        return sr

    def end(self, sr):
        """Lets go of everything the SR may still hold, so that the next test starts from nothing."""
        if not self.lab.alive():
            self.lab.process = None
            self.lab.disarm()
            self.lab.start()
        for vdi in sr.contents() if self.known(sr) else ():
            for call in ("vdi_deactivate", "vdi_detach"):
                self.quietly(sr, call, vdi)
        self.quietly(sr, "sr_detach")

    def known(self, sr):
        try:
            sr.page(limit=1)
            return True
        except Fault:
            return False

    @staticmethod
    def quietly(sr, call, vdi=None):
        try:
            sr(call, **({"vdi_uuid": vdi} if vdi else {}))
        except Fault:
            pass

    @contextmanager
    def refused(self, code, *naming):
        with self.assertRaises(Fault) as refusal:
            yield refusal
        self.assertEqual(refusal.exception.code, code, refusal.exception.text)
        for words in naming:
            self.assertIn(words, refusal.exception.text)

    def probe_errors(self, kind=None, **config):
        """(fault code, the document on the plugin's standard error) of a probe as xapi makes it; (0, its result)."""
        bridge = self.lab.bridge()
        body = xapi_body("sr_probe", {"device_config": config})
        run = subprocess.run([bridge.plugin(kind or self.KIND), body], capture_output=True, env=bridge.environment,
                             stdin=subprocess.DEVNULL, timeout=60, check=True)
        try:
            from client import Reply
            return 0, Reply(200, {}, run.stdout).value()
        except Fault as fault:
            return fault.code, run.stderr.decode()

    @staticmethod
    def texts(document, tag):
        """The texts of all elements of this name."""
        found = xml.dom.minidom.parseString(document).getElementsByTagName(tag)
        return ["".join(node.data for node in element.childNodes) for element in found]
