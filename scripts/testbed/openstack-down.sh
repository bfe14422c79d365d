#!/bin/bash
# Stops Keystone and Swift of this run and removes their data. Harmless when they do not run.
. "$(dirname "$0")/lib.sh"
dir=$RUN/openstack
[ -d "$dir" ] || exit 0
stop "$dir" prepare swift-proxy swift-object swift-container swift-account keystone-v2 keystone
# Unless it is the watchdog that became this script.
if [ "$(cut -d' ' -f1 "$dir/watchdog.pid" 2>/dev/null)" != $$ ]; then stop "$dir" watchdog; fi
rm -rf -- "$dir"
