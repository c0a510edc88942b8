# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile strings through every key of every call of every type: the code its kind asks for, nothing changed, nothing
outside touched. And files that change under the daemon's hands: nothing outside touched, nothing hangs."""
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import random
import re
import stat
import time
import unittest
import urllib.parse
from xml.sax.saxutils import escape

from client import BODIES, XAPI_ORDER
from lab import DEEP, KINDS, MIB, SEED, Fault, LabTest, describe, new_uuid

MARKER = "MARKER-OF-THE-PAYLOAD"
COMMANDS = ["touch {canary}/pwned", "rm -rf {canary}", "cat /etc/shadow > {canary}/pwned"]
FORMS = ["$({})", "`{}`", ";{};", "|{}|", "&& {} &", "\n{}\n", "x$({})y", "'; {}; '", '"; {}; "', "$(({}))", "\\$({})",
         "<({})", ">({})", "${{IFS}}{}", "|| {} #", "\r\n{}\r\n"]
OPTIONS = ["-oProxyCommand={}", "--config={}", "-c{}", "--exec={}", "-e {}", "--rsh={}", "--output={}", "-F{}"]
LITERALS = """%n %s%s%s%n %08x %x%n%hn %1$n %99999d {0} {{7*7}} ${{jndi:x}} -o --help - -- -rf -1x +1 ~ ~root * ? [a] {a,b}
    ! !! # $ $$ $0 $IFS ${PATH} %PATH% \\ \\\\ \\0 \\n ' " '' "" ` `` < > | & ; ( ) nosuid,bind o=nosuid,bind rw,exec,dev loop
    1;2 0x10 1e3 NaN inf 1_000 01- ٣ １ 1.0 1,0 9223372036854775808 18446744073709551616 99999999999999999999999
    true; TRUE false\\ null nil None undefined 1=1 ' OR '1'='1 '; DROP-TABLE-vdi;-- ") UNION SELECT /*x*/ --
    con nul aux COM1 .htaccess .ssh id_rsa""".split()
TRAVERSALS = ["..", "../", "../..", "./", ".", "/", "//", "///etc", "/etc/passwd", "/etc", "/proc/self/mem", "/proc/self/root",
              "/dev/null", "/dev/zero", "/sys/kernel", "../../../../../../etc/passwd", "..\\..\\..\\etc\\passwd",
              "....//....//etc", "..%2f..%2fetc", "%2e%2e%2f", "..%252f", "..%c0%af", "/etc/./passwd", "/etc/../etc/passwd",
              "/var/../../etc", "file:///etc/passwd", "\\\\host\\share", "//host/share", "http://127.0.0.1:1/", "C:\\x",
              "a/../../b", "a/b", "a//b", "/a/", "{canary}", "{canary}/file", "{canary}/link", "{canary}/nothing/here",
              "{canary}/../canary/file", "./{canary}", "../canary/file"]
SEPARATORS = ["\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212", "\uff0d", "\ufe63", "\u00ad"]
SPACES = ["\u00a0", "\u2003", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u3000", "\u2028", "\u2029", "\u0085"]
SPELLING = ["\u202e", "\u202d", "\u2066", "\u0301" * 64, "\u200f", "\U000e0041", "\U0001f4be", "\U0010ffff", "\u00ff",
            "\ufffd", "\ufdd0", "\u0130", "\u212a", "ﬁ", "Ⅷ", "a\u0308", "\u1e9e", "．．／", "∕etc∕passwd", "‥", "\u2024\u2024/"]
UUIDS = ["{0}x", "x{0}", " {0}", "{0} ", "{0}\n", "{{{0}}}", "urn:uuid:{0}", "{0}.vhd", "{0}/..", "{0}.vhd/../x", "../{0}",
         "{0}\u200b", "{0}{0}", "{0},{0}", "{0};{0}", "-{0}"]
BYTES = [b"\x00", b"a\x00b", b"&#0;", b"&#x0;", b"\xc0\x80", b"\xc0\xae\xc0\xae\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
         b"\xf4\x90\x80\x80", b"\xff\xfe", b"\x80", b"\xfe", b"\x01", b"\x07", b"\x08", b"\x0b", b"\x0c", b"\x1b[2J", b"\x7f\x00",
         b"&#8;", b"&#x1b;", b"&#xffff;", b"&#xd800;", b"&#x110000;", b"&#99999999999;", b"&x;", b"&", b"&;", b"<", b"<a>",
         b"</value>", b"<!--", b"<![CDATA[x]]>", b"]]>", b"<?x?>", b"<value>x</value>", b"<nil/>x", b"\xef\xbf\xbe"]


def payloads(canary, uuid):
    """Bytes as they stand in the body, and the text they are; None when the body must be refused for them."""
    texts = []
    for command in COMMANDS:
        texts += [form.format(command.format(canary=canary)) for form in FORMS + OPTIONS]
    texts += LITERALS + [path.format(canary=canary) if "{canary}" in path else path for path in TRAVERSALS]
    texts += [f"{dash}oProxyCommand=touch {canary}/pwned" for dash in SEPARATORS] + [f"a{dash}b" for dash in SEPARATORS]
    texts += [f"a{space}b" for space in SPACES] + SPACES + SPELLING + [form.format(uuid) for form in UUIDS]
    texts += ["\t", "\n", "\r", " ", "  a  ", "a\tb", "a\nb", "a\rb", "\x7f", "A" * 41, "A" * 255, "A" * 256, "A" * 4096,
              "/" + "A" * 300, "/" + "a/" * 3000, "../" * 4000, "A" * 65535, "A" * 65536, "%n" * 32768, "\u20ac" * 21845,
              "é" * 32768]
    seen = {}
    for text in texts:
        seen.setdefault(escape(text).encode().replace(b"\r", b"&#13;"), text)
    for raw in BYTES:
        seen.setdefault(raw, None)
    seen[b"A" * 65537] = None
    return list(seen.items())


def tree(top):
    """Everything about the files below top but when they were read."""
    found = {}
    for directory, names, leaves in os.walk(top):
        for name in names + leaves:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = ""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, top)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, content)
    return found


