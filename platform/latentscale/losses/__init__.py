"""Losses, one family per file. Every function returns nats or plain numbers, never a scheduled weight."""
