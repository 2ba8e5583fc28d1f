"""Policies: a network and its loss, chunked (H actions at once)."""
