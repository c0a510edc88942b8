# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may change while the front serves: certificate, key, CA, what is revoked, settings. Nothing is dropped, what was
revoked or has expired gets no further, also on open connections and in resumed sessions."""
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

from front_lab import HOST, Front, Pki, head_of, make_pki, openssl, post
from lab import Lab, Pki as LabPki, new_uuid

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
REVOKED_WITHIN = 5
pki = None


def setUpModule():
    global pki
    pki = Pki()


def tearDownModule():
    pki.close()


def instant(seconds):
    """So many seconds from now, as openssl ca wants it."""
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))


class ReloadTest(unittest.TestCase):
    """Each test has a daemon of its own, whose files it may change: server.crt, server.key, ca.crt and ca.crl in dir."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="reload-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        for name in ("server.crt", "server.key", "ca.crt", "ca.crl"):
            shutil.copy2(pki.path(name), self.dir)
        self.front = Front(pki, file={"tls__certificate": self.path("server.crt"), "tls__key": self.path("server.key"),
                                      "tls__client_ca": self.path("ca.crt"), "tls__crl": self.path("ca.crl"),
                                      "log__level": "info"})
        self.addCleanup(self.front.close)

    def path(self, name):
        return os.path.join(self.dir, name)

    def put(self, name, source):
        """Replaces a file in one step."""
        shutil.copy2(source, self.path("new"))
        os.rename(self.path("new"), self.path(name))

    def pair(self, role="admin"):
        """A new certificate of make-pki's, which a test may revoke; its name."""
        name = f"u{time.monotonic_ns()}"
        run = make_pki(pki.dir, role, name)
        self.assertEqual(run.returncode, 0, run.stderr)
        return f"{role}-{name}"

    def revoke(self, *names):
        run = make_pki(pki.dir, "revoke", *names)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.put("ca.crl", pki.path("ca.crl"))

    def status(self, wire, method="fake.call"):
        wire.send(post(method))
        answer = wire.answer()
        return answer and answer.status

    def gets_in(self, pair, version=None, ca=None):
        try:
            with self.front.tls(pair, version, ca=ca) as wire:
                return self.status(wire) == 200
        except (ssl.SSLError, ConnectionError):
            return False

    def serial(self):
        with self.front.admin() as wire:
            return wire.sock.getpeercert()["serialNumber"]


