#!/usr/bin/env bash
# One-click recovery: brings back every replica and every leader, waits, and ends with status 0 if all are back.
#
# The work is done by the cluster: when this script is interrupted it goes on, and the script says how to look again.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

find_binary
find_nameservers
cluster=(--nameservers "$nameservers" --cluster "$zk_root_path")

job='' waiting=''
look_again() {
    [[ -z $waiting ]] || kill "$waiting" 2>/dev/null || true
    echo "recoverdata.sh: interrupted; what was started goes on in the cluster. To look again:" >&2
    if [[ -n $job ]]; then
        echo "  $bin ops show $job --wait ${cluster[*]}" >&2
    else
        echo "  $bin ops list ${cluster[*]}" >&2
    fi
    exit 130
}
trap look_again INT TERM HUP

said=$("$bin" ops recoverdata "${cluster[@]}" 2>&1) || true
# One that goes on already is as good as one that is started now.
[[ $said =~ is\ job\ ([0-9]+) || $said =~ job\ ([0-9]+)\ \(recoverdata\)\ goes\ on ]] \
    || die "${said#stela: } (zk_cluster and zk_root_path say which cluster is meant, start-all.sh starts it)"
job=${BASH_REMATCH[1]}
# In the background, since a shell that waits hears a signal at once.
"$bin" ops show "$job" --wait "${cluster[@]}" &
waiting=$!
wait "$waiting"
