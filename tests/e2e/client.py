# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients of smapid that share no code with it: http.client, xmlrpc.client and curl.

Client.call(method, ...) returns the result or raises Fault; Client.post(body) gives the whole Reply. The way a call is
written is its dialect: "spec" has typed values, as xmlrpc.client writes them; "xapi" has untyped ones in xapi's order.
"""
import http.client
import os
import socket
import ssl
import subprocess
import time
import xmlrpc.client
from xml.sax.saxutils import escape

XAPI_ORDER = ("host_ref command args device_config session_ref sr_sm_config sr_ref vdi_type sr_uuid vdi_ref vdi_location "
              "vdi_uuid driver_params vdi_sm_config new_uuid subtask_of vdi_on_boot vdi_allow_caching "
              "local_cache_sr").split()


class Fault(Exception):
    """An XML-RPC fault."""

    seen = set()  # codes of all that came, in this process

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")
        self.code, self.text = code, text
        Fault.seen.add(code)


class HttpError(Exception):
    """An answer that is no methodResponse."""

    def __init__(self, reply):
        super().__init__(f"HTTP {reply.status}: {reply.body[:200]!r}")
        self.status = reply.status


class Reply:
    """Status, headers (an email.message.Message or a dict with lower-case names) and the bytes of the body."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def value(self):
        if self.status != 200:
            raise HttpError(self)
        try:
            return xmlrpc.client.loads(self.body)[0][0]
        except xmlrpc.client.Fault as fault:
            raise Fault(fault.faultCode, fault.faultString) from None

    def header(self, name):
        return self.headers.get(name)


def untyped(value):
    """A value as xapi writes it: every leaf a bare string, the empty one <value/>."""
    if isinstance(value, dict):
        members = "".join(f"<member><name>{escape(k)}</name>{untyped(v)}</member>" for k, v in value.items())
        return f"<value><struct>{members}</struct></value>"
    if isinstance(value, (list, tuple)):
        return f"<value><array><data>{''.join(map(untyped, value))}</data></array></value>"
    if isinstance(value, bool):
        value = "true" if value else "false"
    return f"<value>{escape(str(value))}</value>" if value != "" else "<value/>"


def xapi_body(method, keys):
    """What xapi puts into argv[1]: all it always sends, in its order."""
    full = {"host_ref": "OpaqueRef:host", "command": method, "args": [], "device_config": {},
            "session_ref": "OpaqueRef:session", "sr_ref": "OpaqueRef:sr", "subtask_of": "OpaqueRef:task", **keys}
    full["device_config"] = {"SRmaster": "true", **full["device_config"]}
    ordered = {k: full[k] for k in XAPI_ORDER if k in full} | {k: v for k, v in full.items() if k not in XAPI_ORDER}
    inner = untyped(ordered)
    return f"<methodCall><methodName>{method}</methodName><params><param>{inner}</param></params></methodCall>".encode()


def spec_body(method, keys):
    return xmlrpc.client.dumps(({"args": [], "device_config": {}, **keys},), method).encode()


def plain_body(method, *params):
    """A call whose parameters are not one struct: introspection."""
    return xmlrpc.client.dumps(params, method).encode()


BODIES = {"spec": spec_body, "xapi": xapi_body}


class Client:
    """One keep-alive connection, for one thread. Subclasses say how to connect."""

    timeout = 60
    IDLE = 20  # seconds; a connection that was not used for longer is not used again: the server may be closing it

    def __init__(self, dialect="spec"):
        self.dialect = dialect
        self.last = None  # the Reply to the last call
        self._connection = None
        self._used = 0

    def connect(self):
        raise NotImplementedError

    def close(self):
        if self._connection:
            self._connection.close()
        self._connection = None

    def request(self, verb, path, body=None, headers=None):
        """One exchange. A broken connection is closed and its error raised: whether the call was done is unknown."""
        if self._used and time.monotonic() - self._used > self.IDLE:
            self.close()
        if not self._connection:
            self._connection = self.connect()
        try:
            try:
                self._connection.request(verb, path, body, headers or {})
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before the whole body was read: the answer may be there all the same
            answer = self._connection.getresponse()
            reply = Reply(answer.status, answer.headers, answer.read())
            self._used = time.monotonic()
            return reply
        except BaseException:
            self.close()
            raise

    def get(self, path):
        return self.request("GET", path)

    def verdict(self, body, path):
        """0, a fault's code, or a negative HTTP status, below 500; and the fault's sentence."""
        try:
            reply = self.post(body, path)
        except (OSError, http.client.HTTPException) as broken:
            raise AssertionError(f"the connection broke: {broken}") from broken
        assert reply.status < 500, reply.status
        try:
            reply.value()
        except Fault as fault:
            return fault.code, fault.text
        except HttpError as error:
            return -error.status, ""
        return 0, ""

    def post(self, body, path="/RPC2", op=None, headers=None):
        headers = {"Content-Type": "text/xml", **(headers or {})}
        if op:
            headers["X-SMAPI-Op-Id"] = op
        return self.request("POST", path, body, headers)

    def call(self, method, path="/RPC2", op=None, dialect=None, **keys):
        self.last = self.post(BODIES[dialect or self.dialect](method, keys), path, op)
        return self.last.value()

    def ask(self, method, *params):
        """An introspection call."""
        return self.post(plain_body(method, *params)).value()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class TlsConnection(http.client.HTTPConnection):
    """http.client.HTTPSConnection that reaches "localhost" at 127.0.0.1 and a port, whatever the resolver thinks."""

    def __init__(self, port, context, timeout):
        super().__init__("127.0.0.1", port, timeout=timeout)
        self.context = context

    def connect(self):
        super().connect()  # sets TCP_NODELAY
        self.sock = self.context.wrap_socket(self.sock, server_hostname="localhost")


