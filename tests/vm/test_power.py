# SPDX-License-Identifier: LGPL-2.1-or-later
"""The power of a whole host is cut while SRs of lvm and ext change: QEMU is killed, and started again on the same disks. What
was acknowledged is there with its bytes, smapid's check and those of lvm2 and e2fsprogs find nothing, and what was under way
is whole or absent.

What the guest's kernel had not yet written is lost in this; what it had written, the disks keep: they have no cache that
could lose it."""
import json
import os
import random
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e"), os.path.join(HERE, "..")]
import figures  # noqa: E402
from lab import BUILD, rounds  # noqa: E402
from machine import Machine, Unavailable  # noqa: E402

SKIPPED = 77
SEED = int(os.environ.get("SMAPI_SEED") or time.time_ns() // 10**9)
MOST = 6 if figures.DEEP else 3  # acknowledged calls of each type that a cut waits for at most
LONGEST = 3.0   # seconds at most until the cut then
PATIENCE = 900  # seconds until a guest works, or has come to its end


class Power(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory(dir=BUILD)
        self.addCleanup(work.cleanup)
        self.shared = os.path.join(work.name, "shared")
        os.mkdir(self.shared)
        self.disks = [os.path.join(work.name, name) for name in ("state", "lvm", "ext")]
        for path in self.disks:
            with open(path, "wb") as disk:
                disk.truncate(1 << 30)

    def guest(self, what, out):
        return Machine(["/usr/bin/python3", "-B", os.path.join(HERE, "cut.py"), self.shared, what], disks=0,
                       files=self.disks, shares=[self.shared], environment={"SMAPI_BUILD": BUILD}, stdout=out.fileno(),
                       stderr=out.fileno()).start()

    def judged(self, what, calls=0, seconds=0):
        """A guest that judges what is there, and works until so many calls of each type are answered and so long after, or
        ends it."""
        works = os.path.join(self.shared, "works")
        said = os.path.join(self.shared, "..", "said")
        with open(said, "wb") as out:
            machine = self.guest(what, out)
        if what == "end":
            status = machine.wait(PATIENCE)
        else:
            status = self.cut(machine, works, calls, seconds)
        with open(said, encoding="utf-8", errors="replace") as text:
            self.assertEqual(status, 0, text.read())

    def cut(self, machine, works, calls, seconds):
        """0 when it worked until then."""
        self.until(machine, lambda: os.path.exists(works))
        if not os.path.exists(works):
            return machine.wait(0)
        os.unlink(works)
        before = self.calls()
        self.until(machine, lambda: all(now >= before[kind] + calls for kind, now in self.calls().items()))
        time.sleep(seconds)
        if machine.qemu.poll() is not None:
            return machine.wait(0) or 1
        machine.kill()
        return 0

    @staticmethod
    def until(machine, condition):
        """Or until it ends, or patience does."""
        deadline = time.monotonic() + PATIENCE
        while not condition() and machine.qemu.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def calls(self):
        with open(os.path.join(self.shared, "told"), encoding="ascii") as lines:
            whole = (line for line in lines if line.endswith("\n"))
            return {line["kind"]: line["calls"] for line in map(json.loads, whole)}

    def test_what_was_acknowledged_outlives_the_power(self):
        chance, cuts = random.Random(SEED), rounds(2)
        for _ in range(cuts):
            self.judged("work", chance.randint(1, MOST), chance.uniform(0, LONGEST))
        self.judged("end")
        self.assertGreaterEqual(min(self.calls().values()), cuts)
        print(f"{cuts} cuts, calls acknowledged: {self.calls()}, seed {SEED}", flush=True)
        if figures.DEEP:
            figures.save("vm_power", "cuts", "{cuts} cuts of a host with SRs of lvm and ext, {calls} acknowledged calls, "
                         "{lost} lost", {"cuts": cuts, "calls": sum(self.calls().values()), "lost": 0})


if __name__ == "__main__":
    try:
        unittest.main()
    except Unavailable as reason:
        print(f"vm: SKIPPED, no guest can be had: {reason}", file=sys.stderr)
        sys.exit(SKIPPED)
