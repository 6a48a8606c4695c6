# Looks after the files that edgekit keeps on a phone, each under its sha256, and prints the names of those that it lacks.
#
# Arguments: the folder of edgekit, then pairs of a sha256 and the name under which the file has just arrived, or an empty
# word. A file whose content is another than its name says is removed.
files=$1/files runs=$1/runs
shift
umask 077
mkdir -p "$files" "$runs" || exit 1
# What killed clients left, and what nobody has used for a month.
find "$runs" -mindepth 1 -maxdepth 1 -mtime +1 -exec rm -rf {} \;
find "$files" -type f -name '*.part' -mtime +1 -exec rm -f {} \;
find "$files" -type f -mtime +30 -exec rm -f {} \;
cd "$files" || exit 1
while [ $# -gt 0 ]; do
    [ -z "$2" ] || [ ! -f "$2" ] || mv -f "$2" "$1"
    found=
    [ -f "$1" ] && found=$(sha256sum "$1")
    if [ "${found%% *}" = "$1" ]; then
        chmod 700 "$1"
        touch "$1"
    else
        rm -f "$1"
        echo "@edgekit lacks $1"
    fi
    shift 2
done
echo '@edgekit end'
