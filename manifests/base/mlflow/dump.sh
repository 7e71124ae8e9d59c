# Write a dump of the database. It gets its final name only after pg_restore has read its table of contents.
set -eu
rm -f /backup/*.partial
dump=/backup/mlflow-$(date -u +%Y%m%dT%H%M%SZ).dump
pg_dump --format=custom --file="$dump.partial"
pg_restore --list "$dump.partial" > /dev/null
mv "$dump.partial" "$dump"
ls -1 /backup/*.dump | head -n -14 | xargs -r rm
echo "$dump"
