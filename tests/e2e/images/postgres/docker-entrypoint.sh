#!/bin/sh
# The part of the official entrypoint that the manifest uses: initialise an empty PGDATA (user, password, database).
set -eu
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  password=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:?password missing}")}
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  file=$(mktemp)
  printf '%s\n' "$password" > "$file"
  initdb --username="$user" --pwfile="$file" --auth-local=trust --auth-host=scram-sha-256 > /dev/null
  rm "$file"
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --silent --options="-c listen_addresses=''" start
  createdb --username="$user" "${POSTGRES_DB:-$user}" || [ "${POSTGRES_DB:-$user}" = postgres ]
  pg_ctl --wait --silent --mode=fast stop
fi
[ "$1" != postgres ] || set -- "$@" -c "listen_addresses=*"
exec "$@"
