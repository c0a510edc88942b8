# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sessions of hosts, leases that are broken, and what a restart of either side does to them."""
import contextlib
import os
import shutil
import sqlite3
import time
import unittest
from http.client import HTTPException

from client import plain_body
from lab import FAKETIME, SANITIZED, Fault, Lab, LabTest, boot_id, new_uuid

PATIENCE = 4 if SANITIZED else 2  # with a machine that does other things too
SECONDS = 30  # how long something may take that is to happen soon
SHORT = {"lease__renew": 1, "lease__warn": 2, "lease__stop": 2, "lease__ttl": 3, "lease__watchdog": 1, "lease__dead": 6}


def eventually(question):
    """Asks until the answer is true."""
    deadline = time.monotonic() + SECONDS
    while not question():
        if time.monotonic() > deadline:
            raise AssertionError("it never came true")
        time.sleep(0.05)


class Agent:
    """The program on a host that renews, in one boot."""

    def __init__(self, client, boot=None):
        self.client, self.boot, self.nonce = client, boot or new_uuid(), new_uuid()

    @property
    def words(self):
        return {"host_boot_id": self.boot, "nonce": self.nonce}

    def register(self, watchdog=True):
        return self.client.call("smapi.host_register", path="/RPC2", watchdog=watchdog, **self.words)

    def renew(self):
        return self.client.call("smapi.host_renew", path="/RPC2", **self.words)


class Hosts(LabTest):
    """Each test has hosts of its own, so that one's sessions are nothing to another's."""

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start(**cls.settings)

    def setUp(self):
        self.names = new_uuid(), new_uuid()
        self.hosts = [self.lab.host(name) for name in self.names]
        self.boss = self.lab.admin()
        self.addCleanup(self.hang_up)

    def hang_up(self):
        for client in (*self.hosts, self.boss):
            client.close()

    def shared(self, kind):
        first = self.lab.repository(kind, self.hosts[0]).made()
        second = first.by(self.hosts[1])
        second("sr_attach")
        return first, second, first.disk()

    def state(self, epoch):
        """Of the lease of this epoch, None when it is gone."""
        return self.lab.leases().get(epoch, {}).get("state")

    def host_row(self, name):
        page = self.lab.unix().call("smapi.lease_list", path="/RPC2", host=name)
        return next((row for row in page["hosts"] if row["host"] == name), None)

    def break_lease(self, sr, vdi, epoch, evidence, by=None, **keys):
        keys = {"host": self.names[0], "reason": "a test", **keys}
        (by or self.boss).call("smapi.lease_break", path="/RPC2", sr_uuid=sr.uuid, vdi_uuid=vdi, epoch=str(epoch),
                                      evidence=evidence, **keys)

    def restart(self, **settings):
        self.lab.restart(**{**self.settings, **settings})


