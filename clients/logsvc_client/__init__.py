"""The client library: Producer, Consumer, Admin and their async twins."""
