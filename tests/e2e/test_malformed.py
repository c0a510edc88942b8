# SPDX-License-Identifier: LGPL-2.1-or-later
"""2,000 broken bodies, always the same: each is answered by a fault or a 4xx soon, and none that the gate lets through is
refused by two other readers, expat and Python's xmlrpc.client."""
import glob
import os
import random
import re
import time
import unittest
import xml.parsers.expat
import xmlrpc.client
from http.client import HTTPException

from client import plain_body, spec_body, xapi_body
from lab import SANITIZED, SOURCE, LabTest, rounds

SEED = 6_03
SR = "5c1f4f3e-9d0a-4b57-8f53-0a6d1f2c7b11"
COUNT = 2000
TOKENS = [b"<value>", b"</value>", b"<value/>", b"<struct>", b"</struct>", b"<member>", b"</member>", b"<name>", b"</name>",
          b"<array>", b"</array>", b"<data>", b"</data>", b"<param>", b"</param>", b"<params>", b"</params>", b"<string>",
          b"</string>", b"<int>", b"</int>", b"<i4>", b"<i8>", b"<boolean>", b"<double>", b"<base64>", b"<nil/>",
          b"<methodCall>", b"</methodCall>", b"<methodName>", b"</methodName>", b"<?xml version='1.0'?>", b"<!DOCTYPE a>",
          b"<!ENTITY a 'b'>", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"&amp;", b"&a;", b"&#0;", b"&#x41;", b"&", b"<", b">",
          b"/>", b"</", b" a='b'", b" xmlns='x'", b"\0", b"\xff", b"\xc0\x80", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r\n", b"\t",
          b"\x0b", b"-", b"9" * 30, b"1e999", b"A" * 3000, b"=" * 5]


def sound_bodies():
    vdi = {"sr_uuid": SR, "device_config": {"a": "b", "c": ""}, "args": ["4194304", "label", "x & y <z>"],
           "vdi_sm_config": {"type": "raw"}, "session_ref": "OpaqueRef:1"}
    bodies = [spec_body("vdi_create", vdi), xapi_body("vdi_create", vdi), xapi_body("sr_scan", {"sr_uuid": SR}),
              plain_body("system.methodHelp", "sr_scan"), plain_body("system.listMethods"),
              plain_body("system.multicall", [{"methodName": "sr_scan", "params": [{"sr_uuid": SR}]}] * 3)]
    for path in sorted(glob.glob(os.path.join(SOURCE, "tests", "fuzz", "corpus", "gate", "*.xml"))):
        with open(path, "rb") as file:
            bodies.append(file.read())
    return bodies


def damage(body, chance):
    """One to four wounds."""
    body = bytearray(body)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        at, length = chance.randrange(len(body) + 1), chance.choice((1, 1, 2, 7, 40, 400))
        kind = chance.randrange(8)
        if kind == 0:
            body[at:at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del body[at:at + length]
        elif kind in (2, 3):
            body[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            body[at:at] = body[at:at + length]
        elif kind == 5:
            del body[at:]
        elif kind == 6:
            tags = [match.span() for match in re.finditer(rb"<[^>]*>", body)]
            if tags:
                start, end = chance.choice(tags)
                body[start:end] = chance.choice(TOKENS)
        else:
            body[at:at] = bytes(chance.choice(b"<>&;/'\"= \n") for _ in range(length))
        if not body:
            body = bytearray(b" ")
    return bytes(body)


def expat_reads(body):
    try:
        xml.parsers.expat.ParserCreate().Parse(body, True)
        return True
    except xml.parsers.expat.ExpatError:
        return False


def python_reads(body):
    try:
        xmlrpc.client.loads(body)
        return True
    except Exception:  # noqa: BLE001 (it raises whatever it stumbles over)
        return False


class Malformed(LabTest):
    def test_each_is_refused_soon_without_a_trace_and_no_reader_is_stricter(self):
        chance = random.Random(SEED)
        sound = sound_bodies()
        bodies = [damage(chance.choice(sound), chance) for _ in range(rounds(COUNT))]
        client = self.lab.unix()
        for body in sound + bodies[:200]:
            self.ask(client, body)
        before = self.lab.resident_kib()
        times, passed = [], 0
        for body in bodies:
            start = time.perf_counter()
            status, text = self.ask(client, body)
            times.append(time.perf_counter() - start)
            self.assertTrue(status == 200 or 400 <= status < 500, (status, body))
            refused_by_gate = status != 200 or b"at byte" in text
            if refused_by_gate:
                continue
            passed += 1
            self.assertTrue(expat_reads(body) or python_reads(body), body)
        times.sort()
        grown = self.lab.resident_kib() - before
        print(f"{len(bodies)} bodies, {passed} past the gate, p99 {times[len(times) * 99 // 100] * 1000:.2f} ms, "
              f"longest {times[-1] * 1000:.1f} ms, {grown} KiB more")
        self.assertGreater(passed, 0)
        self.assertLess(passed, len(bodies) / 2)
        if not SANITIZED:
            self.assertLess(times[len(times) * 99 // 100], 0.010)
            self.assertLess(grown, 1024)
        self.assertLessEqual(max(map(len, self.lab.log().splitlines())), 1024)
        self.assertTrue(self.lab.alive())

    def ask(self, client, body):
        try:
            reply = client.post(body, "/sm/dummy")
        except (OSError, HTTPException) as broken:
            self.fail(f"no answer to {body!r}: {broken}")
        if reply.status == 200:
            self.assertTrue(reply.body.startswith(b"<?xml"))
        return reply.status, reply.body


if __name__ == "__main__":
    unittest.main()
