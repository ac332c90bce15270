//! An OpenAI-compatible surface before a model server: only the sold model, and usage counted truly.
