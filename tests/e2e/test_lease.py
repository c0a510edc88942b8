# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may use a disk: attachments, leases and their epochs, and what a repeated call answers."""
import os
import unittest

from lab import KINDS, MIB, Fault, LabTest, new_uuid

STATES = {"detached": (), "attached RO": ("attach RO",), "attached RW": ("attach RW",),
          "activated RO": ("attach RO", "activate RO"), "activated RW": ("attach RW", "activate RW")}
CALLS = {"attach RO": ("vdi_attach", "false"), "attach RW": ("vdi_attach", "true"),
         "activate RO": ("vdi_activate", "false"), "activate RW": ("vdi_activate", "true"),
         "deactivate": ("vdi_deactivate",), "detach": ("vdi_detach",)}
# All 30 cells: state -> for each call, in the order of CALLS, the state after it or the fault.
CELLS = {
    "detached": ("attached RO", "attached RW", 46, 46, "detached", "detached"),
    "attached RO": ("attached RO", 24, "activated RO", 24, "attached RO", "detached"),
    "attached RW": (24, "attached RW", "activated RO", "activated RW", "attached RW", "detached"),
    "activated RO": ("activated RO", 24, "activated RO", 24, "attached RO", 24),
    "activated RW": (24, "activated RW", 24, "activated RW", "attached RW", 24),
}


class TwoHosts(LabTest):
    def setUp(self):
        self.names = new_uuid(), new_uuid()
        self.hosts = [self.lab.host(name) for name in self.names]

    def shared(self, kind):
        """One SR attached to both hosts, and a disk in it."""
        first = self.lab.repository(kind, self.hosts[0]).made()
        second = first.by(self.hosts[1])
        second("sr_attach")
        return first, second, first.disk()


