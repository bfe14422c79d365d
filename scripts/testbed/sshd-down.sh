#!/bin/bash
# Stops the OpenSSH server of this run and removes its user and files. Harmless when it does not run.
. "$(dirname "$0")/lib.sh"
dir=$RUN/sshd
[ -d "$dir" ] || exit 0
stop "$dir" sshd
if [ -s "$dir/user" ]; then
    user=$(cat "$dir/user")
    if getent passwd "$user" >/dev/null; then userdel --force "$user" 2>/dev/null || echo "user $user is still there" >&2; fi
fi
if [ -s "$dir/files" ]; then rm -rf -- "$(cat "$dir/files")"; fi
# Unless it is the watchdog that became this script.
if [ "$(cut -d' ' -f1 "$dir/watchdog.pid" 2>/dev/null)" != $$ ]; then stop "$dir" watchdog; fi
rm -rf -- "$dir"
