#!/bin/bash
# Starts OpenStack on loopback: Keystone (identity, v3), Swift (proxy with S3 API, account, container and object server, one
# replica), and a stand-in of ours for the identity API v2.0, which Keystone no longer has. It needs no root.
# What a client needs is then in DIR/state.json.
#
#   KEYSTONE_PORT, KEYSTONE_V2_PORT, SWIFT_PORT   ports; free ones are chosen when not given
. "$(dirname "$0")/lib.sh"
dir=$RUN/openstack
"$HERE/openstack-down.sh"
umask 077
mkdir -p "$dir"/{keystone,swift,disks/d1,recon}
undo_on_failure "$dir" openstack
keystone_port=${KEYSTONE_PORT:-$(free_port)} v2_port=${KEYSTONE_V2_PORT:-$(free_port)} swift_port=${SWIFT_PORT:-$(free_port)}
account_port=$(free_port) container_port=$(free_port) object_port=$(free_port)
keystone=http://127.0.0.1:$keystone_port

bin=$CACHE/venv-openstack/bin
[ -x "$bin/swift-proxy-server" ] || die "OpenStack is not installed: run scripts/testbed/setup.sh"
me=$(id -un) group=$(id -gn)
export OS_KEYSTONE_CONFIG_DIR=$dir/keystone PYTHONDONTWRITEBYTECODE=1

# Without its cache Keystone computes for most of a second to check a token; it is one process, so that a cache in memory
# does. Fewer rounds of bcrypt than the default of 12, which make every log-in slow.
cat >"$dir/keystone/keystone.conf" <<CONFIG
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///$dir/keystone/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = $dir/keystone/fernet
[fernet_receipts]
key_repository = $dir/keystone/fernet
[credential]
key_repository = $dir/keystone/credential
[cache]
enabled = true
backend = oslo_cache.dict
expiration_time = 600
[identity]
password_hash_rounds = 4
CONFIG

# An empty database takes 8 s of migrations; it is kept for the next start, by the versions that it was made with. The ports
# in it are put right by the seed.
prepared=$CACHE/openstack-$me-$(cat "$HERE/packages/openstack.txt" "$0" | sha256sum | cut -c1-16)
prepare() {
    local manage=("$bin/keystone-manage" --config-file "$dir/keystone/keystone.conf")
    mkdir -p "$dir"/keystone/{fernet,credential}
    "${manage[@]}" db_sync
    "${manage[@]}" fernet_setup --keystone-user "$me" --keystone-group "$group"
    "${manage[@]}" credential_setup --keystone-user "$me" --keystone-group "$group"
    "${manage[@]}" bootstrap --bootstrap-username admin --bootstrap-password admin-pass --bootstrap-project-name admin \
        --bootstrap-role-name admin --bootstrap-service-name keystone --bootstrap-region-id RegionOne \
        --bootstrap-public-url "$keystone/v3" --bootstrap-internal-url "$keystone/v3" --bootstrap-admin-url "$keystone/v3"
    rm -rf "$CACHE/openstack-$me"-*
    mkdir -p "$prepared.$$"
    cp -a "$dir"/keystone/{fernet,credential,keystone.db} "$prepared.$$/"
    mv -T "$prepared.$$" "$prepared" || rm -rf "$prepared.$$" # somebody else was quicker
}
if [ -d "$prepared" ]; then
    cp -a "$prepared/." "$dir/keystone/"
else
    prepare >"$dir/prepare.log" 2>&1 &
    record "$dir" prepare $!
    wait $!
    rm "$dir/prepare.pid"
fi

# Keystone reads the arguments of the process itself, so gunicorn gets none.
cat >"$dir/keystone/gunicorn.conf.py" <<CONFIG
bind = '127.0.0.1:$keystone_port'
workers = 1
threads = 4
wsgi_app = 'keystone.wsgi.api:application'
worker_tmp_dir = '$dir/recon'
control_socket_disable = True
CONFIG
cd "$dir/keystone"
start "$dir" keystone "$bin/gunicorn"
cd "$HERE"
start "$dir" keystone-v2 "$bin/python" "$HERE/keystone-v2.py" "$v2_port" "$keystone"

"$bin/python" "$HERE/openstack-rings.py" "$dir/swift" "account:$account_port" "container:$container_port" \
    "object:$object_port" >"$dir/rings.log" 2>&1
cat >"$dir/swift/swift.conf" <<CONFIG
[swift-hash]
swift_hash_path_suffix = suffix
swift_hash_path_prefix = prefix
[storage-policy:0]
name = default
default = yes
CONFIG
# Half a second for a connection and ten for an answer are the defaults, and a server that was slow ten times is left out
# for a minute: with one replica that is 503 to whoever asks, on a machine that is only busy.
patience="conn_timeout = 30
node_timeout = 90"
for server in account:$account_port container:$container_port object:$object_port; do
    name=${server%%:*}
    cat >"$dir/swift/$name-server.conf" <<CONFIG
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${server##*:}
workers = 0
user = $me
swift_dir = $dir/swift
devices = $dir/disks
mount_check = false
fallocate_reserve = 0
recon_cache_path = $dir/recon
[pipeline:main]
pipeline = $name-server
[app:$name-server]
use = egg:swift#$name
$patience
CONFIG
    start "$dir" "swift-$name" "$bin/swift-$name-server" "$dir/swift/$name-server.conf" verbose
done
# The account as which Swift asks Keystone about tokens.
service="auth_type = password
auth_url = $keystone/v3
username = swift
password = swift-pass
project_name = service
user_domain_id = default
project_domain_id = default"
# Tokens are remembered for a second only, so that a revoked one is refused at once. `authtoken s3api s3token keystoneauth`
# is the one order in which the S3 API works. Nothing listens at the address of the cache, which is optional.
cat >"$dir/swift/proxy-server.conf" <<CONFIG
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $swift_port
workers = 0
user = $me
swift_dir = $dir/swift
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk authtoken s3api s3token keystoneauth copy container-quotas account-quotas slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
$patience
recoverable_node_timeout = 90
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = RegionOne
s3_acl = false
auth_pipeline_check = true
[filter:s3token]
use = egg:swift#s3token
auth_uri = $keystone/v3
$service
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = $keystone/v3
delay_auth_decision = true
token_cache_time = 1
$service
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = member
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
CONFIG
wait_port "$dir" keystone "$keystone_port"
start "$dir" swift-proxy "$bin/swift-proxy-server" "$dir/swift/proxy-server.conf" verbose
"$bin/python" "$HERE/openstack-seed.py" "$keystone/v3" "http://127.0.0.1:$swift_port" "$dir/state.tmp" 2>"$dir/seed.log"
for server in keystone-v2:$v2_port swift-account:$account_port swift-container:$container_port swift-object:$object_port \
    swift-proxy:$swift_port; do
    wait_port "$dir" "${server%%:*}" "${server##*:}"
done

sed -i "s/^{/{\"keystone_port\": $keystone_port, \"keystone_v2_port\": $v2_port, \"swift_port\": $swift_port, /" "$dir/state.tmp"
watch "$dir" openstack
mv "$dir/state.tmp" "$dir/state.json"
echo "openstack keystone $keystone swift http://127.0.0.1:$swift_port"
