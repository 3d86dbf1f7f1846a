# Sourced by the install_*.sh beside it: one idempotent, atomic install of one thing into one folder.
#
#   begin NAME TARGET KEY   waits for another install of the same thing; KEY names what exactly is wanted
#   installed               is it there?
#   stage                   an empty $out to build in, and $work for everything else; both go away at exit
#   finish                  marks $out with KEY and puts it in TARGET's place
#   python311               the Python that the locks were made for
say() { printf '%s: %s (%d s)\n' "$name" "$*" "$SECONDS"; }
fail() { printf '%s: %s\n' "$name" "$*" >&2; exit 1; }

begin() {
    name=$1 key=$3
    mkdir -p "$(dirname "$2")"
    target=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
    mark=.$name-build
    exec 9>"$(dirname "$target")/.$name.lock"
    flock 9
}

installed() { [ "$(cat "$target/$mark" 2>/dev/null)" = "$key" ]; }

stage() {
    say "installing $key into $target"
    rm -rf "$(dirname "$target")/.$name-work."*      # of an install that was killed: the lock is ours
    work=$(mktemp -d "$(dirname "$target")/.$name-work.XXXXXX") out=$work/out
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    mkdir "$out"
}

finish() {
    echo "$key" >"$out/$mark"
    chmod -R a+rX "$out"
    rm -rf "$target"
    mv "$out" "$target"
    say "$key is installed, $(du -sh "$target" | cut -f1)"
}

python311() {
    local python
    for python in python3.11 python3; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "needs Python 3.11 with venv (the locks name packages for it)"
}
