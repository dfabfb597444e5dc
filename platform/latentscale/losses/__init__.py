"""Losses, one family a file; every function returns nats or plain numbers, never a scheduled weight."""
