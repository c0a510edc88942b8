# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may do what: roles × methods × repositories against the table computed from smapid --describe and the file of
permissions; fingerprints; what a caller without rights can learn; reload."""
import os
import re
import signal
import subprocess
import time
import unittest
import xmlrpc.client

import lab as laboratory
from client import TlsClient
from lab import MIB, Fault, Lab, LabTest, describe, new_uuid, program

HOST, OTHER_HOST = new_uuid(), new_uuid()
GOOD = {"uuid": new_uuid(), "text": "text", "size": "0", "map": {}, "flag": "true", "count": "1", "array": []}


def openssl(*args, **more):
    return subprocess.run(["openssl", *args], check=True, capture_output=True, **more).stdout


class Pki(laboratory.Pki):
    """Also makes certificates that say anything, or nothing, of who they are."""

    def sign(self, name, common_name, san=None):
        path = os.path.join(self.dir, name)
        extensions = "extendedKeyUsage=clientAuth\n" + (f"subjectAltName={san}\n" if san else "")
        with open(path + ".ext", "w", encoding="ascii") as out:
            out.write(extensions)
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path + ".key",
                "-subj", f"/CN={common_name}", "-out", path + ".csr")
        openssl("x509", "-req", "-in", path + ".csr", "-CA", self.ca, "-CAkey", self.ca[:-4] + ".key", "-days", "30",
                "-extfile", path + ".ext", "-out", path + ".crt")
        return path

    @staticmethod
    def certificate_pin(path):
        return openssl("x509", "-in", path + ".crt", "-noout", "-fingerprint", "-sha256").decode().split("=")[1].strip()

    @staticmethod
    def key_pin(path):
        public = openssl("x509", "-in", path + ".crt", "-noout", "-pubkey")
        der = openssl("pkey", "-pubin", "-outform", "DER", input=public)
        return openssl("dgst", "-sha256", "-r", input=der).decode().split()[0]


def arguments(method, sr, kind):
    """A call that would be refused for its content, or changes nothing that matters here."""
    rows = method["params"]
    if rows and rows[0]["place"] == "plain" or not rows:
        return tuple(GOOD[row["kind"]] if row["kind"] == "array" else "sr_create" for row in rows)
    keys = {row["name"]: GOOD[row["kind"]] for row in rows if row["place"] == "key" and row["name"] != "device_config"}
    if any(row["name"] == "sr_uuid" for row in rows):
        keys["sr_uuid"] = sr
    keys["device_config"] = {"location": "/nowhere"} if kind == "file" else {}
    keys["args"] = [GOOD[row["kind"]] for row in rows if row["place"] == "arg"]
    return (keys,)


class Permitted(LabTest):
    """A lab with a file of permissions."""

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(Pki())
        cls.addClassCleanup(cls.lab.close)
        cls.file = os.path.join(cls.lab.dir, "permissions")
        cls.write("")
        cls.lab.start(server__permissions=cls.file)

    @classmethod
    def write(cls, text, mode=0o644):
        with open(cls.file, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(cls.file, mode)

    def reload(self, expect="were read again"):
        before = self.lab.log().count(expect)
        os.kill(self.lab.process.pid, signal.SIGHUP)
        until = time.monotonic() + 5
        while self.lab.log().count(expect) == before:
            self.assertLess(time.monotonic(), until, self.lab.log()[-2000:])
            time.sleep(0.005)

    def permit(self, text):
        self.write(text)
        self.reload()

    def verdict(self, client, method, params, path="/RPC2"):
        """None, or the fault."""
        try:
            client.post(xmlrpc.client.dumps(params, method).encode(), path).value()
        except Fault as fault:
            return fault
        return None

    def answers(self, client, method, params, path="/RPC2"):
        """0 or the code."""
        fault = self.verdict(client, method, params, path)
        return fault.code if fault else 0


def allowed(method, verbs_of_role, grants, sr):
    """The table. grants: {sr or "any": set of verbs} of the identity, None without a file."""
    verb = method["verb"]
    names = {row["name"] for row in method["params"]}
    if grants is None:
        return verb in verbs_of_role
    if "sr_uuid" in names:
        return verb in grants.get(sr, grants.get("any", set()))
    if method["lock"] not in ("none", "rows"):
        return verb in grants.get("any", set())
    return any(verb in verbs for verbs in grants.values())


class Matrix(Permitted):
    ROLES = {row["name"]: set(row["verbs"]) for row in describe()["roles"]}

    def everybody(self):
        nobody = self.lab.pki.sign("nobody", "nobody")
        return {"none": self.lab._keep(TlsClient(self.lab, nobody)), "reader": self.lab.reader(),
                "host": self.lab.host(HOST), "operator": self.lab.operator(), "admin": self.lab.admin()}

    def places(self):
        return [self.lab.repository(kind) for kind in ("dummy", "file")]

    def compare(self, grants, repositories):
        for sr in repositories:
            sr.made().disk()
        cells = 0
        for role, client in self.everybody().items():
            mine = {key if key == "any" else repositories[key].uuid: verbs for key, verbs in grants[role].items()} \
                if grants else None
            for method in describe()["methods"]:
                for sr in repositories:
                    params = arguments(method, sr.uuid, sr.kind)
                    code = self.answers(client, method["name"], params, f"/sm/{sr.kind}")
                    with self.subTest(role=role, method=method["name"], sr=sr.kind):
                        self.assertEqual(code != 2001, allowed(method, self.ROLES[role], mine, sr.uuid), code)
                    cells += 1
        self.assertEqual(cells, 5 * 2 * len(describe()["methods"]))

    def test_five_roles_by_every_method_by_two_repositories_without_a_file(self):
        self.lab.restart()
        self.compare(None, self.places())
        self.lab.restart(server__permissions=self.file)

    def test_five_roles_by_every_method_by_two_repositories_by_the_file(self):
        grants = {"none": {}, "reader": {0: {"read"}}, "host": {0: self.ROLES["host"], 1: {"read", "data"}},
                  "operator": {"any": {"read"}, 1: self.ROLES["operator"]}, "admin": {"any": self.ROLES["admin"], 0: set()}}
        places = self.places()
        srs = [sr.uuid for sr in places]
        self.permit(f"""
            [reader:rita]
            {srs[0]} = read
            [host:{HOST.upper()}]
            {srs[0]} = all
            {srs[1].upper()} = read, data
            [role operator]
            any = read
            {srs[1]} = read data manage break
            [admin:alice]
            any = all
            {srs[0]} = none
            """)
        self.compare(grants, places)

    def test_what_the_file_does_not_name_is_denied(self):
        sr = self.lab.repository("dummy").made()
        self.permit(f"[operator:somebody else]\nany = all\n[host:{OTHER_HOST}]\n[role host]\nany = all\n")
        for client in (self.lab.operator(), self.lab.admin(), self.lab.reader(), self.lab.host(OTHER_HOST)):
            for method in ("sr_scan", "smapi.sr_contents", "sr_get_driver_info", "system.listMethods", "no_such_method"):
                code = self.answers(client, method, ({"sr_uuid": sr.uuid, "device_config": {}},), "/sm/dummy")
                self.assertEqual(code, 2001, method)
        mine = sr.by(self.lab.host(HOST))
        mine("sr_attach")
        mine("sr_detach")

    def test_the_local_host_is_in_no_file(self):
        self.permit("")
        self.lab.repository("file").made()("sr_scan")


class Silence(Permitted):
    """A caller without rights cannot tell what exists."""

    def test_forbidden_and_absent_answer_alike_at_every_door(self):
        mine, foreign = (self.lab.repository("file").made() for _ in range(2))
        vdi = foreign.disk()
        self.permit(f"[operator:olga]\n{mine.uuid} = all\n")
        olga = self.lab.operator()
        absent = new_uuid()
        for method in describe()["methods"]:
            if not any(row["name"] == "sr_uuid" for row in method["params"]):
                continue
            for path in ("/RPC2", "/sm/file", "/sm/dummy", "/sm/floppy"):
                sentences = set()
                for sr, config in ((foreign.uuid, foreign.config), (absent, foreign.config), (absent, {})):
                    (keys,) = arguments(method, sr, "file")
                    keys["device_config"] = config
                    if "vdi_uuid" in keys:
                        keys["vdi_uuid"] = vdi if sr == foreign.uuid else new_uuid()
                    fault = self.verdict(olga, method["name"], (keys,), path)
                    self.assertEqual(fault and fault.code, 2001, (method["name"], path))
                    sentences.add(fault.text.replace(sr, "SR"))
                self.assertEqual(len(sentences), 1, sentences)
        self.assertEqual(set(foreign.contents()), {vdi})

    def test_who_has_rights_on_some_repositories_cannot_probe_for_others(self):
        mine, foreign = (self.lab.repository("file").made() for _ in range(2))
        self.permit(f"[operator:olga]\n{mine.uuid} = all\n[reader:rita]\nany = read\n")
        sentences = set()
        for location in (foreign.location, mine.location, self.lab.dir, "/nowhere"):
            fault = self.verdict(self.lab.operator(), "sr_probe", ({"device_config": {"location": location}},), "/sm/file")
            self.assertEqual(fault and fault.code, 2001)
            sentences.add(fault.text)
        self.assertEqual(len(sentences), 1)
        self.assertIn(foreign.uuid, foreign.by(self.lab.reader()).probe())

    def test_a_disk_of_a_foreign_repository_is_not_found_through_an_own_one(self):
        mine, foreign = (self.lab.repository("dummy").made() for _ in range(2))
        vdi = foreign.disk()
        self.permit(f"[host:{HOST}]\n{mine.uuid} = all\n")
        host = mine.by(self.lab.host(HOST))
        host("sr_attach")
        texts = set()
        for disk in (vdi, new_uuid()):
            with self.assertRaises(Fault) as refused:
                host("vdi_attach", "true", vdi_uuid=disk)
            self.assertEqual(refused.exception.code, 46)
            texts.add(refused.exception.text.replace(disk, "VDI"))
        self.assertEqual(len(texts), 1)


class Fingerprints(Permitted):
    def who(self, client):
        """By what name the daemon knows it."""
        self.answers(client, "system.listMethods", ())
        return re.findall(r"by=(\S+) method=system.listMethods", self.lab.log())[-1]

    def client(self, path):
        return self.lab._keep(TlsClient(self.lab, path))

    def test_a_fingerprint_says_who_it_is_whatever_the_certificate_says(self):
        pki = self.lab.pki
        silent, reader, host = pki.sign("silent", "x"), pki.identity("reader", "rita"), pki.sign("h", "no host")
        self.permit(f"""
            [operator:silent]
            certificate = {pki.certificate_pin(silent)}
            any = all
            [admin:rita]
            key = {pki.key_pin(pki.identity("admin", "spare"))} {pki.key_pin(reader).upper()}
            any = read
            [host:{HOST}]
            key = {pki.key_pin(host)}
            any = all
            """)
        self.assertEqual(self.who(self.client(silent)), "operator:silent")
        self.assertEqual(self.who(self.client(reader)), "admin:rita")
        self.assertEqual(self.who(self.client(pki.identity("admin", "spare"))), "admin:rita")
        sr = self.lab.repository("dummy").made().by(self.client(host))
        sr("sr_attach")
        self.assertIn(HOST, sr.page()["sr"]["hosts"])

    def test_no_other_certificate_is_an_identity_that_has_fingerprints(self):
        pki = self.lab.pki
        self.permit(f"[admin:alice]\nkey = {pki.key_pin(pki.identity('admin', 'bob'))}\nany = all\n[role admin]\nany = all\n")
        self.assertEqual(self.who(self.client(pki.identity("admin", "bob"))), "admin:alice")
        alice = self.client(pki.identity("admin", "alice"))
        self.assertEqual(self.answers(alice, "system.listMethods", ()), 2001)
        self.assertEqual(self.who(alice), "unknown:admin:alice")


class Reload(Permitted):
    def test_a_reload_counts_from_the_next_call_on_an_open_connection(self):
        sr = self.lab.repository("dummy").made()
        reader = self.lab.reader()
        contents = ({"sr_uuid": sr.uuid},)
        for text, code in (("", 2001), ("[role reader]\nany = read\n", 0), (f"[role reader]\n{sr.uuid}=none\nany=read\n", 2001),
                           ("[reader:rita]\n[role reader]\nany = read\n", 2001)):
            self.permit(text)
            self.assertEqual(self.answers(reader, "smapi.sr_contents", contents), code, text)

    def test_a_file_that_cannot_be_used_leaves_the_one_before_in_force(self):
        self.permit("[role reader]\nany = read\n")
        for text, mode in (("[role reader]\nany = write\n", 0o644), ("[role reader]\nany = none\n", 0o666)):
            self.write(text, mode)
            self.reload("everything stays as it was")
            self.assertEqual(self.answers(self.lab.reader(), "system.listMethods", ()), 0)


class Files(Permitted):
    PIN = "ab" * 32
    BAD = {
        "any = read": (1, "no section"),
        "[role clown]": (1, "[role clown]"),
        "[role none]": (1, "role none"),
        "[operator:]": (1, "[operator:]"),
        "[host:alice]": (1, "host"),
        "[olga]": (1, "[olga]"),
        "[operator:olga": (1, "]"),
        "[operator:" + "x" * 80 + "]": (1, "operator:xx"),
        "[role reader]\n[role reader]": (2, "before"),
        f"[host:{HOST}]\n[host:{HOST.upper()}]": (2, "before"),
        "[role reader]\nany": (2, "key = value"),
        "[role reader]\nany =": (2, "verb"),
        "[role reader]\nany = write": (2, "write"),
        "[role reader]\nany = data": (2, "never has data"),
        "[role operator]\nany = admin": (2, "never has admin"),
        "[role reader]\nsr = read": (2, "sr"),
        "[role reader]\nany = read\nany = read": (3, "before"),
        f"[role reader]\n{HOST} = read\n{HOST.upper()} = none": (3, "before"),
        f"[role reader]\nkey = {PIN}": (2, "role"),
        "[reader:rita]\nkey =": (2, "missing"),
        f"[reader:rita]\nkey = {PIN[:-1]}": (2, "SHA-256"),
        f"[reader:rita]\nkey = {PIN}0": (2, "SHA-256"),
        f"[reader:rita]\nkey = {'0' * 64}": (2, "SHA-256"),
        f"[reader:rita]\nkey = {PIN}\n[reader:carl]\nkey = {PIN}": (4, "twice"),
        "[role reader]\n# fine\nany = read " + " " * 5000: (3, "4096"),
        "[role reader]\nany = read\0 admin": (2, "NUL"),
    }

    def check(self):
        run = subprocess.run([program("smapid"), "--config", self.lab.config_path, "--check-config", "--set",
                              f"server.permissions={self.file}"], capture_output=True, text=True, timeout=60, check=False)
        return run.returncode, run.stderr

    def test_every_mistake_is_found_by_check_config_and_named_with_its_line(self):
        for text, (line, naming) in self.BAD.items():
            self.write(text)
            with self.subTest(text=text[:60]):
                status, said = self.check()
                self.assertEqual(status, 78, said)
                self.assertIn(f"{self.file}:{line}: ", said)
                self.assertIn(naming, said)

    def test_a_sound_file_passes(self):
        pin = ":".join([self.PIN[:2].upper()] * 32)
        self.write(f"# all\n ; forms\n\n[ admin:a b ]\r\nkey={pin}, {'cd' * 32}\ncertificate = {self.PIN}\nany = all\n"
                   f"[role host]\n{HOST} = read,data\tmanage\n{OTHER_HOST}=none")
        self.assertEqual(self.check(), (0, ""))

    def test_a_file_that_others_may_change_or_that_is_none_is_refused(self):
        for mode in (0o664, 0o646):
            self.write("", mode)
            status, said = self.check()
            self.assertEqual(status, 78)
            self.assertIn(self.file, said)
        os.unlink(self.file)
        self.assertEqual(self.check()[0], 78)
        os.mkfifo(self.file)
        self.assertEqual(self.check()[0], 78)
        os.unlink(self.file)
        self.write("x" * (MIB + 1))
        self.assertEqual(self.check()[0], 78)


if __name__ == "__main__":
    unittest.main()
