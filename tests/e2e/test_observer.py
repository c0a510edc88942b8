# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bridge as xapi starts it, directly and under its tracing observer, in front of the real daemon: the same answer, and
the trace in the daemon's log line."""
import os
import subprocess
import unittest
import xmlrpc.client

from client import xapi_body
from lab import BUILD, LabTest, new_uuid

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# What xapi's observer does, without the tracing: python3 -m observer <plugin> <call>.
OBSERVER = """
import os, runpy, sys
assert os.environ["OBSERVER_CONFIG_DIR"]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Observed(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        root = os.path.join(cls.lab.dir, "root")
        install = ["cmake", "--install", BUILD, "--prefix", os.path.join(root, "usr")]
        subprocess.run(install, check=True, capture_output=True)
        subprocess.run([*install, "--component", "xapi"], check=True, capture_output=True,
                       env={**os.environ, "DESTDIR": root})
        cls.plugins = os.path.join(root, "opt", "xensource", "sm")
        with open(os.path.join(cls.plugins, "observer.py"), "w", encoding="ascii") as out:
            out.write(OBSERVER)
        cls.conf = os.path.join(cls.lab.dir, "bridge.conf")
        with open(cls.conf, "w", encoding="ascii") as out:
            out.write(f"socket = {cls.lab.socket}\n")

    def run_plugin(self, argv, **environment):
        env = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin", "ORIGINATOR": "SM", "SMAPI_BRIDGE_CONF": self.conf, **environment}
        return subprocess.run(argv, env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)

    def both_ways(self, name, body, **environment):
        plugin = os.path.join(self.plugins, name)
        yield self.run_plugin([plugin, body], **environment)
        yield self.run_plugin(["/usr/bin/python3", "-m", "observer", plugin, body], OBSERVER_CONFIG_DIR="/nowhere",
                              PYTHONPATH=self.plugins, **environment)

    def test_the_installed_plugins_answer_alike_both_ways(self):
        for name, kind in (("FileSR", "file"), ("DummySR", "dummy")):
            sr = self.lab.repository(kind).made()
            for method, keys in (("sr_scan", {}), ("sr_get_driver_info", {}), ("vdi_attach", {"vdi_uuid": new_uuid()})):
                body = xapi_body(method, {"sr_uuid": sr.uuid, "device_config": sr.config, **keys})
                direct, observed = self.both_ways(name, body)
                self.assertEqual((direct.returncode, direct.stdout, direct.stderr),
                                 (observed.returncode, observed.stdout, observed.stderr))
                self.assertEqual(direct.returncode, 0)
                self.assertTrue(direct.stdout.startswith(b"<?xml"))
                if method == "vdi_attach":
                    with self.assertRaises(xmlrpc.client.Fault):
                        xmlrpc.client.loads(direct.stdout)

    def test_a_trace_is_in_the_log_line_and_a_broken_one_is_not(self):
        sr = self.lab.repository("dummy").made()
        body = xapi_body("sr_update", {"sr_uuid": sr.uuid, "device_config": {}})
        before = self.lab.log()
        list(self.both_ways("DummySR", body, TRACEPARENT=TRACE))
        for broken in (TRACE.upper(), TRACE[:-1], TRACE + "0", "00-" + "0" * 32 + TRACE[35:], "x\nforged"):
            list(self.both_ways("DummySR", body, TRACEPARENT=broken))
        lines = [line for line in self.lab.log()[len(before):].splitlines() if "method=sr_update" in line]
        self.assertEqual(len(lines), 12)
        self.assertEqual([line.endswith(f"traceparent={TRACE}") for line in lines], [True] * 2 + [False] * 10)
        self.assertNotIn("traceparent", "".join(lines[2:]))


if __name__ == "__main__":
    unittest.main()
