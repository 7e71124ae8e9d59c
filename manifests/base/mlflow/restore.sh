# Replace the content of the database by the newest dump in one transaction: either completely or not at all.
set -eu
dump=$(ls -1 /backup/*.dump | tail -n 1)
script=/backup/restore.partial
echo 'SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public;' > "$script"
pg_restore --no-owner --no-privileges --file=- "$dump" >> "$script"
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --single-transaction --file="$script" > /dev/null
rm "$script"
echo "$dump"