class Sessions(Hosts):
    def test_a_session_is_shown_and_renewed(self):
        agent = Agent(self.hosts[0])
        terms = agent.register()
        self.assertEqual(({name: terms[name] for name in ("renew_ms", "ttl_ms", "watchdog_ms", "dead_ms", "grace_ms")}),
                         {"renew_ms": "20000", "ttl_ms": "80000", "watchdog_ms": "60000", "dead_ms": "141000",
                          "grace_ms": "0"})
        row = self.host_row(self.names[0])
        self.assertEqual((row["state"], row["boot"], row["watchdog"]), ("live", agent.boot, True))
        self.assertEqual(agent.renew(), {"ttl_ms": "80000", "grace_ms": "0", "broken": "0", "stale": False, "leases": "0"})

    def test_renewing_without_a_session_or_with_anothers_is_refused(self):
        with self.refused(37, "host_register"):
            Agent(self.hosts[0]).renew()
        Agent(self.hosts[0]).register()
        with self.refused(37):
            Agent(self.hosts[0]).renew()

    def test_two_agents_with_one_certificate_in_one_boot_are_both_refused(self):
        sr, other, vdi = self.shared("dummy")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        clone = Agent(self.lab.host(self.names[0]), agent.boot)
        op = new_uuid()
        for _ in range(2):
            with self.refused(37, "two agents", self.names[0]):
                clone.client.call("smapi.host_register", path="/RPC2", op=op, **clone.words)
        for refused in (agent.renew, clone.renew, agent.register, clone.register):
            with self.refused(37, "two agents"):
                refused()
        with self.refused(37):
            sr("vdi_activate", "true", vdi_uuid=vdi)
        with self.refused(24, self.names[0]):
            other.activated(vdi)
        self.assertEqual(self.state(epoch), "held")
        self.assertEqual(self.host_row(self.names[0])["state"], "collided")

    def test_a_boot_that_still_renews_after_another_registered_is_a_collision(self):
        sr, _, vdi = self.shared("file")
        agent, clone = Agent(self.hosts[0]), Agent(self.lab.host(self.names[0]))
        agent.register()
        epoch = sr.activated(vdi)
        self.assertTrue(clone.register()["stale"])
        for refused in (agent.renew, clone.renew):
            with self.refused(37, "two agents"):
                refused()
        self.assertEqual(self.state(epoch), "held")

    def test_only_a_host_has_a_session(self):
        with self.refused(1, "is no host"):
            Agent(self.lab.operator()).register()

    def test_who_calls_through_the_unix_socket_is_of_this_boot(self):
        with self.refused(1, boot_id()):
            Agent(self.lab.unix()).register()
        sr = self.lab.repository("dummy").made()
        vdi = sr.disk()
        epoch = sr.activated(vdi)
        self.assertEqual(self.lab.leases()[epoch]["boot"], boot_id())

    def test_a_host_that_never_registers_holds_without_end_and_is_never_shown_as_one(self):
        sr, _, vdi = self.shared("dummy")
        epoch = sr.activated(vdi)
        self.assertIsNone(self.host_row(self.names[0]))
        with self.refused(37):
            self.break_lease(sr, vdi, epoch, "watchdog")
        self.assertEqual(self.state(epoch), "held")

    def test_a_lease_is_let_go_only_by_its_session_in_its_epoch(self):
        for kind in ("dummy", "file"):
            sr, _, vdi = self.shared(kind)
            agent = Agent(self.hosts[0])
            agent.boot = self.boot = getattr(self, "boot", agent.boot)
            agent.nonce = self.nonce = getattr(self, "nonce", agent.nonce)
            agent.register()
            epoch = sr.activated(vdi)
            for words in ({"epoch": str(epoch + 1)}, {"nonce": new_uuid()}, {"host_boot_id": new_uuid()}):
                with self.refused(37):
                    sr("vdi_deactivate", vdi_uuid=vdi, **words)
                self.assertEqual(self.state(epoch), "held")
            sr("vdi_activate", "true", vdi_uuid=vdi, epoch=str(epoch), **agent.words)
            with self.refused(37):
                sr("vdi_activate", "true", vdi_uuid=vdi, epoch=str(epoch - 1))
            sr("vdi_deactivate", vdi_uuid=vdi, epoch=str(epoch), **agent.words)
            with self.refused(37):  # it names a lease that is gone, so it gets no new one
                sr("vdi_activate", "true", vdi_uuid=vdi, epoch=str(epoch))
            self.assertIsNone(self.state(epoch))

    def test_a_disk_is_detached_only_by_the_session_that_attached_it(self):
        for kind in ("dummy", "file"):
            sr, _, vdi = self.shared(kind)
            agent = Agent(self.hosts[0], getattr(self, "boot", None))
            self.boot, self.nonce = agent.boot, getattr(self, "nonce", agent.nonce)
            agent.nonce = self.nonce
            agent.register()
            sr("vdi_attach", "true", vdi_uuid=vdi, **agent.words)
            for words in ({"nonce": new_uuid()}, {"host_boot_id": new_uuid()}):
                with self.refused(37, "which has renewed since"):
                    sr("vdi_detach", vdi_uuid=vdi, **words)
                with self.refused(24):
                    sr("vdi_delete", vdi_uuid=vdi)
            sr("vdi_detach", vdi_uuid=vdi, **agent.words)
            sr("vdi_delete", vdi_uuid=vdi)

    def test_leases_are_listed_by_repository_by_host_and_in_pages(self):
        sr, other, vdi = self.shared("dummy")
        more, _, second = self.shared("file")
        epochs = [sr.activated(vdi, "false"), other.activated(vdi, "false"), more.activated(second)]
        self.assertEqual([e for e in self.lab.leases() if e in epochs], epochs)
        self.assertEqual(list(self.lab.leases(sr_uuid=sr.uuid)), epochs[:2])
        self.assertEqual(list(self.lab.leases(host=self.names[0])), [epochs[0], epochs[2]])
        page = self.lab.unix().call("smapi.lease_list", path="/RPC2", sr_uuid=sr.uuid, limit=1)
        self.assertEqual((len(page["leases"]), page["next"]), (1, str(epochs[0])))
        row = page["leases"][0]
        self.assertEqual((row["sr"], row["vdi"], row["host"], row["mode"], row["fencing"]),
                         (sr.uuid, vdi, self.names[0], "ro", "vdi"))

    def test_a_types_fencing_is_told_by_its_repositories_and_its_driver(self):
        for kind, word in (("dummy", "vdi"), ("file", "advisory")):
            sr = self.lab.repository(kind).made()
            self.assertEqual(sr.page()["sr"]["fencing"], word)
            for client in (self.lab.unix(), self.lab.bridge()):
                self.assertEqual(client.call("sr_get_driver_info", path=f"/sm/{kind}")["fencing"], word)

    def test_a_relation_of_terms_that_does_not_hold_keeps_it_from_starting(self):
        for settings in ({"lease__dead": 140}, {"lease__ttl": 60, "lease__stop": 60}, {"lease__renew": 60}):
            lab = Lab()
            self.addCleanup(lab.close)
            lab.launch(**settings)
            self.assertEqual(lab.end_status(), 78, settings)
            self.assertIn("lease.", lab.log())


