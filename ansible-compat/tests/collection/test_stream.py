"""How events of landfall become results and progress of Ansible."""

import json
import os
import unittest

from ansible_collections.landfall.cluster.plugins.plugin_utils.landfall import Stream, diff_of, error_text, progress
from support import FIXTURES


def golden():
    """Returns the recorded stream of an install that failed."""
    with open(os.path.join(FIXTURES, "formats/events-1.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Streams(unittest.TestCase):
    def test_every_recorded_event_is_taken(self):
        seen = Stream()
        for event in golden():
            seen.add(event)
        self.assertEqual(seen.cluster, "ship")
        self.assertEqual(
            seen.done,
            [("cp-1", "containerd/cp-1", "write /etc/landfall/containerd.toml"), ("cp-1", "containerd/cp-1", "undone")],
        )

    def test_progress_names_what_people_wait_for(self):
        lines = [progress(event) for event in golden()]
        shown = [line[1] for line in lines if line and line[0] == 0]
        self.assertEqual(
            shown,
            [
                "landfall connect",
                "landfall run 1795800000-0a1b2c3d: 3 steps",
                "landfall execute",
                "landfall [cp-1] 1000 bytes to send",
                "landfall [cp-1] init/cp-1: still running after 10 s",
                "landfall [cp-1] FAILED init/cp-1",
                "landfall [cp-1] logs of cp-1 are in report/logs/cp-1",
                "landfall [cp-1] left behind init/cp-1: /var/lib/etcd is a mount point of others",
            ],
        )

    def test_an_error_is_told_whole(self):
        error = {
            "code": "LF0201",
            "what": "no way",
            "node": "cp-1",
            "step": "init/cp-1",
            "saw": ["192.0.2.1"],
            "causes": ["refused"],
            "next": ["look"],
        }
        self.assertEqual(
            error_text([error]), "LF0201 cp-1: no way (step init/cp-1)\n  saw: 192.0.2.1\n  why: refused\n  next: look"
        )

    def test_a_diff_has_one_block_for_each_node(self):
        diff = diff_of([("a", "x/a", "file x"), (None, "y", ""), ("a", "z/a", "")])
        self.assertEqual(
            [block["prepared"] for block in diff], ["landfall: a\n+ x/a: file x\n+ z/a\n", "landfall: cluster\n+ y\n"]
        )
