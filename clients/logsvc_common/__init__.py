"""The contract both sides share: record batches, messages, errors, names, retry rules. No sockets, no clock, no disk."""
