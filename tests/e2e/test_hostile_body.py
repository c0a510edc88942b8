# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bodies made to hurt: each gets a fault 143 or a 4xx soon, costs no memory that stays, and the daemon still serves."""
import random
import statistics
import time
import unittest

from client import spec_body
from lab import MIB, SANITIZED, Fault, HttpError, LabTest, new_uuid, rounds

HEAD = b'<?xml version="1.0"?>'
SEED = 20100901


def call(value, head=HEAD):
    return (head + b"<methodCall><methodName>sr_scan</methodName><params><param>" + value
            + b"</param></params></methodCall>")


def struct(*members):
    inner = b"".join(b"<member><name>%s</name><value>%s</value></member>" % member for member in members)
    return b"<value><struct>%s</struct></value>" % inner


def entity_bomb():
    lines = [b'<!ENTITY e0 "' + b"A" * 30 + b'">']
    lines += [b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 7)]
    return call(b"<value>&e6;</value>", HEAD + b"<!DOCTYPE x [" + b"".join(lines) + b"]>")


def quadratic():
    return call(b"<value>" + b"&a;" * 10_000 + b"</value>", HEAD + b'<!DOCTYPE x [<!ENTITY a "' + b"B" * 30_000 + b'">]>')


def external(uri):
    return call(b"<value>&x;</value>", HEAD + b'<!DOCTYPE x [<!ENTITY x SYSTEM "' + uri + b'">]>')


SR = new_uuid().encode()

BODIES = {
    "entity bomb": entity_bomb(),
    "quadratic entities": quadratic(),
    "external entity, file": external(b"file:///etc/passwd"),
    "external entity, http": external(b"http://127.0.0.1:1/"),
    "parameter entity": call(b"<value/>", HEAD + b'<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>'),
    "document type alone": call(struct((b"sr_uuid", SR), (b"device_config", b"<struct/>")), HEAD + b"<!DOCTYPE methodCall>"),
    "12,000 deep": call(b"<value><array><data>" * 3000 + b"</data></array></value>" * 3000),
    "12,000 deep and long": call(b"<value><array><data>" * 12_000 + b"</data></array></value>" * 12_000),
    "17 deep": call(b"<value><array><data>" * 6 + b"<value/>" + b"</data></array></value>" * 6),
    "40,000 attributes": call(b"<value %s/>" % b" ".join(b'a%d=""' % n for n in range(40_000))),
    "one attribute": call(b'<value a="b">text</value>'),
    "UTF-16": call(b"<value>text</value>").decode().replace("1.0\"", '1.0" encoding="UTF-16"').encode("utf-16"),
    "Latin-1 declared": call(b"<value>\xe4</value>", b'<?xml version="1.0" encoding="ISO-8859-1"?>'),
    "broken UTF-8": call(b"<value>\xc0\xaf</value>"),
    "surrogate": call(b"<value>\xed\xa0\x80</value>"),
    "NUL": call(b"<value>a\0b</value>"),
    "reference to a control character": call(struct((b"sr_uuid", b"&#8;"))),
    "processing instruction": call(b"<?php ?><value/>"),
    "comment": call(b"<!-- --><value/>"),
    "CDATA": call(b"<value><![CDATA[x]]></value>"),
    "duplicate key": call(struct((b"sr_uuid", SR), (b"sr_uuid", SR), (b"device_config", b"<struct/>"))),
    "duplicate key inside": call(struct((b"sr_uuid", SR), (b"device_config", b"<struct>" + b"".join(
        [b"<member><name>k</name><value>v</value></member>"] * 2) + b"</struct>"))),
    "key of 129 bytes": call(struct((b"k" * 129, b"v"))),
    "513 members": call(struct(*((b"k%d" % n, b"v") for n in range(513)))),
    "5,000 elements": call(b"<value><array><data>" + b"<value/>" * 5000 + b"</data></array></value>"),
    "string past 64 KiB": call(b"<value>" + b"x" * (65 * 1024) + b"</value>"),
    "body past 128 KiB": call(b"<value>" + b"x" * (128 * 1024) + b"</value>"),
    "body of 4 MiB": call(b"<value>" + b"x" * (4 * MIB) + b"</value>"),
    "i4 that overflows": call(struct((b"sr_uuid", b"<i4>99999999999</i4>"))),
    "i8 that overflows": call(struct((b"sr_uuid", b"<i8>99999999999999999999</i8>"))),
    "boolean of 2": call(struct((b"sr_uuid", b"<boolean>2</boolean>"))),
    "unknown element": call(b"<value><float32>1</float32></value>"),
    "namespace": call(b"<value><ex:nil/></value>"),
    "bytes after the end": call(b"<value/>") + b"x",
    "a second call after the end": call(b"<value/>") * 2,
    "no end": call(b"<value/>")[:-13],
    "a response": b"<methodResponse><params><param><value/></param></params></methodResponse>",
    "empty": b"",
    "blanks": b" \n\t ",
    "not XML": b"\x7fELF\x02\x01\x01" + bytes(range(256)),
    "JSON": b'{"jsonrpc":"2.0","method":"sr_scan","id":1}',
}


