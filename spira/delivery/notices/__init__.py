"""Notices to a team: what a version's verdict was, what serves, and which problem lasts.

    notice      ledger records -> notices; a pure function
    message     a notice in words: the only module here with sentences that people read
    channels    the addresses (apprise: Slack, Teams, e-mail, webhooks and more), which are secrets
    outbox      what each address has got, in a small file beside the ledger
    send        sends what is due, after a tick

A notice is sent at least once: it is marked as sent after it was sent, so a kill in between sends it again, and its
ledger record is its id. Sending happens after the effects of a tick and in a thread, so that it neither delays nor
fails a delivery.
"""