class Reboots(Hosts):
    def test_a_new_boot_frees_what_can_be_fenced_at_once(self):
        sr, other, vdi = self.shared("dummy")
        Agent(self.hosts[0]).register()
        old = sr.activated(vdi)
        sr("smapi.disk_write", vdi_uuid=vdi, epoch=str(old), data="early")
        self.assertTrue(Agent(self.hosts[0]).register()["stale"])
        eventually(lambda: self.state(old) is None)
        with self.refused(37):
            sr("smapi.disk_write", vdi_uuid=vdi, epoch=str(old), data="late")
        new = other.activated(vdi)
        other("smapi.disk_write", vdi_uuid=vdi, epoch=str(new), data="new")
        self.assertEqual([row["data"] for row in sr("smapi.disk_log", vdi_uuid=vdi)], ["early", "new"])

    def test_the_host_itself_begins_anew_detached(self):
        sr, _, vdi = self.shared("dummy")
        Agent(self.hosts[0]).register()
        old = sr.activated(vdi)
        agent = Agent(self.hosts[0])
        agent.register()
        with self.refused(46, "vdi_attach comes first"):
            sr("vdi_activate", "true", vdi_uuid=vdi)
        self.assertGreater(sr.activated(vdi, "false"), old)  # no trace of the mode it had

    def test_a_data_path_that_knows_no_leases_waits_until_the_old_boot_is_silent(self):
        sr, other, vdi = self.shared("file")
        Agent(self.hosts[0]).register()
        epoch = sr.activated(vdi)
        agent = Agent(self.hosts[0])
        agent.register()
        self.assertTrue(agent.renew()["stale"])
        with self.refused(24, self.names[0], str(epoch)):
            other.activated(vdi)
        with self.refused(37, "may still be alive"):
            self.break_lease(sr, vdi, epoch, "reboot")
        with self.refused(24):
            sr("vdi_delete", vdi_uuid=vdi)
        self.assertEqual(self.state(epoch), "held")

    def test_a_lease_taken_by_the_new_boot_before_it_registers_is_its_own(self):
        sr, _, vdi = self.shared("dummy")
        Agent(self.hosts[0]).register()
        agent = Agent(self.hosts[0])
        sr("vdi_attach", "true", vdi_uuid=vdi, host_boot_id=agent.boot)
        sr("vdi_activate", "true", vdi_uuid=vdi, host_boot_id=agent.boot)
        epoch = sr.epoch()
        self.assertFalse(agent.register()["stale"])
        self.assertEqual(self.lab.leases()[epoch]["boot"], agent.boot)


class Silence(Hosts):
    """With terms of seconds."""

    settings = SHORT

    def test_the_old_boot_silent_for_its_term_is_dead(self):
        sr, other, vdi = self.shared("file")
        Agent(self.hosts[0]).register()
        epoch = sr.activated(vdi)
        agent = Agent(self.hosts[0])
        agent.register()

        def gone():
            agent.renew()
            return self.state(epoch) is None
        eventually(gone)
        self.assertGreater(other.activated(vdi), epoch)
        sr("vdi_attach", "false", vdi_uuid=vdi)  # what was attached is forgotten too

    def test_expiry_grants_nothing_and_permits_only_what_the_watchdog_ensures(self):
        sr, other, vdi = self.shared("file")
        Agent(self.hosts[0]).register(watchdog=True)
        epoch = sr.activated(vdi)
        eventually(lambda: self.host_row(self.names[0])["state"] == "suspect")
        with self.refused(24):
            other.activated(vdi)
        with self.refused(37, "ran out"):
            sr.activated(sr.disk())

        def broken():
            try:
                self.break_lease(sr, vdi, epoch, "watchdog")
            except Fault as fault:
                self.assertEqual(fault.code, 37, fault.text)
                self.assertIn("watchdog may not have fired", fault.text)
                return False
            return True
        eventually(broken)
        self.assertGreater(other.activated(vdi), epoch)

    def test_without_a_watchdog_time_permits_nothing(self):
        sr, _, vdi = self.shared("file")
        Agent(self.hosts[0]).register(watchdog=False)
        epoch = sr.activated(vdi)
        time.sleep(SHORT["lease__dead"] + 1)
        with self.refused(37, "no session with a watchdog"):
            self.break_lease(sr, vdi, epoch, "watchdog")

    def test_an_agent_started_again_goes_on_once_the_first_is_silent(self):
        sr, _, vdi = self.shared("dummy")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        again = Agent(self.hosts[0], agent.boot)

        def registered():
            try:
                again.register()
            except Fault as fault:
                self.assertEqual(fault.code, 37, fault.text)
                return False
            return True
        eventually(registered)
        sr("vdi_activate", "true", vdi_uuid=vdi, **again.words)
        self.assertEqual(sr.epoch(), epoch)


    def test_one_renewal_covers_every_lease_of_the_host_and_no_other_hosts(self):
        sr, other, vdi = self.shared("file")
        agent, silent = Agent(self.hosts[0]), Agent(self.hosts[1])
        agent.register()
        silent.register()
        epochs = [sr.activated(vdi), sr.activated(sr.disk(), "false")]
        theirs = other.activated(other.disk())
        disks = {epoch: row["vdi"] for epoch, row in self.lab.leases(sr_uuid=sr.uuid).items()}

        def silence_counts():
            for epoch in epochs:
                agent.renew()
                with self.refused(37):
                    self.break_lease(sr, disks[epoch], epoch, "watchdog")
            try:
                self.break_lease(sr, disks[theirs], theirs, "watchdog", host=self.names[1])
            except Fault as fault:
                self.assertEqual(fault.code, 37, fault.text)
                return False
            return True
        eventually(silence_counts)
        self.assertEqual([self.state(epoch) for epoch in (*epochs, theirs)], ["held", "held", None])

    @unittest.skipIf(SANITIZED or not os.path.exists(FAKETIME), "libfaketime is needed, and no sanitizer")
    def test_the_wall_clock_decides_nothing(self):
        def jump(words):
            self.lab.at_another_date(words)
            self.boss.call("smapi.lease_list", path="/RPC2")  # the daemon has seen the new time

        self.addCleanup(self.restart)
        self.addCleanup(self.lab.environment.clear)
        self.lab.at_another_date("+20d")
        self.restart()
        sr, other, vdi = self.shared("file")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        before = self.lab.leases()[epoch]["since"]
        for words in ("+0d", "+60d", "+20d"):
            jump(words)
            agent.renew()
            with self.refused(37):
                self.break_lease(sr, vdi, epoch, "watchdog")
            with self.refused(24, self.names[0]):
                other.activated(vdi)
            other("vdi_detach", vdi_uuid=vdi)
            self.assertEqual(self.host_row(self.names[0])["state"], "live")
            self.assertLessEqual(int(agent.renew()["ttl_ms"]), SHORT["lease__ttl"] * 1000)
            jump("+0d")
            epochs = [epoch, sr.activated(sr.disk())]
            self.assertGreater(self.lab.leases()[epoch]["since"], self.lab.leases()[epochs[1]]["since"])
            self.assertEqual(epochs, sorted(epochs))  # whatever the dates say
        self.assertEqual(self.lab.leases()[epoch]["since"], before)
        jump("+0d")
        eventually(lambda: self.host_row(self.names[0])["state"] == "suspect")  # in the time of CLOCK_BOOTTIME all the same

    def test_a_disk_whose_holder_is_dead_is_free_within_seconds_of_the_evidence(self):
        """And a free one at once: what is measured is this program's part, on a machine that does other things too."""
        sr, other, vdi = self.shared("file")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        agent.renew()
        silent = time.monotonic()
        free = other.disk()
        began = time.monotonic()
        other.activated(free)
        took = time.monotonic() - began

        def broken():
            try:
                self.break_lease(sr, vdi, epoch, "watchdog")
            except Fault:
                return False
            return True
        eventually(broken)
        self.assertGreater(other.activated(vdi), epoch)
        waited = time.monotonic() - silent - SHORT["lease__dead"]
        self.assertTrue(-0.1 < waited < 5 * PATIENCE, waited)
        self.assertLess(took, 1 * PATIENCE)