def mutations(count):
    """Damaged copies of a sound call on an SR that does not exist; always the same ones."""
    chance = random.Random(SEED)
    sound = spec_body("vdi_create", {"sr_uuid": SR.decode(), "args": ["4194304", "label"], "vdi_sm_config": {"type": "raw"}})
    pieces = [b"<", b">", b"&", b"</value>", b"<value>", b"\0", b"\xff", b"]]>", b"<!", b"<?", b'"', b"<struct>"]
    for _ in range(count):
        body = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            kind = chance.randrange(4)
            if kind == 0:
                body[at] = chance.randrange(256)
            elif kind == 1:
                del body[at:at + chance.randint(1, 40)]
            elif kind == 2:
                body[at:at] = chance.choice(pieces)
            else:
                body[at:at] = body[at:at + chance.randint(1, 200)]
        yield bytes(body)


class Hostile(LabTest):
    def verdict(self, body):
        """What came back, and after how many seconds. A new connection each, so that none inherits a broken one."""
        client = self.lab.unix()
        start = time.perf_counter()
        try:
            client.post(body, "/sm/file").value()
            result = "accepted"
        except Fault as fault:
            result = fault.code
        except HttpError as error:
            result = f"HTTP {error.status}"
        finally:
            client.close()
            self.lab.clients.remove(client)
        return result, time.perf_counter() - start

    def serves(self):
        client = self.lab.unix()
        self.assertEqual(client.call("sr_get_driver_info", path="/sm/file")["name"],
                         client.call("sr_get_driver_info", path="/sm/file")["name"])
        self.assertTrue(self.lab.alive(), self.lab.log())

    def test_each_known_attack_gets_143_or_4xx_and_the_daemon_still_serves(self):
        for name, body in BODIES.items():
            with self.subTest(name):
                result, seconds = self.verdict(body)
                self.assertTrue(result == 143 or str(result).startswith("HTTP 4"), result)
                self.assertLess(seconds, 5)
        self.serves()

    def test_random_damage_gets_a_fault_soon_and_costs_no_memory(self):
        bodies = list(mutations(rounds(300))) + list(BODIES.values())
        for body in bodies[:50] + list(BODIES.values()):
            self.verdict(body)  # allocators and threads have what they need
        before = self.lab.resident_kib()
        times = []
        for body in bodies:
            result, seconds = self.verdict(body)
            times.append(seconds)
            # Damage may leave a sound call: on this SR that does not exist it cannot succeed either.
            self.assertTrue(isinstance(result, int) or str(result).startswith("HTTP 4"), (result, body))
            self.assertLess(seconds, 5)
        if not SANITIZED:
            self.assertLess(statistics.median(times), 0.05)
            self.assertLess(self.lab.resident_kib() - before, 1024, "KiB that stayed resident")
        self.serves()

    def test_a_log_line_never_grows_with_the_body(self):
        self.verdict(call(struct((b"k" * 100_000, b"v"))))
        self.verdict(b"<methodCall><methodName>" + b"m" * 60_000 + b"</methodName><params/></methodCall>")
        self.assertLessEqual(max(map(len, self.lab.log().splitlines())), 1024)


if __name__ == "__main__":
    unittest.main()
