"""Tests of the Hugging Face integration."""

from tests.integrations.torchvision_schemas import define_missing

# Before any of these modules imports Transformers.
define_missing()