class Breaks(Hosts):
    settings = {"lease__operator_word": 1}

    def test_a_fenced_break_frees_the_disk_and_its_epoch_never_succeeds_again(self):
        sr, other, vdi = self.shared("dummy")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        self.break_lease(sr, vdi, epoch, "fenced")
        self.assertIsNone(self.state(epoch))
        self.assertEqual(agent.renew()["broken"], str(epoch))
        self.break_lease(sr, vdi, epoch, "fenced")  # again
        new = other.activated(vdi)
        for _ in range(2):
            with self.refused(37):
                sr("smapi.disk_write", vdi_uuid=vdi, epoch=str(epoch), data="late")
            with self.refused(24, self.names[1]):
                sr("vdi_activate", "true", vdi_uuid=vdi)
            sr("vdi_deactivate", vdi_uuid=vdi, epoch=str(epoch))  # it has none: nothing happens
            self.assertEqual(self.state(new), "held")
            self.lab.kill9()
            self.lab.start(**self.settings)

    def test_a_break_compares_the_epoch_and_the_host(self):
        sr, _, vdi = self.shared("dummy")
        epoch = sr.activated(vdi)
        for keys in ({"epoch": epoch + 1}, {"epoch": epoch, "host": self.names[1]}):
            with self.refused(37, "has no lease"):
                self.break_lease(sr, vdi, keys.pop("epoch"), "fenced", **keys)
        self.assertEqual(self.state(epoch), "held")

    def test_a_break_succeeds_again_and_never_of_a_lease_that_its_holder_let_go(self):
        sr, _, vdi = self.shared("dummy")
        released = sr.activated(vdi)
        sr("vdi_deactivate", vdi_uuid=vdi)
        other, last = sr.disk(), sr.disk()
        for disk in (other, last):
            sr("vdi_attach", "true", vdi_uuid=disk)
        broken, newest = sr.activated(other), sr.activated(last)
        for epoch, disk in ((broken, other), (newest, last), (broken, other)):
            self.break_lease(sr, disk, epoch, "fenced")
        for epoch, disk in ((released, vdi), (newest, other)):
            with self.refused(37, "has no lease"):
                self.break_lease(sr, disk, epoch, "fenced")

    def test_who_may_break_is_an_operator_and_what_high_availability_did_an_administrator_says(self):
        sr, _, vdi = self.shared("dummy")
        epoch = sr.activated(vdi)
        for by in (self.hosts[1], self.lab.reader()):
            with self.refused(2001):
                self.break_lease(sr, vdi, epoch, "fenced", by)
        with self.refused(2001, "high availability"):
            self.break_lease(sr, vdi, epoch, "ha", self.lab.operator())
        with self.refused(143, "evidence"):
            self.break_lease(sr, vdi, epoch, "assume-failed")
        self.break_lease(sr, vdi, epoch, "fenced", self.lab.operator())

    def test_a_file_cannot_be_fenced(self):
        sr, _, vdi = self.shared("file")
        epoch = sr.activated(vdi)
        with self.refused(37, "cannot fence"):
            self.break_lease(sr, vdi, epoch, "fenced")

    def test_a_persons_word_needs_its_very_words_and_is_not_believed_of_a_host_that_renews(self):
        for kind in ("dummy", "file"):
            sr, other, vdi = self.shared(kind)
            epoch = sr.activated(vdi)
            word = f"I_HAVE_POWERED_OFF_{self.names[0]}"
            for force in ({}, {"force": "yes"}, {"force": f"I_HAVE_POWERED_OFF_{self.names[1]}"}):
                with self.refused(1, word):
                    self.break_lease(sr, vdi, epoch, "operator", **force)
            agent = Agent(self.hosts[0], boot=getattr(self, "boot", None))
            self.boot, self.nonce = agent.boot, getattr(self, "nonce", agent.nonce)
            agent.nonce = self.nonce
            agent.register()
            with self.refused(37, "so it lives"):
                self.break_lease(sr, vdi, epoch, "operator", force=word)
            self.restart()  # nothing was heard since
            self.break_lease(sr, vdi, epoch, "operator", force=word)
            self.assertGreater(other.activated(vdi), epoch)
            other.released(vdi)
            sr("vdi_delete", vdi_uuid=vdi)  # its attachment has gone too

    def test_high_availability_breaks_what_it_has_fenced(self):
        sr, other, vdi = self.shared("file")
        epoch = sr.activated(vdi)
        self.break_lease(sr, vdi, epoch, "ha", reason="host-pre-declare-dead: fenced")
        other.activated(vdi)

    def test_a_disk_with_a_lease_stays_in_its_repository(self):
        for kind in ("dummy", "file"):
            sr, other, vdi = self.shared(kind)
            sr.activated(vdi)
            for method in ("sr_detach", "sr_delete"):
                with self.refused(16):
                    sr(method)
            with self.refused(24):
                other("vdi_delete", vdi_uuid=vdi)

    def test_a_data_path_not_shown_to_be_closed_is_quarantined_until_a_person_breaks_it(self):
        sr, other, vdi = self.shared("dummy")
        epoch = sr.activated(vdi)
        self.lab.arm("lease_revoking:eio:1")
        with self.refused(46, "quarantine", str(epoch)):
            self.break_lease(sr, vdi, epoch, "fenced")
        for restarted in (False, True):
            self.assertEqual(self.state(epoch), "quarantined")
            with self.refused(24, "quarantine"):
                other.activated(vdi)
            with self.refused(46, "quarantine"):
                sr("vdi_activate", "true", vdi_uuid=vdi)
            with self.refused(24):
                sr("vdi_delete", vdi_uuid=vdi)
            if not restarted:
                self.restart()
        self.lab.arm("lease_revoking:eio:1")
        self.break_lease(sr, vdi, epoch, "operator", force=f"I_HAVE_POWERED_OFF_{self.names[0]}")
        self.assertGreater(other.activated(vdi), epoch)

    def test_a_release_that_cannot_be_shown_to_be_done_is_quarantined_until_it_is(self):
        sr, other, vdi = self.shared("dummy")
        epoch = sr.activated(vdi)
        self.lab.arm("lease_releasing:eio:1")
        with self.refused(200):
            sr("vdi_deactivate", vdi_uuid=vdi)
        self.assertEqual(self.state(epoch), "quarantined")
        with self.refused(24, "quarantine"):
            other.activated(vdi)
        sr("vdi_deactivate", vdi_uuid=vdi)
        other.activated(vdi)

    def test_by_default_no_persons_word_is_believed(self):
        sr, _, vdi = self.shared("file")
        epoch = sr.activated(vdi)
        self.restart(lease__operator_word=0)
        with self.refused(2001, "lease.operator_word"):
            self.break_lease(sr, vdi, epoch, "operator", force=f"I_HAVE_POWERED_OFF_{self.names[0]}")
        self.restart()


