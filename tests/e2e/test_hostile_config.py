# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every key of device_config of every type: missing, empty, ill-typed, and hostile. The code its row asks for; and every
exec of the daemon and of what it starts is recorded: no program but the type's own, never a shell, and a value is seen as
the part of one argument that it was meant for, or not at all.

The daemon has a network and a mount namespace of its own: what a sound value leads it to is this file's listeners, which
hang up, and the records of open-iscsi are not the host's."""
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import unittest

from client import BODIES
from lab import DEEP, Lab, describe, new_uuid
from test_hostile_args import Outside, payloads

SAMPLE = 6  # payloads for each key and method; all when deep
MARKER = "MARKER-OF-THE-PAYLOAD"
NAMESPACE = r"""ip link set lo up
for d in /etc/iscsi /var/lib/iscsi; do if [ -d $d ]; then mount -t tmpfs tmpfs $d; fi; done
mount --bind /bin/true /usr/sbin/start-statd
exec "$@" """
LISTEN = """import select, socket, sys
doors = []
for port in (111, 445, 2049, 3260):
    door = socket.socket(); door.bind(("127.0.0.1", port)); door.listen(64); doors.append(door)
print("ready", flush=True)
while True:
    for door in select.select(doors, [], [])[0]:
        door.accept()[0].close()
"""

# A device_config of each type that is sound, and leads nowhere; more than one where keys exclude one another.
SOUND = {
    "dummy": [{}],
    "file": [{"location": "/no/such/parent/here"}],
    "ext": [{"device": "/dev/no-such-disk"}],
    "lvm": [{"device": "/dev/no-such-disk", "allocation": "thin"}],
    "nfs": [{"server": "127.0.0.1", "serverpath": "/an/export", "nfsversion": "4.2", "options": "noac", "nfs_mode": "soft"}],
    "smb": [{"server": "\\\\127.0.0.1\\share", "username": "someone", "password": "secret"}],
    "iso": [{"location": "127.0.0.1:/an/export", "type": "nfs_iso", "nfsversion": "4.2", "options": "noac"},
            {"location": "\\\\127.0.0.1\\share", "type": "cifs", "vers": "3.0", "username": "someone",
             "cifspassword": "secret", "options": "seal", "iso_path": "/below"},
            {"location": "/no/such/directory", "legacy_mode": "true", "iso_path": "below"}],
    "iscsi": [{"target": "127.0.0.1", "targetIQN": "iqn.2024-01.org.example:store", "localIQN": "iqn.2024-01.org.example:me",
               "chapuser": "someone", "chappassword": "secret", "incoming_chapuser": "target",
               "incoming_chappassword": "secret-in", "port": "3999", "usediscoverynumber": "0", "LUNid": "0"}],
}
SOUND["iscsi"].append({**SOUND["iscsi"][0], "port": "3260"})  # where somebody listens: iscsiadm is run, for a second
SLOW = {"port": "3260"}
for _type in ("lvmoiscsi", "extoiscsi"):
    SOUND[_type] = SOUND["iscsi"]
# What the types' programs run in turn.
CHILDREN = [["/sbin/modprobe", "--quiet", "dm-mod"], ["/usr/sbin/start-statd"]]
# What a sound value may come to here: the place is not there, or nobody we know answers.
NOT_THERE = {"file": {61, 47}, "ext": {19, 91}, "lvm": {19, 91}, "nfs": {72, 73, 101, 103, 108, 140},
             "smb": {16, 111, 112, 113, 114, 140, 222, 224}, "iso": {2, 140, 222, 224, 225, 226},
             "iscsi": {2, 47, 68, 70, 71, 83, 86, 96, 140, 141}}  # 47: a user whose password is not here
NOT_THERE["lvmoiscsi"] = NOT_THERE["extoiscsi"] = NOT_THERE["iscsi"] | {2, 87, 89, 99, 107}
# A value of each kind that may stand in an argument: what the arguments of the others are compared with.
EXAMPLE = {"text": "an-example", "options": "example=1", "export": "/example", "host": "example.invalid", "devices": "/dev/example",
           "path": "/example", "portals": "127.0.0.1", "iqn": "iqn.2024-01.org.example:example", "target": "iqn.2024-01.org.example:example", "luns": "4711",
           "scsi_ids": "36001405example", "secret": "an-example-secret", "subpath": "example", "number": "17", "port": "4712"}


# What each kind takes, from the words of types.def alone.

def components(path):
    return all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in path[1:].split("/")) if path != "/" else True


def plain(text):
    return not re.search(r"[\x00-\x1f\x7f]", text)


def is_path(text):
    return text.startswith("/") and len(text.encode()) < 4096 and plain(text) and components(text)


