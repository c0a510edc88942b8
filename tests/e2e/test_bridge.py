# SPDX-License-Identifier: LGPL-2.1-or-later
"""The exec bridge, run as xapi runs it, against a stand-in for the daemon on a UNIX socket.

Needs the environment SMAPI_BRIDGE (the program) and SMAPI_PLUGINS (the names it is installed by); with
SMAPI_BRIDGE_STATIC=1 its file is checked too.
"""
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid
import xml.dom.minidom
import xmlrpc.client

BRIDGE = os.environ["SMAPI_BRIDGE"]
PLUGINS = os.environ["SMAPI_PLUGINS"].split()
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
XAPI_ENVIRONMENT = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin", "ORIGINATOR": "SM"}
LONGEST_ARGUMENT = 131071
NIL = (b'<?xml version="1.0"?>\n<methodResponse><params><param><value><nil/></value></param></params>'
       b"</methodResponse>\n")


def call_of(method, extra=b""):
    return b"<methodCall><methodName>" + method.encode() + b"</methodName><params>" + extra + b"</params></methodCall>"


def fault_of(code, sentence):
    return xmlrpc.client.dumps(xmlrpc.client.Fault(code, sentence)).encode()


def http(body, status="200 OK", head=b""):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Type: text/xml\r\n%s\r\n%s" % (
        status.encode(), len(body), head, body)


class Request:
    """What the stand-in was sent."""

    def __init__(self, data):
        head, self.body = data.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        self.line = lines[0]
        self.headers = dict((name.lower(), value.strip()) for name, value in (l.split(":", 1) for l in lines[1:]))
        self.header_count = len(lines) - 1


class StandIn:
    """Listens at path and treats every connection by behave(connection), in a thread."""

    def __init__(self, path, behave):
        self.requests = []
        self.path = path
        self.behave = behave
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self.behave(self, connection)
                except OSError:
                    pass

    def read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, body = data.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(Request(head + b"\r\n\r\n" + body))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        os.unlink(self.path)


def replying(data):
    def behave(stand_in, connection):
        stand_in.read(connection)
        connection.sendall(data)
    return behave


class Outcome:
    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.err, self.seconds = status, out, err, seconds

    @property
    def fault(self):
        if not self.out.startswith(b"<?xml"):
            raise AssertionError("the answer starts with %r" % self.out[:40])
        try:
            xmlrpc.client.loads(self.out)
        except xmlrpc.client.Fault as fault:
            return fault
        raise AssertionError("no fault: %r" % self.out)


class BridgeTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="smapi-bridge-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.socket = os.path.join(self.directory, "socket")
        self.conf = os.path.join(self.directory, "bridge.conf")
        self.configure()
        for plugin in PLUGINS + ["NoSuchSR"]:
            os.symlink(BRIDGE, os.path.join(self.directory, plugin))

    def configure(self, *lines):
        with open(self.conf, "w") as f:
            f.write("# for a test\nsocket = %s\n" % self.socket + "".join(line + "\n" for line in lines))

    def stand_in(self, behave):
        stand_in = StandIn(self.socket, behave)
        self.addCleanup(stand_in.__exit__)
        return stand_in

    def start(self, *arguments, name="FileSR", environment=None):
        """The process of a call, as xapi makes it; its output goes to files out and err."""
        env = dict(XAPI_ENVIRONMENT, SMAPI_BRIDGE_CONF=self.conf)
        env.update(environment or {})
        with open(os.path.join(self.directory, "out"), "wb") as out, \
                open(os.path.join(self.directory, "err"), "wb") as err:
            null = os.open("/dev/null", os.O_WRONLY)
            try:
                return subprocess.Popen([os.path.join(self.directory, name), *arguments], env=env, cwd="/",
                                        stdin=null, stdout=out, stderr=err, start_new_session=True)
            finally:
                os.close(null)

    def finish(self, process, started):
        status = process.wait(timeout=30)
        seconds = time.monotonic() - started
        with open(os.path.join(self.directory, "out"), "rb") as out, \
                open(os.path.join(self.directory, "err"), "rb") as err:
            return Outcome(status, out.read(), err.read(), seconds)

    def run_bridge(self, *arguments, **how):
        started = time.monotonic()
        return self.finish(self.start(*arguments, **how), started)

    def assert_fault(self, outcome, code, *words):
        fault = outcome.fault
        self.assertEqual(fault.faultCode, code, fault.faultString)
        for word in words:
            self.assertIn(word, fault.faultString)
        self.assertEqual(outcome.err.decode(), fault.faultString + "\n")
        self.assertEqual(outcome.status, 0)


