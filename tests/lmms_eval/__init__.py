"""Tests of the model `iwp` of lmms-eval, and of `iwp reproduce`."""
