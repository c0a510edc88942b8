# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crash matrix, computed from smapid --describe: every changing method of every type, killed at every fault point it
passes, started again and judged; then killed inside that recovery too, as often as it passes a point; then with an
error at each instead."""
import http.client
import os
import sys
import traceback
import unittest
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import POINTS_IN_GUESTS, Fault, Lab, Pki, describe, each_day, new_uuid  # noqa: E402
from oracle import RECIPES, changing, consistent, picture, series  # noqa: E402

BROKEN = (OSError, http.client.HTTPException)
IN_RECOVERY = {"recovery_before_op", "recovery_after_op"}
LABS = 2   # at a time
LIMIT = 60  # more points than any call passes
ENOUGH = 3  # failures of one series


def points():
    return {row["name"] for row in describe()["points"]}


class Trial:
    """One call on an SR of its own, during which the n-th point that is passed acts."""

    def __init__(self, test, lab, rival, kind, row, recipe, n):
        self.test, self.lab, self.row, self.n = test, lab, row, n
        self.op = self.point = None
        self.sr = lab.repository(kind)
        self.recipe = recipe(test, rival)
        self.recipe.prepare(self.sr)

    def passes(self):
        """Makes the call; whether the daemon died of it."""
        self.lab.arm(f"*:kill:{self.n}")
        try:
            self.recipe.act(self.sr, self.op)
        except BROKEN:
            self.test.assertTrue(self.lab.died(), "the connection broke but no point killed")
            self.point = self.lab.acted()[-1]
            return True
        self.lab.disarm()
        return False

    def settled(self):
        """After the restart: whole or absent, as the point's place before or after the commit demands."""
        consistent(self.test, self.sr, self.recipe.strangers)
        done = self.recipe.done(self.sr)
        if done is not None:
            if self.point == "result_committed":
                self.test.assertTrue(done, "what was committed is gone")
            elif self.sr.layout == "file" and self.point in self.recipe.past:
                self.test.assertTrue(done, "what was past the point of no return was undone")
            elif self.recipe.undone and not self.op:
                self.test.assertFalse(done, "what nobody can have heard of was kept")
        return done

    def repeat(self, done):
        try:
            self.recipe.act(self.sr, self.op)
        except Fault as fault:
            self.test.assertTrue(done and not self.op and fault.code in self.recipe.repeated, fault)
        self.recipe.final(self.sr)
        consistent(self.test, self.sr, self.recipe.strangers)

    def unmoved(self):
        """A second restart changes nothing."""
        before = picture(self.sr)
        self.lab.restart()
        self.test.assertEqual(picture(self.sr), before)


class Points(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        host = new_uuid()
        Pki.shared().identity("host", host)  # once, before there are threads
        cls.rival = host

    @each_day
    def test_each_changing_method_has_a_recipe(self):
        self.assertEqual({row["name"] for row in changing()}, set(RECIPES))

    def one_series(self, kind, row, recipe, judge):
        """Trials at the first, second … point the call passes, until judge(trial) says that it passed no more. Returns
        the points and what failed."""
        passed, failed = set(), []
        lab = Lab(in_memory=True)
        try:
            lab.start()
            rival = lab.host(self.rival)
            for n in range(1, LIMIT):
                trial = None
                try:
                    trial = Trial(self, lab, rival, kind, row, recipe, n)
                    if not judge(trial):
                        return passed, failed
                    passed.add(trial.point)
                except Exception:  # all that goes wrong is told, and the next point tried
                    failed.append((trial and trial.point or n, traceback.format_exc()))
                    if not trial or len(failed) > ENOUGH:
                        return passed, failed
                    lab.end()
                    lab.disarm()
                    lab.start()
            failed.append((LIMIT, "it passes points without end"))
            return passed, failed
        finally:
            lab.disarm()
            lab.close()

    def each(self, judge):
        """All series, several at a time. The points that were passed."""
        passed, todo = set(), series()
        with ThreadPoolExecutor(LABS) as pool:
            outcomes = pool.map(lambda one: self.one_series(*one, judge), todo)
            for (kind, row, recipe), (points_passed, failed) in zip(todo, outcomes):
                passed |= points_passed
                for point, trace in failed:
                    with self.subTest(kind=kind, method=row["name"], recipe=recipe.__name__, point=point):
                        self.fail(trace)
        return passed

    @staticmethod
    def unpassed(passed):
        here = {name for name in points() if not name.startswith(POINTS_IN_GUESTS)}
        return here - IN_RECOVERY - passed

    @each_day
    def test_kill_at_every_point(self):
        def judge(trial):
            if not trial.passes():
                return False
            trial.lab.start()
            trial.repeat(trial.settled())
            trial.unmoved()
            return True

        self.assertEqual(self.unpassed(self.each(judge)), set(), "points that no call passes")

    def test_kill_again_inside_the_recovery(self):
        """At its first point, then at the second of what is left to recover, until it comes to its end."""
        inside = set()

        def judge(trial):
            trial.op = new_uuid()
            if not trial.passes():
                return False
            for n in range(1, LIMIT):
                trial.lab.arm(f"*:kill:{n}")
                trial.lab.launch()
                if trial.lab.wait_ready():
                    break
                self.assertTrue(trial.lab.died())
                inside.update(trial.lab.acted())
            self.assertFalse(n == 1 and trial.row["effect"] == "medium" and trial.point != "result_committed",
                             "an open operation was not recovered")
            trial.lab.disarm()
            trial.repeat(trial.settled())
            trial.unmoved()
            return True

        self.each(judge)
        self.assertLessEqual(IN_RECOVERY, inside)

    def errors(self, action, judge_fault):
        """An error past the point of no return may still end in success; then the effect must be there."""
        faults = []

        def judge(trial):
            trial.lab.arm(f"*:{action}:{trial.n}")
            before = len(trial.lab.acted())
            try:
                trial.recipe.act(trial.sr)
                fault = None
            except Fault as raised:
                fault = raised
            trial.lab.disarm()
            acted = trial.lab.acted()[before:]
            if not acted:
                self.assertIsNone(fault)
                return False
            trial.point = f"{action} at {acted[0]}"
            if fault:
                judge_fault(fault)
                faults.append(fault)
                self.assertTrue(trial.lab.alive(), trial.lab.log())
                trial.repeat(trial.settled())
                trial.unmoved()
            else:
                consistent(self, trial.sr, trial.recipe.strangers)
                self.assertIsNot(trial.recipe.done(trial.sr), False, "success, but nothing was done")
            return True

        self.each(judge)
        self.assertNotEqual(faults, [])

    def test_an_io_error_is_a_fault_that_leaves_nothing_half_made(self):
        self.errors("eio", lambda fault: self.assertNotIn(fault.code, (44, 143), fault.text))

    def test_a_full_medium_is_44_and_leaves_nothing_half_made(self):
        self.errors("enospc", lambda fault: self.assertEqual(fault.code, 44, fault.text))


if __name__ == "__main__":
    unittest.main()
