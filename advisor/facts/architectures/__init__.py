"""Exact weights of a model from its config.json alone."""

from __future__ import annotations

from advisor.facts.architectures.build import Decoder, decoder_of, known_types, weights_of

__all__ = ["Decoder", "decoder_of", "known_types", "weights_of"]
