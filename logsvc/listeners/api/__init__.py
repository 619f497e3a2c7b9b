"""The JSON API under /api/v1: what the console shows, for scripts too.

Every operation asks the broker with the messages that clients send over ZeroMQ (`Backend.call`), so there is one set of rules,
limits and errors. Records are decoded in threads, bounded in bytes, time and number (`scan`). Answers are structs
(`msgspec`), and the OpenAPI document is made from the same structs.

`backend` is what the broker hands over; the other modules import the web stack, about 0.1 s, and are imported when the broker
answers ZeroMQ already.
"""
