# SPDX-License-Identifier: LGPL-2.1-or-later
"""One owner: two servers on one medium. The second finds the claim of the first and is refused, naming it, whatever died
in between; it becomes the owner only by smapid --take-over, of several at once only one does, and then the first, should
it come back, writes nothing."""
import contextlib
import http.client
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import (MIB, Fault, Lab, LabTest, Repository, fsck, new_uuid, owner_of, rounds,  # noqa: E402
                 take_over, take_over_run)
if os.environ.get("SMAPI_GUEST"):
    import places  # (lab.py has put its directory in the path)

KINDS = tuple(os.environ.get("SMAPI_OWNED", "file lvm").split())
SHARED = {"lvm", "nfs", "lvmoiscsi"}  # of which an owner may be at work elsewhere: 47, not 16
CREATE = ("intent_committed", "sr_create_made", "sr_create_marked", "effects_done", "result_committed")
ATTACH = ("intent_committed", "mount_point_made", "mount_done", "effects_done", "result_committed")
TAKE = ("intent_committed", "claim_written", "claim_linked", "claim_published", "effects_done", "result_committed")
# Tests that are of every kind in the quick form too.
ALL_KINDS = ("test_a_take_over_that_died_is_whole_or_absent", "test_the_old_owner_writes_nothing_when_it_comes_back",
             "test_of_two_that_take_over_at_once_one_does")
in_guests_deep = unittest.skipIf(os.environ.get("SMAPI_GUEST") and not os.environ.get("SMAPI_DEEP"),
                                 "takes minutes in a guest: tests/run --deep")
BROKEN = (OSError, http.client.HTTPException)


def audit(lab):
    """Lines of the audit trail of a server that does not run: who, what, detail."""
    with contextlib.closing(sqlite3.connect(f"file:{lab.state}/smapid.db?mode=ro", uri=True)) as database:
        return [row for row in database.execute("SELECT who, what, detail FROM audit ORDER BY seq")]


def server_of(lab):
    """The uuid of a server that does not run."""
    with contextlib.closing(sqlite3.connect(f"file:{lab.state}/smapid.db?mode=ro", uri=True)) as database:
        return database.execute("SELECT server FROM meta").fetchone()[0]


def medium(sr):
    """What stands on the medium, as another program reads it."""
    if "device" in sr.config:
        with open(sr.config["device"], "rb", buffering=0) as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return device.read(12 * MIB)
    root = sr.config.get("location") or \
        f"{places.server('nfs', None).root}{sr.config['serverpath']}/{sr.uuid}"
    found = {}
    for name in sorted(os.listdir(root)):
        with open(os.path.join(root, name), "rb") as one:
            found[name] = one.read()
    return found