class Certificates(ReloadTest):
    def test_a_new_certificate_is_shown_and_open_connections_stay(self):
        with self.front.admin() as tls, self.front.unix() as local:
            for wire in (tls, local):
                self.assertEqual(self.status(wire), 200)
            before = self.serial()
            make_pki(pki.dir, "renew", "server")
            self.put("server.key", pki.path("server.key"))
            self.put("server.crt", pki.path("server.crt"))
            self.assertEqual(self.serial(), before)
            self.assertIn("were read again", self.front.reload())
            self.assertNotEqual(self.serial(), before)
            for wire in (tls, local):
                self.assertEqual(self.status(wire), 200)

    def test_another_ca_counts_for_open_connections_too(self):
        ours, theirs = pki.pair("admin-alice"), (pki.path("other/admin-mallory.crt"), pki.path("other/admin-mallory.key"))
        with self.front.tls(ours) as wire:
            self.assertEqual(self.status(wire), 200)
            self.assertFalse(self.gets_in(theirs))
            self.put("ca.crt", pki.path("other/ca.crt"))
            self.put("ca.crl", pki.path("other/ca.crl"))
            self.assertIn("were read again", self.front.reload())
            self.assertTrue(self.gets_in(theirs))
            self.assertFalse(self.gets_in(ours))
            wire.send(post("fake.call"))
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["connection"].lower()), (403, "close"))
            self.assertIn(b"no CA of ours signed it", answer.body)
            self.assertTrue(wire.closed())

    def bad_changes(self):
        """Ways to spoil one file, and what the log must say of it."""
        def spoil(name, mode=None, text=None, source=None, owner=None):
            def change():
                if source:
                    self.put(name, source)
                if text is not None:
                    with open(self.path(name), "w", encoding="ascii") as out:
                        out.write(text)
                if mode is not None:
                    os.chmod(self.path(name), mode)
                if owner is not None:
                    os.chown(self.path(name), owner, owner)
            return change
        yield "loose key", spoil("server.key", mode=0o640), "server.key has mode 0640"
        if os.geteuid() == 0:
            yield "key of another", spoil("server.key", owner=12345), "server.key belongs to uid 12345"
        yield "another key", spoil("server.key", source=pki.path("admin-alice.key")), "are no certificate with its key"
        yield "no certificate", spoil("server.crt", text="nothing\n"), "are no certificate with its key"
        yield "half a certificate", spoil("server.crt", text="-----BEGIN CERTIFICATE-----\nMIIB\n"), "no certificate with"
        yield "CA gone", lambda: os.unlink(self.path("ca.crt")), "ca.crt: No such file"
        yield "CA empty", spoil("ca.crt", text=""), "ca.crt is no file of 1 byte"
        yield "list gone", lambda: os.unlink(self.path("ca.crl")), "ca.crl: No such file"
        yield "list spoilt", spoil("ca.crl", text="-----BEGIN X509 CRL-----\nAAAA\n"), "ca.crl holds no revocation list"
        yield "list of another CA", spoil("ca.crl", source=pki.path("other/ca.crl")), "no CA of tls.client_ca signed"
        yield "unknown setting", lambda: self.front.configure(log__levl="info"), "section log has no key \"levl\""

    def test_a_bad_file_leaves_everything_as_it_was(self):
        revoked = self.pair()
        self.revoke(revoked)
        self.front.reload()
        before = self.serial()
        files = {name: self.path("keep." + name) for name in ("server.crt", "server.key", "ca.crt", "ca.crl")}
        for name, kept in files.items():
            shutil.copy2(self.path(name), kept)
        make_pki(pki.dir, "renew", "server")
        with self.front.admin() as wire:
            for name, change, words in self.bad_changes():
                with self.subTest(name):
                    self.put("server.key", pki.path("server.key"))  # a good change that must wait for the rest
                    self.put("server.crt", pki.path("server.crt"))
                    self.front.configure(log__level="debug")
                    change()
                    line = self.front.reload()
                    self.assertIn("everything stays as it was", line)
                    self.assertIn(words, line)
                    self.assertEqual(self.serial(), before)
                    self.assertEqual(self.status(wire), 200)
                    self.assertFalse(self.gets_in(pki.pair(revoked)))
                    self.front.file.pop("log.levl", None)
                    self.front.configure(log__level="info")
                    for name, kept in files.items():
                        self.put(name, kept)
            self.assertIn("were read again", self.front.reload())

    def test_nothing_is_dropped_while_it_reloads_under_load(self):
        stop = threading.Event()
        broken = []
        done = []

        def call(number):
            try:
                while not stop.is_set():
                    with (self.front.admin if number % 4 else self.front.unix)() as wire:
                        for i in range(20):
                            wire.send(post("fake.slow", 1) if i % 5 == 0 else post(f"fake.n{i}"))
                            done.append(wire.answer().value())
            except Exception as error:  # whatever it is, it was a call lost
                broken.append(repr(error))

        threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(25):
            self.assertIn("were read again", self.front.reload())
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(broken, [])
        self.assertGreater(len(done), 100)


