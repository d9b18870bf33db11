# Apache-2.0, see LICENSE
"""Documentation of the module bundle_info. Its work is done by the action plugin of the same name, on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_info
short_description: Reads what is in a bundle of landfall
version_added: 0.1.0
description:
  - Reads the index of a bundle on the control machine.
author:
  - landfall (!UNKNOWN)
options:
  program:
    description: The program C(landfall) on the control machine, a name in its C(PATH) or a path.
    type: path
    default: landfall
  bundle:
    description: The bundle file.
    type: path
    required: true
  verify:
    description: Read every byte and compare it with the index, before the index is returned.
    type: bool
    default: false
attributes:
  check_mode:
    description: Changes nothing, in check mode or not.
    support: full
  diff_mode:
    description: There is nothing that could differ.
    support: none
  action:
    description: Runs on the control machine, which needs no connection to the hosts of the play.
    support: full
  bypass_host_loop:
    description: Runs once for the whole play.
    support: full
"""

EXAMPLES = r"""
- name: Read the bundle
  landfall.cluster.bundle_info:
    bundle: /srv/landfall.bundle
    verify: true
  register: bundle

- name: Show its version of Kubernetes
  ansible.builtin.debug:
    msg: "{{ bundle.index.kubernetes_version }}"
"""

RETURN = r"""
index:
  description: The index of the bundle, as C(landfall bundle inspect --json) prints it.
  returned: success
  type: dict
verified:
  description: Whether every byte was compared.
  returned: success
  type: bool
"""
