# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a repeat of each call comes to: under its operation id the same bytes, without one what the call's own rule says;
the same with kill -9 between the two."""
import unittest

import vhd
from lab import KINDS, MIB, Fault, Lab, new_uuid


class Case:
    """prepare, then call twice. again judges the repeat without an operation id by both outcomes, each (value or code)."""

    kinds = KINDS

    def __init__(self, test, lab):
        self.test, self.lab = test, lab

    def prepare(self, sr):
        sr.made()
        self.vdi = sr.disk(4 * MIB, "label")

    def again(self, sr, first, second):
        """By default: success both times, with the same answer."""
        self.test.assertEqual(second, first)

    def both(self, first, second):
        self.test.assertEqual((first[0], second[0]), ("value", "value"), (first, second))


class SrCreate(Case):
    call = ("sr_create", "0"), {}

    def prepare(self, sr):
        pass

    def again(self, sr, first, second):
        self.test.assertEqual((first[0], second), ("value", ("fault", 42)))


class SrDelete(Case):
    call = ("sr_delete",), {}

    def prepare(self, sr):
        sr.made()


class SrAttach(Case):
    call = ("sr_attach",), {}

    def prepare(self, sr):
        sr("sr_create", "0")


class SrDetach(Case):
    call = ("sr_detach",), {}


class SrScan(Case):
    call = ("sr_scan",), {}


class SrProbe(Case):
    call = ("sr_probe",), {}


class SrUpdate(Case):
    call = ("sr_update",), {}


class SrContentType(Case):
    call = ("sr_content_type",), {}


class SrGetDriverInfo(Case):
    call = ("sr_get_driver_info",), {}


class VdiCreate(Case):
    """Nothing says that it is the same disk: a second one is made."""

    call = ("vdi_create", str(4 * MIB)), {}

    def again(self, sr, first, second):
        self.both(first, second)
        self.test.assertNotEqual(first, second)
        self.test.assertEqual(len(sr.contents()), 3)


class VdiCreateNamed(Case):
    def prepare(self, sr):
        sr.made()
        self.call = ("vdi_create", str(4 * MIB)), {"vdi_uuid": new_uuid()}

    def again(self, sr, first, second):
        self.test.assertEqual((first[0], second), ("value", ("fault", 43)))
        self.test.assertEqual(len(sr.contents()), 1)


class OnDisk(Case):
    method, args, keys = None, (), {}

    def prepare(self, sr):
        super().prepare(sr)
        self.call = (self.method, *self.args), {"vdi_uuid": self.vdi, **self.keys}


class VdiDelete(OnDisk):
    method = "vdi_delete"


class VdiAttach(OnDisk):
    method, args = "vdi_attach", ("true",)


class VdiDetach(OnDisk):
    method = "vdi_detach"

    def prepare(self, sr):
        super().prepare(sr)
        sr("vdi_attach", "true", vdi_uuid=self.vdi)


class VdiActivate(OnDisk):
    """The same epoch for the same holder, 24 for another."""

    method, args = "vdi_activate", ("true",)

    def prepare(self, sr):
        super().prepare(sr)
        sr("vdi_attach", "true", vdi_uuid=self.vdi)

    def again(self, sr, first, second):
        super().again(sr, first, second)
        sr("vdi_activate", "true", vdi_uuid=self.vdi)
        epoch = sr.epoch()
        sr("vdi_activate", "true", vdi_uuid=self.vdi)
        self.test.assertEqual(sr.epoch(), epoch)
        other = sr.by(self.lab.host(new_uuid()))
        other("sr_attach")
        with self.test.assertRaises(Fault) as refused:
            other.activated(self.vdi)
        self.test.assertEqual(refused.exception.code, 24)


class VdiDeactivate(OnDisk):
    method = "vdi_deactivate"

    def prepare(self, sr):
        super().prepare(sr)
        sr.activated(self.vdi)


class VdiResize(OnDisk):
    method, args = "vdi_resize", (str(8 * MIB),)

    def again(self, sr, first, second):
        super().again(sr, first, second)
        with self.test.assertRaises(Fault) as refused:
            sr("vdi_resize", str(4 * MIB), vdi_uuid=self.vdi)
        self.test.assertEqual(refused.exception.code, 79)


class VdiSnapshot(OnDisk):
    """A second one is made."""

    method, keys = "vdi_snapshot", {"driver_params": {}}

    def again(self, sr, first, second):
        self.both(first, second)
        self.test.assertNotEqual(first, second)
        self.test.assertEqual(len([row for row in sr.contents().values() if not row["hidden"]]), 3)


class VdiClone(VdiSnapshot):
    method = "vdi_clone"


class VdiIntroduce(Case):
    def prepare(self, sr):
        sr.made()
        self.made = vhd.Maker(2 * MIB).save(sr.location).uuid if sr.kind == "file" else new_uuid()
        self.call = ("vdi_introduce",), {"vdi_location": self.made, "new_uuid": self.made, "vdi_sm_config": {}}

    def again(self, sr, first, second):
        super().again(sr, first, second)
        with self.test.assertRaises(Fault) as refused:
            sr("vdi_introduce", vdi_location=self.made, new_uuid=new_uuid(), vdi_sm_config={})
        self.test.assertEqual(refused.exception.code, 43)


class VdiUpdate(OnDisk):
    method, keys = "vdi_update", {"name_label": "new"}


CASES = [SrCreate, SrDelete, SrAttach, SrDetach, SrScan, SrProbe, SrUpdate, SrContentType, SrGetDriverInfo, VdiCreate,
         VdiCreateNamed, VdiDelete, VdiAttach, VdiDetach, VdiActivate, VdiDeactivate, VdiResize, VdiSnapshot, VdiClone,
         VdiIntroduce, VdiUpdate]


class Idempotency(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.lab = Lab(in_memory=True)
        self.addCleanup(self.lab.close)
        self.lab.start()

    def each(self, judge):
        for kind in KINDS:
            for case in CASES:
                with self.subTest(kind=kind, case=case.__name__):
                    sr, one = self.lab.repository(kind), case(self, self.lab)
                    one.prepare(sr)
                    judge(sr, one)

    def ask(self, sr, one, op=None):
        (method, *args), keys = one.call
        return sr.client.post(sr.body(method, *args, **keys), f"/sm/{sr.kind}", op)

    def outcome(self, sr, one):
        try:
            return "value", self.ask(sr, one).value()
        except Fault as fault:
            return "fault", fault.code

    def kill(self):
        self.lab.kill9()
        self.lab.start()

    def test_without_an_operation_id(self):
        self.each(lambda sr, one: one.again(sr, self.outcome(sr, one), self.outcome(sr, one)))

    def test_without_one_after_kill_9(self):
        def judge(sr, one):
            first = self.outcome(sr, one)
            self.kill()
            one.again(sr, first, self.outcome(sr, one))

        self.each(judge)

    def test_under_an_operation_id_the_same_bytes(self):
        def judge(sr, one):
            op = new_uuid()
            first = self.ask(sr, one, op)
            first.value()
            self.assertEqual(self.ask(sr, one, op).body, first.body)

        self.each(judge)

    def test_under_an_operation_id_the_same_bytes_after_kill_9(self):
        def judge(sr, one):
            op = new_uuid()
            first = self.ask(sr, one, op)
            self.kill()
            self.assertEqual(self.ask(sr, one, op).body, first.body)

        self.each(judge)


if __name__ == "__main__":
    unittest.main()
