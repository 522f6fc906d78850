"""What imports vLLM: only vLLM itself loads these modules."""
