# SPDX-License-Identifier: LGPL-2.1-or-later
"""system.multicall: what comes in one body is done as if it had come in several."""
import concurrent.futures
import os
import signal
import time
import unittest
import xmlrpc.client
from http.client import HTTPException

from client import plain_body
from lab import KINDS, MIB, SANITIZED, Lab, LabTest, new_uuid, rounds

BESIDE = rounds(8 if SANITIZED else 24)  # multicalls at once, each of which makes a few disks

LIMIT = 64


def part(sr, method, *args, **keys):
    """One call for the list."""
    config = {"type": sr.kind, **sr.config}
    return {"methodName": method,
            "params": [{"sr_uuid": sr.uuid, "device_config": config, "args": list(args), **keys}]}


def codes(answers):
    """0 for a result, else the fault code."""
    return [0 if isinstance(answer, list) else answer["faultCode"] for answer in answers]


class Asking(LabTest):
    def ask(self, calls, client=None, op=None):
        return (client or self.lab.unix()).post(plain_body("system.multicall", calls), op=op)

    def answers(self, calls, client=None, op=None):
        return self.ask(calls, client, op).value()


class Calls(Asking):
    def test_each_call_is_answered_in_its_place(self):
        for kind in KINDS:
            sr = self.lab.repository(kind)
            vdi = new_uuid()
            self.assertEqual(codes(self.answers([
                part(sr, "sr_create", "0"), part(sr, "sr_attach"), part(sr, "vdi_create", str(4 * MIB), vdi_uuid=vdi),
                part(sr, "vdi_resize", "1", vdi_uuid=vdi), part(sr, "vdi_attach", "true", vdi_uuid=vdi),
                part(sr, "vdi_activate", "true", vdi_uuid=vdi), part(sr, "vdi_delete", vdi_uuid=vdi),
                part(sr, "sr_content_type")])), [0, 0, 0, 79, 0, 0, 24, 0])
            (page,), (path,), fault = self.answers([
                {"methodName": "smapi.sr_contents", "params": [{"sr_uuid": sr.uuid}]},
                part(sr, "vdi_attach", vdi_uuid=vdi), part(sr, "vdi_attach", vdi_uuid=new_uuid())])
            self.assertEqual(page["vdis"][0]["leases"][0]["mode"], "rw")
            self.assertIsInstance(path, str)
            self.assertEqual(set(fault), {"faultCode", "faultString"})
            self.assertEqual(self.lab.unix().call("vdi_deactivate", "/sm/" + kind, sr_uuid=sr.uuid, vdi_uuid=vdi), None)

    def test_pythons_own_multicall_understands_it(self):
        sr = self.lab.repository("dummy").made()
        inner = self.lab.unix()
        proxy = self.lab.proxy(new_uuid())
        with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=proxy.Transport(inner.connect)) as server:
            multicall = xmlrpc.client.MultiCall(server)
            getattr(multicall, "system.listMethods")()
            multicall.vdi_create({"sr_uuid": sr.uuid, "device_config": {}, "args": [str(4 * MIB)]})
            multicall.vdi_create({"sr_uuid": sr.uuid, "device_config": {}, "args": ["0"]})
            methods, info, refused = iter(multicall().results)
            self.assertIn("system.multicall", methods[0])
            self.assertEqual(set(info[0]), {"location", "uuid"})
            self.assertEqual(refused["faultCode"], 79)

    def test_none_is_an_empty_list_of_answers(self):
        self.assertEqual(self.answers([]), [])

    def test_each_call_is_authorised_by_itself(self):
        sr = self.lab.repository("dummy").made()
        vdi = sr.disk()
        self.assertEqual(codes(self.answers([
            part(sr, "sr_content_type"), part(sr, "vdi_delete", vdi_uuid=vdi), part(sr, "sr_delete"),
            {"methodName": "smapi.sr_contents", "params": [{"sr_uuid": sr.uuid}]}], self.lab.reader())),
            [0, 2001, 2001, 0])
        self.assertIn(vdi, sr.contents())

    def test_calls_that_are_none_are_refused_alone(self):
        good = {"methodName": "system.listMethods", "params": []}
        bad = ["text", 1, [], {}, {"methodName": "system.listMethods"}, {"params": []}, {**good, "extra": ""},
               {"methodName": 1, "params": []}, {"methodName": "system.listMethods", "params": {}},
               {"methodName": "vdi_polish", "params": []}, {"methodName": "sr_scan", "params": []},
               {"methodName": "system.multicall", "params": [[]]}, {"methodName": "", "params": []}]
        mixed = [call for pair in zip(bad, [good] * len(bad)) for call in pair]
        self.assertEqual(codes(self.answers(mixed)), [143, 0] * len(bad))
        nested = self.answers([{"methodName": "system.multicall", "params": [[]]}])
        self.assertIn("itself", nested[0]["faultString"])

    def test_the_parameter_is_one_array(self):
        client = self.lab.unix()
        for params in ((), ("x",), ({},), ([], [])):
            with self.refused(143):
                client.post(plain_body("system.multicall", *params)).value()

    def test_the_limit_holds_at_its_figure_and_refuses_one_past_it(self):
        call = {"methodName": "system.methodHelp", "params": ["sr_scan"]}
        self.assertEqual(codes(self.answers([call] * LIMIT)), [0] * LIMIT)
        with self.refused(143, str(LIMIT)):
            self.answers([call] * (LIMIT + 1))

    def test_a_call_with_everything_fits_the_depth(self):
        sr = self.lab.repository("dummy").made()
        self.assertEqual(codes(self.answers([part(sr, "vdi_create", str(4 * MIB), "label", vdi_sm_config={"key": "value"}),
                                             part(sr, "sr_probe", sr_sm_config={"key": "value"})])), [0, 0])

    def test_answers_are_bounded_and_what_is_left_is_told_to_ask_again(self):
        sr = self.lab.repository("dummy").made()
        for _ in range(480):
            sr.disk(4 * MIB, "l" * 7_500)
        page = {"methodName": "smapi.sr_contents", "params": [{"sr_uuid": sr.uuid, "limit": "1000"}]}
        reply = self.ask([page] * 8)
        self.assertLess(len(reply.body), 24 * MIB)
        self.assertEqual(codes(reply.value()), [0] * 4 + [2003] * 4)
        for vdi in sr.contents():
            sr("vdi_delete", vdi_uuid=vdi)

    def test_each_call_has_its_log_line_under_one_number(self):
        sr = self.lab.repository("dummy").made()
        reply = self.ask([part(sr, "sr_scan"), part(sr, "vdi_delete", vdi_uuid=new_uuid())])
        number = reply.header("X-SMAPI-Call-Id")
        log = self.lab.log()
        for tail in (".1 by=local method=sr_scan", ".2 by=local method=vdi_delete", " by=local method=system.multicall"):
            self.assertEqual(log.count(f"call={number}{tail}"), 1)

    def test_introspection_knows_it(self):
        client = self.lab.unix()
        self.assertEqual(client.ask("system.methodSignature", "system.multicall"), [["array", "array"]])
        capabilities = client.ask("system.getCapabilities")
        self.assertEqual(set(capabilities), {"xmlrpc", "introspection", "system.multicall", "nil"})
        for row in capabilities.values():
            self.assertEqual((type(row["specUrl"]), row["specVersion"]), (str, 1))


