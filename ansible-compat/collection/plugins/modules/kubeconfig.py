# Apache-2.0, see LICENSE
"""Documentation of the module kubeconfig. Its work is done by the action plugin of the same name, on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeconfig
short_description: Writes an admin kubeconfig on the control machine
version_added: 0.1.0
description:
  - Fetches the admin kubeconfig of the cluster and writes it for its owner alone. What it holds is not returned.
author:
  - landfall (!UNKNOWN)
extends_documentation_fragment:
  - landfall.cluster.common
  - landfall.cluster.common.machines
options:
  dest:
    description: The file to write on the control machine.
    type: path
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    description: Its content is secret and is never shown.
    support: none
"""

EXAMPLES = r"""
- name: Write the kubeconfig
  landfall.cluster.kubeconfig:
    dest: ./kubeconfig
"""

RETURN = r"""
dest:
  description: The file.
  returned: always
  type: str
cluster:
  description: Name of the cluster.
  returned: always
  type: str
exit_code:
  description: Exit status of landfall; its README lists them.
  returned: always
  type: int
run:
  description: Always absent for this module.
  returned: never
  type: str
changes:
  description: Always 0 for this module, which changes no machine.
  returned: always
  type: int
errors:
  description: Errors with the keys C(code), C(what), C(node), C(saw), C(causes) and C(next).
  returned: always
  type: list
  elements: dict
residue:
  description: Always empty for this module.
  returned: always
  type: list
  elements: str
"""
