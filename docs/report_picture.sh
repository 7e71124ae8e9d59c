#!/bin/sh
# Make docs/images/report.png from the report of a run: sh docs/report_picture.sh work/demo/report.html
# Needs chromium (Debian's package). The picture is the first screen at a width of 1280 pixels.
set -eu
[ $# -eq 1 ] || { echo "usage: sh docs/report_picture.sh REPORT.html" >&2; exit 2; }
report=$(realpath "$1")
cd "$(dirname "$0")/images"
profile=$(mktemp -d)
chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars \
    --user-data-dir="$profile" --window-size=1280,1000 --screenshot=report.png "file://$report"
rm -rf "$profile"
