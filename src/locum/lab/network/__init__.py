"""The network of Fig. 5: its topology, its namespaces, and where a lab lives."""
