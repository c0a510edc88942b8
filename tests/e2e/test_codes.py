# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each fault by its condition, naming what it is about."""
import os
import unittest

from lab import KINDS, MIB, LabTest, describe, new_uuid, raises


class Places(LabTest):
    def place(self, location):
        return self.lab.repository("file", location=location)

    def test_42_for_a_directory_that_holds_something(self):
        sr = self.lab.repository("file")
        os.mkdir(sr.location)
        with open(os.path.join(sr.location, "letter.txt"), "w", encoding="ascii"):
            pass
        with self.refused(42, sr.location):
            sr("sr_create", "0")
        self.assertEqual(sr.names(), {"letter.txt"})

    def test_a_directory_that_was_there_stays_and_one_that_was_made_goes(self):
        for there in (True, False):
            sr = self.lab.repository("file")
            if there:
                os.mkdir(sr.location)
            sr.made()("sr_delete")
            self.assertEqual(os.path.exists(sr.location), there)
            self.assertEqual(os.listdir(sr.location) if there else [], [])

    @raises(61)
    def test_61_for_a_place_that_cannot_be_made(self):
        file = os.path.join(self.lab.dir, "file")
        with open(file, "w", encoding="ascii"):
            pass
        for location in (os.path.join(file, "below"), os.path.join(self.lab.dir, "no", "parent")):
            with self.refused(61, os.path.dirname(location)):
                self.place(location)("sr_create", "0")

    @raises(94)
    def test_94_without_a_location(self):
        sr = self.lab.repository("file")
        del sr.config["location"]
        with self.refused(94, "location"):
            sr("sr_create", "0")

    def test_2_for_a_location_that_is_relative_or_holds_a_bad_character(self):
        for location in ("relative/path", "/tmp/../tmp/sr", "/tmp/./sr", "/tmp/two\nlines", "/tmp/tab\there"):
            with self.subTest(location=location), self.refused(2, "location"):
                self.place(location)("sr_create", "0")

    def test_1_for_an_unknown_key_of_device_config(self):
        sr = self.lab.repository("file")
        sr.config["colour"] = "blue"
        with self.refused(1, "colour"):
            sr("sr_create", "0")

    def test_1_for_a_secret_that_only_xapi_could_tell(self):
        client = self.lab.unix()
        for kind, key in (("iscsi", "chappassword"), ("iso", "cifspassword")):
            with self.refused(1, "names a secret that xapi keeps", f"needed, as {key}"):
                client.call("sr_create", path=f"/sm/{kind}", args=["0"], sr_uuid=new_uuid(),
                            device_config={key + "_secret": new_uuid()})

    def test_39_for_an_sr_with_disks(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            vdi = sr.disk()
            with self.refused(39):
                sr("sr_delete")
            self.assertIn(vdi, sr.contents())

    def test_39_names_a_file_that_is_not_ours(self):
        sr = self.lab.repository("file").made()
        with open(os.path.join(sr.location, "letter.txt"), "w", encoding="ascii"):
            pass
        with self.refused(39, "letter.txt"):
            sr("sr_delete")
        self.assertIn("letter.txt", sr.names())
        sr("sr_update")

    def test_47_for_an_sr_that_is_unknown_or_not_attached(self):
        for kind in KINDS:
            sr = self.lab.repository(kind)
            for method in ("sr_attach", "sr_scan", "sr_update"):
                with self.subTest(kind=kind, method=method), self.refused(47):
                    sr(method)
            sr("sr_create", "0")
            with self.refused(47, sr.uuid):
                sr.disk()

    def test_48_for_an_unknown_type(self):
        client = self.lab.unix()
        with self.refused(48, "floppy"):
            client.call("sr_create", path="/sm/floppy", args=["0"], sr_uuid=new_uuid(), device_config={})
        with self.refused(48, "floppy"):
            client.call("sr_create", args=["0"], sr_uuid=new_uuid(), device_config={"type": "floppy"})


class Disks(LabTest):
    @raises(79)
    def test_79_for_a_size_of_zero_and_for_shrinking(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            with self.refused(79):
                sr.disk(0)
            vdi = sr.disk(8 * MIB)
            with self.refused(79):
                sr("vdi_resize", str(4 * MIB), vdi_uuid=vdi)
            self.assertEqual(int(sr.contents()[vdi]["size"]), 8 * MIB)

    def test_1_for_more_text_than_a_disk_may_keep(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            vdi = sr.disk(4 * MIB, "l" * 8000)
            with self.refused(1, "8192"):
                sr.disk(4 * MIB, "l" * 8200)
            with self.refused(1, "8192"):
                sr("vdi_update", vdi_uuid=vdi, name_description="d" * 8000)
            self.assertEqual({vdi: row["label"] for vdi, row in sr.contents().items()}, {vdi: "l" * 8000})

    def test_79_for_more_than_2040_gib(self):
        sr = self.lab.repository("file").made()
        with self.refused(79, "2040"):
            sr.disk((2040 << 30) + 2 * MIB, vdi_sm_config={"type": "vhd"})

    @raises(66)
    def test_66_for_an_image_type_that_does_not_exist(self):
        sr = self.lab.repository("file").made()
        with self.refused(66, "papyrus"):
            sr.disk(vdi_sm_config={"type": "papyrus"})

    def test_46_for_an_unknown_disk(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            stranger = new_uuid()
            for method, *args in (["vdi_attach", "true"], ["vdi_activate", "true"], ["vdi_resize", str(8 * MIB)],
                                  ["vdi_update"]):
                with self.subTest(method=method), self.refused(46, stranger):
                    sr(method, *args, vdi_uuid=stranger)

    def test_46_for_a_disk_of_another_sr(self):
        sr, other = (self.lab.repository("dummy").made() for _ in range(2))
        vdi = sr.disk()
        with self.refused(46, vdi):
            other("vdi_attach", "true", vdi_uuid=vdi)

    def test_46_for_an_introduced_disk_that_is_not_there(self):
        sr = self.lab.repository("file").made()
        for location in (new_uuid() + ".raw", new_uuid()):
            with self.refused(46):
                sr("vdi_introduce", vdi_location=location, vdi_sm_config={})

    def test_a_location_is_never_a_path_out_of_the_sr(self):
        sr = self.lab.repository("file").made()
        outside = os.path.join(self.lab.dir, new_uuid() + ".raw")
        with open(outside, "wb") as image:
            image.truncate(2 * MIB)
        for location in ("../" + os.path.basename(outside), outside):
            for method, code in (("vdi_introduce", 1), ("vdi_attach", 46)):
                with self.subTest(method=method, location=location), self.refused(code):
                    sr(method, vdi_location=location)
        sr("vdi_delete", vdi_location="../" + os.path.basename(outside))
        self.assertTrue(os.path.exists(outside))

    def test_447_for_a_label_that_xml_cannot_carry_or_143_before(self):
        sr = self.lab.repository("dummy").made()
        body = sr.body("vdi_create", str(4 * MIB), "LABEL").replace(b"LABEL", b"&#x1;")
        with self.refused(143):
            sr.client.post(body, "/sm/dummy").value()


class Requests(LabTest):
    """143, naming the thing."""

    def test_unknown_method(self):
        with self.refused(143, "vdi_polish"):
            self.lab.unix().call("vdi_polish", sr_uuid=new_uuid())

    def test_unknown_key(self):
        sr = self.lab.repository("dummy").made()
        with self.refused(143, "colour"):
            sr("sr_scan", colour="blue")

    def test_each_required_key_when_it_is_missing(self):
        client = self.lab.unix()
        for row in describe()["methods"]:
            for param in row["params"]:
                if param["place"] != "key" or param["need"] != "required":
                    continue
                keys = {p["name"]: good(p) for p in row["params"] if p["place"] == "key" and p is not param}
                body = one_struct(row["name"], {**keys, "args": []})
                with self.subTest(method=row["name"], missing=param["name"]), self.refused(143, param["name"]):
                    client.post(body, "/sm/dummy").value()

    def test_each_key_and_argument_when_it_is_ill_typed(self):
        client = self.lab.unix()
        for row in describe()["methods"]:
            args = [p for p in row["params"] if p["place"] == "arg"]
            for param in row["params"]:
                bad = BAD.get(param["kind"])
                if bad is None or param["place"] == "plain":
                    continue
                keys = {p["name"]: good(p) for p in row["params"] if p["place"] == "key"}
                values = [good(p) for p in args]
                if param["place"] == "arg":
                    values[args.index(param)] = bad
                else:
                    keys[param["name"]] = bad
                body = one_struct(row["name"], {**keys, "args": values})
                with self.subTest(method=row["name"], param=param["name"]), self.refused(143, param["name"]):
                    client.post(body, "/sm/dummy").value()

    def test_too_many_arguments(self):
        sr = self.lab.repository("dummy").made()
        with self.refused(143, "args"):
            sr("sr_scan", "surplus")

    def test_no_struct_or_two(self):
        client = self.lab.unix()
        for params in ((), ({}, {}), ("text",)):
            with self.subTest(params=params), self.refused(143):
                client.ask("sr_scan", *params)


BAD = {"uuid": "not-a-uuid", "size": "many", "flag": "perhaps", "map": "no map", "count": "some", "text": {"a": "struct"}}


def good(param):
    return {"uuid": new_uuid(), "size": str(4 * MIB), "flag": "true", "map": {}, "count": 1, "text": "text"}[param["kind"]]


def one_struct(method, keys):
    import xmlrpc.client
    return xmlrpc.client.dumps((keys,), method).encode()


class Roles(LabTest):
    def test_2001_for_a_reader_that_changes_anything(self):
        sr = self.lab.repository("dummy").made()
        vdi = sr.disk()
        mine = sr.by(self.lab.reader())
        self.assertIn(vdi, mine.contents())
        for method, *args in (["vdi_create", str(4 * MIB)], ["vdi_delete"], ["vdi_attach", "true"], ["sr_attach"],
                              ["sr_delete"], ["vdi_resize", str(8 * MIB)]):
            keys = {} if method in ("vdi_create", "sr_attach", "sr_delete") else {"vdi_uuid": vdi}
            with self.subTest(method=method), self.refused(2001):
                mine(method, *args, **keys)
        self.assertIn(vdi, sr.contents())

    def test_2001_is_the_same_for_what_exists_and_what_does_not(self):
        sr = self.lab.repository("dummy").made()
        texts = []
        for uuid in (sr.uuid, new_uuid()):
            other = sr.by(self.lab.reader())
            other.uuid = uuid
            try:
                other("sr_delete")
            except Exception as fault:
                texts.append(str(fault).replace(uuid, "SR"))
        self.assertEqual(len(texts), 2)
        self.assertEqual(texts[0], texts[1])


if __name__ == "__main__":
    unittest.main()
