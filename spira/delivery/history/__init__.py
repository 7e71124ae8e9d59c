"""What happened: the ledger, its checks, and the state computed from it."""
