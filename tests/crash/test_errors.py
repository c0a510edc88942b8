# SPDX-License-Identifier: LGPL-2.1-or-later
"""Errors of the medium and of the store's disk: ENOSPC, EIO and EROFS at every place where a changing call changes a
file or a directory, syncs and closes among them, once and for good; and at every such place of a start. (shim.c)

No success is silent: what was answered with success is there, also after kill -9 and a restart, and nothing it stands on
is a file whose sync failed. What was answered with a fault changed nothing, or is settled after the restart, and can be
asked for again. An error of the store ends the process (nobody knows then what is durable), one of a medium never does.

Places are told apart by call and kind of file (its name without uuids); the first or the last of each is tried, one day this
and one day that (SMAPI_SEED). Places in the state directory are the same for all methods: in the quick run only series of
STORE_SERIES try them. Deep (SMAPI_DEEP): every call of every series, and all three errors for good.
"""
import errno
import os
import re
import signal
import sys
import time
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import figures  # noqa: E402
from client import Fault  # noqa: E402
from lab import EVERY_DAY, SEED, new_uuid  # noqa: E402
from oracle import consistent, listed, series  # noqa: E402
from shim import ALL, BROKEN, ENOUGH, FAIL, FAIL_ON, HIDE, each, tmp_in_memory  # noqa: E402
from test_kill_calls import SYNCS, died_in_the_middle, repeat, settled  # noqa: E402

DEEP = figures.DEEP
STORE_SERIES = {("dummy", "VdiActivate"), ("dummy", "VdiDetach"), ("dummy", "VdiCreate"), ("file", "VdiDelete")}
RECOVERED = {("file", "VdiCreate"), ("file", "VdiSnapshot"), ("file", "VdiDeleteLeaf"), ("file", "VdiResize")}
NAMED = ("create", "create_empty", "mkdir", "symlink", "link", "rename", "unlink", "rmdir")
GROWS = ("write", "allocate", "create", "create_empty", "mkdir", "symlink", "link", "rename")  # may find no room


def setUpModule():
    tmp_in_memory()


def kind_of(record):
    """A call and the kind of file it is about."""
    path = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "U", record.path)
    return record.op, re.sub(r"place-[0-9a-f]{8}", "place", re.sub(r"(/|^)[0-9a-f]{8}-", r"\1X-", path))


def of_store(record):
    return record.path.startswith("state")


def places(records, with_store):
    """Numbers of the calls to be tried."""
    if DEEP:
        return [n for n, record in enumerate(records, 1) if with_store or not of_store(record)]
    found = {}
    for n, record in enumerate(records, 1):
        if with_store or not of_store(record):
            found.setdefault(kind_of(record), []).append(n)
    ends = (0, -1) if EVERY_DAY else (-(SEED % 2),)
    return sorted({numbers[end] for numbers in found.values() for end in ends})


def errors_of(record):
    """(action, error) a call may meet."""
    once = [errno.EIO, errno.ENOSPC] + ([errno.EROFS] if record.op in NAMED else [])
    ever = [errno.ENOSPC, errno.EROFS, errno.EIO] if DEEP else [errno.ENOSPC]
    return [(FAIL, e) for e in once] + [(FAIL_ON, e) for e in ever if record.op != "close"]


def survey(stage):
    stage.lab.control.set(closing=1)
    records = stage.survey()
    stage.lab.control.set(closing=0)
    return records


def still_there(stage, inode):
    found = {os.lstat(os.path.join(top, name)).st_ino for top, directories, files in os.walk(stage.lab.root)
             for name in directories + files}
    return inode in found


class Outcome:
    """Of a call during which others failed."""

    def __init__(self, stage, action, n, error):
        stage.start()
        lab, self.fault, self.broken = stage.lab, None, False
        lab.control.set(closing=1)
        lab.record()
        lab.control.arm(action, n, error)
        try:
            stage.act()
        except Fault as fault:
            self.fault = fault
        except BROKEN:
            self.broken = True
        acted = lab.control.get("acted")
        lab.control.disarm()
        lab.control.set(closing=0)
        records = lab.stop_recording()
        self.failed = [r for r in records if r.error]
        stage.recipe.test.assertGreater(acted, 0, "it did not come to this call")


def judge_broken(stage, outcome):
    test = stage.recipe.test
    status = stage.lab.end_status()
    test.assertEqual(status, -signal.SIGABRT, stage.lab.log()[-1000:])
    test.assertTrue(any(of_store(r) for r in outcome.failed), "an error of a medium ended the daemon")
    test.assertIn("aborting", stage.lab.log())


def judge_fault(stage, outcome, error):
    """Before any restart."""
    test, fault = stage.recipe.test, outcome.fault
    test.assertNotIn(fault.code, (143, 202, 1200), fault.text)
    if error == errno.ENOSPC and outcome.failed[0].op in GROWS:
        test.assertEqual(fault.code, 44, fault.text)
    if listed(stage.sr) is not None and serves(stage.sr):
        consistent(test, stage.sr, stage.recipe.strangers)


def serves(sr):
    """Not so after a failed sync: nothing is promised until it is attached again."""
    try:
        sr("sr_update")
        return True
    except Fault as fault:
        if fault.code != 47:
            raise
        return False


def judge_success(stage, outcome):
    test = stage.recipe.test
    test.assertIsNot(stage.recipe.done(stage.sr), False, "success, but nothing was done")
    for record in outcome.failed:
        if record.op in SYNCS and not of_store(record):
            test.assertFalse(still_there(stage, record.inode), f"success, although this failed: {record}")


