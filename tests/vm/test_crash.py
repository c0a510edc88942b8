# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of the daemon with an SR of every type: at fault points, and at random moments while calls go to all of them at
once. What was acknowledged is there with its bytes, smapid's own check finds nothing, and once the SRs are detached nothing
of them is left on the host. SMAPI_SEED chooses what the quick form does, which is another part every day; the deep form
kills at each point that a call passes."""
import contextlib
import functools
import glob
import os
import random
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "e2e"), os.path.join(HERE, "..")]
import figures  # noqa: E402
import kit  # noqa: E402
import killed  # noqa: E402
import life  # noqa: E402
import places  # noqa: E402
from killed import BROKEN  # noqa: E402
from life import SEED  # noqa: E402
from lab import KINDS, Lab, deep, fsck, rounds  # noqa: E402

LIMIT = 60    # more points than any of these acts passes
MOST_POINTS = 9  # that a call about an SR passes, mostly
LOADED = 2.0  # seconds at most until a kill, once each type has had an answer
TOGETHER = len(KINDS) if life.DEEP else 2  # types under load at once
passed = {kind: set() for kind in KINDS}
counted = {}


class Crash(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        print(f"seed {SEED}", flush=True)
        kit.initiator()
        cls.lab = Lab()
        cls.lab.START_SECONDS = 120
        cls.addClassCleanup(cls.lab.end)

    def setUp(self):
        self.again()
        self.chance = random.Random(f"{SEED} {self.id()}")
        self.hold()

    def again(self):
        """The daemon runs, and at no point it dies."""
        self.lab.disarm()
        if not self.lab.alive():
            self.lab.end()
            self.lab.start()

    def hold(self):
        """What is held now, also of tests before that failed, is not ours."""
        self.before, self.names, self.links = kit.held(), os.listdir(self.lab.mounts), glob.glob("/dev/smapid/*/*")

    def clean(self):
        """Nothing of ours is held by this host."""
        kit.settle()
        self.assertEqual(kit.left(self.before), [])
        self.assertEqual(os.listdir(self.lab.mounts), self.names)
        self.assertEqual(set(glob.glob("/dev/smapid/*/*")) - set(self.links), set())

    def of(self, kind):
        one = life.of(self, self.lab.repository(kind), self.chance)
        self.hold()  # an SR's target is made with its place
        one.begin()
        return one

    def each(self, kinds, do):
        """do(kind), whatever becomes of the others."""
        for kind in kinds:
            with self.subTest(type=kind):
                try:
                    do(kind)
                finally:
                    self.again()
                    print(f"{kind}: {' '.join(sorted(passed[kind]))}", flush=True)

    def killed_by(self, act, spec):
        """Makes the calls; the point at which the daemon died, if it did."""
        self.lab.arm(spec)
        try:
            act()
        except BROKEN:
            if not self.lab.acted():  # then something else broke
                raise
            self.assertTrue(self.lab.died())
            return self.lab.acted()[-1]
        self.lab.disarm()
        return None

    def judge(self, *lives, left=True):
        """Of a daemon that has been started again. left: also what it holds once it has let go of the SRs."""
        for one in lives:
            one.attach()  # it may have died between the two of a reattach
            one.release()
            one.settle()
        ours = {one.sr.uuid for one in lives}  # of one that failed before, enough was told
        self.assertEqual([found for found in fsck(self.lab, "--strict") if found["sr"] in ours | {""}], [])
        if left:
            for one in lives:
                one.sr("sr_detach")
            self.clean()
            for one in lives:
                one.attach()

    def at(self, one, name, prepare, act, n, left=True):
        """act, killed at the n-th point it passes, and judged; whether it passes so many."""
        for vdi in one.disks_of_ours()[life.MOST:]:
            one.delete(vdi)
        words = prepare()
        point = self.killed_by(lambda: act(*words), f"*:kill:{n}")
        if point:
            passed[one.sr.kind].add(point)
            self.lab.start()
            self.trial("points", lambda: self.judge(one, left=left), type=one.sr.kind, act=name, n=n, point=point)
        return bool(point)

    @contextlib.contextmanager
    def counted(self, part):
        """One of those trials that the part of the figures counts."""
        count = counted.setdefault(part, {"kills": 0, "wrong": 0})
        count["kills"] += 1
        count["wrong"] += 1
        yield
        count["wrong"] -= 1

    def trial(self, part, judge, **keys):
        with self.subTest(**keys), self.counted(part):
            judge()

    def told(self, part, text, **values):
        print(part, counted[part], flush=True)
        if figures.DEEP:
            figures.save("vm_crash", part, text, {**counted[part], "types": " ".join(KINDS), **values})

    # Calls about disks.

    def acts(self, one):
        """Of a type, (name, what makes ready for it and gives its arguments, act), to be done again and again."""
        acts = [("reattach", tuple, one.reattach), ("scan", tuple, one.scan)]
        for form in one.disks.FORMATS:
            def ready(fit=lambda vdi: True, form=form):
                return self.ready(one, form, fit),

            acts += [(f"create {form}", tuple, functools.partial(one.create, form)), (f"use {form}", ready, one.use),
                     (f"delete {form}", ready, one.delete)]
            if "vdi_resize" in one.disks.offers and one.sr.layout != "lun":
                acts += [(f"resize {form}", functools.partial(ready, one.grows), one.resize)]
            if "vdi_clone" in one.disks.offers and form in one.disks.FORKED:
                acts += self.forks(one, form, functools.partial(ready, one.forked))
        return acts

    @staticmethod
    def forks(one, form, ready):
        def written():
            return [(vdi, one.written_over(vdi)) for vdi in ready()][0]

        acts = [(f"{method} {form}", ready, functools.partial(one.fork, method=method))
                for method in ("vdi_snapshot", "vdi_clone")]
        return acts + ([(f"reset {form}", written, one.reset)] if "vdi_reset" in one.disks.offers else [])

    @staticmethod
    def ready(one, form, fit):
        """A disk of this form with contents, that may be written and fits."""
        for vdi in one.disks_of_ours():
            if one.held[vdi].form == form and not one.held[vdi].read_only and fit(vdi):
                return vdi
        vdi = one.create(form)
        one.use(vdi)
        return vdi

    def told_by(self, prepare, act):
        """How many points it passes."""
        words = prepare()
        self.lab.arm("*:tell")
        before = len(self.lab.acted())
        act(*words)
        self.lab.disarm()
        return len(self.lab.acted()) - before

    def some_point(self, one):
        """Of one of its acts that passes any. What is left is told by the end of its SR."""
        for name, prepare, act in self.chance.sample(self.acts(one), len(self.acts(one))):
            points = self.told_by(prepare, act)
            if points:
                self.at(one, name, prepare, act, self.chance.randint(1, points), left=False)
                break

    def every_point(self, kind):
        one = self.of(kind)
        for act in self.acts(one):
            n = 1
            while self.at(one, *act, n):
                n += 1
                self.assertLess(n, LIMIT, "it passes points without end")
        one.end()
        self.clean()

    @deep
    def test_killed_at_every_point_all_is_whole(self):
        self.each(KINDS, self.every_point)
        self.told("points", "{kills} kills at {points} points in calls about disks, {types}; after {wrong} something was wrong",
                  points=len(set().union(*passed.values())))

    # Calls about SRs.

    def of_sr(self, kind, method, spec):
        made = []

        def new():
            made.append(self.lab.repository(kind))
            self.hold()
            return made[-1]

        def gone(sr):
            life.disks.of(self, kind).gone(sr)
            places.give_back(sr.uuid)

        point = killed.trial(self, self.lab, new, gone, method, spec, lambda: self.counted("srs"))
        passed[kind] |= {point} - {None}
        return point

    def some_points_of_sr(self, kind):
        method, n = self.chance.choice(sorted(killed.BEFORE)), self.chance.randint(1, MOST_POINTS)
        while n and not self.of_sr(kind, method, f"*:kill:{n}"):
            n //= 2

    def every_point_of_sr(self, kind):
        for method in killed.BEFORE:
            for n in range(1, LIMIT):
                if not self.of_sr(kind, method, f"*:kill:{n}"):
                    break
            self.assertLess(n, LIMIT - 1, "it passes points without end")

    def test_an_sr_killed_at_some_points_leaves_nothing(self):
        self.each(self.chance.sample(KINDS, 1), self.some_points_of_sr)

    @deep
    def test_an_sr_killed_at_every_point_leaves_nothing(self):
        self.each(KINDS, self.every_point_of_sr)
        self.told("srs", "{kills} kills at {points} points in calls about SRs, {types}; after {wrong} something was wrong",
                  points=len(set().union(*passed.values())))

    # All types at once.

    def busy(self, one, running, failures):
        try:
            while running.is_set():
                one.step()
        except BROKEN:
            pass
        except Exception as failure:  # told by the test
            failures.append(f"{one.sr.kind}: {failure!r}")

    def loaded(self, lives):
        """Calls go to all of them, until the daemon is killed."""
        running, failures = threading.Event(), []
        running.set()
        threads = [threading.Thread(target=self.busy, args=(one, running, failures)) for one in lives]
        for thread in threads:
            thread.start()
        before = {one: one.calls for one in lives}
        kit.eventually(lambda: failures or all(one.calls > before[one] for one in lives), seconds=300, often=0.02)
        time.sleep(self.chance.uniform(0, LOADED))
        self.lab.kill9()
        running.clear()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_killed_at_random_under_load_and_at_some_points_all_is_whole(self):
        lives, kills = [], rounds(5)
        kinds = life.some(KINDS, self.id())
        for kind in self.chance.sample(kinds, min(TOGETHER, len(kinds))):
            lives.append(life.of(self, self.lab.repository(kind), random.Random(self.chance.random())))
        self.hold()
        for one in lives:
            one.begin()
        for number in range(kills):
            self.loaded(lives)
            self.lab.start()
            self.trial("kills", lambda: self.judge(*lives, left=number % 5 == 4), kill=number)
            calls = {one.sr.kind: one.calls for one in lives}
            print(f"{number + 1} kills, calls acknowledged: {calls}", flush=True)
        self.told("kills", "{kills} kills under calls to SRs of {types}, {calls} of them acknowledged; after {wrong} of the "
                  "kills something was wrong", calls=sum(calls.values()))
        for one in lives:
            with self.subTest(type=one.sr.kind):
                if life.DEEP or one is lives[0]:
                    self.some_point(one)
                print(f"{one.sr.kind}: {' '.join(sorted(passed[one.sr.kind]))}", flush=True)
                one.end()
        self.clean()


if __name__ == "__main__":
    unittest.main()
