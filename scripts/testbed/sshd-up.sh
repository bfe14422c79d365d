#!/bin/bash
# Starts an OpenSSH server for SFTP on four ports of loopback; what a client needs is then in DIR/state.json.
#
#   SSHD_PORT                  password and keys
#   SSHD_PORT_KBD              keyboard-interactive only
#   SSHD_PORT_NO_POSIX_RENAME  password and keys; the server refuses posix-rename@openssh.com
#   SSHD_PORT_READ_ONLY        password and keys; the server refuses every change
#
#   SSHD_FILES                 folder below which the served files lie, as root (default /tmp); every user must be able to enter it
#
# As root it makes a system user with a random password for this run. As anybody else it serves the user
# that runs it, with keys only: passwords cannot be checked without root.
. "$(dirname "$0")/lib.sh"
dir=$RUN/sshd
"$HERE/sshd-down.sh"
mkdir -p "$dir/keys"
undo_on_failure "$dir" sshd
port=${SSHD_PORT:-$(free_port)} port_kbd=${SSHD_PORT_KBD:-$(free_port)} port_plain=${SSHD_PORT_NO_POSIX_RENAME:-$(free_port)}
port_read_only=${SSHD_PORT_READ_ONLY:-$(free_port)}

if [ -x /usr/sbin/sshd ]; then
    sshd=/usr/sbin/sshd
else
    unpacked=$CACHE/deb/root
    sshd=$unpacked/usr/sbin/sshd
    LD_LIBRARY_PATH=$(libraries "$unpacked")
    export LD_LIBRARY_PATH
fi
[ -x "$sshd" ] || die "OpenSSH server is not installed: run scripts/testbed/setup.sh"

make_key() { ssh-keygen -q -C "" -N "" -f "$dir/keys/$1" "${@:2}"; }
make_key host_ed25519 -t ed25519
make_key host_rsa -t rsa -b 2048
make_key host_ecdsa -t ecdsa -b 256
make_key ed25519 -t ed25519            # OpenSSH's own format
make_key rsa -t rsa -b 2048
make_key ecdsa -t ecdsa -b 256
make_key ecdsa_p384 -t ecdsa -b 384
make_key ecdsa_p521 -t ecdsa -b 521
make_key rsa_pkcs1 -t rsa -b 2048 -m PEM   # -----BEGIN RSA PRIVATE KEY-----
make_key rsa_pkcs8 -t rsa -b 2048 -m PKCS8 # -----BEGIN PRIVATE KEY-----
make_key ecdsa_sec1 -t ecdsa -b 256 -m PEM # -----BEGIN EC PRIVATE KEY-----
make_key ecdsa_pkcs8 -t ecdsa -b 256 -m PKCS8
make_key ed25519_encrypted -t ed25519 -N key-passphrase
make_key rsa_pkcs1_encrypted -t rsa -b 2048 -m PEM -N key-passphrase
make_key rsa_pkcs8_encrypted -t rsa -b 2048 -m PKCS8 -N key-passphrase
make_key ecdsa_sec1_encrypted -t ecdsa -b 256 -m PEM -N key-passphrase
# ssh-keygen writes Ed25519 in its own format only: the same key, as other programs write it.
"$CACHE/bin/python" - "$dir/keys/ed25519" >"$dir/keys/ed25519_pkcs8" <<'PYTHON'
import sys
from cryptography.hazmat.primitives import serialization as form
key = form.load_ssh_private_key(open(sys.argv[1], "rb").read(), None)
print(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode(), end="")
PYTHON
make_key unknown -t ed25519 # no server accepts it
if [ "$(id -u)" = 0 ]; then
    mkdir -p /run/sshd # sshd insists on this folder and on the user `sshd`
    getent passwd sshd >/dev/null || useradd --system --no-create-home --home-dir /run/sshd --shell /usr/sbin/nologin sshd
    # Not below the cache: that may be in a home folder which the user of the test cannot enter.
    files=$(mktemp -d "${SSHD_FILES:-/tmp}/consign-sshd.XXXXXX")
    user=consign-test-$(head -c 4 /dev/urandom | od -An -tx1 | tr -d ' \n')
    password=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
    echo "$files" >"$dir/files"
    echo "$user" >"$dir/user"
    useradd --system --no-create-home --home-dir "$files/home" --shell /usr/sbin/nologin "$user"
    echo "$user:$password" | chpasswd
    # sshd asks PAM as the program it was started as: not as `sshd`, whose rules may want a log-in session.
    ln -s "$sshd" "$dir/consign-sshd"
    sshd=$dir/consign-sshd
    allow_password=yes