class Owner(LabTest):
    @classmethod
    def setUpClass(cls):
        cls.first, cls.second, cls.third = Lab(), Lab(), Lab()
        for lab in (cls.first, cls.second, cls.third):
            lab.START_SECONDS = 120  # three of them on one processor
            cls.addClassCleanup(lab.close)
            lab.start(lease__renew=1, lease__warn=2, lease__stop=3, lease__ttl=4, lease__watchdog=1, lease__dead=6)
            lab.server = None

    def setUp(self):
        for lab in (self.first, self.second, self.third):
            lab.disarm()
            self.up(lab)

    def up(self, lab):
        if not lab.alive():
            lab.end()
            lab.start(lease__renew=1, lease__warn=2, lease__stop=3, lease__ttl=4, lease__watchdog=1, lease__dead=6)

    def down(self, lab):
        if lab.alive():
            lab.stop()

    def name_of(self, lab):
        if lab.server is None:
            self.down(lab)
            lab.server = server_of(lab)
            self.up(lab)
        return lab.server

    def loop(self):
        image = tempfile.NamedTemporaryFile(dir="/var/tmp")  # pylint: disable=consider-using-with
        image.truncate(256 * MIB)
        device = subprocess.run(["losetup", "-f", "--show", image.name], check=True, capture_output=True,
                                text=True).stdout.strip()
        self.addCleanup(image.close)
        self.addCleanup(subprocess.run, ["losetup", "-d", device], check=True)
        return device

    def place(self, kind):
        """An SR of the first server that the others reach too."""
        if os.environ.get("SMAPI_GUEST"):
            return self.first.repository(kind, client=self.first.unix("xapi"))
        if kind == "lvm":
            return Repository(self.first.unix("xapi"), "lvm", new_uuid(), {"device": self.loop()})
        place = tempfile.mkdtemp(prefix="smapi-owned-")
        self.addCleanup(subprocess.run, ["rm", "-rf", place], check=True)
        return Repository(self.first.unix("xapi"), "file", new_uuid(), {"location": f"{place}/sr"})

    def media(self):
        for kind in KINDS:
            if kind == KINDS[0] or os.environ.get("SMAPI_DEEP") or self._testMethodName in ALL_KINDS:
                yield kind, self.place(kind)
                self.setUp()

    @contextlib.contextmanager
    def not_the_owner(self, kind, lab):
        with self.refused(47 if kind in SHARED else 16, f"belongs to server {self.name_of(lab)}", "since 2",
                          "--take-over"):
            yield

    def killed(self, lab, call, point):
        """Whether the point was reached; the server is dead then."""
        lab.arm(f"{point}:kill")
        with contextlib.suppress(*BROKEN, Fault):
            call()
        lab.disarm()
        if not lab.acted():
            return False
        self.assertTrue(lab.died())
        return True

    @in_guests_deep
    def test_the_second_server_is_refused_and_told_whose_it_is(self):
        for kind, sr in self.media():
            sr.made()
            there = sr.by(self.second.unix("xapi"))
            before = medium(sr)
            with self.not_the_owner(kind, self.first):
                there("sr_attach")
            for more in ({"adopt": "true"} if kind != "lvm" else {},):
                with self.not_the_owner(kind, self.first):
                    there("sr_attach", device_config={**sr.config, **more})
            with self.refused(56 if kind == "lvm" else 42):
                there("sr_create", "0")
            there("sr_delete")  # an SR that it does not know: nothing to do, and nothing done
            self.assertEqual(medium(sr), before)
            self.assertEqual(owner_of(self.second, sr), self.name_of(self.first))

    @in_guests_deep
    def test_a_claim_survives_the_death_of_its_server_at_every_step(self):
        for kind, sr in self.media():
            reached = 0
            for point in CREATE + ATTACH:
                one = self.place(kind)
                if point in ATTACH and point not in CREATE:
                    one("sr_create", "0")
                if not self.killed(self.first, one.made, point):
                    one("sr_detach")
                    one("sr_delete")
                    continue
                reached += 1
                there = one.by(self.second.unix("xapi"))
                claimed = False
                try:
                    there("sr_attach")
                except Fault as fault:
                    claimed = "belongs to server" in fault.text
                    self.assertIn(fault.code, (47, 16, 92, 61, 103), fault.text)
                else:
                    self.fail(f"{point}: the second server took it")
                self.up(self.first)
                with contextlib.suppress(Fault):
                    one("sr_create", "0")
                one("sr_attach")
                if claimed:
                    with self.not_the_owner(kind, self.first):
                        there("sr_attach")
                one("sr_detach")
                one("sr_delete")
            self.assertGreater(reached, 3)

    @in_guests_deep
    def test_a_take_over_names_the_old_owner_and_leaves_a_line(self):
        for kind, sr in self.media():
            sr.made()
            vdi = sr.disk(4 * MIB, "label")
            first = self.name_of(self.first)
            self.down(self.first)
            there = sr.by(self.second.unix(sr.client.dialect))
            status, told, why = take_over_run(self.second, sr, "--owner", new_uuid(), "--reason", "a guess")
            self.assertEqual((status, told), (1, ""))
            self.assertIn(f"belongs to server {first}", why)
            self.assertEqual(take_over_run(self.second, sr, "--owner", first)[0], 71)  # no reason
            told = take_over(self.second, sr, reason="it burnt <down> & out")
            self.assertRegex(told, f"belonged to server {first}, since 2")
            self.assertIn("belongs to this server", take_over_run(self.second, sr, known=True)[1])
            there("sr_attach")
            self.assertEqual(there.contents()[vdi]["label"], "label")
            self.down(self.second)
            lines = [line for line in audit(self.second) if line[1].startswith("take_over") and sr.uuid in line[2]]
            self.assertEqual([line[:2] for line in lines], [("local", "take_over_begin"), ("local", "take_over")])
            for line in lines:
                self.assertIn(f"owner={first} since=2", line[2])
                self.assertIn("it burnt <down> & out", line[2])
            self.up(self.second)
            self.assertEqual(there.contents()[vdi]["label"], "label")

    @in_guests_deep
    def test_nobody_writes_before_who_held_a_lease_must_be_dead(self):
        kind = KINDS[0]
        if kind == "lvm" and not os.environ.get("SMAPI_GUEST"):
            self.skipTest("attaches disks, which wants a kernel with device-mapper")
        sr = self.place(kind)
        vdi = sr.made().disk()
        other = self.place(kind).by(self.second.unix()).made()
        mine = other.disk()
        take_over(self.second, sr)
        there = sr.by(self.second.unix())
        there("sr_attach")
        there("vdi_attach", "true", vdi_uuid=vdi)
        with self.refused(24, "taken over"):
            there("vdi_activate", "true", vdi_uuid=vdi)
        other.activated(mine)  # other repositories of the server are as they were
        other.released(mine)
        self.second.kill9()
        self.up(self.second)
        with self.refused(24, "taken over"):
            there("vdi_activate", "true", vdi_uuid=vdi)
        for _ in range(100):
            try:
                there("vdi_activate", "true", vdi_uuid=vdi)
                break
            except Fault as fault:
                self.assertEqual(fault.code, 24, fault.text)
                threading.Event().wait(0.2)
        else:
            self.fail("never activated")
        there.released(vdi)

    def test_the_old_owner_writes_nothing_when_it_comes_back(self):
        for kind, sr in self.media():
            vdi = sr.made().disk()
            there = sr.by(self.second.unix(sr.client.dialect))
            take_over(self.second, sr)
            before = medium(sr)
            for method, *args in (["vdi_create", str(4 * MIB)], ["sr_scan"]):  # it ran all the time
                with self.refused(47, self.name_of(self.second) if method else ""):
                    sr(method, *args)
            self.first.kill9()
            self.up(self.first)
            for method, args, keys in (("sr_attach", [], {}), ("vdi_create", [str(4 * MIB)], {}), ("sr_scan", [], {}),
                                       ("vdi_delete", [], {"vdi_uuid": vdi}), ("vdi_snapshot", [], {"vdi_uuid": vdi})):
                with self.subTest(method=method), self.refused(47 if kind in SHARED or method != "sr_attach" else 16):
                    sr(method, *args, **keys)
            self.assertEqual(medium(sr), before)
            there("sr_attach")
            self.assertIn(vdi, there.contents())
            self.assertEqual([row for row in fsck(self.second, sr.uuid)], [])
            there("vdi_delete", vdi_uuid=vdi)
            there("sr_detach")
            there("sr_delete")

    @in_guests_deep
    def test_the_old_owner_gets_it_back_the_same_way(self):
        for kind, sr in self.media():
            vdi = sr.made().disk()
            take_over(self.second, sr)
            self.assertEqual(owner_of(self.first, sr, known=True), self.name_of(self.second))
            take_over(self.first, sr, known=True)
            sr("sr_attach")
            self.assertIn(vdi, sr.contents())
            with self.not_the_owner(kind, self.first):
                sr.by(self.second.unix("xapi"))("sr_attach")

    def test_of_two_that_take_over_at_once_one_does(self):
        for kind, sr in self.media():
            sr.made()
            owner, labs = self.name_of(self.first), (self.second, self.third)
            for lab in labs:
                self.name_of(lab)
            for _ in range(rounds(3 if kind == "file" else 1)):
                ends = {}

                def take(lab, ends=ends, owner=owner):
                    ends[lab] = take_over_run(lab, sr, "--owner", owner, "--reason", "a race")
                threads = [threading.Thread(target=take, args=(lab,)) for lab in labs]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                winners = [lab for lab in labs if ends[lab][0] == 0]
                self.assertEqual(len(winners), 1, ends)
                winner, loser = winners[0], labs[winners[0] is self.second]
                self.assertIn(self.name_of(winner), ends[loser][2])
                sr.by(winner.unix("xapi"))("sr_attach")
                with self.not_the_owner(kind, winner):
                    sr.by(loser.unix("xapi"))("sr_attach")
                sr.by(winner.unix("xapi"))("sr_detach")
                take_over(self.first, sr, known=True)
                owner = self.name_of(self.first)

    @in_guests_deep
    def test_a_take_over_that_died_is_whole_or_absent(self):
        for kind, sr in self.media():
            sr.made()
            first, reached = self.name_of(self.first), []
            second = self.name_of(self.second)
            for point in (point for point in TAKE if kind != "lvm" or point != "claim_linked"):
                def call(point=point, sr=sr):
                    status, _, why = take_over_run(self.second, sr, "--owner", first, "--reason", point)
                    self.assertEqual(status, 71, why)
                if not self.killed(self.second, call, point):
                    continue
                reached.append(point)
                seen = owner_of(self.third, sr)
                self.up(self.second)
                self.assertEqual(seen, owner_of(self.third, sr), "a restart changed whose it is")
                taken = seen == second
                self.assertEqual(taken, TAKE.index(point) >= (2 if kind != "lvm" else 3), point)
                there = sr.by(self.second.unix("xapi"))
                if taken:
                    there("sr_attach")
                    there("sr_detach")
                    with self.refused(47, second):
                        sr("sr_scan")
                    take_over(self.first, sr, known=True)
                    sr("sr_attach")
                else:
                    sr("sr_scan")
                    with self.not_the_owner(kind, self.first):
                        there("sr_attach")
                self.down(self.second)
                lines = [what for _, what, detail in audit(self.second) if sr.uuid in detail and point in detail]
                self.assertEqual(lines, ["take_over_begin"] + ["take_over"] * taken)
                self.up(self.second)
            self.assertEqual(reached, [point for point in TAKE if kind != "lvm" or point != "claim_linked"])

    @in_guests_deep
    def test_it_is_done_without_a_daemon_too(self):
        for kind, sr in self.media():
            vdi = sr.made().disk()
            first = self.name_of(self.first)
            self.down(self.first)
            self.down(self.second)
            self.assertEqual(owner_of(self.second, sr), first)
            self.assertIn(first, take_over(self.second, sr))
            self.assertIn(("local", "take_over"), [line[:2] for line in audit(self.second) if sr.uuid in line[2]])
            self.up(self.second)
            there = sr.by(self.second.unix(sr.client.dialect))
            there("sr_attach", device_config={})
            self.assertIn(vdi, there.contents())

    @in_guests_deep
    def test_who_is_no_administrator_may_not(self):
        sr = self.place(KINDS[0]).made()
        for client in (self.second.operator(), self.second.host(new_uuid()), self.second.reader()):
            with self.refused(2001):
                sr.by(client)("smapi.sr_take_over", owner=self.name_of(self.first), reason="mine")

    @in_guests_deep
    def test_types_without_a_claim_have_no_owner(self):
        sr = self.first.repository("dummy").made()
        with self.refused(38):
            sr("smapi.sr_take_over", owner=new_uuid(), reason="none")


class Adoption(Owner):
    """Of a directory that another manager left, by two servers at once."""

    @in_guests_deep
    def test_of_two_that_adopt_at_once_one_does(self):
        for _ in range(rounds(3)):
            place = tempfile.mkdtemp(prefix="smapi-owned-")
            self.addCleanup(subprocess.run, ["rm", "-rf", place], check=True)
            with open(f"{place}/{new_uuid()}.raw", "wb") as image:
                image.truncate(2 * MIB)
            uuid, ends = new_uuid(), {}

            def adopt(lab, uuid=uuid, ends=ends, place=place):
                try:
                    Repository(lab.unix(), "file", uuid, {"location": place})("sr_attach")
                    ends[lab] = 0
                except Fault as fault:
                    ends[lab] = fault.code
            threads = [threading.Thread(target=adopt, args=(lab,)) for lab in (self.first, self.second)]
            random.shuffle(threads)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(sorted(ends.values())[0], 0, ends)
            self.assertIn(sorted(ends.values())[1], (16, 47), ends)


for name in [name for name in dir(Owner) if name.startswith("test_")]:
    setattr(Adoption, name, None)

if __name__ == "__main__":
    unittest.main()
