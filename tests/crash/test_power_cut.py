# SPDX-License-Identifier: LGPL-2.1-or-later
"""Power-cut states: each changing method is recorded call by call, from the running daemon to the end of a clean stop;
power.py says what a power cut may leave of that, state directory and SR alike; each such state is built, the daemon
started on it, and what it makes of it judged by oracle.py. What was answered must be there.

Quick: a sample by a fixed seed, at least 2,000. Deep (SMAPI_DEEP): all of them, and those of the recovery from a kill in
the middle of each call that changes a medium, SMAPI_STATES (100,000) at least; of those that are the same to a reader (Tree.identity) EACH are judged, and one of the series
that SMAPI_FIRST names (shim.each).
"""
import os
import random
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import figures  # noqa: E402
from lab import new_uuid  # noqa: E402
from oracle import consistent, series  # noqa: E402
from power import LOG, Run, Tree, committed, laid, merged  # noqa: E402
from shim import ALL, ENOUGH, each, is_first, tmp_in_memory  # noqa: E402
from test_kill_calls import died_in_the_middle, repeat, settled  # noqa: E402

DEEP = figures.DEEP
EACH = 10  # of states that are the same to a reader
SEED = int(os.environ.get("SMAPI_SEED") or 20261124)
WANTED = int(os.environ.get("SMAPI_STATES") or (100000 if DEEP else 2150))


def setUpModule():
    tmp_in_memory()


def record(stage, op, blind):
    """A run from here to the daemon's end."""
    lab = stage.lab
    stage.start()
    tree = Tree(lab.root)
    lab.record()
    stage.act(op)
    answered = len(lab.recorded())
    lab.stop()
    return tree, Run(tree, lab.stop_recording(), answered, blind)


def record_recovery(stage, op, blind):
    """The start after a kill in the middle of the call."""
    lab = stage.lab
    died_in_the_middle(stage, op)
    tree = Tree(lab.root)
    lab.record()
    lab.start()
    records = lab.stop_recording()
    lab.kill9()
    return tree, Run(tree, records, len(records) + 1, blind)


def judge_state(stage, tree, run, state, op):
    applied, torn, answered = state
    lab, test = stage.lab, stage.recipe.test
    lab.end()
    lab.wipe()
    lab.show_inodes(tree.build(run, applied, torn, lab.root))
    lab.start()
    done = settled(stage)
    test.assertFalse(answered and done is False, "what was answered is gone")
    repeat(stage, done, op)


def told(run, state):
    """A state for people."""
    applied, torn, answered = state
    lines = [f"  {'kept' if n in applied else 'LOST'} {'torn ' + str(torn[1]) + ' ' if torn and torn[0] == n else ''}"
             f"{change.record}" for n, change in enumerate(run.changes) if n <= max(applied, default=0) + 4]
    return ("answered\n" if answered else "") + "\n".join(lines)


def alike(tree, run, states):
    """The states in lists of those that are the same to a reader; they count as answered when one of them does."""
    same = {}
    for state in states:
        same.setdefault(tree.identity(run, *state[:2]), []).append(state)
    return [[(*state[:2], any(answered for *_, answered in found)) for state in found] for found in same.values()]


def judge_some(stage, failed, tree, run, op, chance, wanted):
    """A run's states, when deep, else at most so many; how many there were, and how many were judged."""
    states, classes = list(run.states()), 0
    if DEEP or is_first(stage.recipe):
        lists = alike(tree, run, states)
        classes = len(lists)
        each_of = EACH if DEEP else 1
        chosen = [state for found in lists for state in chance.sample(found, min(each_of, len(found)))]
    else:
        chosen = chance.sample(states, min(wanted, len(states)))
    for state in chosen:
        try:
            judge_state(stage, tree, run, state, op)
        except Exception:
            failed.append((told(run, state), traceback.format_exc() + stage.lab.log()[-1500:]))
            stage.lab.end()
            if len(failed) >= ENOUGH:
                break
    return {"states": len(states), "classes": classes, "judged": len(chosen)}


