"""What Ansible's own tools say of the collection."""

import importlib
import json
import os
import shutil
import sys

from support import ARCHIVE, COLLECTIONS, MODULES, PROGRAM, ROLES, InDirectory

HOME = os.path.join(COLLECTIONS, "ansible_collections/landfall/cluster")


class Checks(InDirectory):
    def test_what_is_installed_is_what_was_packed(self):
        status, text = self.run_tool("ansible-galaxy", "collection", "verify", "--offline", "landfall.cluster")
        self.assertEqual((status, "Successfully verified" in text), (0, True), text)

    def test_ansible_lint_finds_nothing_in_its_strictest_profile(self):
        copy = os.path.join(self.home, "ansible_collections/landfall/cluster")
        shutil.copytree(HOME, copy)
        status, text = self.run_tool("ansible-lint", "--offline", "--profile", "production", "--strict", copy)
        self.assertEqual((status, "Passed" in text), (0, True), text)

    def test_the_sanity_tests_of_ansible_pass(self):
        copy = os.path.join(self.home, "ansible_collections/landfall/cluster")
        shutil.copytree(HOME, copy)
        # The licence is Apache-2.0, which collections may have and modules of ansible-core may not.
        modules = [f"plugins/modules/{name}.py" for name in MODULES] + ["plugins/inventory/cluster.py"]
        lines = [f"{path} validate-modules:missing-gplv3-license\n" for path in modules]
        self.write_in(copy, "tests/sanity/ignore-2.19.txt", "".join(lines))
        self.write_in(copy, ".gitignore", "tests/output/\n")
        # The tests make environments, and would load pip from a server of Ansible's. Python brings one.
        bootstrap = "import ensurepip\nensurepip.bootstrap(default_pip=True)\n"
        self.write_in(self.home, ".ansible/test/cache/get_pip_24_2.py", bootstrap)
        for command in (["init", "-q"], ["add", "-A"]):
            self.assertEqual(self.run_tool("git", *command, cwd=copy)[0], 0)
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        # The two need PowerShell and shellcheck, and the collection has no script of either.
        skipped = ["--skip-test", "pslint", "--skip-test", "shellcheck"]
        command = ["ansible-test", "sanity", "--venv", "--python", python, "--requirements", *skipped]
        status, text = self.run_tool(*command, cwd=copy, limit=600)
        self.assertEqual(status, 0, text)

    def write_in(self, folder, name, text):
        """Writes a file below a folder, with the folders between."""
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def test_every_option_is_documented_as_it_is_checked(self):
        names = [f"landfall.cluster.{name}" for name in MODULES]
        status, text = self.run_tool("ansible-doc", "--json", *names)
        self.assertEqual(status, 0, text)
        documented = json.loads(text)
        for name, full in zip(MODULES, names, strict=True):
            action = importlib.import_module(f"ansible_collections.landfall.cluster.plugins.action.{name}")
            document = documented[full]["doc"]
            self.assertTrue(documented[full]["examples"] and documented[full]["return"], full)
            self.assertEqual(set(document["options"]), set(action.ARGUMENT_SPEC), full)
            for option, spec in action.ARGUMENT_SPEC.items():
                for key in ("type", "default", "choices", "elements", "required"):
                    with self.subTest(module=full, option=option, key=key):
                        wanted = spec.get(key) if key != "required" else bool(spec.get(key))
                        found = document["options"][option].get(key)
                        self.assertEqual(bool(found) if key == "required" else found, wanted)

    def test_roles_and_the_inventory_plugin_have_documentation(self):
        status, text = self.run_tool("ansible-doc", "--json", "--type", "role", *[f"landfall.cluster.{role}" for role in ROLES])
        self.assertEqual(status, 0, text)
        for role, document in json.loads(text).items():
            options = document["entry_points"]["main"]["options"]
            prefix = role.rsplit(".", 1)[1] + "_"
            self.assertTrue(options and all(name.startswith(prefix) for name in options), role)
        status, text = self.run_tool("ansible-doc", "--type", "inventory", "landfall.cluster.cluster")
        self.assertEqual((status, "cluster.yaml" in text), (0, True), text)

    def test_every_default_of_a_role_is_the_documented_one(self):
        import yaml

        for role in ROLES:
            with open(f"{HOME}/roles/{role}/defaults/main.yml", encoding="utf-8") as file:
                defaults = yaml.safe_load(file)
            with open(f"{HOME}/roles/{role}/meta/argument_specs.yml", encoding="utf-8") as file:
                options = yaml.safe_load(file)["argument_specs"]["main"]["options"]
            documented = {name: option["default"] for name, option in options.items() if "default" in option}
            self.assertEqual(defaults, documented, role)

    def test_ansible_builder_takes_the_execution_environment(self):
        shutil.copy(os.path.join(HOME, "execution-environment.yml"), self.home)
        shutil.copy(PROGRAM, os.path.join(self.home, "landfall"))
        shutil.copy(ARCHIVE, os.path.join(self.home, "landfall-cluster.tar.gz"))
        status, text = self.run_tool("ansible-builder", "create")
        self.assertEqual(status, 0, text)
        build = os.path.join(self.home, "context/_build")
        for name in ("landfall/landfall", "landfall-cluster.tar.gz", "requirements.yml"):
            self.assertTrue(os.path.exists(os.path.join(build, name)), name)
