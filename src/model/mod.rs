//! A GGUF file as a model: shape, weights, tokenizer, chat template, forward pass, and where files come from.
