#!/usr/bin/env bash
# The operators' document by hand, with auto_failover off: after kill -9 of a tablet nobody takes over by itself;
# offlineendpoint and recoverendpoint; then "Manual data recovery" after all replicas were down, partition by partition:
# updatetablealive, loadtable, gettablestatus, recovertable.
#
#   manual-mode.sh [ROUNDS]
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# do_it ANSWER COMMAND...: a command of ns_client that must answer so.
do_it() {
    local answer=$1 said
    shift
    said=$(ns "$@") || true
    [[ $said == *"$answer" ]] || fail "'$*' answered: $said"
}

has_state() { ns showtablet | awk -v at="$1" -v state="$2" '$1 == at && $3 == state { found = 1 } END { exit !found }'; }
# Who leads, and who is alive: what must not change by itself.
leaders() { rows | awk '$5 == "leader" { print $3, $4, $6 }'; }
alive_at() { rows | awk -v at="$1" '$4 == at && $6 == "yes"' | wc -l; }
all_led() { [[ $(rows | awk '$5 == "leader" && $6 == "yes"' | wc -l) == "$partitions" ]]; }
# is_normal ENDPOINT TID PID: has it loaded the partition?
is_normal() { tablet "$1" "gettablestatus $2 $3" | awk '$5 == "kTableNormal" { found = 1 } END { exit !found }'; }
offset_of() { tablet "$1" "gettablestatus $2 $3" | awk -v tid="$2" -v pid="$3" '$1 == tid && $2 == pid { print $3 }'; }

# Step 3 of the document for one partition: the replica with the largest offset leads again, the others follow it.
recover_partition() {
    local pid=$1 endpoint offset leader='' largest=-1
    for endpoint in "${tablets[@]}"; do
        offset=$(offset_of "$endpoint" "$tid" "$pid")
        [[ -n $offset ]] || fail "$endpoint shows no offset of partition $pid"
        ((offset <= largest)) || { leader=$endpoint && largest=$offset; }
    done
    tablet "$leader" "loadtable t $tid $pid 0 8" | grep -q 'LoadTable ok' || fail "loadtable of partition $pid on $leader was refused"
    await 60 "kTableNormal of partition $pid" is_normal "$leader" "$tid" "$pid"
    do_it 'update ok' "updatetablealive t $pid $leader yes"
    for endpoint in "${tablets[@]}"; do
        [[ $endpoint == "$leader" ]] || do_it 'recover table ok' "recovertable t $pid $endpoint"
    done
}

set_up
do_it 'set auto_failover ok' 'confset auto_failover false'
start_writer
by_hand=0 all_by_hand=0
for ((round = 1; round <= rounds; round++)); do
    # The one that leads most, so that there is something to take over.
    victim=$(rows | awk '$5 == "leader" { print $4 }' | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }')
    before=$(leaders | awk '{ print $1, $2 }')
    began=$(now)
    kill_server "$victim"
    await 30 "kOffline of $victim" has_state "$victim" kOffline
    # Longer than an automatic failover takes.
    sleep 3
    [[ $(leaders | awk '{ print $1, $2 }') == "$before" ]] || fail "with auto_failover off a leader has changed by itself"
    ! all_led || fail "a partition of the dead $victim is shown as led"
    say "$victim is dead, and nobody has taken over by itself"
    began=$(now)
    do_it 'offline endpoint ok' "offlineendpoint $victim"
    await 30 'a leader for each partition' all_led
    back_after "$began" "offlineendpoint $victim"
    ((took <= by_hand)) || by_hand=$took
    start "$victim"
    await 30 "kHealthy of $victim" has_state "$victim" kHealthy
    sleep 2
    [[ $(alive_at "$victim") == 0 ]] || fail "with auto_failover off $victim was recovered by itself"
    do_it 'recover endpoint ok' "recoverendpoint $victim"
    await 60 'all replicas after recoverendpoint' is_whole
    say "recoverendpoint $victim has brought its replicas back"

    kill_server "${tablets[@]}"
    for endpoint in "${tablets[@]}"; do await 30 "kOffline of $endpoint" has_state "$endpoint" kOffline; done
    start "${tablets[@]}"
    for endpoint in "${tablets[@]}"; do await 30 "kHealthy of $endpoint" has_state "$endpoint" kHealthy; done
    ! patience=3000 ns 'scan t probe1 0 0' >/dev/null || fail 'with auto_failover off a read succeeded after all replicas were down'
    began=$(now)
    for endpoint in "${tablets[@]}"; do do_it 'update ok' "updatetablealive t * $endpoint no"; done
    tid=$(rows | awk 'NR == 1 { print $2 }')
    for ((pid = 0; pid < partitions; pid++)); do recover_partition "$pid"; done
    await 60 'all replicas after the manual recovery' is_whole
    back_after "$began" 'the first command of the manual recovery'
    ((took <= all_by_hand)) || all_by_hand=$took
    await_written
done
do_it 'set auto_failover ok' 'confset auto_failover true'
check
pass "$rounds rounds, reads and writes back $by_hand ms after offlineendpoint, all replicas of $partitions partitions recovered by hand in $all_by_hand ms, $figures"
