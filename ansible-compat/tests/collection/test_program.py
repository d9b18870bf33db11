"""Plays with the real program and machines that do not answer: what fails, fails with landfall's own words."""

import json
import os

from support import PROGRAM, InDirectory

ALONE = "[kube_control_plane]\ncp-1 ansible_host=127.0.0.1 ansible_port=1\n"


def task(module, **options):
    """Returns a task that runs the real program."""
    return {"landfall.cluster." + module: {"program": PROGRAM, **options}}


def told_by_paths(result):
    """Returns what the failed paths of a verify say: what was seen, and what to do next."""
    return [f"{path['saw']}\n{path['next']}" for path in result.get("failed_paths", [])]


class Program(InDirectory):
    def all_fail(self, cases, *arguments, **more):
        """Plays tasks that must all fail; each with these words in its message or its failed paths. Returns what a user sees."""
        results, text = self.play([played for played, _ in cases], *arguments, **more)
        self.assertNotIn("Traceback", text)
        for (played, wanted), result in zip(cases, results, strict=True):
            with self.subTest(task=played, arguments=arguments):
                self.assertTrue(result["failed"], result)
                told = "\n".join([result["msg"], *told_by_paths(result)])
                for words in wanted:
                    self.assertIn(words, told)
        return text

    def test_what_fails_fails_with_landfalls_words(self):
        here = os.path.join(self.home, "kubeconfig")
        nobody = ["LF0201 cp-1: 127.0.0.1 port 1 cannot be reached over SSH", "LF0201 w-1: 127.0.0.2 port 1"]
        # verify has a cell for each path, without any login too.
        cells = ["LF0701", "127.0.0.1 port 1 cannot be reached over SSH", "ssh -p 1 admin@127.0.0.2"]
        bundle = self.write("no.bundle", "nothing")
        cases = [
            (task("cluster", state="verified"), cells),
            (task("cluster", state="absent", name="ship"), nobody),
            (task("cluster_info"), nobody),
            (task("node", name=["w-9"], bundle=bundle), ["LF0004", "no host and no group is called w-9"]),
            (task("kubeconfig", dest=here), nobody[:1]),
            (task("cluster", bundle=bundle), ["LF0401"]),
            (task("bundle_info", bundle=bundle), ["LF0401"]),
            (task("bundle_info", bundle="nowhere"), ["LF0101"]),
            (task("cluster"), ["state is present but all of the following are missing: bundle"]),
            (task("cluster", state="absent"), ["state is absent but all of the following are missing: name"]),
            (task("cluster", state="upgraded"), ["value of state must be one of: present, absent, verified"]),
            (task("cluster", state="verified", program="no-such-program"), ["no-such-program cannot be run on the control machine"]),
            (task("cluster", state="verified", variables={"ansible_host": "192.0.2.1"}), ["LF0104"]),
        ]
        for mode in ([], ["--check"]):
            text = self.all_fail(cases, *mode)
            self.assertIn("landfall connect", text)
            self.assertFalse(os.path.exists(here))

    def test_all_problems_of_an_inventory_come_with_the_task(self):
        inventory = self.write("hosts", "[masters]\nA_b\n[kube_node]\nw-1 ansible_connection=docker\n")
        self.all_fail([(task("cluster", state="verified"), ["LF0103", "A_b", "docker"])], inventory=inventory)

    def test_logins_of_ansible_are_those_of_landfall(self):
        inventory = self.write("hosts", ALONE)
        self.write("pass", "wonderland")
        flags = ["-u", "pi", "--become-password-file", "pass", "--private-key", "key"]
        self.all_fail([(task("cluster", state="verified"), ["ssh -p 1 pi@127.0.0.1"])], *flags, inventory=inventory)

    def test_a_vault_is_opened_with_the_password_of_the_play(self):
        self.write("vault", "test")
        plain = self.write("secret.yml", "ansible_user: carol\n")
        status, text = self.run_tool("ansible-vault", "encrypt", "--vault-password-file", "vault", plain)
        self.assertEqual(status, 0, text)
        os.mkdir(os.path.join(self.home, "group_vars"))
        os.rename(plain, os.path.join(self.home, "group_vars/all.yml"))
        inventory = self.write("hosts", ALONE)
        flags = ["--vault-password-file", "vault"]
        self.all_fail([(task("cluster", state="verified"), ["ssh -p 1 carol@127.0.0.1"])], *flags, inventory=inventory)

    def test_the_roles_play_in_check_mode(self):
        def role(name, **variables):
            given = {f"{name}_{key}": value for key, value in variables.items()}
            return {"ansible.builtin.include_role": {"name": f"landfall.cluster.{name}"}, "vars": {f"{name}_program": PROGRAM, **given}}

        blocks = [role("verify"), role("uninstall", cluster="landfall"), role("install", bundle="nowhere")]
        tasks = [{"block": [block], "rescue": [{"ansible.builtin.debug": {"msg": "{{ ansible_failed_result.msg }}"}}]} for block in blocks]
        path = self.write("play.yml", json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        status, text = self.run_tool("ansible-playbook", "-i", self.write("hosts.ini", ALONE), path, "--check")
        self.assertEqual(status, 0, text)
        told = [line.strip() for line in text.splitlines() if line.startswith('    "msg": "LF')]
        self.assertEqual([line[8:14] for line in told], ["LF0701", "LF0201", "LF0101"], text)


CLUSTER = """name: ship
podNetworkCidr: 10.9.0.0/16
nodes:
  - {name: cp-1, role: control-plane, host: 127.0.0.1, port: 1, schedulable: true}
  - {name: w-1, role: worker, ip: 127.0.0.2, port: 1, user: admin, becomePasswordFile: sudo, privateKey: ~/.ssh/w}
  - {name: pc-1, role: outside, host: 127.0.0.3, user: visitor, become: false, password: "{{ 7 }}"}
"""


PLUGIN = {"ANSIBLE_INVENTORY_ENABLED": "landfall.cluster.cluster"}


class ClusterYaml(InDirectory):
    def test_a_cluster_yaml_is_the_same_inventory_as_landfall_makes_of_it(self):
        self.write("sudo", "geheim \n")
        path = self.write("cluster.yaml", CLUSTER)
        status, text = self.run_tool("ansible-inventory", "-i", path, "--list", **PLUGIN)
        self.assertEqual(status, 0, text)
        ours = json.loads(text)
        status, text = self.run_tool("sh", "-c", f"{PROGRAM} inventory -i {path} --to yaml > converted.yml")
        self.assertEqual(status, 0, text)
        status, text = self.run_tool("ansible-inventory", "-i", "converted.yml", "--list")
        self.assertEqual(status, 0, text)
        landfall = json.loads(text)
        for group in ("kube_control_plane", "kube_node", "outside"):
            self.assertEqual(sorted(ours[group]["hosts"]), sorted(landfall[group]["hosts"]), group)
        for host, wanted in landfall["_meta"]["hostvars"].items():
            found = ours["_meta"]["hostvars"][host]
            self.assertEqual(found["landfall"], {"name": "ship", "podNetworkCidr": "10.9.0.0/16"})
            found.setdefault("ansible_port", 22)
            for key in ("ansible_host", "ansible_port", "ansible_user", "ansible_become"):
                self.assertEqual(found[key], wanted[key], f"{host} {key}")

    def test_secrets_are_read_when_they_are_used_and_text_stays_text(self):
        self.write("sudo", "geheim \n")
        path = self.write("cluster.yaml", CLUSTER)
        told = {"ansible.builtin.debug": {"msg": "{{ hostvars['w-1'].ansible_become_password }}|{{ hostvars['pc-1'].ansible_password }}"}}
        results, text = self.play([{**told, "run_once": True}], inventory=path, **PLUGIN)
        self.assertEqual(results[0]["msg"], "geheim |{{ 7 }}", text)

    def test_modules_take_a_cluster_yaml_too(self):
        path = self.write("cluster.yaml", CLUSTER.replace(", becomePasswordFile: sudo", ""))
        results, text = self.play([task("cluster", state="verified")], inventory=path, **PLUGIN)
        self.assertTrue(any("127.0.0.1 port 1 cannot be reached over SSH" in told for told in told_by_paths(results[0])), text)
