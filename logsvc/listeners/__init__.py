"""The edges of the broker: ZeroMQ for clients, HTTP for metrics and health."""
