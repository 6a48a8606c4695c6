# Runs a program in a scratch folder, while nothing else is measured on the phone and for as long as the client is there.
#
# Arguments: the folder of edgekit, the name of the run, the file of the lock or an empty word, an archive to unpack or an
# empty word, the program and its arguments. The client writes a line at least every 5 s. It reads lines that start with
# `@edgekit`; after the last one, `@edgekit end CODE LOG OUTPUT`, come as many bytes of the log and of the file `output`.
main=$$ run=$1/runs/$2 lock=$3 inputs=$4
shift 4
umask 077

end_program() {
    [ -s "$run/child" ] && kill -9 -- "-$(cat "$run/child")"
}

remove_run() {
    cd /
    rm -rf "$run"
}

if ! mkdir -p "$run" || ! cd "$run"; then
    exit 1
fi
# A job in the background has no stdin unless it is handed over.
exec 3<&0

# Ends everything when stdin does, or is silent for 30 s, as after the cable was pulled: adb itself ends only the shell.
(
    trap '' HUP INT TERM
    while read -r -t 30 line <&3; do :; done
    kill -9 "$main"
    # Once more: the program may have started while the first attempt looked for it.
    end_program
    sleep 0.2
    end_program
    remove_run
) >/dev/null 2>&1 &
watcher=$!
trap 'end_program; kill -9 "$watcher"; remove_run; exit 129' HUP INT TERM

if [ -n "$lock" ]; then
    umask 0 # whoever creates the lock, other users must be able to open it
    exec 9>>"$lock"
    umask 077
    until flock -n 9 9<&9; do
        [ -n "$told" ] || echo '@edgekit waiting'
        told=1
        sleep 0.2
    done
fi
if [ -z "$inputs" ] || tar -xf "$inputs" 2>log; then
    echo '@edgekit running'
    setsid sh -c 'echo $$ >child; exec "$@"' sh "$@" </dev/null >log 2>&1 3<&- &
    wait $!
    code=$?
    end_program 2>/dev/null
else
    code=1
fi
touch log output
echo "@edgekit end $code $(wc -c <log) $(wc -c <output)"
cat log output
kill -9 "$watcher"
remove_run
