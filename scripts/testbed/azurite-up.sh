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
# The account is the first segment of the path where the host is an address, and of the host where that is a name.
AZURITE_ACCOUNTS="$account:$key" start "$dir" azurite "$CACHE/bin/node" "$main" --blobHost 127.0.0.1 --blobPort "$port" \
    --location "$dir/data" --disableTelemetry --silent --skipApiVersionCheck # rclone speaks a newer version than it knows
wait_port "$dir" azurite "$port"

version=$("$CACHE/bin/node" -p 'require(process.argv[1]).version' "$CACHE/azurite/node_modules/azurite/package.json")
echo "{\"port\": $port, \"version\": \"$version\", \"account\": \"$account\", \"key\": \"$key\"}" >"$dir/state.tmp"
watch "$dir" azurite
mv "$dir/state.tmp" "$dir/state.json"
echo "azurite http://127.0.0.1:$port/$account"
