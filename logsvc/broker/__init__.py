"""What each request does: decoded, decided, answered. No sockets: `listeners` hand messages in and carry answers out."""
