# The newest dump in place of all that is there, in one transaction: whole, or nothing is changed.
set -eu
dump=$(ls -1 /backup/*.dump | tail -n 1)
script=/backup/restore.partial
echo 'SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public;' > "$script"
pg_restore --no-owner --no-privileges --file=- "$dump" >> "$script"
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --single-transaction --file="$script" > /dev/null
rm "$script"
echo "$dump"
