# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every SR type × every method, computed from smapid --describe: what a type offers works as its row promises, and what
it does not offer answers 38. A method or type without a recipe here fails. In a guest, where each takes a second, TODAY of the
types, other ones every day (SMAPI_SEED), have a third of the methods that hold an SR or a disk, dealt so that one that offers
it has each; all have all of them when deep."""
import os
import random
import sys
import unittest
import xmlrpc.client
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import DEEP, EVERY_DAY, SEED, SOURCE, KINDS, MIB, Fault, Lab, boot_id, describe, new_uuid, type_row  # noqa: E402


NONCE = new_uuid()  # of the local host's one agent
IN_GUEST = bool(os.environ.get("SMAPI_GUEST"))
TTL = 1800  # of the lease of a host that registers here and may not come to renewing it for minutes
NO_DRIVER = ("none", "rows")  # locks of methods that ask no driver
SOME, SHARE = 2, 1 if EVERY_DAY else 3  # types a day, and of so many methods they have one
TODAY = KINDS if EVERY_DAY or not IN_GUEST else sorted({KINDS[(SEED * SOME + i) % len(KINDS)] for i in range(SOME)})
UNMARKED = ("iso", "lun")  # layouts whose medium does not tell of an SR: one that was deleted can be attached anew


def offers(kind, method):
    return not method["capability"] or method["capability"] in kind["offers"]


def ours(sr):
    """Rows of the disks that were asked for: discs and LUNs are there before anybody asks."""
    return {vdi: row for vdi, row in sr.contents().items()
            if (row["managed"] or sr.layout != "lun") and row["location"] not in ("first.iso", "second.iso")}


class Recipes:
    """One for each method: does it on a type that offers it and checks what the row promises. sr is attached, but for
    those of BARE; vdi is a disk in it."""

    BARE = {"sr_create"}
    LAST = {"sr_create", "sr_delete", "sr_detach", "vdi_attach_from_config", "vdi_detach_from_config", "smapi.lease_break",
            "smapi.host_unregister", "smapi.host_break"}
    # what the SR is not to be used after

    def __init__(self, test):
        self.test = test

    def sr_create(self, sr, _):
        sr("sr_create", "0")
        with self.test.assertRaises(Fault) as refused:
            sr.disk()
        self.test.assertEqual(refused.exception.code, 47)  # created is not attached
        sr("sr_attach")
        self.test.assertEqual(ours(sr), {})

    def sr_delete(self, sr, vdi):
        for disk in sr.contents() if sr.layout == "iso" else (vdi,):  # whose discs are disks: their files stay
            sr("vdi_delete", vdi_uuid=disk)
        sr("sr_delete")
        if sr.layout in UNMARKED:
            sr("sr_attach")
            self.test.assertEqual(ours(sr), {})
            self.test.assertGreater(len(sr.contents()), 1)
            return
        with self.test.assertRaises(Fault):
            sr("sr_attach")

    def sr_attach(self, sr, vdi):
        sr("sr_detach")
        sr("sr_attach")
        self.test.assertIn(vdi, sr.contents())

    def sr_detach(self, sr, _):
        sr("sr_detach")
        with self.test.assertRaises(Fault) as refused:
            sr.disk()
        self.test.assertEqual(refused.exception.code, 47)

    def sr_probe(self, sr, vdi):
        if sr.layout == "lun":  # a disk is a LUN: an SR is inside none
            sr.config = {**sr.config, "SCSIid": sr.contents()[vdi]["sm_config"]["SCSIid"]}
            self.test.assertEqual(ElementTree.fromstring(sr.probe()).findall(".//UUID"), [])
            del sr.config["SCSIid"]
            return
        document = ElementTree.fromstring(sr.probe())
        self.test.assertEqual(document.tag, "SRlist")
        found = {uuid.text.strip() for uuid in document.iter("UUID")}
        self.test.assertEqual(found, {sr.uuid} if sr.config else set())  # without a place there is none to look at

    def sr_scan(self, sr, _):
        before = sr.contents()
        self.test.assertIsNone(sr("sr_scan"))
        self.test.assertEqual(sr.contents(), before)

    def sr_content_type(self, sr, _):
        self.test.assertEqual(ElementTree.fromstring(sr("sr_content_type")).tag, "sr")

    def sr_update(self, sr, _):
        self.test.assertIsNone(sr("sr_update"))

    def sr_get_driver_config(self, sr, _):
        ElementTree.fromstring(sr.client.call("sr_get_driver_config", path=f"/sm/{sr.kind}"))

    def sr_get_driver_info(self, sr, _):
        kind = type_row(sr.kind)
        info = sr.client.call("sr_get_driver_info", path=f"/sm/{sr.kind}")
        self.test.assertEqual(info["capabilities"], kind["capabilities"])

    def vdi_create(self, sr, vdi):
        self.test.assertEqual(int(sr.contents()[vdi]["size"]), 4 * MIB)

    def vdi_update(self, sr, vdi):
        sr("vdi_update", vdi_uuid=vdi, name_label="new", name_description="words")
        row = sr.contents()[vdi]
        self.test.assertEqual((row["label"], row["description"]), ("new", "words"))

    def vdi_introduce(self, sr, vdi):
        location = sr.contents()[vdi]["location"]
        sm_config = sr.contents()[vdi]["sm_config"] if sr.layout == "lun" else {}
        info = sr("vdi_introduce", vdi_location=location, new_uuid=vdi, vdi_sm_config=sm_config)
        self.test.assertEqual(info, {"location": location, "uuid": vdi})

    def vdi_delete(self, sr, vdi):
        sr("vdi_delete", vdi_uuid=vdi)
        sr("sr_scan")
        self.test.assertEqual(ours(sr), {})

    def vdi_attach(self, sr, vdi):
        self.test.assertTrue(sr("vdi_attach", vdi_uuid=vdi))

    def vdi_detach(self, sr, vdi):
        sr("vdi_attach", vdi_uuid=vdi)
        self.test.assertIsNone(sr("vdi_detach", vdi_uuid=vdi))
        sr("vdi_delete", vdi_uuid=vdi)

    def vdi_activate(self, sr, vdi):
        self.test.assertGreater(sr.activated(vdi), 0)

    def vdi_deactivate(self, sr, vdi):
        sr.activated(vdi)
        sr.released(vdi)
        sr("vdi_delete", vdi_uuid=vdi)

    def forked(self, sr, vdi, method):
        made = sr(method, vdi_uuid=vdi, driver_params={})["uuid"]
        row = sr.contents()[made]
        self.test.assertEqual(int(row["size"]), 4 * MIB)
        return row

    def vdi_snapshot(self, sr, vdi):
        self.test.assertTrue(self.forked(sr, vdi, "vdi_snapshot")["read_only"])

    def vdi_clone(self, sr, vdi):
        self.test.assertFalse(self.forked(sr, vdi, "vdi_clone")["read_only"])

    def vdi_resize(self, sr, vdi):
        if sr.layout == "lun":  # its target makes it larger
            with self.test.assertRaises(Fault) as refused:
                sr("vdi_resize", str(8 * MIB), vdi_uuid=vdi)
            self.test.assertEqual(refused.exception.code, 110)
            self.test.assertEqual(sr("vdi_resize", str(4 * MIB), vdi_uuid=vdi)["uuid"], vdi)
            return
        sr("vdi_resize", str(8 * MIB), vdi_uuid=vdi)
        self.test.assertEqual(int(sr.contents()[vdi]["size"]), 8 * MIB)

    def vdi_compose(self, sr, vdi):
        sr("vdi_clone", vdi_uuid=vdi, driver_params={})
        parent = sr.disk()
        self.test.assertIsNone(sr("vdi_compose", parent, vdi_uuid=vdi))
        rows = sr.contents()
        self.test.assertEqual((rows[vdi]["parent"], rows[parent]["hidden"]), (parent, True))

    def vdi_epoch_begin(self, sr, vdi):
        for keys in ({}, {"vdi_on_boot": "persist"}):
            self.test.assertIsNone(sr("vdi_epoch_begin", vdi_uuid=vdi, **keys))
        with self.test.assertRaises(Fault) as refused:  # of a disk without a parent
            sr("vdi_epoch_begin", vdi_uuid=vdi, vdi_on_boot="reset")
        self.test.assertEqual(refused.exception.code, 38)

    def vdi_epoch_end(self, sr, vdi):
        self.test.assertIsNone(sr("vdi_epoch_end", vdi_uuid=vdi))

    def vdi_generate_config(self, sr, vdi):
        (keys,), method = xmlrpc.client.loads(sr("vdi_generate_config", vdi_uuid=vdi))
        self.test.assertEqual(method, "vdi_attach_from_config")
        self.test.assertEqual(keys, {"device_config": sr.config, "sr_uuid": sr.uuid, "vdi_uuid": vdi, "command": method})
        return keys

    def vdi_attach_from_config(self, sr, vdi):
        keys = self.vdi_generate_config(sr, vdi)
        sr("sr_detach")
        attached = xmlrpc.client.dumps((keys,), "vdi_attach_from_config").encode()
        answer = sr.client.post(attached, f"/sm/{sr.kind}").value()
        self.test.assertTrue(os.path.exists(answer["params"]))
        self.test.assertIn("params_nbd", answer)
        return {**keys, "command": "vdi_detach_from_config"}

    def vdi_detach_from_config(self, sr, vdi):
        detached = xmlrpc.client.dumps((self.vdi_attach_from_config(sr, vdi),), "vdi_detach_from_config").encode()
        self.test.assertIsNone(sr.client.post(detached, f"/sm/{sr.kind}").value())
        sr("vdi_delete", vdi_uuid=vdi)

    def smapi_sr_contents(self, sr, vdi):
        self.test.assertEqual(set(ours(sr)), {vdi})

    def smapi_fsck(self, sr, _):
        answer = sr.client.call("smapi.fsck")
        self.test.assertIn(sr.uuid, answer["srs"])
        self.test.assertEqual([one for one in answer["differences"] if one["sr"] == sr.uuid], [])

    def smapi_sr_fsck(self, sr, _):
        answer = sr.client.call("smapi.sr_fsck", sr_uuid=sr.uuid, strict="true")
        self.test.assertEqual((answer["differences"], answer["count"]), ([], "0"))

    def smapi_host_register(self, sr, _):
        """The session of this test and the next: both are of one agent."""
        terms = sr.client.call("smapi.host_register", path="/RPC2", host_boot_id=boot_id(), nonce=NONCE, watchdog=True)
        order = [int(terms[name]) for name in ("renew_ms", "warn_ms", "stop_ms", "ttl_ms")]
        self.test.assertEqual(order, sorted(order))
        self.test.assertGreater(int(terms["dead_ms"]), int(terms["ttl_ms"]) + int(terms["watchdog_ms"]))

    def smapi_host_renew(self, sr, vdi):
        self.smapi_host_register(sr, vdi)
        renewed = sr.client.call("smapi.host_renew", path="/RPC2", host_boot_id=boot_id(), nonce=NONCE)
        self.test.assertEqual((renewed["ttl_ms"], renewed["broken"], renewed["stale"]), (str(TTL * 1000), "0", False))

    def smapi_lease_list(self, sr, vdi):
        epoch = sr.activated(vdi)
        row = self.test.lab.leases(sr.client, sr_uuid=sr.uuid)[epoch]
        self.test.assertEqual((row["vdi"], row["mode"], row["state"]), (vdi, "rw", "held"))

    def smapi_sr_take_over(self, sr, _):
        answer = sr("smapi.sr_take_over", owner=new_uuid(), reason="none is needed")
        self.test.assertEqual((answer["ours"], answer["taken"]), (True, False))
        self.test.assertRegex(answer["owner"], "^[0-9a-f-]{36}$")

    def smapi_vdi_resolve(self, sr, vdi):
        with self.test.assertRaises(Fault) as refused:  # crash.quarantine has disks in quarantine
            sr("smapi.vdi_resolve", vdi_uuid=vdi)
        self.test.assertEqual(refused.exception.code, 46)
        self.test.assertIn("not in quarantine", refused.exception.text)

    def smapi_lease_break(self, sr, vdi):
        host = new_uuid()
        theirs = sr.by(self.test.lab.host(host))
        theirs("sr_attach")
        epoch = theirs.activated(vdi)
        which = {"vdi_uuid": vdi, "host": host, "epoch": str(epoch), "reason": "a test"}
        with self.test.assertRaises(Fault) as refused:
            sr.client.call("smapi.lease_break", path="/RPC2", sr_uuid=sr.uuid, evidence="operator", **which)
        self.test.assertEqual(refused.exception.code, 2001)  # off by default
        self.test.assertIn(epoch, self.test.lab.leases())
        sr.client.call("smapi.lease_break", path="/RPC2", sr_uuid=sr.uuid, evidence="ha", **which)
        self.test.assertNotIn(epoch, self.test.lab.leases())

    def smapi_host_unregister(self, sr, vdi):
        host = self.test.lab.host(new_uuid())
        words = {"host_boot_id": new_uuid(), "nonce": new_uuid()}
        host.call("smapi.host_register", path="/RPC2", **words)
        theirs = sr.by(host)
        theirs("sr_attach")
        epoch = theirs.activated(vdi, "false")
        with self.test.assertRaises(Fault) as refused:
            host.call("smapi.host_unregister", path="/RPC2", **words)
        self.test.assertEqual(refused.exception.code, 24)
        self.test.assertIsNone(host.call("smapi.host_unregister", path="/RPC2", release=True, **words))
        self.test.assertNotIn(epoch, self.test.lab.leases())
        with self.test.assertRaises(Fault) as refused:
            host.call("smapi.host_renew", path="/RPC2", **words)
        self.test.assertEqual(refused.exception.code, 37)

    def smapi_host_break(self, sr, vdi):
        host = new_uuid()
        theirs = sr.by(self.test.lab.host(host))
        theirs("sr_attach")
        epoch = theirs.activated(vdi, "false")
        answer = sr.client.call("smapi.host_break", path="/RPC2", host=host, epoch=str(epoch), evidence="ha", reason="a test")
        self.test.assertEqual((answer["broken"], answer["left"]), ("1", []))
        self.test.assertNotIn(epoch, self.test.lab.leases())

    def smapi_disk_write(self, sr, vdi):
        epoch = sr.activated(vdi)
        self.test.assertIsNone(sr("smapi.disk_write", vdi_uuid=vdi, epoch=str(epoch), data="x"))

    def smapi_disk_log(self, sr, vdi):
        self.smapi_disk_write(sr, vdi)
        self.test.assertEqual([row["data"] for row in sr("smapi.disk_log", vdi_uuid=vdi)], ["x"])

    def system_listMethods(self, sr, _):
        self.test.assertIn("sr_create", sr.client.ask("system.listMethods"))

    def system_methodSignature(self, sr, _):
        self.test.assertTrue(sr.client.ask("system.methodSignature", "sr_create"))

    def system_methodHelp(self, sr, _):
        self.test.assertTrue(sr.client.ask("system.methodHelp", "sr_create"))


    def system_multicall(self, sr, vdi):
        calls = [{"methodName": "system.listMethods", "params": []}, {"methodName": "sr_polish", "params": []}]
        first, second = sr.client.ask("system.multicall", calls)
        self.test.assertIn("sr_create", first[0])
        self.test.assertEqual(second["faultCode"], 143)

    def system_getCapabilities(self, sr, _):
        self.test.assertEqual(sr.client.ask("system.getCapabilities")["xmlrpc"]["specVersion"], 1)


# A call of what a type does not offer, complete enough to be refused for that alone.
ABSENT_ARGS = {"vdi_resize": (str(8 * MIB),), "vdi_compose": (new_uuid(),)}
ABSENT_KEYS = {"vdi_introduce": {"vdi_location": "somewhere"}, "smapi.disk_write": {"epoch": "1", "data": "x"}}
NO_DISK = {"vdi_introduce", "vdi_create", "sr_probe"}


class Contract(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.lab.start(lease__ttl=TTL, lease__dead=TTL + 61)
        cls.shared = {}  # in a guest, where it takes seconds to make one: an SR of each type, for the next test

    def test_each_method_has_a_call_among_those_that_fuzzing_begins_with(self):
        corpus = os.path.join(SOURCE, "tests", "fuzz", "corpus")
        for target in ("args", "request"):
            seen = b""
            for name in os.listdir(os.path.join(corpus, target)):
                with open(os.path.join(corpus, target, name), "rb") as seed:
                    seen += seed.read()
            self.assertEqual([row["name"] for row in describe()["methods"] if f">{row['name']}<".encode() not in seen], [])

    def repository(self, kind, method):
        """One for the method: that of the methods before, emptied, or a new one."""
        sr = self.shared.pop(kind, None)
        if not sr:
            return self.lab.repository(kind) if method in Recipes.BARE else self.lab.repository(kind).made()
        if method in Recipes.BARE:
            self.shared[kind] = sr
            return self.lab.repository(kind)
        for vdi, row in ours(sr).items():
            if not row["hidden"]:
                sr.released(vdi)
                sr("vdi_delete", vdi_uuid=vdi)
        return sr

    def test_every_type_does_what_it_offers_and_refuses_the_rest(self):
        recipes = Recipes(self)
        for kind, methods in self.matrix():
            for method in sorted(methods, key=lambda row: row["name"] in Recipes.LAST):
                with self.subTest(type=kind["name"], method=method["name"]):
                    self.one(recipes, kind, method)

    @staticmethod
    def matrix():
        """(type's row, rows of the methods to be tried)."""
        methods, kinds, chance = describe()["methods"], list(map(type_row, TODAY)), random.Random(SEED)
        if DEEP or not IN_GUEST:
            return [(kind, methods) for kind in kinds]
        hands = {kind["name"]: [] for kind in kinds}
        methods = [method for method in methods if method["lock"] not in NO_DRIVER][SEED // len(KINDS) % SHARE::SHARE]
        for method in methods:
            able = [kind["name"] for kind in kinds if offers(kind, method)]
            if not able:  # another day's types do
                continue
            fewest = min(len(hands[name]) for name in able)
            hands[chance.choice([name for name in able if len(hands[name]) == fewest])].append(method)
        for kind in kinds:  # and one that it does not offer
            lacking = [method for method in methods if not offers(kind, method)]
            hands[kind["name"]] += chance.sample(lacking, min(1, len(lacking)))
        return [(kind, hands[kind["name"]]) for kind in kinds]

    def one(self, recipes, kind, method):
        name = method["name"]
        recipe = getattr(recipes, name.replace(".", "_"), None)
        self.assertIsNotNone(recipe, "this method has no recipe")
        sr = self.repository(kind["name"], name)
        vdi = None if name in Recipes.BARE else sr.disk()
        if offers(kind, method):
            recipe(sr, vdi)
        else:
            self.absent(sr, method, vdi)
        if IN_GUEST and name not in Recipes.LAST:
            self.shared[kind["name"]] = sr

    def absent(self, sr, method, vdi):
        name = method["name"]
        keys = dict(ABSENT_KEYS.get(name, {}))
        if name not in NO_DISK:
            keys["vdi_uuid"] = vdi
        before = sr.contents()
        with self.assertRaises(Fault) as refused:
            sr(name, *ABSENT_ARGS.get(name, ()), **keys)
        self.assertEqual(refused.exception.code, 38, refused.exception.text)
        self.assertEqual(sr.contents(), before)

    def attached(self, kind):
        """One that the test leaves as it was."""
        sr = self.shared.get(kind) or self.lab.repository(kind).made()
        if IN_GUEST:
            self.shared[kind] = sr
        return sr

    def test_every_type_refuses_a_call_on_an_sr_of_another_type(self):
        some = IN_GUEST and not DEEP
        for name in TODAY:
            sr = self.attached(name)
            others = [other for other in KINDS if other != name]
            for other in random.Random(f"{SEED} {name}").sample(others, 2) if some else others:
                with self.subTest(sr=name, path=other), self.assertRaises(Fault):
                    sr.client.call("sr_scan", path=f"/sm/{other}", sr_uuid=sr.uuid, device_config=sr.config)

    def test_every_required_key_of_device_config_is_required(self):
        for kind in map(type_row, TODAY):
            for key in kind["keys"]:
                if key["required"]:
                    sr = self.lab.repository(kind["name"])
                    del sr.config[key["key"]]
                    with self.subTest(type=kind["name"], key=key["key"]), self.assertRaises(Fault) as refused:
                        sr("sr_create", "0")
                    self.assertIn(key["key"], refused.exception.text)

    def test_uuids_of_another_kind_of_object_are_unknown(self):
        for kind in map(type_row, TODAY):
            sr = self.attached(kind["name"])
            with self.assertRaises(Fault) as refused:
                sr("vdi_attach", vdi_uuid=sr.uuid)
            self.assertEqual(refused.exception.code, 46)
            stranger = sr.by(sr.client)
            stranger.uuid = new_uuid()
            with self.assertRaises(Fault) as refused:
                stranger("sr_scan")
            self.assertEqual(refused.exception.code, 47)


if __name__ == "__main__":
    unittest.main()
