# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 in the middle of a load from 64 clients: whatever was acknowledged is there after the restart, and nothing
half-made. Deep (SMAPI_DEEP): 20 series of 100 kills, each with a server of its own, in SMAPI_PROCESSES (1) processes."""
import http.client
import multiprocessing
import os
import random
import sys
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import figures  # noqa: E402
from lab import MIB, SANITIZED, Fault, Lab, Pki, new_uuid  # noqa: E402
from oracle import consistent, kill_under_load  # noqa: E402

BROKEN = (OSError, http.client.HTTPException)
CLIENTS = 64
SERIES, KILLS = (20, 100) if figures.DEEP else (1, 3 if SANITIZED else 30)
PROCESSES = int(os.environ.get("SMAPI_PROCESSES") or 1)
SEED = int(os.environ.get("SMAPI_SEED") or 20100902)
HOSTS = [new_uuid() for _ in range(CLIENTS // 2)]  # the same in every series: certificates take their time
RIVAL = new_uuid()
LEASES_TRIED = 8  # each round, by another host that wants the disk


class Disk:
    """What a worker knows of a disk: for each property the values it may have; one value once it is acknowledged."""

    def __init__(self):
        self.there, self.size, self.lease = {False}, {2 * MIB}, {"free"}


class Worker:
    """One client with disks of its own, so that what it is told does not depend on others."""

    def __init__(self, sr, chance):
        self.sr, self.chance = sr, chance
        self.disks = {}
        self.acknowledged = 0

    def run(self, running):
        try:
            while running.is_set():
                self.step()
        except BROKEN:
            pass  # killed: what was under way stays uncertain

    def step(self):
        there = [vdi for vdi, disk in self.disks.items() if disk.there == {True}]
        if len(there) < 2:
            self.create()
        else:
            act = self.chance.choice([self.create, self.delete, self.activate, self.activate, self.release, self.resize])
            act() if act == self.create else act(self.chance.choice(there))
        self.acknowledged += 1

    def create(self):
        vdi, disk = new_uuid(), Disk()
        self.disks[vdi] = disk
        disk.there = {True, False}
        self.sr.disk(2 * MIB, vdi_uuid=vdi)
        disk.there = {True}

    def delete(self, vdi):
        self.release(vdi)
        disk = self.disks[vdi]
        disk.there = {True, False}
        self.sr("vdi_delete", vdi_uuid=vdi)
        disk.there = {False}

    def activate(self, vdi):
        """The lease is free, or held with an epoch; "held" when its answer never came."""
        disk = self.disks[vdi]
        disk.lease = disk.lease | {"held"}
        epoch = self.sr.activated(vdi)
        disk.lease = {epoch}

    def release(self, vdi):
        disk = self.disks[vdi]
        disk.lease = disk.lease | {"free"}
        self.sr.released(vdi)
        disk.lease = {"free"}

    def resize(self, vdi):
        self.release(vdi)
        disk = self.disks[vdi]
        size = max(disk.size) + 2 * MIB
        disk.size = disk.size | {size}
        self.sr("vdi_resize", str(size), vdi_uuid=vdi)
        disk.size = {size}


class Series(unittest.TestCase):
    """A server, its clients, and kills one after the other."""

    def prepare(self, number):
        self.chance = random.Random(SEED + number)
        self.lab = Lab(in_memory=figures.DEEP)
        self.addCleanup(self.lab.close)
        self.lab.start()
        self.repositories = [self.lab.repository(kind, self.lab.unix()).made() for kind in ("file", "file", "dummy")]
        rival, self.asker = self.lab.host(RIVAL), self.lab.unix()
        self.rivals = {sr.uuid: sr.by(rival) for sr in self.repositories}
        for sr in self.rivals.values():
            sr("sr_attach")
        self.workers = [self.worker(n) for n in range(CLIENTS)]

    def worker(self, number):
        """Every second one over TLS, as a host of its own; four of five SR shares are on the medium."""
        client = self.lab.unix() if number % 2 else self.lab.host(HOSTS[number // 2])
        sr = self.repositories[(0, 1, 0, 1, 2)[number % 5]].by(client)
        sr("sr_attach")
        return Worker(sr, random.Random(self.chance.random()))

    def load(self):
        """A load that ends in a kill, early or late."""
        kill_under_load(self, self.lab, self.workers, 0.02, self.chance.choice((1, 20, 100, 300)))

    def judge(self):
        """Compares what is there with what was acknowledged; then nothing is uncertain any more."""
        held = {row["vdi"]: epoch for epoch, row in self.lab.leases(self.asker).items()}
        for sr in self.repositories:
            consistent(self, sr)
            rows = sr.contents()
            mine = [worker for worker in self.workers if worker.sr.uuid == sr.uuid]
            known = {vdi for worker in mine for vdi in worker.disks}
            self.assertEqual(set(rows) - known, set(), "disks that nobody made")
            for worker in mine:
                for vdi, disk in worker.disks.items():
                    self.assertIn(vdi in rows, disk.there, f"{sr.kind} disk {vdi}")
                    disk.there = {vdi in rows}
                    if vdi in rows:
                        self.assertIn(int(rows[vdi]["size"]), disk.size, f"{sr.kind} disk {vdi}")
                        disk.size = {int(rows[vdi]["size"])}
                self.judge_leases(worker, held)
                worker.disks = {vdi: disk for vdi, disk in worker.disks.items() if disk.there == {True}}

    def judge_leases(self, worker, held):
        for vdi, disk in worker.disks.items():
            if disk.there == {True}:
                state = held.get(vdi, "free")
                self.assertTrue(state in disk.lease or (state != "free" and "held" in disk.lease),
                                f"lease of {vdi}: {state}, not {disk.lease}")
                disk.lease = {state}

    def try_leases(self):
        """What is told to be held keeps others out, what is told to be free does not."""
        disks = [(worker.sr.uuid, vdi, disk.lease != {"free"}) for worker in self.workers
                 for vdi, disk in worker.disks.items()]
        for sr, vdi, held in self.chance.sample(disks, min(LEASES_TRIED, len(disks))):
            self.assertEqual(self.kept_out(self.rivals[sr], vdi), held, vdi)

    def kept_out(self, rival, vdi):
        try:
            rival.activated(vdi)
            return False
        except Fault as fault:
            self.assertEqual(fault.code, 24, fault.text)
            return True
        finally:
            rival.released(vdi)

    def kill(self):
        """How many calls were acknowledged."""
        for _ in range(KILLS):
            self.load()
            self.lab.start()
            self.judge()
            self.try_leases()
        for _ in range(KILLS):  # on a busy machine the last of many clients may have come too late to each of them
            if all(worker.acknowledged for worker in self.workers):
                break
            kill_under_load(self, self.lab, self.workers, 1, 300)
            self.lab.start()
            self.judge()
        self.assertTrue(all(worker.acknowledged for worker in self.workers), "a client did nothing")
        return sum(worker.acknowledged for worker in self.workers)


def one_series(number):
    """(number, acknowledged calls, what went wrong)"""
    series = Series()
    try:
        series.prepare(number)
        return number, series.kill(), None
    except Exception:
        return number, 0, traceback.format_exc()
    finally:
        series.doCleanups()


class KillUnderLoad(unittest.TestCase):
    def test_every_acknowledged_result_outlives_kill_9(self):
        progress = figures.Progress("kill_load", SERIES, KILLS, SEED)
        todo = [number for number in range(SERIES) if str(number) not in progress.done]
        for host in (*HOSTS, RIVAL):
            Pki.shared().identity("host", host)
        with multiprocessing.get_context("fork").Pool(PROCESSES, maxtasksperchild=1) as pool:
            for number, acknowledged, wrong in pool.imap_unordered(one_series, todo):
                self.assertIsNone(wrong, wrong)
                progress.add(str(number), acknowledged)
                print(f"series {number}: {KILLS} kills, {acknowledged} acknowledged calls, seed {SEED + number}", flush=True)
        self.save(SERIES * KILLS, sum(progress.done.values()))

    def save(self, kills, acknowledged):
        print(f"{kills} kills, {CLIENTS} clients, {acknowledged} acknowledged calls")
        if figures.DEEP:
            figures.save("kill_load", "kills", "{kills:,} kills, {clients} clients, {acknowledged:,} acknowledged calls, {lost} lost",
                         {"kills": kills, "clients": CLIENTS, "acknowledged": acknowledged, "lost": 0, "seed": SEED})


if __name__ == "__main__":
    unittest.main()
