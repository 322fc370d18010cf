"""Staged chips blended into shards, overviews made from shards, and the ledger of what is written."""