class UnixClient(Client):
    """The local host: administrator, and holder of leases as the daemon's own host."""

    def __init__(self, lab, dialect="spec"):
        super().__init__(dialect)
        self.lab = lab

    def connect(self):
        return UnixConnection(self.lab.socket, self.timeout)


class TlsClient(Client):
    """certificate is the path of a certificate without its suffix; see Lab.identity."""

    def __init__(self, lab, certificate, dialect="spec"):
        super().__init__(dialect)
        self.lab, self.certificate = lab, certificate
        self.context = ssl.create_default_context(cafile=lab.pki.ca)
        self.context.load_cert_chain(certificate + ".crt", certificate + ".key")

    def connect(self):
        return TlsConnection(self.lab.port, self.context, self.timeout)


class ProxyClient(Client):
    """Python's own xmlrpc.client, over the connection of another client."""

    class Transport(xmlrpc.client.Transport):
        def __init__(self, connect):
            super().__init__()
            self.connect = connect

        def make_connection(self, host):
            if not self._connection[1]:
                self._connection = host, self.connect()
            return self._connection[1]

    def __init__(self, inner):
        super().__init__("spec")
        self.inner = inner

    def call(self, method, path="/RPC2", op=None, dialect=None, **keys):
        headers = [("X-SMAPI-Op-Id", op)] if op else []
        with xmlrpc.client.ServerProxy("http://localhost" + path, transport=self.Transport(self.inner.connect),
                                       headers=headers) as server:
            try:
                return getattr(server, method)({"args": [], "device_config": {}, **keys})
            except xmlrpc.client.Fault as fault:
                raise Fault(fault.faultCode, fault.faultString) from None


class CurlClient(Client):
    """The curl program with a certificate: a new connection for each call."""

    def __init__(self, lab, certificate, dialect="spec"):
        super().__init__(dialect)
        self.lab, self.certificate = lab, certificate

    def request(self, verb, path, body=None, headers=None):
        argv = ["curl", "--silent", "--show-error", "--max-time", str(self.timeout), "--include", "--http1.1",
                "--request", verb, "--cacert", self.lab.pki.ca, "--cert", self.certificate + ".crt",
                "--key", self.certificate + ".key", "--connect-to", f"localhost:{self.lab.port}:127.0.0.1:{self.lab.port}"]
        for name, value in (headers or {}).items():
            argv += ["--header", f"{name}: {value}"]
        if body is not None:
            argv += ["--data-binary", "@-", "--header", "Expect:"]
        argv.append(f"https://localhost:{self.lab.port}{path}")
        run = subprocess.run(argv, input=body, capture_output=True, check=False)
        if run.returncode:
            raise ConnectionError(f"curl: {run.stderr.decode()}")
        head, _, content = run.stdout.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        return Reply(int(lines[0].split()[1]), {**fields, **{k.lower(): v for k, v in fields.items()}}, content)


class BridgeClient(Client):
    """The plugin, run once per call as xapi runs it. It takes no operation id and shows no headers."""

    def __init__(self, lab, program):
        super().__init__("xapi")
        self.program = program
        self.plugins = os.path.join(lab.dir, "plugins")
        os.makedirs(self.plugins, exist_ok=True)
        conf = os.path.join(self.plugins, "bridge.conf")
        with open(conf, "w", encoding="ascii") as out:
            out.write(f"socket = {lab.socket}\n")
        self.environment = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin", "ORIGINATOR": "SM", "SMAPI_BRIDGE_CONF": conf}

    def plugin(self, kind):
        path = os.path.join(self.plugins, kind.capitalize() + "SR")
        if not os.path.lexists(path):
            os.symlink(self.program, path)
        return path

    def request(self, verb, path, body=None, headers=None):
        assert verb == "POST" and "X-SMAPI-Op-Id" not in headers, "not a call of xapi"
        stdin = os.open("/dev/null", os.O_WRONLY)
        try:
            run = subprocess.run([self.plugin(path.rsplit("/", 1)[1]), body], stdin=stdin, capture_output=True, cwd="/",
                                 env=self.environment, start_new_session=True, timeout=self.timeout, check=False)
        finally:
            os.close(stdin)
        if run.returncode:
            raise ConnectionError(f"bridge: {run.returncode} {run.stderr.decode()}")
        return Reply(200, {}, run.stdout)
