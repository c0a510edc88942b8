# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program of a killed daemon may still write: until it is gone nothing is settled, the SR answers 47, others serve.
The test holds the lock that such a child inherits; test_hold.c has a real child."""
import contextlib
import fcntl
import http.client
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import MIB, Fault, Lab, fsck  # noqa: E402

BROKEN = (OSError, http.client.HTTPException)


class Children(unittest.TestCase):
    def setUp(self):
        self.lab = Lab(in_memory=True)
        self.addCleanup(self.lab.close)
        self.lab.start()
        self.sr, self.other = (self.lab.repository("file").made() for _ in range(2))
        self.disk = self.other.disk()

    @contextlib.contextmanager
    def child(self):
        """As if a program that was started for the SR ran on."""
        with open(os.path.join(self.lab.state, "ops", self.sr.uuid + ".lock"), "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def interrupted(self):
        """Killed in the middle of a vdi_create; what it left."""
        self.lab.arm("create_temp_made:kill:1")
        with self.assertRaises(BROKEN):
            self.sr.disk()
        self.assertTrue(self.lab.died())
        self.lab.disarm()
        self.assertNotEqual(self.sr.litter(), set())
        return self.sr.names()

    def refused(self):
        with self.assertRaises(Fault) as refused:
            self.sr("sr_scan")
        self.assertEqual(refused.exception.code, 47)
        return refused.exception.text

    def attach_other(self):
        """As soon as the turn of that SR's recovery has come; it does not wait for the child."""
        while True:
            try:
                return self.other("vdi_attach", "false", vdi_uuid=self.disk)
            except Fault as fault:
                if "is being recovered; try again" not in fault.text:
                    raise
            time.sleep(0.01)

    def launch(self, **settings):
        """Until it listens; the SR's recovery may still wait."""
        self.lab.launch(**settings)
        while "ready:" not in self.lab.log():
            self.assertTrue(self.lab.alive(), self.lab.log())
            time.sleep(0.01)

    def test_nothing_is_settled_while_a_program_of_the_killed_daemon_runs(self):
        left = self.interrupted()
        with self.child():
            self.launch()
            while "previous start" not in self.refused():  # its recovery may not have begun to wait
                time.sleep(0.01)
            self.attach_other()
            self.assertEqual(self.sr.names(), left)
            self.assertIn("sr_unsettled", [one["kind"] for one in fsck(self.lab)])
        self.assertTrue(self.lab.wait_ready())
        self.assertEqual((self.sr.litter(), self.sr.contents()), (set(), {}))
        self.assertEqual(fsck(self.lab, "--strict"), [])

    def test_after_the_deadline_sr_attach_tries_again(self):
        left = self.interrupted()
        with self.child():
            self.lab.start(limits__recovery_seconds=1)
            self.assertIn("still runs", self.refused())
            with self.assertRaises(Fault) as refused:
                self.sr("sr_attach")
            self.assertEqual(refused.exception.code, 47)
            self.assertEqual(self.sr.names(), left)
        self.sr("sr_attach")
        self.assertEqual((self.sr.litter(), self.sr.contents()), (set(), {}))
        self.assertIn(self.sr.disk(4 * MIB), self.sr.contents())


if __name__ == "__main__":
    unittest.main()