class Leases(TwoHosts):
    def test_reading_is_shared(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            self.assertNotEqual(first.activated(vdi, "false"), second.activated(vdi, "false"))

    def test_writing_excludes_every_other_host_and_the_refusal_names_the_holder(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            epoch = first.activated(vdi, "true")
            for writable in ("true", "false"):
                second("vdi_attach", writable, vdi_uuid=vdi)
                with self.refused(24, self.names[0], str(epoch)):
                    second("vdi_activate", writable, vdi_uuid=vdi)
                second("vdi_detach", vdi_uuid=vdi)

    def test_a_reader_keeps_a_writer_out(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            first.activated(vdi, "false")
            with self.refused(24, self.names[0]):
                second.activated(vdi, "true")

    def test_the_same_holder_gets_the_same_epoch_again(self):
        for kind in KINDS:
            first, _, vdi = self.shared(kind)
            epoch = first.activated(vdi)
            first("vdi_activate", "true", vdi_uuid=vdi)
            self.assertEqual(first.epoch(), epoch)

    def test_epochs_grow_over_disks_hosts_and_restarts(self):
        epochs = []
        first, second, vdi = self.shared("dummy")
        for sr in (first, second, first):
            epochs.append(sr.activated(vdi))
            sr.released(vdi)
        epochs.append(first.activated(first.disk()))
        self.lab.restart()
        epochs.append(second.activated(vdi))
        self.assertEqual(epochs, sorted(set(epochs)))

    def test_a_release_gives_the_disk_to_the_next_and_only_the_holder_can(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            first.activated(vdi)
            second("vdi_attach", "true", vdi_uuid=vdi)
            second("vdi_deactivate", vdi_uuid=vdi)
            with self.refused(24, self.names[0]):
                second("vdi_activate", "true", vdi_uuid=vdi)
            first.released(vdi)
            second("vdi_activate", "true", vdi_uuid=vdi)

    def test_live_migration_as_the_specification_orders_it(self):
        for kind in KINDS:
            source, target, vdi = self.shared(kind)
            old = source.activated(vdi)
            target("vdi_attach", "true", vdi_uuid=vdi)
            source("vdi_deactivate", vdi_uuid=vdi)
            target("vdi_activate", "true", vdi_uuid=vdi)
            self.assertGreater(target.epoch(), old)
            source("vdi_detach", vdi_uuid=vdi)
            with self.refused(24, self.names[1]):
                source.activated(vdi)

    def test_the_local_host_is_one_holder_through_both_doors(self):
        sr = self.lab.repository("dummy", self.lab.unix()).made()
        vdi = sr.disk()
        epoch = sr.activated(vdi)
        remote = sr.by(self.lab.host(self.lab.local_host))
        remote("vdi_activate", "true", vdi_uuid=vdi)
        self.assertEqual(remote.epoch(), epoch)

    def test_a_holder_is_never_taken_from_the_body(self):
        first, second, vdi = self.shared("dummy")
        first.activated(vdi)
        with self.refused(24, self.names[0]):
            second("vdi_attach", "true", vdi_uuid=vdi, host_ref=self.names[0])
            second("vdi_activate", "true", vdi_uuid=vdi, host_ref=self.names[0])

    def test_a_lease_outlives_kill_9(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            epoch = first.activated(vdi)
            self.lab.kill9()
            self.lab.start()
            with self.refused(24, self.names[0], str(epoch)):
                second.activated(vdi)
            first("vdi_activate", "true", vdi_uuid=vdi)
            self.assertEqual(first.epoch(), epoch)

    def test_a_write_of_an_older_epoch_is_refused_by_the_dummy_disk(self):
        first, second, vdi = self.shared("dummy")
        old = first.activated(vdi)
        first("smapi.disk_write", vdi_uuid=vdi, epoch=str(old), data="early")
        first.released(vdi)
        new = second.activated(vdi)
        second("smapi.disk_write", vdi_uuid=vdi, epoch=str(new), data="new")
        with self.assertRaises(Fault):
            first("smapi.disk_write", vdi_uuid=vdi, epoch=str(old), data="late")
        log = first("smapi.disk_log", vdi_uuid=vdi)
        self.assertEqual([(int(row["epoch"]), row["data"]) for row in log], [(old, "early"), (new, "new")])

    def test_a_late_write_is_refused_by_the_dummy_disk_after_a_kill_too(self):
        first, second, vdi = self.shared("dummy")
        old = first.activated(vdi)
        first.released(vdi)
        new = second.activated(vdi)
        second("smapi.disk_write", vdi_uuid=vdi, epoch=str(new), data="new")
        second.released(vdi)
        self.lab.kill9()
        self.lab.start()
        for epoch in (old, new):
            with self.refused(37, str(epoch)):
                first("smapi.disk_write", vdi_uuid=vdi, epoch=str(epoch), data="late")

    def test_a_disk_in_use_is_neither_deleted_nor_resized(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            first.activated(vdi)
            for sr in (first, second):
                with self.refused(24):
                    sr("vdi_delete", vdi_uuid=vdi)
                with self.refused(24):
                    sr("vdi_resize", str(8 * MIB), vdi_uuid=vdi)
            first("vdi_deactivate", vdi_uuid=vdi)
            with self.refused(24):
                second("vdi_delete", vdi_uuid=vdi)
            self.assertIn(vdi, first.contents())


class Bases(TwoHosts):
    """What several disks are made of."""

    def test_a_clone_is_used_while_the_disk_it_was_made_of_is_too_and_their_base_by_nobody(self):
        first, second, vdi = self.shared("file")
        clone = first("vdi_clone", vdi_uuid=vdi, driver_params={})["uuid"]
        base, = (uuid for uuid, row in first.contents().items() if row["hidden"])
        epochs = [first.activated(vdi), second.activated(clone)]
        self.assertEqual(epochs, sorted(set(epochs)))
        for sr in (first, second):
            for method, *args in (["vdi_attach", "true"], ["vdi_attach", "false"], ["vdi_activate", "true"],
                                  ["vdi_activate", "false"]):
                with self.refused(46, "hidden"):
                    sr(method, *args, vdi_uuid=base)
        with self.refused(82):
            first("vdi_snapshot", vdi_uuid=base, driver_params={})
        self.assertEqual(first.contents()[base]["leases"], [])

    def test_a_disk_that_is_written_is_not_cloned_and_one_that_is_read_is(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            first.activated(vdi, "true")
            before = second.contents()
            for method in ("vdi_clone", "vdi_snapshot"):
                with self.refused(24, self.names[0]):
                    second(method, vdi_uuid=vdi, driver_params={})
            self.assertEqual(set(second.contents()), set(before))
            first.released(vdi)
            epoch = first.activated(vdi, "false")
            clone = second("vdi_clone", vdi_uuid=vdi, driver_params={})["uuid"]
            second.activated(clone)
            first("vdi_activate", "false", vdi_uuid=vdi)
            self.assertEqual(first.epoch(), epoch)

    def test_neither_repository_nor_disk_goes_while_a_host_has_it(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            first("vdi_attach", "true", vdi_uuid=vdi)
            for lease in (False, True):
                if lease:
                    first("vdi_activate", "true", vdi_uuid=vdi)
                for sr, method, code in ((second, "vdi_delete", 24), (first, "sr_detach", 16), (second, "sr_delete", 16),
                                         (first, "sr_delete", 16)):
                    with self.refused(code):
                        sr(method, **({"vdi_uuid": vdi} if method == "vdi_delete" else {}))
            with self.refused(24):
                second("vdi_resize", str(8 * MIB), vdi_uuid=vdi)
            self.assertIn(vdi, first.contents())


class Automaton(TwoHosts):
    def enter(self, sr, vdi, state):
        for call in STATES[state]:
            sr(*CALLS[call], vdi_uuid=vdi)

    def state_of(self, sr, vdi, other):
        """Told from outside: by what another host may do, and by what the host may repeat."""
        def works(who, call):
            try:
                who(*CALLS[call], vdi_uuid=vdi)
                return True
            except Fault as fault:
                self.assertNotEqual(fault.code, 143, fault.text)
                return False
        other("vdi_attach", "false", vdi_uuid=vdi)
        readable = works(other, "activate RO")
        other.released(vdi)
        other("vdi_attach", "true", vdi_uuid=vdi)
        writable = works(other, "activate RW")
        other.released(vdi)
        if not writable:
            return "activated RO" if readable else "activated RW"
        for mode in ("RW", "RO"):
            if works(sr, "activate " + mode):
                sr.released(vdi)
                return "attached " + mode
        return "detached"

    def cell(self, state, call, outcome):
        for kind in KINDS:
            with self.subTest(kind=kind):
                sr, other, vdi = self.shared(kind)
                self.enter(sr, vdi, state)
                after = state
                if isinstance(outcome, str):
                    sr(*CALLS[call], vdi_uuid=vdi)
                    after = outcome
                else:
                    with self.refused(outcome, vdi):
                        sr(*CALLS[call], vdi_uuid=vdi)
                self.assertEqual(self.state_of(sr, vdi, other), after)
                self.assertEqual(len(self.lab.leases(sr_uuid=sr.uuid)), 1 if after.startswith("activated") else 0)

    def test_activate_without_a_mode_takes_that_of_the_attachment(self):
        for kind in KINDS:
            sr, other, vdi = self.shared(kind)
            for mode in ("RO", "RW"):
                self.enter(sr, vdi, "attached " + mode)
                sr("vdi_activate", vdi_uuid=vdi)
                self.assertEqual(self.state_of(sr, vdi, other), "activated " + mode)
                sr.released(vdi)

    def test_what_was_attached_for_writing_and_read_is_attached_for_writing_again(self):
        """A state beside the five: the lease is for reading only, the attachment is not."""
        sr, other, vdi = self.shared("dummy")
        self.enter(sr, vdi, "attached RW")
        sr("vdi_activate", "false", vdi_uuid=vdi)
        sr("vdi_deactivate", vdi_uuid=vdi)
        self.assertEqual(self.state_of(sr, vdi, other), "attached RW")


def add_cells():
    """A test for each cell, by its name."""
    for state, outcomes in CELLS.items():
        for call, outcome in zip(CALLS, outcomes, strict=True):
            def test(self, cell=(state, call, outcome)):
                self.cell(*cell)
            setattr(Automaton, f"test_{state}_then_{call}".replace(" ", "_"), test)


add_cells()


class Attachments(TwoHosts):
    def test_detach_of_the_sr_is_refused_while_this_host_has_a_disk_attached(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            first("vdi_attach", "true", vdi_uuid=vdi)
            with self.refused(16):
                first("sr_detach")
            second("sr_detach")
            first("vdi_detach", vdi_uuid=vdi)
            first("sr_detach")

    def test_detach_by_one_host_disconnects_no_other(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            path = first("vdi_attach", vdi_uuid=vdi)
            second("sr_detach")
            second("sr_detach")
            if kind == "file":
                self.assertTrue(os.path.exists(path))
            first("sr_scan")
            first("vdi_detach", vdi_uuid=vdi)
            with self.refused(47):
                second("vdi_attach", "true", vdi_uuid=vdi)

    def test_delete_of_the_sr_is_refused_while_another_host_has_it(self):
        for kind in KINDS:
            first, second, vdi = self.shared(kind)
            first("vdi_delete", vdi_uuid=vdi)
            with self.refused(16):
                first("sr_delete")
            second("sr_detach")
            first("sr_delete")


class Repeats(LabTest):
    """The idempotency table, for calls without an operation id."""

    def each(self):
        return [self.lab.repository(kind) for kind in KINDS]

    def test_sr_create_is_refused_the_second_time(self):
        for sr in self.each():
            sr("sr_create", "0")
            with self.refused(42):
                sr("sr_create", "0")

    def test_sr_delete_succeeds_when_the_sr_is_gone_or_never_was(self):
        for sr in self.each():
            sr("sr_delete")
            sr.made()
            sr("sr_delete")
            sr("sr_delete")

    def test_sr_attach_and_detach_succeed_again(self):
        for sr in self.each():
            sr.made()
            sr("sr_attach")
            sr("sr_detach")
            sr("sr_detach")

    def test_reading_calls_succeed_again(self):
        for sr in self.each():
            sr.made()
            for method in ("sr_scan", "sr_update", "sr_content_type", "sr_get_driver_info", "sr_get_driver_config"):
                self.assertEqual(sr(method), sr(method))

    def test_vdi_create_makes_another_disk(self):
        for sr in self.each():
            sr.made()
            self.assertNotEqual(sr.disk(), sr.disk())

    def test_vdi_create_of_a_known_uuid_is_refused(self):
        for sr in self.each():
            sr.made()
            vdi = sr.disk()
            with self.refused(43, vdi):
                sr.disk(vdi_uuid=vdi)

    def test_vdi_delete_succeeds_when_the_disk_is_gone(self):
        for sr in self.each():
            vdi = sr.made().disk()
            sr("vdi_delete", vdi_uuid=vdi)
            sr("vdi_delete", vdi_uuid=vdi)

    def test_vdi_attach_gives_the_same_again(self):
        for sr in self.each():
            vdi = sr.made().disk()
            self.assertEqual(sr("vdi_attach", "true", vdi_uuid=vdi), sr("vdi_attach", "true", vdi_uuid=vdi))

    def test_vdi_deactivate_and_detach_succeed_again(self):
        for sr in self.each():
            vdi = sr.made().disk()
            sr.activated(vdi)
            for method in ("vdi_deactivate", "vdi_deactivate", "vdi_detach", "vdi_detach", "vdi_deactivate"):
                sr(method, vdi_uuid=vdi)

    def test_vdi_resize_to_the_size_reached_succeeds(self):
        for sr in self.each():
            vdi = sr.made().disk()
            for _ in range(2):
                self.assertEqual(sr("vdi_resize", str(8 * MIB), vdi_uuid=vdi)["uuid"], vdi)

    def test_vdi_snapshot_and_clone_make_another_disk(self):
        sr = self.lab.repository("dummy").made()
        vdi = sr.disk()
        for method in ("vdi_snapshot", "vdi_clone"):
            self.assertNotEqual(sr(method, vdi_uuid=vdi)["uuid"], sr(method, vdi_uuid=vdi)["uuid"])

    def test_vdi_introduce_of_the_same_disk_succeeds_and_under_another_uuid_is_refused(self):
        for sr in self.each():
            sr.made()
            info = sr("vdi_create", str(4 * MIB))
            again = {"vdi_location": info["location"], "vdi_sm_config": {}}
            self.assertEqual(sr("vdi_introduce", new_uuid=info["uuid"], **again), info)
            with self.refused(43, info["location"]):
                sr("vdi_introduce", new_uuid=new_uuid(), **again)

    def test_vdi_update_succeeds_again(self):
        for sr in self.each():
            vdi = sr.made().disk()
            for _ in range(2):
                sr("vdi_update", vdi_uuid=vdi, name_label="same")
            self.assertEqual(sr.contents()[vdi]["label"], "same")


if __name__ == "__main__":
    unittest.main()
