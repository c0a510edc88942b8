# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of the daemon with an SR of every type: at fault points, and at random moments while calls go to all of them at
once. What was acknowledged is there with its bytes, smapid's own check finds nothing, and once the SRs are detached nothing
of them is left on the host. SMAPI_SEED chooses what the quick form does, which is another part every day; the deep form
kills at each point that a call passes."""
import glob
import os
import random
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import kit  # noqa: E402
import killed  # noqa: E402
import life  # noqa: E402
from killed import BROKEN  # noqa: E402
from life import DEEP, SEED  # noqa: E402
from lab import KINDS, Lab, deep, fsck, rounds  # noqa: E402

LIMIT = 60    # more points than any of these acts passes
SAMPLES = 1   # acts of each type that the quick form kills
LOADED = 2.0  # seconds at most until a kill, once each type has had an answer
TOGETHER = len(KINDS) if DEEP else 3  # types under load at once
passed = {kind: set() for kind in KINDS}


class Crash(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        print(f"seed {SEED}", flush=True)
        kit.initiator()

    def setUp(self):
        self.lab = Lab()
        self.lab.START_SECONDS = 120
        self.addCleanup(self.lab.end)
        self.lab.start()
        self.chance = random.Random(f"{SEED} {self.id()}")
        self.hold()

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

    def each(self, do):
        """do(kind) of every type, or those of the day, whatever becomes of the others."""
        for kind in life.some(KINDS, self.id()):
            with self.subTest(type=kind):
                try:
                    do(kind)
                finally:
                    self.lab.disarm()
                    if not self.lab.alive():
                        self.lab.end()
                        self.lab.start()
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
            one.sr("sr_attach")  # it may have died between the two of a reattach
            one.release()
            one.settle()
        ours = {one.sr.uuid for one in lives}  # of one that failed before, enough was told
        self.assertEqual([found for found in fsck(self.lab, "--strict") if found["sr"] in ours | {""}], [])
        if left:
            for one in lives:
                one.sr("sr_detach")
            self.clean()
            for one in lives:
                one.sr("sr_attach")

    def at(self, one, name, act, n):
        """act, killed at the n-th point it passes, and judged; whether it passes so many."""
        point = self.killed_by(act, f"*:kill:{n}")
        if point:
            passed[one.sr.kind].add(point)
            self.lab.start()
            with self.subTest(type=one.sr.kind, act=name, n=n, point=point):
                self.judge(one)
        return bool(point)

    # Calls about disks.

    def acts(self, one):
        """Of a type, each a function to be called again and again."""
        first = self.ready(one)
        acts = [(f"create {form}", lambda form=form: one.create(form)) for form in one.disks.FORMATS]
        acts += [("use", lambda: one.use(first())), ("delete", lambda: one.delete(first())), ("reattach", one.reattach),
                 ("scan", one.scan)]
        if "VDI_RESIZE" in one.disks.offers and one.sr.layout != "lun":
            acts += [("resize", lambda: one.resize(first()))]
        if "VDI_CLONE" in one.disks.offers:
            acts += [(method, lambda method=method: one.fork(first(), method)) for method in ("vdi_snapshot", "vdi_clone")]
        if "VDI_RESET_ON_BOOT/2" in one.disks.offers:
            acts += [("reset", lambda: one.reset(first()))]
        return acts

    def ready(self, one):
        """A function: a disk that may be written, resized and forked, with contents; of other disks few are left."""
        def first():
            for vdi in one.disks_of_ours()[life.MOST:]:
                one.delete(vdi)
            for vdi in one.disks_of_ours():
                content = one.held[vdi]
                if not content.read_only and content.forks < life.LONGEST and content.size < life.LARGEST:
                    return vdi
            vdi = one.create()
            one.use(vdi)
            return vdi
        return first

    def some_points(self, kind):
        one = self.of(kind)
        for name, act in self.chance.sample(self.acts(one), SAMPLES):
            n = self.chance.randint(1, 12)
            while n and not self.at(one, name, act, n):
                n //= 2
        one.end()
        self.clean()

    def every_point(self, kind):
        one = self.of(kind)
        for name, act in self.acts(one):
            n = 1
            while self.at(one, name, act, n):
                n += 1
                self.assertLess(n, LIMIT, "it passes points without end")
        one.end()
        self.clean()

    def test_killed_at_some_points_all_is_whole(self):
        self.each(self.some_points)

    @deep
    def test_killed_at_every_point_all_is_whole(self):
        self.each(self.every_point)

    # Calls about SRs.

    def of_sr(self, kind, method, spec):
        made = []

        def new():
            made.append(self.lab.repository(kind))
            self.hold()
            return made[-1]

        point = killed.trial(self, self.lab, new, life.disks.of(self, kind).gone, method, spec)
        passed[kind] |= {point} - {None}
        return point

    def some_points_of_sr(self, kind):
        method, n = self.chance.choice(sorted(killed.BEFORE)), self.chance.randint(1, 8)
        while n and not self.of_sr(kind, method, f"*:kill:{n}"):
            n //= 2

    def every_point_of_sr(self, kind):
        for method in killed.BEFORE:
            for n in range(1, LIMIT):
                if not self.of_sr(kind, method, f"*:kill:{n}"):
                    break
            self.assertLess(n, LIMIT - 1, "it passes points without end")

    def test_an_sr_killed_at_some_points_leaves_nothing(self):
        self.each(self.some_points_of_sr)

    @deep
    def test_an_sr_killed_at_every_point_leaves_nothing(self):
        self.each(self.every_point_of_sr)

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

    def test_killed_at_random_under_load_all_is_whole(self):
        lives, kills = [], rounds(5)
        for kind in self.chance.sample(KINDS, min(TOGETHER, len(KINDS))):
            lives.append(life.of(self, self.lab.repository(kind), random.Random(self.chance.random())))
        self.hold()
        for one in lives:
            one.begin()
        for number in range(kills):
            self.loaded(lives)
            self.lab.start()
            with self.subTest(kill=number):
                self.judge(*lives, left=number == kills - 1 or DEEP)
        calls = {one.sr.kind: one.calls for one in lives}
        print(f"{kills} kills, calls acknowledged: {calls}", flush=True)
        for one in lives:
            with self.subTest(type=one.sr.kind):
                one.end()
        self.clean()


if __name__ == "__main__":
    unittest.main()
