# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sixteen hosts and eight disks, a server that is killed and stopped and whose clocks jump, hosts that are stopped: what
the hosts were told is what leases are, in the order the server says, and in some order if it is not asked."""
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import figures  # noqa: E402
from lab import FAKETIME, SANITIZED, SOURCE, Lab, describe, new_uuid, rounds  # noqa: E402
from lease_history import OK, UNKNOWN, Event, Op, disk_order, search, witness  # noqa: E402
from lease_history import Trail  # noqa: E402

HOSTS, DISKS = 16, 8
LIVES = 12  # of the server
SEED = int(os.environ.get("SMAPI_SEED") or 5)
PAUSE = 0.02  # at most, between two calls of a host
JUMPS = (0, 3600, -600, 86400 * 30, 0, -1200)  # of the clock of boot time, seconds, from one life to the next
WALL_JUMPS = ("+20d", "+1h", "-30s", "+3d")  # of the clock that people read
WHYS = {"lease_release": "release", "lease_drop": "drop", "lease_broken": "broken"}


def has_time_namespaces():
    try:
        run = subprocess.run(["unshare", "-T", "--boottime", "1000", "true"], capture_output=True, check=False, timeout=20)
        return run.returncode == 0
    except FileNotFoundError:
        return False


class History(unittest.TestCase):
    def setUp(self):
        self.chance = random.Random(SEED)
        print(f"seed {SEED}")
        self.lab = Lab(in_memory=True)
        self.addCleanup(self.lab.close)
        self.lab.start()
        self.port = self.lab.port
        self.sr = self.lab.repository("dummy").made()
        self.disks = [self.sr.disk() for _ in range(DISKS)]
        self.methods = {row["name"]: row for row in describe()["methods"]}
        self.deaths, self.logs, self.hosts = [], [], []
        self.jumps = has_time_namespaces()
        self.jumped = self.wall_jumped = self.stopped = self.killed = 0

    def tearDown(self):
        for host in self.hosts:
            if host.poll() is None:
                os.kill(host.pid, signal.SIGCONT)
                host.kill()
                host.wait()

    def work(self, number):
        host = new_uuid()
        names = {parameter["name"] for parameter in self.methods["vdi_deactivate"]["params"]}
        return {"host": host, "certificate": self.lab.pki.identity("host", host), "ca": self.lab.pki.ca,
                "port": self.port, "sr": self.sr.uuid, "vdis": self.disks, "seed": SEED * 1000 + number,
                "out": os.path.join(self.lab.dir, f"history-{number}"), "pause": PAUSE,
                "registers": number % 2 == 0, "breaks": False, "boot": new_uuid(), "nonce": new_uuid(),
                "lists": "smapi.lease_list" in self.methods, "names_epoch": "epoch" in names}

    def start_hosts(self):
        self.works = [self.work(n) for n in range(HOSTS)]
        admin = self.work(HOSTS)
        self.works.append({**admin, "host": "admin", "certificate": self.lab.pki.identity("admin", "alice"), "breaks": True,
                           "registers": False})
        program = os.path.join(SOURCE, "tests", "crash", "lease_client.py")
        for work in self.works:
            self.hosts.append(subprocess.Popen(["/usr/bin/python3", "-B", program, json.dumps(work)]))

    def pause(self, host, seconds):
        os.kill(host, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(host, signal.SIGCONT)
        self.stopped += 1

    def live(self):
        """One life of the server: hosts and server stop and go on."""
        end = time.monotonic() + self.chance.uniform(0.3, 1.5)
        while time.monotonic() < end:
            victim = self.chance.choice([self.lab.process.pid] + [host.pid for host in self.hosts])
            self.pause(victim, self.chance.uniform(0.01, 0.3))
            time.sleep(self.chance.uniform(0, 0.1))

    def tell_logs(self):
        """What each disk took in this life."""
        for vdi in self.disks:
            rows = self.sr("smapi.disk_log", vdi_uuid=vdi)
            self.logs.append((vdi, [(int(row["epoch"]), row["data"]) for row in rows]))

    def die(self):
        """Most often in the middle of everything; sometimes so that its disks are heard before."""
        if self.chance.random() < 0.3:
            self.tell_logs()
        self.lab.kill9()
        self.deaths.append(time.monotonic_ns())
        self.killed += 1

    def rise(self, life):
        self.lab.prefix = []
        jump = JUMPS[life % len(JUMPS)]
        if jump and self.jumps:
            # A namespace's clock cannot go below zero.
            self.lab.prefix = ["unshare", "-T", "--boottime", str(max(jump, 60 - int(time.clock_gettime(time.CLOCK_BOOTTIME))))]
            self.jumped += 1
        self.lab.environment = {}
        if life % 3 == 2 and os.path.exists(FAKETIME) and not SANITIZED: # the daemon is much slower with it
            self.lab.environment = {"LD_PRELOAD": FAKETIME, "FAKETIME": WALL_JUMPS[life % len(WALL_JUMPS)],
                                    "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            self.wall_jumped += 1
        self.lab.start(server__port=self.port)

    def end(self):
        """All ends in order: the calls, the rows, the audit trail."""
        for host in self.hosts:
            os.kill(host.pid, signal.SIGTERM)
        for host in self.hosts:
            self.assertEqual(host.wait(90), 0)
        self.tell_logs()
        self.lab.stop()
        self.deaths.append(time.monotonic_ns())

    def ops(self):
        ops = []
        for work in self.works:
            with open(work["out"], encoding="ascii") as lines:
                for line in lines:
                    begin, end, who, what, vdi, outcome, result, mode, epoch = json.loads(line)
                    if outcome == UNKNOWN:
                        end = next(death for death in self.deaths if death >= -end)
                        if end < begin:
                            continue # sent to a server that was dead
                    if what == "list":
                        result = {holder: tuple(row) for holder, row in result.items()}
                    ops.append(Op(begin, end, who, what, vdi, outcome, result, mode, epoch))
        return ops

    def rows_and_trail(self):
        """The lease rows and the events about them, from a copy of the database of the server that has ended."""
        copy = os.path.join(self.lab.dir, "copy")
        shutil.copytree(self.lab.state, copy)
        with sqlite3.connect(os.path.join(copy, "smapid.db")) as database:
            held = {(vdi, who): (mode, epoch)
                    for vdi, who, mode, epoch in database.execute("SELECT vdi, holder, mode, epoch FROM lease")}
            events = []
            for seq, who, what, detail in database.execute("SELECT seq, who, what, detail FROM audit ORDER BY seq"):
                told = re.fullmatch(r"(\S{36}) (\S{36}) (r[ow]) (\d+)", detail)
                if what in ("lease_take", *WHYS) and told:
                    events.append(Event(seq, who, "take" if what == "lease_take" else "end", WHYS.get(what), told[2],
                                        told[3], int(told[4])))
            self.assertEqual(database.execute("SELECT min(seq) FROM audit").fetchone(), (1,), "lines went past the ceiling")
        return held, events

    def judge(self):
        ops, (held, events) = self.ops(), self.rows_and_trail()
        trail = Trail(events)
        self.assertEqual(trail.rows(), held, "the audit trail does not lead to the rows")
        for name, said in (("witness", witness(ops, events)), ("search", search(ops, rounds(1))),
                           ("disks", disk_order(ops, self.logs))):
            self.assertEqual(said, [], f"{name}: {len(said)} anomalies, seed {SEED}:\n" + "\n".join(said[:3]))
        self.judge_logs(ops)
        return ops, events

    def judge_logs(self, ops):
        """No disk took what nobody wrote, nor the same twice."""
        sent = {op.mode for op in ops if op.what == "write" and op.outcome in (OK, UNKNOWN)}
        for vdi, log in self.logs:
            data = [row[1] for row in log]
            self.assertEqual(len(data), len(set(data)), vdi)
            self.assertLessEqual(set(data), sent, vdi)

    def test_what_hosts_were_told_is_what_leases_are(self):
        self.start_hosts()
        for life in range(rounds(LIVES)):
            self.live()
            self.die()
            self.rise(life)
        self.live()
        self.end()
        ops, events = self.judge()
        told = {outcome: sum(op.outcome == outcome for op in ops) for outcome in {op.outcome for op in ops}}
        breaks = sum(event.why == "broken" for event in events)
        grants = sum(event.what == "take" for event in events)
        print(f"{len(ops)} calls {told}, {grants} grants, {breaks} breaks, {self.killed} kills, {self.stopped} stops, "
              f"{self.jumped} jumps of boot time, {self.wall_jumped} of wall time")
        for host in self.works: # none of them was only a spectator
            self.assertTrue(any(op.who == host["host"] and op.outcome == OK for op in ops))
        self.assertGreater(breaks, 0)
        self.assertGreater(grants, rounds(LIVES) * DISKS)
        if figures.DEEP:
            figures.save("lease_history", "history",
                         "{calls:,} calls, {grants:,} grants, {breaks:,} breaks, {kills} kills, {stops:,} stops, {clock_jumps} jumps "
                         "of boot time, {wall_jumps} of wall time, {anomalies} anomalies",
                         {"calls": len(ops), "outcomes": told, "grants": grants, "breaks": breaks, "kills": self.killed,
                          "stops": self.stopped, "clock_jumps": self.jumped, "wall_jumps": self.wall_jumped,
                          "anomalies": 0, "seed": SEED})


if __name__ == "__main__":
    unittest.main()