def cut(stage, failed, share, blind):
    """The states of one series: of the call with and without an operation id, and of recoveries from its kills."""
    chance = random.Random(f"{SEED} {stage.kind} {type(stage.recipe).__name__}")
    totals = {"states": 0, "classes": 0, "judged": 0}

    def add(recorded, op, wanted):
        counts = judge_some(stage, failed, *recorded, op, chance, wanted)
        for key, value in counts.items():
            totals[key] += value

    add(record(stage, None, blind), None, share if DEEP else share * 2 // 3)
    op = new_uuid()
    add(record(stage, op, blind), op, share if DEEP else share // 3)
    if DEEP and stage.row["effect"] == "medium" and stage.kind == "file" and len(failed) < ENOUGH:
        add(record_recovery(stage, op, blind), op, share)
    return totals


class PowerCut(unittest.TestCase):
    maxDiff = None

    def all_of(self, wanted, todo, blind=()):
        began, totals, failures = time.monotonic(), {"series": 0, "states": 0, "classes": 0, "judged": 0, "violations": 0}, []
        share = -(-wanted // len(todo))
        progress = None if blind else figures.Progress("power_cut", share, SEED)
        for name, counts, failed in each(cut, todo, share, blind, progress=progress):
            for key, value in (counts or {}).items():
                totals[key] += value
            totals["series"] += 1
            totals["violations"] += len(failed)
            if DEEP:
                print(f"  {name}: {counts}", flush=True)
            failures += [(name, where, trace) for where, trace in failed]
        print(f"power cut: {totals}, {time.monotonic() - began:.0f} s", flush=True)
        if DEEP and not blind:
            figures.save("power_cut", "states", "{series:,} series, {states:,} states, {classes:,} of them not the same to a reader; "
                         "{judged:,} judged, up to " + str(EACH) + " of each of these; {violations} violations", totals)
        return totals, failures

    def test_what_was_answered_outlives_a_power_cut_and_nothing_half_made_does(self):
        totals, failures = self.all_of(WANTED, series())
        for name, where, trace in failures:
            with self.subTest(series=name):
                self.fail(f"{where}\n{trace}")
        if ALL:
            self.assertGreaterEqual(totals["states" if DEEP else "judged"], WANTED if DEEP else 2000)

    def test_the_log_is_read_as_sqlite_reads_it(self):
        """Of a log that is cut anywhere, and a database to which some of its pages were copied, whole or torn: there are
        other rows where committed() says that there are other commits, and nowhere else; merged() has all that is read."""
        with tempfile.TemporaryDirectory() as place:
            path = os.path.join(place, "db")
            kept = sqlite3.connect(path, isolation_level=None)
            kept.execute("PRAGMA journal_mode = WAL")
            kept.execute("CREATE TABLE t (n INTEGER, x BLOB)")
            kept.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for n in range(6):
                kept.execute("INSERT INTO t VALUES (?, randomblob(?))", (n, 3000 * n))
            with open(path, "rb") as file, open(path + LOG, "rb") as log:
                file, log = file.read(), log.read()
            kept.close()
            self.assertEqual(committed(log), len(log))
            whole = {}
            for cut in sorted({*range(0, len(log) + 1, 997), *range(32, len(log) + 1, 4120)}):
                for torn in (log[:cut], log[:cut] + bytes(len(log) - cut), log[:cut] + bytes(1) + log[cut + 1:]):
                    pages = file
                    for at in range(32, committed(torn), 4120):
                        place_of = 4096 * (struct.unpack_from(">I", torn, at)[0] - 1)
                        pages = laid(pages, place_of, torn[at + 24:at + 24 + (cut % 4096)])
                    read = {self.rows(place, database, torn) for database in (file, pages)}
                    self.assertEqual(merged(file, torn), merged(pages, torn))
                    self.assertEqual(read, {self.rows(place, merged(file, torn), b"")})
                    whole.setdefault(committed(torn), set()).update(read)
            self.assertEqual([len(rows) for rows in whole.values()], [1] * len(whole), whole)
            self.assertEqual(len(set.union(*whole.values())), len(whole), whole)
            self.assertEqual(len(whole), 7)

    def rows(self, place, file, log):
        for suffix, content in (("", file), (LOG, log)):
            with open(os.path.join(place, "copy") + suffix, "wb") as out:
                out.write(content)
        copy = sqlite3.connect(os.path.join(place, "copy"))
        try:
            return copy.execute("SELECT count(*), coalesce(max(n), -1) FROM t").fetchone()
        finally:
            copy.close()
            for name in os.listdir(place):
                if name.startswith("copy"):
                    os.unlink(os.path.join(place, name))

    def test_without_the_syncs_of_directories_it_would_not(self):
        """This harness sees: where syncs of directories, or of files, do nothing, states turn red."""
        todo = [one for one in series() if one[0] == "file" and one[2].__name__ in ("VdiCreate", "VdiSnapshot")]
        for blind in ("directory", "file"):
            _, failures = self.all_of(120, todo, (blind,))
            self.assertNotEqual(failures, [], f"no state shows that a {blind} was not synced")


if __name__ == "__main__":
    unittest.main()
