"""Stands in for ssh: notes with which arguments and password Ansible would log in, and as what it would run."""

import json
import os
import re
import subprocess
import sys

arguments = sys.argv[1:]
# The command is one word, the last; the host is before it.
command = arguments[-1]
seen = {"arguments": arguments[:-1], "password": None, "become": False, "become_password": None}
askpass = os.environ.get("SSH_ASKPASS")
if askpass:
    asked = subprocess.run([askpass, "me@host's password:"], capture_output=True, check=False)
    seen["password"] = asked.stdout.decode().rstrip("\n") if asked.returncode == 0 else None
marker = re.search(r"BECOME-SUCCESS-\w+", command)
prompt = re.search(r'-p "(\[sudo via ansible, key=\w+\] password:)"', command)
if marker:
    seen["become"] = True
    if prompt:
        os.write(1, prompt.group(1).encode())
        seen["become_password"] = sys.stdin.readline().rstrip("\n")
    os.write(1, (marker.group() + "\n").encode())
with open(os.path.join(os.environ["LOGINS"], str(os.getpid())), "w", encoding="utf-8") as file:
    json.dump(seen, file)