else
    files=$dir/files.d user=$(id -un) password='' allow_password=no
fi
mkdir -p "$files/home" "$files/denied"
chmod 755 "$files" "$files/home"
for key in "$dir"/keys/*.pub; do
    case $key in */host_* | */unknown.pub) ;; *) cat "$key" ;; esac
done >"$files/authorized_keys"
if [ "$(id -u)" = 0 ]; then chown "$user:" "$files/home"; fi
chmod 555 "$files/denied"

# UsePAM: without it keyboard-interactive is not to be had, and a locked account is refused even with a key.
cat >"$dir/sshd_config" <<CONFIG
ListenAddress 127.0.0.1:$port
ListenAddress 127.0.0.1:$port_kbd
ListenAddress 127.0.0.1:$port_plain
ListenAddress 127.0.0.1:$port_read_only
HostKey $dir/keys/host_ed25519
HostKey $dir/keys/host_rsa
HostKey $dir/keys/host_ecdsa
PidFile none
AuthorizedKeysFile $files/authorized_keys
StrictModes no
UsePAM yes
UseDNS no
PasswordAuthentication $allow_password
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin no
AllowUsers $user
AllowTcpForwarding no
X11Forwarding no
PrintMotd no
PrintLastLog no
MaxStartups 200
MaxSessions 50
MaxAuthTries 20
PerSourcePenalties no
Subsystem sftp internal-sftp
Match LocalPort $port_kbd
    PasswordAuthentication no
    PubkeyAuthentication no
    KbdInteractiveAuthentication $allow_password
    ForceCommand internal-sftp -d $files/home
Match LocalPort $port_plain
    ForceCommand internal-sftp -d $files/home -P posix-rename
Match LocalPort $port_read_only
    ForceCommand internal-sftp -d $files/home -R
Match LocalPort $port
    ForceCommand internal-sftp -d $files/home
CONFIG
# From 9.8 on sshd starts programs of its own, which it looks for where it was built to be installed.
if [ -n "${unpacked:-}" ]; then
    for part in session auth; do
        program=$unpacked/usr/lib/openssh/sshd-$part
        if [ -x "$program" ]; then
            sed -i "1i Sshd${part^}Path $program" "$dir/sshd_config"
        fi
    done
fi
# Older ones refuse settings that they do not know: penalties and the programs came with 9.8 and later.
for setting in SshdAuthPath SshdSessionPath PerSourcePenalties; do
    "$sshd" -t -f "$dir/sshd_config" 2>/dev/null || sed -i "/$setting/d" "$dir/sshd_config"
done
"$sshd" -t -f "$dir/sshd_config"
start "$dir" sshd "$sshd" -D -e -f "$dir/sshd_config"
for p in $port $port_kbd $port_plain $port_read_only; do wait_port "$dir" sshd "$p"; done

# The server says what it is in its first line: SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7
version=$(exec 3<>"/dev/tcp/127.0.0.1/$port" && head -n 1 <&3 | tr -d '\r' | sed 's/^SSH-2.0-OpenSSH_\([^ ]*\).*/\1/')
fingerprint() { ssh-keygen -l -f "$dir/keys/$1.pub" | cut -d' ' -f2; }
cat >"$dir/state.tmp" <<STATE
{
  "port": $port, "port_keyboard_interactive": $port_kbd, "port_no_posix_rename": $port_plain,
  "port_read_only": $port_read_only, "version": "$version",
  "user": "$user", "password": "$password", "uid": $(id -u "$user"), "gid": $(id -g "$user"),
  "home": "$files/home", "denied": "$files/denied", "key_passphrase": "key-passphrase",
  "fingerprints": ["$(fingerprint host_ed25519)", "$(fingerprint host_rsa)", "$(fingerprint host_ecdsa)"]
}
STATE
watch "$dir" sshd
mv "$dir/state.tmp" "$dir/state.json"
echo "sshd 127.0.0.1:$port user $user"
