#!/bin/bash
# Starts Azurite, Microsoft's own server of the Azure Blob protocol, on loopback, with an account of its own.
# What a client needs is then in DIR/state.json.
#
#   AZURITE_PORT   a free one is chosen when not given
. "$(dirname "$0")/lib.sh"
dir=$RUN/azurite
"$HERE/azurite-down.sh"
mkdir -p "$dir/data"
undo_on_failure "$dir" azurite
port=${AZURITE_PORT:-$(free_port)}
main=$CACHE/azurite/node_modules/azurite/dist/src/blob/main.js
[ -e "$main" ] || die "Azurite is not installed: run scripts/testbed/setup.sh"

account=consigntest key=$(head -c 64 /dev/urandom | base64 -w0)
# Without product style URLs the account is always the first segment of the path, whatever the host is called.
AZURITE_ACCOUNTS="$account:$key" start "$dir" azurite "$CACHE/bin/node" "$main" --blobHost 127.0.0.1 --blobPort "$port" \
    --location "$dir/data" --disableTelemetry --disableProductStyleUrl --silent
wait_port "$dir" azurite "$port"

echo "{\"port\": $port, \"account\": \"$account\", \"key\": \"$key\"}" >"$dir/state.tmp"
watch "$dir" azurite
mv "$dir/state.tmp" "$dir/state.json"
echo "azurite http://127.0.0.1:$port/$account"
