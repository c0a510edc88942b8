# SPDX-License-Identifier: LGPL-2.1-or-later
"""One host that takes, uses and lets go of leases as chance has it, and writes down what it asked, what it was told, and
when; see lease_history.py. Run by test_lease_history.py with a description of its work, in JSON, as its argument."""
import http.client
import json
import os
import random
import signal
import sys
import time
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from client import Fault, HttpError, TlsClient, spec_body  # noqa: E402
from lease_history import OK, REFUSED, UNKNOWN  # noqa: E402

UNSENT = "unsent"
GIVES_UP = 0.02  # of its calls: it does not wait for the answer
NOT_YET = 47  # what an SR answers while it recovers
BROKEN = (OSError, http.client.HTTPException)


class Host:
    def __init__(self, work):
        self.work = work
        self.chance = random.Random(work["seed"])
        lab = types.SimpleNamespace(port=work["port"], pki=types.SimpleNamespace(ca=work["ca"]))
        self.client = TlsClient(lab, work["certificate"])
        self.out = open(work["out"], "w", encoding="ascii", buffering=1)
        self.held = {}  # disk -> (mode, epoch), as far as it knows
        self.past = {}  # disk -> an epoch of its that another may have overtaken
        self.written = self.connected = 0
        self.session = {"host_boot_id": work["boot"], "nonce": work["nonce"]} if work["registers"] else {}
        self.running = True

    def record(self, begin, what, vdi, outcome, result=None, mode=None, epoch=None):
        """What was not sent is no call. What has no answer may have been done for as long as the server lived that it was
        connected to: the moment of connecting stands in the place of its end."""
        if outcome != UNSENT:
            end = -self.connected if outcome == UNKNOWN else time.monotonic_ns()
            self.out.write(json.dumps([begin, end, self.work["host"], what, vdi, outcome, result, mode, epoch]) + "\n")

    def connect(self):
        """Whether there is a connection."""
        if not self.client._connection:
            self.connected = time.monotonic_ns()
            connection = self.client.connect()
            try:
                connection.connect()
            except BROKEN:
                connection.close()
                time.sleep(0.01)
                return False
            self.client._connection = connection
        return True

    def ask(self, method, *args, **keys):
        """(outcome, the answer or the code)."""
        if not self.connect():
            return UNSENT, None
        keys = {"sr_uuid": self.work["sr"], "device_config": {}, "args": list(args), **keys}
        try:
            return OK, self.client.call(method, path="/sm/dummy", **keys)
        except Fault as fault:
            return REFUSED, fault.code
        except HttpError as error: # it refuses whole connections when it stops
            assert error.status in (408, 503), error
            self.client.close()
        except BROKEN:
            pass
        return UNKNOWN, None

    def surely(self, method, *args, **keys):
        """Until it was answered: for what every host does first."""
        while self.running:
            outcome, answer = self.ask(method, *args, **keys)
            if outcome == OK:
                return answer
            if outcome == REFUSED:
                assert answer == NOT_YET, (method, answer)
                time.sleep(0.01)
        return None

    def give_up(self, method, *args, **keys):
        """Asks and does not wait for the answer."""
        if not self.connect():
            return UNSENT, None
        keys = {"sr_uuid": self.work["sr"], "device_config": {}, "args": list(args), **keys}
        try:
            self.client._connection.request("POST", "/sm/dummy", spec_body(method, keys), {"Content-Type": "text/xml"})
        except BROKEN:
            pass
        self.client.close()
        return UNKNOWN, None

    def activate(self):
        vdi, mode = self.chance.choice(self.work["vdis"]), self.chance.choice(("rw", "rw", "ro"))
        begin, ask = time.monotonic_ns(), self.give_up if self.chance.random() < GIVES_UP else self.ask
        outcome, answer = ask("vdi_activate", "true" if mode == "rw" else "false", vdi_uuid=vdi, **self.session)
        if outcome == OK:
            answer = int(self.client.last.header("X-SMAPI-Epoch"))
            self.held[vdi] = mode, answer
        self.record(begin, "activate", vdi, outcome, answer, mode=mode)

    def deactivate(self):
        vdi = self.chance.choice(list(self.held) or self.work["vdis"])
        mode, epoch = self.held.get(vdi, (None, None))
        named = {"epoch": str(epoch)} if epoch and self.work["names_epoch"] else {}
        begin, ask = time.monotonic_ns(), self.give_up if self.chance.random() < GIVES_UP else self.ask
        outcome, answer = ask("vdi_deactivate", vdi_uuid=vdi, **named, **self.session)
        self.record(begin, "deactivate", vdi, outcome, None if outcome == OK else answer, epoch=epoch if named else None)
        if outcome == OK and vdi in self.held:
            del self.held[vdi]
            if mode == "rw":
                self.past[vdi] = epoch

    def write(self):
        """With the epoch it has, or as if the write had been long on its way."""
        held = {vdi: epoch for vdi, (mode, epoch) in self.held.items() if mode == "rw"}
        which = self.past if self.past and (not held or self.chance.random() < 0.3) else held
        if not which:
            return
        vdi = self.chance.choice(list(which))
        self.written += 1
        begin, data = time.monotonic_ns(), f"{self.work['host'][:8]}-{self.work['seed']}-{self.written}"
        outcome, answer = self.ask("smapi.disk_write", vdi_uuid=vdi, epoch=str(which[vdi]), data=data)
        self.record(begin, "write", vdi, outcome, None if outcome == OK else answer, mode=data, epoch=which[vdi])

    def renew(self):
        """Its session goes on for as long as it says so: nothing here takes as long as a host lease lasts."""
        outcome, answer = self.ask("smapi.host_renew", **self.session)
        assert outcome != REFUSED, answer

    def break_one(self):
        """As an administrator: whose lease it is, is not asked for its opinion."""
        outcome, answer = self.ask("smapi.lease_list", limit="1000")
        if outcome == OK and answer["leases"]:
            row = self.chance.choice(answer["leases"])
            begin = time.monotonic_ns()
            outcome, answer = self.ask("smapi.lease_break", vdi_uuid=row["vdi"], host=row["host"], epoch=row["epoch"],
                                       evidence="fenced", reason="as chance has it")
            self.record(begin, "break", row["vdi"], outcome, answer or None, epoch=int(row["epoch"]))

    def list(self):
        begin = time.monotonic_ns()
        outcome, answer = self.ask("smapi.lease_list", limit="1000")
        if outcome != OK:
            return
        rows = {vdi: {} for vdi in self.work["vdis"]}
        for row in answer["leases"]:
            rows[row["vdi"]][row["host"]] = row["mode"], int(row["epoch"])
        for vdi, some in rows.items():
            self.record(begin, "list", vdi, OK, some)

    def step(self):
        acts = [self.activate] * 5 + [self.deactivate] * 5 + [self.write] * 3
        if self.work["lists"]:
            acts.append(self.list)
        if self.session:
            acts.append(self.renew)
        self.chance.choice(acts)()

    def run_breaks(self):
        while self.running:
            self.break_one()
            time.sleep(self.chance.random() * 0.2)

    def run(self):
        if self.session:
            self.surely("smapi.host_register", **self.session)
        self.surely("sr_attach")
        for vdi in self.work["vdis"]:
            self.surely("vdi_attach", "true", vdi_uuid=vdi, **self.session)
        while self.running:
            self.step()
            time.sleep(self.chance.random() * self.work["pause"])


def main():
    host = Host(json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: setattr(host, "running", False))
    host.run_breaks() if host.work["breaks"] else host.run()
    host.out.close()


if __name__ == "__main__":
    main()
