"""The live view of `watch` and `demo`: figures, state, keys, and what is drawn."""
