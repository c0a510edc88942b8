# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that mean no good: they hold connections of three kinds, as many of each as asked for, until stdin closes.
   handshake  connect, and send one byte a second of no TLS record that ever ends
   head       a TLS connection, and one byte a second of a request's head
   body       a whole head, and one byte a second of its body
A connection that the server ends is replaced by another half a second later. usage: slow_clients PORT COUNT CA (CERTIFICATE KEY)…
One line "held" when each was there once; at the end one line with how often each kind was closed by the server, and the longest
that one lasted: kind closed seconds …
"""
import selectors
import socket
import ssl
import sys
import time

HEAD = b"POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: 100000\r\n"
KINDS = ("handshake", "head", "body")


class Slow:
    """One connection, made anew when it ends."""

    def __init__(self, kind, port, context, selector):
        self.kind, self.port, self.context, self.selector = kind, port, context, selector
        self.was_there = False
        self.connect()

    def connect(self):
        self.began = time.monotonic()
        self.sent, self.sock, self.ready, self.connected = 0, socket.socket(), False, False
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", self.port))
        self.selector.register(self.sock, selectors.EVENT_WRITE, self)

    def event(self):
        """False when the server has ended it."""
        try:
            if not self.connected:
                self.wrap()
            if not self.ready:
                self.shake()
            elif self.sock.recv(4096) == b"":
                return False
        except (ssl.SSLWantReadError, BlockingIOError):
            self.selector.modify(self.sock, selectors.EVENT_READ, self)
        except ssl.SSLWantWriteError:
            self.selector.modify(self.sock, selectors.EVENT_WRITE, self)
        except OSError:
            return False
        return True

    def wrap(self):
        self.connected = True
        if self.kind == "handshake":
            return
        self.selector.unregister(self.sock)
        try:
            self.sock = self.context.wrap_socket(self.sock, server_hostname="localhost", do_handshake_on_connect=False)
        finally:
            self.selector.register(self.sock, selectors.EVENT_WRITE, self)

    def shake(self):
        if self.kind != "handshake":
            self.sock.do_handshake()
        self.ready = self.was_there = True
        if self.kind == "body":
            self.sock.send(HEAD + b"\r\n")
        self.selector.modify(self.sock, selectors.EVENT_READ, self)

    def drip(self):
        if not self.ready:
            return
        text = {"handshake": b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + b"\3" * 100, "head": HEAD, "body": b"<" * 100}
        try:
            self.sock.send(text[self.kind][self.sent:self.sent + 1])
            self.sent += 1
        except (OSError, ssl.SSLError):
            pass  # its end is seen by event

    def close(self):
        """How long it lasted."""
        self.selector.unregister(self.sock)
        self.sock.close()
        self.ready = False
        self.ended = time.monotonic()
        return self.ended - self.began


def main():
    port, count, ca, pairs = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    contexts = []
    for pair in zip(pairs[::2], pairs[1::2]):
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(*pair)
        contexts.append(context)
    selector = selectors.DefaultSelector()
    slow = [Slow(kind, port, contexts[n % len(contexts)], selector) for n in range(count) for kind in KINDS]
    closed, longest = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0.0)
    selector.register(sys.stdin, selectors.EVENT_READ)
    dripped, held, ended = time.monotonic(), False, []
    while True:
        for key, _ in selector.select(0.1):
            if key.data is None:
                print(" ".join(f"{kind} {closed[kind]} {longest[kind]:.2f}" for kind in KINDS), flush=True)
                return
            if not key.data.event():
                closed[key.data.kind] += 1
                longest[key.data.kind] = max(longest[key.data.kind], key.data.close())
                ended.append(key.data)
        while ended and time.monotonic() - ended[0].ended > 0.5:
            ended.pop(0).connect()
        if not held and all(s.was_there for s in slow):
            held = True
            print("held", flush=True)
        if time.monotonic() - dripped >= 1:
            dripped = time.monotonic()
            for one in slow:
                one.drip()


if __name__ == "__main__":
    main()
