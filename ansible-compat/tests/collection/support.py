"""What the tests of the collection share: the installed collection, the program, and a directory for each test.

`cargo xtask test` sets the environment: LANDFALL_PROGRAM is the real program, ANSIBLE_COLLECTIONS_PATH where the exported collection is
installed, and LANDFALL_COLLECTION the archive.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM = os.environ["LANDFALL_PROGRAM"]
ARCHIVE = os.environ["LANDFALL_COLLECTION"]
COLLECTIONS = os.environ["ANSIBLE_COLLECTIONS_PATH"]
FIXTURES = os.path.join(os.path.dirname(__file__), "../../../tests/fixtures")
MODULES = ["bundle_info", "cluster", "cluster_info", "kubeconfig", "node"]
ROLES = ["install", "prepare_hosts", "uninstall", "verify"]


def tool(name):
    """Returns a program of the environment that these tests run in, or else of the system."""
    path = os.path.join(os.path.dirname(sys.executable), name)
    return path if os.path.exists(path) else name


class InDirectory(unittest.TestCase):
    """A test with a directory of its own, which is its current and home directory."""

    def setUp(self):
        self.home = tempfile.mkdtemp(prefix="landfall-collection-")
        self.addCleanup(shutil.rmtree, self.home)

    def write(self, name, text, mode=0o600):
        """Writes a file and returns its path."""
        path = os.path.join(self.home, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def run_tool(self, *command, cwd=None, limit=110, **environment):
        """Runs a program of Ansible to its end, of so many seconds; returns its status and all its output."""
        settings = {
            **os.environ,
            "HOME": self.home,
            "ANSIBLE_NOCOLOR": "1",
            "PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"],
            **environment,
        }
        done = subprocess.run(
            [tool(command[0]), *command[1:]],
            cwd=cwd or self.home,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def play(self, tasks, *arguments, inventory=None, **environment):
        """Plays tasks, of which each may fail, in one run of Ansible; returns their results in order, and all that a user sees."""
        inventory = inventory or self.write("hosts.ini", HOSTS)
        log = os.path.join(self.home, "results.json")
        played = [{**task, "register": f"seen_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
        content = "[" + ", ".join(f"{{{{ seen_{number} | to_json }}}}" for number in range(len(tasks))) + "]"
        keep = {"ansible.builtin.copy": {"content": content, "dest": log, "mode": "0600"}, "delegate_to": "localhost", "vars": LOCAL}
        play = [{"hosts": "all", "gather_facts": False, "tasks": [*played, {**keep, **ALWAYS}]}]
        path = self.write("play.yml", json.dumps(play))
        status, text = self.run_tool("ansible-playbook", "-i", inventory, path, *arguments, **environment)
        self.assertEqual(status, 0, text)
        with open(log, encoding="utf-8") as file:
            return json.load(file), text


LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
ALWAYS = {"run_once": True, "check_mode": False, "diff": False, "no_log": True}
# Nothing listens at port 1 of loopback.
HOSTS = """[kube_control_plane]
cp-1 ansible_host=127.0.0.1 ansible_port=1 ansible_user=root
[kube_node]
w-1 ansible_host=127.0.0.2 ansible_port=1 ansible_user=admin
[all:vars]
landfall={'name':'ship'}
"""
