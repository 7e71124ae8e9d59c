"""The status page: what serves where since when, what changed and what came of it, and the problems of now.

timeline       records -> changes with their verdicts and releases, and events; a pure function
last_status    the status of the last tick, beside the ledger, for a server of the page that cannot tick
build          status and ledger -> the content of the page
render         the content -> one HTML file without scripts or requests; page.html is its template
"""
