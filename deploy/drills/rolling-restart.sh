#!/usr/bin/env bash
# Restarts every server, one after the other, under a writer: a tablet hands over what it leads before it is stopped
# (pre-upgrade) and gets it back afterwards (post-upgrade). No row may be lost and no batch refused.
#
#   rolling-restart.sh [ROUNDS]
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Does it answer as a member of the group?
is_member() { [[ $(ns showns | grep -cE '^ +127\.') == 3 ]]; }

set_up
start_writer
for ((round = 1; round <= rounds; round++)); do
    for endpoint in "${endpoints[@]:0:3}"; do
        stop "$endpoint"
        start "$endpoint"
        await 30 "nameserver $endpoint" is_member
        await_written
        say "nameserver $endpoint is restarted"
    done
    for endpoint in "${tablets[@]}"; do
        await 60 'a whole table' is_whole
        led=$(leads "$endpoint")
        ops pre-upgrade --endpoints "$endpoint"
        [[ $(leads "$endpoint") == 0 ]] || fail "$endpoint leads after its pre-upgrade"
        stop "$endpoint"
        await_written
        start "$endpoint"
        await 60 "all replicas after the restart of $endpoint" is_whole
        ops post-upgrade --endpoints "$endpoint"
        leads=$(leads "$endpoint")
        ((leads == led)) || fail "$endpoint led $led partitions before, and leads $leads after its post-upgrade"
        await_written
        say "tablet $endpoint is restarted, and leads $led of $partitions partitions as before"
    done
done
check
((refused == 0)) || fail "$refused batches refused; $figures"
in_time "$pause" 'the longest pause of the writer'
pass "$((rounds * 6)) restarts, $figures, 0 batches refused"
