"""What pruning costs and saves on a user's own samples, judged by the unpruned model; see `iwp_transformers.tune`."""
