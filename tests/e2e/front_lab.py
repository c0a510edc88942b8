# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of the front need: certificates good and bad, the front daemon (smapid with a dispatch that only tells how
it was called), and raw connections to it. Environment: SMAPI_BUILD, the build directory."""
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import xmlrpc.client

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DAEMON = os.path.join(os.environ.get("SMAPI_BUILD", os.path.join(SOURCE, "build/dev")), "tests/unit/front_daemon")
HOST = "aaaaaaaa-2222-3333-4444-555555555555"
LOCAL = "bbbbbbbb-2222-3333-4444-555555555555"


def openssl(*args, **more):
    subprocess.run(["openssl", *args], check=True, capture_output=True, **more)


def make_pki(*args):
    return subprocess.run([os.path.join(SOURCE, "certs/make-pki"), *args], capture_output=True, text=True)


class Pki:
    """A CA with server, host and people, and certificates that must not get in, in one directory."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="front-pki-")
        for args in (["init"], ["server", "localhost", "127.0.0.1"], ["host", HOST], ["admin", "alice"],
                     ["operator", "bob"], ["reader", "carol"]):
            run = make_pki(self.dir, *args)
            assert run.returncode == 0, run.stderr
        make_pki(os.path.join(self.dir, "other"), "init")
        make_pki(os.path.join(self.dir, "other"), "admin", "mallory")
        self.ca = self.path("ca.crt")

    def path(self, name):
        return os.path.join(self.dir, name)

    def pair(self, name):
        return self.path(name + ".crt"), self.path(name + ".key")

    def key(self, name, kind=("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")):
        openssl("genpkey", *kind, "-out", self.path(name + ".key"))

    def sign(self, name, subject="/CN=alice", san="URI:urn:smapid:role:admin", usage="clientAuth", ca=None,
             start=None, end=None, extra="", authority=False, **key):
        """Any certificate: an own small CA run of openssl, as make-pki makes only good ones."""
        ca_crt, ca_key = ca or (self.ca, self.path("ca.key"))
        self.key(name, **key)
        openssl("req", "-new", "-key", self.path(name + ".key"), "-subj", subject, "-out", self.path(name + ".csr"),
                "-config", "/dev/null", "-addext", "subjectKeyIdentifier=hash")
        with tempfile.TemporaryDirectory(dir=self.dir) as work:
            with open(os.path.join(work, "index.txt"), "w", encoding="ascii"):
                pass
            config = os.path.join(work, "ca.cnf")
            with open(config, "w", encoding="ascii") as out:
                out.write(f"[ca]\ndefault_ca=d\n[d]\ndatabase={work}/index.txt\nnew_certs_dir={work}\nrand_serial=yes\n"
                          "default_md=sha256\npolicy=p\nunique_subject=no\nutf8=yes\n[p]\ncommonName=optional\n[x]\n"
                          + ("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n" if authority else
                             "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n")
                          + (f"extendedKeyUsage={usage}\n" if usage else "")
                          + (f"subjectAltName={san}\n" if san else "") + extra)
            openssl("ca", "-batch", "-notext", "-config", config, "-extensions", "x", "-cert", ca_crt, "-keyfile", ca_key,
                    "-in", self.path(name + ".csr"), "-out", self.path(name + ".crt"),
                    "-startdate", start or "20200101000000Z", "-enddate", end or "20490101000000Z")
        return self.pair(name)

    def chain(self, name, length):
        """A client certificate under so many CAs, each signed by the one above, the first by ours; with all of them."""
        above = self.ca, self.path("ca.key")
        authorities = []
        for n in range(length):
            above = self.sign(f"{name}-{n}", subject=f"/CN=CA {n}", san=None, usage=None, ca=above, authority=True)
            authorities.append(above[0])
        pair = self.sign(name, ca=above)
        with open(pair[0], "a", encoding="ascii") as out:
            for path in reversed(authorities):
                with open(path, encoding="ascii") as more:
                    out.write(more.read())
        return pair

    def self_signed(self, name, subject="/CN=alice"):
        self.key(name)
        openssl("req", "-new", "-x509", "-key", self.path(name + ".key"), "-subj", subject, "-days", "30", "-out",
                self.path(name + ".crt"), "-addext", "subjectAltName=URI:urn:smapid:role:admin",
                "-addext", "extendedKeyUsage=clientAuth")
        return self.pair(name)

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Answer:
    """A response: status, headers (lower-case names, last of each), body."""

    def __init__(self, head, body):
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {n.strip().lower(): v.strip() for n, v in (x.split(":", 1) for x in lines[1:] if ":" in x)}
        self.body = body

    def value(self):
        """The value of a methodResponse; raises xmlrpc.client.Fault."""
        return xmlrpc.client.loads(self.body)[0][0]


class Wire:
    """A connection on which any bytes can be sent."""

    def __init__(self, sock):
        self.sock = sock
        self.rest = b""

    def send(self, data):
        self.sock.sendall(data)

    def _more(self):
        piece = self.sock.recv(65536)
        self.rest += piece
        return bool(piece)

    def answer(self):
        """The next response, or None when the connection was closed before a whole one."""
        try:
            while b"\r\n\r\n" not in self.rest:
                if not self._more():
                    return None
            head, self.rest = self.rest.split(b"\r\n\r\n", 1)
            length = int(re.search(rb"(?im)^content-length: *(\d+)", head).group(1))
            while len(self.rest) < length:
                if not self._more():
                    return None
        except (ConnectionError, ssl.SSLError):
            return None
        body, self.rest = self.rest[:length], self.rest[length:]
        return Answer(head, body)

    def closed(self):
        """Whether the other end closes, with nothing more to read."""
        try:
            return self.rest == b"" and self.sock.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def body_of(method, *params):
    return xmlrpc.client.dumps(params, method).encode()


