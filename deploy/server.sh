#!/usr/bin/env bash
# One server on the machine where this runs. start-all.sh and stop-all.sh give this file to a bash there, here or through ssh:
#
#   bash -s -- launch|ready|stop|state|used ROLE HOST:PORT DIRECTORY [BINARY FLAG...]
#
# DIRECTORY.pid has the process id and, below it, the length that DIRECTORY.log had when that process was started.
set -euo pipefail

action=$1 role=$2 endpoint=$3 dir=$4
shift 4
# Seconds that a server may take to become ready, and to end.
patience=${stela_patience:-60}

die() {
    echo "$role $endpoint: $*" >&2
    exit 1
}

# Sets pid, if the server runs. A process that got the number of one that is gone has another command line.
runs() {
    { read -r pid && read -r from; } 2>/dev/null <"$dir.pid" || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -Fxq -- "--db_root_path=$dir"
}

# Of one that has ended nothing is left, or, until its parent notices, no command line.
is_gone() {
    [[ -z $(tr -d '\0' 2>/dev/null <"/proc/$pid/cmdline") ]]
}

answers() {
    (exec 3<>"/dev/tcp/${endpoint%:*}/${endpoint##*:}") 2>/dev/null
}

said() {
    tail -c "+$((from + 1))" "$dir.log"
}

case $action in
    launch)
        bin=$1
        shift
        if runs; then
            echo "$role $endpoint runs already, as process $pid"
            exit
        fi
        [[ -x $bin ]] || die "there is no program $bin on this host: install it there"
        mkdir -p "$(dirname "$dir")" || die "cannot make the directory above $dir: make it, and give it to $(id -un)"
        touch "$dir.log" "$dir.pid" || die "cannot write $dir.log: give $(dirname "$dir") to $(id -un)"
        from=$(wc -c <"$dir.log")
        # A session of its own: neither the end of this terminal nor Ctrl-C in it is meant for the server.
        setsid "$bin" "$@" "--role=$role" "--endpoint=$endpoint" "--db_root_path=$dir" </dev/null >>"$dir.log" 2>&1 &
        printf '%s\n' "$!" "$from" >"$dir.pid"
        echo "$role $endpoint is started, as process $!"
        ;;
    ready)
        [[ -s $dir.pid ]] || die "was not started"
        { read -r pid && read -r from; } <"$dir.pid"
        deadline=$((SECONDS + patience))
        until said | grep -q "^stela $role ready at "; do
            if is_gone; then
                rm -f "$dir.pid"
                why=$(said | grep '^stela: ' | tail -n 1) || why=$(said | tail -n 5)
                die "did not start: ${why#stela: } (its log is $dir.log)"
            fi
            ((SECONDS < deadline)) || die "is not ready after $patience s; it said last: $(said | tail -n 1) (its log is $dir.log)"
            sleep 0.1
        done
        echo "$role $endpoint is ready"
        ;;
    stop)
        if ! runs; then
            rm -f "$dir.pid"
            ! answers || die "was not started by start-all.sh, and yet something answers there: stop it as it was started (ss -ltnp shows who it is)"
            echo "$role $endpoint does not run"
            exit
        fi
        # It may end by itself just now.
        kill -TERM "$pid" 2>/dev/null || true
        deadline=$((SECONDS + patience))
        while runs; do
            ((SECONDS < deadline)) || die "still runs $patience s after SIGTERM; kill -9 $pid ends it, and loses nothing that was acknowledged"
            sleep 0.1
        done
        rm -f "$dir.pid"
        echo "$role $endpoint is stopped"
        ;;
    state)
        if runs; then echo "$pid"; fi
        ;;
    used)
        # Is there anything in its directory?
        if [[ -n $(ls -A "$dir" 2>/dev/null) ]]; then echo used; else echo empty; fi
        ;;
    *) die "there is no action $action" ;;
esac