def is_host(text):
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return len(text) <= 253 and bool(re.fullmatch(rf"({label})(\.{label})*\.?|[0-9a-fA-F:.]+", text))


def one_of(*words):
    return lambda text: text in words


def is_options(text):
    return all(re.fullmatch(r"[a-z][a-zA-Z0-9_.-]*(=[a-zA-Z0-9_.=:/+@-]*)?", word) for word in text.split(","))


def is_devices(text):
    return all(re.fullmatch(r"/dev/[A-Za-z0-9._:+@=/-]+", word) and components(word) for word in text.split(","))


TAKES = {
    "path": is_path, "export": lambda text: is_path(text) and not re.search(r"[ ,\\\"']|[^\x20-\x7e]", text),
    "devices": is_devices, "host": is_host, "options": is_options,
    "subpath": lambda text: is_path("/" + text.removeprefix("/")), "secret": lambda text: True,
    "source": lambda text: not text.startswith("-") and len(text.encode()) < 4096 and plain(text),
    "text": lambda text: len(text.encode()) <= 255 and plain(text),
    "number": lambda text: bool(re.fullmatch(r"[0-9]{1,5}", text)),
    "port": lambda text: bool(re.fullmatch(r"[0-9]{1,5}", text)) and 1 <= int(text) <= 65535,
    "portals": lambda text: all(is_host(re.sub(r":[0-9]+$", "", word)) for word in text.split(",")),
    "target": lambda text: text == "*" or TAKES["iqn"](text),
    "iqn": lambda text: bool(re.match(r"(iqn|eui|naa)\.[!-~]+$", text)),
    "luns": lambda text: bool(re.fullmatch(r"[0-9]{1,5}(,[0-9]{1,5})*", text)),
    "scsi_ids": lambda text: bool(re.fullmatch(r"[0-9a-zA-Z_:][0-9a-zA-Z._:-]*(,[0-9a-zA-Z_:][0-9a-zA-Z._:-]*)*", text)),
    "nfs_version": one_of("3", "4", "4.0", "4.1", "4.2"), "nfs_mode": one_of("hard", "soft"),
    "smb_version": one_of("1.0", "3.0"), "iso_type": one_of("nfs_iso", "cifs"), "allocation": one_of("thick", "thin"),
    "flag": one_of("true", "false"),
}


class Trace:
    """What strace wrote: new() gives the execs since it was last asked, each (argv, environment)."""

    EXEC = re.compile(r"execve(?:at)?\((?:[^,]*, )?\"((?:\\x..)*)\", \[(.*?)\], \[(.*?)\]")

    def __init__(self, path):
        self.path, self.at = path, 0

    @staticmethod
    def words(text):
        return [bytes.fromhex(word.replace("\\x", "")).decode(errors="surrogateescape")
                for word in re.findall(r'"((?:\\x..)*)"', text)]

    def new(self):
        with open(self.path, encoding="ascii") as lines:
            lines.seek(self.at)
            text = lines.read()
            self.at += text.rfind("\n") + 1
        found = []
        for line in text[:text.rfind("\n") + 1].splitlines():
            match = self.EXEC.search(line)
            assert match or "exec" not in line or "resumed" in line, line[:400]
            if match:
                found.append((self.words(match[2]), self.words(match[3])))
        return found