class Revocation(ReloadTest):
    def wait_refused(self, wire):
        """The first answer of an open connection that is no 200, and how long it took to come."""
        began = time.monotonic()
        while True:
            wire.send(post("fake.call"))
            answer = wire.answer()
            if answer is None or answer.status != 200:
                return answer, time.monotonic() - began
            self.assertLess(time.monotonic() - began, 3 * REVOKED_WITHIN)
            time.sleep(0.05)

    def test_what_is_revoked_gets_no_further_within_five_seconds(self):
        name = self.pair()
        contexts = [self.front.context(pki.pair(name), version) for version in VERSIONS]
        sessions = []
        for context in contexts:
            with self.front.shake(context) as wire:
                self.assertEqual(self.status(wire), 200)
                sessions.append(wire.sock.session)
        with self.front.tls(pki.pair(name)) as doomed, self.front.admin() as good:
            self.assertEqual((self.status(doomed), self.status(good)), (200, 200))
            self.revoke(name)
            answer, took = self.wait_refused(doomed)
            self.assertLess(took, REVOKED_WITHIN)
            self.assertEqual((answer.status, b"it was revoked" in answer.body), (403, True))
            self.assertTrue(doomed.closed())
            self.assertEqual(self.status(good), 200)
        for version, context, session in zip(VERSIONS, contexts, sessions):
            with self.subTest(version.name):
                self.assertFalse(self.gets_in(pki.pair(name), version))
                try:
                    with self.front.shake(context, session) as wire:
                        self.assertFalse(wire.sock.session_reused)
                        self.assertIsNone(self.status(wire))
                except (ssl.SSLError, ConnectionError):
                    pass
        self.assertTrue(self.gets_in(pki.pair("admin-alice")))

    def test_a_call_under_way_is_answered_though_its_caller_was_revoked(self):
        name = self.pair()
        with self.front.tls(pki.pair(name)) as wire:
            wire.send(post("fake.slow", 4000))
            time.sleep(0.3)
            self.revoke(name)
            self.front.said("ca.crl was read again")
            self.assertEqual(wire.answer().value(), "fake.slow")
            self.assertEqual(self.status(wire), 403)

    def test_a_spoilt_list_takes_nothing_back(self):
        first, second = self.pair(), self.pair()
        self.revoke(first)
        self.front.said("ca.crl was read again")
        with open(self.path("ca.crl"), "r+", encoding="ascii") as out:
            out.truncate(100)
        self.front.said("what was revoked before stays in force")
        self.assertFalse(self.gets_in(pki.pair(first)))
        self.assertTrue(self.gets_in(pki.pair(second)))
        os.unlink(self.path("ca.crl"))
        self.front.said("what was revoked before stays in force", 2)
        self.assertFalse(self.gets_in(pki.pair(first)))
        self.revoke(second)
        self.front.said("ca.crl was read again", 2)
        self.assertFalse(self.gets_in(pki.pair(first)) or self.gets_in(pki.pair(second)))
        time.sleep(2.5)
        self.assertEqual(self.front.log().count("was read again"), 2)  # what did not change is not read

    def test_an_old_list_still_counts_and_is_told(self):
        name = self.pair()
        self.assertEqual(make_pki(pki.dir, "revoke", name).returncode, 0)
        with tempfile.TemporaryDirectory(dir=self.dir) as work:
            shutil.copy2(pki.path("revoked"), os.path.join(work, "index"))
            config = os.path.join(work, "cnf")
            with open(config, "w", encoding="ascii") as out:
                out.write(f"[ca]\ndefault_ca=l\n[l]\ndatabase={work}/index\ndefault_md=sha256\n")
            openssl("ca", "-config", config, "-cert", pki.ca, "-keyfile", pki.path("ca.key"), "-gencrl", "-crlsec", "1",
                    "-out", os.path.join(work, "crl"))
            time.sleep(2)
            self.put("ca.crl", os.path.join(work, "crl"))
        self.front.said("was to be renewed by")
        self.front.said("ca.crl was read again")
        self.assertFalse(self.gets_in(pki.pair(name)))
        self.assertTrue(self.gets_in(pki.pair("admin-alice")))

    def test_a_certificate_that_expires_is_refused_on_its_open_connection(self):
        pair = pki.sign(f"short{time.monotonic_ns()}", end=instant(4))
        ends = time.time() + 4
        contexts = [self.front.context(pair, version) for version in VERSIONS]
        sessions = []
        for context in contexts:
            with self.front.shake(context) as wire:
                self.assertEqual(self.status(wire), 200)
                sessions.append(wire.sock.session)
        with self.front.tls(pair) as wire:
            self.assertEqual(self.status(wire), 200)
            time.sleep(max(0, ends - time.time()) + 1.5)
            wire.send(post("fake.call"))
            answer = wire.answer()
            self.assertEqual((answer.status, b"it has expired" in answer.body), (403, True))
        for context, session in zip(contexts, sessions):
            with self.front.shake(context, session) as wire:
                self.assertTrue(wire.sock.session_reused)  # the ticket is good; the certificate in it is not
                self.assertEqual(self.status(wire), 403)

    def test_leases_of_a_revoked_host_stay(self):
        lab = Lab(LabPki())
        self.addCleanup(lab.close)
        holder, other = new_uuid(), new_uuid()
        lab.start(tls__crl=lab.pki.ca.replace("ca.crt", "ca.crl"))
        sr = lab.repository("dummy", lab.host(holder)).made()
        vdi = sr.disk()
        sr.activated(vdi)
        run = make_pki(lab.pki.dir, "revoke", f"host-{holder}")
        self.assertEqual(run.returncode, 0, run.stderr)
        until = time.monotonic() + REVOKED_WITHIN
        while self.connects(lab, holder):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.1)
        there = sr.by(lab.host(other))
        there("sr_attach")
        there("vdi_attach", "true", vdi_uuid=vdi)
        with self.assertRaises(Exception) as refused:
            there("vdi_activate", "true", vdi_uuid=vdi)
        self.assertEqual((refused.exception.code, holder in refused.exception.text), (24, True))

    def connects(self, lab, host):
        try:
            return lab.host(host).get("/healthz").status == 200
        except (OSError, ssl.SSLError):
            return False


