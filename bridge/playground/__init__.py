"""The playground: a simulated Slack and a simulated Kapa that speak the vendors' protocols, and a page to type in.

The tests use the same servers. Nothing of the bridge itself lives here, and nothing here is needed in production.
"""
