# Apache-2.0, see LICENSE
"""Documentation of the options that all modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of all modules, of those that contact machines, and of those that change them."""

    DOCUMENTATION = r"""
options:
  program:
    description:
      - The program C(landfall) on the control machine, a name in its C(PATH) or a path.
    type: path
    default: landfall
  inventory:
    description:
      - What landfall is told with C(-i), a C(cluster.yaml) or Ansible inventories.
      - By default the inventories of this run of Ansible, with its extra variables, passwords, vaults, O(ignore:remote_user) and private
        key.
    type: list
    elements: str
attributes:
  check_mode:
    description: Can run in check mode and returns what would change, without a change.
  diff_mode:
    description: Returns what changes, or would change in check mode.
  action:
    description: Runs on the control machine, which needs no connection to the hosts of the play.
    support: full
  async:
    description: Supports being used with the keyword C(async).
    support: none
  bypass_host_loop:
    description: Runs once for the whole play, with landfall's own connections to all machines.
    support: full
"""

    MACHINES = r"""
options:
  variables:
    description:
      - Variables that beat all others, for landfall alone; those of C(ansible-playbook -e) count too.
      - They are handed over in a file for its owner alone that goes when the task ends.
    type: dict
  control_plane_group:
    description: Groups of control plane nodes, when their name is not one that landfall knows.
    type: list
    elements: str
  worker_group:
    description: Groups of workers, when their name is not one that landfall knows.
    type: list
    elements: str
  control_planes:
    description: The control plane nodes by name; all other machines of the cluster are workers then.
    type: list
    elements: str
  ignore:
    description: Machines and groups of the inventory that are not of the cluster.
    type: list
    elements: str
  accept_new_host_keys:
    description: Write keys of hosts that are seen for the first time to the known_hosts file instead of refusing them.
    type: bool
    default: false
  known_hosts:
    description: File of known host keys. By default C(~/.ssh/known_hosts).
    type: path
  connect_timeout:
    description: Seconds for each SSH connection.
    type: int
"""

    RUNS = r"""
options:
  on_failure:
    description: What to do with the changes of this run when a step fails.
    type: str
    choices: [keep, rollback]
    default: keep
  report:
    description: Folder on the control machine for landfall's reports and its log.
    type: path
"""
