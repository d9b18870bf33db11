# Apache-2.0, see LICENSE
"""Runs the landfall program on the control machine and reads what it prints.

`landfall … --output json` prints one event per line; the last line is the result. Nothing here decides anything about clusters: what
changes, what failed and why is what landfall says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.landfall.cluster.plugins.plugin_utils.cluster_yaml import is_cluster_yaml

display = Display()

# The options of every module; the documentation of them is in doc_fragments/common.py.
COMMON = {
    "program": {"type": "path", "default": "landfall"},
    "inventory": {"type": "list", "elements": "str"},
}
# The options of every module that contacts machines; doc_fragments/machines.py.
MACHINES = {
    **COMMON,
    "variables": {"type": "dict", "no_log": True},
    "control_plane_group": {"type": "list", "elements": "str"},
    "worker_group": {"type": "list", "elements": "str"},
    "control_planes": {"type": "list", "elements": "str"},
    "ignore": {"type": "list", "elements": "str"},
    "accept_new_host_keys": {"type": "bool", "default": False},
    "known_hosts": {"type": "path"},
    "connect_timeout": {"type": "int"},
}


def error_text(errors):
    """Returns landfall's errors as it prints them: what, where, what was seen, why, what to do next."""
    lines = []
    for error in errors:
        node = f"{error['node']}: " if error.get("node") else ""
        step = f" (step {error['step']})" if error.get("step") else ""
        lines.append(f"{error['code']} {node}{error['what']}{step}")
        lines += [f"  saw: {text}" for text in error.get("saw") or []]
        lines += [f"  why: {text}" for text in error.get("causes") or []]
        lines += [f"  next: {text}" for text in error.get("next") or []]
    return "\n".join(lines)


def progress(event):
    """Returns an event as one line and the verbosity from which it is shown, or None for one that only moves bars."""
    kind, node = event.get("event"), event.get("node")
    prefix = f"landfall [{node}]" if node else "landfall"
    texts = {
        "phase-started": (0, lambda: event["phase"]),
        "push-planned": (0, lambda: f"{event['bytes']} bytes to send"),
        "run-planned": (0, lambda: f"run {event['run']}: {event['steps']} steps"),
        "step-failed": (0, lambda: f"FAILED {event['step']}"),
        "step-waiting": (0, lambda: f"{event['step']}: {event['text']}"),
        "residue": (0, lambda: f"left behind {event['step']}: {event['text']}"),
        "note": (0, lambda: event["text"]),
        "connected": (1, lambda: "connected"),
        "undone": (1, lambda: f"undone {event['step']}"),
        "step-finished": (1, lambda: f"{event['step']}: {'changed' if event['changed'] else 'as wanted'}"),
        "step-started": (2, lambda: f"{event['step']}: {event['text']}"),
    }
    if kind not in texts or event.get("bytes") == 0:
        return None
    verbosity, text = texts[kind]
    return verbosity, f"{prefix} {text()}"


class Stream:
    """What was seen of a stream of events, as far as modules need it."""

    def __init__(self):
        self.cluster = None
        self.plan = None
        self.nodes = None
        self.result = None
        self.done = []
        self._texts = {}

    def add(self, event):
        """Takes in the next event."""
        kind = event.get("event")
        if kind == "run-started":
            self.cluster = event["cluster"]
        elif kind == "plan":
            self.plan = steps_of(event)
        elif kind == "status":
            self.nodes = event["nodes"]
        elif kind == "result":
            self.result = event
        elif kind == "step-started":
            self._texts[event["step"]] = event["text"]
        elif kind == "step-finished" and event["changed"]:
            self.done.append((event.get("node"), event["step"], self._texts.get(event["step"], "")))
        elif kind == "undone":
            self.done.append((event.get("node"), event["step"], "undone"))


def steps_of(event):
    """Returns the steps of a plan event, without the contents of files and objects."""
    texts, reasons = event.get("texts") or {}, event.get("reasons") or {}
    return [
        {
            "node": step["node"],
            "stage": step["stage"],
            "step": step["id"],
            "text": texts.get(step["id"], {}).get("text", ""),
            "undo": texts.get(step["id"], {}).get("undo", ""),
            "why": reasons.get(step["id"], ""),
        }
        for step in event["plan"]["steps"]
    ]


def diff_of(steps):
    """Returns Ansible's diff of (node, step, text): one block for each node, one added line for each step."""
    blocks = {}
    for node, step, text in steps:
        blocks.setdefault(node or "cluster", []).append(f"+ {step}: {text}" if text else f"+ {step}")
    return [{"prepared": "\n".join([f"landfall: {node}", *lines]) + "\n"} for node, lines in blocks.items()]


