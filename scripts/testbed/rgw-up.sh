#!/bin/bash
# Starts a Ceph object gateway (S3, IAM, STS) with one monitor and one disk on loopback; it needs no root.
# What a client needs is then in DIR/state.json; DIR/admin is `radosgw-admin` for this server.
#
#   RGW_PORT (S3), RGW_PORT_MON, RGW_PORT_MON_V1   ports; free ones are chosen when not given
. "$(dirname "$0")/lib.sh"
dir=$RUN/rgw
"$HERE/rgw-down.sh"
mkdir -p "$dir"/{mon,osd,rgw,run,log}
undo_on_failure "$dir" rgw
port=${RGW_PORT:-$(free_port)} port_mon=${RGW_PORT_MON:-$(free_port)} port_mon_v1=${RGW_PORT_MON_V1:-$(free_port)}

root=$CACHE/deb-ceph/root
[ -x "$root/usr/bin/radosgw" ] || [ -x /usr/bin/radosgw ] || die "Ceph is not installed: run scripts/testbed/setup.sh"
LD_LIBRARY_PATH=$(libraries "$root")
export LD_LIBRARY_PATH PATH=$root/usr/bin:$PATH PYTHONPATH=$root/usr/lib/python3/dist-packages CEPH_CONF=$dir/ceph.conf
plugin() { find "$root"/usr/lib /usr/lib -name "$1" 2>/dev/null | head -n 1; }
classes=$(dirname "$(plugin 'libcls_rgw.so*')") erasure=$(dirname "$(plugin 'libec_jerasure.so*')")
fsid=$(cat /proc/sys/kernel/random/uuid)
random() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }
secret=$(random 20) other_secret=$(random 20)

# `auth … none` wants `ms mon client mode = crc`: the gateway alone would insist on encryption and never get in.
# Encryption at rest over plain HTTP wants `rgw crypt require ssl = false`: `AES256` with the default key, `aws:kms` with
# the keys of the backend for tests, which has to be told which one (`x-amz-server-side-encryption-aws-kms-key-id`).
cat >"$dir/ceph.conf" <<CONFIG
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$port_mon/0,v1:127.0.0.1:$port_mon_v1/0]
public network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd class dir = $classes
osd class load list = *
osd class default list = *
erasure code dir = $erasure
plugin dir = $(dirname "$classes")/ceph
run dir = $dir/run
admin socket =
log file = $dir/log/\$name.log
crash dir = $dir/log
keyring = $dir/keyring
debug ms = 0
[mon]
mon data = $dir/mon
# A developer's disk is often nearly full: what matters here is only that some hundred MiB are left.
mon data avail warn = 2
mon data avail crit = 1
[osd]
osd data = $dir/osd
osd objectstore = bluestore
bluestore block size = 21474836480
bluestore fsck on mount = false
osd memory target = 1073741824
osd max object size = 268435456
[client]
ms mon client mode = crc
rgw frontends = beast endpoint=127.0.0.1:$port
rgw s3 auth use sts = true
rgw sts key = $(random 8)
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = testkey=$(head -c 32 /dev/urandom | base64)
rgw crypt default encryption key = $(head -c 32 /dev/urandom | base64)
rgw data = $dir/rgw
CONFIG
[ -d "$(dirname "$classes")/ceph" ] || sed -i '/^plugin dir/d' "$dir/ceph.conf"

cat >"$dir/admin" <<ADMIN
#!/bin/bash
export LD_LIBRARY_PATH='$LD_LIBRARY_PATH' CEPH_CONF='$CEPH_CONF' PATH='$root/usr/bin':\$PATH
exec radosgw-admin -c '$CEPH_CONF' "\$@"
ADMIN
chmod 755 "$dir/admin"

# A command that may wait for the servers; `rgw-down.sh` finds it when this script is killed meanwhile.
bounded() {
    timeout --foreground $START_SECS "$@" &
    local pid=$!
    record "$dir" prepare $pid
    wait $pid
    rm "$dir/prepare.pid"
}

{
    ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$dir/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$port_mon,v1:127.0.0.1:$port_mon_v1]" "$dir/monmap"
    ceph-mon -i a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring"
} >"$dir/prepare.log" 2>&1
start "$dir" mon ceph-mon -i a -f -c "$dir/ceph.conf"
wait_port "$dir" mon "$port_mon"
{
    disk=$(cat /proc/sys/kernel/random/uuid)
    bounded ceph -c "$dir/ceph.conf" osd new "$disk"
    bounded ceph -c "$dir/ceph.conf" osd crush add osd.0 1.0 root=default host=h1
    bounded ceph-osd -c "$dir/ceph.conf" -i 0 --mkfs --osd-uuid "$disk"
} >>"$dir/prepare.log" 2>&1
start "$dir" osd ceph-osd -i 0 -f -c "$dir/ceph.conf"
{
    bounded "$dir/admin" user create --uid=test --display-name=Test \
        --access-key=CONSIGNTEST --secret-key="$secret" --caps='roles=*'
    bounded "$dir/admin" user create --uid=other --display-name=Other \
        --access-key=CONSIGNOTHER --secret-key="$other_secret"
    # Hosts below which a bucket may stand in the name; any other name would be taken for a bucket as a whole.
    hosts='"s3.localhost", "s3.eu-west-1.amazonaws.com", "s3.us-gov-west-1.amazonaws.com", "s3.cn-north-1.amazonaws.com.cn"'
    bounded "$dir/admin" zonegroup get >"$dir/zonegroup.json"
    sed -i "s/\"hostnames\": \[\]/\"hostnames\": [$hosts]/" "$dir/zonegroup.json"
    bounded "$dir/admin" zonegroup set --infile "$dir/zonegroup.json"
} >>"$dir/prepare.log" 2>&1
start "$dir" rgw radosgw -n client.admin -f -c "$dir/ceph.conf"
wait_port "$dir" rgw "$port"

cat >"$dir/state.tmp" <<STATE
{
  "port": $port, "region": "default", "version": "$(radosgw --version | cut -d' ' -f3)",
  "access_key_id": "CONSIGNTEST", "secret_access_key": "$secret",
  "other_access_key_id": "CONSIGNOTHER", "other_secret_access_key": "$other_secret"
}
STATE
watch "$dir" rgw
mv "$dir/state.tmp" "$dir/state.json"
echo "rgw http://127.0.0.1:$port key CONSIGNTEST"
