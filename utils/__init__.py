"""Everything around the networks: data, training, evaluation, inference."""