class Passing(BridgeTest):
    def test_the_daemon_gets_the_argument_byte_for_byte(self):
        stand_in = self.stand_in(replying(http(NIL)))
        short = call_of("vdi_create", "<value>a &amp; b \u20ac</value>".encode())
        longest = call_of("sr_scan", b"x" * (LONGEST_ARGUMENT - len(call_of("sr_scan"))))
        self.assertEqual(len(longest), LONGEST_ARGUMENT)
        for body in (short, b"\xff\x01\r\n\t not XML at all", b" ", longest):
            outcome = self.run_bridge(body)
            self.assertEqual((outcome.status, outcome.out, outcome.err), (0, NIL, b""))
            self.assertEqual(stand_in.requests[-1].body, body)
            self.assertEqual(stand_in.requests[-1].headers["content-length"], str(len(body)))

    def test_the_request_says_type_and_who_asks(self):
        stand_in = self.stand_in(replying(http(NIL)))
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        self.run_bridge(call_of("sr_scan"), environment={"TRACEPARENT": trace})
        self.run_bridge(call_of("sr_scan"), name="DummySR")
        first, second = stand_in.requests
        self.assertEqual(first.line, "POST /sm/file HTTP/1.1")
        self.assertEqual(second.line, "POST /sm/dummy HTTP/1.1")
        self.assertEqual(first.headers["content-type"], "text/xml")
        self.assertEqual(first.headers["connection"], "close")
        self.assertEqual(first.headers["originator"], "SM")
        self.assertEqual(first.headers["traceparent"], trace)
        self.assertNotIn("traceparent", second.headers)
        ids = [uuid.UUID(r.headers["x-smapi-op-id"]) for r in (first, second)]
        self.assertEqual([i.version for i in ids], [4, 4])
        self.assertNotEqual(*ids)

    def test_the_environment_cannot_add_headers(self):
        stand_in = self.stand_in(replying(http(NIL)))
        self.run_bridge(call_of("sr_scan"))
        good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for trace in (good + "\r\nx: y", good.upper(), good[:-1], "", "x" * 5000):
            for originator in ("SM\r\nx: y", "", "a b", "x" * 65):
                self.run_bridge(call_of("sr_scan"), environment={"TRACEPARENT": trace, "ORIGINATOR": originator})
        plain = stand_in.requests[0].header_count
        self.assertEqual({r.header_count for r in stand_in.requests[1:]}, {plain - 1})

    def test_the_reply_is_printed_byte_for_byte(self):
        for body in (NIL, NIL + b"\n\n", b"<?xml?>" + bytes(range(256)) * 4096, b"<?xml" + b" " * (16 * 1024 * 1024 - 5)):
            with self.subTest(length=len(body)), StandIn(self.socket, replying(http(body))):
                outcome = self.run_bridge(call_of("sr_scan"))
                self.assertTrue(outcome.out == body, "%d bytes printed of %d" % (len(outcome.out), len(body)))
                self.assertEqual((outcome.status, outcome.err), (0, b""))

    def test_a_reply_in_small_pieces_is_put_together(self):
        def behave(stand_in, connection):
            stand_in.read(connection)
            for byte in http(NIL):
                connection.sendall(bytes([byte]))
        self.stand_in(behave)
        self.assertEqual(self.run_bridge(call_of("sr_scan")).out, NIL)

    def test_an_answer_given_before_the_call_was_read_is_printed(self):
        def behave(stand_in, connection):
            connection.sendall(http(fault_of(2003, "Too many calls are waiting")))
        self.stand_in(behave)
        self.assert_fault(self.run_bridge(call_of("sr_scan", b"x" * 130000)), 2003, "Too many")


