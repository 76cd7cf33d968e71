"""The contract of a model, its versions, the champion, and the log of its predictions."""