class Base(ActionBase):
    """An action that is a run of landfall. It runs once for a play, whatever hosts the play has."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    ARGUMENT_SPEC = {}
    REQUIRED_IF = []

    def run(self, tmp=None, task_vars=None):
        """Checks the options, does the work, and takes secrets out of what comes of it."""
        result = super().run(tmp, task_vars)
        checked, options = self.validate_argument_spec(argument_spec=self.ARGUMENT_SPEC, required_if=self.REQUIRED_IF)
        self._private = tempfile.mkdtemp(prefix="landfall-", dir=C.DEFAULT_LOCAL_TMP)
        try:
            result.update(self.work(options, task_vars or {}))
        finally:
            shutil.rmtree(self._private, ignore_errors=True)
        return remove_values(result, checked._no_log_values)

    def work(self, options, task_vars):
        """Returns the result of the task."""
        raise NotImplementedError

    def secret_file(self, name, content):
        """Writes a file for its owner alone, which goes when the task ends."""
        path = os.path.join(self._private, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        return path

    def inventory_arguments(self, options, task_vars):
        """Returns the arguments that name machines and logins: those of the task, else those of this run of Ansible."""
        sources = options.get("inventory") or [str(source) for source in task_vars.get("ansible_inventory_sources") or []]
        arguments = [word for source in sources for word in ("--inventory", source)]
        if len(sources) == 1 and is_cluster_yaml(sources[0]):
            # Its machines have fields of their own; landfall refuses flags beside them.
            return arguments
        lists = ("control_plane_group", "worker_group", "control_planes", "ignore")
        for name in lists:
            if options.get(name):
                arguments += ["--" + name.replace("_", "-"), ",".join(options[name])]
        arguments += self.logins_of_ansible()
        playbook = task_vars.get("playbook_dir")
        if playbook:
            arguments += ["--playbook-dir", str(playbook)]
        variables = {**load_extra_vars(self._loader), **(options.get("variables") or {})}
        if variables:
            # JSON is YAML. Vaulted values have been opened: the file is for its owner alone, and short-lived.
            text = json.dumps(variables, default=str).encode()
            arguments += ["--extra-vars", "@" + self.secret_file("variables.json", text)]
        return arguments

    def logins_of_ansible(self):
        """Returns what the command line of Ansible says of logins and vaults, as arguments of landfall."""
        arguments = []
        for key, flag in (("remote_user", "--user"), ("private_key_file", "--private-key")):
            value = context.CLIARGS.get(key)
            if value:
                arguments += [flag, value]
        passwords = (("connection-password-file", self._play_context.password), ("become-password-file", self._play_context.become_pass))
        for name, password in passwords:
            if password:
                arguments += ["--" + name, self.secret_file(name, str(password).encode())]
        for number, (vault_id, secret) in enumerate(self._loader._vault.secrets or []):
            arguments += ["--vault-id", f"{vault_id}@{self.secret_file(f'vault-{number}', secret.bytes)}"]
        return arguments

    def machine_arguments(self, options, task_vars):
        """Returns the arguments of a command that contacts machines."""
        arguments = self.inventory_arguments(options, task_vars)
        if options.get("accept_new_host_keys"):
            arguments.append("--accept-new-host-keys")
        for name in ("known_hosts", "connect_timeout"):
            if options.get(name) is not None:
                arguments += ["--" + name.replace("_", "-"), str(options[name])]
        return arguments

    def start(self, options, arguments, **streams):
        """Starts landfall, with nothing on its standard input."""
        try:
            return subprocess.Popen([options["program"], *arguments], stdin=subprocess.DEVNULL, **streams)
        except OSError as error:
            raise AnsibleActionFail(
                f"{options['program']} cannot be run on the control machine: {error.strerror}. "
                "Put the program landfall into the PATH, or name it with the option program."
            ) from error

    def stream(self, options, arguments):
        """Runs a command with `--output json` to its end, shows its progress, and returns what was seen.

        A task that is ended ends landfall as ^C does: the steps in flight are awaited.
        """
        seen = Stream()
        with tempfile.TemporaryFile(dir=self._private) as errors:
            process = self.start(options, [*arguments, "--output", "json"], stdout=subprocess.PIPE, stderr=errors)
            try:
                for line in process.stdout:
                    event = json.loads(line)
                    seen.add(event)
                    shown = progress(event)
                    if shown and shown[0] <= display.verbosity:
                        display.display(shown[1])
                process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                process.stdout.close()
            if seen.result is None:
                errors.seek(0)
                text = errors.read().decode(errors="replace").strip()
                raise AnsibleActionFail(text or f"landfall ended with {process.returncode} and without a result")
        return seen

    def ended(self, seen, **more):
        """Returns the task's result of a command that contacts machines."""
        last = seen.result
        result = {
            "cluster": seen.cluster,
            "exit_code": last["exitCode"],
            "run": last["run"],
            "changes": last["changes"],
            "errors": last["errors"],
            "residue": last["residue"],
            "warnings": list(last["warnings"]),
            **more,
        }
        if last["exitCode"] != 0:
            result["failed"] = True
            result["msg"] = error_text(last["errors"]) or f"landfall ended with {last['exitCode']}"
        return result
