"""Evidence: what is known about a passage, as log-likelihoods `b (L, V)`; the names are those of `flow`."""
