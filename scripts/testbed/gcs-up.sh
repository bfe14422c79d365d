#!/bin/bash
# Starts a stand-in for Google Cloud Storage on loopback: gcp-storage-emulator, and a gate of ours before it that issues
# and checks tokens (gcs-gate.py says what else is ours). What a client needs is then in DIR/state.json.
#
#   GCS_PORT (the gate), GCS_PORT_EMULATOR (without it)   ports; free ones are chosen when not given
. "$(dirname "$0")/lib.sh"
dir=$RUN/gcs
"$HERE/gcs-down.sh"
mkdir -p "$dir"
undo_on_failure "$dir" gcs
port=${GCS_PORT:-$(free_port)} port_emulator=${GCS_PORT_EMULATOR:-$(free_port)}

[ -x "$CACHE/bin/gcp-storage-emulator" ] || die "gcp-storage-emulator is not installed: run scripts/testbed/setup.sh"
start "$dir" gate "$CACHE/bin/python" "$HERE/gcs-gate.py" "$port" "$port_emulator" "$dir/state.tmp"
wait_port "$dir" gate "$port"
watch "$dir" gcs
mv "$dir/state.tmp" "$dir/state.json"
echo "gcs http://127.0.0.1:$port token http://127.0.0.1:$port/token without a gate http://127.0.0.1:$port_emulator"
