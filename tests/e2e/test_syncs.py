# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a changing call costs the store, counted by strace: at most two syncs on an idle server, one where nothing but
the store changes. A lease on a data path that can be fenced changes that path too, between two commits."""
import contextlib
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
from lab import Lab, new_uuid, type_row  # noqa: E402
from oracle import series  # noqa: E402

FENCING = {"vdi_activate", "vdi_deactivate", "smapi.lease_break", "smapi.host_break"}
SEVERAL = {"smapi.host_unregister": 2}  # what it gives back first, a lease that is fenced, costs as its own call does
SYNC = re.compile(r"f(?:data)?sync\(\d+<[^>]*/smapid\.db(?:-wal)?>")
HOME = re.compile(r"f(?:data)?sync\(\d+<[^>]*/smapid\.db>")  # the log is brought home, each thousand pages


@unittest.skipUnless(shutil.which("strace") and os.geteuid() == 0, "strace and root are needed to look into the daemon")
class Syncs(unittest.TestCase):
    def setUp(self):
        self.lab = Lab(in_memory=True)
        self.addCleanup(self.lab.close)
        self.lab.start()
        self.trace = os.path.join(self.lab.dir, "trace")
        self.judged = 0  # lines of the trace

    def traced_lines(self):
        with open(self.trace, encoding="ascii", errors="replace") as lines:
            return lines.readlines()

    def quiet(self):
        """Until the store has done what it does after its answers: a read that comes meanwhile waits for that."""
        self.lab.leases()
        return len(self.traced_lines())

    def counted(self, sr, one):
        """Syncs of the store that a call takes; None when the log was brought home meanwhile."""
        one.prepare(sr)
        asked = self.quiet()
        one.act(sr)
        self.quiet()
        lines = self.traced_lines()
        home = any(HOME.search(line) for line in lines[self.judged:])
        if home:  # by this call or the one before; what is written next begins the log anew, at the cost of a sync
            self.lab.repository("dummy").made()
        self.judged = self.quiet()
        return None if home else sum(bool(SYNC.search(line)) for line in lines[asked:])

    @contextlib.contextmanager
    def traced(self):
        """A line is written before the call it is about returns."""
        strace = subprocess.Popen(["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", self.trace,
                                   "-p", str(self.lab.process.pid)], stderr=subprocess.PIPE)
        try:
            self.assertIn(b"attached", strace.stderr.readline())
            yield
        finally:
            strace.terminate()
            strace.communicate(timeout=30)

    def test_a_changing_call_syncs_the_store_twice_at_most_and_once_where_only_the_store_changes(self):
        rival = self.lab.host(new_uuid())
        told = {}
        with self.traced():
            for kind, row, recipe in series():
                attempts = (self.counted(self.lab.repository(kind), recipe(self, rival)) for _ in range(2))
                syncs = next(count for count in attempts if count is not None)
                told[kind, row["name"], recipe.__name__] = syncs
                with self.subTest(kind=kind, method=row["name"], recipe=recipe.__name__):
                    fences = type_row(kind)["fencing"] == "vdi" and row["name"] in FENCING
                    most = 2 if row["effect"] == "medium" or fences else 1
                    self.assertLessEqual(syncs, most + SEVERAL.get(row["name"], 0))
                    self.assertGreaterEqual(syncs, 1, "nothing was made durable")
        print({f"{kind} {name}": syncs for (kind, name, _), syncs in told.items()}, flush=True)


if __name__ == "__main__":
    unittest.main()
