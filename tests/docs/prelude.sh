# Functions of the scripts that `machine.py` writes for the pages. They run in a network namespace of their own, with
# LOGS, the folder for what services print, in the environment.
set -u
ip link set lo up
ip address add 192.0.2.7/32 dev lo
services=()
orderly=()
id=
trap 'kill -KILL "${services[@]}" 2>/dev/null' EXIT

fail() {
    echo "FAILED: $1"
    tail -n 40 "$LOGS"/* 2>/dev/null
    exit 1
}

# run LINE: a command that ends by itself, and must succeed; it is tried for a while, since what it asks for may still be
# on its way. Variables that it sets stay. The word ID in it is the last id that was printed.
run() {
    local line=$1 attempts=0 code
    while :; do
        [[ " $1 " != *" ID "* ]] || line=${1/ ID/ $id}
        eval "$line" </dev/null >"$LOGS.shown" 2>&1 && break
        code=$?
        [ $((attempts += 1)) -lt 40 ] || { cat "$LOGS.shown"; fail "exit code $code of: $line"; }
        sleep 0.25
    done
    echo "\$ $line"
    cat "$LOGS.shown"
    found=$(grep -oE '^[0-9a-f-]{8,36}\b' "$LOGS.shown" | tail -n 1)
    [ -z "$found" ] || id=$found
}

# up PID LOG PATTERN: a service is up when it has printed what its line says, or anything, or is connected. One that was
# forked for its command is another process.
up() {
    local pid
    if [ -n "$3" ]; then grep -qE "$3" "$2"; return; fi
    pid=$(cat "$LOGS.job$1" 2>/dev/null) || pid=$1
    [ -s "$2" ] || ss -Htnp state established | grep -q "pid=$pid,"
}

# start LINE [PATTERN]: a service, which goes on beside the lines that follow.
start() {
    local log pid attempts=0
    log=$LOGS/$(printf %02d ${#services[@]})
    echo "\$ $1 &"
    eval "exec env $1" >"$log" 2>&1 </dev/null &
    pid=$!
    services+=("$pid")
    # make passes the signal on, waits, and ends by it; a plain server of Python ends by it.
    case $1 in make* | "python -m http.server"*) orderly[pid]=143 ;; *) orderly[pid]=0 ;; esac
    until up "$pid" "$log" "${2:-}"; do
        kill -0 "$pid" 2>/dev/null || fail "ended at once: $1"
        [ $((attempts += 1)) -lt 600 ] || fail "not up within two minutes: $1"
        sleep 0.2
    done
}

# finish: end all services, the last one first; each must have run until then, and must end in order.
finish() {
    local index pid code
    for ((index = ${#services[@]} - 1; index >= 0; index--)); do
        pid=${services[index]}
        kill -TERM "$pid" 2>/dev/null || fail "service $index had ended before it was told to"
        timeout 100 tail --pid="$pid" -f /dev/null || fail "service $index did not end within 100 s"
        wait "$pid"
        code=$?
        [ "$code" = "${orderly[pid]}" ] || fail "service $index ended with exit code $code"
    done
    services=()
    if grep -l "^Traceback" "$LOGS"/* 2>/dev/null; then fail "a service printed a traceback"; fi
    rm -f "$LOGS"/*
}