class DriverInfo(BridgeTest):
    CALL = call_of("sr_get_driver_info", b"<param><value><struct/></value></param>")

    def expanded(self, text, macro):
        """A macro's text, with those that it uses in it."""
        inner = re.search(r"^#define %s\(\w\)(.*)$" % macro, text, re.M).group(1)
        return re.sub(r"\b((?:CAPS|CONFIG)_\w+)\(\w\)", lambda used: self.expanded(text, used.group(1)), inner)

    def rows(self):
        with open(os.path.join(ROOT, "backends", "types.def")) as f:
            text = re.sub(r"/\*.*?\*/", "", f.read().replace("\\\n", " "), flags=re.S)
        rows = {}
        for name, title, sentence in re.findall(r'^TYPE\((\w+),[^"]*"[^"]*", "([^"]*)", *"([^"]*)"\)', text, re.M):
            define = lambda what: self.expanded(text, "%s_%s" % (what, name))
            rows[name] = (title, sentence, re.findall(r"\bC\(([\w/]+)\)", define("CAPS")),
                          re.findall(r'\bK\((\w+),[^"]*"([^"]*)"\)', define("CONFIG")))
        self.assertGreaterEqual(len(rows), 2)
        return rows

    def test_every_type_has_one_plugin_name(self):
        self.assertEqual(sorted(p[:-2].lower() for p in PLUGINS), sorted(self.rows()))

    def test_every_row_is_answered_without_a_daemon_and_without_a_configuration(self):
        with open(self.conf, "w") as f:
            f.write("broken")
        rows = self.rows()
        for plugin in PLUGINS:
            outcome = self.run_bridge(self.CALL, name=plugin)
            self.assertEqual((outcome.status, outcome.err), (0, b""))
            self.assertTrue(outcome.out.startswith(b"<?xml"))
            ((info,), method) = xmlrpc.client.loads(outcome.out)
            self.assertIsNone(method)
            title, sentence, capabilities, keys = rows[plugin[:-2].lower()]
            self.assertEqual(list(info), ["name", "description", "vendor", "copyright", "driver_version",
                                          "required_api_version", "fencing", "capabilities", "configuration"])
            self.assertEqual((info["name"], info["description"]), (title, sentence))
            self.assertEqual(info["capabilities"], capabilities)
            self.assertEqual(info["configuration"], [{"key": k, "description": d.replace("\\\\", "\\")} for k, d in keys])
            self.assertEqual(info["required_api_version"], "1.1")
            self.assertTrue(all(info[k] for k in ("vendor", "copyright", "driver_version")))

    def test_its_method_is_known_by_the_element_at_the_start_alone(self):
        stand_in = self.stand_in(replying(http(NIL)))
        ours = b'<?xml version="1.0" encoding="UTF-8"?>\n <methodCall>\n <methodName>sr_get_driver_info</methodName>'
        self.assertIn(b"required_api_version", self.run_bridge(ours).out)
        self.assertEqual(stand_in.requests, [])
        for theirs in (call_of("sr_scan", b"<methodName>sr_get_driver_info</methodName>"),
                       call_of("sr_get_driver_info2"), call_of("Sr_get_driver_info"), b"x" + self.CALL,
                       b"<!-- " + self.CALL + b" -->", b"<?xml " + self.CALL,
                       b"<methodCall><params/><methodName>sr_get_driver_info</methodName></methodCall>"):
            self.assertEqual(self.run_bridge(theirs).out, NIL)
            self.assertEqual(stand_in.requests[-1].body, theirs)

    def test_a_type_without_a_row_is_refused(self):
        self.assert_fault(self.run_bridge(self.CALL, name="NoSuchSR"), 48, "nosuch")

    def test_a_name_that_is_no_plugin_is_refused(self):
        for name in ("smapi-bridge", "SR", "A-BSR", "../x/F\u00e9SR", "x" * 33 + "SR"):
            path = os.path.join(self.directory, os.path.basename(name))
            os.symlink(BRIDGE, path)
            self.assert_fault(self.run_bridge(call_of("sr_scan"), name=os.path.basename(name)), 48, "called as")


