# Apache-2.0, see LICENSE
"""The work of the module cluster."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible_collections.landfall.cluster.plugins.plugin_utils.landfall import MACHINES, Base, diff_of

ARGUMENT_SPEC = {
    **MACHINES,
    "state": {"type": "str", "choices": ["present", "absent", "verified"], "default": "present"},
    "bundle": {"type": "path"},
    "name": {"type": "str"},
    "on_failure": {"type": "str", "choices": ["keep", "rollback"], "default": "keep"},
    "report": {"type": "path"},
}


class ActionModule(Base):
    """Installs, verifies or removes a cluster."""

    ARGUMENT_SPEC = ARGUMENT_SPEC
    REQUIRED_IF = [("state", "present", ["bundle"]), ("state", "absent", ["name"])]

    def work(self, options, task_vars):
        machines = self.machine_arguments(options, task_vars)
        report = ["--report", options["report"]] if options.get("report") else []
        return getattr(self, "_" + options["state"])(options, machines, report)

    def _present(self, options, machines, report):
        if self._task.check_mode:
            return self._planned(self.stream(options, ["plan", *machines, options["bundle"]]))
        arguments = ["install", *machines, *report, "--on-failure", options["on_failure"], options["bundle"]]
        return self._changed(self.stream(options, arguments))

    def _absent(self, options, machines, report):
        planned = self.stream(options, ["uninstall", *machines, "--dry-run"])
        if planned.result["exitCode"] == 0 and planned.cluster != options["name"]:
            raise AnsibleActionFail(
                f"the inventory describes the cluster {planned.cluster}, and the task names {options['name']}; nothing was done"
            )
        if self._task.check_mode or planned.result["exitCode"] != 0 or not planned.plan:
            return self._planned(planned)
        return self._changed(self.stream(options, ["uninstall", *machines, *report, "--yes"]))

    def _verified(self, options, machines, report):
        seen = self.stream(options, ["verify", *machines, *report])
        return self.ended(seen, changed=False, **paths_of(seen))

    def _planned(self, seen):
        steps = seen.plan or []
        result = self.ended(seen, changed=bool(steps), plan=steps)
        if self._task.diff:
            result["diff"] = diff_of((step["node"], step["step"], step["text"]) for step in steps)
        return result

    def _changed(self, seen):
        result = self.ended(seen, changed=seen.result["changes"] > 0, **paths_of(seen))
        if self._task.diff:
            result["diff"] = diff_of(seen.done)
        return result


def paths_of(seen):
    """Returns how many paths into the cluster were tried and work, and the ones that do not."""
    report = seen.result["verify"]
    if report is None:
        return {}
    cells = report["cells"]
    failed = [cell for cell in cells if cell["outcome"] == "fail"]
    passed = sum(cell["outcome"] == "pass" for cell in cells)
    return {"paths": {"passed": passed, "failed": len(failed)}, "failed_paths": failed}