class Tickets(ReloadTest):
    def test_nearly_all_sessions_are_resumed(self):
        for version in VERSIONS:
            context, session, resumed = self.front.context(pki.pair("admin-alice"), version), None, 0
            for _ in range(40):
                with self.front.shake(context, session) as wire:
                    resumed += wire.sock.session_reused
                    wire.send(post("fake.call"))
                    self.assertEqual(wire.answer().value()["name"], "admin:alice")
                    session = wire.sock.session
            with self.subTest(version.name):
                self.assertGreaterEqual(resumed, 38)

    def test_a_ticket_is_worth_nothing_after_a_reload(self):
        for version in VERSIONS:
            context = self.front.context(pki.pair("admin-alice"), version)
            with self.front.shake(context) as wire:
                self.assertEqual(self.status(wire), 200)
                session = wire.sock.session
            self.front.reload()
            with self.subTest(version.name), self.front.shake(context, session) as wire:
                self.assertFalse(wire.sock.session_reused)
                self.assertEqual(self.status(wire), 200)

    def test_who_resumes_is_who_got_the_ticket(self):
        for version in VERSIONS:
            alice = self.front.context(pki.pair("admin-alice"), version)
            with self.front.shake(alice) as wire:
                self.assertEqual(self.status(wire), 200)
                session = wire.sock.session
            with self.subTest(version.name), self.front.tls(pki.pair("reader-carol"), version) as wire:
                wire.send(post("fake.call"))
                self.assertEqual(wire.answer().value()["name"], "reader:carol")
            with self.front.shake(alice, session) as wire:
                wire.send(post("fake.call"))
                self.assertEqual(wire.answer().value()["name"], "admin:alice")


class Settings(ReloadTest):
    def test_limits_change_for_open_connections_too(self):
        with self.front.admin() as wire:
            self.front.configure(limits__body_bytes=1024)
            self.assertIn("were read again", self.front.reload())
            wire.send(head_of(1025))
            self.assertEqual(wire.answer().status, 413)

    def test_the_level_of_the_log_changes(self):
        stranger = (pki.path("other/admin-mallory.crt"), pki.path("other/admin-mallory.key"))
        self.assertFalse(self.gets_in(stranger))
        self.front.said("refused: no CA of ours signed it")
        self.front.configure(log__level="warning", limits__workers=7)
        os.kill(self.front.process.pid, signal.SIGHUP)
        self.front.said("only at the next start")
        self.assertFalse(self.gets_in(stranger))
        self.front.configure(log__level="info")
        self.front.reload()
        self.assertEqual(self.front.log().count("refused: no CA of ours signed it"), 1)

    def test_what_needs_a_start_is_named(self):
        self.front.configure(limits__workers=7, limits__connections=500)
        self.front.reload()
        self.assertIn("changed, but taken only at the next start: limits.workers limits.connections", self.front.log())

    def test_a_hang_up_while_it_ends_does_not_kill_it(self):
        with self.front.admin() as wire:
            wire.send(post("fake.slow", 700))
            time.sleep(0.2)
            self.front.terminate()
            time.sleep(0.1)
            os.kill(self.front.process.pid, signal.SIGHUP)
            self.assertEqual(wire.answer().value(), "fake.slow")
        self.assertEqual(self.front.ended(), 0)


class Pairs(unittest.TestCase):
    """make-pki renews and revokes."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="pairs-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.make("init")

    def make(self, *args):
        run = make_pki(self.dir, *args)
        self.assertEqual(run.returncode, 0, run.stderr)

    def text(self, name, *what):
        return subprocess.run(["openssl", "x509", "-in", os.path.join(self.dir, name), "-noout", *what], check=True,
                              capture_output=True, text=True).stdout

    def test_renewing_keeps_who_it_is_and_the_old_pair(self):
        self.make("server", "localhost", "192.0.2.7", "::1")
        self.make("host", HOST)
        self.make("admin", "alice")
        for name in ("server", f"host-{HOST}", "admin-alice"):
            with self.subTest(name):
                same = ("-subject", "-ext", "subjectAltName,extendedKeyUsage,keyUsage,basicConstraints")
                before, serial = self.text(name + ".crt", *same), self.text(name + ".crt", "-serial")
                key = self.text(name + ".crt", "-pubkey")
                self.make("renew", name)
                self.assertEqual(self.text(name + ".crt", *same), before)
                self.assertNotEqual(self.text(name + ".crt", "-serial"), serial)
                self.assertNotEqual(self.text(name + ".crt", "-pubkey"), key)
                self.assertEqual(os.stat(os.path.join(self.dir, name + ".key")).st_mode & 0o777, 0o600)
                old = f"old/{name}-{serial.strip().split('=')[1]}"
                self.assertEqual(self.text(old + ".crt", "-serial"), serial)
                self.make("revoke", old)

    def test_only_what_this_ca_signed_is_revoked_or_renewed(self):
        other = os.path.join(self.dir, "other")
        make_pki(other, "init")
        make_pki(other, "admin", "mallory")
        for name in ("other/admin-mallory", "nobody", "ca.crt"):
            for what in ("revoke", "renew"):
                with self.subTest(name, what=what):
                    before = sorted(os.listdir(self.dir))
                    self.assertEqual(make_pki(self.dir, what, name).returncode, 1)
                    self.assertEqual(sorted(os.listdir(self.dir)), before)


if __name__ == "__main__":
    unittest.main()
