# SPDX-License-Identifier: LGPL-2.1-or-later
"""X-SMAPI-Op-Id: a call that is asked again under its id has its answer given again, byte for byte."""
import os
import unittest

from lab import FAKETIME, KINDS, MIB, SANITIZED, LabTest, new_uuid


class Asked(LabTest):
    def ask(self, sr, op, method, *args, client=None, **keys):
        return (client or sr.client).post(sr.body(method, *args, **keys), f"/sm/{sr.kind}", op)



class Replay(Asked):
    def twice(self, sr, method, *args, **keys):
        """Two answers to one operation id; they must be the same bytes."""
        op = new_uuid()
        first, second = (self.ask(sr, op, method, *args, **keys) for _ in range(2))
        self.assertEqual(first.body, second.body)
        self.assertEqual(first.header("X-SMAPI-Epoch"), second.header("X-SMAPI-Epoch"))
        return first

    def test_each_changing_call_is_done_once(self):
        for kind in KINDS:
            with self.subTest(kind=kind):
                sr = self.lab.repository(kind)
                self.twice(sr, "sr_create", "0").value()
                self.twice(sr, "sr_attach").value()
                vdi = self.twice(sr, "vdi_create", str(4 * MIB)).value()["uuid"]
                self.assertEqual(set(sr.contents()), {vdi})
                self.twice(sr, "vdi_attach", "true", vdi_uuid=vdi).value()
                epoch = self.twice(sr, "vdi_activate", "true", vdi_uuid=vdi).header("X-SMAPI-Epoch")
                self.assertGreater(int(epoch), 0)
                for method in ("vdi_deactivate", "vdi_detach", "vdi_update"):
                    self.twice(sr, method, vdi_uuid=vdi).value()
                self.twice(sr, "vdi_resize", str(8 * MIB), vdi_uuid=vdi).value()
                self.twice(sr, "vdi_delete", vdi_uuid=vdi).value()
                self.twice(sr, "sr_detach").value()
                self.twice(sr, "sr_delete").value()

    def test_snapshot_and_clone_are_made_once(self):
        sr = self.lab.repository("dummy").made()
        vdi = sr.disk()
        for method in ("vdi_snapshot", "vdi_clone"):
            before = set(sr.contents())
            made = self.twice(sr, method, vdi_uuid=vdi).value()["uuid"]
            self.assertIn(made, set(sr.contents()) - before)

    def test_a_replay_is_the_old_answer_even_when_the_world_has_moved_on(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            op = new_uuid()
            first = self.ask(sr, op, "vdi_create", str(4 * MIB))
            sr("vdi_delete", vdi_uuid=first.value()["uuid"])
            self.assertEqual(self.ask(sr, op, "vdi_create", str(4 * MIB)).body, first.body)
            self.assertEqual(sr.contents(), {})

    def test_a_fault_is_replayed_too(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            vdi = new_uuid()
            op = new_uuid()
            first = self.ask(sr, op, "vdi_resize", str(8 * MIB), vdi_uuid=vdi)
            with self.refused(46, vdi):
                first.value()
            sr.disk(vdi_uuid=vdi)
            self.assertEqual(self.ask(sr, op, "vdi_resize", str(8 * MIB), vdi_uuid=vdi).body, first.body)

    def test_the_answer_outlives_kill_9(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            create, failure = new_uuid(), new_uuid()
            made = self.ask(sr, create, "vdi_create", str(4 * MIB))
            vdi = made.value()["uuid"]
            refused = self.ask(sr, failure, "vdi_resize", str(2 * MIB), vdi_uuid=vdi)
            with self.refused(79):
                refused.value()
            sr("vdi_attach", "true", vdi_uuid=vdi)
            activate = new_uuid()
            active = self.ask(sr, activate, "vdi_activate", "true", vdi_uuid=vdi)
            self.lab.kill9()
            self.lab.start()
            self.assertEqual(self.ask(sr, create, "vdi_create", str(4 * MIB)).body, made.body)
            self.assertEqual(self.ask(sr, failure, "vdi_resize", str(2 * MIB), vdi_uuid=vdi).body, refused.body)
            again = self.ask(sr, activate, "vdi_activate", "true", vdi_uuid=vdi)
            self.assertEqual((again.body, again.header("X-SMAPI-Epoch")), (active.body, active.header("X-SMAPI-Epoch")))
            self.assertEqual(set(sr.contents()), {vdi})

    def test_2002_for_another_body(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            op = new_uuid()
            self.ask(sr, op, "vdi_create", str(4 * MIB)).value()
            for again in (("vdi_create", str(8 * MIB)), ("sr_scan",)):
                with self.refused(2002, op):
                    self.ask(sr, op, *again).value()
            self.assertEqual(len(sr.contents()), 1)

    def test_2002_for_another_identity(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            op = new_uuid()
            self.ask(sr, op, "vdi_create", str(4 * MIB)).value()
            with self.refused(2002, op):
                self.ask(sr, op, "vdi_create", str(4 * MIB), client=self.lab.host(new_uuid())).value()
            self.assertEqual(len(sr.contents()), 1)

    def test_143_for_an_id_that_is_no_uuid(self):
        sr = self.lab.repository("dummy").made()
        for op in ("1", "x" * 36, new_uuid() + "0"):
            with self.subTest(op=op), self.refused(143, "X-SMAPI-Op-Id"):
                self.ask(sr, op, "vdi_create", str(4 * MIB)).value()
        self.assertEqual(sr.contents(), {})


@unittest.skipIf(SANITIZED or not os.path.exists(FAKETIME), "libfaketime is needed, and no sanitizer")
class ADay(Asked):
    def test_an_answer_is_kept_for_24_hours_and_then_its_id_is_free(self):
        for kind in KINDS:
            sr, op = self.lab.repository(kind).made(), new_uuid()
            first = self.ask(sr, op, "vdi_create", str(4 * MIB))
            vdi = first.value()["uuid"]
            for later, known in (("+23h", True), ("+25h", False)):
                self.lab.at_another_date(later)
                self.lab.restart()
                again = self.ask(sr, op, "vdi_create", str(4 * MIB))
                self.assertEqual(again.body == first.body, known, later)
            self.assertEqual(set(sr.contents()), {vdi, again.value()["uuid"]})
            self.lab.environment.clear()
            self.lab.restart()


if __name__ == "__main__":
    unittest.main()