class SignOff(Hosts):
    settings = {"lease__operator_word": 1}

    def end(self, agent, **keys):
        return agent.client.call("smapi.host_unregister", path="/RPC2", **agent.words, **keys)

    def test_a_session_that_holds_nothing_ends_and_another_begins(self):
        agent = Agent(self.hosts[0])
        agent.register()
        self.assertIsNone(self.end(agent))
        self.assertIsNone(self.host_row(self.names[0]))
        for refused in (agent.renew, lambda: self.end(agent)):
            with self.refused(37, "no session"):
                refused()
        self.assertEqual(agent.register()["stale"], False)
        self.assertEqual(self.host_row(self.names[0])["state"], "live")

    def test_a_session_that_holds_a_lease_does_not_end_and_the_refusal_names_it(self):
        sr, _, vdi = self.shared("dummy")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        with self.refused(24, vdi, sr.uuid, str(epoch), "1 leases"):
            self.end(agent)
        self.assertEqual((self.state(epoch), self.host_row(self.names[0])["state"]), ("held", "live"))
        agent.renew()

    def test_only_the_session_itself_ends_it(self):
        agent, other = Agent(self.hosts[0]), Agent(self.hosts[1])
        agent.register()
        other.register()
        for boot, nonce in ((new_uuid(), agent.nonce), (agent.boot, new_uuid()), (other.boot, other.nonce)):
            agent_of_another = Agent(self.hosts[0], boot)
            agent_of_another.nonce = nonce
            for keys in ({}, {"release": True}):
                with self.refused(37, "another session"):
                    self.end(agent_of_another, **keys)
        agent.renew()
        other.renew()

    def test_with_release_what_may_be_given_back_is_and_the_rest_keeps_it_from_ending(self):
        first, other, vdi = self.shared("dummy")
        second, _, more = self.shared("file")
        agent = Agent(self.hosts[0])
        agent.register()
        epochs = [first.activated(vdi), first.activated(first.disk(), "false"), second.activated(more)]
        self.lab.arm("lease_releasing:eio:1")
        with self.refused(200, "keeps 1 of 3 leases", vdi):
            self.end(agent, release=True)
        with self.refused(24, "1 leases", vdi, "quarantined"):
            self.end(agent)
        self.assertEqual([self.state(e) for e in epochs], ["quarantined", None, None])
        agent.renew()
        self.assertIsNone(self.end(agent, release=True))
        self.assertEqual(self.lab.leases(host=self.names[0]), {})
        self.assertIsNone(self.host_row(self.names[0]))
        self.assertGreater(other.activated(vdi), epochs[0])

    def test_what_an_earlier_boot_holds_is_not_given_back_by_this_one(self):
        sr, _, vdi = self.shared("file")
        Agent(self.hosts[0]).register()
        epoch = sr.activated(vdi)
        agent = Agent(self.hosts[0])
        agent.register()
        with self.refused(24, vdi):
            self.end(agent, release=True)
        self.assertEqual(self.state(epoch), "held")

    def test_it_survives_kill_9_and_its_operation_id_gives_the_same_answer(self):
        sr, _, vdi = self.shared("dummy")
        agent = Agent(self.hosts[0])
        agent.register()
        sr.activated(vdi)
        op = new_uuid()
        body = plain_body("smapi.host_unregister", {**agent.words, "release": True})
        first = agent.client.post(body, "/RPC2", op)
        self.assertIsNone(first.value())
        self.lab.kill9()
        self.lab.start(**self.settings)
        self.assertIsNone(self.host_row(self.names[0]))
        self.assertEqual(agent.client.post(body, "/RPC2", op).body, first.body)
        with self.refused(2002):
            agent.client.post(plain_body("smapi.host_unregister", agent.words), "/RPC2", op).value()

    def test_several_things_in_one_call_are_no_part_of_a_multicall(self):
        agent = Agent(self.hosts[0])
        agent.register()
        calls = [{"methodName": "smapi.host_unregister", "params": [{**agent.words, "release": True}]},
                 {"methodName": "smapi.host_unregister", "params": [agent.words]}]
        answers = agent.client.post(plain_body("system.multicall", calls), "/RPC2").value()
        self.assertEqual((answers[0]["faultCode"], answers[1]), (143, [None]))


