"""The role prepare_hosts: which firewalls pass."""

import json
import os
import sys

from support import InDirectory

# The target's programs in place of the machine's own: sudo, which may ask for a password, and nft.
SUDO = '#!/bin/sh\nwhile [ "$1" != /bin/sh ]; do shift; done\nexec "$@"\n'
# Shows the chain that firewalld 0.9 to 1.x has, and nothing else.
NFT = '#!/bin/sh\n[ "$*" = "list chain inet firewalld filter_FORWARD_POLICIES_post" ]\n'


class Prepare(InDirectory):
    def refuses(self, active, nft, landfall):
        """Plays the tasks of the firewall; returns what they refuse, or None."""
        programs = os.path.join(self.home, "programs")
        os.makedirs(programs, exist_ok=True)
        self.write("programs/sudo", SUDO, 0o755)
        # Without nft on the host, the module finds no program of that name.
        self.write("programs/nft", nft or "", 0o755 if nft else 0o600)
        state = {"state": "running", "status": "enabled"}
        stopped = {"state": "stopped", "status": "not-found"}
        services = {name: state if name == active else stopped for name in ("firewalld.service", "ufw.service")}
        facts = {"ansible.builtin.set_fact": {"services": services, "cacheable": True}}
        role = {"ansible.builtin.include_role": {"name": "landfall.cluster.prepare_hosts", "tasks_from": "firewall"}}
        given = {"landfall": landfall, "ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        play = [{"hosts": "all", "gather_facts": False, "vars": given, "tasks": [facts, role]}]
        path = self.write("play.yml", json.dumps(play))
        search = ":".join([programs, os.path.dirname(sys.executable), os.environ["PATH"]])
        status, text = self.run_tool("ansible-playbook", "-i", "node,", path, PATH=search)
        refused = [line for line in text.splitlines() if "is active on node" in line]
        self.assertEqual(status != 0, bool(refused), text)
        return refused[0] if refused else None

    def test_firewalls_pass_where_landfall_opens_them(self):
        opened = {"name": "ship", "firewall": "open"}
        other = NFT.replace("_post", "")
        self.assertIn("unless the variable landfall says", self.refuses("firewalld.service", NFT, {"name": "ship"}))
        self.assertIn("ufw.service", self.refuses("ufw.service", NFT, {}))
        self.assertIsNone(self.refuses("ufw.service", None, opened))
        self.assertIsNone(self.refuses("firewalld.service", NFT, opened))
        self.assertIn("0.9 to 1.x", self.refuses("firewalld.service", other, opened))
        self.assertIsNone(self.refuses(None, None, {}))