class OperationIds(Asking):
    def calls(self, sr):
        return [part(sr, "vdi_create", str(4 * MIB)), part(sr, "vdi_create", "0"), part(sr, "vdi_create", str(4 * MIB))]

    def test_the_same_id_gives_the_same_bytes_and_does_nothing_twice(self):
        for kind in KINDS:
            sr = self.lab.repository(kind).made()
            op, calls = new_uuid(), self.calls(sr)
            first = self.ask(calls, op=op)
            self.assertEqual(codes(first.value()), [0, 79, 0])
            self.assertEqual(self.ask(calls, op=op).body, first.body)
            self.assertEqual(len(sr.contents()), 2)
            self.assertEqual(set(codes(self.answers(calls[:1] * 3, op=op))), {2002})
            self.assertEqual(self.ask(calls, op=new_uuid()).value()[1]["faultCode"], 79)
            self.assertEqual(len(sr.contents()), 4)

    def test_after_kill_9_in_the_middle_the_same_id_does_the_rest_and_nothing_twice(self):
        for kind in KINDS:
            for point in ("intent_committed", "effects_done", "result_committed"):
                with self.subTest(kind=kind, point=point):
                    sr = self.lab.repository(kind).made()
                    op, calls = new_uuid(), [part(sr, "vdi_create", str(4 * MIB)) for _ in range(3)]
                    self.lab.stop()
                    self.lab.start(point=f"{point}:kill:2")
                    with self.assertRaises((OSError, EOFError, HTTPException)):
                        self.ask(calls, op=op)
                    self.assertTrue(self.lab.died())
                    self.lab.start()
                    answers = self.answers(calls, op=op)
                    self.assertEqual(codes(answers), [0, 0, 0])
                    self.assertEqual(set(sr.contents()), {answer[0]["uuid"] for answer in answers})