class WholeHosts(Hosts):
    settings = {"lease__operator_word": 1}

    def break_host(self, epoch, evidence, by=None, **keys):
        keys = {"host": self.names[0], "reason": "a test", **keys}
        return (by or self.boss).call("smapi.host_break", path="/RPC2", epoch=str(epoch), evidence=evidence, **keys)

    def held(self):
        """Leases of the first host on two types of repository, one of which fences."""
        first, _, vdi = self.shared("dummy")
        second, _, more = self.shared("file")
        return [first.activated(vdi), first.activated(first.disk(), "false"), second.activated(more)]

    def trail(self, what):
        """Epochs in the audit trail's lines of this kind on the first host's leases; the daemon has ended."""
        with contextlib.closing(sqlite3.connect(f"file:{self.lab.state}/smapid.db?immutable=1", uri=True)) as database:
            rows = database.execute("SELECT who, detail FROM audit WHERE what = ?", (what,)).fetchall()
        return sorted(int(detail.split()[3]) for who, detail in rows if self.names[0] in who + detail)

    def test_one_call_ends_all_leases_of_a_host_and_each_is_audited(self):
        epochs = self.held()
        answer = self.break_host(epochs[-1], "operator", force=f"I_HAVE_POWERED_OFF_{self.names[0]}")
        self.assertEqual(answer, {"broken": "3", "left": [], "more": False})
        self.assertEqual(self.lab.leases(host=self.names[0]), {})
        self.lab.stop()
        self.assertEqual(self.trail("lease_broken"), epochs)
        self.assertEqual(self.trail("lease_break"), epochs)
        self.lab.start(**self.settings)

    def test_each_lease_needs_the_evidence_and_what_stays_is_told(self):
        epochs = self.held()
        answer = self.break_host(epochs[-1], "fenced")
        self.assertEqual(answer["broken"], "2")
        self.assertEqual([(row["epoch"], row["code"]) for row in answer["left"]], [(str(epochs[-1]), 37)])
        self.assertIn("cannot fence", answer["left"][0]["why"])
        self.assertEqual([self.state(e) for e in epochs], [None, None, "held"])

    def test_a_host_with_a_newer_lease_than_the_caller_knows_loses_none(self):
        epochs = self.held()
        with self.refused(37, str(epochs[-1]), "nothing was broken"):
            self.break_host(epochs[-2], "fenced")
        self.assertEqual({self.state(e) for e in epochs}, {"held"})

    def test_another_hosts_leases_stay(self):
        sr, other, vdi = self.shared("dummy")
        epoch, others = sr.activated(vdi, "false"), other.activated(vdi, "false")
        self.break_host(others, "fenced")
        self.assertEqual((self.state(epoch), self.state(others)), (None, "held"))

    def test_only_those_of_one_boot_when_it_is_named(self):
        sr, _, vdi = self.shared("file")
        old = Agent(self.hosts[0])
        old.register()
        epoch = sr.activated(vdi)
        agent = Agent(self.hosts[0])
        agent.register()
        newer = sr.activated(sr.disk())
        word = f"I_HAVE_POWERED_OFF_{self.names[0]}"
        self.assertEqual(self.break_host(newer, "operator", boot=old.boot, force=word)["broken"], "1")
        self.assertEqual((self.state(epoch), self.state(newer)), (None, "held"))

    def test_who_may_and_by_which_word_is_as_for_one_lease(self):
        epochs = self.held()
        for by in (self.hosts[1], self.lab.reader()):
            with self.refused(2001):
                self.break_host(epochs[-1], "fenced", by)
        with self.refused(2001, "high availability"):
            self.break_host(epochs[-1], "ha", self.lab.operator())
        with self.refused(1, "I_HAVE_POWERED_OFF"):
            self.break_host(epochs[-1], "operator")
        with self.refused(143, "evidence"):
            self.break_host(epochs[-1], "assume-failed")
        self.assertEqual({self.state(e) for e in epochs}, {"held"})

    def test_killed_in_the_middle_it_is_asked_again(self):
        epochs = self.held()
        op = new_uuid()
        body = plain_body("smapi.host_break", {"host": self.names[0], "epoch": str(epochs[-1]), "evidence": "ha",
                                               "reason": "a test"})
        self.lab.arm("lease_revoking:kill:2")
        with self.assertRaises((OSError, EOFError, HTTPException)):
            self.boss.post(body, "/RPC2", op)
        self.assertTrue(self.lab.died())
        self.lab.start(**self.settings)
        first = self.boss.post(body, "/RPC2", op)
        self.assertEqual(first.value()["left"], [])
        self.assertEqual(self.lab.leases(host=self.names[0]), {})
        self.assertEqual(self.boss.post(body, "/RPC2", op).body, first.body)


