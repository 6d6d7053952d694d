"""A storm: many processes of the bridge under load, killed and frozen at random, and a judge of what came of it."""
