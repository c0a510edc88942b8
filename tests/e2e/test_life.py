# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole life of SRs and disks, in both dialects, by peers that share no code with us; and what calls report."""
import base64
import os
import unittest
import xml.etree.ElementTree as ElementTree

import vhd
from lab import KINDS, MIB, LabTest, describe, new_uuid, type_row

ATTACH_MEMBERS = {"params", "params_nbd", "o_direct", "o_direct_reason", "xenstore_data"}


def inquiry(vdi):
    """The synthetic SCSI INQUIRY pages 0x80 and 0x83 of a disk."""
    short = b"\x00\x80\x00\x12" + vdi[:16].encode() + b"  "
    long = b"\x00\x83\x00\x31\x02\x01\x00\x2d" + b"XENSRC  " + vdi.encode() + b" "
    return base64.b64encode(short).decode(), base64.b64encode(long).decode()


class WholeLife(LabTest):
    """Create, use and remove an SR and disks, as xapi's commands of the specification's Appendix A do."""

    def live(self, sr):
        sr("sr_create", "0")
        sr("sr_attach")
        sr("sr_update")
        info = sr("vdi_create", str(4 * MIB))
        self.assertEqual(set(info), {"location", "uuid"})
        vdi = {"vdi_uuid": info["uuid"], "vdi_location": info["location"], "vdi_ref": "OpaqueRef:vdi"}
        path = sr("vdi_attach", **vdi)
        self.assertIsInstance(path, str)
        if sr.kind == "file":
            self.assertEqual(vhd.Image(path).size, 4 * MIB)
        for method in ("vdi_activate", "vdi_deactivate", "vdi_detach"):
            self.assertIsNone(sr(method, **vdi))
        self.assertEqual(sr("vdi_resize", str(8 * MIB), **vdi), info)
        self.assertIsNone(sr("sr_scan"))
        self.assertEqual(int(sr.contents()[info["uuid"]]["size"]), 8 * MIB)
        self.assertIsNone(sr("vdi_delete", **vdi))
        self.assertEqual(sr.contents(), {})
        for method in ("sr_detach", "sr_attach", "sr_attach", "sr_delete"):
            self.assertIsNone(sr(method))
        if sr.kind == "file":
            self.assertFalse(os.path.exists(sr.location) and os.listdir(sr.location))
        with self.refused(47):
            sr("sr_attach")

    def live_as_xapi(self, sr):
        sr("sr_create", "0")
        sr("sr_attach")
        sr("sr_update")
        info = sr("vdi_create", str(4 * MIB), "a label", "words", "", "false", "19700101T00:00:00Z", "", "false",
                  vdi_type="user", vdi_sm_config={})
        vdi = {"vdi_uuid": info["uuid"], "vdi_location": info["location"], "vdi_ref": "OpaqueRef:vdi",
               "vdi_on_boot": "persist", "vdi_allow_caching": "false"}
        attached = sr("vdi_attach", "true", **vdi)
        self.assertEqual(set(attached), ATTACH_MEMBERS)
        self.assertIsInstance(attached["params_nbd"], str)
        self.assertIsInstance(attached["o_direct"], bool)
        data = attached["xenstore_data"]
        self.assertEqual((data["scsi/0x12/0x80"], data["scsi/0x12/0x83"]), inquiry(info["uuid"]))
        self.assertEqual(data["vdi-uuid"], info["uuid"])
        sr("vdi_activate", "true", **vdi)
        sr.released(info["uuid"])
        row = sr.contents()[info["uuid"]]
        self.assertEqual((row["label"], row["description"]), ("a label", "words"))
        self.assertIsNone(sr("vdi_update", **vdi))
        sr("sr_scan")
        sr("vdi_delete", **vdi)
        sr("sr_detach")
        sr("sr_attach")
        sr("sr_delete")

    def clients(self):
        host = new_uuid()
        return {"curl": self.lab.curl(host), "xmlrpc.client": self.lab.proxy(host), "http.client": self.lab.host(host),
                "unix": self.lab.unix()}

    def test_in_the_dialect_of_the_specification(self):
        for name, client in self.clients().items():
            for kind in KINDS:
                with self.subTest(client=name, kind=kind):
                    self.live(self.lab.repository(kind, client))

    def test_in_the_dialect_of_todays_xapi(self):
        host = new_uuid()
        for name, client in {"curl": self.lab.curl(host, "xapi"), "unix": self.lab.unix("xapi")}.items():
            for kind in KINDS:
                with self.subTest(client=name, kind=kind):
                    self.live_as_xapi(self.lab.repository(kind, client))

    def test_type_from_the_known_sr_or_device_config_on_rpc2(self):
        client = self.lab.unix()
        for kind in KINDS:
            sr = self.lab.repository(kind, client)
            client.call("sr_create", args=["0"], sr_uuid=sr.uuid, device_config={**sr.config, "type": kind})
            client.call("sr_attach", sr_uuid=sr.uuid, device_config=sr.config)
            client.call("sr_delete", sr_uuid=sr.uuid, device_config={})

    def test_inquiry_pages_known_from_the_reference(self):
        sr = self.lab.repository("dummy").made()
        vdi = sr.disk(vdi_uuid="aaaaaaaa-2222-3333-4444-555555555555")
        data = sr("vdi_attach", "true", vdi_uuid=vdi)["xenstore_data"]
        self.assertEqual(data["scsi/0x12/0x80"], "AIAAEmFhYWFhYWFhLTIyMjItMzMgIA==")
        self.assertEqual(data["scsi/0x12/0x83"],
                         "AIMAMQIBAC1YRU5TUkMgIGFhYWFhYWFhLTIyMjItMzMzMy00NDQ0LTU1NTU1NTU1NTU1NSA=")

    def test_a_disk_is_found_by_location_alone(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            info = sr("vdi_create", str(4 * MIB))
            sr("vdi_delete", vdi_location=info["location"])
            self.assertEqual(sr.contents(), {})

    def test_sizes_as_text_i4_and_i8(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            small = sr("vdi_create", 4 * MIB)["uuid"]
            body = sr.body("vdi_create", "SIZE").replace(b"<string>SIZE</string>", b"<i8>%d</i8>" % (4 << 30))
            large = sr.client.post(body, f"/sm/{kind}").value()["uuid"]
            self.assertEqual({u: int(row["size"]) for u, row in sr.contents().items()}, {small: 4 * MIB, large: 4 << 30})

    def test_labels_are_kept_and_updated(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            vdi = sr.disk(4 * MIB, "<one> & \u00e4", "first")
            self.assertEqual(sr.contents()[vdi]["label"], "<one> & \u00e4")
            sr("vdi_update", vdi_uuid=vdi, name_label="two")
            row = sr.contents()[vdi]
            self.assertEqual((row["label"], row["description"]), ("two", "first"))

    def test_snapshot_is_read_only_and_clone_is_not(self):
        sr = self.lab.repository("dummy").made()
        vdi = sr.disk()
        snapshot = sr("vdi_snapshot", vdi_uuid=vdi, driver_params={})["uuid"]
        clone = sr("vdi_clone", vdi_uuid=vdi, driver_params={})["uuid"]
        rows = sr.contents()
        self.assertGreaterEqual(set(rows), {vdi, snapshot, clone})
        self.assertTrue(rows[snapshot]["read_only"])
        self.assertFalse(rows[clone]["read_only"])


class Reports(LabTest):
    def test_content_type_is_the_xml_document_of_the_specification(self):
        for kind in KINDS:
            text = self.lab.repository(kind).made()("sr_content_type")
            self.assertTrue(text.startswith('<?xml version="1.0" ?><sr><type>'), text)
            self.assertEqual(ElementTree.fromstring(text).findtext("type"), type_row(kind)["content"])

    def test_driver_config_is_xml_and_driver_info_a_struct_of_the_same(self):
        for kind in KINDS:
            client = self.lab.unix()
            info = client.call("sr_get_driver_info", path=f"/sm/{kind}")
            self.assertEqual(set(info) - {"supported_image_formats"},
                             {"name", "description", "vendor", "copyright", "driver_version", "required_api_version",
                              "capabilities", "configuration", "fencing"})
            self.assertEqual(info["capabilities"], type_row(kind)["capabilities"])
            self.assertEqual([row["key"] for row in info["configuration"]], [row["key"] for row in type_row(kind)["keys"]])
            document = ElementTree.fromstring(client.call("sr_get_driver_config", path=f"/sm/{kind}"))
            words = {(element.text or "").strip() for element in document.iter()}
            self.assertLessEqual({info["name"], *info["capabilities"]}, words)

    def test_probe_finds_the_sr_at_and_below_its_location(self):
        sr = self.lab.repository("file", location=os.path.join(self.lab.dir, "probed", "sr"))
        os.makedirs(os.path.dirname(sr.location))
        sr.made()
        for place in (sr.location, os.path.dirname(sr.location)):
            text = self.lab.unix().call("sr_probe", path="/sm/file", device_config={"location": place})
            found = {uuid.text.strip() for uuid in ElementTree.fromstring(text).iter("UUID")}
            self.assertEqual(found, {sr.uuid}, place)

    def test_probe_of_a_place_without_an_sr_finds_none(self):
        place = os.path.join(self.lab.dir, "bare")
        os.mkdir(place)
        text = self.lab.unix().call("sr_probe", path="/sm/file", device_config={"location": place})
        self.assertEqual(list(ElementTree.fromstring(text).iter("UUID")), [])
        self.assertEqual(os.listdir(place), [])

    def test_contents_come_in_pages_that_cover_each_disk_once(self):
        sr = self.lab.repository("dummy").made()
        made = {sr.disk() for _ in range(7)}
        seen, after = [], ""
        while True:
            page = sr.page(limit=3, after=after)
            self.assertLessEqual(len(page["vdis"]), 3)
            seen += [row["uuid"] for row in page["vdis"]]
            after = page["next"]
            if not after:
                break
        self.assertEqual(sorted(seen), sorted(made))
        with self.refused(143, "limit"):
            sr.page(limit=1001)
        with self.refused(143, "after"):
            sr.page(after="the last one")

    def test_totals_are_allocated_blocks_and_the_sum_of_sizes(self):
        sr = self.lab.repository("file").made()
        disks = [sr.disk(size * MIB, vdi_sm_config={"type": "raw"}) for size in (4, 8)]
        path = sr("vdi_attach", vdi_uuid=disks[0])
        with open(path, "r+b") as image:
            image.write(os.urandom(MIB))
            os.fsync(image.fileno())
        sr("sr_scan")
        page = sr.page()
        totals = page["sr"]
        self.assertEqual(int(totals["virtual_allocation"]), 12 * MIB)
        allocated = sum(os.stat(os.path.join(sr.location, name)).st_blocks * 512
                        for name in sr.names() if name.endswith((".raw", ".vhd")))
        self.assertEqual(sum(int(row["utilisation"]) for row in page["vdis"]), allocated)
        self.assertGreaterEqual(allocated, MIB)
        self.assertGreaterEqual(int(totals["physical_utilization"]), allocated)
        space = os.statvfs(sr.location)
        self.assertEqual(int(totals["physical_size"]), space.f_blocks * space.f_frsize)

    def test_introspection_tells_the_rows(self):
        client = self.lab.unix()
        rows = {row["name"]: row for row in describe()["methods"]}
        self.assertEqual(sorted(client.ask("system.listMethods")), sorted(rows))
        for name, row in rows.items():
            self.assertIn(row["text"], client.ask("system.methodHelp", name))
            for signature in client.ask("system.methodSignature", name):
                self.assertTrue(all(isinstance(kind, str) for kind in signature))
        with self.refused(143, "no_such_method"):
            client.ask("system.methodHelp", "no_such_method")

    def test_health_routes(self):
        client = self.lab.reader()
        for path in ("/healthz", "/readyz", "/versions"):
            self.assertEqual(client.get(path).status, 200, path)
        self.assertEqual(client.get("/nothing-here").status, 404)
        self.assertIn(client.get("/RPC2").status, (404, 405))

    def test_every_answer_names_its_call(self):
        client = self.lab.unix()
        ids = set()
        for _ in range(3):
            client.call("sr_get_driver_info", path="/sm/dummy")
            ids.add(client.last.header("X-SMAPI-Call-Id"))
        self.assertEqual(len(ids), 3)
        self.assertNotIn(None, ids)


if __name__ == "__main__":
    unittest.main()
