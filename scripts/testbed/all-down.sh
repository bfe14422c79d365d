#!/bin/bash
# Stops every server of this run.
. "$(dirname "$0")/lib.sh"
status=0
for name in sshd rgw azurite gcs openstack postgres; do "$HERE/$name-down.sh" || status=1; done
exit $status
