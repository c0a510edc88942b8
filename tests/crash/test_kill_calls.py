# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kill at every system call that changes something: of every changing method of dummy, file with VHD and file with raw
images (computed from smapid --describe), then again inside the recovery. What is killed is the real daemon, reached
through its socket, with shim.so preloaded.

What must hold after each: oracle.py's promises, and, over all kills of a call in order: the effect is not there before
its commit began to be written where the call is undone without an operation id, never goes again once it is there, and
is there from the moment the commit was synced.

Quick: every call once, and with an operation id every ninth, others each day (SMAPI_SEED), with a second death at one call
of the recovery, each at another one; whether a further restart changes anything, after every ninth. Deep (SMAPI_DEEP): the
second death at every call of the recovery, and writes cut in half. Of two kills of which
the second finds nothing else than the first, deep runs try one when they kill twice: the call between them was a sync,
by which nothing is lost or gained, or wrote a part of a commit to the store's log, which is there from its last write
on.
"""
import itertools
import os
import re
import sys
import time
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import figures  # noqa: E402
from client import Fault  # noqa: E402
from lab import EVERY_DAY, SEED, new_uuid  # noqa: E402
from oracle import RECIPES, changing, consistent, picture, series  # noqa: E402
from shim import BROKEN, ENOUGH, KILL, KILL_HALF, SWALLOW, each, tmp_in_memory  # noqa: E402

DEEP = figures.DEEP
LOG = "smapid.db-wal"
TURN = 1 if DEEP else 3 if EVERY_DAY else 9  # of so many calls the quick form takes one for what costs further starts
SYNCS = ("fsync", "fdatasync")


def setUpModule():
    tmp_in_memory()


class Died:
    """A run that was recorded whole, to tell how far one had come that was killed. Numbers of calls are not the same from
    run to run: uuids are random, and one falls on another page of the database."""

    def __init__(self, records):
        self.count = len(records)
        self._steps, self._syncs = steps(records), syncs(records)

    def same(self, records):
        """Whether the other run took the same steps until it was killed. Not so, now and then, where a busy machine has two
        threads commit together, or one after the other."""
        taken = steps(records)
        return taken == self._steps[:len(taken)]

    def synced(self, records):
        """The last commit was."""
        return syncs(records) == self._syncs > 0

    def begun(self, records):
        """The last commit had begun to be written."""
        after = [record.op for record in records if record.path.endswith(LOG)]
        return syncs(records) == self._syncs or syncs(records) == self._syncs - 1 and bool(after) and after[-1] not in SYNCS


def syncs(records):
    return sum(record.op in SYNCS and record.path.endswith(LOG) for record in records)


def steps(records):
    """Kinds of calls, the writes of one commit as one."""
    return [step for step, _ in itertools.groupby(kind(record) for record in records)]


def kind(record):
    return record.op, re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}-", "U", record.path)


def repeat(stage, done, op):
    """The call once more, as its caller would who has heard nothing."""
    recipe, sr, test = stage.recipe, stage.sr, stage.recipe.test
    try:
        stage.act(op)
    except Fault as fault:
        test.assertTrue(done and not op and fault.code in recipe.repeated, fault)
    recipe.final(sr)
    consistent(test, sr, recipe.strangers)


def settled(stage):
    consistent(stage.recipe.test, stage.sr, stage.recipe.strangers)
    return stage.recipe.done(stage.sr)


def unmoved(stage, n):
    if (n + SEED) % TURN:
        return
    before = picture(stage.sr)
    stage.lab.restart()
    stage.recipe.test.assertEqual(picture(stage.sr), before, "a second recovery changes something")


def killed(stage, action, n, op=None):
    """Whether the daemon died at the n-th call of the method."""
    stage.start()
    stage.lab.record()
    stage.lab.control.arm(action, n)
    try:
        stage.act(op)
    except BROKEN:
        stage.recipe.test.assertTrue(stage.lab.died(), stage.lab.log())
        return True
    stage.recipe.test.assertEqual(stage.lab.control.get("acted"), 0)
    return False


def once(stage, died, action, n, last):
    """One kill without an operation id. Whether the effect is there, None when that is not to be told."""
    test, recipe = stage.recipe.test, stage.recipe
    if not killed(stage, action, n):
        raise AssertionError(f"it does not come to call {n} of {died.count}")
    stage.lab.control.disarm()
    records = stage.lab.stop_recording()
    same = died.same(records)
    stage.lab.start()
    done = settled(stage)
    if done is not None:
        if same and died.synced(records):
            test.assertTrue(done, "what was committed is gone")
        if same and recipe.undone and not died.begun(records) and stage.row["effect"] == "medium" and not recipe.past:
            test.assertFalse(done, "what nobody can have heard of was kept")
        test.assertFalse(last and not done, "it was there after an earlier kill")
    repeat(stage, done, None)
    unmoved(stage, n)
    return done


def changes(records, i):
    """Whether what is to be read is another after this call."""
    if records[i].op in SYNCS:
        return False
    if records[i].op != "write" or not records[i].path.endswith(LOG):
        return True
    following = next((record for record in records[i + 1:] if record.path.endswith(LOG)), None)
    return following is None or following.op in SYNCS


def distinct(records):
    """Calls at which a kill leaves something else than at the call before."""
    return [n for n in range(1, len(records) + 1) if n == 1 or changes(records, n - 2)]


def second_deaths(recovery, n):
    """Where the recovery from the n-th kill is to die."""
    if not recovery:
        return ()
    return distinct(recovery) if DEEP else (1 + (n * 7) % len(recovery),)


def recovery_of(stage, action, n, op):
    """The calls that the start after this kill makes. The trees it left are saved as "killed"."""
    if not killed(stage, action, n, op):
        return []
    stage.lab.save("killed")
    stage.lab.record()
    stage.lab.control.arm()
    stage.lab.start()
    stage.lab.control.disarm()
    return stage.lab.stop_recording()


def died_in_the_middle(stage, op):
    """Saves, as "killed", the trees that a kill leaves when two thirds of the call's calls are made."""
    assert killed(stage, KILL, len(stage.survey(op)) * 2 // 3, op)
    stage.lab.control.disarm()
    stage.lab.save("killed")


def killed_again(stage, n, op, saved):
    """As killed by KILL; when that was saved it is put back."""
    if not saved:
        return killed(stage, KILL, n, op)
    stage.lab.end()
    stage.lab.control.disarm()
    stage.lab.restore(as_saved=True, name="killed")
    return True


def twice(stage, n, m, op, saved):
    """A kill, and one at the m-th call of the start that follows."""
    if not killed_again(stage, n, op, saved):
        raise AssertionError(f"it does not come to call {n}")
    stage.lab.control.arm(KILL, m)
    stage.lab.launch()
    if not stage.lab.wait_ready():
        stage.recipe.test.assertTrue(stage.lab.died(), stage.lab.log())
        stage.lab.control.disarm()
        stage.lab.start()
    stage.lab.control.disarm()
    repeat(stage, settled(stage), op)
    unmoved(stage, m)


def guarded(stage, failed, where, trial, *args):
    """The trial's answer; what goes wrong is written down."""
    try:
        return trial(*args)
    except Exception:
        failed.append((where, traceback.format_exc() + stage.lab.log()[-2000:]))
        stage.lab.end()
        return None


def kill_once(stage, failed):
    """Every call of the method; how many there are."""
    records = stage.survey()
    died, done, runs = Died(records), False, 0
    for n, record in enumerate(records, 1):
        for action in (KILL, KILL_HALF) if DEEP and record.op == "write" else (KILL,):
            now = guarded(stage, failed, f"call {n}: {record}", once, stage, died, action, n, done)
            done = done or bool(now)
            runs += 1
        if len(failed) >= ENOUGH:
            break
    return {"calls": died.count, "runs": runs}


def kill_twice(stage, failed):
    op = new_uuid()
    records = stage.survey(op)
    runs, recovery = 0, []
    for i, n in enumerate(distinct(records) if DEEP else range(1 + SEED % TURN, len(records) + 1, TURN)):
        where = f"call {n}: {records[n - 1]}"
        if DEEP or not recovery or i % 4 == 0:
            recovery = guarded(stage, failed, where, recovery_of, stage, KILL, n, op) or []
        for m in second_deaths(recovery, n):
            guarded(stage, failed, f"{where}, then {m} of {len(recovery)}", twice, stage, n, m, op, DEEP)
            runs += 1
            if len(failed) >= ENOUGH:
                return {"calls": len(records), "runs": runs}
    return {"calls": len(records), "runs": runs}


def swallow_some(stage, failed):
    """A kernel that lies: a call is said to be done and is not."""
    records = stage.survey()
    caught = tried = 0
    for n, record in enumerate(records, 1):
        if record.op not in ("write", "unlink", "rename", "link") or record.path.endswith(".lock"):
            continue
        tried += 1
        found = []
        guarded(stage, found, "", lied_to, stage, n)
        caught += bool(found)
    return {"tried": tried, "caught": caught}


def lied_to(stage, n):
    stage.start()
    stage.lab.control.arm(SWALLOW, n)
    stage.act()
    stage.lab.control.disarm()
    stage.lab.kill9()
    stage.lab.start()
    stage.recipe.test.assertIsNot(settled(stage), False, "acknowledged, and not done")
    stage.recipe.final(stage.sr)
    consistent(stage.recipe.test, stage.sr, stage.recipe.strangers)


class KillAtEveryCall(unittest.TestCase):
    maxDiff = None

    def all_of(self, judge, part, told, todo=None):
        began, totals = time.monotonic(), {"series": 0, "violations": 0}
        for name, counts, failed in each(judge, todo or series(), progress=figures.Progress(f"kill_calls-{part}")):
            for key, value in (counts or {}).items():
                totals[key] = totals.get(key, 0) + value
            totals["series"] += 1
            totals["violations"] += len(failed)
            if DEEP:
                print(f"  {name}: {counts}", flush=True)
            for where, trace in failed:
                with self.subTest(series=name, where=where):
                    self.fail(trace)
        print(f"{judge.__name__}: {totals}, {time.monotonic() - began:.0f} s", flush=True)
        if DEEP:
            figures.save("kill_calls", part, told, totals)
        return totals

    def test_the_matrix_has_every_changing_method(self):
        self.assertEqual({row["name"] for row in changing()}, {row["name"] for _, row, _ in series()})
        self.assertEqual({row["name"] for row in changing()}, set(RECIPES))

    def test_a_kill_at_any_call_loses_and_leaves_nothing(self):
        totals = self.all_of(kill_once, "once", "{series:,} series, {calls:,} calls, {runs:,} kills, {violations} violations")
        self.assertGreater(totals["runs"], 10 * totals["series"])

    def test_a_second_kill_inside_the_recovery_does_not_either(self):
        totals = self.all_of(kill_twice, "twice", "{series:,} series, {calls:,} calls, {runs:,} kills followed by one in "
                             "the recovery, {violations} violations")
        self.assertGreater(totals["runs"], 10 / TURN * totals["series"])

    def test_a_call_that_was_not_made_is_noticed(self):
        """This harness sees: most lies of the kernel about one call turn it red."""
        todo = [one for one in series() if one[0] == "file" and one[2].__name__ in
                ("VdiCreate", "VdiDelete", "VdiSnapshot")]
        totals = self.all_of(swallow_some, "lies", "of {tried} calls that were swallowed {caught} are noticed; the others "
                             "do not change what is seen", todo)
        self.assertGreater(totals["caught"], totals["tried"] / 2)


if __name__ == "__main__":
    unittest.main()
