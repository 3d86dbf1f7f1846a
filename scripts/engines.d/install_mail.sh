#!/bin/bash
# install_mail.sh TARGET: a virtual environment with aiosmtpd, a real SMTP server with STARTTLS and AUTH, for tests/clients/mail.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/install.sh"
begin mail "$1" "mail-$(sha256sum <"$here/mail-lock.txt" | cut -c1-12)"
if installed && "$target/bin/python" -c '' 2>/dev/null; then exit 0; fi

# A virtual environment knows its own path, so this one is made where it stays; the mark is written last.
say "installing $key into $target"
rm -rf "$target"
python=$(python311)
"$python" -m venv "$target"
"$target/bin/pip" install -q --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    -r "$here/mail-lock.txt"
echo "$key" >"$target/$mark"
say "$key is installed"