class Failing(BridgeTest):
    def test_a_daemon_that_is_not_there_is_said_at_once(self):
        outcome = self.run_bridge(call_of("sr_scan"))
        self.assert_fault(outcome, 47, self.socket, "No such file or directory")
        self.assertLess(outcome.seconds, 2)

    def test_a_socket_nobody_listens_on_is_said_at_once(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.socket)
        outcome = self.run_bridge(call_of("sr_scan"))
        self.assert_fault(outcome, 47, self.socket, "Connection refused")
        self.assertLess(outcome.seconds, 2)

    def hang(self, behave):
        self.configure("deadline_seconds = 1")
        self.stand_in(behave)
        outcome = self.run_bridge(call_of("sr_scan", b"x" * 130000))
        self.assert_fault(outcome, 2004, self.socket, "1 s")
        self.assertGreater(outcome.seconds, 0.9)
        self.assertLess(outcome.seconds, 4)

    def test_a_daemon_that_never_answers_meets_the_deadline(self):
        def behave(stand_in, connection):
            stand_in.read(connection)
            time.sleep(6)
        self.hang(behave)

    def test_a_daemon_that_never_reads_meets_the_deadline(self):
        def behave(stand_in, connection):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            time.sleep(6)
        self.hang(behave)

    def test_a_daemon_that_drips_meets_the_deadline(self):
        def behave(stand_in, connection):
            stand_in.read(connection)
            for byte in http(NIL):
                connection.sendall(bytes([byte]))
                time.sleep(0.2)
        self.hang(behave)

    def test_a_full_queue_meets_the_deadline(self):
        self.configure("deadline_seconds = 1")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
            listener.bind(self.socket)
            listener.listen(0)
            waiting.connect(self.socket)
            outcome = self.run_bridge(call_of("sr_scan"))
        self.assert_fault(outcome, 2004, "connecting")
        self.assertLess(outcome.seconds, 4)

    def test_an_answer_that_makes_no_sense_is_a_fault(self):
        whole = http(NIL)
        for answer, words in (
                (b"", "closed before"),
                (b"HTTP/1.1 200 OK\r\n", "closed before"),
                (whole[:-1], "closed before"),
                (whole[:whole.index(b"\r\n\r\n") + 4], "closed before"),
                (b"SSH-2.0-OpenSSH\r\n", "status line"),
                (b"HTTP/1.1 2000 OK\r\n\r\n", "status line"),
                (b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n", "status line"),
                (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "NUL"),
                (b"HTTP/1.1 200 OK\r\n\r\n" + NIL, "no length"),
                (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunks"),
                (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "length"),
                (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx", "length"),
                (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\nx", "length"),
                (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20000, "no end"),
                (whole + b"x", "longer"),
                (http(b"\n" + NIL), "XML"),
                (http(b""), "XML"),
                (http(b"<html>"), "XML")):
            with self.subTest(answer=answer[:60]), StandIn(self.socket, replying(answer)):
                self.assert_fault(self.run_bridge(call_of("sr_scan")), 200, self.socket, words)

    def test_an_answer_larger_than_the_ceiling_is_refused_unread(self):
        self.stand_in(replying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (16 * 1024 * 1024 + 1)))
        self.assert_fault(self.run_bridge(call_of("sr_scan")), 200, "16777217", "more than")

    def test_another_status_is_a_fault_with_its_first_line(self):
        for status, code in (("404 Not Found", 143), ("413 Content Too Large", 143), ("503 Unavailable", 200),
                             ("302 Found", 200)):
            with self.subTest(status=status), \
                    StandIn(self.socket, replying(http(b"not here <\x01>\r\nsecond", status))):
                outcome = self.run_bridge(call_of("sr_scan"))
                self.assert_fault(outcome, code, "HTTP " + status[:3], "not here <?>")
                self.assertNotIn(b"second", outcome.out)

    def test_arguments_that_are_not_one_call_are_refused(self):
        stand_in = self.stand_in(replying(http(NIL)))
        self.assert_fault(self.run_bridge(), 143, "have 0")
        self.assert_fault(self.run_bridge(call_of("sr_scan"), b"x"), 143, "have 2")
        self.assert_fault(self.run_bridge(b""), 143, "empty")
        self.assertEqual(stand_in.requests, [])

    def test_stdout_that_cannot_be_written_is_an_exit_status(self):
        self.stand_in(replying(http(NIL)))
        with open("/dev/full", "wb") as full:
            status = subprocess.call([os.path.join(self.directory, "FileSR"), call_of("sr_scan")], stdout=full,
                                     env=dict(XAPI_ENVIRONMENT, SMAPI_BRIDGE_CONF=self.conf))
        self.assertEqual(status, 1)

    def test_a_reader_that_went_away_kills_nothing(self):
        self.stand_in(replying(http(NIL)))
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            status = subprocess.call([os.path.join(self.directory, "FileSR"), call_of("sr_scan")], stdout=pipe,
                                     env=dict(XAPI_ENVIRONMENT, SMAPI_BRIDGE_CONF=self.conf))
        self.assertEqual(status, 1)


class Faults(BridgeTest):
    SENTENCE = "The VDI is currently in use [opterr=held by <host> & \"it's\" \u20ac]"

    def test_a_fault_is_exit_zero_and_its_sentence_is_on_stderr(self):
        reply = fault_of(24, self.SENTENCE)
        self.stand_in(replying(http(reply)))
        outcome = self.run_bridge(call_of("vdi_activate"))
        self.assertEqual((outcome.status, outcome.out), (0, reply))
        self.assertEqual(outcome.err.decode(), self.SENTENCE + "\n")

    def test_of_a_fault_with_a_document_only_that_is_on_stderr(self):
        document = ('<?xml version="1.0" ?>\n<iscsi-target-iqns>\n\t<TGT><TargetIQN>iqn.2026-11.a:&lt;b&gt;</TargetIQN></TGT>\n'
                    "</iscsi-target-iqns>\n")
        reply = fault_of(96, "The request is missing ... [opterr=2 targets]\n" + document)
        self.stand_in(replying(http(reply)))
        outcome = self.run_bridge(call_of("sr_probe"))
        self.assertEqual((outcome.status, outcome.out), (0, reply))
        self.assertEqual(outcome.err.decode().rstrip("\n"), document.rstrip("\n"))
        self.assertEqual(xml.dom.minidom.parseString(outcome.err).documentElement.tagName, "iscsi-target-iqns")

    def test_a_document_of_a_thousand_entries_reaches_stderr_whole(self):
        document = '<?xml version="1.0" ?>\n<l>' + "<e>%s</e>" % ("x" * 100) * 2300 + "</l>\n"
        self.stand_in(replying(http(fault_of(107, "The SCSIid [opterr=which]\n" + document))))
        self.assertEqual(self.run_bridge(call_of("sr_probe")).err.decode().strip(), document.strip())

    def test_a_second_line_that_is_no_document_is_shown_with_the_first(self):
        self.stand_in(replying(http(fault_of(68, "no\n<?xmlish"))))
        self.assertEqual(self.run_bridge(call_of("sr_probe")).err, b"no\n<?xmlish\n")

    def test_references_in_a_sentence_are_resolved_for_people(self):
        reply = (b"<?xml version='1.0'?><methodResponse><fault><value><struct>"
                 b"<member><name>faultString</name><value>a&#39;&#x22;&apos;&quot;&#13;&#8364;&#;&bad;&</value></member>"
                 b"<member><name>faultCode</name><value><i4>24</i4></value></member>"
                 b"</struct></value></fault></methodResponse>")
        self.stand_in(replying(http(reply)))
        self.assertEqual(self.run_bridge(call_of("sr_scan")).err, b"a'\"'\"\r&#8364;&#;&bad;&\n")

    def test_a_value_that_looks_like_a_fault_is_none(self):
        reply = xmlrpc.client.dumps((fault_of(24, "x").decode(),), methodresponse=True).encode()
        self.stand_in(replying(http(reply)))
        self.configure("exit_status = fault")
        outcome = self.run_bridge(call_of("sr_scan"))
        self.assertEqual((outcome.status, outcome.out, outcome.err), (0, reply, b""))

    def test_the_specifications_exit_status_is_the_fault_capped(self):
        self.configure("exit_status = fault")
        outcome = self.run_bridge(call_of("sr_scan"))
        self.assertEqual((outcome.status, outcome.fault.faultCode), (47, 47))
        stand_in = self.stand_in(None)
        for code, status in ((24, 24), (125, 125), (126, 125), (2004, 125), (0, 1)):
            stand_in.behave = replying(http(fault_of(code, "x")))
            self.assertEqual(self.run_bridge(call_of("sr_scan")).status, status)
            self.assertEqual(self.run_bridge(call_of("sr_scan")).fault.faultCode, code)


class Configuration(BridgeTest):
    def test_a_file_that_is_wrong_is_a_fault_naming_the_line(self):
        for line, words in (("sokcet = /x", "unknown key sokcet"), ("socket /x", "key = value"),
                            ("socket = x", "absolute path"), ("socket = /" + "x" * 107, "absolute path"),
                            ("deadline_seconds = 0", "1 to 86400"), ("deadline_seconds = 86401", "1 to 86400"),
                            ("deadline_seconds = 1s", "1 to 86400"), ("deadline_seconds =", "1 to 86400"),
                            ("exit_status = 1", "zero or fault")):
            self.configure(line)
            self.assert_fault(self.run_bridge(call_of("sr_scan")), 47, self.conf + " line 3", words)

    def test_a_file_that_cannot_be_read_is_a_fault(self):
        os.unlink(self.conf)
        self.assert_fault(self.run_bridge(call_of("sr_scan")), 47, self.conf, "No such file")
        os.mkdir(self.conf)
        self.assert_fault(self.run_bridge(call_of("sr_scan")), 47, self.conf, "Is a directory")
        os.rmdir(self.conf)
        with open(self.conf, "w") as f:
            f.write("#" * 5000)
        self.assert_fault(self.run_bridge(call_of("sr_scan")), 47, self.conf, "too large")

    def test_blanks_comments_and_a_missing_last_newline_are_fine(self):
        stand_in = self.stand_in(replying(http(NIL)))
        with open(self.conf, "w") as f:
            f.write("\n  # x = y\r\n\t socket=%s \r\n\n exit_status =zero" % self.socket)
        self.assertEqual(self.run_bridge(call_of("sr_scan")).out, NIL)
        self.assertEqual(len(stand_in.requests), 1)


class Secrets(BridgeTest):
    def test_the_arguments_are_overwritten_before_anything_is_waited_for(self):
        canary = b"S3cr3t-" + uuid.uuid4().hex.encode()
        seen, answered = threading.Event(), threading.Event()

        def behave(stand_in, connection):
            stand_in.read(connection)
            seen.set()
            answered.wait(10)
            connection.sendall(http(NIL))
        stand_in = self.stand_in(behave)
        started = time.monotonic()
        process = self.start(call_of("sr_attach", b"<value>" + canary + b"</value>"))
        self.assertTrue(seen.wait(10))
        with open("/proc/%d/cmdline" % process.pid, "rb") as f:
            line = f.read()
        answered.set()
        self.assertEqual(self.finish(process, started).out, NIL)
        self.assertIn(canary, stand_in.requests[0].body)
        self.assertIn(b"FileSR", line)
        self.assertEqual(line.split(b"FileSR", 1)[1].strip(b"\0"), b"")

    def test_no_failure_repeats_what_the_call_holds(self):
        canary = b"S3cr3t-" + uuid.uuid4().hex.encode()
        for arguments in ((call_of("sr_attach", canary),), (canary,), (canary, canary)):
            outcome = self.run_bridge(*arguments)
            self.assertNotIn(canary, outcome.out + outcome.err)
            self.assertTrue(outcome.fault)


class File(BridgeTest):
    @unittest.skipUnless(os.environ.get("SMAPI_BRIDGE_STATIC") == "1", "a sanitizer's build is dynamic")
    def test_it_is_static_and_small(self):
        with open(BRIDGE, "rb") as f:
            elf = f.read()
        self.assertEqual(elf[:6], b"\x7fELF\x02\x01")
        offset, = struct.unpack_from("<Q", elf, 32)
        size, count = struct.unpack_from("<HH", elf, 54)
        kinds = [struct.unpack_from("<I", elf, offset + i * size)[0] for i in range(count)]
        self.assertIn(1, kinds)
        self.assertNotIn(2, kinds, "has a dynamic section")
        self.assertNotIn(3, kinds, "wants an interpreter")
        stripped = os.path.join(self.directory, "stripped")
        subprocess.run(["strip", "-o", stripped, BRIDGE], check=True)
        self.assertLessEqual(os.path.getsize(stripped), 1 << 20)

    def test_pythons_runpy_finds_the_bridge_in_it(self):
        """An observer of xapi's starts plugins so; runpy is what it calls."""
        self.stand_in(replying(http(NIL)))
        script = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", script, os.path.join(self.directory, "FileSR"),
                               call_of("sr_scan")], env=dict(XAPI_ENVIRONMENT, SMAPI_BRIDGE_CONF=self.conf),
                              stdout=subprocess.PIPE, timeout=30)
        self.assertEqual((done.returncode, done.stdout), (0, NIL))


if __name__ == "__main__":
    unittest.main()
