"""Tests of every package; `oracles` and `strategies` are shared by all of them."""