class Outside:
    """A directory nobody has any business with."""

    def __init__(self, top):
        self.path = os.path.join(top, "canary")
        os.makedirs(os.path.join(self.path, "folder"))
        for name in ("file", "folder/file.raw", "folder/file.vhd"):
            with open(os.path.join(self.path, name), "wb") as out:
                out.write(os.urandom(4096) * 1024)
        os.symlink("file", os.path.join(self.path, "link"))
        self.before = tree(self.path)

    def changes(self):
        now = tree(self.path)
        return {name for name in self.before.keys() | now.keys() if self.before.get(name) != now.get(name)}


class Hostile(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.outside = Outside(cls.lab.dir)
        cls.chance = random.Random(SEED)
        cls.client = cls.lab.unix()
        cls.payloads = payloads(cls.outside.path, new_uuid())

    def sample(self, count):
        """All with SMAPI_DEEP, else some: each call and each day takes others, so that each payload has its turns."""
        return self.payloads if DEEP else self.chance.sample(self.payloads, count)

    def code(self, body, path):
        return self.client.verdict(body, path)[0]

    def state(self, sr):
        files = tree(sr.location) if sr.kind == "file" else {}
        return json.dumps(sr.contents(), sort_keys=True), files

    def assert_untouched(self):
        self.assertEqual(self.outside.changes(), set())
        self.assertTrue(self.lab.alive(), self.lab.log()[-3000:])

    def base(self, method, sr):
        """Keys and args of a call that is sound but for the last thing that is looked at: it changes nothing."""
        name, rows = method["name"], method["params"]
        config = dict(sr.config)
        keys = {"sr_uuid": sr.uuid, "device_config": config}
        if name in ("sr_create", "sr_attach", "sr_detach", "sr_delete"):
            keys["sr_uuid"] = new_uuid()
        if name in ("sr_create", "sr_attach") and sr.kind == "file":
            config["location"] = os.path.join(self.lab.dir, "no", "such", "parent")
        if name == "sr_create" and sr.kind == "dummy":
            keys["sr_uuid"] = sr.uuid  # it exists
        if any(row["name"] == "vdi_uuid" for row in rows):
            keys["vdi_uuid"] = new_uuid()
        values = {"uuid": new_uuid(), "text": "text", "size": "0", "flag": "true", "count": "1", "map": {}}
        for row in rows:
            if row["place"] == "key" and row["need"] == "required":
                keys.setdefault(row["name"], values[row["kind"]])
        if name == "vdi_introduce":
            (row,) = sr.contents().values()
            keys["vdi_location"] = row["location"]  # known already
        if name == "sr_probe":
            keys = {"device_config": config}
        if name == "smapi.sr_contents":
            keys = {"sr_uuid": sr.uuid}
        return keys, [values[self.kind(method, row)] for row in rows if row["place"] == "arg"]

    @staticmethod
    def kind(method, row):
        """xapi names a parent by reference, so its row says text, and what is no uuid is refused in the call itself."""
        return "uuid" if (method["name"], row["name"]) == ("vdi_compose", "parent") else row["kind"]

    @staticmethod
    def by_kind(kind, text, benign):
        """The codes that a value of this kind may have; benign: the call's own."""
        if text is None:
            return {143}
        if kind == "size" and text.startswith("-") and text[1:].isascii() and text[1:].isdigit():
            return {79}
        if kind in ("uuid", "size", "flag", "count", "map", "array"):
            return {143}
        return {benign}

    SPECIAL = {"after": {143}, "command": {143}, "data": None, "vdi_location": {0, 1, 46}, "vdi_on_boot": {143}}

    def targets(self, method, sr):
        """(what, keys, args, codes(text, benign)) with MARKER in one place each."""
        keys, args = self.base(method, sr)
        rows = {row["name"]: row for row in method["params"] if row["place"] == "key"}
        for name in sorted(set(XAPI_ORDER) | set(rows)):
            if (method["name"], name, sr.kind) == ("vdi_introduce", "vdi_location", "dummy"):
                continue  # a dummy takes any: see below
            kind = rows[name]["kind"] if name in rows else {
                "args": "array", "device_config": "map", "sr_sm_config": "map", "driver_params": "map",
                "vdi_sm_config": "map"}.get(name, "text")
            changed = {**keys, name: MARKER}
            if name == "vdi_location" and name in rows:
                changed.pop("vdi_uuid", None)
            special = self.SPECIAL.get(name) if name in rows or name == "command" else None
            yield name, changed, args, (lambda text, benign, kind=kind, special=special:
                                        special | ({benign} & {38}) if special and text is not None else self.by_kind(kind, text, benign))
        for at, row in enumerate(row for row in method["params"] if row["place"] == "arg"):
            yield f"args[{at}]", keys, [*args[:at], MARKER, *args[at + 1:]], (
                lambda text, benign, row=row: self.by_kind(row["kind"], text, benign) if self.kind(method, row) == row["kind"]
                else {143} | ({benign} & {38}))
        yield "a member of its own", {**keys, MARKER: "x"}, args, lambda text, benign: {143}
        for name in ("sr_sm_config", "driver_params", "vdi_sm_config"):
            yield name + " value", {**keys, name: {"key": MARKER}}, args, lambda text, benign: (
                {143} if text is None else {benign})
        yield "vdi_sm_config key", {**keys, "vdi_sm_config": {MARKER: "x"}}, args, lambda text, benign: (
            {143} if text is None or len(text.encode()) > 128 else {benign})
        if method["name"] == "vdi_create":
            yield "image type", {**keys, "vdi_sm_config": {"type": MARKER}}, args, lambda text, benign: (
                {143} if text is None else {66})

    def strike(self, method, sr):
        name = method["name"]
        path = f"/sm/{sr.kind}"
        keys, args = self.base(method, sr)
        benign = self.code(BODIES["spec"](name, {**keys, "args": args}), path)
        calls = 0
        for what, changed, values, codes in self.targets(method, sr):
            body = BODIES["spec"](name, {**changed, "args": values if "args" not in changed or changed["args"] != MARKER
                                         else MARKER})
            for payload, text in self.sample(20):
                code = self.code(body.replace(MARKER.encode(), payload), path)
                wanted = codes(text, benign)
                if text == name and what == "command":
                    wanted = {benign}
                self.assertIn(code, wanted, (name, what, payload[:80], benign))
                calls += 1
        return calls

    def test_every_key_of_every_call_answers_by_its_kind_and_changes_nothing(self):
        self.assertGreaterEqual(len(self.payloads), 300)
        calls = 0
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            sr.disk(4 * MIB, "label", "description")
            for method in describe()["methods"]:
                if method["name"].startswith("system."):
                    continue
                before = self.state(sr)
                calls += self.strike(method, sr)
                self.assertEqual(self.state(sr), before, method["name"])
                self.assert_untouched()
        print(f"{calls} calls with {len(self.payloads)} payloads")

    def test_introspection_method_names_and_paths(self):
        for payload, text in self.sample(50):
            for name in ("system.methodHelp", "system.methodSignature"):
                body = b"<methodCall><methodName>%s</methodName><params><param><value>%s</value></param></params></methodCall>"
                self.assertEqual(self.code(body % (name.encode(), payload), "/RPC2"), 143, payload[:80])
                self.assertEqual(self.code(body % (payload, b""), "/RPC2"), 143, payload[:80])
            if text is not None and len(text) < 1000:
                path = "/sm/" + urllib.parse.quote(text, safe="")
                sound = BODIES["spec"]("sr_get_driver_info", {})
                is_name = re.fullmatch("[a-z0-9]{1,16}", text)
                self.assertIn(self.code(sound, path), (48,) if is_name else (-404, -414, -400), text)
        self.assert_untouched()

    def test_device_config_answers_by_the_rows_of_its_type(self):
        before = tree(self.lab.dir)
        client = self.client
        for payload, text in self.sample(60):
            location = {1, 2, 42, 47, 61, 94, 105, 200} if text is None or not text.startswith("/") else \
                {1, 2, 42, 47, 61, 105, 200, 0}
            for method in ("sr_create", "sr_attach", "sr_probe"):
                for config, codes in (({"location": MARKER}, location),
                                      ({"location": os.path.join(self.lab.dir, "no", "x"), "adopt": MARKER}, {1, 61, 47}),
                                      ({MARKER: "x"}, {1, 94, 143})):
                    if text is not None and text.startswith("/") and method == "sr_create" and text.startswith(
                            ("/a/", "//host", "///etc", "/" + "A")):
                        continue  # sound absolute paths where a repository may be made
                    keys = {"sr_uuid": new_uuid(), "args": ["0"] if method == "sr_create" else [], "device_config": config}
                    if method == "sr_probe":
                        del keys["sr_uuid"]
                    code = self.code(BODIES["spec"](method, keys).replace(MARKER.encode(), payload), "/sm/file")
                    wanted = {143} if text is None else codes
                    if text is not None and len(text.encode()) > 128 and MARKER in config:
                        wanted = {143}
                    if method != "sr_probe":
                        wanted = wanted - {0}
                    self.assertIn(code, wanted, (method, list(config), payload[:80]))
        self.assert_untouched()
        ours = {name: row for name, row in tree(self.lab.dir).items() if not name.startswith(("state", "log", "mount"))}
        self.assertEqual({name for name in ours if ours[name] != before.get(name)}, set())
        self.assertEqual(client.call("sr_get_driver_info", path="/sm/file")["name"], "File")

    def test_an_odd_but_sound_place_is_taken_as_it_is(self):
        for odd in ("$(touch pwned)", "`touch pwned`", "; touch pwned", "-rf", "--help", "a b", "%n%s", "\u2013o", "'\"", "*", "~",
                    "\\", "\u202e", "A" * 255):
            sr = self.lab.repository("file", location=os.path.join(self.lab.dir, odd)).made()
            vdi = sr.disk()
            sr("vdi_delete", vdi_uuid=vdi)
            sr("sr_detach")
            sr("sr_delete")
            self.assertFalse(os.path.lexists(sr.location))
        self.assertFalse(os.path.lexists(os.path.join(self.lab.dir, "pwned")))
        self.assert_untouched()

    def test_a_dummy_takes_any_location_and_keeps_it_as_it_was_sent(self):
        sr = self.lab.repository("dummy").made()
        for payload, text in self.sample(60):
            body = sr.body("vdi_introduce", vdi_location=MARKER)
            code = self.code(body.replace(MARKER.encode(), payload), "/sm/dummy")
            fits = text and len(text.encode()) < 8000  # more is more than a disk may keep
            self.assertEqual(code, 0 if fits else 143 if text is None else 1, payload[:80])
            if code == 0:
                ((vdi, row),) = sr.contents().items()
                self.assertEqual(row["location"], text)
                for method in ("vdi_attach", "vdi_detach", "vdi_delete"):
                    body = sr.body(method, vdi_location=MARKER).replace(MARKER.encode(), payload)
                    self.assertEqual(self.code(body, "/sm/dummy"), 0, (method, payload[:80]))
                self.assertEqual(sr.contents(), {})
        self.assert_untouched()

    def test_labels_are_kept_as_they_were_sent_and_nothing_else_happens(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            vdi = sr.disk(vdi_sm_config={"type": "raw"}) if kind == "file" else sr.disk()
            before = self.state(sr)[1]
            for payload, text in self.sample(60):
                body = sr.body("vdi_update", vdi_uuid=vdi, name_label=MARKER, name_description=MARKER)
                code = self.code(body.replace(MARKER.encode(), payload), f"/sm/{kind}")
                if len(payload) > 4_000:
                    self.assertIn(code, (1, 143, -413))  # twice in one body, and more than a disk may keep
                else:
                    self.assertEqual(code, 0 if text is not None else 143, payload[:80])
                if code == 0:
                    row = sr.contents()[vdi]
                    self.assertEqual((row["label"], row["description"]), (text, text))
            self.assertEqual(set(self.state(sr)[1]), set(before) | ({f"{vdi}.smapi"} if kind == "file" else set()))
            self.assert_untouched()


class Race(LabTest):
    """Files of a repository become links, pipes, directories, devices and other files while calls are under way."""

    SECONDS = 60 if DEEP else 10
    OPS = (["vdi_attach", "true"], ["vdi_activate", "true"], ["vdi_deactivate"], ["vdi_detach"], ["vdi_update"],
           ["vdi_resize", str(8 * MIB)], ["vdi_snapshot"], ["vdi_clone"], ["sr_scan"], ["sr_update"], ["vdi_introduce"])

    def swap(self, sr, outside, count):
        """As fast as it can, until it is ended: what stands at an image's name is exchanged for something else, and
        back."""
        aside = os.path.join(self.lab.dir, "aside")
        os.mkdir(aside)
        makers = (lambda path: os.symlink(os.path.join(outside.path, "folder/file.raw"), path),
                  lambda path: os.symlink(outside.path, path),
                  lambda path: os.symlink("/dev/zero", path),
                  lambda path: os.link(os.path.join(outside.path, "folder/file.vhd"), path),
                  lambda path: os.link(os.path.join(outside.path, "folder/file.raw"), path),
                  os.mkfifo, os.mkdir, lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5)),
                  lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)))
        chance = random.Random(4)
        while True:
            names = [name for name in os.listdir(sr.location) if name.endswith((".raw", ".vhd"))]
            name = chance.choice(names)
            target, kept, other = os.path.join(sr.location, name), os.path.join(aside, name), os.path.join(aside, "other")
            try:
                chance.choice(makers)(other)
                os.rename(target, kept)
                os.rename(other, target)
                count.value += 1
                os.rename(target, other)
                os.rename(kept, target)
            except OSError:
                pass  # the daemon was faster
            if os.path.lexists(kept) and not os.path.lexists(target):
                os.rename(kept, target)
            if os.path.isdir(other) and not os.path.islink(other):
                os.rmdir(other)
            elif os.path.lexists(other):
                os.unlink(other)

    def call(self, sr, vdis, until, number):
        """Calls at random; the codes, and the longest time one took."""
        chance = random.Random(number)
        sr = sr.by(self.lab.host(new_uuid()) if number % 2 else self.lab.unix())
        codes, longest, own = {}, 0, []
        while time.monotonic() < until:
            method, *args = chance.choice(self.OPS)
            vdi = chance.choice(vdis + own)
            keys = {} if method.startswith("sr_") else {"vdi_uuid": vdi}
            if method == "vdi_introduce":
                keys = {"vdi_location": vdi + ".raw"}
            start = time.monotonic()
            try:
                if chance.random() < 0.05:
                    sr("sr_attach")
                sr(method, *args, **keys)
                if len(own) < 8:
                    own.append(sr.disk(2 * MIB))
                elif chance.random() < 0.2:
                    sr("vdi_delete", vdi_uuid=own.pop())
                code = 0
            except Fault as fault:
                code = fault.code
            codes[code] = codes.get(code, 0) + 1
            longest = max(longest, time.monotonic() - start)
        return codes, longest

    @staticmethod
    def disk(sr, kind):
        try:
            return sr.disk(vdi_sm_config={"type": kind})
        except Fault as fault:
            if fault.code != 66:
                raise
            return sr.disk()

    def test_nothing_outside_changes_and_nothing_hangs(self):
        outside = Outside(self.lab.dir)
        sr = self.lab.repository("file").made()
        vdis = [self.disk(sr, kind) for kind in ("raw", "vhd") * 4]
        processes = multiprocessing.get_context("fork")
        count = processes.Value("L", 0)
        swapper = processes.Process(target=self.swap, args=(sr, outside, count), daemon=True)
        swapper.start()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            until = time.monotonic() + self.SECONDS
            callers = [pool.submit(self.call, sr, vdis, until, number) for number in range(8)]
            results = [caller.result(self.SECONDS + 30) for caller in callers]
        self.assertTrue(swapper.is_alive())
        swapper.kill()
        swapper.join()
        total = {}
        for codes, longest in results:
            self.assertLess(longest, 10)
            for code, times in codes.items():
                total[code] = total.get(code, 0) + times
        print(f"{count.value} swaps, {sum(total.values())} calls: {dict(sorted(total.items()))}")
        self.assertGreater(count.value, 100 * self.SECONDS)
        self.assertGreater(total.get(0, 0), 0)
        self.assertEqual(outside.changes(), set())
        self.assertTrue(self.lab.alive(), self.lab.log()[-3000:])
        fresh = self.lab.repository("file").made()
        fresh.disk()


if __name__ == "__main__":
    unittest.main()