class Turns(unittest.TestCase):
    def lab(self, **settings):
        lab = Lab()
        self.addCleanup(lab.close)
        return lab.start(**settings)

    def test_one_worker_serves_many_multicalls_at_once(self):
        lab = self.lab(limits__workers=1, limits__sr_workers=1)
        sr = lab.repository("dummy").made()
        calls = [part(sr, "vdi_create", str(4 * MIB)), part(sr, "sr_scan"), part(sr, "sr_content_type")] * 3

        def ask(_):
            return codes(lab.unix().post(plain_body("system.multicall", calls)).value())

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for answer in pool.map(ask, range(BESIDE)):
                self.assertEqual(answer, [0] * len(calls))
        self.assertEqual(len(sr.contents()), 3 * BESIDE)

    def test_between_its_calls_others_have_their_turn(self):
        lab = self.lab(point="intent_committed:sleep:3")  # the first disk below
        sr = lab.repository("dummy").made()
        order = []

        def ask(name, body):
            lab.unix().post(body)
            order.append(name)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            pool.submit(ask, "multicall", plain_body("system.multicall", [part(sr, "vdi_create", str(4 * MIB))] * 40))
            time.sleep(0.3)
            pool.submit(ask, "single", sr.body("sr_scan"))
        self.assertEqual(order, ["single", "multicall"])

    def test_a_full_queue_refuses_a_part_and_not_the_others(self):
        lab = self.lab(point="intent_committed:sleep:3", limits__sr_workers=1, limits__sr_queue=1)
        sr, other = (lab.repository(kind) for kind in ("dummy", "file"))
        sr.made()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            slow = pool.submit(sr.disk)
            time.sleep(0.3)
            waiting = pool.submit(sr.by(lab.unix()), "sr_scan")
            time.sleep(0.3)
            answers = lab.unix().post(plain_body("system.multicall", [
                part(sr, "sr_scan"), {"methodName": "system.listMethods", "params": []}, part(sr, "sr_scan"),
                {"methodName": "sr_probe", "params": [{"device_config": {"type": "dummy"}}]}])).value()
            self.assertEqual(codes(answers), [2003, 0, 2003, 0])
            slow.result(), waiting.result()

    def test_a_daemon_that_is_told_to_end_answers_every_part(self):
        lab = self.lab(point="intent_committed:sleep:3")
        sr = lab.repository("dummy").made()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lambda: lab.unix().post(plain_body("system.multicall",
                                                                   [part(sr, "vdi_create", str(4 * MIB))] * 5)).value())
            time.sleep(0.3)
            os.kill(lab.process.pid, signal.SIGTERM)
            self.assertEqual(codes(asked.result()), [0] + [2003] * 4)
        self.assertEqual(lab.end_status(), 0)


if __name__ == "__main__":
    unittest.main()
