# SPDX-License-Identifier: LGPL-2.1-or-later
"""What testssl.sh, an outside judge, says of the HTTPS listener. Takes a minute or two: deep runs only."""
import json
import os
import shutil
import subprocess
import unittest

from lab import Lab, Pki


class Judged(unittest.TestCase):
    @unittest.skipUnless(os.environ.get("SMAPI_DEEP"), "deep runs only")
    @unittest.skipUnless(shutil.which("testssl"), "testssl.sh is not installed")
    def test_nothing_of_medium_severity_or_worse(self):
        os.environ["CRL"] = "http://localhost/ca.crl"  # an own CA needs one too, for this judge
        self.addCleanup(os.environ.pop, "CRL")
        lab = Lab(Pki())
        self.addCleanup(lab.close)
        lab.start()
        report = os.path.join(lab.dir, "report.json")
        subprocess.run(["testssl", "--quiet", "--color", "0", "--warnings", "off", "--jsonfile", report, "--add-ca",
                        lab.pki.ca, "--connect-timeout", "10", "--openssl-timeout", "10", "--nodns", "min", "--ip",
                        "127.0.0.1", f"localhost:{lab.port}"], stdin=subprocess.DEVNULL, capture_output=True, timeout=600,
                       check=False)
        with open(report, encoding="utf-8") as text:
            findings = json.load(text)
        self.assertGreater(sum(row["severity"] == "OK" for row in findings), 30, findings)
        bad = [(row["id"], row["finding"]) for row in findings if row["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")]
        self.assertEqual(bad, [])


if __name__ == "__main__":
    unittest.main()