class Restarts(Hosts):
    """Of the server."""

    def killed(self, point, call):
        self.lab.arm(f"{point}:kill:1")
        with self.assertRaises((OSError, EOFError)):
            try:
                call()
            except Exception as broken:
                if type(broken).__module__ == "http.client":
                    raise EOFError from broken
                raise
        self.assertTrue(self.lab.died())
        self.lab.start()

    def test_a_grant_that_was_begun_is_held(self):
        sr, other, vdi = self.shared("dummy")
        sr("vdi_attach", "true", vdi_uuid=vdi)
        self.killed("lease_granting", lambda: sr("vdi_activate", "true", vdi_uuid=vdi))
        (epoch,) = self.lab.leases(sr_uuid=sr.uuid)
        self.assertEqual(self.state(epoch), "held")
        with self.refused(24):
            other.activated(vdi)
        sr("vdi_activate", "true", vdi_uuid=vdi)
        self.assertEqual(sr.epoch(), epoch)
        sr("smapi.disk_write", vdi_uuid=vdi, epoch=str(epoch), data="x")

    def test_a_release_that_was_begun_is_done(self):
        sr, other, vdi = self.shared("dummy")
        epoch = sr.activated(vdi)
        self.killed("lease_releasing", lambda: sr("vdi_deactivate", vdi_uuid=vdi))
        self.assertIsNone(self.state(epoch))
        self.assertGreater(other.activated(vdi), epoch)
        with self.refused(37):
            sr("smapi.disk_write", vdi_uuid=vdi, epoch=str(epoch), data="late")

    def test_a_break_that_was_begun_is_done(self):
        sr, other, vdi = self.shared("dummy")
        epoch = sr.activated(vdi)
        self.killed("lease_revoking", lambda: self.break_lease(sr, vdi, epoch, "fenced"))
        self.assertIsNone(self.state(epoch))
        self.break_lease(sr, vdi, epoch, "fenced")
        other.activated(vdi)

    def test_the_same_operation_id_gives_the_same_epoch(self):
        for kind in ("dummy", "file"):
            sr, _, vdi = self.shared(kind)
            sr("vdi_attach", "true", vdi_uuid=vdi)
            op, epochs = new_uuid(), []
            for _ in range(2):
                sr("vdi_activate", "true", vdi_uuid=vdi, op=op)
                epochs.append(sr.epoch())
                self.restart()
            self.assertEqual(epochs[0], epochs[1])

    def test_the_same_boot_has_no_grace(self):
        agent = Agent(self.hosts[0])
        agent.register()
        self.restart()
        self.assertEqual(agent.renew()["grace_ms"], "0")

    def test_a_database_that_was_put_back_grants_no_epoch_again_and_for_a_while_no_writer(self):
        lab = Lab()
        self.addCleanup(lab.close)
        lab.start(**SHORT)
        sr = lab.repository("dummy").made()
        vdi = sr.disk()
        lab.stop()
        kept = os.path.join(lab.dir, "kept")
        shutil.copy(os.path.join(lab.state, "smapid.db"), kept)
        lab.start(**SHORT)
        epoch = sr.activated(vdi)  # the copy does not know of it
        lab.stop()
        shutil.copy(kept, os.path.join(lab.state, "smapid.db"))
        lab.start(**SHORT)
        self.assertIn("older than the one that was served last", lab.log())
        sr("vdi_attach", "true", vdi_uuid=vdi)
        with self.refused(24, "not known"):
            sr("vdi_activate", "true", vdi_uuid=vdi)

        def granted():
            try:
                sr("vdi_activate", "true", vdi_uuid=vdi)
            except Fault as fault:
                self.assertEqual(fault.code, 24, fault.text)
                return False
            return True
        eventually(granted)
        self.assertGreater(sr.epoch(), epoch)
        os.unlink(kept)

    def test_only_the_store_changes_in_one_commit_and_a_fence_needs_two(self):
        for kind, commits in (("file", 1), ("dummy", 2)):
            sr, _, vdi = self.shared(kind)
            sr("vdi_attach", "true", vdi_uuid=vdi)
            for method, *args in (["vdi_activate", "true"], ["vdi_deactivate"]):
                before = self.commits()
                sr(method, *args, vdi_uuid=vdi)
                self.assertEqual(self.commits() - before, commits, (kind, method))

    def commits(self):
        text = self.lab.unix().get("/metrics").body.decode()
        return int(next(line for line in text.splitlines() if line.startswith("smapid_store_commits_total")).split()[-1])


