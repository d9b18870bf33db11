"""Results of modules for recorded output of landfall: what is changed, what fails, what a diff shows.

The stand-in prints what landfall printed, so that outcomes can be shown that need machines. `test_program` has the real program.
"""

import json
import os
import tempfile

from support import LOCAL, InDirectory

STARTED = {"at_ms": 0, "event": "run-started", "command": "install", "cluster": "ship", "nodes": ["cp-1"]}
STEP = {"id": "sysctl/cp-1", "stage": "prepare", "node": "cp-1", "needs": [], "deadline_s": 60, "action": {"action": "sysctls", "settings": []}}
PLAN = {
    "event": "plan",
    "plan": {"steps": [STEP], "secrets": {}},
    "texts": {"sysctl/cp-1": {"text": "kernel settings a=1", "undo": "set what was"}},
    "reasons": {"sysctl/cp-1": "it is not there"},
    "bytesToSend": {},
}
EMPTY = {**PLAN, "plan": {"steps": [], "secrets": {}}, "texts": {}, "reasons": {}}
DONE = [
    {"at_ms": 1, "node": "cp-1", "event": "step-started", "step": "sysctl/cp-1", "stage": "prepare", "text": "kernel settings a=1"},
    {"at_ms": 2, "node": "cp-1", "event": "step-finished", "step": "sysctl/cp-1", "stage": "prepare", "changed": True, "took_ms": 1},
]


def result(changes=0, code=0, **more):
    """Returns the last line of an output."""
    empty = {"event": "result", "exitCode": code, "run": None, "changes": changes, "errors": [], "warnings": [], "residue": [], "verify": None}
    return {**empty, **more}


SCRIPT = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> arguments
name=$1
case " $* " in *' --dry-run '*) name=dry-run ;; esac
cat "$name"
previous=
for word in "$@"; do
    case $previous in
    --write) printf secret > "$word" ;;
    --extra-vars) cat "${word#@}" > variables ;;
    esac
    previous=$word
