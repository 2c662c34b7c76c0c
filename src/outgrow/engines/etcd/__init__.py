"""etcd, three of which agree on who leads: its process, its certificates, and the one client that asks it."""
