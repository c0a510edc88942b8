# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crash matrix: every fault point × every changing method × every type, computed from smapid --describe. The daemon is
killed at the point, started again, and the oracle looks; then it is killed inside that recovery too."""
import http.client
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import KINDS, Fault, Lab, describe, new_uuid, type_row  # noqa: E402
from oracle import RECIPES, consistent, picture  # noqa: E402

BROKEN = (OSError, http.client.HTTPException)
IN_RECOVERY = ("recovery_before_op", "recovery_after_op")


def points():
    return [row["name"] for row in describe()["points"] if row["name"] not in IN_RECOVERY]


def changing(kind):
    """Methods that change something and that the type offers."""
    return [row for row in describe()["methods"]
            if row["effect"] != "reads" and (not row["capability"] or row["capability"] in type_row(kind)["offers"])]


class Trial:
    """One method on an SR of its own, in a daemon armed with one point."""

    def __init__(self, test, lab, rival, kind, row, point):
        self.test, self.lab, self.row, self.point = test, lab, row, point
        self.sr = lab.repository(kind)
        self.recipe = RECIPES[row["name"]](test, rival)
        self.recipe.prepare(self.sr)
        self.op = None

    def passes(self):
        """Makes the call; whether the daemon died of it."""
        try:
            self.recipe.act(self.sr, self.op)
        except BROKEN:
            self.test.assertTrue(self.lab.died(), "the connection broke but the point did not kill")
            return True
        return False

    def settled(self):
        """After the restart: whole or absent, as the point's place before or after the commit demands."""
        consistent(self.test, self.sr, self.recipe.strangers)
        done = self.recipe.done(self.sr)
        if done is not None:
            if self.point == "result_committed":
                self.test.assertTrue(done, "what was committed is gone")
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

    def setUp(self):
        self.assertEqual({row["name"] for row in describe()["methods"] if row["effect"] != "reads"}, set(RECIPES),
                         "each changing method has a recipe")

    def each(self, action, judge):
        """Arms each point with the action and lets judge(trial) make every call and say whether it passed the point.
        Returns the names of points that were passed."""
        passed = set()
        for kind in KINDS:
            for point in points():
                lab = Lab()
                try:
                    lab.start()
                    rival = lab.host(new_uuid())
                    trials = [Trial(self, lab, rival, kind, row, point) for row in changing(kind)]
                    lab.restart(point=f"{point}:{action}")
                    for trial in trials:
                        hit = True  # also when the judge fails
                        with self.subTest(kind=kind, point=point, method=trial.row["name"]):
                            hit = judge(trial)
                            passed |= {point} if hit else set()
                        if hit:
                            lab.end()
                            lab.start(point=f"{point}:{action}")
                    lab.end()
                finally:
                    lab.close()
        return passed

    def test_kill_at_every_point(self):
        def judge(trial):
            if not trial.passes():
                return False
            trial.lab.start()
            trial.repeat(trial.settled())
            trial.unmoved()
            return True

        passed = self.each("kill", judge)
        self.assertEqual(set(points()) - passed, set(), "points that no call passes")

    def test_kill_again_inside_the_recovery(self):
        inside = set()

        def judge(trial):
            trial.op = new_uuid()
            if not trial.passes():
                return False
            for point in IN_RECOVERY:
                trial.lab.launch(point=f"{point}:kill")
                if trial.lab.wait_ready():
                    self.assertFalse(trial.row["effect"] == "medium" and trial.point != "result_committed",
                                     f"an open operation was not recovered through {point}")
                    trial.lab.kill9()
                else:
                    self.assertTrue(trial.lab.died())
                    inside.add(point)
            trial.lab.start()
            trial.repeat(trial.settled())
            trial.unmoved()
            return True

        self.each("kill", judge)
        self.assertEqual(inside, set(IN_RECOVERY))

    def errors(self, action, judge_code):
        """An error past the point of no return may still end in success; then the effect must be there."""
        faults = []

        def judge(trial):
            try:
                trial.recipe.act(trial.sr)
            except Fault as fault:
                judge_code(fault)
                faults.append(fault)
                self.assertTrue(trial.lab.alive(), trial.lab.log())
                trial.point = f"{action} at {trial.point}"
                trial.repeat(trial.settled())
                trial.unmoved()
            else:
                consistent(self, trial.sr, trial.recipe.strangers)
                self.assertIsNot(trial.recipe.done(trial.sr), False, "success, but nothing was done")
            return True

        self.each(action, judge)
        self.assertNotEqual(faults, [])

    def test_an_io_error_is_a_fault_that_leaves_nothing_half_made(self):
        self.errors("eio", lambda fault: self.assertNotIn(fault.code, (44, 143), fault.text))

    def test_a_full_medium_is_44_and_leaves_nothing_half_made(self):
        self.errors("enospc", lambda fault: self.assertEqual(fault.code, 44, fault.text))


if __name__ == "__main__":
    unittest.main()
