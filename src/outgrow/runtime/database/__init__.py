"""The database tier: units of work, routed to a node that is fresh enough for their caller."""