done
"""


class Case:
    """One task, with a stand-in of its own."""

    def __init__(self, test, streams, module="cluster", **options):
        self.home = tempfile.mkdtemp(dir=test.home)
        for command, events in streams.items():
            with open(os.path.join(self.home, command), "w", encoding="utf-8") as file:
                file.writelines(json.dumps(event) + "\n" for event in events)
        program = os.path.join(self.home, "landfall")
        with open(program, "w", encoding="utf-8") as file:
            file.write(SCRIPT)
        os.chmod(program, 0o700)
        self.task = {f"landfall.cluster.{module}": {"program": program, **options}}

    def read(self, name):
        """Returns the lines of a file that the stand-in wrote; none when it was not run."""
        path = os.path.join(self.home, name)
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()


RED = [{"vantage": "operator", "target": "node-port/cp-1", "expected": "200", "outcome": "fail", "saw": "refused"}]
FAULT = {"code": "LF0701", "what": "1 of 1 paths into the cluster are not as expected", "next": ["follow the cause"]}
UNDO = {"dry-run": [STARTED, PLAN, result(0)], "uninstall": [STARTED, result(3)]}


class Recorded(InDirectory):
    def test_what_landfall_changed_is_changed(self):
        cases = [
            Case(self, {"install": [STARTED, *DONE, result(1)]}, bundle="b"),
            Case(self, {"install": [STARTED, result(0)]}, bundle="b", variables={"ansible_become_password": "geheim1"}),
            Case(self, {"dry-run": [STARTED, EMPTY, result(0)]}, state="absent", name="ship"),
            Case(self, UNDO, state="absent", name="boat"),
            Case(self, UNDO, state="absent", name="ship"),
            Case(self, {"install": [STARTED, result(2)]}, module="node", bundle="b", name=["w-3", "kube_node"]),
            Case(self, {"verify": [STARTED, result(0, 10, errors=[FAULT], verify={"version": 1, "cells": RED, "missing_routes": []})]}, state="verified"),
        ]
        results, text = self.play([case.task for case in cases], "--diff", "-vvv", "-e", "ansible_password=geheim2")
        first, again, gone, other, undone, joined, red = results
        with self.subTest("an install that changed something is changed and shows it"):
            self.assertEqual((first["changed"], first["changes"], first["cluster"]), (True, 1, "ship"))
            (line,) = cases[0].read("arguments")
            self.assertTrue(line.startswith("install --inventory ") and line.endswith("--on-failure keep b --output json"), line)
            self.assertIn("+ sysctl/cp-1: kernel settings a=1", text)
            self.assertIn("landfall [cp-1] sysctl/cp-1: changed", text)
        with self.subTest("a second install is not changed"):
            self.assertEqual((again["changed"], again["failed"]), (False, False))
        with self.subTest("variables reach landfall in a file and nobody else"):
            (variables,) = cases[1].read("variables")
            self.assertEqual(json.loads(variables), {"ansible_become_password": "geheim1", "ansible_password": "geheim2"})
            self.assertNotIn("geheim", "".join(cases[1].read("arguments")))
            self.assertNotIn("geheim1", text + json.dumps(results))
        with self.subTest("what is absent already is not taken away again"):
            self.assertEqual((gone["changed"], len(cases[2].read("arguments"))), (False, 1))
        with self.subTest("a cluster goes by its name alone"):
            self.assertTrue(other["failed"] and "describes the cluster ship" in other["msg"], other)
            self.assertEqual(len(cases[3].read("arguments")), 1)
            self.assertEqual((undone["changed"], undone["changes"]), (True, 3))
            self.assertIn(" --yes", cases[4].read("arguments")[1])
        with self.subTest("a node is a limit of landfall's"):
            self.assertEqual((joined["changed"], joined["changes"]), (True, 2))
            self.assertIn(" --limit w-3,kube_node ", cases[5].read("arguments")[0])
        with self.subTest("a red path fails with landfall's words"):
            self.assertEqual((red["failed"], red["paths"], red["failed_paths"]), (True, {"passed": 0, "failed": 1}, RED))
            self.assertTrue(red["msg"].startswith("LF0701 1 of 1 paths"), red["msg"])

    def test_check_mode_runs_the_plan_alone_and_shows_it(self):
        kube = os.path.join(self.home, "kube")
        cases = [
            Case(self, {"plan": [STARTED, PLAN, result(0)]}, bundle="b"),
            Case(self, {"plan": [STARTED, EMPTY, result(0)]}, bundle="b"),
            Case(self, UNDO, state="absent", name="ship"),
            Case(self, {"kubeconfig": [STARTED, result(0)]}, module="kubeconfig", dest=kube),
        ]
        (fresh, installed, undone, fetched), text = self.play([case.task for case in cases], "--check", "--diff")
        wanted = {
            "node": "cp-1",
            "stage": "prepare",
            "step": "sysctl/cp-1",
            "text": "kernel settings a=1",
            "undo": "set what was",
            "why": "it is not there",
        }
        self.assertEqual((fresh["changed"], fresh["plan"]), (True, [wanted]))
        self.assertEqual([line.split()[0] for line in cases[0].read("arguments")], ["plan"])
        self.assertIn("+ sysctl/cp-1: kernel settings a=1", text)
        self.assertEqual((installed["changed"], undone["changed"]), (False, True))
        self.assertEqual(len(cases[2].read("arguments")), 1)
        self.assertEqual((fetched["changed"], os.path.exists(kube)), (True, False))

    def test_a_kubeconfig_is_written_once_and_for_its_owner(self):
        path, streams = os.path.join(self.home, "kube"), {"kubeconfig": [STARTED, result(0)]}
        case = Case(self, streams, module="kubeconfig", dest=path)
        opened = {"ansible.builtin.file": {"path": path, "mode": "0644"}, "vars": LOCAL, "run_once": True}
        (first, again, _, mended), text = self.play([case.task, case.task, opened, case.task])
        self.assertEqual([seen["changed"] for seen in (first, again, mended)], [True, False, True], text)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "secret")
