# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 at random moments while several clients snapshot, clone, resize and delete in one file SR: what was
acknowledged is there with its bytes, what was not is whole or absent, and every tree is sound. SMAPI_SEED chooses."""
import http.client
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import Lab, new_uuid, rounds  # noqa: E402
from oracle import consistent, kill_under_load  # noqa: E402
from trees import UNIT, Disk, Judges, random_pieces, write_pieces  # noqa: E402

BROKEN = (OSError, http.client.HTTPException)
SEED = int(os.environ.get("SMAPI_SEED") or 20100902)
CLIENTS, MOST, STOP_AT = 4, 5, 24  # disks of each client; length of a chain at which it starts anew


class Worker:
    """One client with disks of its own. disks holds what was acknowledged; pending what a call that was not answered may
    have made of it: (uuid or None for a new one, the Disks it may be, None for absent)."""

    def __init__(self, sr, chance):
        self.sr, self.chance = sr, chance
        self.disks, self.forks, self.pending = {}, {}, None
        self.acknowledged = 0

    def run(self, running):
        try:
            while running.is_set():
                self.step()
                self.acknowledged += 1
        except BROKEN:
            pass

    def step(self):
        acts = [self.create] if not self.disks else \
            [self.fork, self.fork, self.delete, self.resize] if len(self.disks) < MOST else [self.delete]
        self.chance.choice(acts)()
        self.pending = None

    def pick(self):
        return self.chance.choice(sorted(self.disks))

    def create(self):
        vdi, disk = new_uuid(), Disk(bytes(UNIT))
        self.pending = vdi, (None, disk)
        self.sr.disk(UNIT, vdi_uuid=vdi)
        self.disks[vdi], self.forks[vdi] = disk, 0

    def fork(self):
        vdi = self.pick()
        if self.forks[vdi] >= STOP_AT:
            return
        method = self.chance.choice(("vdi_snapshot", "vdi_clone"))
        disk = Disk(self.disks[vdi].data, method == "vdi_snapshot")
        self.forks[vdi] += 1
        self.pending = None, (None, disk)
        made = self.sr(method, vdi_uuid=vdi, driver_params={})["uuid"]
        self.disks[made], self.forks[made] = disk, self.forks[vdi]

    def delete(self):
        vdi = self.pick()
        self.pending = vdi, (None, self.disks.pop(vdi))
        self.sr("vdi_delete", vdi_uuid=vdi)

    def resize(self):
        vdi = self.pick()
        old = self.disks[vdi]
        new = old.grown(old.size + UNIT) if old.size < 4 * UNIT else old
        self.pending = vdi, (old, new)
        self.sr("vdi_resize", str(new.size), vdi_uuid=vdi)
        self.disks[vdi] = new

    def write(self):
        """Into some disks; nobody calls meanwhile."""
        for vdi, disk in self.disks.items():
            if not disk.read_only and self.chance.random() < 0.5:
                pieces = random_pieces(self.chance, disk.size, 2)
                write_pieces(self.sr, vdi, pieces)
                for offset, data in pieces:
                    disk.write(offset, data)


class KillTrees(unittest.TestCase):
    def setUp(self):
        chance = random.Random(SEED)
        self.chance, self.lab = chance, Lab()
        self.addCleanup(self.lab.close)
        self.lab.start()
        self.sr = self.lab.repository("file").made()
        self.judges = Judges(self, self.sr)
        self.workers = []
        for number in range(CLIENTS):
            sr = self.sr.by(self.lab.unix() if number % 2 else self.lab.host(new_uuid()))
            sr("sr_attach")
            self.workers.append(Worker(sr, random.Random(chance.random())))

    def load(self, seconds):
        kill_under_load(self, self.lab, self.workers, seconds)

    def settle(self, rows):
        """What was pending is whole or absent; from now on it is certain."""
        fresh = set(rows)
        for worker in self.workers:
            fresh -= worker.disks.keys() | ({worker.pending[0]} if worker.pending else set())
        for worker in self.workers:
            if worker.pending:
                vdi, choices = worker.pending
                vdi = vdi or self.forked(rows, fresh, choices[1])
                disk = self.choose(rows.get(vdi), choices)
                worker.disks.pop(vdi, None)
                if disk:
                    worker.disks[vdi] = disk
                    worker.forks.setdefault(vdi, STOP_AT)
            worker.pending = None
        self.assertEqual(fresh, set(), "disks that nobody asked for")

    def forked(self, rows, fresh, disk):
        """The new disk that a fork without an answer has made of this one, if any: told by what it reads as."""
        for vdi in sorted(fresh):
            if self.like(rows[vdi], disk) and self.judges.agrees(vdi, disk):
                fresh.discard(vdi)
                return vdi
        return None

    def like(self, row, disk):
        return (int(row["size"]), row["read_only"]) == (disk.size, disk.read_only)

    def choose(self, row, choices):
        """The Disk of the choices that the row is."""
        found = [disk for disk in choices if (disk is None) == (row is None) and (disk is None or self.like(row, disk))]
        self.assertTrue(found, f"{row} is neither whole nor absent")
        return found[0]

    def judge(self):
        consistent(self, self.sr)
        rows = {vdi: row for vdi, row in self.sr.contents().items() if not row["hidden"]}
        self.settle(rows)
        expected = {vdi: disk for worker in self.workers for vdi, disk in worker.disks.items()}
        self.assertEqual(set(rows), set(expected), "disks that are missing or back")
        for vdi, disk in expected.items():
            self.assertTrue(self.like(rows[vdi], disk), f"{rows[vdi]} and not {disk.size}, {disk.read_only}")
        self.judges.judge(expected)

    def test_every_acknowledged_tree_outlives_kill_9(self):
        killed = rounds(50)
        for _ in range(killed):
            self.load(self.chance.uniform(0.02, 0.2))
            self.lab.start()
            self.judge()
            for worker in self.workers:
                worker.write()
        done = sum(worker.acknowledged for worker in self.workers)
        print(f"{killed} kills, {done} calls acknowledged, seed {SEED}", flush=True)
        self.assertGreater(done, 2 * killed)
        self.emptied()

    def emptied(self):
        for worker in self.workers:
            while worker.disks:
                worker.delete()
        self.assertEqual((self.sr.names(), self.sr.contents()), ({"sr.smapi"}, {}))


if __name__ == "__main__":
    unittest.main()