@unittest.skipUnless(shutil.which("strace") and os.geteuid() == 0, "strace and root are needed to see every exec")
class HostileConfig(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(in_memory=True)
        cls.addClassCleanup(cls.lab.close)
        trace = os.path.join(cls.lab.dir, "trace")
        cls.lab.prefix = ["unshare", "--net", "--mount", "sh", "-ec", NAMESPACE, "sh",
                          "strace", "-D", "-f", "-q", "-v", "-xx", "-s", "200000", "-e", "trace=execve,execveat",
                          "-e", "signal=none", "-o", trace]
        cls.lab.START_SECONDS = 60
        cls.lab.start()
        cls.listener = subprocess.Popen(["nsenter", "-t", str(cls.lab.process.pid), "-n", sys.executable, "-c", LISTEN],
                                        stdout=subprocess.PIPE)
        cls.addClassCleanup(cls.listener.stdout.close)
        cls.addClassCleanup(cls.listener.wait)
        cls.addClassCleanup(cls.listener.kill)
        assert cls.listener.stdout.readline() == b"ready\n"
        cls.trace = Trace(trace)
        cls.trace.new()  # the daemon itself
        cls.outside = Outside(cls.lab.dir)
        cls.client = cls.lab.unix()
        cls.payloads = payloads(cls.outside.path, new_uuid())
        cls.chance = random.Random(20100901)
        cls.programs = {program["path"] for row in describe()["types"] for program in row["programs"]}
        cls.calls = cls.execs = 0

    @classmethod
    def tearDownClass(cls):
        print(f"{cls.calls} calls, {cls.execs} programs run", flush=True)

    # ---- one call

    def body(self, kind, method, config):
        keys = {"sr_uuid": new_uuid(), "args": ["0"] if method == "sr_create" else [], "device_config": config}
        if method == "sr_probe":
            del keys["sr_uuid"]
        return BODIES["spec"](method, keys)

    def code(self, kind, body):
        type(self).calls += 1
        code, text = self.client.verdict(body, f"/sm/{kind}")
        if code > 0:
            self.assertNotIn(code, (1200, 202))
            self.assertGreater(len(text), 20)
        return code

    def asked(self, kind, method, config):
        return self.code(kind, self.body(kind, method, config))

    def methods(self, row):
        return [m for m, cap in (("sr_create", "sr_create"), ("sr_attach", "sr_attach"), ("sr_probe", "sr_probe"))
                if cap in row["offers"]]

    def cases(self):
        """(type's row, method, a sound config, a key's row) for every key; a key that a type's configs lack is added."""
        for row in describe()["types"]:
            for method, key in itertools.product(self.methods(row), row["keys"]):
                configs = [config for config in SOUND[row["name"]] if key["key"] in config] or SOUND[row["name"]][:1]
                for config in configs if key["kind"] != "flag" else configs[:1]:
                    if not self.is_slow(config) or (method == "sr_probe" and key["key"] in ("target", "chapuser")):
                        yield row, method, config, key

    @staticmethod
    def is_slow(config):
        return SLOW.items() <= config.items()

    # ---- what was run

    def execs_of_call(self):
        found = self.trace.new()
        type(self).execs += len(found)
        for argv, environment in found:
            if argv in CHILDREN:
                continue
            self.assertIn(argv[0], self.programs, argv)
            self.assertEqual({word.partition("=")[0] for word in environment} - {"LC_ALL", "PATH", "HOME"}, set())
        return [self.normal(argv) for argv, _ in found if argv not in CHILDREN]

    @staticmethod
    def normal(argv):
        own = r"smapi-probe-\d+-\d+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        return [re.sub(own, "OWN", word) for word in argv]

    def template(self, kind, method, config, key):
        """The arguments of a call whose key has an example value, with a marker where that stands."""
        example = EXAMPLE.get(key["kind"]) or config.get(key["key"])
        if not example:
            return []
        self.asked(kind, method, {**config, key["key"]: example})
        spelled = {example, example.replace("\\", "/")}
        return [[next((word.replace(text, MARKER) for text in spelled if text in word), word) for word in argv]
                for argv in self.execs_of_call()]

    def assert_in_its_slot(self, templates, text, what):
        for argv in self.execs_of_call():
            texts = {text, text.replace("\\", "/"), *(re.sub(r":\d+$", "", word) for word in text.split(","))}
            allowed = [self.normal(word.replace(MARKER, one) for word in template) for template in templates
                       for one in texts]
            self.assertIn(argv, allowed, what)

    # ---- the tests

    def wanted(self, kind, key, text):
        if TAKES[key["kind"]](text):
            return NOT_THERE.get(kind, {0})
        return {key["bad"]} if key["bad"] == 1 else {key["bad"], 2}

    def test_every_kind_of_key_is_known_here(self):
        self.assertEqual({key["kind"] for row in describe()["types"] for key in row["keys"]} - set(TAKES), set())
        self.assertEqual({row["name"] for row in describe()["types"]} - set(SOUND), set())

    def test_a_key_that_is_missing_or_empty(self):
        for row, method, config, key in self.cases():
            kind = row["name"]
            if self.is_slow(config):
                continue
            without = {name: value for name, value in config.items() if name != key["key"]}
            for what in (without, {**without, key["key"]: ""}):
                with self.subTest(type=kind, method=method, key=key["key"], config=what):
                    code = self.asked(kind, method, what)
                    self.assertIn(code, {key["missing"]} if key["required"] else NOT_THERE.get(kind, {0}) | {key["missing"]})
        self.execs_of_call()

    def test_a_key_that_is_no_text(self):
        for row, method, config, key in self.cases():
            for value in ({"a": "b"}, ["a"], 4711, True):
                with self.subTest(type=row["name"], method=method, key=key["key"], value=value):
                    self.assertEqual(self.asked(row["name"], method, {**config, key["key"]: value}), 143)
        self.assertEqual(self.execs_of_call(), [])

    def test_a_key_that_is_unknown(self):
        for row in describe()["types"]:
            for method in self.methods(row):
                for payload, text in self.sample():
                    body = self.body(row["name"], method, {**SOUND[row["name"]][0], MARKER: "x"})
                    code = self.code(row["name"], body.replace(MARKER.encode(), payload))
                    wanted = {143} if text is None or len(text.encode()) > 128 else {1, 143}
                    if row["name"] == "dummy" and method == "sr_attach":
                        wanted |= {47}  # one that is not known has no place where it could be
                    self.assertIn(code, wanted, (row["name"], method, payload[:80]))
        self.assertEqual(self.execs_of_call(), [])

    def sample(self):
        return self.payloads if DEEP else self.chance.sample(self.payloads, SAMPLE)

    def test_hostile_values_have_their_code_and_are_seen_in_their_slot_alone(self):
        seen, untried = set(), set()
        for row, method, config, key in self.cases():
            kind = row["name"]
            templates = self.template(kind, method, config, key)
            if any(MARKER in word for argv in templates for word in argv):
                seen.add((kind, key["key"]))
            for payload, text in self.fitting(key)[:1] if self.is_slow(config) else self.sample() + self.fitting(key):
                if key["kind"] == "path" and text and is_path(text):
                    untried.add(text)  # where a repository may be made: see test_hostile_args.py
                    continue
                body = self.body(kind, method, {**config, key["key"]: MARKER})
                code = self.code(kind, body.replace(MARKER.encode(), payload))
                what = (kind, method, key["key"], payload[:80])
                self.assertIn(code, {143} if text is None else self.wanted(kind, key, text) if text else
                              NOT_THERE.get(kind, {0}) | {key["missing"]}, what)
                self.assert_in_its_slot(templates, text or "", what)
        self.assertEqual(self.outside.changes(), set())
        self.assertTrue(self.lab.alive(), self.lab.log()[-3000:])
        # what must have been seen in an argument, for the check to be about anything
        self.assertLessEqual({("nfs", "serverpath"), ("nfs", "options"), ("iso", "location"), ("iso", "options")}, seen)
        self.assertTrue(self.execs > 20 and (untried or not DEEP))

    def fitting(self, key):
        """Strings that a shell or an option parser would fall for, and that are sound values of this key's kind."""
        odd = {"export": ["/$(reboot)", "/`id`", "/;reboot;", "/-o", "/a|b", "/x&y", "/*", "/%n%s", "/$IFS", "/{a,b}".replace(",", "")],
               "source": ["127.0.0.1:/$(reboot)", "127.0.0.1:/;id", "127.0.0.1:/-o", "127.0.0.1:/a|b", "127.0.0.1:/`id`"],
               "text": ["$(reboot)", "`id`", "; reboot", "a' or 'b", "user\\$(id)", "%n%s", "a=b"],
               "secret": ["$(reboot)", "`id`", "; reboot", "a' or 'b", "%n%s", "--password=x"],
               "options": ["sec=sys", "noac,sec=sys", "x-y=/a:b@c"], "subpath": ["$(reboot)", "-o", "a b", "; id"],
               "host": ["a-b.invalid"], "portals": ["127.0.0.1:3998,127.0.0.1"], "iqn": ["iqn.2024-01.org.example:a-b"]}
        some = odd.get(key["kind"], [])
        some = some if DEEP else self.chance.sample(some, min(3, len(some)))
        return [(text.replace("&", "&amp;").encode(), text) for text in some]

    def test_the_check_sees_a_word_that_leaves_its_slot(self):
        """The judge itself: two templates' worth of what it must refuse."""
        argv = ["/sbin/mount.nfs", MARKER, "/mnt", "-o", "a"]
        for wrong in (["/sbin/mount.nfs", "x", "/mnt", "-o", "a", "x"], ["/sbin/mount.nfs", "/mnt", "-o", "a"],
                      ["/sbin/mount.nfs", "y", "/mnt", "-o", "x"]):
            self.execs_of_call = lambda wrong=wrong: [wrong]
            with self.assertRaises(AssertionError):
                self.assert_in_its_slot([argv], "x", "planted")
        self.execs_of_call = lambda: [["/sbin/mount.nfs", "x", "/mnt", "-o", "a"]]
        self.assert_in_its_slot([argv], "x", "sound")
        line = '1 execve("\\x2f\\x73", ["\\x2f\\x73", "\\x61"], ["\\x48\\x3d"]) = 0'
        match = Trace.EXEC.search(line)
        self.assertEqual((Trace.words(match[2]), Trace.words(match[3])), (["/s", "a"], ["H="]))


if __name__ == "__main__":
    unittest.main()