def one_error(stage, action, n, error):
    """Fails the n-th call, judges at once and after a restart."""
    lab, test, recipe = stage.lab, stage.recipe.test, stage.recipe
    outcome = Outcome(stage, action, n, error)
    if outcome.broken:
        judge_broken(stage, outcome)
    elif outcome.fault:
        judge_fault(stage, outcome, error)
    else:
        judge_success(stage, outcome)
    if lab.process:
        lab.kill9()
    lab.start()
    done = settled(stage)
    if not outcome.broken and not outcome.fault:
        test.assertIsNot(done, False, "what was answered is gone")
    if outcome.fault and recipe.undone and not recipe.past:
        test.assertFalse(done, "a fault was the answer, and it was done all the same")
    repeat(stage, done, None)
    return "aborted" if outcome.broken else "fault" if outcome.fault else "success"


def fail_calls(stage, failed):
    """Every place of one series."""
    records = survey(stage)
    with_store = DEEP or (stage.kind, type(stage.recipe).__name__) in STORE_SERIES
    totals = {"trials": 0, "fault": 0, "success": 0, "aborted": 0}
    for n in places(records, with_store):
        for action, error in errors_of(records[n - 1]):
            where = f"{errno.errorcode[error]}{' for good' if action == FAIL_ON else ''} at call {n}: {records[n - 1]}"
            try:
                totals[one_error(stage, action, n, error)] += 1
            except Exception:
                failed.append((where, traceback.format_exc() + stage.lab.log()[-1500:]))
                stage.lab.end()
            totals["trials"] += 1
            if len(failed) >= ENOUGH:
                return totals
    return totals


def start_records(stage):
    stage.lab.restore(as_saved=True, name="killed")
    stage.lab.record()
    stage.lab.control.arm()
    stage.lab.start()
    stage.lab.control.disarm()
    records = stage.lab.stop_recording()
    stage.lab.kill9()
    return records


def one_start(stage, action, n, error, op):
    """A start during which the n-th call fails ends in order, or serves; the next is as if nothing had been."""
    lab, test = stage.lab, stage.recipe.test
    lab.restore(as_saved=True, name="killed")
    lab.control.arm(action, n, error)
    lab.launch()
    ready = lab.wait_ready()
    test.assertGreater(lab.control.get("acted"), 0, "it did not come to this call")
    lab.control.disarm()
    if ready:
        lab.kill9()
    else:
        test.assertIn(lab.end_status(), (71, -signal.SIGABRT), lab.log()[-1000:])
        test.assertRegex(lab.log(), r"state|store|smapid\.|make \S+/mount")
    lab.start()
    repeat(stage, settled(stage), op)
    lab.kill9()
    return "fault" if ready else "aborted"


def fail_starts(stage, failed):
    """Every place of a start with an open operation."""
    op = new_uuid()
    died_in_the_middle(stage, op)
    records = start_records(stage)
    totals = {"trials": 0, "fault": 0, "aborted": 0}
    for n in places(records, True):
        for action, error in errors_of(records[n - 1]):
            try:
                totals[one_start(stage, action, n, error, op)] += 1
            except Exception:
                failed.append((f"{errno.errorcode[error]} {action} at call {n} of the start: {records[n - 1]}",
                               traceback.format_exc() + stage.lab.log()[-1500:]))
                stage.lab.end()
            totals["trials"] += 1
            if len(failed) >= ENOUGH:
                return totals
    return totals


def hide_syncs(stage, failed):
    """As a program that does not look at what its syncs on the medium answer."""
    records = survey(stage)
    totals = {"hidden": 0, "noticed": 0}
    for n, record in enumerate(records, 1):
        if record.op not in SYNCS or of_store(record):
            continue
        totals["hidden"] += 1
        try:
            one_error(stage, HIDE, n, errno.EIO)
        except AssertionError as noticed:
            totals["noticed"] += "success, although this failed" in str(noticed)
            stage.lab.end()
    return totals


class Errors(unittest.TestCase):
    maxDiff = None

    def all_of(self, judge, part, told, todo):
        began, totals = time.monotonic(), {"series": 0, "violations": 0}
        for name, counts, failed in each(judge, todo, progress=figures.Progress(f"errors-{part}")):
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
            figures.save("errors", part, told, totals)
        return totals

    def test_no_success_is_silent_and_no_fault_leaves_half_of_it(self):
        totals = self.all_of(fail_calls, "calls", "{series:,} series, {trials:,} errors: {fault:,} answered with a fault, {success:,} "
                             "with success, {aborted:,} ended the process, {violations} violations", series())
        if ALL:
            self.assertGreater(min(totals["fault"], totals["success"], totals["aborted"]), 0)

    def test_a_start_that_meets_an_error_ends_or_serves(self):
        todo = [one for one in series() if (one[0], one[2].__name__) in RECOVERED]
        totals = self.all_of(fail_starts, "starts", "{series:,} series, {trials:,} errors of starts: {fault:,} served, {aborted:,} "
                             "ended, {violations} violations", todo)
        self.assertGreater(min(totals["fault"], totals["aborted"]), 0)

    def test_a_sync_whose_error_is_not_looked_at_is_noticed(self):
        todo = [one for one in series() if (one[0], one[2].__name__) in RECOVERED]
        totals = self.all_of(hide_syncs, "hidden", "of {hidden} sync errors hidden from the program {noticed} are noticed", todo)
        self.assertGreater(totals["noticed"], totals["hidden"] / 2)


if __name__ == "__main__":
    unittest.main()
