"""The world of Kapa: `wire` knows its requests, replies and stream (pure), `client` sends and receives them."""