def head_of(length, path="/RPC2", method="POST", more=(), kind="text/xml", host="localhost"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join([*lines, *more]) + "\r\n\r\n").encode("latin-1")


def post(method, *params, path="/RPC2", more=()):
    body = body_of(method, *params)
    return head_of(len(body), path=path, more=more) + body


class Front:
    """The daemon, from its start to its end. file: settings that stand in its file, where configure changes them; the
    others are given on the command line."""

    def __init__(self, pki, environment=None, file=None, **settings):
        self.pki = pki
        self.dir = tempfile.mkdtemp(prefix="front-")
        self.state = os.path.join(self.dir, "state")
        self.log_path = os.path.join(self.dir, "log")
        self.settings = {"server.listen": "127.0.0.1", "server.port": 0, "server.socket": os.path.join(self.dir, "sock"),
                         "server.state": self.state, "server.mount_base": os.path.join(self.dir, "mount"),
                         "server.host": LOCAL, "tls.certificate": pki.path("server.crt"),
                         "tls.key": pki.path("server.key"), "tls.client_ca": pki.ca,
                         **{k.replace("__", "."): v for k, v in settings.items()}}
        self.socket = self.settings["server.socket"]
        self.config = "/dev/null"
        self.reloads = 0
        if file is not None:
            self.config = os.path.join(self.dir, "conf")
            self.file = {}
            self.configure(**file)
        with open(self.log_path, "wb") as log:
            self.process = self.start(log, environment or {})
        self.port = self._wait_ready()

    def start(self, log, environment):
        return subprocess.Popen(self.argv(), stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **environment})

    def argv(self, **other):
        argv = [DAEMON, "--config", self.config]
        for key, value in {**self.settings, **{k.replace("__", "."): v for k, v in other.items()}}.items():
            argv += ["--set", f"{key}={value}"]
        return argv

    def configure(self, **settings):
        """Changes settings in the file, and takes them off the command line."""
        self.file.update({k.replace("__", "."): v for k, v in settings.items()})
        with open(self.config, "w", encoding="ascii") as out:
            for key, value in sorted(self.file.items()):
                self.settings.pop(key, None)
                section, name = key.split(".")
                out.write(f"[{section}]\n{name} = {value}\n")

    def said(self, text, count=1, seconds=10):
        """Waits until the log holds text so often."""
        until = time.monotonic() + seconds
        while self.log().count(text) < count:
            assert time.monotonic() < until, f"not said {count} times: {text}\n{self.log()}"
            time.sleep(0.01)

    def reload(self):
        """Sends SIGHUP and waits for the outcome's line, which is returned."""
        os.kill(self.process.pid, signal.SIGHUP)
        until = time.monotonic() + 10
        while True:
            outcomes = [line for line in self.log().splitlines()
                        if "reload: " in line and ("were read again" in line or "stays as it was" in line)]
            if len(outcomes) > self.reloads:
                self.reloads = len(outcomes)
                return outcomes[-1]
            assert time.monotonic() < until, self.log()
            time.sleep(0.01)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as text:
            return text.read()

    def _wait_ready(self):
        until = time.monotonic() + 30
        while time.monotonic() < until and self.process.poll() is None:
            ready = re.search(r"ready:(?: https \S+:(\d+))?", self.log())
            if ready:
                return int(ready.group(1) or 0)
            time.sleep(0.01)
        raise AssertionError(f"the front does not start:\n{self.log()}")

    def context(self, pair=None, low=None, high=None, ca=None):
        context = ssl.create_default_context(cafile=ca or self.pki.ca)
        if low:
            context.minimum_version, context.maximum_version = low, high or low
        if pair:
            context.load_cert_chain(*pair)
        return context

    def tls(self, pair=None, low=None, high=None, timeout=20, ca=None):
        """A TLS connection showing this certificate, or none. Raises what a refused handshake raises."""
        return self.shake(self.context(pair, low, high, ca), timeout=timeout)

    def raw(self, timeout=20):
        """A TCP connection on which nothing was sent."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return raw

    def shake(self, context, session=None, timeout=20):
        """A TLS connection of a context, resuming a session if one is given."""
        raw = self.raw(timeout)
        try:
            return Wire(context.wrap_socket(raw, server_hostname="localhost", session=session))
        except BaseException:
            raw.close()
            raise

    def admin(self):
        return self.tls(self.pki.pair("admin-alice"))

    def unix(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        try:
            sock.connect(self.socket)
        except OSError:
            sock.close()
            raise
        return Wire(sock)

    def ask(self, method, *params, more=(), path="/RPC2"):
        with self.unix() as wire:
            wire.send(post(method, *params, more=more, path=path))
            return wire.answer().value()

    def metrics(self):
        """/metrics as a dict of its lines."""
        with self.unix() as wire:
            wire.send(head_of(None, "/metrics", "GET", kind=None))
            lines = wire.answer().body.decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def counts(self):
        """How many calls reached dispatch so far, and how many of them ended."""
        return tuple(int(n) for n in self.ask("fake.counts").split(","))

    def terminate(self):
        os.kill(self.process.pid, signal.SIGTERM)

    def ended(self, seconds=30):
        return self.process.wait(seconds)

    def close(self):
        """Ends it in order; the status and the log must agree that all was well."""
        try:
            if self.process.poll() is None:
                self.terminate()
            status = self.ended()
            assert status == 0 and "Sanitizer" not in self.log(), f"ended with {status}:\n{self.log()}"
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.dir, ignore_errors=True)
