# SPDX-License-Identifier: LGPL-2.1-or-later
"""The front through real sockets: who gets in, what of HTTP is taken, how it starts and how it ends."""
import hashlib
import os
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
import unittest
import xmlrpc.client

from front_lab import DAEMON, HOST, LOCAL, SOURCE, Front, Pki, body_of, head_of, make_pki, post

OP = "cccccccc-2222-3333-4444-555555555555"
pki = None


def setUpModule():
    global pki
    pki = Pki()


def tearDownModule():
    pki.close()


class FrontTest(unittest.TestCase):
    """One daemon for the class."""

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.front = Front(pki, **cls.settings)

    @classmethod
    def tearDownClass(cls):
        cls.front.close()

    def doors(self):
        """Both ways in, by name."""
        return (("https", self.front.admin), ("unix", self.front.unix))


class Certificates(FrontTest):
    def refused(self, pair, low=None, high=None):
        """Whether a client with this certificate gets no answer at all: its handshake fails, or in TLS 1.3, where the
        client is done first, its first read."""
        try:
            with self.front.tls(pair, low, high) as wire:
                wire.send(post("fake.call"))
                return wire.answer() is None
        except (ssl.SSLError, ConnectionError):
            return True

    def bad_pairs(self):
        other = (pki.path("other/ca.crt"), pki.path("other/ca.key"))
        forged = pki.path("forged.crt")
        with open(pki.path("admin-alice.crt"), encoding="ascii") as good, open(forged, "w", encoding="ascii") as out:
            out.write(good.read())
        yield "no certificate", None
        yield "another CA", (pki.path("other/admin-mallory.crt"), pki.path("other/admin-mallory.key"))
        yield "another CA of the same name", pki.sign("b1", ca=other)
        yield "self-signed", pki.self_signed("b2")
        yield "self-signed under the CA's name", pki.self_signed("b3", "/CN=smapid CA")
        yield "expired", pki.sign("b4", end="20250101000000Z")
        yield "not yet valid", pki.sign("b5", start="20400101000000Z")
        yield "for servers only", pki.sign("b6", usage="serverAuth")
        yield "for code signing", pki.sign("b7", usage="codeSigning")
        yield "the server's own", pki.pair("server")
        yield "issued by a host certificate", pki.sign("b8", ca=pki.pair(f"host-{HOST}"))
        yield "with a weak key", pki.sign("b10", kind=("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"))
        yield "with a chain that is too long", pki.chain("b11", 5)
        yield "under a CA that may have none below it", pki.chain("b12", 1)
        yield "with an unknown critical extension", pki.sign("b9", extra="1.2.3.4=critical,ASN1:NULL\n")

    def test_bad_certificates_are_refused_before_any_handler(self):
        before = self.front.counts()
        for name, pair in self.bad_pairs():
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.subTest(certificate=name, version=version.name):
                    self.assertTrue(self.refused(pair, version))
        self.assertEqual(self.front.counts(), before)

    def test_other_kinds_of_keys_are_taken(self):
        for name, kind in (("r1", ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")),
                           ("r2", ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")),
                           ("r3", ("-algorithm", "ED25519"))):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.subTest(kind[1:], version=version.name):
                    self.assertFalse(self.refused(pki.sign(name, kind=kind), version))

    def test_a_bad_certificate_reaches_no_page_either(self):
        try:
            with self.front.tls(None) as wire:
                wire.send(head_of(None, "/healthz", "GET", kind=None))
                self.assertIsNone(wire.answer())
        except (ssl.SSLError, ConnectionError):
            pass

    def test_each_certificate_is_who_it_says(self):
        for name, role, who, holder, host in (
                ("admin-alice", "admin", "admin:alice", "admin:alice", ""),
                ("operator-bob", "operator", "operator:bob", "operator:bob", ""),
                ("reader-carol", "reader", "reader:carol", "reader:carol", ""),
                (f"host-{HOST}", "host", f"host:{HOST}", HOST, HOST)):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.subTest(certificate=name, version=version.name), \
                        self.front.tls(pki.pair(name), version) as wire:
                    for _ in range(2):
                        wire.send(post("fake.call", path="/sm/dummy"))
                        call = wire.answer().value()
                        self.assertEqual((call["role"], call["name"], call["holder"], call["host"], call["type"]),
                                         (role, who, holder, host, "dummy"))

    def test_a_certificate_that_says_nothing_we_know_is_denied_by_name(self):
        for name, san in (("no name", None), ("a DNS name", "DNS:alice"), ("an unknown role", "URI:urn:smapid:role:root"),
                          ("two roles", "URI:urn:smapid:role:reader,URI:urn:smapid:role:admin"),
                          ("host and role", f"URI:urn:smapid:host:{HOST},URI:urn:smapid:role:admin"),
                          ("a host that is no uuid", "URI:urn:smapid:host:localhost"),
                          ("more after the uuid", f"URI:urn:smapid:host:{HOST}0"),
                          ("more after the role", "URI:urn:smapid:role:admin2"),
                          ("the role as an address", "email:urn@smapid.role.admin")):
            with self.subTest(name), self.front.tls(pki.sign("d", san=san)) as wire:
                wire.send(post("fake.call"))
                with self.assertRaises(xmlrpc.client.Fault) as fault:
                    wire.answer().value()
                self.assertEqual(fault.exception.faultCode, 2001)

    def test_a_person_without_a_fitting_name_is_denied(self):
        for name, subject in (("none", "/"), ("too long", "/CN=" + "a" * 60)):
            with self.subTest(name), self.front.tls(pki.sign("d", subject=subject)) as wire:
                wire.send(post("fake.call"))
                with self.assertRaises(xmlrpc.client.Fault) as fault:
                    wire.answer().value()
                self.assertEqual(fault.exception.faultCode, 2001)

    def test_a_faults_document_reaches_remote_and_local_callers_behind_the_sentence(self):
        for wire in (self.front.admin(), self.front.unix()):
            with wire:
                wire.send(post("fake.document"))
                with self.assertRaises(xmlrpc.client.Fault) as fault:
                    wire.answer().value()
                sentence, _, document = fault.exception.faultString.partition("\n")
                self.assertEqual(fault.exception.faultCode, 96)
                self.assertTrue(sentence.endswith("[opterr=choose one]"), sentence)
                self.assertEqual(document, '<?xml version="1.0" ?>\n<list><a>&amp;</a></list>\n')

    def test_only_tls_12_and_13_with_forward_secrecy(self):
        def offer(*options):
            run = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.front.port}", "-cert",
                                  pki.path("admin-alice.crt"), "-key", pki.path("admin-alice.key"), *options],
                                 input=b"", capture_output=True, timeout=20)
            return run.returncode == 0 and b"Cipher is (NONE)" not in run.stdout
        low = ("-cipher", "ALL:@SECLEVEL=0")
        self.assertTrue(offer("-tls1_3"))
        self.assertTrue(offer("-tls1_2"))
        for name, options in (("1.0", ("-tls1", *low)), ("1.1", ("-tls1_1", *low)),
                              ("RSA key exchange", ("-tls1_2", "-cipher", "kRSA:@SECLEVEL=0")),
                              ("NULL", ("-tls1_2", "-cipher", "eNULL:@SECLEVEL=0")),
                              ("anonymous", ("-tls1_2", "-cipher", "aNULL:@SECLEVEL=0")),
                              ("finite field", ("-tls1_2", "-cipher", "kDHE:@SECLEVEL=0"))):
            with self.subTest(name):
                self.assertFalse(offer(*options))

    def test_the_unix_socket_knows_root_as_this_host(self):
        call = self.front.ask("fake.call")
        self.assertEqual((call["role"], call["name"], call["holder"], call["host"]), ("admin", "local", LOCAL, LOCAL))

    @unittest.skipUnless(os.geteuid() == 0, "needs root to become another user")
    def test_another_user_on_the_unix_socket_is_denied(self):
        self.assertEqual(stat.S_IMODE(os.stat(self.front.socket).st_mode), 0o600)
        read, write = os.pipe()
        wire = socket.socket(socket.AF_UNIX)
        child = os.fork()
        if child == 0:  # whoever connects is who calls, even when the file lets it
            os.chdir(self.front.dir)
            os.chmod(self.front.dir, 0o755)
            os.chmod("sock", 0o666)
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
            wire.connect("sock")
            wire.sendall(post("fake.call"))
            os.write(write, wire.recv(65536))
            os._exit(0)
        wire.close()
        os.close(write)
        with open(read, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        os.chmod(self.front.socket, 0o600)
        self.assertIn(b"<int>2001</int>", answer.replace(b"i4>", b"int>"))
        self.assertIn(b"uid:12345", answer)


class Framing(FrontTest):
    """Requests whose end two readers could see in different places."""

    second = post("fake.second", more=["Connection: close"])

    def reached_by(self, data):
        """Sends data and another call behind it; the statuses answered, whether it was closed then, and how many calls
        reached dispatch."""
        results = []
        for name, door in self.doors():
            before = self.front.counts()[0]
            with door() as wire:
                statuses = []
                try:
                    wire.send(data + self.second)
                except (ConnectionError, ssl.SSLError):
                    pass
                wire.sock.settimeout(3)
                try:
                    while (answer := wire.answer()) is not None:
                        statuses.append(answer.status)
                    closed = True
                except (TimeoutError, socket.timeout):
                    closed = False
            results.append((name, statuses, closed, self.front.counts()[0] - before))
        return results

    def test_ambiguous_framing_is_answered_400_and_closed(self):
        body = body_of("fake.first")
        n = len(body)
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (n, body)
        cases = {
            "length and chunked": head_of(n, more=["Transfer-Encoding: chunked"]) + chunked,
            "chunked": head_of(None, more=["Transfer-Encoding: chunked"]) + chunked,
            "chunked, then length": head_of(None, more=["Transfer-Encoding: chunked", f"Content-Length: {n}"]) + chunked,
            "encoding identity": head_of(n, more=["Transfer-Encoding: identity"]) + body,
            "encoding unknown": head_of(n, more=["Transfer-Encoding: xchunked"]) + body,
            "encoding empty": head_of(n, more=["Transfer-Encoding:"]) + body,
            "encoding in capitals": head_of(n, more=["TRANSFER-ENCODING: CHUNKED"]) + chunked,
            "encodings two": head_of(n, more=["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"]) + chunked,
            "two equal lengths": head_of(n, more=[f"Content-Length: {n}"]) + body,
            "two lengths, second smaller": head_of(n, more=["Content-Length: 0"]) + body,
            "two lengths, first smaller": head_of(0, more=[f"Content-Length: {n}"]) + body,
            "list of lengths": head_of(f"{n}, {n}") + body,
            "length with plus": head_of(f"+{n}") + body,
            "length negative": head_of("-1") + body,
            "length hexadecimal": head_of(hex(n)) + body,
            "length with a space": head_of(f"{n} 0") + body,
            "length empty": head_of("") + body,
            "length past 64 bits": head_of("18446744073709551617") + body,
            "two hosts": head_of(n, more=["Host: other"]) + body,
            "space before the colon": head_of(None, more=[f"Content-Length : {n}"]) + body,
            "space before another colon": head_of(n, more=["X-Other : 1"]) + body,
            "control character in a value": head_of(n, more=["X-Other: a\x01b"]) + body,
            "chunked with long extensions": head_of(None, more=["Transfer-Encoding: chunked"])
                                            + b"%x;%s\r\n%s\r\n0\r\n\r\n" % (n, b"e" * 20480, body),
            "encoding folded": head_of(n, more=["Transfer-Encoding:\r\n chunked"]) + chunked,
            "tab before the colon": head_of(None, more=[f"Content-Length\t: {n}"]) + body,
            "a line without a colon": head_of(n, more=["nonsense"]) + body,
            "length folded": head_of(None, more=[f"Content-Length:\r\n {n}"]) + body,
            "length with a fraction": head_of(f"{n}.0") + body,
            "GET with a body": head_of(n, "/healthz", "GET") + body,
        }
        for name, data in cases.items():
            for door, statuses, closed, reached in self.reached_by(data):
                with self.subTest(name, door=door):
                    self.assertTrue(closed)
                    self.assertEqual(reached, 0)
                    self.assertIn(statuses, ([400], [413]) if "past" in name else ([400],))

    def test_what_the_library_hides_never_becomes_a_call_of_its_own(self):
        """Bare line feeds, folded lines and NUL are not shown by the library; what it makes of them must be one request
        and the one sent after it, never more."""
        body = body_of("fake.first")
        n = len(body)
        for name, data in {
            "bare line feeds": head_of(n).replace(b"\r\n", b"\n") + body,
            "folded line": head_of(n, more=["X-Other: a\r\n b"]) + body,
            "an empty name": head_of(n, more=[": 1"]) + body,
            "NUL in a value": head_of(n, more=["X-Other: a\0b"]) + body,
            "NUL in a name": head_of(n, more=["X-Ot\0her: b"]) + body,
            "another HTTP": head_of(n).replace(b"HTTP/1.1", b"HTTP/1.9") + body,
            "HTTP 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + head_of(n) + body,
            "HTTP 0.9": b"POST /RPC2\r\n\r\n" + body,
            "no Host": head_of(n).replace(b"Host: localhost\r\n", b"") + body,
        }.items():
            for door, statuses, _, reached in self.reached_by(data):
                with self.subTest(name, door=door):
                    self.assertLessEqual(len(statuses), 2)
                    self.assertLessEqual(reached, statuses.count(200))  # some of them faults

    def test_a_call_inside_a_body_is_no_call(self):
        inner = post("fake.inner")
        for door, statuses, _, reached in self.reached_by(head_of(len(inner)) + inner):
            with self.subTest(door=door):
                self.assertEqual((statuses, reached), ([200, 200], 1))  # a fault, and the call behind it

    def test_a_head_that_is_too_large_is_refused(self):
        for name, more in (("one line", ["X-Large: " + "a" * 65536]), ("many lines", [f"X-{i}: 1" for i in range(2000)])):
            for door, statuses, closed, reached in self.reached_by(head_of(5, more=more) + b"12345"):
                with self.subTest(name, door=door):
                    self.assertTrue(closed)
                    self.assertEqual(reached, 0)
                    self.assertTrue(set(statuses) <= {400, 413, 414, 431}, statuses)

    def test_calls_sent_in_a_row_are_answered_in_order(self):
        for name, door in self.doors():
            with self.subTest(door=name), door() as wire:
                wire.send(b"".join(post(f"fake.n{i}") for i in range(10)))
                self.assertEqual([wire.answer().value() for _ in range(10)], [f"fake.n{i}" for i in range(10)])


class Http(FrontTest):
    def status(self, data, door=None):
        with (door or self.front.admin)() as wire:
            wire.send(data)
            return wire.answer()

    def test_only_the_routes_we_have(self):
        n = len(body_of("fake.x"))
        for path in ("/", "/rpc2", "/RPC2/", "/sm", "/sm/", "/sm/Dummy", "/sm/a-b", "/sm/" + "a" * 17, "/sm/dummy/x",
                     "/sm/..", "/HEALTHZ", "//RPC2"):
            with self.subTest(path):
                answer = self.status(head_of(n, path) + body_of("fake.x"))
                self.assertEqual((answer.status, answer.headers["connection"].lower()), (404, "close"))
        for path, kind in (("/RPC2", ""), ("/sm/dummy", "dummy"), ("/sm/" + "a" * 16, "a" * 16)):
            with self.subTest(path):
                self.assertEqual(self.status(post("fake.call", path=path)).value()["type"], kind)

    def test_other_verbs_are_told_what_is_allowed(self):
        for method, path, allow in (("GET", "/RPC2", "POST"), ("PUT", "/RPC2", "POST"), ("DELETE", "/sm/nfs", "POST"),
                                    ("OPTIONS", "/RPC2", "POST"), ("post", "/RPC2", "POST"), ("POST", "/healthz", "GET"),
                                    ("POST", "/versions", "GET"), ("TRACE", "/readyz", "GET")):
            with self.subTest(method=method, path=path):
                answer = self.status(head_of(None, path, method))
                self.assertEqual((answer.status, answer.headers["allow"]), (405, allow))

    def test_only_xml_is_taken(self):
        body = body_of("fake.x")
        for kind in (None, "", "text/plain", "application/json", "text/xmlx", "text/xml2; charset=utf-8",
                     "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            with self.subTest(kind):
                self.assertEqual(self.status(head_of(len(body), kind=kind) + body).status, 415)
        for kind in ("text/xml", "TEXT/XML", "text/xml; charset=utf-8", "text/xml ;charset=utf-8", "application/xml"):
            with self.subTest(kind):
                self.assertEqual(self.status(head_of(len(body), kind=kind) + body).value(), "fake.x")

    def test_a_length_must_be_given(self):
        self.assertEqual(self.status(head_of(None)).status, 411)

    def test_a_body_past_the_limit_is_refused_before_it_is_sent(self):
        for length in (131073, 1 << 31, (1 << 63) - 1):
            with self.subTest(length):
                before = self.front.counts()
                answer = self.status(head_of(length))
                self.assertEqual((answer.status, answer.headers["connection"].lower()), (413, "close"))
                self.assertEqual(self.front.counts(), before)

    def test_a_body_at_the_limit_is_taken(self):
        body = body_of("fake.x")
        body += b" " * (131072 - len(body))
        for name, door in self.doors():
            with self.subTest(door=name):
                answer = self.status(head_of(len(body)) + body, door)
                self.assertEqual(answer.status, 200)
                self.assertIn(b"methodResponse", answer.body)

    def test_a_body_that_comes_in_drops_is_one_call(self):
        data = post("fake.call", more=[f"X-SMAPI-Op-Id: {OP}"])
        with self.front.admin() as wire:
            for i in range(len(data)):
                wire.send(data[i:i + 1])
            self.assertEqual(wire.answer().value()["op"], OP)

    def test_a_body_that_is_no_call_is_a_fault(self):
        for body in (b"", b"<", b"<?xml version='1.0'?><methodCall/>", b"\0" * 100, b"\xff" * 100):
            with self.subTest(body):
                answer = self.status(head_of(len(body)) + body)
                self.assertEqual(answer.status, 200)
                with self.assertRaises(xmlrpc.client.Fault) as fault:
                    answer.value()
                self.assertEqual(fault.exception.faultCode, 143)

    def test_the_operation_id_is_bound_to_the_body(self):
        call = self.front.ask("fake.call", more=[f"X-SMAPI-Op-Id: {OP.upper()}"])
        self.assertEqual((call["op"], call["op_identity"]), (OP, "local"))
        self.assertEqual(call["digest"], hashlib.sha256(body_of("fake.call")).hexdigest())
        call = self.front.ask("fake.call")
        self.assertEqual((call["op"], call["digest"]), ("", ""))

    def test_an_operation_id_that_is_none_or_two_is_a_fault(self):
        before = self.front.counts()[0]
        for more in (["X-SMAPI-Op-Id: 12"], ["X-SMAPI-Op-Id:"], [f"X-SMAPI-Op-Id: {OP}x"],
                     [f"X-SMAPI-Op-Id: {OP}", f"X-SMAPI-Op-Id: {OP}"]):
            with self.subTest(more), self.assertRaises(xmlrpc.client.Fault) as fault:
                self.front.ask("fake.call", more=more)
            self.assertEqual(fault.exception.faultCode, 143)
        self.assertEqual(self.front.counts()[0], before)

    def test_a_trace_is_kept_when_it_is_one(self):
        good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        self.assertEqual(self.front.ask("fake.call", more=[f"traceparent: {good}"])["trace"], good)
        for bad in (good[:-1], good + "0", good.upper(), "00-" + "0" * 32 + good[35:], good[:36] + "0" * 16 + "-01",
                    "ff" + good[2:], good.replace("-", "_")):
            with self.subTest(bad):
                self.assertEqual(self.front.ask("fake.call", more=[f"traceparent: {bad}"])["trace"], "")

    def test_answers_carry_call_id_and_epoch(self):
        ids = []
        with self.front.admin() as wire:
            for method in ("fake.epoch", "fake.x", "fake.slow"):
                wire.send(post(method, 1))
                answer = wire.answer()
                ids.append(int(answer.headers["x-smapi-call-id"]))
                self.assertEqual(answer.headers["content-type"], "text/xml")
                self.assertEqual(answer.headers.get("x-smapi-epoch"), "7" if method == "fake.epoch" else None)
        self.assertEqual(ids, sorted(set(ids)))

    def test_a_large_answer_arrives_whole(self):
        with self.front.admin() as wire:
            wire.send(post("fake.large", 8 << 20))
            self.assertEqual(wire.answer().value(), "x" * (8 << 20))

    def test_pages(self):
        for name, door in self.doors():
            with self.subTest(door=name), door() as wire:
                for path, kind in (("/healthz", "text/plain"), ("/HEALTHCHECK", "text/plain"), ("/readyz", "text/plain"),
                                   ("/versions", "application/json"), ("/metrics", "text/plain")):
                    wire.send(head_of(None, path, "GET", kind=None))
                    answer = wire.answer()
                    self.assertEqual((answer.status, answer.headers["content-type"].split(";")[0]), (200, kind))

    def test_metrics_count_what_happens(self):
        def delta(before, name):
            return self.front.metrics().get(name, 0) - before.get(name, 0)
        before = self.front.metrics()
        for _ in range(3):
            self.front.ask("fake.x")
        with self.front.admin() as wire:
            wire.send(post("fake.x"))
            wire.answer()
            self.assertGreaterEqual(self.front.metrics()["smapid_connections"], 2)  # this one, and the asking one
        with self.front.unix() as wire:
            wire.send(head_of(1) + b"<")
            wire.answer()
        self.assertEqual(delta(before, 'smapid_calls_total{method="fake",fault="none"}'), 4)
        self.assertEqual(delta(before, 'smapid_calls_total{method="unknown",fault="BadRequest"}'), 1)
        self.assertEqual(delta(before, 'smapid_handshakes_total{resumed="false"}'), 1)
        end = ssl.cert_time_to_seconds(ssl._ssl._test_decode_cert(pki.path("server.crt"))["notAfter"])
        self.assertEqual(self.front.metrics()["smapid_certificate_end_seconds"], end)

    def test_metrics_are_in_the_form_that_is_asked_for(self):
        with self.front.unix() as wire:
            wire.send(head_of(None, "/metrics", "GET", kind=None))
            lines = wire.answer().body.decode().splitlines()
        known = set()
        for line in lines:
            if line.startswith("# TYPE "):
                self.assertRegex(line, r"^# TYPE smapid_[a-z_]+ (counter|gauge)$")
                known.add(line.split()[2])
            elif not line.startswith("# HELP "):
                self.assertRegex(line, r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.]+$')
                self.assertIn(line.split("{")[0].split(" ")[0], known)

    def test_the_standard_client_is_understood(self):
        context = ssl.create_default_context(cafile=pki.ca)
        context.load_cert_chain(*pki.pair("operator-bob"))
        with xmlrpc.client.ServerProxy(f"https://localhost:{self.front.port}/RPC2", context=context) as proxy:
            self.assertEqual(proxy.fake.hello(), "fake.hello")
            self.assertEqual(proxy.fake.call()["name"], "operator:bob")

    def test_a_call_ends_though_its_client_went_away(self):
        for name, door in self.doors():
            with self.subTest(door=name):
                reached, ended = self.front.counts()
                wires = [door() for _ in range(10)]
                for wire in wires:
                    wire.send(post("fake.slow", 200))
                until = time.monotonic() + 10
                while self.front.counts()[0] < reached + 10 and time.monotonic() < until:
                    time.sleep(0.01)
                for wire in wires:
                    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    wire.close()
                while self.front.counts()[1] < ended + 10 and time.monotonic() < until:
                    time.sleep(0.01)
                self.assertEqual(self.front.counts(), (reached + 10, ended + 10))

    def test_a_client_that_stops_in_the_middle_is_no_call(self):
        before = self.front.counts()
        for name, door in self.doors():
            for cut in (3, 60, -1):
                with self.subTest(door=name, cut=cut), door() as wire:
                    wire.send(post("fake.x")[:cut])
        self.assertEqual(self.front.counts(), before)

    def test_a_slow_call_keeps_nobody_waiting(self):
        with self.front.admin() as slow, self.front.admin() as quick:
            slow.send(post("fake.slow", 1500))
            began = time.monotonic()
            quick.send(post("fake.x"))
            self.assertEqual(quick.answer().value(), "fake.x")
            self.assertLess(time.monotonic() - began, 1)
            self.assertEqual(slow.answer().value(), "fake.slow")


class Limits(FrontTest):
    settings = {"limits__workers": 4, "limits__sr_workers": 2, "limits__sr_queue": 3, "limits__connections": 16,
                "limits__idle_seconds": 2}

    def test_past_the_queue_of_an_sr_calls_are_busy(self):
        wires = [self.front.unix() for _ in range(8)]
        for wire in wires:
            wire.send(post("fake.slow", 700, HOST))
            time.sleep(0.02)
        codes = []
        for wire in wires:
            try:
                codes.append(wire.answer().value())
            except xmlrpc.client.Fault as fault:
                codes.append(fault.faultCode)
            wire.close()
        self.assertEqual(codes, ["fake.slow"] * 5 + [2003] * 3)

    def test_another_sr_is_served_while_one_hangs(self):
        hung = [self.front.unix() for _ in range(4)]
        for wire in hung:
            wire.send(post("fake.slow", 1500, HOST))
        time.sleep(0.1)
        began = time.monotonic()
        self.assertEqual(self.front.ask("fake.slow", 1, LOCAL), "fake.slow")
        self.assertLess(time.monotonic() - began, 1)
        for wire in hung:
            self.assertEqual(wire.answer().value(), "fake.slow")
            wire.close()

    def test_an_idle_connection_is_closed(self):
        for name, door in self.doors():
            with self.subTest(door=name), door() as wire:
                began = time.monotonic()
                self.assertTrue(wire.closed())
                self.assertLess(time.monotonic() - began, 8)

    def test_a_call_may_take_longer_than_an_idle_connection(self):
        waiting = [(name, door()) for name, door in self.doors()]
        for _, wire in waiting:
            wire.send(post("fake.slow", 4000))
        for name, wire in waiting:
            with self.subTest(door=name), wire:
                self.assertEqual(wire.answer().value(), "fake.slow")

    def test_connections_past_the_limit_do_not_stop_the_first(self):
        with self.front.unix() as first:
            first.send(post("fake.x"))
            self.assertEqual(first.answer().value(), "fake.x")
            more = []
            for _ in range(40):
                try:
                    more.append(self.front.unix())
                except OSError:
                    break
            first.send(post("fake.y"))
            self.assertEqual(first.answer().value(), "fake.y")
            for wire in more:
                wire.close()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                self.assertEqual(self.front.ask("fake.z"), "fake.z")
                return
            except (AttributeError, OSError):
                time.sleep(0.1)
        self.fail("it does not recover")


class Life(unittest.TestCase):
    def front(self, environment=None, **settings):
        front = Front(pki, environment, **settings)
        self.addCleanup(front.close)
        return front

    def run_daemon(self, *args, **more):
        return subprocess.run([DAEMON, *args], capture_output=True, text=True, timeout=20, **more)

    def test_the_end_answers_all_calls_under_way(self):
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal_number):
                front = self.front()
                wires = [door() for door in (front.admin, front.unix) for _ in range(10)]
                for wire in wires:
                    wire.send(post("fake.slow", 1000))
                until = time.monotonic() + 10
                while front.counts()[0] < 20 and time.monotonic() < until:
                    time.sleep(0.01)
                os.kill(front.process.pid, signal_number)
                self.assertEqual([wire.answer().value() for wire in wires], ["fake.slow"] * 20)
                self.assertEqual(front.ended(), 0)
                self.assertFalse(os.path.exists(front.socket))
                for wire in wires:
                    wire.close()

    def test_while_it_ends_nothing_new_is_begun(self):
        front = self.front()
        with front.admin() as slow, front.admin() as late:
            late.send(post("fake.x"))
            late.answer()
            slow.send(post("fake.slow", 1000))
            time.sleep(0.3)
            front.terminate()
            time.sleep(0.3)
            late.send(post("fake.late"))
            self.assertEqual(late.answer().status, 503)
            with self.assertRaises(OSError), front.unix():
                pass
            with self.assertRaises(OSError), front.admin():
                pass
            self.assertEqual(slow.answer().value(), "fake.slow")
        self.assertEqual(front.ended(), 0)

    def test_a_client_that_does_not_read_cannot_stop_the_end(self):
        front = self.front()
        with front.unix() as wire:
            wire.send(post("fake.large", 32 << 20))
            while front.counts()[1] < 1:
                time.sleep(0.01)
            front.terminate()
            self.assertEqual(front.ended(20), 0)

    def test_a_second_daemon_on_the_same_state_says_so_at_once(self):
        front = self.front()
        began = time.monotonic()
        run = subprocess.run(front.argv(server__socket=front.socket + "2"), capture_output=True, text=True, timeout=20)
        self.assertEqual(run.returncode, 75)
        self.assertIn(front.state, run.stderr)
        if not os.environ.get("SMAPI_SANITIZE"):
            self.assertLess(time.monotonic() - began, 1)
        self.assertEqual(front.ask("fake.x"), "fake.x")

    def test_a_dead_daemons_socket_is_replaced_a_living_ones_is_not(self):
        first = self.front()
        second = subprocess.run(first.argv(server__state=first.state + "2"), capture_output=True, text=True, timeout=20)
        self.assertEqual((second.returncode, "another process answers" in second.stderr), (71, True), second.stderr)
        self.assertEqual(first.ask("fake.x"), "fake.x")
        stale = os.path.join(first.dir, "stale")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(stale)
        third = self.front(server__socket=stale)
        self.assertEqual(third.ask("fake.x"), "fake.x")
        plain = os.path.join(first.dir, "plain")
        with open(plain, "w", encoding="ascii") as out:
            out.write("keep me")
        fourth = subprocess.run(first.argv(server__state=first.state + "3", server__socket=plain), capture_output=True,
                                text=True, timeout=20)
        self.assertEqual(fourth.returncode, 71)
        with open(plain, encoding="ascii") as kept:
            self.assertEqual(kept.read(), "keep me")

    def test_it_serves_while_a_repository_recovers(self):
        front = self.front({"FAKE_RECOVERY_MS": "1500"})
        statuses = []
        with front.unix() as wire:
            until = time.monotonic() + 10
            while 200 not in statuses and time.monotonic() < until:
                wire.send(head_of(None, "/readyz", "GET", kind=None))
                statuses.append(wire.answer().status)
                time.sleep(0.05)
        self.assertEqual(sorted(set(statuses)), [200, 503])

    def test_a_key_that_others_could_read_refuses_the_start(self):
        front = self.front()
        for mode in (0o644, 0o640, 0o604, 0o700):
            with self.subTest(oct(mode)):
                key = os.path.join(front.dir, "loose.key")
                with open(pki.path("server.key"), "rb") as good, open(key, "wb") as out:
                    out.write(good.read())
                os.chmod(key, mode)
                run = subprocess.run(front.argv(tls__key=key), capture_output=True, text=True, timeout=20)
                self.assertEqual(run.returncode, 78)
                self.assertIn(f"{key} has mode {mode:04o}", run.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to give a file away")
    def test_a_key_of_another_user_refuses_the_start(self):
        front = self.front()
        key = os.path.join(front.dir, "given.key")
        with open(pki.path("server.key"), "rb") as good, open(key, "wb") as out:
            out.write(good.read())
        os.chmod(key, 0o600)
        os.chown(key, 12345, 12345)
        run = subprocess.run(front.argv(tls__key=key), capture_output=True, text=True, timeout=20)
        self.assertEqual((run.returncode, "uid 12345" in run.stderr), (78, True))

    def test_files_that_are_no_certificates_are_named(self):
        front = self.front()
        for key, path, words in (("tls__key", pki.path("admin-alice.key"), "admin-alice.key"),
                                 ("tls__certificate", "/nonexistent.crt", "/nonexistent.crt: No such file"),
                                 ("tls__client_ca", pki.path("server.key"), "holds no CA certificate")):
            with self.subTest(key):
                run = subprocess.run([*front.argv(**{key: path}), "--check-config"], capture_output=True, text=True,
                                     timeout=20)
                self.assertEqual((run.returncode, words in run.stderr), (78, True), run.stderr)

    def test_a_wrong_setting_is_told_with_file_and_line(self):
        front = self.front()
        path = os.path.join(front.dir, "wrong.conf")
        with open(path, "w", encoding="ascii") as out:
            out.write("[server]\n\nprot = 1\n")
        run = self.run_daemon("--config", path)
        self.assertEqual((run.returncode, run.stderr), (78, f'smapid: {path}:3: section server has no key "prot"\n'))
        self.assertEqual(self.run_daemon("--set", "server.port=70000").returncode, 78)
        self.assertEqual(self.run_daemon("--wrong").returncode, 64)
        self.assertEqual(self.run_daemon("stray").returncode, 64)

    def test_the_sample_configuration_is_what_the_program_prints(self):
        run = self.run_daemon("--config", "/dev/null", "--print-config")
        with open(os.path.join(SOURCE, "deploy/smapid.conf"), encoding="utf-8") as sample:
            self.assertEqual(sample.read(), run.stdout)
        again = self.run_daemon("--config", os.path.join(SOURCE, "deploy/smapid.conf"), "--print-config")
        self.assertEqual((again.returncode, again.stdout), (0, run.stdout))

    def test_the_manual_has_every_setting_and_option(self):
        with open(os.path.join(SOURCE, "deploy/man/smapid.8"), encoding="utf-8") as page:
            manual = page.read().replace("\\-", "-").replace("\n", " ")
        section = ""
        for line in self.run_daemon("--config", "/dev/null", "--print-config").stdout.splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line.startswith("# "):
                self.assertIn(line[2:].split(" (")[0], manual)
            elif line:
                self.assertIn(f"{section}.{line.split(' =')[0]}", manual)
        for word in self.run_daemon("--help").stdout.replace("[", " ").replace("]", " ").split():
            if word.startswith("--"):
                self.assertIn(word.rstrip(":,;."), manual)

    def test_the_host_is_remembered_where_nothing_else_says_it(self):
        if os.path.exists("/etc/xensource-inventory"):
            self.skipTest("this is a Xen host")
        front = self.front(server__host="")
        with open(os.path.join(front.state, "host"), encoding="ascii") as kept:
            self.assertEqual(front.ask("fake.call")["host"], kept.read().strip())

    def test_its_own_files_are_its_own(self):
        front = self.front()
        self.assertEqual(stat.S_IMODE(os.stat(front.state).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(front.socket).st_mode), 0o600)
        with open(f"/proc/{front.process.pid}/limits", encoding="ascii") as limits:
            self.assertRegex(limits.read(), r"Max core file size +0 +0")

    def test_without_https_no_certificate_is_needed(self):
        front = self.front(server__listen="", tls__key="", tls__certificate="", tls__client_ca="")
        self.assertEqual((front.port, front.ask("fake.x")), (0, "fake.x"))

    def test_an_ipv6_address_is_served(self):
        front = self.front(server__listen="::1")
        context = ssl.create_default_context(cafile=pki.ca)
        context.load_cert_chain(*pki.pair("admin-alice"))
        with socket.create_connection(("::1", front.port), timeout=10) as raw, \
                context.wrap_socket(raw, server_hostname="localhost") as wire:
            wire.sendall(post("fake.x"))
            self.assertIn(b"200 OK", wire.recv(65536))


class MakePki(unittest.TestCase):
    def test_nothing_is_overwritten(self):
        before = {name: os.stat(pki.path(name)).st_mtime_ns for name in os.listdir(pki.dir)}
        for args in (["init"], ["server", "localhost"], ["host", HOST], ["admin", "alice"]):
            with self.subTest(args):
                run = make_pki(pki.dir, *args)
                self.assertEqual((run.returncode, "is there already" in run.stderr), (1, True))
        self.assertEqual(before, {name: os.stat(pki.path(name)).st_mtime_ns for name in before})

    def test_names_that_could_say_more_are_refused(self):
        for args in (["host", "localhost"], ["host", HOST + ",URI:urn:smapid:role:admin"], ["admin", "a/CN=b"],
                     ["admin", "a b"], ["admin", "-x"], ["admin", "a" * 41], ["server", "a,DNS:b"], ["server", "a b"],
                     ["host", HOST.upper()], ["admin", "a\nb"], ["root", "x"], ["server"], ["admin"]):
            with self.subTest(args):
                self.assertNotEqual(make_pki(pki.dir, *args).returncode, 0)

    def test_keys_are_private(self):
        for name in os.listdir(pki.dir):
            if name.endswith(".key"):
                self.assertEqual(stat.S_IMODE(os.stat(pki.path(name)).st_mode), 0o600, name)


class Crowd(FrontTest):
    def test_many_callers_get_their_own_answers(self):
        wrong = []

        def call(number):
            with (self.front.admin if number % 2 else self.front.unix)() as wire:
                for i in range(20):
                    method = f"fake.n{number}.{i}" if i % 3 else "fake.slow"
                    wire.send(post(method, 2))
                    if wire.answer().value() != method:
                        wrong.append(method)

        threads = [threading.Thread(target=call, args=(n,)) for n in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((wrong, self.front.counts()), ([], (600, 600)))


if __name__ == "__main__":
    unittest.main()