class OtherBoots(Hosts):
    """Of the server's machine. Each ends with the daemon on the machine it began on."""

    def tearDown(self):
        self.lab.prefix = []
        self.restart()

    def reboot(self, **settings):
        self.lab.stop()
        self.lab.on_another_boot(new_uuid())
        self.lab.start(**{**self.settings, **settings})

    def test_grace_lets_every_holder_come_back_with_its_epoch(self):
        sr, other, vdi = self.shared("dummy")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        self.reboot()
        self.assertEqual(self.host_row(self.names[0])["state"], "live")
        with self.refused(24, self.names[0]):
            other.activated(vdi)
        renewed = agent.renew()
        self.assertTrue(0 < int(renewed["grace_ms"]) <= 80000, renewed)
        sr("vdi_activate", "true", vdi_uuid=vdi, epoch=str(epoch), **agent.words)
        self.assertEqual(sr.epoch(), epoch)
        sr("smapi.disk_write", vdi_uuid=vdi, epoch=str(epoch), data="still mine")
        self.assertNotEqual(other.activated(other.disk()), epoch)  # what conflicts with nothing is granted

    def test_in_grace_nothing_is_broken_by_expiry(self):
        self.restart(**SHORT)
        sr, _, vdi = self.shared("file")
        Agent(self.hosts[0]).register()
        epoch = sr.activated(vdi)
        time.sleep(SHORT["lease__dead"] + 1)  # it would be time
        self.reboot(**SHORT)
        with self.refused(37, "may not have fired"):
            self.break_lease(sr, vdi, epoch, "watchdog")

    def test_the_local_host_takes_its_own_disks_again_in_a_new_epoch(self):
        sr = self.lab.repository("file").made()
        vdi = sr.disk()
        epoch = sr.activated(vdi)
        self.reboot()
        self.assertGreater(sr.activated(vdi), epoch)

    def test_a_clock_that_jumps_ends_no_lease_and_shortens_no_term(self):
        sr, other, vdi = self.shared("dummy")
        agent = Agent(self.hosts[0])
        agent.register()
        epoch = sr.activated(vdi)
        for jump in (100000, 0, 5000):
            self.lab.stop()
            self.lab.at_another_time(jump)
            self.lab.start()
            self.assertLessEqual(int(self.host_row(self.names[0])["left_ms"]), 80000)
            self.assertEqual(self.host_row(self.names[0])["state"], "live")
            with self.refused(24, self.names[0]):
                other.activated(vdi)
            with self.refused(37):
                self.break_lease(sr, vdi, epoch, "watchdog")
            agent.renew()
        self.assertEqual(self.state(epoch), "held")


if __name__ == "__main__":
    unittest.main()
