# A dump is there whole, and its list of contents can be read, or it isn't there.
set -eu
rm -f /backup/*.partial
dump=/backup/mlflow-$(date -u +%Y%m%dT%H%M%SZ).dump
pg_dump --format=custom --file="$dump.partial"
pg_restore --list "$dump.partial" > /dev/null
mv "$dump.partial" "$dump"
ls -1 /backup/*.dump | head -n -14 | xargs -r rm
echo "$dump"
